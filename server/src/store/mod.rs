//! The versioned store. What it lies in, the records, blobs and space of an engine, it knows by their doors only (`engine`).
//!
//! Everything is a record with a key and versions (`keys`, `record`); a [`Sight`] says which version is visible. Content
//! of larger files lies in content files (`content`). A decision is one synced record (`decide`); what follows from it,
//! removing dead versions and merging committed ones, is background work (`reclaim`), and so is giving back the space of what
//! nothing refers to any more (`reclaim_space`).

mod batch;
mod bottom;
mod content;
mod db;
mod decide;
pub mod engine;
mod error;
mod fsck;
mod homes;
mod ids;
mod keys;
mod meta;
mod open;
mod outcomes;
mod reach;
mod reassign;
mod reclaim;
mod reclaim_space;
mod record;
mod reserve;
mod search;
mod sight;
mod snapshots;
mod versions;

pub use batch::Batch;
pub use bottom::{HostBytes, HostContents};
pub use content::{Content, Places};
pub use decide::{Held, Prepared, Rebased};
pub use error::StoreError;
pub use fsck::{Problem, Report, fsck};
pub use keys::{Key, Order};
pub use outcomes::{Remembered, Specs};
pub use reclaim::Reclaimed;
pub use record::{BlockRecord, DirStat, Entry, Inode};
pub use search::Search;
pub use sight::{Listed, Newer, Reading, Sight};
pub use snapshots::Snapshot;

use crate::limits::{REOPEN_PAUSE, REOPEN_TIME_MAX, REOPEN_TRIES_MAX};
use crate::order::Ordered;
use db::Db;
use engine::{Taken, Uncached};
use ids::Ids;
use mojavefs::id::{Ino, IntervalId, Seq, SpecId};
use mojavefs::protocol::SpaceInfo;
use mojavefs::protocol::file::Time;
use parking_lot::{Mutex, RwLock};
use snapshots::Snapshots;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// The version of the on-disk format.
const FORMAT: u64 = 7;
/// The format from which on content files are whole blocks long. One of the format before is made one of this when opened.
const WHOLE_FILES_SINCE: u64 = 3;
/// The format from which on it is recorded what was committed.
const OUTCOMES_SINCE: u64 = 4;

/// How a store is opened.
#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    /// How much memory its buffers and caches may take, in bytes.
    pub memory_bytes: usize,
    /// The owner of the root directory of a new store.
    pub owner: (u32, u32),
}

/// What an undecided interval has changed.
#[derive(Clone, Copy, Default)]
struct Changed {
    /// How many files.
    inodes: u64,
    /// The number of the last change.
    last: u64,
}

/// A store that is open. All methods may be called from any thread; those that change the same objects must be kept
/// apart by the caller, and decisions from everything else.
pub struct Store {
    /// What users call it.
    name: String,
    options: StoreOptions,
    /// `None` after an error that could not be mended.
    db: RwLock<Result<Arc<Db>, String>>,
    /// A commit may or may not be on disk, and it could not be found out.
    in_doubt: AtomicBool,
    /// How far the records had come when they were last closed.
    reached: AtomicU64,
    ids: Ids,
    epoch: AtomicU64,
    decided: RwLock<Decided>,
    outcomes: Mutex<outcomes::Outcomes>,
    snapshots: Snapshots,
    /// Held while final versions are written or merged.
    final_writes: Ordered<Mutex<()>>,
    /// When the last decision was made: none is made earlier, whatever the clock says.
    last_decision: Mutex<Time>,
    /// How much each undecided interval changed.
    changes: Mutex<HashMap<IntervalId, Changed>>,
    /// The number of the last change of any undecided interval.
    change: AtomicU64,
    /// How many records of committed intervals are not merged yet, of those that somebody has asked about. Taken before
    /// `final_writes`.
    unmerged: Mutex<HashMap<IntervalId, u64>>,
    /// How far what is kept for snapshots was looked through.
    kept: Mutex<reclaim::KeptSeen>,
    /// The decided interval that is being reclaimed, and the last of its changes that is done.
    reclaimed_to: Mutex<Option<(IntervalId, Key)>>,
    /// Held while space is given back. Taken before `final_writes`.
    giving_back: Mutex<()>,
    content: Arc<Content>,
    /// What has the contents that are the host's.
    host: OnceLock<Arc<dyn HostContents>>,
    homes: homes::Homes,
    reserve: reserve::Reserve,
    /// Only looked at: nothing is written, not even at the end.
    read_only: bool,
    /// What opening it has to tell users.
    notes: Vec<String>,
    /// What was made goes when it is closed.
    unwanted: AtomicBool,
    closed: AtomicBool,
    /// Where it lies. The last to be let go.
    engine: Arc<dyn Taken>,
}

/// Intervals whose versions still carry their number.
#[derive(Default)]
pub(super) struct Decided {
    /// Committed, and not merged yet.
    pub(super) committed: HashMap<IntervalId, Committed>,
    /// Undone; their versions are waiting to be removed.
    pub(super) dead: Vec<IntervalId>,
}

/// When something became final.
#[derive(Clone, Copy)]
pub(super) struct Committed {
    /// Its place among what is final.
    pub(super) seq: Seq,
    /// By the clock: whatever it has changed was not changed before that, to who looks at it.
    pub(super) at: Time,
    /// Nor modified.
    pub(super) marks_modified: bool,
}

impl Store {
    /// The records. After an error that could not be mended it is tried again, unless a commit is in doubt: then nothing
    /// goes on before the next start has read what is there. Whoever opens them again waits until all have let go of them: so
    /// who has them takes no lock that is held meanwhile (`final_writes`), and does not ask for them once more.
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
        match self.open_records() {
            Ok(db) => {
                let db = Arc::new(db);
                *slot = Ok(db.clone());
                Ok(db)
            }
            Err(error @ (StoreError::NoSpace(_) | StoreError::Stopped(_))) => Err(error),
            Err(error) => Err(StoreError::Stopped(error.to_string())),
        }
    }

    /// Closes the record store and opens it again, so that what is on disk is what is read: after a sync that failed.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut slot = self.db.write();
        let old = std::mem::replace(&mut *slot, Err("it is being opened again".into()));
        if let Ok(old) = &old {
            self.reached.store(old.reached(), Ordering::SeqCst);
        }
        if let Err(error) = wait_until_unused(old) {
            *slot = Err(error.to_string());
            return Err(error);
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.open_records() {
                Ok(db) => {
                    *slot = Ok(Arc::new(db));
                    return Ok(());
                }
                Err(StoreError::Stopped(why)) => {
                    *slot = Err(why.clone());
                    return Err(StoreError::Stopped(why));
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

    /// Writes to disk what the records of trunk refer to, so that they are not there without it. Whoever makes the log durable
    /// does this before. Blocks for the disk.
    pub fn write_out(&self) {
        if let Err(error) = self.content.sync_grown() {
            tracing::error!("writing out what was written outside jobs: {error}");
        }
    }

    /// Writes the log to disk. After a failure the record store stays in error until it is opened again; so it is, which
    /// writes everything that was in the log to tables, and what is left is tried once more.
    pub(in crate::store) fn sync_records(&self) -> Result<(), StoreError> {
        self.write_out();
        let Err(error) = self.db()?.sync() else { return Ok(()) };
        self.mend(&error.to_string())?;
        self.db()?.sync()
    }

    /// Nothing goes on before the next start has read what is there.
    pub(super) fn stop(&self, why: &str) {
        tracing::error!("the store stops: {why}");
        self.in_doubt.store(true, Ordering::SeqCst);
        *self.db.write() = Err(why.to_owned());
    }

    /// The record store refuses everything after an error until it is opened again.
    pub(in crate::store) fn mend(&self, why: &str) -> Result<(), StoreError> {
        tracing::error!("the records could not be written, opening them again: {why}");
        let _writers = self.final_writes.lock();
        self.reopen()
    }

    /// Opens the records again; on a full disk with what was kept back for that.
    fn open_records(&self) -> Result<Db, StoreError> {
        let open = || self.open_all_records();
        match open() {
            Err(StoreError::NoSpace(_)) if self.reserve.release()? => {
                let db = open()?;
                self.keep_rest()?;
                Ok(db)
            }
            db => db,
        }
    }

    /// Undecided work that was applied and is not found again must not be committed without what is missing. Nobody can say
    /// what that is, so nothing goes on.
    fn open_all_records(&self) -> Result<Db, StoreError> {
        let db = Db::on(self.engine.records(self.options.memory_bytes)?);
        if db.reached() < self.reached.load(Ordering::SeqCst) {
            self.in_doubt.store(true, Ordering::SeqCst);
            return Err(StoreError::Stopped("the disk has lost what was written last".into()));
        }
        Ok(db)
    }

    /// Brings into memory what could not be read there ([`engine::cached_only`]). Blocks for the disk.
    pub fn fetch(&self, what: &Uncached) -> Result<(), StoreError> {
        self.db()?.fetch(what)?;
        self.fetch_host(what)?;
        self.content.fetch(what)
    }

    /// What opening the store has to tell users, in words.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The contents of files.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// New, never used numbers.
    pub fn next_ino(&self) -> Result<Ino, StoreError> {
        Ok(Ino(self.ids.ino.next(&*self.db()?)?))
    }

    /// Files that are made from now on have numbers from this on.
    pub(crate) fn number_from(&self, first: Ino) -> Result<(), StoreError> {
        self.ids.ino.go_on_from(&*self.db()?, first.0)
    }

    /// No speculation has had this number yet, nor a greater one.
    pub(crate) fn next_number_of_specs(&self) -> u64 {
        self.ids.spec.reached()
    }

    /// Speculations that begin from now on have numbers from this on.
    pub(crate) fn number_specs_from(&self, first: SpecId) -> Result<(), StoreError> {
        self.ids.spec.go_on_from(&*self.db()?, first.0)
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
            Err(StoreError::Records(why) | StoreError::Refused(why)) => {
                self.mend(&why)?;
                next()?
            }
            Err(StoreError::NoSpace(why)) => {
                self.make_room(&why)?;
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

    /// Ends the epoch and returns it. The caller has `final_writes`.
    pub(super) fn end_epoch(&self) -> Result<Seq, StoreError> {
        let ended = self.epoch();
        // First: what is written in an epoch that a restart does not know would hide what is written after it.
        self.ids.reserve_epoch(&*self.db()?, ended.0 + 1)?;
        self.epoch.store(ended.0 + 1, Ordering::SeqCst);
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

    /// An undecided interval has changed something, so many inodes for the first time.
    pub(super) fn note_changes(&self, interval: IntervalId, inodes: u64) {
        let number = self.change.fetch_add(1, Ordering::SeqCst) + 1;
        let mut changes = self.changes.lock();
        let changed = changes.entry(interval).or_default();
        changed.inodes += inodes;
        changed.last = number;
    }

    /// How many files an undecided interval changed.
    pub fn changes_count(&self, interval: IntervalId) -> u64 {
        self.changes.lock().get(&interval).map_or(0, |changed| changed.inodes)
    }

    /// Grows with each change of an undecided interval; 0 as long as it has changed nothing.
    pub fn last_change(&self, interval: IntervalId) -> u64 {
        self.changes.lock().get(&interval).map_or(0, |changed| changed.last)
    }

    /// Writes out what is there and closes the records, whoever still refers to the store: what is asked of it from now on is
    /// refused. A process that ends while a thread of it closes them takes away what RocksDB still uses for that.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::SeqCst) {
            return;
        }
        let is_unwanted = self.unwanted.load(Ordering::SeqCst);
        let written = match is_unwanted || self.read_only {
            true => Ok(()),
            false => self.sync().and_then(|()| self.db()?.flush()),
        };
        // Before the records go: nobody opens them again.
        self.in_doubt.store(true, Ordering::SeqCst);
        let open = std::mem::replace(&mut *self.db.write(), Err(format!("{} is closed", self.name)));
        if let Err(error) = written.and(wait_until_unused(open)) {
            tracing::error!("closing {}: {error}", self.name);
        }
        if is_unwanted {
            self.engine.discard();
        }
    }

    /// How long a file may be, in bytes: its content lies in files, at its own offsets.
    pub fn file_bytes_max(&self) -> u64 {
        self.content.longest()
    }

    /// The disk under the store.
    pub fn space(&self) -> Result<SpaceInfo, StoreError> {
        self.reserve.info()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.close();
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

/// The system's clock.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() }
}
