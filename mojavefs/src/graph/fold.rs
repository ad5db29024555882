//! How what is inside of something becomes part of it, as if it had never been apart.

use super::event::{Effect, GraphError};
use super::state::{Context, Graph, Spec};
use crate::id::{ContextId, IntervalId};
use crate::planted::{Planted, is_planted};

impl Graph {
    /// Whether a context can become part of the one around it without anybody's knowing that it was apart. The outer one owns
    /// something open, so that nothing is decided by it; and what others build on is inside the interval that takes it in, so
    /// that they see nothing new.
    pub fn can_fold(&self, context: ContextId) -> bool {
        let (Some(outer), stack) = (self.outer(context), self.stack(context)) else { return false };
        let intervals = || stack.iter().map(|id| &self.intervals[id]);
        let is_own = |spec: &Spec| spec.owners.len() == 1 && !spec.conflict && spec.owners.values().all(|p| !p.held);
        let by_itself = |dependent: &IntervalId| self.intervals[dependent].context == context;
        let alone = || intervals().all(|interval| interval.dependents.iter().all(by_itself));
        self.running(context).is_ok()
            && !stack.is_empty()
            && intervals().filter_map(|interval| interval.assumption).all(|spec| is_own(&self.specs[&spec]))
            && self.stack(outer).iter().any(|id| self.is_open(&self.intervals[id]))
            && (self.current(outer) == self.contexts[&context].from || alone())
    }

    pub(super) fn fold(&mut self, context: ContextId) -> Result<Vec<Effect>, GraphError> {
        self.running(context)?;
        let outer = self.outer(context).filter(|_| self.can_fold(context)).ok_or(GraphError::CannotFold(context))?;
        self.demand_unsealed_context(context)?;
        self.demand_unsealed_context(outer)?;
        let stack = self.contexts.remove(&context).map(|state| state.stack).unwrap_or_default();
        for id in stack.into_iter().rev() {
            self.fold_interval(id, outer);
        }
        Ok(Vec::new())
    }

    /// What is below the interval in its stack goes after it.
    fn fold_interval(&mut self, id: IntervalId, outer: ContextId) {
        let (first, into) = (self.stack(outer)[0], *self.stack(outer).last().expect("a context that owns is alive"));
        let interval = self.detach(id);
        if let Some(spec) = interval.assumption {
            self.specs.remove(&spec);
        }
        if !is_planted(Planted::NumberLostAtFold) {
            self.numbers.extend(interval.numbers.iter().map(|number| (*number, into)));
            self.interval_mut(into).numbers.extend(interval.numbers);
        }
        // What it has read the outer one has, which can go back to its start.
        for dep in interval.deps {
            let on = self.intervals.get(&dep).map(|dep| dep.context);
            let is_others = on.is_some_and(|on| ![outer, interval.context].contains(&on));
            if is_others && !is_planted(Planted::DependencyForgottenAtFold) {
                self.depend(first, dep);
            }
        }
        for dependent in interval.dependents.into_iter().filter(|dependent| *dependent != into) {
            self.depend(dependent, into);
            let started = self.contexts.get_mut(&self.intervals[&dependent].context);
            if let Some(started) = started.filter(|started| started.from == Some(id)) {
                started.from = Some(into);
            }
        }
    }

    fn depend(&mut self, dependent: IntervalId, on: IntervalId) {
        self.interval_mut(dependent).deps.insert(on);
        self.interval_mut(on).dependents.insert(dependent);
    }

    /// The number that can take what carries another one; nothing if somebody could tell them apart, who sees one of them only or
    /// something between them.
    pub fn taker(&self, from: IntervalId) -> Option<IntervalId> {
        let id = *self.numbers.get(&from)?;
        let interval = &self.intervals[&id];
        let before = |seen: &[IntervalId]| seen[..seen.partition_point(|number| *number < from)].last().copied();
        let to = before(&self.seen_by(interval.context)?.numbers)?;
        let sees_both_or_none = |context: &ContextId| {
            let seen = self.seen_by(*context).map(|seen| seen.numbers).unwrap_or_default();
            if seen.contains(&from) { before(&seen) == Some(to) } else { !seen.contains(&to) }
        };
        let takes = interval.numbers.contains(&to) && ![id, interval.writer].contains(&from);
        let found = |state: &Context| [from, to].iter().any(|number| state.found(number));
        let found = self.contexts.iter().filter(|(_, state)| found(state)).map(|(context, _)| context);
        (takes && self.built_on(&[from]).iter().chain(found).all(sees_both_or_none)).then_some(to)
    }

    pub(super) fn reassign(&mut self, from: IntervalId, to: IntervalId) -> Result<Vec<Effect>, GraphError> {
        let id = *self.numbers.get(&from).ok_or(GraphError::NoInterval(from))?;
        if self.taker(from) != Some(to) {
            return Err(GraphError::Apart(from, to));
        }
        self.demand_unsealed(id)?;
        Ok(self.take_number(id, from))
    }

    /// Whether a number can't be discarded: it is an interval's own, or the one that its changes carry.
    pub fn is_in_use(&self, number: IntervalId) -> bool {
        self.numbers.get(&number).is_some_and(|id| [*id, self.intervals[id].writer].contains(&number))
    }

    pub(super) fn discard(&mut self, number: IntervalId) -> Result<Vec<Effect>, GraphError> {
        let id = *self.numbers.get(&number).ok_or(GraphError::NoInterval(number))?;
        if self.is_in_use(number) {
            return Err(GraphError::Needed(number));
        }
        self.demand_unsealed(id)?;
        Ok(self.take_number(id, number))
    }

    /// Nothing follows from it.
    fn take_number(&mut self, from: IntervalId, number: IntervalId) -> Vec<Effect> {
        self.numbers.remove(&number);
        self.interval_mut(from).numbers.remove(&number);
        Vec::new()
    }
}

impl Context {
    /// It stays with what it found, and found this.
    fn found(&self, number: &IntervalId) -> bool {
        self.keeps.as_ref().is_some_and(|keeps| keeps.contains(number))
    }
}
