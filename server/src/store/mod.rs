//! The versioned store: the only place that knows RocksDB.
//!
//! Everything is a record with a key and versions (`keys`, `record`); a [`Sight`] says which version is visible. Content
//! of larger files lies in content files (`content`). A decision is one synced record (`decide`); what follows from it,
//! removing dead versions and merging committed ones, is background work (`reclaim`).

mod batch;
mod content;
mod db;
mod decide;
mod error;
mod fsck;
mod ids;
mod keys;
mod meta;
mod reclaim;
mod record;
mod sight;
mod snapshots;
mod sys;
mod versions;

pub use batch::Batch;
pub use content::Content;
pub use decide::Held;
pub use error::StoreError;
pub use fsck::{Problem, Report, fsck};
pub use keys::{Key, Order};
pub use reclaim::Reclaimed;
pub use record::{BlockRecord, DirStat, Entry, Inode};
pub use sight::{Listed, Reading, Sight};
pub use snapshots::Snapshot;

use crate::limits::{MENDING_BYTES_MIN, REOPEN_PAUSE, REOPEN_TIME_MAX, REOPEN_TRIES_MAX};
use db::{Db, Family};
use ids::Ids;
use mojavefs::file::{FileKind, Time};
use mojavefs::id::{Ino, IntervalId, Seq, SpecId};
use mojavefs::wire::SpaceInfo;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::{Mutex, RwLock};
use snapshots::Snapshots;
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The version of the on-disk format.
const FORMAT: u64 = 2;

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// How much memory its buffers and caches may take, in bytes.
    pub memory_bytes: usize,
    /// The owner of the root directory of a new store.
    pub owner: (u32, u32),
}

/// A store that is open. All methods may be called from any thread; those that change the same objects must be kept
/// apart by the caller, and decisions from everything else.
pub struct Store {
    dir: PathBuf,
    options: StoreOptions,
    /// `None` after an error that could not be mended.
    db: RwLock<Result<Arc<Db>, String>>,
    /// A commit may or may not be on disk, and it could not be found out.
    in_doubt: AtomicBool,
    ids: Ids,
    epoch: AtomicU64,
    decided: RwLock<Decided>,
    snapshots: Snapshots,
    /// Held while final versions are written or merged.
    final_writes: Mutex<()>,
    /// How many files each undecided interval changed.
    changes: Mutex<HashMap<IntervalId, u64>>,
    /// The oldest snapshot and the epoch when garbage was last looked through, and where to go on.
    garbage_seen: Mutex<Option<(Option<Seq>, Seq)>>,
    garbage_at: Mutex<Vec<u8>>,
    content: Content,
    _lock: Flock<File>,
}

/// Intervals whose versions still carry their number.
#[derive(Default)]
pub(super) struct Decided {
    /// Committed, with when they became final.
    pub(super) committed: HashMap<IntervalId, Seq>,
    /// Undone; their versions are waiting to be removed.
    pub(super) dead: Vec<IntervalId>,
}

impl Store {
    /// Opens the store in `dir`, making a new one in an empty or missing directory. What was undecided and not held is
    /// dead from here on.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let fresh = prepare_dir(dir)?;
        let lock = take_lock(dir)?;
        let db = Arc::new(Db::open(&dir.join("records"), options.memory_bytes)?);
        check_format(dir, &db, fresh)?;
        let content = Content::open(&dir.join("content"))?;
        let ids = Ids::open(&db)?;
        let store = Store {
            dir: dir.to_owned(),
            options,
            db: RwLock::new(Ok(db)),
            in_doubt: AtomicBool::new(false),
            epoch: AtomicU64::new(ids.first_epoch()),
            ids,
            decided: RwLock::default(),
            snapshots: Snapshots::default(),
            final_writes: Mutex::default(),
            changes: Mutex::default(),
            garbage_seen: Mutex::default(),
            garbage_at: Mutex::new(vec![meta::GARBAGE]),
            content,
            _lock: lock,
        };
        store.recover()?;
        store.make_root()?;
        if fresh {
            sync_names(dir)?;
        }
        Ok(store)
    }

    fn make_root(&self) -> Result<(), StoreError> {
        let sight = Sight::trunk();
        if self.inode(&sight, Ino::ROOT)?.found.is_some() {
            return Ok(());
        }
        let now = now();
        let (uid, gid) = self.options.owner;
        let root = Inode {
            kind: FileKind::Directory,
            mode: 0o755,
            uid,
            gid,
            rdev: 0,
            nlink: 1,
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            content: None,
            target: None,
            home: (Ino::ROOT, Vec::new()),
        };
        let mut batch = Batch::new(self, &sight);
        batch.put_inode(Ino::ROOT, &root)?;
        batch.put_dir_stat(Ino::ROOT, DirStat { subdirs: 0, atime: Some(now), mtime: Some(now), ctime: Some(now) })?;
        self.apply(batch)?;
        self.sync()
    }

    /// The records. After an error that could not be mended it is tried again, unless a commit is in doubt: then nothing
    /// goes on before the next start has read what is there.
    pub(in crate::store) fn db(&self) -> Result<Arc<Db>, StoreError> {
        if let Ok(db) = &*self.db.read() {
            return Ok(db.clone());
        }
        let mut slot = self.db.write();
        match &*slot {
            Ok(db) => return Ok(db.clone()),
            Err(why) if self.in_doubt.load(Ordering::SeqCst) => return Err(StoreError::Stopped(why.clone())),
            Err(_) => {}
        }
        match Db::open(&self.dir.join("records"), self.options.memory_bytes) {
            Ok(db) => {
                let db = Arc::new(db);
                *slot = Ok(db.clone());
                Ok(db)
            }
            Err(error) => Err(StoreError::Stopped(error.to_string())),
        }
    }

    /// Closes the record store and opens it again, so that what is on disk is what is read: after a sync that failed.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.db.write();
        let old = std::mem::replace(&mut *slot, Err("it is being opened again".into()));
        if let Err(error) = wait_until_unused(old) {
            *slot = Err(error.to_string());
            return Err(error);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match Db::open(&self.dir.join("records"), self.options.memory_bytes) {
                Ok(db) => {
                    *slot = Ok(Arc::new(db));
                    return Ok(());
                }
                Err(error) if tries == REOPEN_TRIES_MAX => {
                    *slot = Err(error.to_string());
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!("opening the records again: {error}");
                    std::thread::sleep(REOPEN_PAUSE);
                }
            }
        }
    }

    /// Writes the log to disk. After a failure the record store stays in error until it is opened again; so it is, which
    /// writes everything that was in the log to tables, and what is left is tried once more.
    pub(in crate::store) fn sync_records(&self) -> Result<(), StoreError> {
        let Err(error) = self.db()?.sync() else { return Ok(()) };
        self.mend(&error.to_string())?;
        self.db()?.sync()
    }

    /// The record store refuses everything after an error until it is opened again.
    pub(in crate::store) fn mend(&self, why: &str) -> Result<(), StoreError> {
        tracing::error!("the records could not be written, opening them again: {why}");
        let _writers = self.final_writes.lock();
        self.reopen()
    }

    /// Where the store is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The contents of files.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// New, never used numbers.
    pub fn next_ino(&self) -> Result<Ino, StoreError> {
        Ok(Ino(self.ids.ino.next(&*self.db()?)?))
    }

    /// A new number for an interval, context, speculation, content or layer.
    pub fn next_id(&self) -> Result<u64, StoreError> {
        self.ids.id.next(&*self.db()?)
    }

    /// A new number for a speculation. Every job begins here: an error that the background work of the record store left
    /// behind is mended first.
    pub fn next_spec(&self) -> Result<SpecId, StoreError> {
        let next = || self.ids.spec.next(&*self.db()?);
        let number = match next() {
            Err(StoreError::Records(why)) => {
                self.mend(&why)?;
                next()?
            }
            Err(StoreError::NoSpace(why)) if self.space()?.available_bytes > MENDING_BYTES_MIN => {
                self.mend(&why)?;
                next()?
            }
            number => number?,
        };
        Ok(SpecId(number))
    }

    /// The order that what is written on trunk gets now.
    pub(super) fn epoch(&self) -> Seq {
        Seq(self.epoch.load(Ordering::SeqCst))
    }

    /// Ends the epoch and returns it.
    pub(super) fn end_epoch(&self) -> Result<Seq, StoreError> {
        let ended = Seq(self.epoch.fetch_add(1, Ordering::SeqCst));
        self.ids.reserve_epoch(&*self.db()?, ended.0 + 1)?;
        Ok(ended)
    }

    /// Keeps what is final now readable. The caller keeps trunk's writers out meanwhile.
    pub fn take_snapshot(&self) -> Result<Snapshot, StoreError> {
        let _writers = self.final_writes.lock();
        let snapshot = self.snapshots.take(self.epoch());
        self.end_epoch()?;
        Ok(snapshot)
    }

    /// Takes up the snapshot of a held speculation again, before anything is reclaimed.
    pub fn adopt_snapshot(&self, seq: Seq) -> Snapshot {
        self.snapshots.take(seq)
    }

    /// Makes everything final durable that was applied before.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.content.sync_all()?;
        self.sync_records()
    }

    /// Writes the log to disk, if anything was written since the last time.
    pub fn sync_log(&self) -> Result<(), StoreError> {
        self.sync_records()
    }

    pub(super) fn note_changes(&self, interval: IntervalId, inodes: u64) {
        if inodes > 0 {
            *self.changes.lock().entry(interval).or_insert(0) += inodes;
        }
    }

    /// How many files an undecided interval changed.
    pub fn changes_count(&self, interval: IntervalId) -> u64 {
        self.changes.lock().get(&interval).copied().unwrap_or(0)
    }

    /// The disk under the store.
    pub fn space(&self) -> Result<SpaceInfo, StoreError> {
        let disk = nix::sys::statvfs::statvfs(&self.dir)
            .map_err(|errno| StoreError::io(format!("statvfs {}", self.dir.display()), errno.into()))?;
        let unit = disk.fragment_size();
        Ok(SpaceInfo {
            total_bytes: disk.blocks() * unit,
            free_bytes: disk.blocks_free() * unit,
            available_bytes: disk.blocks_available() * unit,
            files: disk.files() - disk.files_free(),
            files_free: disk.files_available(),
        })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Ok(db) = self.db()
            && let Err(error) = self.sync().and_then(|()| db.flush())
        {
            tracing::error!("closing {}: {error}", self.dir.display());
        }
    }
}

/// Waits for other threads to finish with the database they are reading, and closes it.
fn wait_until_unused(db: Result<Arc<Db>, String>) -> Result<(), StoreError> {
    let Ok(db) = db else { return Ok(()) };
    let deadline = Instant::now() + REOPEN_TIME_MAX;
    while Arc::strong_count(&db) > 1 {
        if Instant::now() > deadline {
            return Err(StoreError::Stopped("the records are still in use and can't be opened again".into()));
        }
        std::thread::yield_now();
    }
    Ok(())
}

/// Makes the directory if it is missing; true if it holds no store yet.
fn prepare_dir(dir: &Path) -> Result<bool, StoreError> {
    fs::create_dir_all(dir).map_err(|e| StoreError::io(format!("create {}", dir.display()), e))?;
    let records = dir.join("records");
    if records.try_exists().map_err(|e| StoreError::io(format!("look at {}", records.display()), e))? {
        return Ok(false);
    }
    let mut entries = fs::read_dir(dir).map_err(|e| StoreError::io(format!("read {}", dir.display()), e))?;
    let foreign = entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "lock" && e.file_name() != "lost+found"));
    match foreign {
        true => Err(StoreError::NotAStore(dir.to_owned())),
        false => Ok(true),
    }
}

/// A new store's directory and what is in it stay there whatever happens.
fn sync_names(dir: &Path) -> Result<(), StoreError> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for dir in [dir, parent] {
        let synced = File::open(dir).and_then(|dir| dir.sync_all());
        synced.map_err(|e| StoreError::io(format!("sync {}", dir.display()), e))?;
    }
    Ok(())
}

fn take_lock(dir: &Path) -> Result<Flock<File>, StoreError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| StoreError::io(format!("open {}", path.display()), e))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        nix::errno::Errno::EAGAIN => StoreError::InUse(dir.to_owned()),
        errno => StoreError::io(format!("lock {}", path.display()), errno.into()),
    })
}

fn check_format(dir: &Path, db: &Db, fresh: bool) -> Result<(), StoreError> {
    match db.get(Family::Meta, meta::FORMAT)? {
        None if fresh => {
            let mut writes = db.writes();
            writes.put(Family::Meta, meta::FORMAT, &FORMAT.to_be_bytes());
            writes.apply(true)
        }
        None => Err(StoreError::corrupt(format!("{} has no format record", dir.display()))),
        Some(bytes) => match bytes.try_into().map(u64::from_be_bytes) {
            Ok(FORMAT) => Ok(()),
            Ok(found) => Err(StoreError::Format { path: dir.to_owned(), found, known: FORMAT }),
            Err(_) => Err(StoreError::corrupt("the format record is no number")),
        },
    }
}

/// The system's clock.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

    #[test]
    fn a_store_of_a_newer_format_is_refused_and_left_alone() {
        let dir = tempfile::TempDir::new().expect("a directory for the store");
        drop(Store::open(dir.path(), OPTIONS).expect("the store opens"));
        // What the recovery of this format would remove.
        let unknown = dir.path().join("content").join("77");
        fs::write(&unknown, b"of the newer format").expect("a file");
        let newer = (FORMAT + 1).to_be_bytes();
        {
            let db = Db::open(&dir.path().join("records"), OPTIONS.memory_bytes).expect("the records open");
            let mut writes = db.writes();
            writes.put(Family::Meta, meta::FORMAT, &newer);
            writes.apply(true).expect("a record");
        }
        let error = Store::open(dir.path(), OPTIONS).err().expect("the store is refused").to_string();
        let (theirs, ours) = (format!("has format {}", FORMAT + 1), format!("knows format {FORMAT}"));
        assert!(error.contains(&theirs) && error.contains(&ours), "{error}");
        assert!(unknown.exists());
        let db = Db::open(&dir.path().join("records"), OPTIONS.memory_bytes).expect("the records open");
        assert_eq!(db.get(Family::Meta, meta::FORMAT).expect("a record").as_deref(), Some(&newer[..]));
    }
}
