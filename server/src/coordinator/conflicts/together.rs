//! Conflicts among contexts that would become final in one step.
//!
//! Who builds on others becomes final with them, so that neither is final before the other. What they have done is one
//! history then, in the order in which they did it, as far as each saw what the others had done. Where one did not, it comes
//! before the other; and where that leads round in a ring, the work of one of them would be lost.

use super::{Conflicts, Pending, Users};
use mojavefs::id::ContextId;
use std::collections::{BTreeMap, BTreeSet};

/// What each context has to come before.
type Before<'a> = BTreeMap<ContextId, Vec<(ContextId, &'a Pending)>>;

impl Conflicts {
    /// Finds one of these contexts, not the one that votes, whose work can't become final in one step with that of the others,
    /// and notes its conflicts. The caller asks again for those that are left.
    pub(crate) fn stand_together(&self, contexts: &[ContextId], voter: ContextId) -> Option<ContextId> {
        let users = self.users.read();
        let mut noticed = self.noticed.lock();
        let together: BTreeSet<ContextId> = contexts.iter().copied().collect();
        let mut before = Before::new();
        for winner in &together {
            for pending in noticed.pending.get(winner).into_iter().flatten().filter(|pending| pending.apart) {
                let loser = users.effective(pending.loser).filter(|loser| loser != winner && together.contains(loser));
                if let Some(loser) = loser {
                    before.entry(loser).or_default().push((*winner, pending));
                }
            }
        }
        let (loser, clashes) = choose(&before, &users, voter)?;
        for clash in clashes {
            noticed.stand(loser, clash);
        }
        self.has_news.store(true, std::sync::atomic::Ordering::SeqCst);
        Some(loser)
    }
}

/// Somebody in a ring, with what the ring is made of: a joiner, who can be run again on what the others have made, if there is
/// one.
fn choose(before: &Before<'_>, users: &Users, voter: ContextId) -> Option<(ContextId, BTreeSet<super::Clash>)> {
    let in_rings = before.iter().filter(|(loser, _)| **loser != voter).filter_map(|(loser, after)| {
        let in_ring = after.iter().filter(|(winner, _)| reaches(before, *winner, *loser));
        let clashes: BTreeSet<super::Clash> = in_ring.map(|(_, pending)| pending.clash.clone()).collect();
        (!clashes.is_empty()).then_some((*loser, clashes))
    });
    let mut in_rings: Vec<_> = in_rings.collect();
    in_rings.sort_by_key(|(loser, _)| !users.joins(*loser));
    in_rings.into_iter().next()
}

fn reaches(before: &Before<'_>, from: ContextId, to: ContextId) -> bool {
    let mut todo = vec![from];
    let mut seen = BTreeSet::new();
    while let Some(at) = todo.pop() {
        if at == to {
            return true;
        }
        if seen.insert(at) {
            todo.extend(before.get(&at).into_iter().flatten().map(|(after, _)| *after));
        }
    }
    false
}
