//! What is final and what is dead.

use super::event::{Cause, Effect};
use super::state::{Graph, Interval, Outcome};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    /// What an interval needs to become final: its base, its deps, the votes for its assumption.
    fn needs<'a>(&'a self, interval: &'a Interval) -> impl Iterator<Item = IntervalId> + 'a {
        let votes = interval.assumption.and_then(|spec| self.specs.get(&spec));
        let votes = votes.into_iter().flat_map(|spec| spec.owners.values().filter_map(|owner| owner.vote.flatten()));
        // All owners' entries stand or fall with one assumption.
        let entries = interval.assumption.and_then(|spec| self.specs.get(&spec));
        let entries = entries.into_iter().flat_map(|spec| spec.owners.values().map(|owner| owner.entry));
        interval.base.into_iter().chain(interval.deps.iter().copied()).chain(votes).chain(entries)
    }

    /// Who needs this interval.
    fn needed_by<'a>(&'a self, id: IntervalId, interval: &'a Interval) -> impl Iterator<Item = IntervalId> + 'a {
        let voted = interval.votes.iter().chain(&interval.assumption).filter_map(|spec| self.specs.get(spec));
        let entries = voted.flat_map(|spec| spec.owners.values().map(|owner| owner.entry));
        interval.dependents.iter().copied().chain(entries).filter(move |other| *other != id)
    }

    /// Its assumption is still open: an owner has not voted, or a conflict stands in the way.
    fn is_open(&self, interval: &Interval) -> bool {
        let spec = interval.assumption.and_then(|spec| self.specs.get(&spec));
        spec.is_some_and(|spec| spec.conflict || spec.owners.values().any(|owner| owner.vote.is_none()))
    }

    fn closure<'a, I: Iterator<Item = IntervalId>>(
        &'a self,
        from: impl IntoIterator<Item = IntervalId>,
        next: impl Fn(IntervalId, &'a Interval) -> I,
    ) -> BTreeSet<IntervalId> {
        let mut todo: Vec<IntervalId> = from.into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if let Some(interval) = self.intervals.get(&id)
                && seen.insert(id)
            {
                todo.extend(next(id, interval));
            }
        }
        seen
    }

    /// Makes final whatever can be, now that a speculation has a vote more or a conflict less.
    pub(super) fn judge_final(&mut self, spec: SpecId) -> Vec<Effect> {
        let entries: Vec<IntervalId> = self.specs[&spec].owners.values().map(|owner| owner.entry).collect();
        self.judge_from(entries)
    }

    /// Makes an interval final at once if nothing it needs is open.
    pub(super) fn judge_interval(&mut self, interval: IntervalId) -> Vec<Effect> {
        self.judge_from(vec![interval])
    }

    /// The greatest closed set among what hangs together with `changed`: all but what needs something open.
    fn judge_from(&mut self, changed: Vec<IntervalId>) -> Vec<Effect> {
        let affected = self.closure(changed, |id, interval| self.needed_by(id, interval));
        let involved = self.closure(affected.iter().copied(), |_, interval| self.needs(interval));
        let open = involved.iter().copied().filter(|id| self.is_open(&self.intervals[id]));
        let waiting = self.closure(open, |id, interval| self.needed_by(id, interval));
        let finals: Vec<IntervalId> = involved.into_iter().filter(|id| !waiting.contains(id)).collect();
        if finals.is_empty() {
            return Vec::new();
        }
        let mut specs = BTreeSet::new();
        let mut contexts = BTreeSet::new();
        for id in &finals {
            let interval = self.remove(*id);
            specs.extend(interval.assumption);
            contexts.insert(interval.context);
        }
        let owners: BTreeSet<ContextId> =
            specs.iter().flat_map(|spec| self.specs[spec].owners.keys().copied()).collect();
        for spec in &specs {
            self.specs.remove(spec);
            self.decided(*spec, Outcome::Committed);
        }
        contexts.into_iter().chain(owners).for_each(|context| self.forget_if_done(context));
        vec![Effect::Final { intervals: finals, specs: specs.into_iter().collect() }]
    }

    /// Takes an interval that is final or dead out of the graph.
    fn remove(&mut self, id: IntervalId) -> Interval {
        let interval = self.intervals.remove(&id).expect("only live intervals are judged");
        for needed in interval.base.iter().chain(&interval.deps) {
            if let Some(needed) = self.intervals.get_mut(needed) {
                needed.dependents.remove(&id);
            }
        }
        for dependent in &interval.dependents {
            if let Some(dependent) = self.intervals.get_mut(dependent) {
                dependent.base = dependent.base.filter(|base| *base != id);
                dependent.deps.remove(&id);
            }
        }
        for spec in &interval.votes {
            let owner = self.specs.get_mut(spec).and_then(|spec| spec.owners.get_mut(&interval.context));
            if let Some(owner) = owner {
                owner.vote = Some(None);
            }
        }
        if let Some(context) = self.contexts.get_mut(&interval.context) {
            context.stack.retain(|live| *live != id);
        }
        interval
    }

    /// Falsifies an assumption: everything that builds on it dies, and with an owner's entry every speculation it owns.
    pub(super) fn kill(&mut self, spec: SpecId, cause: Cause) -> Vec<Effect> {
        let mut aborted = BTreeSet::new();
        let mut dead = BTreeSet::new();
        let mut todo = vec![spec];
        while let Some(spec) = todo.pop() {
            if !aborted.insert(spec) {
                continue;
            }
            let entries: Vec<IntervalId> = self.specs[&spec].owners.values().map(|owner| owner.entry).collect();
            let fallen = self.closure(entries, |_, interval| interval.dependents.iter().copied());
            for id in fallen {
                if dead.insert(id) {
                    todo.extend(self.intervals[&id].assumption.filter(|spec| self.specs.contains_key(spec)));
                }
            }
        }
        let mut rollbacks: BTreeMap<ContextId, IntervalId> = BTreeMap::new();
        for id in &dead {
            let context = self.intervals[id].context;
            let stack = &self.contexts[&context].stack;
            if let Some(earliest) = stack.iter().find(|id| dead.contains(id)) {
                rollbacks.insert(context, *earliest);
            }
        }
        let owners: BTreeSet<ContextId> =
            aborted.iter().flat_map(|spec| self.specs[spec].owners.keys().copied()).collect();
        for spec in &aborted {
            self.specs.remove(spec);
            self.decided(*spec, Outcome::Aborted);
        }
        for id in &dead {
            let interval = self.remove(*id);
            self.take_back_votes(&interval);
        }
        let contexts: Vec<ContextId> = rollbacks.keys().copied().chain(owners).collect();
        let running = |context: &ContextId| self.contexts.get(context).is_some_and(|c| c.open);
        let mut effects =
            vec![Effect::Dead { intervals: dead.into_iter().collect(), specs: aborted.into_iter().collect(), cause }];
        let rolled = rollbacks.into_iter().filter(|(context, _)| running(context));
        effects.extend(rolled.map(|(context, to)| Effect::Rollback { context, to, cause }));
        contexts.into_iter().for_each(|context| self.forget_if_done(context));
        effects
    }

    /// A voting interval that dies takes its votes back (rule 3).
    fn take_back_votes(&mut self, dead: &Interval) {
        for spec in &dead.votes {
            let owner = self.specs.get_mut(spec).and_then(|spec| spec.owners.get_mut(&dead.context));
            if let Some(owner) = owner {
                owner.vote = None;
            }
        }
    }
}
