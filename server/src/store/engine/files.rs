//! Blobs as files of one directory: sparse, and changed in place.

use super::{BlobId, Blobs, EngineError, InPlace, Result, Uncached, is_cached_only, private, refuse, sys};
use crate::limits::OPEN_LAYERS_MAX;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The files of a store.
pub(super) struct Files {
    dir: PathBuf,
    open: Mutex<OpenFiles>,
    /// Held while a file is made longer.
    growing: Mutex<()>,
    /// How long one may be, once somebody has asked.
    longest: OnceLock<u64>,
}

#[derive(Default)]
struct OpenFiles {
    files: HashMap<BlobId, (Arc<File>, u64)>,
    clock: u64,
}

impl Files {
    /// The files in `dir`, which is made if it is missing; what else lies there goes.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        private::make_dir(dir)?;
        let files = Self::look_at(dir);
        for path in files.paths()? {
            if number(&path).is_none() {
                fs::remove_file(&path).map_err(|e| error("remove", &path, e))?;
            }
        }
        Ok(files)
    }

    /// The files in `dir`, as they are.
    pub(super) fn look_at(dir: &Path) -> Self {
        Files { dir: dir.to_owned(), open: Mutex::default(), growing: Mutex::default(), longest: OnceLock::new() }
    }

    fn path(&self, blob: BlobId) -> PathBuf {
        self.dir.join(blob.0.to_string())
    }

    fn paths(&self) -> Result<Vec<PathBuf>> {
        let failed = |e| error("read", &self.dir, e);
        let entries = fs::read_dir(&self.dir).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
    }

    fn file(&self, blob: BlobId, create: bool) -> Result<Arc<File>> {
        if let Some(file) = self.open.lock().find(blob) {
            return Ok(file);
        }
        if !create && is_cached_only() {
            return Err(refuse(Uncached::Bytes { blob, offset: 0, len: 0 }));
        }
        // Nobody else waits for the disk meanwhile.
        let path = self.path(blob);
        let opened = private::options().read(true).write(true).create(create).truncate(create).open(&path);
        let file = Arc::new(opened.map_err(|e| self.named("open", blob, e))?);
        let mut open = self.open.lock();
        if let Some(file) = open.find(blob) {
            return Ok(file);
        }
        if open.files.len() >= OPEN_LAYERS_MAX {
            open.close_oldest();
        }
        let clock = open.clock;
        open.files.insert(blob, (file.clone(), clock));
        Ok(file)
    }

    fn named(&self, what: &str, blob: BlobId, failure: io::Error) -> EngineError {
        if failure.kind() == io::ErrorKind::NotFound {
            EngineError::Missing(self.name(blob))
        } else {
            error(what, &self.path(blob), failure)
        }
    }
}

/// How long a file in this directory may be: by trying, since no call says so. Nothing is stored.
fn longest_in(dir: &Path) -> io::Result<u64> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let file = File::from(nix::fcntl::open(dir, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    let (mut possible, mut too_long) = (0, i64::MAX as u64);
    if file.set_len(too_long).is_ok() {
        return Ok(too_long);
    }
    while too_long - possible > 1 {
        let length = possible + (too_long - possible) / 2;
        match file.set_len(length) {
            Ok(()) => possible = length,
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => too_long = length,
            Err(error) => return Err(error),
        }
    }
    Ok(possible)
}

impl OpenFiles {
    fn find(&mut self, blob: BlobId) -> Option<Arc<File>> {
        self.clock += 1;
        let (file, used) = self.files.get_mut(&blob)?;
        *used = self.clock;
        Some(file.clone())
    }

    fn close_oldest(&mut self) {
        let mut used: Vec<u64> = self.files.values().map(|(_, used)| *used).collect();
        used.sort_unstable();
        let median = used[used.len() / 2];
        self.files.retain(|_, (_, used)| *used > median);
    }
}

impl Blobs for Files {
    fn fetch(&self, what: &Uncached) -> Result<()> {
        let Uncached::Bytes { blob, offset, len } = what else { return Ok(()) };
        self.file(*blob, false)?;
        self.read(*blob, *offset, &mut vec![0; *len]).map(drop)
    }

    fn name(&self, blob: BlobId) -> String {
        format!("the content file {}", self.path(blob).display())
    }

    fn create(&self, blob: BlobId) -> Result<()> {
        self.file(blob, true).map(drop)
    }

    fn longest(&self) -> u64 {
        *self.longest.get_or_init(|| longest_in(&self.dir).unwrap_or(u64::MAX))
    }

    fn len(&self, blob: BlobId) -> Result<u64> {
        let open = self.open.lock().find(blob);
        if open.is_none() && is_cached_only() {
            return Err(refuse(Uncached::Bytes { blob, offset: 0, len: 0 }));
        }
        let found = open.map_or_else(|| fs::metadata(self.path(blob)), |file| file.metadata());
        Ok(found.map_err(|e| self.named("look at", blob, e))?.len())
    }

    fn read(&self, blob: BlobId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let file = self.file(blob, false)?;
        let only_cached = is_cached_only();
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let read = match only_cached {
                true => sys::read_cached(&file, at, &mut buffer[done..]),
                false => file.read_at(&mut buffer[done..], at),
            };
            match read {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Err(refuse(Uncached::Bytes { blob, offset: at, len: buffer.len() - done }));
                }
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.named("read", blob, e)),
            }
        }
        Ok(done)
    }

    fn next_data(&self, blob: BlobId, offset: u64) -> Result<Option<u64>> {
        let file = self.file(blob, false)?;
        match lseek(&*file, offset as i64, Whence::SeekData) {
            Ok(at) => Ok(Some(at as u64)),
            Err(Errno::ENXIO) => Ok(None),
            Err(errno) => Err(self.named("look for data in", blob, errno.into())),
        }
    }

    fn sync(&self, blob: BlobId) -> Result<()> {
        self.file(blob, false)?.sync_data().map_err(|e| self.named("sync", blob, e))
    }

    fn sync_names(&self) -> Result<()> {
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|e| error("sync", &self.dir, e))
    }

    fn sync_all(&self) -> Result<()> {
        let dir = File::open(&self.dir).map_err(|e| error("open", &self.dir, e))?;
        nix::unistd::syncfs(dir).map_err(|errno| error("sync the disk under", &self.dir, errno.into()))
    }

    fn remove(&self, blob: BlobId) -> Result<()> {
        self.open.lock().files.remove(&blob);
        match fs::remove_file(self.path(blob)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.named("remove", blob, e)),
            _ => Ok(()),
        }
    }

    fn list(&self) -> Result<Vec<BlobId>> {
        Ok(self.paths()?.iter().filter_map(|path| number(path)).collect())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }
}

impl InPlace for Files {
    fn extend(&self, blob: BlobId, len: u64) -> Result<()> {
        let file = self.file(blob, false)?;
        let _alone = self.growing.lock();
        let now = file.metadata().map_err(|e| self.named("look at", blob, e))?.len();
        if now < len { file.set_len(len).map_err(|e| self.named("lengthen", blob, e)) } else { Ok(()) }
    }

    fn write(&self, blob: BlobId, offset: u64, data: &[u8]) -> Result<()> {
        self.file(blob, false)?.write_all_at(data, offset).map_err(|e| self.named("write", blob, e))
    }

    fn allocate(&self, blob: BlobId, offset: u64, len: u64) -> Result<()> {
        let file = self.file(blob, false)?;
        match fallocate(&*file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset as i64, len as i64) {
            // Who is told that fallocate is not supported writes zeros instead, and believes that these keep the space.
            Err(Errno::EOPNOTSUPP) => {
                Err(EngineError::Full(format!("{}: its filesystem can't promise space", self.path(blob).display())))
            }
            result => result.map_err(|errno| self.named("allocate space in", blob, errno.into())),
        }
    }

    fn start_write_out(&self, blob: BlobId) -> Result<()> {
        let file = self.file(blob, false)?;
        sys::start_write_out(&file).map_err(|e| self.named("write out", blob, e))
    }

    fn punch(&self, blob: BlobId, offset: u64, len: u64) -> Result<()> {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let file = self.file(blob, false)?;
        fallocate(&*file, flags, offset as i64, len as i64)
            .map_err(|errno| self.named("punch a hole into", blob, errno.into()))
    }
}

/// The number of the blob whose file this is.
fn number(path: &Path) -> Option<BlobId> {
    path.file_name()?.to_str()?.parse().ok().map(BlobId)
}

fn error(what: &str, path: &Path, failure: io::Error) -> EngineError {
    EngineError::io(format!("{what} {}", path.display()), failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::cached_only;
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

    #[test]
    fn bytes_that_are_not_in_memory_are_refused_until_they_were_fetched() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let (files, blob) = (Files::open(dir.path()).expect("blobs"), BlobId(1));
        files.create(blob).expect("a blob");
        files.write(blob, 0, &[7; 100_000]).expect("a write");
        files.sync(blob).expect("a sync");
        let mut buffer = vec![0; 200_000];
        let mut read = |files: &Files| cached_only(|| files.read(blob, 0, &mut buffer));
        assert_eq!(read(&files).0.expect("what was just written"), 100_000);
        // Not open, which is looked up on the disk.
        let files = Files::look_at(dir.path());
        let (found, refused) = read(&files);
        assert!(matches!(found, Err(EngineError::Uncached)));
        files.fetch(&refused.expect("it was refused")).expect("it is there");
        // Where the filesystem keeps its files in memory, nothing can be dropped.
        let file = files.file(blob, false).expect("it is open");
        posix_fadvise(&*file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).expect("a hint");
        let mut tries = 0;
        while let (_, Some(refused)) = read(&files) {
            files.fetch(&refused).expect("they are there");
            tries += 1;
            assert!(tries < 100, "{tries} tries");
        }
        assert_eq!(read(&files).0.expect("all is in memory"), 100_000);
    }
}
