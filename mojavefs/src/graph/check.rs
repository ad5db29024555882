//! Whether a graph is in order, for one that was read from somewhere, and for tests.

use super::state::{Context, Graph, Interval, Place};
use crate::id::{ContextId, IntervalId, SpecId};
use crate::limits::OUTCOMES_KEPT_MAX;

/// What is wrong with a graph, in words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the interval graph is broken: {0}")]
pub struct Broken(String);

fn ensure(holds: bool, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken(what())) }
}

impl Graph {
    /// Checks that everything named is there, that each index agrees with what it indexes, and that nothing is kept that
    /// is final. Takes time in proportion to the whole graph.
    pub fn check(&self) -> Result<(), Broken> {
        for (id, interval) in &self.intervals {
            self.check_interval(*id, interval)?;
        }
        for (id, context) in &self.contexts {
            self.check_context(*id, context)?;
        }
        for (id, spec) in &self.specs {
            ensure(!spec.owners.is_empty(), || format!("speculation {id} has no owner"))?;
            ensure(!self.outcomes.contains_key(id), || format!("speculation {id} is decided and undecided"))?;
            for (context, place) in &spec.owners {
                self.check_place(*id, *context, place)?;
            }
        }
        let numbers: usize = self.intervals.values().map(|interval| interval.numbers.len()).sum();
        ensure(numbers == self.numbers.len(), || "a number is nobody's, or two have it".to_string())?;
        let stacked: usize = self.contexts.values().map(|context| context.stack.len()).sum();
        ensure(stacked == self.intervals.len(), || "an interval is in no stack or in two".to_string())?;
        let remembered = self.outcomes.len();
        ensure(remembered == self.outcome_order.len() && remembered <= OUTCOMES_KEPT_MAX, || {
            "outcomes disagree with their order".to_string()
        })?;
        for (spec, sealed) in &self.sealed {
            let place = self.specs.get(spec).and_then(|spec| spec.owners.get(&sealed.voter));
            let is_cast = place.is_some_and(|place| place.vote.is_some_and(|by| sealed.intervals.contains(&by)));
            let is_live = sealed.intervals.iter().all(|id| self.intervals.contains_key(id));
            ensure(is_cast && is_live, || {
                format!("what is sealed with speculation {spec} is not there, or was not voted for")
            })?;
        }
        for spec in self.specs.keys() {
            ensure(self.finals(*spec).is_empty(), || format!("speculation {spec} is final but kept"))?;
        }
        Ok(())
    }

    fn check_interval(&self, id: IntervalId, interval: &Interval) -> Result<(), Broken> {
        for needed in interval.base.iter().chain(&interval.deps) {
            let known = self.intervals.get(needed).is_some_and(|needed| needed.dependents.contains(&id));
            ensure(known, || format!("interval {id} builds on {needed}, which does not know it"))?;
        }
        for number in &interval.numbers {
            ensure(self.numbers.get(number) == Some(&id), || format!("number {number} is not known to be {id}'s"))?;
        }
        let own = [id, interval.writer].iter().all(|number| interval.numbers.contains(number));
        ensure(own, || format!("interval {id} has lost a number of its own"))?;
        for dependent in &interval.dependents {
            let other = self.intervals.get(dependent);
            let builds = other.is_some_and(|other| other.base == Some(id) || other.deps.contains(&id));
            ensure(builds, || format!("interval {dependent} does not build on {id}"))?;
        }
        let place = |spec: &SpecId| self.specs.get(spec)?.owners.get(&interval.context);
        for spec in &interval.votes {
            let cast = place(spec).is_some_and(|place| place.vote == Some(id));
            ensure(cast, || format!("interval {id} has not voted for {spec}"))?;
        }
        let entry = interval.assumption.is_none_or(|spec| place(&spec).is_some_and(|place| place.entry == id));
        ensure(entry, || format!("interval {id} is not the entry of its assumption"))?;
        ensure(self.contexts.contains_key(&interval.context), || format!("interval {id} has no context"))
    }

    fn check_context(&self, id: ContextId, context: &Context) -> Result<(), Broken> {
        ensure(context.open || !context.stack.is_empty(), || format!("context {id} is gone but kept"))?;
        let mut base = None;
        for level in &context.stack {
            let interval = self.intervals.get(level);
            let stacked = interval.is_some_and(|interval| interval.context == id && interval.base == base);
            ensure(stacked, || format!("interval {level} is misplaced in the stack of context {id}"))?;
            base = Some(*level);
        }
        Ok(())
    }

    fn check_place(&self, spec: SpecId, context: ContextId, place: &Place) -> Result<(), Broken> {
        let stack = self.contexts.get(&context).map_or(&[][..], |context| &context.stack);
        let level = |id: IntervalId| stack.iter().position(|level| *level == id);
        let entry = level(place.entry).filter(|_| self.intervals[&place.entry].assumption == Some(spec));
        ensure(entry.is_some(), || format!("context {context} has lost its entry into speculation {spec}"))?;
        let Some(vote) = place.vote else {
            let decides = place.held || self.contexts[&context].open;
            return ensure(decides, || format!("context {context} is gone and has not decided speculation {spec}"));
        };
        let known = self.intervals.get(&vote).is_some_and(|interval| interval.votes.contains(&spec));
        ensure(known && level(vote) >= entry, || format!("context {context} has lost its vote for speculation {spec}"))
    }
}
