//! The filesystem's operations, as POSIX has them, on what one view sees of the store.
//!
//! Every operation reads and writes through one `op::Op`: what it used is reported to the view's
//! [`AccessLog`], and all that it changes becomes visible, and survives a crash, as one batch.
//! The caller keeps decisions (commit, abort) from happening while an operation runs. Operations block on the disk
//! where they miss its cache and, for [`Ops::fsync`] on trunk, until it has written.

mod attrs;
mod clock;
mod content;
pub(crate) mod fault;
mod host;
mod listing;
mod locks;
mod names;
mod op;
mod rename;
mod space;
mod xattrs;

pub use clock::{Clock, SystemClock};
pub use content::Allocated;
pub(crate) use host::Noted;
pub use names::NewFile;
pub(crate) use op::file_attr;

use crate::access::{AccessKey, AccessLog};
use crate::store::{Sight, Store, StoreError};
use locks::Stripes;
use mojavefs::id::{Ino, IntervalId, Seq};
use mojavefs::protocol::fault::{Fault, FaultKind};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a view sees, and who is told what it used.
#[derive(Clone)]
pub struct Scope {
    /// Which versions are visible, and which interval new ones carry.
    pub sight: Sight,
    /// Where uses are reported; a trunk view reports changes only.
    pub accesses: Option<Arc<dyn AccessLog>>,
    /// Set when the job is decided: what comes through its views after that has no meaning any more.
    pub over: Arc<AtomicBool>,
}

impl Scope {
    /// What is written here is final at once.
    fn is_trunk(&self) -> bool {
        self.sight.writer == IntervalId::FINAL
    }

    /// Whether the job is decided.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Where reads are reported: only those of a view that stays with a snapshot can conflict.
    fn reads_reported(&self) -> Option<&dyn AccessLog> {
        self.accesses.as_deref().filter(|_| self.sight.snapshot != Seq::NOW)
    }

    /// What an error in the content of a file is to whoever asked. The writer of a file's newest version depends on those of
    /// all its content; that the view does not see one of them only means that it has not been told yet.
    fn content_fault(&self, ino: Ino, error: StoreError) -> Fault {
        match error {
            StoreError::Met(of) => self.meet(&AccessKey::Inode(ino), &[of]),
            error => fault::store(error),
        }
    }

    /// Others' undecided work was met; the refusal says what is to be done.
    fn meet(&self, key: &AccessKey, of: &[IntervalId]) -> Fault {
        match &self.accesses {
            Some(accesses) => accesses.meet(key, of),
            None => Fault::new(FaultKind::Undecided, "this is another's undecided work"),
        }
    }
}

/// What becomes of a file's set-id bits when its content changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIds {
    /// They stay: the caller may keep them.
    Stay,
    /// They go. Where the group may not run the file its set-group-id bit gives nobody anything, and the group's members keep it.
    Go {
        /// The caller's group.
        gid: u32,
    },
}

/// The operations of one store; shared by all views and threads.
pub struct Ops {
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    stripes: Stripes,
    /// Held while a directory changes its parent, so that two such moves can't make a ring.
    moves: Mutex<()>,
}

impl Ops {
    /// Operations on `store`, with times from `clock`.
    pub fn new(store: Arc<Store>, clock: Arc<dyn Clock>) -> Self {
        Ops { store, clock, stripes: Stripes::new(), moves: Mutex::new(()) }
    }

    /// The store below.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }
}
