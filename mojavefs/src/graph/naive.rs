//! The interval graph as the rules define it: the history is kept, and after every event everything that follows from it
//! is computed anew by fixpoints over all of it. No index, no cleverness. It is what the [graph](super::Graph) is held
//! against: by its tests, and in a server that is told to, by a [`ModelChecker`](super::ModelChecker).

mod seal;
mod seen;

use super::event::{Event, GraphError, Owner, Resume};
use super::state::Outcome;
use super::waits::{Awaited, Waits};
use crate::id::{ContextId, IntervalId, SpecId};
use crate::limits::OUTCOMES_KEPT_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// One interval, with what it had when it was last told of.
#[derive(Clone, Debug)]
pub struct Interval {
    /// Its number.
    pub id: IntervalId,
    /// Whose it is.
    pub context: ContextId,
    /// The interval before it in its context.
    pub base: Option<IntervalId>,
    /// What it read from.
    pub deps: BTreeSet<IntervalId>,
    /// The speculation that it is the entry of.
    pub assumption: Option<SpecId>,
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

/// Everything that happened, as facts.
#[derive(Clone, Debug, Default)]
pub struct Model {
    intervals: Vec<Interval>,
    places: Vec<Place>,
    specs: BTreeSet<SpecId>,
    /// `true` while running. Ids are never used again.
    contexts: BTreeMap<ContextId, bool>,
    aborted: BTreeSet<SpecId>,
    conflicts: BTreeSet<SpecId>,
    /// By speculation: the owner whose vote for it is not confirmed yet, and what that makes final.
    sealed: BTreeMap<SpecId, (ContextId, BTreeSet<IntervalId>)>,
    /// Every number that a change may carry, and in which interval; of each interval the one it writes with last.
    numbers: Vec<(IntervalId, IntervalId)>,
    /// What contexts were started from.
    from: BTreeMap<ContextId, IntervalId>,
    /// The numbers that contexts have found and stay with.
    found: BTreeMap<ContextId, BTreeSet<IntervalId>>,
    /// In the order of deciding; as many as the graph remembers.
    decided: VecDeque<(SpecId, Outcome)>,
    /// As of the last event.
    verdict: Verdict,
}

/// What follows from a history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What nothing can undo any more.
    pub finals: BTreeSet<IntervalId>,
    /// What is undone.
    pub dead: BTreeSet<IntervalId>,
    /// Whose assumption holds.
    pub committed: BTreeSet<SpecId>,
    /// Whose assumption is false.
    pub aborted: BTreeSet<SpecId>,
    /// Votes that count.
    pub votes: BTreeSet<(SpecId, ContextId)>,
}

impl Verdict {
    fn is_open(&self, id: IntervalId) -> bool {
        !self.finals.contains(&id) && !self.dead.contains(&id)
    }
}

impl Model {
    /// What follows from all that has happened.
    pub fn verdict(&self) -> &Verdict {
        &self.verdict
    }

    /// Every interval that is not forgotten, in the order in which they began.
    pub fn intervals(&self) -> &[Interval] {
        &self.intervals
    }

    /// One of them.
    pub fn interval(&self, id: IntervalId) -> Option<&Interval> {
        self.intervals.iter().find(|interval| interval.id == id)
    }

    /// Whether an interval is there and neither final nor dead.
    pub fn is_live(&self, id: IntervalId) -> bool {
        self.verdict.is_open(id) && self.interval(id).is_some()
    }

    /// Every interval that is neither final nor dead, in the order in which they began.
    pub fn live(&self) -> impl Iterator<Item = IntervalId> {
        self.intervals.iter().map(|interval| interval.id).filter(|id| self.verdict.is_open(*id))
    }

    /// A context's intervals that are not dead, oldest first.
    fn standing(&self, context: ContextId) -> impl DoubleEndedIterator<Item = IntervalId> {
        let own = self.intervals.iter().filter(move |interval| interval.context == context);
        own.map(|interval| interval.id).filter(|id| !self.verdict.dead.contains(id))
    }

    /// A context's live intervals, oldest first.
    pub fn stack(&self, context: ContextId) -> Vec<IntervalId> {
        self.standing(context).filter(|id| self.verdict.is_open(*id)).collect()
    }

    /// The last interval of a context that became final.
    pub fn settled(&self, context: ContextId) -> Option<IntervalId> {
        self.standing(context).rfind(|id| self.verdict.finals.contains(id))
    }

    /// The stack of every context that is not forgotten.
    pub fn stacks(&self) -> BTreeMap<ContextId, Vec<IntervalId>> {
        let mut stacks: BTreeMap<ContextId, Vec<IntervalId>> =
            self.contexts().map(|context| (context, Vec::new())).collect();
        for interval in self.intervals.iter().filter(|interval| self.verdict.is_open(interval.id)) {
            stacks.entry(interval.context).or_default().push(interval.id);
        }
        stacks
    }

    /// How a speculation was decided, if it was, and lately.
    pub fn outcome(&self, spec: SpecId) -> Option<Outcome> {
        self.decided.iter().find(|(decided, _)| *decided == spec).map(|(_, outcome)| *outcome)
    }

    /// The speculations that are decided and not forgotten, with their outcomes.
    pub fn decided_lately(&self) -> impl Iterator<Item = (SpecId, Outcome)> {
        let lately = self.decided.iter().rev().take_while(|(spec, _)| self.specs.contains(spec));
        lately.copied()
    }

    /// Whether a speculation has begun and is neither folded nor forgotten.
    pub fn is_known(&self, spec: SpecId) -> bool {
        self.specs.contains(&spec)
    }

    /// The undecided speculations.
    pub fn undecided(&self) -> impl Iterator<Item = SpecId> {
        let decided = |spec: &SpecId| self.verdict.committed.contains(spec) || self.verdict.aborted.contains(spec);
        self.specs.iter().copied().filter(move |spec| !decided(spec))
    }

    /// The contexts that are not forgotten.
    pub fn contexts(&self) -> impl Iterator<Item = ContextId> {
        self.contexts.keys().copied()
    }

    /// Whether a context has begun and not gone.
    pub fn is_running(&self, context: ContextId) -> bool {
        self.contexts.get(&context) == Some(&true)
    }

    /// Losing this interval would cost an owner its entry into the speculation or its vote for it.
    pub fn is_entry_or_vote(&self, spec: SpecId, interval: IntervalId) -> bool {
        self.places_of(spec).any(|place| place.entry == interval || place.votes.contains(&interval))
    }

    /// Every owner of everything undecided has voted, and nothing is in conflict.
    pub fn all_decided(&self) -> bool {
        !self.undecided().any(|spec| self.is_open(spec))
    }

    /// An owner has not voted, a vote is not confirmed, or there is a conflict.
    fn is_open(&self, spec: SpecId) -> bool {
        self.is_in_conflict(spec)
            || self.sealed.contains_key(&spec)
            || !self.places_of(spec).all(|place| self.verdict.votes.contains(&(spec, place.context)))
    }

    /// Whether a speculation was said to be in conflict.
    pub fn is_in_conflict(&self, spec: SpecId) -> bool {
        self.conflicts.contains(&spec)
    }

    fn places_of(&self, spec: SpecId) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(move |place| place.spec == spec)
    }

    /// The owners of a speculation by their contexts, and whether each has voted.
    pub fn owners(&self, spec: SpecId) -> BTreeMap<ContextId, (Owner, bool)> {
        let owner = |place: &Place| match place.held {
            true => Owner::Store(place.context),
            false => Owner::Context(place.context),
        };
        let voted = |place: &Place| self.verdict.votes.contains(&(spec, place.context));
        self.places_of(spec).map(|place| (place.context, (owner(place), voted(place)))).collect()
    }

    /// Live intervals that this one builds on by base and deps, with itself.
    pub fn visible(&self, of: IntervalId) -> BTreeSet<IntervalId> {
        self.reached_from(of, |_| Vec::new())
    }

    /// Live intervals that this one needs to become final: by base, deps and the votes for its assumption, with itself.
    fn needed(&self, of: IntervalId) -> BTreeSet<IntervalId> {
        self.reached_from(of, |interval| {
            let places = interval.assumption.into_iter().flat_map(|spec| self.places_of(spec));
            let votes = places.flat_map(|place| place.votes.iter().copied());
            votes.filter(|vote| !self.verdict.dead.contains(vote)).collect()
        })
    }

    fn reached_from(&self, of: IntervalId, further: impl Fn(&Interval) -> Vec<IntervalId>) -> BTreeSet<IntervalId> {
        let mut seen = BTreeSet::from([of]);
        loop {
            let before = seen.len();
            // What an interval builds on began before it, most often, so that few rounds are needed this way round.
            for interval in self.intervals.iter().rev() {
                if seen.contains(&interval.id) {
                    seen.extend(interval.base.iter().chain(&interval.deps));
                    seen.extend(further(interval));
                }
            }
            if before == seen.len() {
                return seen.into_iter().filter(|id| self.verdict.is_open(*id)).collect();
            }
        }
    }

    /// The undecided speculations that keep an interval from being final.
    pub fn open_under(&self, of: IntervalId) -> BTreeSet<SpecId> {
        self.assumptions(&self.needed(of)).filter(|spec| self.is_open(*spec)).collect()
    }

    /// The speculations that these intervals are the entries of.
    pub fn assumptions<'a>(&'a self, of: &'a BTreeSet<IntervalId>) -> impl Iterator<Item = SpecId> + 'a {
        self.intervals.iter().filter(|interval| of.contains(&interval.id)).filter_map(|interval| interval.assumption)
    }

    /// The contexts of these intervals.
    pub fn contexts_of<'a>(&'a self, of: &'a BTreeSet<IntervalId>) -> impl Iterator<Item = ContextId> + 'a {
        self.intervals.iter().filter(|interval| of.contains(&interval.id)).map(|interval| interval.context)
    }

    /// Takes an event in, unless the rules refuse it. Returns what followed before.
    pub fn apply(&mut self, event: &Event) -> Result<Verdict, GraphError> {
        self.record(event)?;
        let now = self.judge();
        let before = std::mem::replace(&mut self.verdict, now);
        if let Event::Close { context } = event {
            self.forget_unneeded(*context);
        }
        let committed = self.verdict.committed.difference(&before.committed).map(|spec| (*spec, Outcome::Committed));
        let aborted = self.verdict.aborted.difference(&before.aborted).map(|spec| (*spec, Outcome::Aborted));
        self.decided.extend(committed.chain(aborted));
        self.decided.drain(..self.decided.len().saturating_sub(OUTCOMES_KEPT_MAX));
        Ok(before)
    }

    /// A context is gone: if it owns nothing undecided, its last intervals go that nothing live builds on.
    fn forget_unneeded(&mut self, context: ContextId) {
        if self.undecided().any(|spec| self.places_of(spec).any(|place| place.context == context)) {
            return;
        }
        while let Some(last) = self.stack(context).last() {
            let live = self.intervals.iter().filter(|interval| self.verdict.is_open(interval.id));
            if live.flat_map(|interval| interval.base.iter().chain(&interval.deps)).any(|needed| needed == last) {
                break;
            }
            self.intervals.retain(|interval| interval.id != *last);
        }
        self.verdict = self.judge();
    }

    /// Cuts the history: what is dead goes, and so does what is final, which is taken for granted from then on; of each
    /// running context the last final interval stays, on which it goes on. Nothing live refers to what is dead.
    pub fn forget_settled(&mut self) {
        let running = self.contexts().filter(|context| self.is_running(*context));
        let kept_finals: BTreeSet<IntervalId> = running.filter_map(|context| self.settled(context)).collect();
        let verdict = std::mem::take(&mut self.verdict);
        let decided = |spec: &SpecId| verdict.committed.contains(spec) || verdict.aborted.contains(spec);
        self.intervals.retain(|interval| verdict.is_open(interval.id) || kept_finals.contains(&interval.id));
        for interval in &mut self.intervals {
            interval.base = interval.base.filter(|base| verdict.is_open(*base));
            interval.deps.retain(|dep| verdict.is_open(*dep));
            interval.assumption = interval.assumption.filter(|spec| !decided(spec));
        }
        self.specs.retain(|spec| !decided(spec));
        self.aborted.retain(|spec| !decided(spec));
        self.conflicts.retain(|spec| !decided(spec));
        self.places.retain(|place| !decided(&place.spec));
        self.places.iter_mut().for_each(|place| place.votes.retain(|vote| !verdict.dead.contains(vote)));
        self.numbers.retain(|(_, interval)| self.intervals.iter().any(|kept| kept.id == *interval));
        let attended: BTreeSet<ContextId> = self.intervals.iter().map(|interval| interval.context).collect();
        self.contexts.retain(|context, running| *running || attended.contains(context));
        self.from.retain(|context, _| self.contexts.contains_key(context));
        self.found.retain(|context, _| self.contexts.contains_key(context));
        self.verdict = self.judge();
    }

    fn record(&mut self, event: &Event) -> Result<(), GraphError> {
        match *event {
            Event::Open { context, interval, from, ref sees } => {
                let anew = self.contexts.get(&context).is_none_or(|open| *open && self.is_undone(context));
                self.demand(anew, GraphError::InUse(context.0))?;
                self.demand_unused(interval)?;
                self.demand(from.is_none_or(|from| self.is_live(from)), GraphError::NoInterval(IntervalId::FINAL))?;
                self.contexts.insert(context, true);
                self.start(context, from, sees);
                self.push(context, interval, None, from, None);
            }
            Event::Speculate { context, interval, spec } => {
                self.demand_acting(context, interval)?;
                let anew = !self.specs.contains(&spec) && self.outcome(spec).is_none();
                self.demand(anew, GraphError::InUse(spec.0))?;
                self.specs.insert(spec);
                self.enter(context, interval, spec);
            }
            Event::CoOwn { context, interval, spec } => {
                self.demand_acting(context, interval)?;
                self.demand_undecided(spec)?;
                let owns = self.places_of(spec).any(|place| place.context == context);
                self.demand(!owns, GraphError::Owns(context, spec))?;
                self.demand_unsealed_spec(spec)?;
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
                    if let Err(error) = self.demand_apart() {
                        self.place_mut(owner.context(), spec).votes.pop();
                        return Err(error);
                    }
                }
            }
            Event::Prepare { owner, spec } => self.prepare(owner, spec)?,
            Event::Confirm { spec } => self.unseal(spec).map(drop)?,
            Event::Cancel { spec } => {
                let voter = self.unseal(spec)?;
                self.place_mut(voter, spec).votes.pop();
            }
            Event::Abort { owner, spec, code, retry } => {
                self.demand(code != 0, GraphError::ZeroCode(spec))?;
                if self.outcome(spec) == Some(Outcome::Aborted) && !retry {
                    return Ok(());
                }
                self.demand_owner(owner, spec)?;
                self.demand_unsealed_spec(spec)?;
                self.aborted.insert(spec);
            }
            Event::Hold { context, spec } => {
                self.demand_undecided(spec)?;
                let owns = self.places_of(spec).any(|place| place.context == context);
                self.demand(owns, GraphError::NotOwner(spec))?;
                if !self.place_mut(context, spec).held {
                    self.demand_unsealed_spec(spec)?;
                }
                self.place_mut(context, spec).held = true;
            }
            Event::Close { context } => {
                self.demand(self.contexts.get(&context) == Some(&true), GraphError::NoContext(context))?;
                self.demand_unsealed_context(context)?;
                self.contexts.insert(context, false);
            }
            Event::Conflict { spec } => {
                self.demand_undecided(spec)?;
                self.demand_unsealed_spec(spec)?;
                self.conflicts.insert(spec);
            }
            Event::Resolve { spec } => {
                self.demand_undecided(spec)?;
                let was_in_conflict = self.conflicts.remove(&spec);
                if let Err(error) = self.demand_apart() {
                    self.conflicts.extend(was_in_conflict.then_some(spec));
                    return Err(error);
                }
            }
            Event::Number { context, number } => self.number(context, number)?,
            Event::Fold { context } => self.fold(context)?,
            Event::Reassign { from, to } => self.reassign(from, to)?,
            Event::Discard { number } => self.discard(number)?,
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
        self.demand_acting(context, interval)?;
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
        self.demand_unsealed(at)?;
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

    fn demand_acting(&self, context: ContextId, begins: IntervalId) -> Result<(), GraphError> {
        self.demand(self.contexts.get(&context) == Some(&true), GraphError::NoContext(context))?;
        self.demand(!self.is_undone(context), GraphError::Undone(context))?;
        self.demand_unused(begins)
    }

    fn demand_unused(&self, interval: IntervalId) -> Result<(), GraphError> {
        let used = self.is_live(interval) || self.has(interval).is_some();
        self.demand(interval != IntervalId::FINAL && !used, GraphError::InUse(interval.0))
    }

    fn demand_undecided(&self, spec: SpecId) -> Result<(), GraphError> {
        match self.outcome(spec) {
            Some(Outcome::Committed) => Err(GraphError::Committed(spec)),
            Some(Outcome::Aborted) => Err(GraphError::Aborted(spec)),
            None => self.demand(self.undecided().any(|undecided| undecided == spec), GraphError::NoSpec(spec)),
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
        self.numbers.push((id, id));
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
            let before = finals.len();
            for interval in &self.intervals {
                let stays = interval.assumption.is_none_or(|spec| self.holds(spec, &finals, aborted))
                    && interval.base.iter().chain(&interval.deps).all(|needed| finals.contains(needed));
                if !stays {
                    finals.remove(&interval.id);
                }
            }
            if before == finals.len() {
                return finals;
            }
        }
    }

    fn holds(&self, spec: SpecId, finals: &BTreeSet<IntervalId>, aborted: &BTreeSet<SpecId>) -> bool {
        let voted = |place: &Place| place.votes.iter().any(|vote| finals.contains(vote));
        let is_hindered = self.conflicts.contains(&spec) || self.sealed.contains_key(&spec);
        !aborted.contains(&spec) && !is_hindered && self.places_of(spec).all(voted)
    }

    /// Rule 9 by enumeration: all that is waited for, all whose doing is, and what these wait for in turn.
    pub fn would_wait_forever(&self, waiter: ContextId, on: Awaited, waits: &Waits) -> bool {
        let (mut intervals, mut must_act) = (BTreeSet::new(), BTreeSet::new());
        let mut awaited = BTreeSet::from([on]);
        loop {
            for on in std::mem::take(&mut awaited) {
                match on {
                    Awaited::Decision(id) => drop(intervals.insert(id)),
                    Awaited::End(context) => drop(must_act.insert(context)),
                }
            }
            let before = (intervals.len(), must_act.len());
            for interval in self.intervals.iter().filter(|i| self.verdict.is_open(i.id)) {
                if !intervals.contains(&interval.id) {
                    continue;
                }
                intervals.extend(interval.base.iter().chain(&interval.deps));
                for place in interval.assumption.iter().flat_map(|spec| self.places_of(*spec)) {
                    let counted = place.votes.iter().filter(|vote| !self.verdict.dead.contains(vote));
                    intervals.extend(counted);
                    let voted = self.verdict.votes.contains(&(place.spec, place.context));
                    if !place.held && (!voted || self.conflicts.contains(&place.spec)) {
                        must_act.insert(place.context);
                    }
                }
            }
            awaited.extend(must_act.iter().filter_map(|context| waits.get(context)).flatten().copied());
            let known = |on: &Awaited| match on {
                Awaited::Decision(id) => intervals.contains(id),
                Awaited::End(context) => must_act.contains(context),
            };
            if before == (intervals.len(), must_act.len()) && awaited.iter().all(known) {
                return must_act.contains(&waiter);
            }
        }
    }
}
