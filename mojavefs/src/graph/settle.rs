//! What is final (rules 3 and 6): the greatest set of intervals that need nothing open and nothing outside of it.

use super::event::Effect;
use super::state::{Graph, Interval, Outcome};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    /// What an interval needs to become final: its base, its deps, the votes for its assumption.
    pub(super) fn needs<'a>(&'a self, interval: &'a Interval) -> impl Iterator<Item = IntervalId> + 'a {
        let spec = interval.assumption.map(|spec| &self.specs[&spec]);
        let votes = spec.into_iter().flat_map(|spec| spec.owners.values().filter_map(|place| place.vote));
        interval.base.into_iter().chain(interval.deps.iter().copied()).chain(votes)
    }

    /// Who needs this interval.
    fn needed_by<'a>(&'a self, interval: &'a Interval) -> impl Iterator<Item = IntervalId> + 'a {
        let voted = interval.votes.iter().map(|spec| &self.specs[spec]);
        let entries = voted.flat_map(|spec| spec.owners.values().map(|place| place.entry));
        interval.dependents.iter().copied().chain(entries)
    }

    /// Its assumption is open: an owner has not voted, a vote is not confirmed, or a conflict stands in the way.
    pub(super) fn is_open(&self, interval: &Interval) -> bool {
        interval.assumption.is_some_and(|id| {
            let spec = &self.specs[&id];
            let is_unconfirmed = self.sealed.contains_key(&id);
            is_unconfirmed || spec.conflict || spec.owners.values().any(|place| place.vote.is_none())
        })
    }

    /// Makes final what [can be](Graph::finals), now that a speculation has a vote more or a conflict less. Nothing else makes a
    /// live interval final: none was before, so each needed something open, and only this speculation's openness has changed.
    pub(super) fn settle(&mut self, finals: &BTreeSet<IntervalId>) -> Vec<Effect> {
        if finals.is_empty() {
            return Vec::new();
        }
        let effect = self.said_final(finals);
        let mut specs = BTreeSet::new();
        let mut contexts: BTreeMap<ContextId, usize> = BTreeMap::new();
        for id in finals {
            let interval = self.detach(*id);
            specs.extend(interval.assumption);
            *contexts.entry(interval.context).or_default() += 1;
        }
        for spec in specs {
            self.decided(spec, Outcome::Committed);
        }
        for (context, count) in contexts {
            // An interval is final only after its base, so it is always the bottom of a stack that goes.
            let state = self.contexts.get_mut(&context).expect("a live interval's context is known");
            state.settled = state.stack.drain(..count).next_back();
            self.forget_if_done(context);
        }
        vec![effect]
    }

    /// What is said of intervals that become final, which are in the graph still.
    pub(super) fn said_final(&self, finals: &BTreeSet<IntervalId>) -> Effect {
        let (numbers, specs) = (self.numbers_of(finals), self.assumptions_of(finals));
        Effect::Final { intervals: finals.iter().copied().collect(), numbers, specs }
    }

    /// The speculations that live intervals are the entries of, in order.
    pub(super) fn assumptions_of(&self, intervals: &BTreeSet<IntervalId>) -> Vec<SpecId> {
        let specs: BTreeSet<SpecId> = intervals.iter().filter_map(|id| self.intervals[id].assumption).collect();
        specs.into_iter().collect()
    }

    /// What is final by now among everything that hangs on a speculation's entries.
    pub(super) fn finals(&self, spec: SpecId) -> BTreeSet<IntervalId> {
        match self.needs_open(self.entries(spec)) {
            true => BTreeSet::new(),
            false => self.finals_of(&[spec]),
        }
    }

    fn entries(&self, spec: SpecId) -> impl Iterator<Item = IntervalId> + '_ {
        self.specs[&spec].owners.values().map(|place| place.entry)
    }

    /// The same among everything that hangs on the entries of several.
    pub(super) fn finals_of(&self, specs: &[SpecId]) -> BTreeSet<IntervalId> {
        let mut candidates = BTreeSet::new();
        let mut todo: Vec<IntervalId> = specs.iter().flat_map(|spec| self.entries(*spec)).collect();
        while let Some(id) = todo.pop() {
            if candidates.insert(id) {
                todo.extend(self.needed_by(&self.intervals[&id]));
            }
        }
        let hindered = |id: &&IntervalId| {
            let interval = &self.intervals[id];
            self.is_open(interval) || self.needs(interval).any(|needed| !candidates.contains(&needed))
        };
        let mut todo: Vec<IntervalId> = candidates.iter().filter(hindered).copied().collect();
        while let Some(id) = todo.pop() {
            if candidates.remove(&id) {
                todo.extend(self.needed_by(&self.intervals[&id]));
            }
        }
        candidates
    }

    /// Something that these need, however far, is open.
    fn needs_open(&self, entries: impl Iterator<Item = IntervalId>) -> bool {
        let mut todo: Vec<IntervalId> = entries.collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            let interval = &self.intervals[&id];
            // The bottom of its stack is needed too, and most often what is open: an outer speculation.
            let bottom = self.contexts[&interval.context].stack[0];
            if self.is_open(interval) || self.is_open(&self.intervals[&bottom]) {
                return true;
            }
            todo.extend(self.needs(interval));
        }
        false
    }
}
