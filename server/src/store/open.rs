//! Opening a store: a new one, one that is there, or one that is only to be looked at.

use super::db::{Db, Family};
use super::ids::Ids;
use super::outcomes::{self, Outcomes};
use super::room::Room;
use super::snapshots::Snapshots;
use super::{
    Batch, Content, DirStat, FORMAT, Inode, OUTCOMES_SINCE, Sight, Store, StoreError, StoreOptions, WHOLE_FILES_SINCE,
    meta, now,
};
use crate::limits::{LOCK_PAUSE, LOCK_WAIT};
use mojavefs::id::Ino;
use mojavefs::protocol::file::FileKind;
use nix::fcntl::{Flock, FlockArg};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// The oldest format that is taken up.
const OLDEST_FORMAT: u64 = 2;

/// What opening a store has made.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Made {
    /// Nothing: it was there.
    Nothing,
    /// The store, in an empty directory.
    Store,
    /// The store and its directory.
    Directory,
}

impl Store {
    /// Opens the store in `dir`, making a new one in an empty or missing directory. What was undecided and not held is
    /// dead from here on.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<Self, StoreError> {
        let missing = !exists(dir)?;
        let fresh = prepare_dir(dir)?;
        let opened = take_lock(dir, true).and_then(|lock| match Self::open_locked(dir, options, fresh) {
            Ok(mut store) => {
                store.lock = lock;
                store.made = match (fresh, missing) {
                    (false, _) => Made::Nothing,
                    (true, false) => Made::Store,
                    (true, true) => Made::Directory,
                };
                Ok(store)
            }
            Err(error) => {
                if fresh {
                    discard(dir);
                }
                Err(error)
            }
        });
        if opened.is_err() && missing {
            // Whatever somebody else has put there meanwhile stays.
            let _ = fs::remove_dir(dir);
        }
        opened
    }

    /// A store that was made when it was opened goes again when it closes: nobody has used it.
    pub(crate) fn discard_if_new(&self) {
        self.unwanted.store(self.made != Made::Nothing, Ordering::SeqCst);
    }

    /// Closes the records, and removes what opening has made. The lock is still held.
    pub(super) fn discard(&mut self) {
        *self.db.write() = Err("the store was discarded".into());
        discard(&self.dir);
        if self.made == Made::Directory {
            // Whatever somebody else has put there meanwhile stays.
            let _ = fs::remove_dir(&self.dir);
        }
    }

    fn open_locked(dir: &Path, options: StoreOptions, fresh: bool) -> Result<Self, StoreError> {
        let records = dir.join("records");
        let said = super::private::tighten(dir)?.filter(|_| !fresh);
        if !fresh {
            require_whole(&records)?;
        }
        super::private::make_dir(&records)?;
        let db = match Db::open(&records, options.memory_bytes, fresh) {
            Err(StoreError::NoSpace(_)) if Room::at(dir).release()? => Db::open(&records, options.memory_bytes, fresh)?,
            db => db?,
        };
        let format = check_format(dir, &db, fresh)?;
        let content = Content::open(&dir.join("content"))?;
        if format < WHOLE_FILES_SINCE {
            content.make_whole()?;
        }
        if format < FORMAT {
            take_up(&db, format)?;
        }
        let mut store = Self::assemble(dir, options, db, content, (None, false))?;
        store.notes.extend(said);
        store.recover()?;
        store.make_root()?;
        store.keep_room()?;
        if fresh {
            sync_names(dir)?;
        }
        Ok(store)
    }

    /// Opens the store in `dir` as it is: nothing in it is changed, repaired, or taken up again.
    /// Returns its format, too.
    pub(super) fn open_to_check(dir: &Path, options: StoreOptions) -> Result<(Self, u64), StoreError> {
        let (records, content) = (dir.join("records"), dir.join("content"));
        if !exists(&records)? && !exists(&content)? {
            return Err(StoreError::NoStore(dir.to_owned()));
        }
        let lock = take_lock(dir, false)?;
        require_whole(&records)?;
        let db = Db::open_read_only(&records, options.memory_bytes)?;
        let format = check_format(dir, &db, false)?;
        let store = Self::assemble(dir, options, db, Content::look_at(&content), (lock, true))?;
        store.read_decisions()?;
        Ok((store, format))
    }

    fn assemble(
        dir: &Path,
        options: StoreOptions,
        db: Db,
        content: Content,
        (lock, read_only): (Option<Flock<File>>, bool),
    ) -> Result<Self, StoreError> {
        let ids = Ids::open(&db)?;
        let outcomes = Mutex::new(Outcomes::open(&db)?);
        Ok(Store {
            dir: dir.to_owned(),
            options,
            db: RwLock::new(Ok(Arc::new(db))),
            in_doubt: AtomicBool::new(false),
            epoch: AtomicU64::new(ids.first_epoch()),
            ids,
            decided: RwLock::default(),
            outcomes,
            snapshots: Snapshots::default(),
            final_writes: Mutex::default(),
            changes: Mutex::new(HashMap::new()),
            unmerged: Mutex::default(),
            kept: Mutex::default(),
            reclaimed_to: Mutex::default(),
            giving_back: Mutex::default(),
            content: Arc::new(content),
            room: Room::at(dir),
            lock,
            read_only,
            made: Made::Nothing,
            notes: Vec::new(),
            unwanted: AtomicBool::new(false),
        })
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
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(|e| StoreError::io(format!("look at {}", path.display()), e))
}

/// Makes the directory if it is missing; true if it holds no store yet.
fn prepare_dir(dir: &Path) -> Result<bool, StoreError> {
    super::private::make_dir(dir)?;
    if exists(&dir.join("records"))? {
        return Ok(false);
    }
    let mut entries = fs::read_dir(dir).map_err(|e| StoreError::io(format!("read {}", dir.display()), e))?;
    let foreign = entries.any(|entry| entry.is_ok_and(|e| e.file_name() != "lock" && e.file_name() != "lost+found"));
    match foreign {
        true => Err(StoreError::NotAStore(dir.to_owned())),
        false => Ok(true),
    }
}

/// Removes what there is of a store that could not be made.
fn discard(dir: &Path) {
    let removed = [fs::remove_dir_all(dir.join("records")), fs::remove_dir_all(dir.join("content"))];
    for error in removed
        .into_iter()
        .chain(["reserve", "lock"].map(|name| fs::remove_file(dir.join(name))))
        .filter_map(Result::err)
    {
        if error.kind() != io::ErrorKind::NotFound {
            tracing::warn!("{} can't be cleaned up, remove what is in it: {error}", dir.display());
        }
    }
}

/// Without this file RocksDB would take the records for none and begin new ones over them.
fn require_whole(records: &Path) -> Result<(), StoreError> {
    let current = records.join("CURRENT");
    match exists(&current)? {
        true => Ok(()),
        false => Err(StoreError::corrupt(format!("{} is missing, which the records begin with", current.display()))),
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

/// Keeps other processes out; waits for one that is ending. A store that has lost its lock file, and is not to be changed, has
/// none.
fn take_lock(dir: &Path, create: bool) -> Result<Option<Flock<File>>, StoreError> {
    let path = dir.join("lock");
    let file = match super::private::options().read(true).write(create).create(create).truncate(false).open(&path) {
        Err(e) if !create && e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(|e| StoreError::io(format!("open {}", path.display()), e))?,
    };
    let deadline = Instant::now() + LOCK_WAIT;
    let mut file = file;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => return Ok(Some(locked)),
            Err((again, nix::errno::Errno::EAGAIN)) if Instant::now() < deadline => file = again,
            Err((_, nix::errno::Errno::EAGAIN)) => return Err(StoreError::InUse(dir.to_owned())),
            Err((_, errno)) => return Err(StoreError::io(format!("lock {}", path.display()), errno.into())),
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

/// The format of the store, which this program knows.
fn check_format(dir: &Path, db: &Db, fresh: bool) -> Result<u64, StoreError> {
    match db.get(Family::Meta, meta::FORMAT)? {
        None if fresh => write_format(db).map(|()| FORMAT),
        None => Err(StoreError::corrupt(format!("{} has no format record", dir.display()))),
        Some(bytes) => match bytes.try_into().map(u64::from_be_bytes) {
            Ok(known @ OLDEST_FORMAT..=FORMAT) => Ok(known),
            Ok(found) => Err(StoreError::Format { path: dir.to_owned(), found, known: FORMAT }),
            Err(_) => Err(StoreError::corrupt("the format record is no number")),
        },
    }
}

/// A store of an earlier format becomes one of this.
fn take_up(db: &Db, format: u64) -> Result<(), StoreError> {
    let mut writes = db.writes();
    if format < OUTCOMES_SINCE {
        outcomes::begin(db, &mut writes)?;
    }
    writes.put(Family::Meta, meta::FORMAT, &FORMAT.to_be_bytes());
    writes.apply(true)
}

fn write_format(db: &Db) -> Result<(), StoreError> {
    let mut writes = db.writes();
    writes.put(Family::Meta, meta::FORMAT, &FORMAT.to_be_bytes());
    writes.apply(true)
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
        let open = || Db::open(&dir.path().join("records"), OPTIONS.memory_bytes, false).expect("the records open");
        {
            let db = open();
            let mut writes = db.writes();
            writes.put(Family::Meta, meta::FORMAT, &newer);
            writes.apply(true).expect("a record");
        }
        let error = Store::open(dir.path(), OPTIONS).err().expect("the store is refused").to_string();
        let (theirs, ours) = (format!("has format {}", FORMAT + 1), format!("knows format {FORMAT}"));
        assert!(error.contains(&theirs) && error.contains(&ours), "{error}");
        assert!(unknown.exists());
        assert_eq!(open().get(Family::Meta, meta::FORMAT).expect("a record").as_deref(), Some(&newer[..]));
    }

    #[test]
    fn a_store_of_the_format_before_is_taken_up() {
        let dir = tempfile::TempDir::new().expect("a directory for the store");
        drop(Store::open(dir.path(), OPTIONS).expect("the store opens"));
        {
            let db = Db::open(&dir.path().join("records"), OPTIONS.memory_bytes, false).expect("the records open");
            let mut writes = db.writes();
            writes.put(Family::Meta, meta::FORMAT, &OLDEST_FORMAT.to_be_bytes());
            writes.put(Family::Meta, &meta::key(meta::LAYER, [7, 77]), &0_u64.to_be_bytes());
            writes.apply(true).expect("records");
        }
        let file = dir.path().join("content").join("77");
        fs::write(&file, b"a short block").expect("a file");
        assert!(super::super::fsck(dir.path(), OPTIONS, &mut |_| {}).expect("it is checked").problems.is_empty());
        let store = Store::open(dir.path(), OPTIONS).expect("the store opens");
        assert_eq!(fs::metadata(&file).expect("stat").len(), mojavefs::limits::BLOCK_BYTES);
        let db = store.db().expect("records");
        assert_eq!(db.get(Family::Meta, meta::FORMAT).expect("a record").as_deref(), Some(&FORMAT.to_be_bytes()[..]));
    }
}
