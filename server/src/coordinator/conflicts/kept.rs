//! What is written down, with a speculation that outlives this process, of the conflicts that it may come to.

use super::{Conflicts, Pending};
use mojavefs::id::ContextId;
use mojavefs::limits::CONFLICTS_MAX;
use mojavefs::planted::{Planted, is_planted};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// What turns into a conflict of one context once another is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Looming {
    winner: ContextId,
    pending: Pending,
}

impl Conflicts {
    /// What turns into conflicts of this context, and of others by it; of each two contexts no more objects than are named.
    pub(crate) fn looming(&self, context: ContextId) -> Vec<Looming> {
        let users = self.users.read();
        let noticed = self.noticed.lock();
        let mut counts: HashMap<(ContextId, ContextId, bool), usize> = HashMap::new();
        let mut all = Vec::new();
        for (winner, pending) in &noticed.pending {
            for pending in pending {
                let Some(loser) = users.effective(pending.loser) else { continue };
                if loser != context && *winner != context {
                    continue;
                }
                let count = counts.entry((*winner, loser, pending.apart)).or_default();
                if *count < CONFLICTS_MAX {
                    *count += 1;
                    all.push(Looming { winner: *winner, pending: Pending { loser, ..pending.clone() } });
                }
            }
        }
        all
    }

    /// Takes up again what was written down, as far as both contexts are there.
    pub(crate) fn restore_looming(&self, all: Vec<Looming>) {
        if is_planted(Planted::ConflictsLostAtRestart) {
            return;
        }
        let users = self.users.read();
        for Looming { winner, pending } in all {
            if users.effective(winner).is_some() && users.effective(pending.loser).is_some() {
                self.pend(winner, pending);
            }
        }
    }
}
