//! One undecided speculation of a job.

use crate::store::{Snapshot, Store};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::wire::{JobInfo, SpecState, SpecStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A job's speculation and what belongs to it.
pub(crate) struct Job {
    pub(crate) spec: SpecId,
    pub(crate) context: ContextId,
    /// The interval that entered the speculation.
    pub(crate) entry: IntervalId,
    pub(crate) info: JobInfo,
    /// In seconds since the epoch.
    pub(crate) since: i64,
    /// The speculation around it.
    pub(crate) parent: Option<SpecId>,
    pub(crate) parent_context: Option<ContextId>,
    /// How many jobs it is nested in, itself included.
    pub(crate) depth: usize,
    pub(crate) snapshot: Arc<Snapshot>,
    /// Its own intervals, and those of inner jobs that committed into it.
    pub(crate) intervals: Vec<IntervalId>,
    /// Undecided intervals around it that it sees.
    pub(crate) outer: Vec<IntervalId>,
    pub(crate) state: SpecState,
    /// How much content it wrote.
    pub(crate) bytes: Arc<AtomicU64>,
}

impl Job {
    pub(crate) fn is_held(&self) -> bool {
        self.state == SpecState::Held
    }

    /// It was started inside one of these intervals.
    pub(crate) fn sees_any(&self, intervals: &[IntervalId]) -> bool {
        self.outer.iter().any(|outer| intervals.contains(outer))
    }

    pub(crate) fn may_see(&self, uid: u32) -> bool {
        uid == 0 || uid == self.info.uid
    }

    /// How many files it changed.
    pub(crate) fn changes(&self, store: &Store) -> u64 {
        self.intervals.iter().map(|interval| store.changes_count(*interval)).sum()
    }

    pub(crate) fn status(&self, store: &Store) -> SpecStatus {
        SpecStatus {
            id: self.spec,
            state: self.state,
            info: self.info.clone(),
            since: self.since,
            changes: self.changes(store),
            bytes: self.bytes.load(Ordering::Relaxed),
            parent: self.parent,
            conflicts: Vec::new(),
        }
    }
}

/// The time, in seconds since the epoch.
pub(crate) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
