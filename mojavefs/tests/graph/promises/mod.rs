//! The rules, promise by promise. Contexts are named `A`, `B`, `C`; each begins with an interval that is final at once.

mod deciding;
mod enduring;
mod numbering;
mod spreading;

use mojavefs::graph::{Effect, Event, Graph, GraphError, Owner, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::BTreeMap;

pub(crate) const A: ContextId = ContextId(1);
pub(crate) const B: ContextId = ContextId(2);
pub(crate) const C: ContextId = ContextId(3);

/// A graph with contexts `A`, `B` and `C` running, and short ways to say what happens.
pub(crate) struct World {
    pub(crate) graph: Graph,
    last: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = World { graph: Graph::new(), last: 0 };
        for context in [A, B, C] {
            let interval = world.new_interval();
            let effects = world.apply(Event::Open { context, interval, from: None, sees: Sees::Follows });
            assert_eq!(effects, [Effect::Final { intervals: vec![interval], numbers: vec![interval], specs: vec![] }]);
        }
        world
    }

    pub(crate) fn new_interval(&mut self) -> IntervalId {
        self.last += 1;
        IntervalId(self.last)
    }

    pub(crate) fn try_apply(&mut self, event: Event) -> Result<Vec<Effect>, GraphError> {
        let effects = self.graph.apply(&event);
        self.graph.check().expect("the graph is in order after every event");
        effects
    }

    pub(crate) fn apply(&mut self, event: Event) -> Vec<Effect> {
        self.try_apply(event.clone()).unwrap_or_else(|error| panic!("{event:?}: {error}"))
    }

    /// Enters a new speculation. Its number is that of its first entry.
    pub(crate) fn speculate(&mut self, context: ContextId) -> (IntervalId, SpecId) {
        let interval = self.new_interval();
        let spec = SpecId(interval.0);
        assert_eq!(self.apply(Event::Speculate { context, interval, spec }), []);
        (interval, spec)
    }

    pub(crate) fn co_own(&mut self, context: ContextId, spec: SpecId) -> IntervalId {
        let interval = self.new_interval();
        assert_eq!(self.apply(Event::CoOwn { context, interval, spec }), []);
        interval
    }

    /// Reads, with a checkpoint. The interval that the reader is in then.
    pub(crate) fn join(&mut self, context: ContextId, of: IntervalId) -> IntervalId {
        self.read(context, of, Resume::Here)
    }

    pub(crate) fn read(&mut self, context: ContextId, of: IntervalId, resume: Resume) -> IntervalId {
        let interval = self.new_interval();
        assert_eq!(self.apply(Event::Read { context, of, interval, resume }), []);
        self.graph.current(context).expect("it joined")
    }

    pub(crate) fn vote(&mut self, context: ContextId, spec: SpecId) -> Vec<Effect> {
        self.apply(Event::Vote { owner: Owner::Context(context), spec })
    }

    pub(crate) fn abort(&mut self, context: ContextId, spec: SpecId) -> Vec<Effect> {
        self.apply(abort(context, spec))
    }

    pub(crate) fn is_undone_by(&self, effects: &[Effect], gone: &[IntervalId]) -> bool {
        effects.iter().any(|effect| matches!(effect, Effect::Dead { intervals, .. } if intervals == gone))
            && gone.iter().all(|id| !self.graph.is_live(*id))
    }
}

pub(crate) fn abort(context: ContextId, spec: SpecId) -> Event {
    Event::Abort { owner: Owner::Context(context), spec, code: 1, retry: false }
}

pub(crate) fn finals(intervals: &[IntervalId], specs: &[SpecId]) -> Vec<Effect> {
    vec![Effect::Final { intervals: intervals.to_vec(), numbers: intervals.to_vec(), specs: specs.to_vec() }]
}

pub(crate) fn rolled_back(effects: &[Effect]) -> BTreeMap<ContextId, IntervalId> {
    let rollback = |effect: &Effect| match effect {
        Effect::Rollback { context, to, .. } => Some((*context, *to)),
        _ => None,
    };
    effects.iter().filter_map(rollback).collect()
}
