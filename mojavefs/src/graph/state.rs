//! What the graph holds, and which event changes it where.

use super::event::{Effect, Event, GraphError};
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

/// A live interval: neither final nor dead. It names live intervals and undecided speculations only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Interval {
    pub(super) context: ContextId,
    pub(super) base: Option<IntervalId>,
    pub(super) deps: BTreeSet<IntervalId>,
    /// The speculation that it is the entry of.
    pub(super) assumption: Option<SpecId>,
    /// Intervals that have this one as their base or among their deps.
    pub(super) dependents: BTreeSet<IntervalId>,
    /// Speculations that it voted for.
    pub(super) votes: BTreeSet<SpecId>,
    /// The numbers that changes made in it carry: its own, later ones of its context, and those of what was folded into it.
    pub(super) numbers: BTreeSet<IntervalId>,
    /// The one of them that the next change carries.
    pub(super) writer: IntervalId,
}

/// An undecided speculation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Spec {
    pub(super) owners: BTreeMap<ContextId, Place>,
    pub(super) conflict: bool,
}

/// What a vote that is not confirmed yet makes final.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The context whose vote it is.
    pub(super) voter: ContextId,
    pub(super) intervals: BTreeSet<IntervalId>,
}

/// An owner's place in a speculation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) entry: IntervalId,
    /// The interval that cast its vote: the entry or a later one of the same context.
    pub(super) vote: Option<IntervalId>,
    /// The store has taken it over.
    pub(super) held: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Context {
    /// Its live intervals, each the base of the next.
    pub(super) stack: Vec<IntervalId>,
    /// The last of its intervals that became final. With none, and none alive, the context is undone.
    pub(super) settled: Option<IntervalId>,
    /// It still runs.
    pub(super) open: bool,
    /// The interval that it was started from; not live any more once that is final.
    pub(super) from: Option<IntervalId>,
    /// The numbers that it found and stays with; nothing for one that follows what becomes final.
    pub(super) keeps: Option<BTreeSet<IntervalId>>,
}

/// The interval graph of everything undecided. It can be written down and read back with serde; what is read should be
/// [checked](Graph::check).
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Graph {
    pub(super) intervals: BTreeMap<IntervalId, Interval>,
    pub(super) contexts: BTreeMap<ContextId, Context>,
    pub(super) specs: BTreeMap<SpecId, Spec>,
    pub(super) outcomes: BTreeMap<SpecId, Outcome>,
    pub(super) outcome_order: VecDeque<SpecId>,
    /// Whose each writer number is.
    pub(super) numbers: BTreeMap<IntervalId, IntervalId>,
    /// What becomes final once a vote that was cast for a speculation is confirmed.
    pub(super) sealed: BTreeMap<SpecId, Sealed>,
}

impl Graph {
    /// A graph of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes an event in and says what follows from it, in the order in which it is to be carried out. Events are taken to
    /// happen one after the other, in the order of the calls. After an error nothing has changed.
    pub fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, GraphError> {
        match *event {
            Event::Open { context, interval, from, ref sees } => self.open(context, interval, from, sees),
            Event::Speculate { context, interval, spec } => self.speculate(context, interval, spec),
            Event::CoOwn { context, interval, spec } => self.co_own(context, interval, spec),
            Event::Read { context, of, interval, resume } => self.read(context, of, interval, resume),
            Event::Vote { owner, spec } => self.vote(owner, spec),
            Event::Prepare { owner, spec } => self.prepare(owner, spec),
            Event::Confirm { spec } => self.confirm(spec),
            Event::Cancel { spec } => self.cancel(spec),
            Event::Abort { owner, spec, code, retry } => self.abort(owner, spec, code, retry),
            Event::Hold { context, spec } => self.hold(context, spec),
            Event::Close { context } => self.close(context),
            Event::Conflict { spec } => self.conflict(spec),
            Event::Resolve { spec } => self.resolve(spec),
            Event::Number { context, number } => self.number(context, number),
            Event::Fold { context } => self.fold(context),
            Event::Reassign { from, to } => self.reassign(from, to),
            Event::Discard { number } => self.discard(number),
        }
    }

    pub(super) fn running(&self, context: ContextId) -> Result<&Context, GraphError> {
        self.contexts.get(&context).filter(|state| state.open).ok_or(GraphError::NoContext(context))
    }

    pub(super) fn undecided(&self, spec: SpecId) -> Result<&Spec, GraphError> {
        self.specs.get(&spec).ok_or_else(|| match self.outcomes.get(&spec) {
            Some(Outcome::Committed) => GraphError::Committed(spec),
            Some(Outcome::Aborted) => GraphError::Aborted(spec),
            None => GraphError::NoSpec(spec),
        })
    }

    pub(super) fn interval_mut(&mut self, id: IntervalId) -> &mut Interval {
        self.intervals.get_mut(&id).expect("stacks, deps and places name live intervals")
    }

    pub(super) fn spec_mut(&mut self, spec: SpecId) -> &mut Spec {
        self.specs.get_mut(&spec).expect("the speculation was found undecided before")
    }

    /// Takes an interval that is final, dead or folded out of the graph; its context's stack is the caller's.
    pub(super) fn detach(&mut self, id: IntervalId) -> Interval {
        let interval = self.intervals.remove(&id).expect("only live intervals are judged");
        for number in &interval.numbers {
            self.numbers.remove(number);
        }
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
        interval
    }

    /// A context that is gone and has nothing undecided is forgotten.
    pub(super) fn forget_if_done(&mut self, context: ContextId) {
        if self.contexts.get(&context).is_some_and(|state| !state.open && state.stack.is_empty()) {
            self.contexts.remove(&context);
        }
    }

    /// Remembers how a speculation was decided, for as long as there is room.
    pub(super) fn decided(&mut self, spec: SpecId, outcome: Outcome) {
        self.specs.remove(&spec);
        self.outcomes.insert(spec, outcome);
        self.outcome_order.push_back(spec);
        if self.outcome_order.len() > OUTCOMES_KEPT_MAX
            && let Some(oldest) = self.outcome_order.pop_front()
        {
            self.outcomes.remove(&oldest);
        }
    }
}
