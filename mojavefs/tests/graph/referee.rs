//! Holds the graph against the model, event by event, and both against the two properties.

use mojavefs::graph::naive::Model;
use mojavefs::graph::{Awaited, Effect, Event, Graph, GraphError, ModelChecker, Waits};
use mojavefs::id::{ContextId, IntervalId};
use std::collections::BTreeSet;

/// The graph, the model, and what the graph has said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referee {
    pub(crate) graph: Graph,
    checker: ModelChecker,
    finals: BTreeSet<IntervalId>,
    dead: BTreeSet<IntervalId>,
}

impl Referee {
    /// One whose model remembers so much.
    pub(crate) fn remembering(intervals_max: usize) -> Self {
        Referee { checker: ModelChecker::new(intervals_max), ..Referee::default() }
    }

    pub(crate) fn model(&self) -> &Model {
        self.checker.model()
    }

    /// Applies an event to both and compares. Whether it was accepted.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, GraphError> {
        let before = self.graph.clone();
        let _previewed = self.graph.preview(event);
        assert_eq!(self.graph, before, "a preview changed the graph: {event:?}");
        let falls = match event {
            Event::Abort { spec, .. } => self.graph.falls_with(*spec),
            _ => BTreeSet::new(),
        };
        let answer = self.checker.apply(&mut self.graph, event).unwrap_or_else(|difference| panic!("{difference}"));
        match &answer {
            Err(_) => assert_eq!(self.graph, before, "a refused event changed the graph: {event:?}"),
            Ok(effects) => effects.iter().for_each(|effect| match effect {
                Effect::Final { intervals, .. } => self.finals.extend(intervals),
                Effect::Dead { intervals, specs, .. } => {
                    let aborted = matches!(event, Event::Abort { .. });
                    assert!(!aborted || specs.iter().copied().eq(falls.iter().copied()), "{event:?}: {falls:?}");
                    self.dead.extend(intervals);
                }
                _ => {}
            }),
        }
        self.check_properties(event);
        answer
    }

    /// Safety and progress, on what the graph has said since the beginning.
    fn check_properties(&self, event: &Event) {
        assert!(self.finals.is_disjoint(&self.dead), "{event:?}: something is both final and dead");
        for interval in self.model().intervals().iter().filter(|interval| self.finals.contains(&interval.id)) {
            let builds_on = interval.base.iter().chain(&interval.deps);
            let all_final = builds_on.clone().all(|needed| self.finals.contains(needed));
            assert!(all_final, "{event:?}: {} is final on top of what is not", interval.id);
        }
        assert!(self.model().seals_exactly(), "{event:?}: confirming what is sealed decides something else");
        if self.model().all_decided() {
            assert_eq!(self.graph.size().0, 0, "{event:?}: every owner has decided and something is left");
        }
    }

    /// Who is inside whom, and who sees all that another has changed.
    pub(crate) fn check_nesting(&self) {
        let model = self.model();
        let undecided: BTreeSet<ContextId> = model.contexts().filter(|at| !model.stack(*at).is_empty()).collect();
        for context in undecided.iter().copied() {
            let inside = |other: &ContextId| model.around(*other).into_iter().skip(1).any(|outer| outer == context);
            let expected: BTreeSet<ContextId> = undecided.iter().copied().filter(inside).collect();
            assert_eq!(self.graph.inside(context), expected, "inside context {context}");
            let seen = model.seen_by(context).map(|seen| seen.numbers).unwrap_or_default();
            let is_seen = |other: &ContextId| {
                *other != context && model.carried_by(*other).iter().all(|number| seen.contains(number))
            };
            let expected: BTreeSet<ContextId> = undecided.iter().copied().filter(is_seen).collect();
            assert_eq!(self.graph.wholly_seen_by(context), expected, "seen by context {context}");
        }
    }

    /// Every question about waiting, with these waits under way.
    pub(crate) fn check_waits(&self, waits: &Waits) {
        let decisions: Vec<Awaited> = self.model().live().map(Awaited::Decision).collect();
        for waiter in self.model().contexts() {
            let ends = self.model().contexts().map(Awaited::End);
            let all: Vec<Awaited> = decisions.iter().copied().chain(ends).collect();
            let awaitable = self.graph.awaitable(waiter, all.iter().copied(), waits);
            for on in all {
                let expected = self.model().would_wait_forever(waiter, on, waits);
                assert_eq!(self.graph.would_wait_forever(waiter, on, waits), expected, "{waiter} on {on:?}, {waits:?}");
                assert_eq!(awaitable.contains(&on), !expected, "{waiter} on {on:?} among all, {waits:?}");
            }
        }
    }
}
