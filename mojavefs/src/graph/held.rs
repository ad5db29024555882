//! What outlives every process (rule 7): what the store holds, and votes.

use super::state::Graph;
use crate::id::{ContextId, IntervalId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Graph {
    /// What would be left of the graph if every process ended now and nothing but holds and votes were on record: the
    /// speculations whose owners are the store or have voted, if all they depend on is left too, and the intervals that
    /// these stand for. Everything else undecided is dead after a restart. A context is left running if the store holds a
    /// speculation for it, so that work in it can go on.
    ///
    /// Costs time in proportion to the whole graph.
    pub fn held(&self) -> Graph {
        let mut left = Graph {
            intervals: self.intervals.clone(),
            contexts: self.contexts.clone(),
            specs: self.specs.clone(),
            outcomes: BTreeMap::new(),
            outcome_order: VecDeque::new(),
            numbers: self.numbers.clone(),
        };
        let contexts: Vec<ContextId> = self.contexts.keys().copied().collect();
        for context in contexts {
            // One that is closed already or has gone with another is just as well.
            let _effects = left.close(context);
        }
        left.outcomes.clear();
        left.outcome_order.clear();
        left.drop_all_but(&left.stood_for());
        left
    }

    /// The intervals that holds and votes stand for, with everything these need.
    fn stood_for(&self) -> BTreeSet<IntervalId> {
        let mut todo = Vec::new();
        for (context, place) in self.specs.values().flat_map(|spec| &spec.owners) {
            todo.extend(place.vote.or(Some(place.entry)));
            if place.held {
                todo.extend(self.contexts[context].stack.last());
            }
        }
        let mut needed = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if needed.insert(id) {
                todo.extend(self.needs(&self.intervals[&id]));
            }
        }
        needed
    }

    fn drop_all_but(&mut self, needed: &BTreeSet<IntervalId>) {
        let others: Vec<IntervalId> = self.intervals.keys().filter(|id| !needed.contains(id)).copied().collect();
        for id in others {
            self.detach(id);
        }
        for state in self.contexts.values_mut() {
            state.stack.retain(|id| needed.contains(id));
        }
        self.contexts.retain(|_, state| !state.stack.is_empty());
        let held = self.specs.values().flat_map(|spec| &spec.owners).filter(|(_, place)| place.held);
        let attended: BTreeSet<ContextId> = held.map(|(context, _)| *context).collect();
        for (context, state) in &mut self.contexts {
            state.open = attended.contains(context);
        }
    }
}
