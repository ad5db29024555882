//! Which versions a view sees, and what it gets when it looks.

use super::keys::Order;
use mojavefs::id::{IntervalId, Seq};
use std::sync::Arc;

/// What is visible to whom, and whose versions they write.
#[derive(Clone, Debug)]
pub struct Sight {
    /// What became final up to here is visible.
    pub snapshot: Seq,
    /// Undecided intervals that are visible: the writer's own and those it depends on.
    pub live: Arc<[IntervalId]>,
    /// Undecided intervals of the jobs around the writer's that came too late to be visible: to build on anything that
    /// they changed would undo it.
    pub missed: Arc<[IntervalId]>,
    /// The interval that new versions carry; [`IntervalId::FINAL`] for what is final at once.
    pub writer: IntervalId,
}

impl Sight {
    /// Trunk: what is final now; writes are final at once.
    pub fn trunk() -> Self {
        Sight { snapshot: Seq::NOW, live: Arc::from([]), missed: Arc::from([]), writer: IntervalId::FINAL }
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
}

impl<T> Reading<T> {
    /// The same reading of another form.
    pub(super) fn and_then<U, E>(self, f: impl FnOnce(T) -> Result<U, E>) -> Result<Reading<U>, E> {
        let found = self.found.map(f).transpose()?;
        Ok(Reading { found, order: self.order, newer_final: self.newer_final })
    }
}
