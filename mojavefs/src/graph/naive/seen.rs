//! What contexts see, and how one becomes part of another, from the whole history.

use super::Model;
use crate::graph::{GraphError, Seen, Sees};
use crate::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet};

impl Model {
    /// What a context sees of undecided changes; nothing if nothing of it is undecided.
    pub fn seen_by(&self, context: ContextId) -> Option<Seen> {
        let current = *self.stack(context).last()?;
        let writer = self.last_of(current)?;
        let of = |intervals: &BTreeSet<IntervalId>| self.numbers_in(intervals);
        let Some(found) = self.found.get(&context) else {
            let numbers = of(&self.visible(current)).into_iter().collect();
            return Some(Seen { numbers, missed: Vec::new(), writer });
        };
        let around: BTreeSet<ContextId> = self.around(context).into_iter().skip(1).collect();
        let outside: BTreeSet<IntervalId> = around.iter().flat_map(|outer| self.stack(*outer)).collect();
        let mut own = BTreeSet::from([current]);
        loop {
            let before = own.len();
            for interval in self.intervals.iter().filter(|interval| !outside.contains(&interval.id)) {
                if own.contains(&interval.id) {
                    let needed = interval.base.iter().chain(&interval.deps);
                    own.extend(needed.filter(|id| self.is_live(**id) && !outside.contains(id)));
                }
            }
            if before == own.len() {
                break;
            }
        }
        let known = self.carried().map(|(number, _)| number).filter(|number| found.contains(number));
        let numbers: BTreeSet<IntervalId> = of(&own).into_iter().chain(known).collect();
        let made = around.iter().flat_map(|outer| self.carried_by(*outer)).collect::<BTreeSet<_>>();
        let missed = made.into_iter().filter(|number| !found.contains(number) && !numbers.contains(number)).collect();
        Some(Seen { numbers: numbers.into_iter().collect(), missed, writer })
    }

    /// The numbers that a context's changes carry, with those of contexts inside it that have voted for all that they own.
    pub fn carried_by(&self, context: ContextId) -> Vec<IntervalId> {
        let whose = self.whose();
        let mut of = BTreeSet::from([context]);
        loop {
            let inside = |inner: &ContextId| self.from.get(inner).and_then(|from| whose.get(from));
            let new =
                self.from.keys().filter(|inner| !of.contains(inner) && inside(inner).is_some_and(|o| of.contains(o)));
            let new: Vec<ContextId> = new.copied().filter(|inner| self.has_voted(*inner)).collect();
            if new.is_empty() {
                break;
            }
            of.extend(new);
        }
        let all = whose.into_iter().filter(|(_, context)| of.contains(context)).map(|(id, _)| id).collect();
        self.numbers_in(&all).into_iter().collect()
    }

    /// Whether a context owns something undecided, and has voted for all of that.
    fn has_voted(&self, context: ContextId) -> bool {
        let own: BTreeSet<IntervalId> = self.stack(context).into_iter().collect();
        let owned: Vec<SpecId> = self.assumptions(&own).collect();
        !owned.is_empty() && owned.iter().all(|spec| self.verdict.votes.contains(&(*spec, context)))
    }

    /// The contexts of all that is live.
    fn whose(&self) -> BTreeMap<IntervalId, ContextId> {
        let live = self.intervals.iter().filter(|interval| self.verdict.is_open(interval.id));
        live.map(|interval| (interval.id, interval.context)).collect()
    }

    /// The contexts that build on an interval whose changes carry one of these numbers, its own included.
    pub fn built_on(&self, numbers: &[IntervalId]) -> BTreeSet<ContextId> {
        let mut on: BTreeSet<IntervalId> =
            self.carried().filter(|(number, _)| numbers.contains(number)).map(|(_, interval)| interval).collect();
        loop {
            let before = on.len();
            for interval in self.intervals.iter().filter(|interval| self.verdict.is_open(interval.id)) {
                if interval.base.iter().chain(&interval.deps).any(|needed| on.contains(needed)) {
                    on.insert(interval.id);
                }
            }
            if before == on.len() {
                return self.contexts_of(&on).collect();
            }
        }
    }

    /// The numbers of undecided changes around a context that it sees.
    pub fn found_by(&self, context: ContextId) -> Vec<IntervalId> {
        let known: BTreeSet<IntervalId> = match self.found.get(&context) {
            Some(found) => self.carried().map(|(number, _)| number).filter(|number| found.contains(number)).collect(),
            None => {
                let outside = self.around(context).into_iter().skip(1).flat_map(|outer| self.stack(outer)).collect();
                let seen = self.stack(context).last().map(|current| self.visible(*current)).unwrap_or_default();
                self.numbers_in(&(&seen & &outside))
            }
        };
        known.into_iter().collect()
    }

    fn numbers_in(&self, intervals: &BTreeSet<IntervalId>) -> BTreeSet<IntervalId> {
        self.carried().filter(|(_, interval)| intervals.contains(interval)).map(|(number, _)| number).collect()
    }

    /// A context, the one that it is inside of, and so on.
    pub fn around(&self, mut context: ContextId) -> Vec<ContextId> {
        let (whose, mut around) = (self.whose(), vec![context]);
        while let Some(outer) = self.from.get(&context).and_then(|from| whose.get(from)) {
            context = *outer;
            around.push(context);
        }
        around
    }

    /// Every number that an undecided change may carry, in the order in which they came, and in which interval.
    pub fn carried(&self) -> impl DoubleEndedIterator<Item = (IntervalId, IntervalId)> {
        let live: BTreeSet<IntervalId> = self.live().collect();
        self.numbers.iter().copied().filter(move |(_, interval)| live.contains(interval))
    }

    /// The numbers that changes of an interval carry, decided or not.
    pub fn numbers_of(&self, id: IntervalId) -> impl Iterator<Item = IntervalId> {
        self.numbers.iter().filter(move |(_, interval)| *interval == id).map(|(number, _)| *number)
    }

    /// The live interval in which changes carry this number.
    pub(super) fn has(&self, number: IntervalId) -> Option<IntervalId> {
        self.carried().find(|(carried, _)| *carried == number).map(|(_, interval)| interval)
    }

    /// The number that changes in an interval carry by now.
    fn last_of(&self, id: IntervalId) -> Option<IntervalId> {
        self.carried().rfind(|(_, interval)| *interval == id).map(|(number, _)| number)
    }

    pub(super) fn start(&mut self, context: ContextId, from: Option<IntervalId>, sees: &Sees) {
        self.from.remove(&context);
        self.found.remove(&context);
        self.from.extend(from.map(|from| (context, from)));
        let found = match sees {
            Sees::Follows => return,
            Sees::Had(numbers) => numbers.clone(),
            Sees::Found => {
                let outer = from.and_then(|from| self.interval(from)).map(|interval| interval.context);
                outer.and_then(|outer| self.seen_by(outer)).map(|seen| seen.numbers).unwrap_or_default()
            }
        };
        self.found.insert(context, found.into_iter().collect());
    }

    pub(super) fn number(&mut self, context: ContextId, number: IntervalId) -> Result<(), GraphError> {
        let current = self.stack(context).last().copied();
        if current.is_none() || self.has(number) != current {
            self.demand_acting(context, number)?;
        }
        self.demand(self.is_running(context), GraphError::NoContext(context))?;
        let current = current.ok_or(GraphError::NothingUndecided(context))?;
        self.demand_unsealed(current)?;
        // The last one is what it writes with.
        self.numbers.retain(|(carried, _)| *carried != number);
        self.numbers.push((number, current));
        Ok(())
    }

    /// The inner context never was: what it changed the one around it has changed.
    pub(super) fn fold(&mut self, context: ContextId) -> Result<(), GraphError> {
        self.demand(self.is_running(context), GraphError::NoContext(context))?;
        let own: BTreeSet<IntervalId> = self.stack(context).into_iter().collect();
        let outer = self.around(context).get(1).map(|outer| self.stack(*outer)).unwrap_or_default();
        let into = outer.last().copied().filter(|_| !own.is_empty()).ok_or(GraphError::CannotFold(context))?;
        let specs: BTreeSet<SpecId> = self.assumptions(&own).collect();
        let live = || self.intervals.iter().filter(|interval| self.verdict.is_open(interval.id));
        let others_build = live().any(|other| {
            !own.contains(&other.id) && other.base.iter().chain(&other.deps).any(|needed| own.contains(needed))
        });
        let alone = |spec: &SpecId| {
            let mut places = self.places_of(*spec);
            places.all(|place| place.context == context && !place.held) && !self.conflicts.contains(spec)
        };
        let owned = self.assumptions(&outer.iter().copied().collect()).any(|spec| self.is_open(spec));
        let sees_it = self.from.get(&context) == Some(&into);
        let fits = owned && (sees_it || !others_build) && specs.iter().all(alone);
        self.demand(fits, GraphError::CannotFold(context))?;
        own.iter().chain(&outer).try_for_each(|interval| self.demand_unsealed(*interval))?;
        self.take_in(&own, &outer);
        self.places.retain(|place| !specs.contains(&place.spec));
        self.specs.retain(|spec| !specs.contains(spec));
        self.from.remove(&context);
        self.found.remove(&context);
        if self.places.iter().any(|place| place.context == context) {
            self.contexts.insert(context, false);
        } else {
            self.contexts.remove(&context);
        }
        // What the outer one writes with stays the last of its numbers.
        let (folded, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.numbers).into_iter().partition(|(_, interval)| own.contains(interval));
        let last = others.iter().rposition(|(_, interval)| *interval == into).expect("an interval has a number");
        others.splice(last..last, folded.into_iter().map(|(number, _)| (number, into)));
        self.numbers = others;
        Ok(())
    }

    /// Whatever builds on these builds on the last of the outer ones, and what they build on the first of those does.
    fn take_in(&mut self, own: &BTreeSet<IntervalId>, outer: &[IntervalId]) {
        let (first, into) = (outer[0], outer[outer.len() - 1]);
        let read = self.intervals.iter().filter(|interval| own.contains(&interval.id)).flat_map(|i| i.deps.clone());
        let read = read.filter(|dep| !own.contains(dep) && !outer.contains(dep)).collect::<Vec<_>>();
        self.intervals.retain(|interval| !own.contains(&interval.id));
        for interval in &mut self.intervals {
            let before = interval.deps.len();
            interval.deps.retain(|dep| !own.contains(dep));
            if before != interval.deps.len() && interval.id != into {
                interval.deps.insert(into);
            }
            if interval.id == first {
                interval.deps.extend(&read);
            }
        }
        self.from.values_mut().filter(|from| own.contains(from)).for_each(|from| *from = into);
    }

    pub(super) fn reassign(&mut self, from: IntervalId, to: IntervalId) -> Result<(), GraphError> {
        let id = self.has(from).ok_or(GraphError::NoInterval(from))?;
        let last = self.last_of(id);
        let apart = |context: ContextId| {
            let seen = self.seen_by(context).map(|seen| seen.numbers).unwrap_or_default();
            let between = seen.iter().any(|number| to < *number && *number < from);
            seen.contains(&from) && between || seen.contains(&from) != seen.contains(&to)
        };
        let apart = self.contexts().any(apart);
        let fits = self.has(to) == Some(id) && to < from && from != id && last != Some(from) && !apart;
        self.demand(fits, GraphError::Apart(from, to))?;
        self.demand_unsealed(id)?;
        self.numbers.retain(|(number, _)| *number != from);
        Ok(())
    }

    pub(super) fn discard(&mut self, number: IntervalId) -> Result<(), GraphError> {
        let id = self.has(number).ok_or(GraphError::NoInterval(number))?;
        let last = self.last_of(id);
        self.demand(number != id && last != Some(number), GraphError::Needed(number))?;
        self.demand_unsealed(id)?;
        self.numbers.retain(|(carried, _)| *carried != number);
        Ok(())
    }
}
