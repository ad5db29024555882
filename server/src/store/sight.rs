//! Which versions a view sees, and what it gets when it looks.

use super::keys::Order;
use mojavefs::id::{IntervalId, Seq};
use std::sync::Arc;

/// What is visible to whom, and whose versions they write.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What became final up to here is visible.
    pub snapshot: Seq,
    /// Undecided intervals that are visible, in order: the writer's own and those it depends on.
    pub live: Arc<[IntervalId]>,
    /// Undecided intervals of the jobs around the writer's that came too late to be visible: to build on anything that
    /// they changed would undo it.
    pub missed: Arc<[IntervalId]>,
    /// The interval that new versions carry; [`IntervalId::FINAL`] for what is final at once.
    pub writer: IntervalId,
    /// Versions of other undecided intervals are noticed ([`Reading::met`]); else they are not there.
    pub meets: bool,
}

impl Sight {
    /// Trunk: what is final now; writes are final at once.
    pub fn trunk() -> Self {
        Sight {
            snapshot: Seq::NOW,
            live: Arc::from([]),
            missed: Arc::from([]),
            writer: IntervalId::FINAL,
            meets: false,
        }
    }

    /// What is written over a version of this interval must be of a later one, or it would lie under it. Where others' undecided
    /// work is not looked at, what is final is under it in any case.
    pub fn builds_on(&self, interval: IntervalId) -> bool {
        self.meets || self.live.binary_search(&interval).is_ok()
    }
}

/// What a look at one object gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    /// The visible version; nothing if the object is not there.
    pub found: Option<T>,
    /// Which version it was, a tombstone's too; nothing if there was no visible one.
    pub order: Option<Order>,
    /// A final version exists that became so after the snapshot, or one of a job around this one that it missed.
    pub newer_final: bool,
    /// The newest version is one of this undecided interval, which the view does not see; nothing else was looked for.
    pub met: Option<IntervalId>,
}

/// A page of what is found by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// What was found, in the order of the names' bytes.
    pub found: Vec<T>,
    /// One of the names met on the way has a final version that the view does not see.
    pub newer_final: bool,
    /// The undecided intervals with versions that were met and that the view does not see.
    pub met: Vec<IntervalId>,
}

impl<T> Reading<T> {
    /// The same reading of another form.
    pub(super) fn and_then<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Reading<U>, E> {
        let found = self.found.map(f).transpose()?;
        Ok(Reading { found, order: self.order, newer_final: self.newer_final, met: self.met })
    }
}
