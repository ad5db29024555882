//! What a context sees of undecided changes, by the numbers that these carry.

use super::event::{Effect, GraphError};
use super::state::Graph;
use crate::id::{ContextId, IntervalId};
use crate::planted::{Planted, is_planted};
use std::collections::BTreeSet;

/// Which changes a context sees, and how its own are numbered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The numbers of undecided changes that it sees, in order.
    pub numbers: Vec<IntervalId>,
    /// Those of changes that contexts around it, or what has become part of these, have made since it found what it stays with,
    /// in order.
    pub missed: Vec<IntervalId>,
    /// The number that its next change carries.
    pub writer: IntervalId,
}

impl Graph {
    /// What a context sees; nothing if nothing of it is undecided.
    pub fn seen_by(&self, context: ContextId) -> Option<Seen> {
        let current = self.current(context)?;
        let writer = self.intervals[&current].writer;
        let keeps = self.contexts[&context].keeps.as_ref();
        let Some(found) = keeps.filter(|_| !is_planted(Planted::SightTooNew)) else {
            let numbers = self.numbers_of(&self.visible(current));
            return Some(Seen { numbers, missed: Vec::new(), writer });
        };
        let around: BTreeSet<ContextId> = self.around(context).skip(1).collect();
        let mut own = BTreeSet::new();
        let mut todo = vec![current];
        while let Some(id) = todo.pop() {
            // What is around it is seen as it was found, whatever has been added since.
            if let Some(interval) = self.intervals.get(&id).filter(|interval| !around.contains(&interval.context))
                && own.insert(id)
            {
                todo.extend(interval.base.iter().chain(&interval.deps));
            }
        }
        let mut seen: BTreeSet<IntervalId> = self.numbers_of(&own).into_iter().collect();
        seen.extend(found.iter().filter(|number| self.numbers.contains_key(number)));
        let around: BTreeSet<IntervalId> = around.iter().flat_map(|outer| self.carried_by(*outer)).collect();
        let missed = around.into_iter().filter(|number| !found.contains(number) && !seen.contains(number)).collect();
        Some(Seen { missed, numbers: seen.into_iter().collect(), writer })
    }

    /// The number that a context's next change carries; nothing if nothing of it is undecided.
    pub fn writer(&self, context: ContextId) -> Option<IntervalId> {
        self.current(context).map(|current| self.intervals[&current].writer)
    }

    /// The numbers that a context's changes carry, in order, with those of contexts inside it that have voted for all that they
    /// own: they are decided with it.
    pub fn carried_by(&self, context: ContextId) -> Vec<IntervalId> {
        let mut all = BTreeSet::new();
        let mut todo = vec![context];
        while let Some(context) = todo.pop() {
            all.extend(self.numbers_of(self.stack(context)));
            todo.extend(self.inner(context).into_iter().filter(|inner| self.has_voted(*inner)));
        }
        all.into_iter().collect()
    }

    /// Whether a context owns something undecided, and has voted for all of that.
    fn has_voted(&self, context: ContextId) -> bool {
        let owned = self.stack(context).iter().filter_map(|id| self.intervals[id].assumption);
        let votes: Vec<bool> = owned.map(|spec| self.specs[&spec].owners[&context].vote.is_some()).collect();
        !votes.is_empty() && votes.into_iter().all(|voted| voted)
    }

    /// The contexts that build on an interval whose changes carry one of these numbers, its own included.
    pub fn built_on(&self, numbers: &[IntervalId]) -> BTreeSet<ContextId> {
        let mut todo: Vec<IntervalId> = numbers.iter().filter_map(|number| self.numbers.get(number).copied()).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                todo.extend(&self.intervals[&id].dependents);
            }
        }
        seen.iter().map(|id| self.intervals[id].context).collect()
    }

    /// The numbers of undecided changes around a context that it sees, in order.
    pub fn found_by(&self, context: ContextId) -> Vec<IntervalId> {
        if let Some(found) = self.contexts.get(&context).and_then(|state| state.keeps.as_ref()) {
            return found.iter().copied().filter(|number| self.numbers.contains_key(number)).collect();
        }
        let around: BTreeSet<ContextId> = self.around(context).skip(1).collect();
        if around.is_empty() {
            return Vec::new();
        }
        let seen = self.current(context).map(|current| self.visible(current)).unwrap_or_default();
        self.numbers_of(seen.iter().filter(|id| around.contains(&self.intervals[id].context)))
    }

    /// A context, the one that it is inside of, and so on.
    pub fn around(&self, context: ContextId) -> impl Iterator<Item = ContextId> + '_ {
        std::iter::successors(Some(context), |context| self.outer(*context))
    }

    /// The context that one is inside of; nothing once what it was started from is final.
    pub fn outer(&self, context: ContextId) -> Option<ContextId> {
        let from = self.contexts.get(&context)?.from?;
        self.intervals.get(&from).map(|interval| interval.context)
    }

    /// The contexts that were started in this one and of which something is undecided, those inside of them left out.
    pub fn inner(&self, context: ContextId) -> BTreeSet<ContextId> {
        let mut inner = BTreeSet::new();
        for id in self.stack(context) {
            let dependents = self.intervals[id].dependents.iter().map(|dependent| self.intervals[dependent].context);
            inner.extend(dependents.filter(|inner| self.contexts[inner].from == Some(*id)));
        }
        inner
    }

    /// All contexts inside one of which something is undecided.
    pub fn inside(&self, context: ContextId) -> BTreeSet<ContextId> {
        let mut all = BTreeSet::new();
        let mut todo = vec![context];
        while let Some(context) = todo.pop() {
            todo.extend(self.inner(context).into_iter().filter(|inner| all.insert(*inner)));
        }
        all
    }

    /// The other contexts of whose changes so far one sees all.
    pub fn wholly_seen_by(&self, context: ContextId) -> BTreeSet<ContextId> {
        let seen: BTreeSet<IntervalId> =
            self.seen_by(context).map(|seen| seen.numbers.into_iter().collect()).unwrap_or_default();
        let contexts: BTreeSet<ContextId> = seen.iter().filter_map(|number| self.writer_of(*number)).collect();
        let is_seen =
            |other: &ContextId| *other != context && self.carried_by(*other).iter().all(|number| seen.contains(number));
        contexts.into_iter().filter(is_seen).collect()
    }

    /// The context whose changes carry this number; nothing if none of them is undecided.
    pub fn writer_of(&self, number: IntervalId) -> Option<ContextId> {
        self.numbers.get(&number).map(|id| self.intervals[id].context)
    }

    /// The numbers that changes of these live intervals carry, in order.
    pub(super) fn numbers_of<'a>(&self, intervals: impl IntoIterator<Item = &'a IntervalId>) -> Vec<IntervalId> {
        let all: BTreeSet<IntervalId> =
            intervals.into_iter().flat_map(|id| self.intervals[id].numbers.iter().copied()).collect();
        all.into_iter().collect()
    }

    pub(super) fn number(&mut self, context: ContextId, number: IntervalId) -> Result<Vec<Effect>, GraphError> {
        let current = self.current(context);
        if current.is_some() && self.numbers.get(&number) == current.as_ref() {
            self.running(context)?;
        } else {
            self.check_acting(context, number)?;
        }
        let current = current.ok_or(GraphError::NothingUndecided(context))?;
        self.demand_unsealed(current)?;
        let interval = self.interval_mut(current);
        interval.numbers.insert(number);
        interval.writer = number;
        self.numbers.insert(number, current);
        Ok(Vec::new())
    }
}
