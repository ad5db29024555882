//! What can be asked of the graph.

use super::event::Owner;
use super::state::{Graph, Outcome, Place};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::BTreeSet;

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

    /// Whether an interval builds on another, or is it. Looks at no more than twice the lesser of what the one builds on and what builds
    /// on the other: who reads the work of many builds on more and more, and on each of them builds hardly anybody.
    pub fn builds_on(&self, interval: IntervalId, on: IntervalId) -> bool {
        let below = |id: IntervalId| -> Edges<'_> {
            let found = self.intervals.get(&id).into_iter();
            Box::new(found.flat_map(|interval| interval.base.iter().chain(&interval.deps)))
        };
        let above = |id: IntervalId| -> Edges<'_> {
            Box::new(self.intervals.get(&id).into_iter().flat_map(|interval| &interval.dependents))
        };
        let (mut down, mut up) = (Walk::from(below(interval)), Walk::from(above(on)));
        if interval == on {
            return true;
        }
        loop {
            match (up.next(above), down.next(below)) {
                (None, _) | (_, None) => return false,
                (Some(from), Some(to)) if from == interval || to == on => return true,
                _ => {}
            }
        }
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

/// Where an interval leads.
type Edges<'a> = Box<dyn Iterator<Item = &'a IntervalId> + 'a>;

/// A walk over intervals, each once, that looks at no more of what each leads to than it has to.
struct Walk<'a> {
    left: Vec<Edges<'a>>,
    seen: BTreeSet<IntervalId>,
}

impl<'a> Walk<'a> {
    fn from(edges: Edges<'a>) -> Self {
        Walk { left: vec![edges], seen: BTreeSet::new() }
    }

    /// The next one; `edges` says where it leads.
    fn next(&mut self, edges: impl Fn(IntervalId) -> Edges<'a>) -> Option<IntervalId> {
        loop {
            match self.left.last_mut()?.next() {
                None => drop(self.left.pop()),
                Some(id) if self.seen.insert(*id) => {
                    self.left.push(edges(*id));
                    return Some(*id);
                }
                Some(_) => {}
            }
        }
    }
}
