//! How intervals begin: contexts, speculations, joins (rules 1 and 2).

use super::event::{Effect, GraphError, Resume, Sees};
use super::state::{Context, Graph, Interval, Place, Spec};
use crate::id::{ContextId, IntervalId, SpecId};
use crate::limits::{GRAPH_CONTEXTS_MAX, GRAPH_INTERVALS_MAX};
use std::collections::{BTreeMap, BTreeSet};

impl Graph {
    pub(super) fn open(
        &mut self,
        context: ContextId,
        interval: IntervalId,
        from: Option<IntervalId>,
        sees: &Sees,
    ) -> Result<Vec<Effect>, GraphError> {
        match self.contexts.get(&context) {
            Some(state) if !state.open || !state.is_undone() => return Err(GraphError::InUse(context.0)),
            None if self.contexts.len() >= GRAPH_CONTEXTS_MAX => return Err(GraphError::Full(GRAPH_CONTEXTS_MAX)),
            _ => self.check_unused(interval)?,
        }
        if let Some(from) = from.filter(|from| !self.intervals.contains_key(from)) {
            return Err(GraphError::NoInterval(from));
        }
        let outer = from.map(|from| self.intervals[&from].context);
        let found = || outer.and_then(|outer| self.seen_by(outer)).map(|seen| seen.numbers).unwrap_or_default();
        let keeps = match sees {
            Sees::Follows => None,
            Sees::Found => Some(found().into_iter().collect()),
            Sees::Had(numbers) => Some(numbers.iter().copied().collect()),
        };
        self.contexts.insert(context, Context { stack: Vec::new(), settled: None, open: true, from, keeps });
        let state = self.contexts.get_mut(&context).expect("just inserted");
        if from.is_none() {
            state.settled = Some(interval);
            return Ok(vec![final_at_once(interval)]);
        }
        self.push(context, interval, from, None);
        Ok(Vec::new())
    }

    pub(super) fn speculate(
        &mut self,
        context: ContextId,
        interval: IntervalId,
        spec: SpecId,
    ) -> Result<Vec<Effect>, GraphError> {
        self.check_acting(context, interval)?;
        if self.specs.contains_key(&spec) || self.outcomes.contains_key(&spec) {
            return Err(GraphError::InUse(spec.0));
        }
        self.specs.insert(spec, Spec { owners: BTreeMap::new(), conflict: false });
        self.enter(context, interval, spec);
        Ok(Vec::new())
    }

    pub(super) fn co_own(
        &mut self,
        context: ContextId,
        interval: IntervalId,
        spec: SpecId,
    ) -> Result<Vec<Effect>, GraphError> {
        self.check_acting(context, interval)?;
        if self.undecided(spec)?.owners.contains_key(&context) {
            return Err(GraphError::Owns(context, spec));
        }
        self.demand_unsealed_spec(spec)?;
        self.enter(context, interval, spec);
        Ok(Vec::new())
    }

    pub(super) fn read(
        &mut self,
        context: ContextId,
        of: IntervalId,
        interval: IntervalId,
        resume: Resume,
    ) -> Result<Vec<Effect>, GraphError> {
        self.check_acting(context, interval)?;
        if !self.intervals.contains_key(&of) {
            return Err(GraphError::NoInterval(of));
        }
        if self.current(context).is_some_and(|current| self.builds_on(current, of)) {
            return Ok(Vec::new());
        }
        let stack = &self.contexts[&context].stack;
        let joins = match resume {
            Resume::Here => {
                self.push(context, interval, Some(of), None);
                return Ok(Vec::new());
            }
            Resume::Start => stack.first(),
            Resume::At(at) => stack.iter().find(|live| **live == at),
        };
        let joins = *joins.ok_or(GraphError::CannotResume(context))?;
        self.demand_unsealed(joins)?;
        self.interval_mut(joins).deps.insert(of);
        self.interval_mut(of).dependents.insert(joins);
        Ok(Vec::new())
    }

    /// A running context may begin this interval.
    pub(super) fn check_acting(&self, context: ContextId, interval: IntervalId) -> Result<(), GraphError> {
        match self.running(context)?.is_undone() {
            true => Err(GraphError::Undone(context)),
            false => self.check_unused(interval),
        }
    }

    pub(super) fn check_unused(&self, interval: IntervalId) -> Result<(), GraphError> {
        let in_use = self.intervals.contains_key(&interval) || self.numbers.contains_key(&interval);
        if interval == IntervalId::FINAL || in_use {
            return Err(GraphError::InUse(interval.0));
        }
        match self.intervals.len() < GRAPH_INTERVALS_MAX {
            true => Ok(()),
            false => Err(GraphError::Full(GRAPH_INTERVALS_MAX)),
        }
    }

    fn enter(&mut self, context: ContextId, interval: IntervalId, spec: SpecId) {
        self.push(context, interval, None, Some(spec));
        self.spec_mut(spec).owners.insert(context, Place { entry: interval, vote: None, held: false });
    }

    /// A new interval on top of a context's stack.
    fn push(&mut self, context: ContextId, interval: IntervalId, dep: Option<IntervalId>, assumption: Option<SpecId>) {
        let stack = &mut self.contexts.get_mut(&context).expect("the context was found before").stack;
        let base = stack.last().copied();
        stack.push(interval);
        let deps: BTreeSet<IntervalId> = dep.into_iter().collect();
        for needed in base.iter().chain(&deps) {
            self.interval_mut(*needed).dependents.insert(interval);
        }
        let (dependents, votes) = Default::default();
        let numbers = BTreeSet::from([interval]);
        let new = Interval { context, base, deps, assumption, dependents, votes, numbers, writer: interval };
        self.intervals.insert(interval, new);
        self.numbers.insert(interval, interval);
    }
}

/// What is said of a first interval that rests on nothing undecided.
pub(super) fn final_at_once(interval: IntervalId) -> Effect {
    Effect::Final { intervals: vec![interval], numbers: vec![interval], specs: Vec::new() }
}

impl Context {
    fn is_undone(&self) -> bool {
        self.stack.is_empty() && self.settled.is_none()
    }
}
