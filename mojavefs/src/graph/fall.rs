//! What is dead (rules 4, 5 and 7): a false assumption, and everything that builds on it.

use super::event::{Because, Cause, Effect, Link};
use super::state::{Graph, Outcome};
use crate::id::{ContextId, IntervalId, SpecId};
use crate::limits::WHY_LINKS_MAX;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What one abort reaches.
#[derive(Default)]
struct Fall {
    dead: BTreeMap<IntervalId, Because>,
    /// With the dead entry or vote that took it along; none for the one it began with.
    aborted: BTreeMap<SpecId, Option<IntervalId>>,
    withdrawn: BTreeSet<(SpecId, ContextId)>,
    todo: VecDeque<IntervalId>,
}

impl Fall {
    fn abort(&mut self, graph: &Graph, spec: SpecId, through: Option<IntervalId>) {
        if let Entry::Vacant(vacant) = self.aborted.entry(spec) {
            vacant.insert(through);
            for place in graph.specs[&spec].owners.values() {
                self.undo(place.entry, Because::Assumption(spec));
            }
        }
    }

    fn undo(&mut self, interval: IntervalId, because: Because) {
        if let Entry::Vacant(vacant) = self.dead.entry(interval) {
            vacant.insert(because);
            self.todo.push_back(interval);
        }
    }

    fn spread(&mut self, graph: &Graph) {
        while let Some(id) = self.todo.pop_front() {
            let interval = &graph.intervals[&id];
            for dependent in &interval.dependents {
                let on_top = graph.intervals[dependent].base == Some(id);
                self.undo(*dependent, if on_top { Because::Base(id) } else { Because::Dep(id) });
            }
            if let Some(spec) = interval.assumption {
                self.abort(graph, spec, Some(id));
            }
            for spec in &interval.votes {
                self.withdrawn.insert((*spec, interval.context));
                let owner_gone = !graph.contexts[&interval.context].open;
                if owner_gone && !graph.specs[spec].owners[&interval.context].held {
                    self.abort(graph, *spec, Some(id));
                }
            }
        }
    }

    /// The way from a dead interval to the speculation it all began with.
    fn why(&self, interval: IntervalId) -> Vec<Link> {
        let mut links = Vec::new();
        let mut next = Some(interval);
        while let Some(interval) = next.filter(|_| links.len() < WHY_LINKS_MAX) {
            let because = self.dead[&interval];
            links.push(Link { interval, because });
            next = match because {
                Because::Base(id) | Because::Dep(id) => Some(id),
                Because::Assumption(spec) => self.aborted[&spec],
            };
        }
        links
    }
}

impl Graph {
    /// The speculations that are false if this undecided one is.
    pub(super) fn reach(&self, spec: SpecId) -> BTreeSet<SpecId> {
        let mut fall = Fall::default();
        fall.abort(self, spec, None);
        fall.spread(self);
        fall.aborted.into_keys().collect()
    }

    /// Falsifies an assumption.
    pub(super) fn fall(&mut self, spec: SpecId, cause: Cause) -> Vec<Effect> {
        let mut fall = Fall::default();
        fall.abort(self, spec, None);
        fall.spread(self);

        let numbers = self.numbers_of(fall.dead.keys());
        let mut fallen: BTreeMap<ContextId, usize> = BTreeMap::new();
        let mut entered: BTreeMap<IntervalId, SpecId> = BTreeMap::new();
        for id in fall.dead.keys() {
            let interval = self.detach(*id);
            *fallen.entry(interval.context).or_default() += 1;
            entered.extend(interval.assumption.map(|spec| (*id, spec)));
        }
        for spec in fall.aborted.keys() {
            self.decided(*spec, Outcome::Aborted);
        }
        fall.withdrawn.retain(|(spec, _)| !fall.aborted.contains_key(spec));
        for (spec, context) in &fall.withdrawn {
            self.spec_mut(*spec).owners.get_mut(context).expect("it had voted as an owner").vote = None;
        }

        let intervals = fall.dead.keys().copied().collect();
        let specs = fall.aborted.keys().copied().collect();
        let mut effects = vec![Effect::Dead { intervals, numbers, specs, cause }];
        effects
            .extend(fall.withdrawn.iter().map(|(spec, context)| Effect::Withdrawn { spec: *spec, context: *context }));
        for (context, count) in fallen {
            // What is on top of a dead interval is dead, so it is always the top of a stack that goes.
            let state = self.contexts.get_mut(&context).expect("a live interval's context is known");
            let to = state.stack[state.stack.len() - count];
            state.stack.truncate(state.stack.len() - count);
            if state.open {
                let entered = entered.get(&to).copied();
                effects.push(rollback(context, to, entered, cause, fall.why(to)));
            }
            self.forget_if_done(context);
        }
        effects
    }
}

fn rollback(context: ContextId, to: IntervalId, entered: Option<SpecId>, cause: Cause, why: Vec<Link>) -> Effect {
    let code = match cause {
        Cause::Aborted { spec, code, .. } if entered == Some(spec) => Some(code),
        _ => None,
    };
    Effect::Rollback { context, to, entered, code, cause, why }
}
