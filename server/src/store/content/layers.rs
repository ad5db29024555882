//! Content files: reading, writing, and which of them are not on disk yet. Each is a blob of the engine.

use crate::limits::{DIRTY_LAYER_BYTES, SYNC_ALL_LAYERS};
use crate::order::{Ordered, Place, waits_for_the_disk};
use crate::store::db::{Db, Family};
use crate::store::engine::{BlobId, Blobs, EngineError, InPlace, Uncached};
use crate::store::{StoreError, meta};
use mojavefs::id::{BlockNo, ContentId, IntervalId, LayerId};
use mojavefs::limits::{BLOCK_BYTES, FILE_BYTES_MAX};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The content files of a store.
pub struct Content {
    blobs: Arc<dyn Blobs>,
    /// Where a writer puts blocks that are new to a content.
    current: Mutex<HashMap<(ContentId, IntervalId), LayerId>>,
    dirty: Mutex<Dirty>,
    /// Held by the one sync under way: nobody may rely on a directory that another is still writing.
    syncing: Ordered<Mutex<()>>,
}

/// What a sync has to write.
#[derive(Default)]
struct Dirty {
    /// In an order, so that what goes wrong once goes wrong again.
    layers: BTreeMap<LayerId, DirtyLayer>,
    /// Files were created or removed since that was synced.
    names: bool,
    /// Those that were created: whose they are.
    new: BTreeMap<LayerId, (ContentId, IntervalId)>,
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

    /// These were created, and whether they will be there after a crash can't be known: as if a sync of each had failed.
    fn names_failed(&mut self, why: &str) {
        for (layer, (content, writer)) in std::mem::take(&mut self.new) {
            self.wrote(Purpose { content, writer, grows: true }, layer).failed = Some(why.to_owned());
        }
    }
}

impl Content {
    /// The content files that are these blobs.
    pub(in crate::store) fn on(blobs: Arc<dyn Blobs>) -> Result<Self, StoreError> {
        if blobs.in_place().is_none() {
            return Err(StoreError::Unsuited("content is changed where it lies, which this engine can't do"));
        }
        let (current, dirty) = (Mutex::default(), Mutex::default());
        let syncing = Ordered::mutex(Place::Syncing, ());
        Ok(Content { blobs, current, dirty, syncing })
    }

    /// Brings into memory what was refused.
    pub(in crate::store) fn fetch(&self, what: &Uncached) -> Result<(), StoreError> {
        Ok(self.blobs.fetch(what)?)
    }

    /// How long a file's content may be, in bytes.
    pub(in crate::store) fn longest(&self) -> u64 {
        FILE_BYTES_MAX.min(self.blobs.longest() / BLOCK_BYTES * BLOCK_BYTES)
    }

    fn in_place(&self) -> &dyn InPlace {
        self.blobs.in_place().expect("it was asked for when the store was opened")
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
        for blob in self.blobs.list()? {
            if !layers.contains(&blob.0) {
                self.blobs.remove(blob)?;
            }
        }
        Ok(())
    }

    /// Makes the file of a new layer, which this writer has in this content.
    pub(super) fn create(&self, layer: LayerId, content: ContentId, writer: IntervalId) -> Result<(), StoreError> {
        self.blobs.create(blob(layer))?;
        let mut dirty = self.dirty.lock();
        dirty.names = true;
        dirty.new.insert(layer, (content, writer));
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
        Ok(self.in_place().extend(blob(layer), end_of(last))?)
    }

    /// Notes that blocks which are about to be recorded in a layer lie where nothing was: its length is on disk before they are.
    pub(super) fn grows(&self, purpose: Purpose, layer: LayerId) {
        self.dirty.lock().wrote(purpose, layer);
    }

    /// Takes the space for bytes of blocks recorded in the file. They stay as they are.
    pub(super) fn allocate(&self, purpose: Purpose, layer: LayerId, bytes: Range<u64>) -> Result<(), StoreError> {
        self.in_place().allocate(blob(layer), bytes.start, bytes.end - bytes.start)?;
        self.dirty.lock().wrote(purpose, layer);
        Ok(())
    }

    /// Whether bytes of blocks recorded in the file may be something else than zeros.
    pub(super) fn has_data(&self, layer: LayerId, bytes: Range<u64>) -> Result<bool, StoreError> {
        Ok(self.blobs.next_data(blob(layer), bytes.start)?.is_some_and(|at| at < bytes.end))
    }

    /// Makes every file whole blocks long, as this format has them.
    pub(in crate::store) fn make_whole(&self) -> Result<(), StoreError> {
        for blob in self.blobs.list()? {
            self.in_place().extend(blob, self.blobs.len(blob)?.next_multiple_of(BLOCK_BYTES))?;
        }
        Ok(self.blobs.sync_all()?)
    }

    /// Fills `buffer` from blocks recorded in the file, from `offset` on.
    pub(super) fn read(&self, layer: LayerId, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let done = self.blobs.read(blob(layer), offset, buffer)?;
        if done == buffer.len() { Ok(()) } else { self.whole(layer, offset + buffer.len() as u64) }
    }

    /// Refuses a file that ends before the blocks that are recorded in it up to byte `end`: their bytes are lost.
    pub(super) fn whole(&self, layer: LayerId, end: u64) -> Result<(), StoreError> {
        let len = self.blobs.len(blob(layer))?;
        let last = BlockNo(end.saturating_sub(1) / BLOCK_BYTES);
        if len < end_of(last) { Err(StoreError::corrupt(self.cut_off(layer, len, last))) } else { Ok(()) }
    }

    fn cut_off(&self, layer: LayerId, len: u64, block: BlockNo) -> String {
        format!("{} ends at byte {len}, before the end of its block {}", self.blobs.name(blob(layer)), block.0)
    }

    /// Writes all of `data` and notes that it is not on disk. Starts writing out early once much has gathered.
    pub(super) fn write(&self, purpose: Purpose, layer: LayerId, offset: u64, data: &[u8]) -> Result<(), StoreError> {
        // To write behind what is lost would make zeros of it.
        self.whole(layer, offset + data.len() as u64)?;
        self.in_place().write(blob(layer), offset, data)?;
        let mut dirty = self.dirty.lock();
        let entry = dirty.wrote(purpose, layer);
        entry.bytes += data.len() as u64;
        if entry.bytes < DIRTY_LAYER_BYTES {
            return Ok(());
        }
        entry.bytes = 0;
        drop(dirty);
        Ok(self.in_place().start_write_out(blob(layer))?)
    }

    /// What is wrong with the file of a layer in which blocks up to `last` are recorded, if anything is. `whole`: of a format
    /// in which files are whole blocks long.
    pub(in crate::store) fn lost(
        &self,
        layer: LayerId,
        last: BlockNo,
        whole: bool,
    ) -> Result<Option<String>, StoreError> {
        let least = if whole { end_of(last) } else { last.0 * BLOCK_BYTES + 1 };
        match self.blobs.len(blob(layer)) {
            Ok(len) if len >= least => Ok(None),
            Ok(len) => Ok(Some(self.cut_off(layer, len, last))),
            Err(error @ EngineError::Missing(_)) => Ok(Some(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the space of one block back.
    pub(in crate::store) fn punch(&self, layer: LayerId, block: BlockNo) -> Result<(), StoreError> {
        match self.in_place().punch(blob(layer), block.0 * BLOCK_BYTES, BLOCK_BYTES) {
            // What is lost already is given back.
            Err(EngineError::Missing(_)) => Ok(()),
            result => Ok(result?),
        }
    }

    pub(in crate::store) fn remove_layer(&self, layer: LayerId) -> Result<(), StoreError> {
        self.retire(layer);
        {
            let mut dirty = self.dirty.lock();
            dirty.layers.remove(&layer);
            dirty.new.remove(&layer);
            dirty.names = true;
        }
        Ok(self.blobs.remove(blob(layer))?)
    }

    pub(in crate::store) fn forget_interval(&self, interval: IntervalId) {
        self.current.lock().retain(|(_, writer), _| *writer != interval);
    }

    /// What one interval wrote is another's now.
    pub(in crate::store) fn reassign(&self, from: IntervalId, to: IntervalId) {
        let mut current = self.current.lock();
        let moved: Vec<_> = current.extract_if(|(_, writer), _| *writer == from).collect();
        for ((content, _), layer) in moved {
            current.entry((content, to)).or_insert(layer);
        }
        drop(current);
        let mut dirty = self.dirty.lock();
        dirty.layers.values_mut().filter(|layer| layer.writer == from).for_each(|layer| layer.writer = to);
        dirty.new.values_mut().filter(|(_, writer)| *writer == from).for_each(|(_, writer)| *writer = to);
    }

    pub(in crate::store) fn forget_content(&self, content: ContentId) {
        self.current.lock().retain(|(known, _), _| *known != content);
    }

    /// Makes what these intervals wrote durable, and what they may have built on. Blocks for the disk.
    pub(in crate::store) fn sync_intervals(&self, intervals: &[IntervalId]) -> Result<(), StoreError> {
        self.sync_those(|layer| intervals.contains(&layer.writer) || layer.has_grown_on_trunk())
    }

    /// Whether all that these intervals wrote is durable.
    pub(in crate::store) fn is_synced(&self, intervals: &[IntervalId]) -> bool {
        let dirty = self.dirty.lock();
        let mut writers =
            dirty.layers.values().map(|layer| layer.writer).chain(dirty.new.values().map(|(_, writer)| *writer));
        !writers.any(|writer| intervals.contains(&writer))
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
        waits_for_the_disk();
        let _one_at_a_time = self.syncing.lock();
        let (layers, names, new, mut failure) = {
            let mut dirty = self.dirty.lock();
            let wanted = || dirty.layers.iter().filter(|(_, layer)| wanted(layer));
            let failed = wanted().find_map(|(layer, dirty)| Some((*layer, dirty.failed.clone()?)));
            let failure = failed.map(|(layer, why)| {
                let context = format!("sync {}", self.blobs.name(blob(layer)));
                StoreError::Io { context, source: io::Error::other(why) }
            });
            let whole = wanted().filter(|(_, layer)| layer.failed.is_none());
            let layers: Vec<(LayerId, u64)> = whole.map(|(id, layer)| (*id, layer.writes)).collect();
            let new: Vec<LayerId> = dirty.new.keys().copied().collect();
            (layers, std::mem::take(&mut dirty.names), new, failure)
        };
        let all_at_once = layers.len() > SYNC_ALL_LAYERS && self.sync_disk();
        for (layer, writes) in layers {
            let synced = if all_at_once { Ok(()) } else { self.sync_layer(layer) };
            if let Err(error) = self.note_sync(layer, writes, synced) {
                failure.get_or_insert(error);
            }
        }
        if names {
            let synced = if all_at_once { Ok(()) } else { self.blobs.sync_names() };
            let mut dirty = self.dirty.lock();
            match synced {
                Ok(()) => dirty.new.retain(|layer, _| !new.contains(layer)),
                // A later sync would say nothing of it.
                Err(error) => {
                    dirty.names_failed(&error.to_string());
                    failure.get_or_insert(error.into());
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Syncs everything at once; false if that failed, which does not say what.
    fn sync_disk(&self) -> bool {
        self.blobs.sync_all().inspect_err(|why| tracing::error!("{why}")).is_ok()
    }

    fn sync_layer(&self, layer: LayerId) -> Result<(), StoreError> {
        Ok(self.blobs.sync(blob(layer))?)
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

fn blob(layer: LayerId) -> BlobId {
    BlobId(layer.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::memory::Memory;
    use crate::store::engine::{Access, Engine};

    fn content() -> Content {
        let taken = Memory::of(1 << 30).take(Access::Change).expect("nobody has it");
        Content::on(taken.blobs().expect("blobs")).expect("they can be changed")
    }

    #[test]
    fn a_sync_that_fails_is_told_to_those_who_ask_for_that_file_and_to_nobody_else() {
        let content = content();
        for number in 1..=3 {
            let layer = LayerId(number);
            let purpose = Purpose { content: ContentId(number), writer: IntervalId::FINAL, grows: true };
            content.create(layer, purpose.content, purpose.writer).expect("a file");
            content.cover(layer, BlockNo(0)).expect("a block");
            content.write(purpose, layer, 0, b"bytes").expect("a write");
        }
        // What can't be opened can't be synced.
        content.blobs.remove(BlobId(2)).expect("remove");
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
        let content = content();
        let (from, to) = (IntervalId(5), IntervalId(4));
        for (number, writer) in [(1, to), (2, from), (3, from)] {
            let (layer, of) = (LayerId(number), ContentId(number / 2));
            content.create(layer, of, writer).expect("a file");
            content.cover(layer, BlockNo(0)).expect("a block");
            content.write(Purpose { content: of, writer, grows: true }, layer, 0, b"bytes").expect("a write");
            content.set_current(of, writer, layer);
        }
        content.reassign(from, to);
        assert_eq!([0, 1].map(|of| content.current(ContentId(of), to)), [Some(LayerId(1)), Some(LayerId(3))]);
        assert_eq!(content.current(ContentId(1), from), None);
        content.sync_intervals(&[from]).expect("nothing is its");
        assert_eq!(content.dirty.lock().layers.len(), 3);
        content.sync_intervals(&[to]).expect("a sync");
        assert!(content.dirty.lock().layers.is_empty());
    }
}
