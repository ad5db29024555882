//! Opening a store: a new one, one that is there, or one that is only to be looked at.

use super::db::{Db, Family};
use super::engine::{Access, Engine, Taken};
use super::ids::Ids;
use super::outcomes::{self, Outcomes};
use super::reserve::Reserve;
use super::snapshots::Snapshots;
use super::{
    Batch, Content, DirStat, FORMAT, Inode, OUTCOMES_SINCE, Sight, Store, StoreError, StoreOptions, WHOLE_FILES_SINCE,
    meta, now,
};
use crate::order::{Ordered, Place};
use mojavefs::id::Ino;
use mojavefs::protocol::file::FileKind;
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The oldest format that is taken up.
const OLDEST_FORMAT: u64 = 2;

impl Store {
    /// Opens the store that lies in `engine`, or makes a new one where there is none. What was undecided and not held is dead
    /// from here on.
    pub fn open(engine: &dyn Engine, options: StoreOptions) -> Result<Self, StoreError> {
        let taken = engine.take(Access::Change)?;
        let opened = Self::open_taken(engine.name(), taken.clone(), options);
        if opened.is_err() {
            taken.discard();
        }
        opened
    }

    /// A store that was made when it was opened goes again when it closes: nobody has used it.
    pub(crate) fn ends(&self) {
        self.engine.ends();
    }

    pub(crate) fn discard_if_new(&self) {
        self.unwanted.store(self.engine.is_new(), Ordering::SeqCst);
    }

    fn open_taken(name: String, taken: Arc<dyn Taken>, options: StoreOptions) -> Result<Self, StoreError> {
        let is_new = taken.is_new();
        let open = || taken.records(options.memory_bytes).map(Db::on).map_err(StoreError::from);
        let reserve = Reserve::of(taken.space());
        let db = match open() {
            Err(StoreError::NoSpace(_)) if reserve.release()? => open()?,
            db => db?,
        };
        let format = check_format(&name, &db, is_new)?;
        let content = Content::on(taken.blobs()?)?;
        if format < WHOLE_FILES_SINCE {
            content.make_whole()?;
        }
        if format < FORMAT {
            take_up(&db, format)?;
        }
        let mut store = Self::assemble(name, options, (taken, db, content), false)?;
        store.notes.extend(store.engine.note());
        store.recover()?;
        store.make_root()?;
        store.keep_room()?;
        if is_new {
            store.engine.settle()?;
        }
        Ok(store)
    }

    /// Opens the store that lies in `engine` as it is: nothing in it is changed, repaired, or taken up again.
    /// Returns its format, too.
    pub(super) fn open_to_check(engine: &dyn Engine, options: StoreOptions) -> Result<(Self, u64), StoreError> {
        let taken = engine.take(Access::Look)?;
        let db = Db::on(taken.records(options.memory_bytes)?);
        if is_empty(&db)? {
            return Err(StoreError::NoStore(engine.name()));
        }
        let format = check_format(&engine.name(), &db, false)?;
        let content = Content::on(taken.blobs()?)?;
        let store = Self::assemble(engine.name(), options, (taken, db, content), true)?;
        store.read_decisions()?;
        Ok((store, format))
    }

    fn assemble(
        name: String,
        options: StoreOptions,
        (engine, db, content): (Arc<dyn Taken>, Db, Content),
        read_only: bool,
    ) -> Result<Self, StoreError> {
        let ids = Ids::open(&db)?;
        let outcomes = Mutex::new(Outcomes::open(&db)?);
        Ok(Store {
            name,
            options,
            db: RwLock::new(Ok(Arc::new(db))),
            in_doubt: AtomicBool::new(false),
            reached: AtomicU64::new(0),
            epoch: AtomicU64::new(ids.first_epoch()),
            ids,
            decided: RwLock::default(),
            outcomes,
            snapshots: Snapshots::default(),
            final_writes: Ordered::mutex(Place::FinalWrites, ()),
            last_decision: Mutex::default(),
            changes: Mutex::new(HashMap::new()),
            change: AtomicU64::new(0),
            unmerged: Mutex::default(),
            kept: Mutex::default(),
            reclaimed_to: Mutex::default(),
            giving_back: Mutex::default(),
            content: Arc::new(content),
            host: OnceLock::new(),
            homes: super::homes::Homes::default(),
            reserve: Reserve::of(engine.space()),
            read_only,
            notes: Vec::new(),
            unwanted: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            engine,
        })
    }

    fn make_root(&self) -> Result<(), StoreError> {
        let sight = Sight::trunk();
        if self.inode(&sight, Ino::ROOT)?.found.is_some() {
            return Ok(());
        }
        let now = now();
        let root = Inode::new(FileKind::Directory, 0o755, self.options.owner, (Ino::ROOT, Vec::new()), now);
        let mut batch = Batch::new(self, &sight);
        batch.put_inode(Ino::ROOT, &root)?;
        batch.put_dir_stat(Ino::ROOT, DirStat { subdirs: 0, atime: Some(now), mtime: Some(now), ctime: Some(now) })?;
        self.apply(batch)?;
        self.sync()
    }
}

/// The format of the store, which this program knows.
fn check_format(store: &str, db: &Db, is_new: bool) -> Result<u64, StoreError> {
    match db.get(Family::Meta, meta::FORMAT)? {
        None if is_new || is_empty(db)? => write_format(db).map(|()| FORMAT),
        None => Err(StoreError::corrupt(format!("{store} has no format record"))),
        Some(bytes) => match bytes.try_into().map(u64::from_be_bytes) {
            Ok(known @ OLDEST_FORMAT..=FORMAT) => Ok(known),
            Ok(found) => Err(StoreError::Format { store: store.to_owned(), found, known: FORMAT }),
            Err(_) => Err(StoreError::corrupt("the format record is no number")),
        },
    }
}

/// Whether nothing is recorded: somebody began to make a store there and did not come to its first record.
fn is_empty(db: &Db) -> Result<bool, StoreError> {
    for family in Family::ALL {
        if db.scan(family, &[], &[]).item()?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
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
    use crate::store::engine::memory::Memory;
    use crate::store::engine::{BlobId, Blobs};

    const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

    /// The records of a store that is closed.
    fn records(engine: &dyn Engine) -> Db {
        let taken = engine.take(Access::Change).expect("nobody has it");
        Db::on(taken.records(OPTIONS.memory_bytes).expect("the records open"))
    }

    fn blobs(engine: &dyn Engine) -> Arc<dyn Blobs> {
        blobs_of(&*engine.take(Access::Change).expect("nobody has it"))
    }

    fn blobs_of(taken: &dyn Taken) -> Arc<dyn Blobs> {
        taken.blobs().expect("blobs")
    }

    #[test]
    fn a_store_of_a_newer_format_is_refused_and_left_alone() {
        let place = Memory::of(1 << 30);
        drop(Store::open(&place, OPTIONS).expect("the store opens"));
        // What the recovery of this format would remove.
        let unknown = BlobId(77);
        blobs(&place).create(unknown).expect("a content file");
        let newer = (FORMAT + 1).to_be_bytes();
        let open = || records(&place);
        {
            let db = open();
            let mut writes = db.writes();
            writes.put(Family::Meta, meta::FORMAT, &newer);
            writes.apply(true).expect("a record");
        }
        let error = Store::open(&place, OPTIONS).err().expect("the store is refused").to_string();
        let (theirs, ours) = (format!("has format {}", FORMAT + 1), format!("knows format {FORMAT}"));
        assert!(error.contains(&theirs) && error.contains(&ours), "{error}");
        assert_eq!(blobs(&place).list().expect("a list"), [unknown]);
        assert_eq!(open().get(Family::Meta, meta::FORMAT).expect("a record").as_deref(), Some(&newer[..]));
    }

    #[test]
    fn a_store_of_the_format_before_is_taken_up() {
        let place = Memory::of(1 << 30);
        drop(Store::open(&place, OPTIONS).expect("the store opens"));
        {
            let db = records(&place);
            let mut writes = db.writes();
            writes.put(Family::Meta, meta::FORMAT, &OLDEST_FORMAT.to_be_bytes());
            writes.put(Family::Meta, &meta::key(meta::LAYER, [7, 77]), &0_u64.to_be_bytes());
            writes.apply(true).expect("records");
        }
        let file = BlobId(77);
        blobs(&place).create(file).expect("a content file");
        let written = blobs(&place).in_place().expect("it can be changed").write(file, 0, b"a short block");
        written.expect("a write");
        assert!(super::super::fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked").problems.is_empty());
        let store = Store::open(&place, OPTIONS).expect("the store opens");
        assert_eq!(blobs_of(&*store.engine).len(file).expect("its length"), mojavefs::limits::BLOCK_BYTES);
        let db = store.db().expect("records");
        assert_eq!(db.get(Family::Meta, meta::FORMAT).expect("a record").as_deref(), Some(&FORMAT.to_be_bytes()[..]));
    }
}
