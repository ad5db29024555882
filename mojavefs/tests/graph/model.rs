//! The interval graph as the rules define it: the whole history is kept, and after every event everything that follows
//! from it is computed anew by fixpoints over all of it. No index, no forgetting, no cleverness.

use mojavefs::graph::{Event, GraphError, Outcome, Owner, Resume};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
pub(crate) struct Interval {
    pub(crate) id: IntervalId,
    pub(crate) context: ContextId,
    pub(crate) base: Option<IntervalId>,
    pub(crate) deps: BTreeSet<IntervalId>,
    pub(crate) assumption: Option<SpecId>,
}

#[derive(Clone, Debug)]
struct Place {
    spec: SpecId,
    context: ContextId,
    entry: IntervalId,
    /// Every vote ever cast, those taken back too.
    votes: Vec<IntervalId>,
    held: bool,
}

/// Everything that ever happened, as facts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) intervals: Vec<Interval>,
    places: Vec<Place>,
    specs: BTreeSet<SpecId>,
    /// `true` while running. Ids are never used again.
    contexts: BTreeMap<ContextId, bool>,
    aborted: BTreeSet<SpecId>,
    conflicts: BTreeSet<SpecId>,
    /// As of the last event.
    pub(crate) verdict: Verdict,
}

/// What follows from a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) finals: BTreeSet<IntervalId>,
    pub(crate) dead: BTreeSet<IntervalId>,
    pub(crate) committed: BTreeSet<SpecId>,
    pub(crate) aborted: BTreeSet<SpecId>,
    /// Votes that count.
    pub(crate) votes: BTreeSet<(SpecId, ContextId)>,
}

impl Model {
    pub(crate) fn interval(&self, id: IntervalId) -> Option<&Interval> {
        self.intervals.iter().find(|interval| interval.id == id)
    }

    pub(crate) fn is_live(&self, id: IntervalId) -> bool {
        self.interval(id).is_some() && !self.verdict.finals.contains(&id) && !self.verdict.dead.contains(&id)
    }

    /// A context's intervals that are not dead, oldest first.
    fn standing(&self, context: ContextId) -> impl DoubleEndedIterator<Item = IntervalId> {
        let own = self.intervals.iter().filter(move |interval| interval.context == context);
        own.map(|interval| interval.id).filter(|id| !self.verdict.dead.contains(id))
    }

    pub(crate) fn stack(&self, context: ContextId) -> Vec<IntervalId> {
        self.standing(context).filter(|id| self.is_live(*id)).collect()
    }

    pub(crate) fn outcome(&self, spec: SpecId) -> Option<Outcome> {
        let committed = self.verdict.committed.contains(&spec).then_some(Outcome::Committed);
        committed.or(self.verdict.aborted.contains(&spec).then_some(Outcome::Aborted))
    }

    pub(crate) fn undecided(&self) -> impl Iterator<Item = SpecId> {
        self.specs.iter().copied().filter(|spec| self.outcome(*spec).is_none())
    }

    pub(crate) fn contexts(&self) -> impl Iterator<Item = ContextId> {
        self.contexts.keys().copied()
    }

    pub(crate) fn is_running(&self, context: ContextId) -> bool {
        self.contexts.get(&context) == Some(&true)
    }

    /// Losing this interval would cost an owner its entry into the speculation or its vote for it.
    pub(crate) fn is_entry_or_vote(&self, spec: SpecId, interval: IntervalId) -> bool {
        self.places_of(spec).any(|place| place.entry == interval || place.votes.contains(&interval))
    }

    /// Every owner of everything undecided has voted, and nothing is in conflict.
    pub(crate) fn all_decided(&self) -> bool {
        self.undecided().all(|spec| self.holds_but_for_votes(spec))
    }

    fn holds_but_for_votes(&self, spec: SpecId) -> bool {
        !self.conflicts.contains(&spec) && self.places_of(spec).all(|p| self.verdict.votes.contains(&(spec, p.context)))
    }

    fn places_of(&self, spec: SpecId) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.spec == spec)
    }

    /// Live intervals that this one builds on by base and deps, with itself.
    pub(crate) fn visible(&self, of: IntervalId) -> BTreeSet<IntervalId> {
        let mut seen: BTreeSet<IntervalId> = BTreeSet::from([of]);
        loop {
            let reached = self.intervals.iter().filter(|interval| seen.contains(&interval.id));
            let more: BTreeSet<IntervalId> =
                reached.flat_map(|interval| interval.base.iter().chain(&interval.deps)).copied().collect();
            if more.is_subset(&seen) {
                return seen.into_iter().filter(|id| self.is_live(*id)).collect();
            }
            seen.extend(more);
        }
    }

    /// Takes an event in, unless the rules refuse it.
    pub(crate) fn apply(&mut self, event: &Event) -> Result<(), GraphError> {
        self.record(event)?;
        self.verdict = self.judge();
        Ok(())
    }

    fn record(&mut self, event: &Event) -> Result<(), GraphError> {
        match *event {
            Event::Open { context, interval, from } => {
                let anew = self.contexts.get(&context).is_none_or(|open| *open && self.is_undone(context));
                self.demand(anew, GraphError::InUse(context.0))?;
                self.demand(from.is_none_or(|from| self.is_live(from)), GraphError::NoInterval(IntervalId::FINAL))?;
                self.contexts.insert(context, true);
                self.push(context, interval, None, from, None);
            }
            Event::Speculate { context, interval, spec } => {
                self.demand_acting(context)?;
                self.demand(!self.specs.contains(&spec), GraphError::InUse(spec.0))?;
                self.specs.insert(spec);
                self.enter(context, interval, spec);
            }
            Event::CoOwn { context, interval, spec } => {
                self.demand_acting(context)?;
                self.demand_undecided(spec)?;
                let owns = self.places_of(spec).any(|place| place.context == context);
                self.demand(!owns, GraphError::Owns(context, spec))?;
                self.enter(context, interval, spec);
            }
            Event::Read { context, of, interval, resume } => self.read(context, of, interval, resume)?,
            Event::Vote { owner, spec } => {
                if self.outcome(spec) == Some(Outcome::Committed) {
                    return Ok(());
                }
                self.demand_owner(owner, spec)?;
                if !self.verdict.votes.contains(&(spec, owner.context())) {
                    let by = self.standing(owner.context()).next_back().expect("an owner's entry stands");
                    self.place_mut(owner.context(), spec).votes.push(by);
                }
            }
            Event::Abort { owner, spec, code, retry } => {
                self.demand(code != 0, GraphError::ZeroCode(spec))?;
                if self.outcome(spec) == Some(Outcome::Aborted) && !retry {
                    return Ok(());
                }
                self.demand_owner(owner, spec)?;
                self.aborted.insert(spec);
            }
            Event::Hold { context, spec } => {
                self.demand_undecided(spec)?;
                let owns = self.places_of(spec).any(|place| place.context == context);
                self.demand(owns, GraphError::NotOwner(spec))?;
                self.place_mut(context, spec).held = true;
            }
            Event::Close { context } => {
                self.demand(self.contexts.get(&context) == Some(&true), GraphError::NoContext(context))?;
                self.contexts.insert(context, false);
            }
            Event::Conflict { spec } => {
                self.demand_undecided(spec)?;
                self.conflicts.insert(spec);
            }
            Event::Resolve { spec } => {
                self.demand_undecided(spec)?;
                self.conflicts.remove(&spec);
            }
        }
        Ok(())
    }

    fn read(
        &mut self,
        context: ContextId,
        of: IntervalId,
        interval: IntervalId,
        resume: Resume,
    ) -> Result<(), GraphError> {
        self.demand_acting(context)?;
        self.demand(self.is_live(of), GraphError::NoInterval(of))?;
        let stack = self.stack(context);
        if stack.last().is_some_and(|current| self.visible(*current).contains(&of)) {
            return Ok(());
        }
        let at = match resume {
            Resume::Here => {
                let base = self.standing(context).next_back();
                self.push(context, interval, base, Some(of), None);
                return Ok(());
            }
            Resume::Start => stack.first().copied(),
            Resume::At(at) => Some(at).filter(|at| stack.contains(at)),
        };
        let at = at.ok_or(GraphError::CannotResume(context))?;
        let joins = self.intervals.iter_mut().find(|interval| interval.id == at).expect("it is in the stack");
        joins.deps.insert(of);
        Ok(())
    }

    fn demand(&self, holds: bool, error: GraphError) -> Result<(), GraphError> {
        if holds { Ok(()) } else { Err(error) }
    }

    fn is_undone(&self, context: ContextId) -> bool {
        self.standing(context).next().is_none()
    }

    fn demand_acting(&self, context: ContextId) -> Result<(), GraphError> {
        self.demand(self.contexts.get(&context) == Some(&true), GraphError::NoContext(context))?;
        self.demand(!self.is_undone(context), GraphError::Undone(context))
    }

    fn demand_undecided(&self, spec: SpecId) -> Result<(), GraphError> {
        match self.outcome(spec) {
            Some(Outcome::Committed) => Err(GraphError::Committed(spec)),
            Some(Outcome::Aborted) => Err(GraphError::Aborted(spec)),
            None => self.demand(self.specs.contains(&spec), GraphError::NoSpec(spec)),
        }
    }

    fn demand_owner(&self, owner: Owner, spec: SpecId) -> Result<(), GraphError> {
        self.demand_undecided(spec)?;
        let held = matches!(owner, Owner::Store(_));
        let owns = self.places_of(spec).any(|place| place.context == owner.context() && place.held == held);
        self.demand(owns, GraphError::NotOwner(spec))
    }

    fn enter(&mut self, context: ContextId, interval: IntervalId, spec: SpecId) {
        let base = self.standing(context).next_back();
        self.push(context, interval, base, None, Some(spec));
        self.places.push(Place { spec, context, entry: interval, votes: Vec::new(), held: false });
    }

    fn push(
        &mut self,
        context: ContextId,
        id: IntervalId,
        base: Option<IntervalId>,
        dep: Option<IntervalId>,
        assumption: Option<SpecId>,
    ) {
        self.intervals.push(Interval { id, context, base, deps: dep.into_iter().collect(), assumption });
    }

    fn place_mut(&mut self, context: ContextId, spec: SpecId) -> &mut Place {
        let mut places = self.places.iter_mut();
        places.find(|place| place.spec == spec && place.context == context).expect("it was found to be an owner")
    }

    /// All that follows from the history.
    fn judge(&self) -> Verdict {
        let (dead, aborted) = self.dead();
        let finals = self.finals(&dead, &aborted);
        let committed = self.specs.iter().filter(|spec| self.holds(**spec, &finals, &aborted));
        let counts = |place: &&Place| place.votes.iter().any(|vote| !dead.contains(vote));
        let votes = self.places.iter().filter(counts).map(|place| (place.spec, place.context));
        Verdict { committed: committed.copied().collect(), votes: votes.collect(), finals, dead, aborted }
    }

    /// Rules 4, 5 and 7: the least set that contains what is falsified and all that builds on it.
    fn dead(&self) -> (BTreeSet<IntervalId>, BTreeSet<SpecId>) {
        let mut dead = BTreeSet::new();
        let mut aborted = self.aborted.clone();
        loop {
            let before = (dead.len(), aborted.len());
            for interval in &self.intervals {
                let falsified = interval.assumption.is_some_and(|spec| aborted.contains(&spec));
                if falsified || interval.base.iter().chain(&interval.deps).any(|needed| dead.contains(needed)) {
                    dead.insert(interval.id);
                }
            }
            for place in &self.places {
                let undecided = !place.held && !place.votes.iter().any(|vote| !dead.contains(vote));
                if dead.contains(&place.entry) || (undecided && !self.contexts[&place.context]) {
                    aborted.insert(place.spec);
                }
            }
            if before == (dead.len(), aborted.len()) {
                return (dead, aborted);
            }
        }
    }

    /// Rules 3 and 6: all intervals, less what cannot be in a closed set, until nothing more must go.
    fn finals(&self, dead: &BTreeSet<IntervalId>, aborted: &BTreeSet<SpecId>) -> BTreeSet<IntervalId> {
        let mut finals: BTreeSet<IntervalId> =
            self.intervals.iter().map(|i| i.id).filter(|id| !dead.contains(id)).collect();
        loop {
            let stays = |id: &&IntervalId| {
                let interval = self.interval(**id).expect("it is in the history");
                interval.assumption.is_none_or(|spec| self.holds(spec, &finals, aborted))
                    && interval.base.iter().chain(&interval.deps).all(|needed| finals.contains(needed))
            };
            let fewer: BTreeSet<IntervalId> = finals.iter().filter(stays).copied().collect();
            if fewer.len() == finals.len() {
                return finals;
            }
            finals = fewer;
        }
    }

    fn holds(&self, spec: SpecId, finals: &BTreeSet<IntervalId>, aborted: &BTreeSet<SpecId>) -> bool {
        let voted = |place: &Place| place.votes.iter().any(|vote| finals.contains(vote));
        !aborted.contains(&spec) && !self.conflicts.contains(&spec) && self.places_of(spec).all(voted)
    }

    /// Rule 9 by enumeration: whoever must act for `on` to be decided, and those they wait for in turn.
    pub(crate) fn would_wait_forever(
        &self,
        waiter: ContextId,
        on: IntervalId,
        waits: &BTreeMap<ContextId, IntervalId>,
    ) -> bool {
        let mut needed = BTreeSet::from([on]);
        let mut must_act = BTreeSet::new();
        loop {
            let before = (needed.len(), must_act.len());
            let known = needed.clone();
            for interval in self.intervals.iter().filter(|i| known.contains(&i.id) && self.is_live(i.id)) {
                needed.extend(interval.base.iter().chain(&interval.deps));
                for place in interval.assumption.iter().flat_map(|spec| self.places_of(*spec)) {
                    let counted = place.votes.iter().filter(|vote| !self.verdict.dead.contains(vote));
                    needed.extend(counted);
                    let voted = self.verdict.votes.contains(&(place.spec, place.context));
                    if !place.held && (!voted || self.conflicts.contains(&place.spec)) {
                        must_act.insert(place.context);
                    }
                }
            }
            needed.extend(must_act.iter().filter_map(|context| waits.get(context)));
            if before == (needed.len(), must_act.len()) {
                return must_act.contains(&waiter);
            }
        }
    }

    /// Rule 7 and restarts: the history goes on with the end of every process; what then neither a hold nor a vote stands
    /// for is lost.
    pub(crate) fn after_restart(&self) -> BTreeSet<IntervalId> {
        let mut ended = self.clone();
        ended.contexts.values_mut().for_each(|open| *open = false);
        ended.verdict = ended.judge();
        let mut kept = BTreeSet::new();
        for place in ended.places.iter().filter(|place| ended.outcome(place.spec).is_none()) {
            kept.extend(ended.visible(place.entry));
            kept.extend(place.votes.iter().filter(|vote| ended.is_live(**vote)).flat_map(|vote| ended.visible(*vote)));
            if place.held {
                kept.extend(ended.stack(place.context).last().iter().flat_map(|tip| ended.visible(**tip)));
            }
        }
        loop {
            // A kept entry stands for its co-owners' votes as well, and those for what they build on.
            let assumptions: BTreeSet<SpecId> =
                kept.iter().filter_map(|id| ended.interval(*id).and_then(|i| i.assumption)).collect();
            let votes = ended.places.iter().filter(|place| assumptions.contains(&place.spec));
            let votes = votes.flat_map(|place| place.votes.iter()).filter(|vote| ended.is_live(**vote));
            let more: BTreeSet<IntervalId> = votes.flat_map(|vote| ended.visible(*vote)).collect();
            if more.is_subset(&kept) {
                return kept;
            }
            kept.extend(more);
        }
    }
}
