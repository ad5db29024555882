//! Which older states are still looked at.

use super::keys::Order;
use mojavefs::id::Seq;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Every active snapshot, with how many look at it.
#[derive(Default)]
pub(super) struct Snapshots(Arc<Mutex<BTreeMap<Seq, usize>>>);

/// Keeps what was final at one moment readable until it is dropped.
pub struct Snapshot {
    seq: Seq,
    active: Arc<Mutex<BTreeMap<Seq, usize>>>,
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
        if let Some(count) = active.get_mut(&self.seq) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.seq);
            }
        }
    }
}

impl Snapshots {
    pub(super) fn take(&self, seq: Seq) -> Snapshot {
        *self.0.lock().entry(seq).or_insert(0) += 1;
        Snapshot { seq, active: self.0.clone() }
    }

    /// Whether a snapshot sees the version of `order` although one of `newer` follows it.
    pub(super) fn needs(&self, order: Order, newer: Order) -> bool {
        let active = self.0.lock();
        let Some(seq) = order.seq() else { return true };
        let range = active.range(seq..);
        match newer.seq() {
            Some(newer) => range.take_while(|(at, _)| **at < newer).next().is_some(),
            None => range.into_iter().next().is_some(),
        }
    }

    /// Whether a snapshot is older than the version of `order`.
    pub(super) fn any_below(&self, order: Order) -> bool {
        match (self.0.lock().keys().next(), order.seq()) {
            (Some(oldest), Some(seq)) => *oldest < seq,
            (oldest, None) => oldest.is_some(),
            (None, _) => false,
        }
    }

    /// The oldest one.
    pub(super) fn oldest(&self) -> Option<Seq> {
        self.0.lock().keys().next().copied()
    }
}
