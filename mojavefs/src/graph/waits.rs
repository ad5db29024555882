//! Waiting (rule 9): who would wait for itself.

use super::state::{Graph, Place};
use crate::id::{ContextId, IntervalId};
use std::collections::{BTreeMap, BTreeSet};

/// What a context waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Awaited {
    /// That this interval is decided.
    Decision(IntervalId),
    /// That another context has decided what it owns: the command of a job waits for the jobs that it has started.
    End(ContextId),
}

/// What each waiting context waits for: all of these. What is not in the graph by itself: the votes that are missing are.
pub type Waits = BTreeMap<ContextId, BTreeSet<Awaited>>;

impl Graph {
    /// Whether a context that waited for `on` would wait for itself (rule 9): the waiter, or a context that waits for it in
    /// turn, is what is waited for, or owns something that `on` needs and has yet to vote for it or to settle a conflict. What
    /// the store holds is decided from outside. `waits` says what each waiting context waits for.
    ///
    /// For a barrier, `on` is the decision of the waiter's current interval.
    pub fn would_wait_forever(&self, waiter: ContextId, on: Awaited, waits: &Waits) -> bool {
        !self.awaitable(waiter, [on], waits).contains(&on)
    }

    /// Those of these for which a context [would not wait forever](Self::would_wait_forever). Looks at everything once.
    pub fn awaitable(
        &self,
        waiter: ContextId,
        all: impl IntoIterator<Item = Awaited>,
        waits: &Waits,
    ) -> BTreeSet<Awaited> {
        let mut awaitable = BTreeSet::new();
        // None of these leads to the waiter.
        let mut known = BTreeSet::new();
        for on in all {
            let mut seen = BTreeSet::new();
            let mut todo = vec![on];
            let mut leads_back = false;
            while let Some(awaited) = todo.pop().filter(|_| !leads_back) {
                if known.contains(&awaited) || !seen.insert(awaited) {
                    continue;
                }
                match awaited {
                    Awaited::End(context) if context == waiter => leads_back = true,
                    Awaited::End(context) => todo.extend(waits.get(&context).into_iter().flatten()),
                    Awaited::Decision(id) => todo.extend(self.awaited_for(id)),
                }
            }
            if !leads_back {
                known.extend(seen);
                awaitable.insert(on);
            }
        }
        awaitable
    }

    /// What the decision of an interval waits for.
    fn awaited_for(&self, id: IntervalId) -> Vec<Awaited> {
        let Some(interval) = self.intervals.get(&id) else { return Vec::new() };
        let mut awaited: Vec<Awaited> = self.needs(interval).map(Awaited::Decision).collect();
        if let Some(spec) = interval.assumption.map(|spec| &self.specs[&spec]) {
            let must_act = |place: &Place| !place.held && (spec.conflict || place.vote.is_none());
            let owners = spec.owners.iter().filter(|(_, place)| must_act(place));
            awaited.extend(owners.map(|(owner, _)| Awaited::End(*owner)));
        }
        awaited
    }
}
