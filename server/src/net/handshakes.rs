//! Those who have connected and not shown yet who they are. Anybody can, so there is room for so many, and the last that came
//! have it: whoever means well is through in a moment.

use crate::limits::HANDSHAKES_MAX;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// In the order in which they came.
#[derive(Default)]
pub(super) struct PendingHandshakes {
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    next: u64,
    told_to_go: BTreeMap<u64, Arc<Notify>>,
}

/// One of them, as long as this lives.
pub(super) struct PendingHandshake<'a> {
    handshakes: &'a PendingHandshakes,
    number: u64,
    told_to_go: Arc<Notify>,
}

impl PendingHandshakes {
    /// One more; the one that has been here longest goes if there are too many.
    pub(super) fn arrive(&self) -> PendingHandshake<'_> {
        let told_to_go = Arc::new(Notify::new());
        let mut here = self.here.lock();
        let number = here.next;
        here.next += 1;
        here.told_to_go.insert(number, told_to_go.clone());
        if here.told_to_go.len() > HANDSHAKES_MAX
            && let Some((_, oldest)) = here.told_to_go.pop_first()
        {
            oldest.notify_one();
        }
        PendingHandshake { handshakes: self, number, told_to_go }
    }
}

impl PendingHandshake<'_> {
    /// Returns when it has to go.
    pub(super) async fn sent_away(&self) {
        self.told_to_go.notified().await;
    }
}

impl Drop for PendingHandshake<'_> {
    fn drop(&mut self) {
        self.handshakes.here.lock().told_to_go.remove(&self.number);
    }
}
