//! A store in a directory: records in RocksDB, blobs in files, and a file that is locked by who has it open.

use super::disk::Disk;
use super::files::Files;
use super::rocksdb::RocksDb;
use super::{Access, Blobs, Engine, EngineError, Records, Result, Space, Taken, private};
use crate::limits::{LOCK_ENDING_WAIT, LOCK_PAUSE, LOCK_WAIT};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The file that RocksDB begins with.
const CURRENT: &str = "CURRENT";

/// A directory in which a store lies, or may be made.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// The store in `dir`.
    pub fn at(dir: &Path) -> Self {
        Directory(dir.to_owned())
    }
}

impl Engine for Directory {
    fn name(&self) -> String {
        self.0.display().to_string()
    }

    fn take(&self, access: Access) -> Result<Arc<dyn Taken>> {
        let taken = if access == Access::Change { take_to_change(&self.0) } else { take_to_look(&self.0) };
        Ok(Arc::new(taken?))
    }
}

/// A directory that this process has for itself.
struct TakenDirectory {
    dir: PathBuf,
    access: Access,
    made: Made,
    /// The records are still to be made.
    makes_records: AtomicBool,
    note: Option<String>,
    /// Keeps other processes out. A store that has lost its lock file, and is not to be changed, has none.
    lock: Option<Flock<File>>,
}

/// What taking a directory has made.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    /// Nothing: there was a store.
    Nothing,
    /// The store, in an empty directory.
    Store,
    /// The store and its directory.
    Directory,
}

fn take_to_change(dir: &Path) -> Result<TakenDirectory> {
    let missing = !exists(dir)?;
    let taken = prepare(dir).and_then(|is_new| {
        let lock = take_lock(dir, true)?;
        let made = match (is_new, missing) {
            (false, _) => Made::Nothing,
            (true, false) => Made::Store,
            (true, true) => Made::Directory,
        };
        let (dir, access, makes_records) = (dir.to_owned(), Access::Change, AtomicBool::new(is_new));
        let mut taken = TakenDirectory { dir, access, made, makes_records, note: None, lock };
        match private::tighten(&taken.dir) {
            Ok(note) => taken.note = note.filter(|_| !is_new),
            Err(error) => {
                taken.discard();
                return Err(error);
            }
        }
        Ok(taken)
    });
    if taken.is_err() && missing {
        // Whatever somebody else has put there meanwhile stays.
        let _ = fs::remove_dir(dir);
    }
    taken
}

fn take_to_look(dir: &Path) -> Result<TakenDirectory> {
    if !exists(&dir.join("records"))? && !exists(&dir.join("content"))? {
        return Err(EngineError::NoStore(dir.display().to_string()));
    }
    let lock = take_lock(dir, false)?;
    let (dir, access, made) = (dir.to_owned(), Access::Look, Made::Nothing);
    Ok(TakenDirectory { dir, access, made, makes_records: AtomicBool::new(false), note: None, lock })
}

impl Taken for TakenDirectory {
    fn is_new(&self) -> bool {
        self.made != Made::Nothing
    }

    fn note(&self) -> Option<String> {
        self.note.clone()
    }

    fn records(&self, memory_bytes: usize) -> Result<Arc<dyn Records>> {
        let path = self.dir.join("records");
        if self.access == Access::Look {
            require_whole(&path)?;
            return Ok(Arc::new(RocksDb::open_read_only(&path, memory_bytes)?));
        }
        let is_new = self.makes_records.load(Ordering::SeqCst);
        if !is_new {
            require_whole(&path)?;
        }
        private::make_dir(&path)?;
        let records = RocksDb::open(&path, memory_bytes, is_new)?;
        self.makes_records.store(false, Ordering::SeqCst);
        Ok(Arc::new(records))
    }

    fn blobs(&self) -> Result<Arc<dyn Blobs>> {
        let path = self.dir.join("content");
        Ok(Arc::new(if self.access == Access::Look { Files::look_at(&path) } else { Files::open(&path)? }))
    }

    fn space(&self) -> Arc<dyn Space> {
        Arc::new(Disk::under(&self.dir))
    }

    fn settle(&self) -> Result<()> {
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        for dir in [&self.dir, parent] {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(|e| EngineError::io(format!("sync {}", dir.display()), e))?;
        }
        Ok(())
    }

    fn ends(&self) {
        let Some(lock) = self.lock.as_ref().filter(|_| self.access == Access::Change) else { return };
        if let Err(error) = lock.write_all_at(ENDING, 0) {
            tracing::warn!("who opens {} next may not wait: write its lock: {error}", self.dir.display());
        }
    }

    fn discard(&self) {
        if self.made == Made::Nothing {
            return;
        }
        let removed = [fs::remove_dir_all(self.dir.join("records")), fs::remove_dir_all(self.dir.join("content"))];
        let files = ["reserve", "lock"].map(|name| fs::remove_file(self.dir.join(name)));
        for error in removed.into_iter().chain(files).filter_map(|removed| removed.err()) {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!("{} can't be cleaned up, remove what is in it: {error}", self.dir.display());
            }
        }
        if self.made == Made::Directory {
            // Whatever somebody else has put there meanwhile stays.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists().map_err(|e| EngineError::io(format!("look at {}", path.display()), e))
}

/// Makes the directory if it is missing; true if it holds no store yet.
fn prepare(dir: &Path) -> Result<bool> {
    private::make_dir(dir)?;
    let records = dir.join("records");
    if exists(&records)? {
        return is_begun(&records);
    }
    let ours = ["lock", "lost+found"];
    let is_foreign = entries(dir)?.iter().any(|name| !ours.iter().any(|ours| name == ours));
    if is_foreign { Err(EngineError::NotAStore(dir.display().to_string())) } else { Ok(true) }
}

/// Whether records are only begun: the power was cut when RocksDB had made neither the file that they begin with nor any that
/// could hold one.
fn is_begun(records: &Path) -> Result<bool> {
    let holds_records = |name: &OsString| {
        let extension = Path::new(name).extension();
        name == CURRENT || extension.is_some_and(|extension| extension == "sst" || extension == "log")
    };
    Ok(!entries(records)?.iter().any(holds_records))
}

fn entries(dir: &Path) -> Result<Vec<OsString>> {
    let failed = |e| EngineError::io(format!("read {}", dir.display()), e);
    let entries = fs::read_dir(dir).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name())).collect()
}

/// Without this file RocksDB would take the records for none and begin new ones over them.
fn require_whole(records: &Path) -> Result<()> {
    let current = records.join(CURRENT);
    if exists(&current)? {
        return Ok(());
    }
    Err(EngineError::Corrupt(format!("{} is missing, which the records begin with", current.display())))
}

/// What a process writes to the lock when it is ending. It means nothing once that is free.
const ENDING: &[u8] = b"ending\n";

/// Whether the process that has the lock has said that it is ending.
fn is_ending(lock: &File) -> bool {
    let mut said = [0; ENDING.len()];
    lock.read_exact_at(&mut said, 0).is_ok() && said == ENDING
}

/// Keeps other processes out; waits for one that is ending. Nothing if it is not to be made and is missing.
fn take_lock(dir: &Path, create: bool) -> Result<Option<Flock<File>>> {
    let path = dir.join("lock");
    let mut file = match private::options().read(true).write(create).create(create).truncate(false).open(&path) {
        Err(e) if !create && e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| EngineError::io(format!("open {}", path.display()), e))?,
    };
    let failed = |e| EngineError::io(format!("lock {}", path.display()), e);
    let began = Instant::now();
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => {
                if create {
                    locked.set_len(0).map_err(failed)?;
                }
                return Ok(Some(locked));
            }
            Err((again, Errno::EAGAIN)) => file = again,
            Err((_, errno)) => return Err(failed(errno.into())),
        }
        let (limit, refused): (_, fn(String) -> EngineError) = match is_ending(&file) {
            true => (LOCK_ENDING_WAIT, EngineError::Ending),
            false => (LOCK_WAIT, EngineError::InUse),
        };
        if began.elapsed() >= limit {
            return Err(refused(dir.display().to_string()));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreOptions};

    const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

    #[test]
    fn a_store_whose_making_was_cut_off_is_made_anew_and_one_that_has_lost_its_beginning_is_not() {
        let dir = tempfile::TempDir::new().expect("a directory for the store");
        let records = dir.path().join("records");
        fs::create_dir(&records).expect("a directory");
        for name in ["IDENTITY", "LOG", "MANIFEST-000001"] {
            fs::write(records.join(name), b"").expect("a file");
        }
        drop(Store::open(&Directory::at(dir.path()), OPTIONS).expect("a new store"));
        drop(Store::open(&Directory::at(dir.path()), OPTIONS).expect("the store"));
        fs::remove_file(records.join(CURRENT)).expect("it goes");
        let refused = Store::open(&Directory::at(dir.path()), OPTIONS).err().expect("it is damaged").to_string();
        assert!(refused.contains("CURRENT is missing"), "{refused}");
    }
}
