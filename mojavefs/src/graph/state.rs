//! The graph and how events change it.

use super::event::{Cause, Effect, Event, GraphError, Owner, Resume};
use crate::id::{ContextId, IntervalId, SpecId};
use crate::limits::OUTCOMES_KEPT_MAX;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// How a speculation was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Its assumption holds.
    Committed,
    /// Its assumption is false.
    Aborted,
}

/// A live interval: neither final nor dead.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Interval {
    pub(super) context: ContextId,
    pub(super) base: Option<IntervalId>,
    pub(super) deps: BTreeSet<IntervalId>,
    pub(super) assumption: Option<SpecId>,
    /// Live intervals that have this one as their base or among their deps.
    pub(super) dependents: BTreeSet<IntervalId>,
    /// Undecided speculations that this interval voted for.
    pub(super) votes: BTreeSet<SpecId>,
}

/// An undecided speculation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) owners: BTreeMap<ContextId, OwnerState>,
    pub(super) conflict: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct OwnerState {
    pub(super) entry: IntervalId,
    /// Whether it has voted, and by which interval; none if that one is final.
    pub(super) vote: Option<Option<IntervalId>>,
    pub(super) held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Context {
    /// Its live intervals, oldest first.
    pub(super) stack: Vec<IntervalId>,
    /// It still runs.
    pub(super) open: bool,
}

/// The interval graph of everything undecided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Graph {
    pub(super) intervals: BTreeMap<IntervalId, Interval>,
    pub(super) contexts: BTreeMap<ContextId, Context>,
    pub(super) specs: BTreeMap<SpecId, Spec>,
    pub(super) outcomes: BTreeMap<SpecId, Outcome>,
    pub(super) outcome_order: VecDeque<SpecId>,
}

impl Graph {
    /// A graph of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event in and says what follows from it. After an error nothing has changed.
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, GraphError> {
        match *event {
            Event::Open { context, interval, from } => self.open(context, interval, from),
            Event::Speculate { context, interval, spec } => {
                if self.specs.contains_key(&spec) || self.outcomes.contains_key(&spec) {
                    return Err(GraphError::InUse(spec.0));
                }
                self.check_new(context, interval)?;
                self.specs.insert(spec, Spec { owners: BTreeMap::new(), conflict: false });
                self.enter(context, interval, spec)
            }
            Event::CoOwn { context, interval, spec } => {
                self.check_new(context, interval)?;
                if self.undecided(spec)?.owners.contains_key(&context) {
                    return Err(GraphError::InUse(spec.0));
                }
                self.enter(context, interval, spec)
            }
            Event::Read { context, of, interval, resume } => self.read(context, of, interval, resume),
            Event::Vote { owner, spec } => self.vote(owner, spec),
            Event::Abort { owner, spec, code, retry } => self.abort(owner, spec, Cause::Aborted { spec, code, retry }),
            Event::Hold { context, spec } => self.hold(context, spec),
            Event::Close { context } => self.close(context),
            Event::Conflict { spec } => {
                self.undecided(spec)?;
                self.spec_mut(spec).conflict = true;
                Ok(Vec::new())
            }
            Event::Resolve { spec } => {
                self.undecided(spec)?;
                self.spec_mut(spec).conflict = false;
                Ok(self.judge_final(spec))
            }
        }
    }

    fn check_new(&self, context: ContextId, interval: IntervalId) -> Result<(), GraphError> {
        if self.intervals.contains_key(&interval) {
            return Err(GraphError::InUse(interval.0));
        }
        self.running(context).map(drop)
    }

    pub(super) fn running(&self, context: ContextId) -> Result<&Context, GraphError> {
        self.contexts.get(&context).filter(|c| c.open).ok_or(GraphError::NoContext(context))
    }

    pub(super) fn undecided(&self, spec: SpecId) -> Result<&Spec, GraphError> {
        self.specs.get(&spec).ok_or(GraphError::NoSpec(spec))
    }

    pub(super) fn spec_mut(&mut self, spec: SpecId) -> &mut Spec {
        self.specs.get_mut(&spec).expect("the speculation was found undecided before")
    }

    fn open(
        &mut self,
        context: ContextId,
        interval: IntervalId,
        from: Option<IntervalId>,
    ) -> Result<Vec<Effect>, GraphError> {
        if self.contexts.contains_key(&context) {
            return Err(GraphError::InUse(context.0));
        }
        if self.intervals.contains_key(&interval) {
            return Err(GraphError::InUse(interval.0));
        }
        if let Some(from) = from.filter(|from| !self.intervals.contains_key(from)) {
            return Err(GraphError::NoInterval(from));
        }
        self.contexts.insert(context, Context { stack: Vec::new(), open: true });
        self.push(context, interval, from.into_iter().collect(), None);
        Ok(self.judge_interval(interval))
    }

    /// A new interval on top of a context's stack.
    fn push(
        &mut self,
        context: ContextId,
        interval: IntervalId,
        deps: BTreeSet<IntervalId>,
        assumption: Option<SpecId>,
    ) {
        let stack = &mut self.contexts.get_mut(&context).expect("the context was found before").stack;
        let base = stack.last().copied();
        stack.push(interval);
        for needed in base.iter().chain(&deps) {
            if let Some(needed) = self.intervals.get_mut(needed) {
                needed.dependents.insert(interval);
            }
        }
        let new = Interval { context, base, deps, assumption, dependents: BTreeSet::new(), votes: BTreeSet::new() };
        self.intervals.insert(interval, new);
    }

    fn enter(&mut self, context: ContextId, interval: IntervalId, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        self.push(context, interval, BTreeSet::new(), Some(spec));
        self.spec_mut(spec).owners.insert(context, OwnerState { entry: interval, vote: None, held: false });
        Ok(Vec::new())
    }

    fn read(
        &mut self,
        context: ContextId,
        of: IntervalId,
        interval: IntervalId,
        resume: Resume,
    ) -> Result<Vec<Effect>, GraphError> {
        self.check_new(context, interval)?;
        if !self.intervals.contains_key(&of) {
            return Err(GraphError::NoInterval(of));
        }
        let first = self.contexts[&context].stack.first().copied();
        if self.current(context).is_some_and(|current| self.builds_on(current, of)) {
            return Ok(Vec::new());
        }
        match (resume, first) {
            (Resume::Start, Some(first)) => {
                self.intervals.get_mut(&first).expect("a stack holds live intervals").deps.insert(of);
                self.intervals.get_mut(&of).expect("it was found before").dependents.insert(first);
            }
            _ => self.push(context, interval, BTreeSet::from([of]), None),
        }
        Ok(Vec::new())
    }

    fn owner_state(&self, owner: Owner, spec: SpecId) -> Result<&OwnerState, GraphError> {
        let state = self.undecided(spec)?.owners.get(&owner.context()).ok_or(GraphError::NotOwner(spec))?;
        match state.held == matches!(owner, Owner::Store(_)) {
            true => Ok(state),
            false => Err(GraphError::NotOwner(spec)),
        }
    }

    fn vote(&mut self, owner: Owner, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        match self.outcomes.get(&spec) {
            Some(Outcome::Committed) => return Ok(Vec::new()),
            Some(Outcome::Aborted) => return Err(GraphError::Aborted(spec)),
            None => {}
        }
        let state = self.owner_state(owner, spec)?;
        if state.vote.is_some() {
            return Ok(Vec::new());
        }
        let by = self.current(owner.context());
        if let Some(by) = by {
            self.intervals.get_mut(&by).expect("a stack holds live intervals").votes.insert(spec);
        }
        let state = self.spec_mut(spec).owners.get_mut(&owner.context()).expect("the owner was found before");
        state.vote = Some(by);
        Ok(self.judge_final(spec))
    }

    fn abort(&mut self, owner: Owner, spec: SpecId, cause: Cause) -> Result<Vec<Effect>, GraphError> {
        match self.outcomes.get(&spec) {
            Some(Outcome::Aborted) => return Ok(Vec::new()),
            Some(Outcome::Committed) => return Err(GraphError::Committed(spec)),
            None => {}
        }
        self.owner_state(owner, spec)?;
        Ok(self.kill(spec, cause))
    }

    fn hold(&mut self, context: ContextId, spec: SpecId) -> Result<Vec<Effect>, GraphError> {
        if self.undecided(spec)?.owners.get(&context).is_some_and(|state| state.held) {
            return Ok(Vec::new());
        }
        self.owner_state(Owner::Context(context), spec)?;
        let state = self.spec_mut(spec).owners.get_mut(&context).expect("the owner was found before");
        state.held = true;
        Ok(Vec::new())
    }

    fn close(&mut self, context: ContextId) -> Result<Vec<Effect>, GraphError> {
        self.running(context)?;
        let owned = |spec: &Spec| spec.owners.get(&context).is_some_and(|s| s.vote.is_none() && !s.held);
        let abandoned: Vec<SpecId> = self.specs.iter().filter(|(_, s)| owned(s)).map(|(id, _)| *id).collect();
        let mut effects = Vec::new();
        for spec in abandoned {
            if self.specs.contains_key(&spec) {
                effects.extend(self.kill(spec, Cause::OwnerGone { spec }));
            }
        }
        if let Some(state) = self.contexts.get_mut(&context) {
            state.open = false;
        }
        self.forget_if_done(context);
        Ok(effects)
    }

    /// A context that is gone and has nothing undecided is forgotten.
    pub(super) fn forget_if_done(&mut self, context: ContextId) {
        let owns = self.specs.values().any(|spec| spec.owners.contains_key(&context));
        if self.contexts.get(&context).is_some_and(|c| !c.open && c.stack.is_empty()) && !owns {
            self.contexts.remove(&context);
        }
    }

    /// Remembers how a speculation was decided, for as long as there is room.
    pub(super) fn decided(&mut self, spec: SpecId, outcome: Outcome) {
        self.outcomes.insert(spec, outcome);
        self.outcome_order.push_back(spec);
        if self.outcome_order.len() > OUTCOMES_KEPT_MAX
            && let Some(oldest) = self.outcome_order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }
}
