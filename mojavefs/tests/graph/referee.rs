//! Holds the graph against the model, event by event, and both against the two properties.

use crate::model::Model;
use mojavefs::graph::{Because, Cause, Effect, Event, Graph, GraphError};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet};

/// The graph, the model, and what the graph has said so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Referee {
    pub(crate) graph: Graph,
    pub(crate) model: Model,
    finals: BTreeSet<IntervalId>,
    dead: BTreeSet<IntervalId>,
}

/// The effects of one event, sorted out.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    finals: BTreeSet<IntervalId>,
    committed: BTreeSet<SpecId>,
    dead: BTreeSet<IntervalId>,
    aborted: BTreeSet<SpecId>,
    withdrawn: BTreeSet<(SpecId, ContextId)>,
    rollbacks: BTreeMap<ContextId, IntervalId>,
}

fn sort_out(effects: &[Effect]) -> Said {
    let mut said = Said::default();
    for effect in effects {
        match effect {
            Effect::Final { intervals, specs } => {
                said.finals.extend(intervals);
                said.committed.extend(specs);
            }
            Effect::Dead { intervals, specs, .. } => {
                said.dead.extend(intervals);
                said.aborted.extend(specs);
            }
            Effect::Withdrawn { spec, context } => {
                assert!(said.withdrawn.insert((*spec, *context)), "taken back twice")
            }
            Effect::Rollback { context, to, .. } => {
                assert_eq!(said.rollbacks.insert(*context, *to), None, "one event rolls a context back once");
            }
        }
    }
    let kind = |wanted: fn(&Effect) -> bool| effects.iter().filter(|effect| wanted(effect)).count();
    assert!(kind(|effect| matches!(effect, Effect::Final { .. })) <= 1, "what becomes final does so in one step");
    assert!(kind(|effect| matches!(effect, Effect::Dead { .. })) <= 1, "what dies does so in one step");
    said
}

impl Referee {
    /// Applies an event to both and compares. Whether it was accepted.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, GraphError> {
        let before = (self.graph.clone(), self.model.clone());
        let previewed = self.graph.preview(event);
        assert_eq!(self.graph, before.0, "a preview changed the graph: {event:?}");
        let accepted = self.graph.apply(event);
        let judged = self.model.apply(event);
        let kind = |error: &GraphError| std::mem::discriminant(error);
        let (graph_error, model_error) = (accepted.as_ref().err().map(kind), judged.as_ref().err().map(kind));
        assert_eq!(graph_error, model_error, "{event:?}: graph {accepted:?}, model {judged:?}");
        match &accepted {
            Err(_) => assert_eq!(self.graph, before.0, "a refused event changed the graph: {event:?}"),
            Ok(effects) => {
                self.compare_effects(event, &before.1, effects);
                let finals = effects.iter().filter(|effect| matches!(effect, Effect::Final { .. })).cloned();
                assert_eq!(previewed, Ok(finals.collect()), "preview of {event:?}");
            }
        }
        self.compare_states(event);
        self.check_properties(event);
        accepted
    }

    fn compare_effects(&mut self, event: &Event, before: &Model, effects: &[Effect]) {
        let said = sort_out(effects);
        let (was, is) = (&before.verdict, &self.model.verdict);
        let fresh = |now: &BTreeSet<IntervalId>, then: &BTreeSet<IntervalId>| now.difference(then).copied().collect();
        let decided = |now: &BTreeSet<SpecId>, then: &BTreeSet<SpecId>| now.difference(then).copied().collect();
        let lost = was.votes.difference(&is.votes).filter(|(spec, _)| !is.aborted.contains(spec));
        let dead: BTreeSet<IntervalId> = fresh(&is.dead, &was.dead);
        let mut rollbacks = BTreeMap::new();
        for context in self.model.contexts().filter(|context| self.model.is_running(*context)) {
            let earliest = before.stack(context).into_iter().find(|id| dead.contains(id));
            rollbacks.extend(earliest.map(|to| (context, to)));
        }
        let expected = Said {
            finals: fresh(&is.finals, &was.finals),
            committed: decided(&is.committed, &was.committed),
            dead,
            aborted: decided(&is.aborted, &was.aborted),
            withdrawn: lost.copied().collect(),
            rollbacks,
        };
        assert_eq!(said, expected, "{event:?}");
        self.check_explanations(event, before, effects, &said);
        self.finals.extend(&said.finals);
        self.dead.extend(&said.dead);
    }

    /// Every link of a rollback's explanation is a real one, and the last leads to what it began with.
    fn check_explanations(&self, event: &Event, before: &Model, effects: &[Effect], said: &Said) {
        for effect in effects {
            let Effect::Rollback { to, entered, code, cause, why, .. } = effect else { continue };
            let (Cause::Aborted { spec: root, .. } | Cause::OwnerGone { spec: root }) = *cause;
            let interval = before.interval(*to).expect("it lived before");
            assert_eq!(*entered, interval.assumption, "{event:?}");
            match cause {
                Cause::Aborted { code: given, .. } if *entered == Some(root) => assert_eq!(*code, Some(*given)),
                _ => assert_eq!(*code, None, "{event:?}"),
            }
            assert_eq!(why.first().map(|link| link.interval), Some(*to), "{event:?}");
            for (at, link) in why.iter().enumerate() {
                assert!(said.dead.contains(&link.interval), "{event:?}: {link:?} is not dead");
                let interval = before.interval(link.interval).expect("it lived before");
                let next = why.get(at + 1).map(|link| link.interval);
                match link.because {
                    Because::Base(base) => assert!(interval.base == Some(base) && next == Some(base), "{event:?}"),
                    Because::Dep(dep) => assert!(interval.deps.contains(&dep) && next == Some(dep), "{event:?}"),
                    Because::Assumption(spec) => {
                        assert_eq!(interval.assumption, Some(spec), "{event:?}");
                        assert!(said.aborted.contains(&spec), "{event:?}");
                        assert_eq!(spec == root, next.is_none(), "{event:?}");
                        let lost = next.is_none_or(|next| before.is_entry_or_vote(spec, next));
                        assert!(lost, "{event:?}: {spec} did not fall with {next:?}");
                    }
                }
            }
        }
    }

    fn compare_states(&self, event: &Event) {
        self.graph.check().unwrap_or_else(|broken| panic!("{event:?}: {broken}"));
        let mut live = 0;
        for context in self.model.contexts() {
            let stack = self.model.stack(context);
            assert_eq!(self.graph.stack(context), stack, "{event:?}: stack of {context}");
            assert_eq!(self.graph.current(context), stack.last().copied(), "{event:?}");
            live += stack.len();
            for id in stack {
                let visible: Vec<IntervalId> = self.model.visible(id).into_iter().collect();
                assert_eq!(self.graph.visible(id), visible, "{event:?}: visible from {id}");
            }
        }
        let undecided: Vec<SpecId> = self.model.undecided().collect();
        assert_eq!((self.graph.size().0, self.graph.size().1), (live, undecided.len()), "{event:?}");
        for spec in undecided {
            assert!(self.graph.is_undecided(spec), "{event:?}: {spec}");
            let voted = self.graph.owners(spec).into_iter().filter(|(_, voted)| *voted);
            let voted: BTreeSet<(SpecId, ContextId)> = voted.map(|(owner, _)| (spec, owner.context())).collect();
            let counted = self.model.verdict.votes.iter().filter(|(of, _)| *of == spec);
            assert_eq!(voted, counted.copied().collect(), "{event:?}: votes for {spec}");
        }
    }

    /// Safety and progress, on what the graph has said since the beginning.
    fn check_properties(&self, event: &Event) {
        assert!(self.finals.is_disjoint(&self.dead), "{event:?}: something is both final and dead");
        for interval in self.model.intervals.iter().filter(|interval| self.finals.contains(&interval.id)) {
            let builds_on = interval.base.iter().chain(&interval.deps);
            let all_final = builds_on.clone().all(|needed| self.finals.contains(needed));
            assert!(all_final, "{event:?}: {} is final on top of what is not", interval.id);
        }
        if self.model.all_decided() {
            assert_eq!(self.graph.size().0, 0, "{event:?}: every owner has decided and something is left");
        }
    }

    /// What would be left after a restart.
    pub(crate) fn check_restart(&self) {
        let held = self.graph.held();
        held.check().unwrap_or_else(|broken| panic!("held part: {broken}"));
        let kept: BTreeSet<IntervalId> =
            self.model.contexts().flat_map(|context| held.stack(context).to_vec()).collect();
        assert_eq!(kept, self.model.after_restart());
        assert_eq!(held.held(), held, "a second restart loses nothing");
    }

    /// Every question about waiting, with these waits under way.
    pub(crate) fn check_waits(&self, waits: &BTreeMap<ContextId, IntervalId>) {
        for waiter in self.model.contexts() {
            for on in self.model.intervals.iter().map(|interval| interval.id).filter(|id| self.model.is_live(*id)) {
                let expected = self.model.would_wait_forever(waiter, on, waits);
                assert_eq!(self.graph.would_wait_forever(waiter, on, waits), expected, "{waiter} on {on}, {waits:?}");
            }
        }
    }
}
