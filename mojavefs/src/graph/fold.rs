//! How what is inside of something becomes part of it, as if it had never been apart.

use super::event::{Effect, GraphError};
use super::state::{Graph, Interval};
use crate::id::{ContextId, IntervalId};
use crate::planted::{Planted, is_planted};

impl Graph {
    /// Whether a context can become part of the one around it without anybody's knowing that it was apart.
    pub fn can_fold(&self, context: ContextId) -> bool {
        let Some(outer) = self.outer(context) else { return false };
        let stack = self.stack(context);
        let is_alone = |interval: &Interval| {
            let on_outer = |dep: &IntervalId| [outer, context].contains(&self.intervals[dep].context);
            let by_itself = |dependent: &IntervalId| self.intervals[dependent].context == context;
            let spec = interval.assumption.map(|spec| &self.specs[&spec]);
            interval.deps.iter().all(on_outer)
                && interval.dependents.iter().all(by_itself)
                && spec.is_none_or(|spec| {
                    spec.owners.len() == 1 && !spec.conflict && spec.owners.values().all(|place| !place.held)
                })
        };
        self.running(context).is_ok() && !stack.is_empty() && stack.iter().all(|id| is_alone(&self.intervals[id]))
    }

    pub(super) fn fold(&mut self, context: ContextId) -> Result<Vec<Effect>, GraphError> {
        self.running(context)?;
        let outer = self.outer(context).filter(|_| self.can_fold(context));
        let into = outer.and_then(|outer| self.current(outer)).ok_or(GraphError::CannotFold(context))?;
        let stack = self.contexts.remove(&context).map(|state| state.stack).unwrap_or_default();
        for id in stack.into_iter().rev() {
            let interval = self.detach(id);
            if let Some(spec) = interval.assumption {
                self.specs.remove(&spec);
            }
            if !is_planted(Planted::NumberLostAtFold) {
                self.numbers.extend(interval.numbers.iter().map(|number| (*number, into)));
                self.interval_mut(into).numbers.extend(interval.numbers);
            }
        }
        Ok(Vec::new())
    }

    /// The number that can take what carries another one; nothing if somebody could tell them apart.
    pub fn taker(&self, from: IntervalId) -> Option<IntervalId> {
        let id = *self.numbers.get(&from)?;
        let interval = &self.intervals[&id];
        let seen = self.seen_by(interval.context)?.numbers;
        let to = seen[..seen.partition_point(|number| *number < from)].last().copied()?;
        let found = |number| self.contexts.values().any(|state| !state.stack.is_empty() && state.found(number));
        let takes = interval.numbers.contains(&to) && ![id, interval.writer].contains(&from) && !found(to);
        takes.then_some(to)
    }

    pub(super) fn hand_over(&mut self, from: IntervalId, to: IntervalId) -> Result<Vec<Effect>, GraphError> {
        let id = *self.numbers.get(&from).ok_or(GraphError::NoInterval(from))?;
        if self.taker(from) != Some(to) {
            return Err(GraphError::Apart(from, to));
        }
        Ok(self.take_number(id, from))
    }

    pub(super) fn discard(&mut self, number: IntervalId) -> Result<Vec<Effect>, GraphError> {
        let id = *self.numbers.get(&number).ok_or(GraphError::NoInterval(number))?;
        if [id, self.intervals[&id].writer].contains(&number) {
            return Err(GraphError::Needed(number));
        }
        Ok(self.take_number(id, number))
    }

    /// Nothing follows from it.
    fn take_number(&mut self, from: IntervalId, number: IntervalId) -> Vec<Effect> {
        self.numbers.remove(&number);
        self.interval_mut(from).numbers.remove(&number);
        Vec::new()
    }
}

impl super::state::Context {
    /// It stays with what it found, and found this.
    fn found(&self, number: IntervalId) -> bool {
        self.keeps.as_ref().is_some_and(|keeps| keeps.contains(&number))
    }
}
