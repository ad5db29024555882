//! Which older states are still looked at.

use super::keys::Order;
use mojavefs::id::Seq;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every active snapshot.
#[derive(Default)]
pub(super) struct Snapshots(Arc<Mutex<Active>>);

#[derive(Default)]
struct Active {
    /// With how many look at it.
    snapshots: BTreeMap<Seq, usize>,
    /// How many have ended.
    ended: u64,
}

/// Keeps what was final at one moment readable until it is dropped.
pub struct Snapshot {
    seq: Seq,
    active: Arc<Mutex<Active>>,
}

impl Snapshot {
    /// Up to where it sees.
    pub fn seq(&self) -> Seq {
        self.seq
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        let mut active = self.active.lock();
        if let Some(count) = active.snapshots.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                active.snapshots.remove(&self.seq);
                active.ended += 1;
            }
        }
    }
}

impl Snapshots {
    pub(super) fn take(&self, seq: Seq) -> Snapshot {
        *self.0.lock().snapshots.entry(seq).or_insert(0) += 1;
        Snapshot { seq, active: self.0.clone() }
    }

    /// Whether a snapshot sees the version of `order` although one of `newer` follows it.
    pub(super) fn needs(&self, order: Order, newer: Order) -> bool {
        order.interval().is_some() || self.needed_by(order, newer).is_some()
    }

    /// The oldest snapshot that sees the final version of `order` although one of `newer` follows it.
    pub(super) fn needed_by(&self, order: Order, newer: Order) -> Option<Seq> {
        let active = self.0.lock();
        let (seq, _) = active.snapshots.range(order.seq()?..).next()?;
        newer.seq().is_none_or(|newer| *seq < newer).then_some(*seq)
    }

    /// The oldest snapshot, if it is older than the version of `order`.
    pub(super) fn oldest_below(&self, order: Order) -> Option<Seq> {
        let oldest = self.0.lock().snapshots.keys().next().copied();
        oldest.filter(|oldest| order.seq().is_none_or(|seq| *oldest < seq))
    }

    /// Whether somebody looks at what was final then.
    pub(super) fn is_active(&self, seq: Seq) -> bool {
        self.0.lock().snapshots.contains_key(&seq)
    }

    /// All of them, the oldest first.
    pub(super) fn all(&self) -> Vec<Seq> {
        self.0.lock().snapshots.keys().copied().collect()
    }

    /// How many have ended since the store was opened.
    pub(super) fn ended(&self) -> u64 {
        self.0.lock().ended
    }
}
