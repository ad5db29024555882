//! What can be asked of the graph.

use super::event::Owner;
use super::state::{Graph, Outcome, Place};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

impl Graph {
    /// The live interval that a context is in; none if all of its intervals are final, or undone.
    pub fn current(&self, context: ContextId) -> Option<IntervalId> {
        self.contexts.get(&context)?.stack.last().copied()
    }

    /// The last interval of a context that became final.
    pub fn settled(&self, context: ContextId) -> Option<IntervalId> {
        self.contexts.get(&context)?.settled
    }

    /// A context's live intervals, oldest first: the levels of its speculations.
    pub fn stack(&self, context: ContextId) -> &[IntervalId] {
        self.contexts.get(&context).map_or(&[], |context| &context.stack)
    }

    /// Whether an interval is neither final nor dead.
    pub fn is_live(&self, interval: IntervalId) -> bool {
        self.intervals.contains_key(&interval)
    }

    /// Whether a speculation is undecided.
    pub fn is_undecided(&self, spec: SpecId) -> bool {
        self.specs.contains_key(&spec)
    }

    /// How a speculation was decided, if it was, and lately.
    pub fn outcome(&self, spec: SpecId) -> Option<Outcome> {
        self.outcomes.get(&spec).copied()
    }

    /// The owners of an undecided speculation, and whether each has voted.
    pub fn owners(&self, spec: SpecId) -> Vec<(Owner, bool)> {
        let owner = |(context, state): (&ContextId, &Place)| {
            let owner = if state.held { Owner::Store(*context) } else { Owner::Context(*context) };
            (owner, state.vote.is_some())
        };
        self.specs.get(&spec).map(|spec| spec.owners.iter().map(owner).collect()).unwrap_or_default()
    }

    /// The undecided speculations that an abort of this one would undo, itself included.
    pub fn falls_with(&self, spec: SpecId) -> BTreeSet<SpecId> {
        if self.is_undecided(spec) { self.reach(spec) } else { BTreeSet::new() }
    }

    /// Whether any other context depends on one of this one's intervals.
    pub fn is_needed_by_others(&self, context: ContextId) -> bool {
        let others = |id: &IntervalId| {
            let dependents = &self.intervals[id].dependents;
            dependents.iter().any(|dependent| self.intervals[dependent].context != context)
        };
        self.stack(context).iter().any(others)
    }

    /// The contexts that depend on a speculation without owning it.
    pub fn members(&self, spec: SpecId) -> BTreeSet<ContextId> {
        let Some(spec) = self.specs.get(&spec) else { return BTreeSet::new() };
        let mut todo: Vec<IntervalId> = spec.owners.values().map(|owner| owner.entry).collect();
        let mut seen = BTreeSet::new();
        let mut members = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id) {
                let interval = &self.intervals[&id];
                members.insert(interval.context);
                todo.extend(&interval.dependents);
            }
        }
        members.retain(|context| !spec.owners.contains_key(context));
        members
    }

    /// Everything live that an interval builds on, itself included, oldest first: the undecided versions that it sees.
    pub fn visible(&self, interval: IntervalId) -> Vec<IntervalId> {
        let mut todo = vec![interval];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if let Some(interval) = self.intervals.get(&id)
                && seen.insert(id)
            {
                todo.extend(interval.base.iter().chain(&interval.deps));
            }
        }
        seen.into_iter().collect()
    }

    /// The contexts whose live intervals an interval builds on, its own included.
    pub fn contexts_under(&self, interval: IntervalId) -> BTreeSet<ContextId> {
        self.visible(interval).iter().map(|id| self.intervals[id].context).collect()
    }

    /// Whether an interval builds on another, or is it.
    pub fn builds_on(&self, interval: IntervalId, on: IntervalId) -> bool {
        self.path(interval, on).is_some()
    }

    /// Why an interval depends on another: the shortest chain from it to that one, both included.
    pub fn path(&self, interval: IntervalId, on: IntervalId) -> Option<Vec<IntervalId>> {
        let mut came_from: BTreeMap<IntervalId, IntervalId> = BTreeMap::new();
        let mut todo = VecDeque::from([interval]);
        while let Some(id) = todo.pop_front() {
            if id == on {
                let mut path = vec![id];
                while let Some(before) =
                    came_from.get(&path[path.len() - 1]).filter(|_| path[path.len() - 1] != interval)
                {
                    path.push(*before);
                }
                path.reverse();
                return Some(path);
            }
            let Some(at) = self.intervals.get(&id) else { continue };
            for needed in at.base.iter().chain(&at.deps) {
                if *needed != interval && !came_from.contains_key(needed) {
                    came_from.insert(*needed, id);
                    todo.push_back(*needed);
                }
            }
        }
        None
    }

    /// The undecided speculations that an interval builds on: those that abort it if they abort, at the least.
    pub fn specs_under(&self, interval: IntervalId) -> BTreeSet<SpecId> {
        self.visible(interval).iter().filter_map(|id| self.intervals[id].assumption).collect()
    }

    /// The undecided speculations that keep an interval from being final: an owner's vote is missing, or there is a
    /// conflict.
    pub fn open_under(&self, interval: IntervalId) -> BTreeSet<SpecId> {
        let mut todo = vec![interval];
        let mut seen = BTreeSet::new();
        let mut open = BTreeSet::new();
        while let Some(id) = todo.pop() {
            let Some(interval) = self.intervals.get(&id).filter(|_| seen.insert(id)) else { continue };
            if self.is_open(interval) {
                open.extend(interval.assumption);
            }
            todo.extend(self.needs(interval));
        }
        open
    }

    /// Whether an undecided speculation is in conflict (rule 11).
    pub fn is_in_conflict(&self, spec: SpecId) -> bool {
        self.specs.get(&spec).is_some_and(|spec| spec.conflict)
    }

    /// How much the graph holds: live intervals, undecided speculations, contexts.
    pub fn size(&self) -> (usize, usize, usize) {
        (self.intervals.len(), self.specs.len(), self.contexts.len())
    }
}
