//! Content files: opening, reading, writing, and which of them are not on disk yet.

use crate::limits::{DIRTY_LAYER_BYTES, OPEN_LAYERS_MAX, SYNC_ALL_LAYERS};
use crate::store::StoreError;
use crate::store::db::{Db, Family};
use crate::store::{meta, private};
use mojavefs::id::{BlockNo, ContentId, IntervalId, LayerId};
use mojavefs::limits::BLOCK_BYTES;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The content files of a store.
pub struct Content {
    dir: PathBuf,
    open: Mutex<OpenFiles>,
    /// Where a writer puts blocks that are new to a content.
    current: Mutex<HashMap<(ContentId, IntervalId), LayerId>>,
    dirty: Mutex<Dirty>,
    /// Held while a file is made longer.
    growing: Mutex<()>,
    /// Held by the one sync under way: nobody may rely on a directory that another is still writing.
    syncing: Mutex<()>,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<LayerId, (Arc<File>, u64)>,
    clock: u64,
}

/// What a sync has to write.
#[derive(Default)]
struct Dirty {
    layers: HashMap<LayerId, DirtyLayer>,
    /// Files were created or removed since the directory was synced.
    names: bool,
}

struct DirtyLayer {
    content: ContentId,
    writer: IntervalId,
    /// Written since the last early write-out, in bytes.
    bytes: u64,
    /// Counts the writes, so that a sync knows whether it covered the last one.
    writes: u64,
    /// It has bytes where nothing was when it was last synced. If what is recorded of them is on disk and they are not, zeros
    /// are read there.
    grown: bool,
    /// A sync of it failed, and what was lost by that can't be known: whoever asks for it is told.
    failed: Option<String>,
}

impl DirtyLayer {
    /// What trunk writes is final at once, and no commit waits for the bytes. One that failed is told to those who ask for it.
    fn has_grown_on_trunk(&self) -> bool {
        self.grown && self.writer == IntervalId::FINAL && self.failed.is_none()
    }
}

/// What a write is for.
#[derive(Clone, Copy)]
pub(super) struct Purpose {
    pub(super) content: ContentId,
    pub(super) writer: IntervalId,
    /// It puts bytes where nothing was.
    pub(super) grows: bool,
}

impl Dirty {
    fn wrote(&mut self, Purpose { content, writer, grows }: Purpose, layer: LayerId) -> &mut DirtyLayer {
        let new = DirtyLayer { content, writer, bytes: 0, writes: 0, grown: false, failed: None };
        let entry = self.layers.entry(layer).or_insert(new);
        entry.writes += 1;
        entry.grown |= grows;
        entry
    }
}

impl Content {
    pub(in crate::store) fn open(dir: &Path) -> Result<Self, StoreError> {
        private::make_dir(dir)?;
        Ok(Self::look_at(dir))
    }

    /// The content files that lie in `dir`, as they are.
    pub(in crate::store) fn look_at(dir: &Path) -> Self {
        Content {
            dir: dir.to_owned(),
            open: Mutex::default(),
            current: Mutex::default(),
            dirty: Mutex::default(),
            growing: Mutex::default(),
            syncing: Mutex::default(),
        }
    }

    /// Removes the files that no record knows, or whose writer is not `known`: leftovers of a crash.
    pub(in crate::store) fn recover(&self, db: &Db, known: impl Fn(IntervalId) -> bool) -> Result<(), StoreError> {
        let mut layers = HashSet::new();
        let mut stale = db.writes();
        let mut scan = db.scan(Family::Meta, &[meta::LAYER], &[meta::LAYER]);
        while let Some((key, value)) = scan.item()? {
            if let (Some([_, layer]), Ok(writer)) = (meta::numbers(key), value.try_into()) {
                let writer = u64::from_be_bytes(writer);
                let undecided = db.contains(Family::Meta, &meta::key(meta::INTERVAL_LAYER, [writer, layer]))?;
                if !undecided || known(IntervalId(writer)) {
                    layers.insert(layer);
                } else {
                    stale.delete(Family::Meta, key);
                    stale.delete(Family::Meta, &meta::key(meta::INTERVAL_LAYER, [writer, layer]));
                }
            }
            scan.next();
        }
        stale.apply(false)?;
        let entries = fs::read_dir(&self.dir).map_err(|e| self.error("read", &self.dir, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| self.error("read", &self.dir, e))?;
            let layer = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if layer.is_none_or(|layer| !layers.contains(&layer)) {
                fs::remove_file(entry.path()).map_err(|e| self.error("remove", &entry.path(), e))?;
            }
        }
        Ok(())
    }

    fn path(&self, layer: LayerId) -> PathBuf {
        self.dir.join(layer.to_string())
    }

    fn error(&self, what: &str, path: &Path, error: io::Error) -> StoreError {
        StoreError::io(format!("{what} {}", path.display()), error)
    }

    fn file(&self, layer: LayerId, create: bool) -> Result<Arc<File>, StoreError> {
        let mut open = self.open.lock();
        open.clock += 1;
        let clock = open.clock;
        if let Some((file, used)) = open.files.get_mut(&layer) {
            *used = clock;
            return Ok(file.clone());
        }
        let path = self.path(layer);
        let opened = private::options().read(true).write(true).create(create).truncate(create).open(&path);
        let file = opened.map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => StoreError::corrupt(missing(&path)),
            _ => self.error("open", &path, e),
        })?;
        if open.files.len() >= OPEN_LAYERS_MAX {
            open.close_oldest();
        }
        let file = Arc::new(file);
        open.files.insert(layer, (file.clone(), clock));
        Ok(file)
    }

    /// Makes the file of a new layer.
    pub(super) fn create(&self, layer: LayerId) -> Result<(), StoreError> {
        self.file(layer, true)?;
        self.dirty.lock().names = true;
        Ok(())
    }

    /// Where `writer` puts blocks that are new to the content.
    pub(super) fn current(&self, content: ContentId, writer: IntervalId) -> Option<LayerId> {
        self.current.lock().get(&(content, writer)).copied()
    }

    pub(in crate::store) fn set_current(&self, content: ContentId, writer: IntervalId, layer: LayerId) {
        self.current.lock().insert((content, writer), layer);
    }

    /// No new block is put there any more.
    pub(in crate::store) fn retire(&self, layer: LayerId) {
        self.current.lock().retain(|_, current| *current != layer);
    }

    /// Makes the file of a layer as long as its blocks up to `last`, before one of these is recorded there: what is missing
    /// from a block can't be told from a hole otherwise.
    pub(super) fn cover(&self, layer: LayerId, last: BlockNo) -> Result<(), StoreError> {
        let file = self.file(layer, false)?;
        let _alone = self.growing.lock();
        match self.len(layer, &file)? {
            len if len < end_of(last) => {
                file.set_len(end_of(last)).map_err(|e| self.error("lengthen", &self.path(layer), e))
            }
            _ => Ok(()),
        }
    }

    fn len(&self, layer: LayerId, file: &File) -> Result<u64, StoreError> {
        Ok(file.metadata().map_err(|e| self.error("look at", &self.path(layer), e))?.len())
    }

    /// Makes every file whole blocks long, as this format has them.
    pub(in crate::store) fn make_whole(&self) -> Result<(), StoreError> {
        for entry in fs::read_dir(&self.dir).map_err(|e| self.error("read", &self.dir, e))? {
            let path = entry.map_err(|e| self.error("read", &self.dir, e))?.path();
            let file = OpenOptions::new().write(true).open(&path).map_err(|e| self.error("open", &path, e))?;
            let whole = file.metadata().map(|found| found.len().next_multiple_of(BLOCK_BYTES));
            whole.and_then(|len| file.set_len(len)).map_err(|e| self.error("lengthen", &path, e))?;
        }
        let dir = File::open(&self.dir).map_err(|e| self.error("open", &self.dir, e))?;
        nix::unistd::syncfs(dir).map_err(|errno| self.error("sync", &self.dir, errno.into()))
    }

    /// Fills `buffer` from blocks recorded in the file, from `offset` on.
    pub(super) fn read(&self, layer: LayerId, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let file = self.file(layer, false)?;
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("read", &self.path(layer), e)),
            }
        }
        match done == buffer.len() {
            true => Ok(()),
            false => self.whole(layer, &file, offset + buffer.len() as u64),
        }
    }

    /// Refuses a file that ends before the blocks that are recorded in it up to byte `end`: their bytes are lost.
    fn whole(&self, layer: LayerId, file: &File, end: u64) -> Result<(), StoreError> {
        let len = self.len(layer, file)?;
        let last = BlockNo(end.saturating_sub(1) / BLOCK_BYTES);
        match len < end_of(last) {
            true => Err(StoreError::corrupt(cut_off(&self.path(layer), len, last))),
            false => Ok(()),
        }
    }

    /// Writes all of `data` and notes that it is not on disk. Starts writing out early once much has gathered.
    pub(super) fn write(&self, purpose: Purpose, layer: LayerId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        let file = self.file(layer, false)?;
        // To write behind what is lost would make zeros of it.
        self.whole(layer, &file, offset + data.len() as u64)?;
        file.write_all_at(data, offset).map_err(|e| self.error("write", &self.path(layer), e))?;
        let mut dirty = self.dirty.lock();
        let entry = dirty.wrote(purpose, layer);
        entry.bytes += data.len() as u64;
        if entry.bytes < DIRTY_LAYER_BYTES {
            return Ok(());
        }
        entry.bytes = 0;
        drop(dirty);
        super::super::sys::start_write_out(&file).map_err(|e| self.error("write out", &self.path(layer), e))
    }

    /// What is wrong with the file of a layer in which blocks up to `last` are recorded, if anything is. `whole`: of a format
    /// in which files are whole blocks long.
    pub(in crate::store) fn lost(
        &self,
        layer: LayerId,
        last: BlockNo,
        whole: bool,
    ) -> Result<Option<String>, StoreError> {
        let path = self.path(layer);
        let least = if whole { end_of(last) } else { last.0 * BLOCK_BYTES + 1 };
        match fs::metadata(&path) {
            Ok(found) if found.len() >= least => Ok(None),
            Ok(found) => Ok(Some(cut_off(&path, found.len(), last))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Some(missing(&path))),
            Err(e) => Err(self.error("look at", &path, e)),
        }
    }

    /// Gives the space of one block back.
    pub(in crate::store) fn punch(&self, layer: LayerId, block: BlockNo) -> Result<(), StoreError> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let file = match self.file(layer, false) {
            // What is lost already is given back.
            Err(StoreError::Corrupt(_)) => return Ok(()),
            file => file?,
        };
        let offset = (block.0 * BLOCK_BYTES) as i64;
        fallocate(&*file, flags, offset, BLOCK_BYTES as i64)
            .map_err(|errno| self.error("punch a hole into", &self.path(layer), errno.into()))
    }

    pub(in crate::store) fn remove_layer(&self, layer: LayerId) -> Result<(), StoreError> {
        self.open.lock().files.remove(&layer);
        self.retire(layer);
        {
            let mut dirty = self.dirty.lock();
            dirty.layers.remove(&layer);
            dirty.names = true;
        }
        match fs::remove_file(self.path(layer)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error("remove", &self.path(layer), e)),
            _ => Ok(()),
        }
    }

    pub(in crate::store) fn forget_interval(&self, interval: IntervalId) {
        self.current.lock().retain(|(_, writer), _| *writer != interval);
    }

    /// What one interval wrote is another's now.
    pub(in crate::store) fn hand_over(&self, from: IntervalId, to: IntervalId) {
        let mut current = self.current.lock();
        let moved: Vec<_> = current.extract_if(|(_, writer), _| *writer == from).collect();
        for ((content, _), layer) in moved {
            current.entry((content, to)).or_insert(layer);
        }
        drop(current);
        let mut dirty = self.dirty.lock();
        dirty.layers.values_mut().filter(|layer| layer.writer == from).for_each(|layer| layer.writer = to);
    }

    pub(in crate::store) fn forget_content(&self, content: ContentId) {
        self.current.lock().retain(|(known, _), _| *known != content);
    }

    /// Makes what these intervals wrote durable, and what they may have built on. Blocks for the disk.
    pub(in crate::store) fn sync_intervals(&self, intervals: &[IntervalId]) -> Result<(), StoreError> {
        self.sync_those(|layer| intervals.contains(&layer.writer) || layer.has_grown_on_trunk())
    }

    /// Makes durable what the records of trunk refer to, before these are. Blocks for the disk.
    pub(in crate::store) fn sync_grown(&self) -> Result<(), StoreError> {
        let any = self.dirty.lock().layers.values().any(DirtyLayer::has_grown_on_trunk);
        if any { self.sync_those(DirtyLayer::has_grown_on_trunk) } else { Ok(()) }
    }

    /// Makes what was written to one content durable. Blocks for the disk.
    pub(in crate::store) fn sync_content(&self, content: ContentId) -> Result<(), StoreError> {
        self.sync_those(|layer| layer.content == content)
    }

    /// Makes everything durable. Blocks for the disk.
    pub(in crate::store) fn sync_all(&self) -> Result<(), StoreError> {
        self.sync_those(|_| true)
    }

    /// Syncs all of them that can be; an error if one can't.
    fn sync_those(&self, wanted: impl Fn(&DirtyLayer) -> bool) -> Result<(), StoreError> {
        let _one_at_a_time = self.syncing.lock();
        let (layers, names, mut failure) = {
            let mut dirty = self.dirty.lock();
            let wanted = || dirty.layers.iter().filter(|(_, layer)| wanted(layer));
            let failed = wanted().find_map(|(layer, dirty)| Some((*layer, dirty.failed.clone()?)));
            let failure = failed.map(|(layer, why)| self.error("sync", &self.path(layer), io::Error::other(why)));
            let whole = wanted().filter(|(_, layer)| layer.failed.is_none());
            let layers: Vec<(LayerId, u64)> = whole.map(|(id, layer)| (*id, layer.writes)).collect();
            (layers, std::mem::take(&mut dirty.names), failure)
        };
        let all_at_once = layers.len() > SYNC_ALL_LAYERS && self.sync_disk();
        for (layer, writes) in layers {
            let synced = if all_at_once { Ok(()) } else { self.sync_layer(layer) };
            if let Err(error) = self.note_sync(layer, writes, synced) {
                failure.get_or_insert(error);
            }
        }
        if names && !all_at_once {
            let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
            if let Err(error) = synced {
                self.dirty.lock().names = true;
                failure.get_or_insert(self.error("sync", &self.dir, error));
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Syncs everything on the disk; false if that failed, which does not say what.
    fn sync_disk(&self) -> bool {
        let synced = File::open(&self.dir).map_err(|e| e.to_string());
        let synced = synced.and_then(|dir| nix::unistd::syncfs(dir).map_err(|e| e.to_string()));
        synced.inspect_err(|why| tracing::error!("sync the disk under {}: {why}", self.dir.display())).is_ok()
    }

    fn sync_layer(&self, layer: LayerId) -> Result<(), StoreError> {
        let file = self.file(layer, false)?;
        file.sync_data().map_err(|e| self.error("sync", &self.path(layer), e))
    }

    /// Notes how the sync of a layer ended that had been written to so often before.
    fn note_sync(&self, layer: LayerId, writes: u64, synced: Result<(), StoreError>) -> Result<(), StoreError> {
        let mut dirty = self.dirty.lock();
        // One that was removed meanwhile need not be on disk.
        let Some(entry) = dirty.layers.get_mut(&layer) else { return Ok(()) };
        match synced {
            Ok(()) if entry.writes == writes => drop(dirty.layers.remove(&layer)),
            Ok(()) => {}
            Err(error) => {
                entry.failed = Some(error.to_string());
                return Err(error);
            }
        }
        Ok(())
    }
}

fn end_of(block: BlockNo) -> u64 {
    (block.0 + 1) * BLOCK_BYTES
}

fn missing(path: &Path) -> String {
    format!("the content file {} is missing", path.display())
}

fn cut_off(path: &Path, len: u64, block: BlockNo) -> String {
    format!("the content file {} ends at byte {len}, before the end of its block {}", path.display(), block.0)
}

impl OpenFiles {
    fn close_oldest(&mut self) {
        let mut used: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        used.sort_unstable();
        let median = used[used.len() / 2];
        self.files.retain(|_, (_, used)| *used > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sync_that_fails_is_told_to_those_who_ask_for_that_file_and_to_nobody_else() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let content = Content::look_at(dir.path());
        for number in 1..=3 {
            let layer = LayerId(number);
            let purpose = Purpose { content: ContentId(number), writer: IntervalId::FINAL, grows: true };
            content.create(layer).expect("a file");
            content.cover(layer, BlockNo(0)).expect("a block");
            content.write(purpose, layer, 0, b"bytes").expect("a write");
        }
        // What can't be opened can't be synced.
        content.open.lock().files.clear();
        fs::remove_file(content.path(LayerId(2))).expect("remove");
        content.sync_all().expect_err("a file is missing");
        content.sync_grown().expect("it has been told");
        assert_eq!(content.dirty.lock().layers.keys().collect::<Vec<_>>(), [&LayerId(2)]);
        content.sync_content(ContentId(1)).expect("it is there");
        content.sync_content(ContentId(2)).expect_err("it is missing");
        content.remove_layer(LayerId(2)).expect("it goes");
        content.sync_all().expect("what is gone need not be on disk");
    }

    #[test]
    fn what_was_handed_over_is_synced_and_written_on_with_who_has_it_now() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let content = Content::look_at(dir.path());
        let (from, to) = (IntervalId(5), IntervalId(4));
        for (number, writer) in [(1, to), (2, from), (3, from)] {
            let (layer, of) = (LayerId(number), ContentId(number / 2));
            content.create(layer).expect("a file");
            content.cover(layer, BlockNo(0)).expect("a block");
            content.write(Purpose { content: of, writer, grows: true }, layer, 0, b"bytes").expect("a write");
            content.set_current(of, writer, layer);
        }
        content.hand_over(from, to);
        assert_eq!([0, 1].map(|of| content.current(ContentId(of), to)), [Some(LayerId(1)), Some(LayerId(3))]);
        assert_eq!(content.current(ContentId(1), from), None);
        content.sync_intervals(&[from]).expect("nothing is its");
        assert_eq!(content.dirty.lock().layers.len(), 3);
        content.sync_intervals(&[to]).expect("a sync");
        assert!(content.dirty.lock().layers.is_empty());
    }
}
