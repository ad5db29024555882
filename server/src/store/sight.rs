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

    /// Whether it sees what is final now and nothing else.
    pub fn shows_what_is_final(&self) -> bool {
        self.snapshot == Seq::NOW && self.live.is_empty() && self.missed.is_empty()
    }

    /// What is written over a version of this interval must be of a later one, or it would lie under it. Where others' undecided
    /// work is not looked at, what is final is under it in any case.
    pub fn builds_on(&self, interval: IntervalId) -> bool {
        self.meets || self.live.binary_search(&interval).is_ok()
    }
}

/// What there is of an object that its user does not see, though it is not just another's undecided work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Newer {
    /// A version that became final after the user's snapshot.
    pub is_final: bool,
    /// One that a job around the user has made since it began. What is final behind that is not looked for.
    pub is_missed: bool,
}

impl Newer {
    /// What there is of both.
    pub(crate) fn and(self, other: Newer) -> Newer {
        Newer { is_final: self.is_final || other.is_final, is_missed: self.is_missed || other.is_missed }
    }

    /// There is something.
    pub fn any(self) -> bool {
        self.is_final || self.is_missed
    }
}

/// What a look at one object gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading<T> {
    /// The visible version; nothing if the object is not there.
    pub found: Option<T>,
    /// Which version it was, a tombstone's too; nothing if there was no visible one.
    pub order: Option<Order>,
    /// What there is that the view does not see.
    pub newer: Newer,
    /// The newest version is one of this undecided interval, which the view does not see; nothing else was looked for.
    pub met: Option<IntervalId>,
}

/// A page of what is found by a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// What was found, in the order of the names' bytes.
    pub found: Vec<T>,
    /// What there is of the names met on the way that the view does not see.
    pub newer: Newer,
    /// The undecided intervals with versions that were met and that the view does not see.
    pub met: Vec<IntervalId>,
}

impl<T> Reading<T> {
    /// The same reading of another form.
    pub(super) fn and_then<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Reading<U>, E> {
        let found = self.found.map(f).transpose()?;
        Ok(Reading { found, order: self.order, newer: self.newer, met: self.met })
    }
}
