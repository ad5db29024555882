//! Everything undecided, and how its parts are found.

use super::attempts::Attempts;
use super::conflicts::{Conflicts, Nesting};
use super::rounds::{Sealed, Stopped};
use super::waits::Wait;
use super::{Aftermath, Job, graph_fault};
use crate::checks;
use crate::store::{Remembered, Store};
use mojavefs::graph::{Difference, Effect, Event, Graph, GraphError, ModelChecker, Outcome, Owner};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::OUTCOMES_KEPT_MAX;
use mojavefs::protocol::SpecState;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The graph, and the jobs that its contexts and speculations stand for.
#[derive(Default)]
pub(super) struct State {
    pub(super) graph: Graph,
    /// Holds the graph against its naive model, if that is asked for.
    checker: ModelChecker,
    pub(super) jobs: BTreeMap<SpecId, Job>,
    /// The undecided speculation of each context.
    pub(super) contexts: HashMap<ContextId, SpecId>,
    /// Levels that somebody met, whose processes may be dead by now.
    pub(super) to_probe: Vec<(SpecId, ContextId)>,
    pub(super) attempts: Attempts,
    /// Levels that became part of what was around them, lately.
    pub(super) folded: VecDeque<SpecId>,
    /// What contexts waited for when they looked last, and how long that counts.
    pub(super) waiting: HashMap<ContextId, BTreeMap<Wait, Instant>>,
    /// Those whose conflicts their owners have settled, lately, and what was committed in their place.
    pub(super) settled: VecDeque<(SpecId, SpecId)>,
    /// Inside whom those were that the graph has just undone, while their jobs are there still.
    pub(super) fallen_from: BTreeMap<SpecId, SpecId>,
    /// Voted ones found in conflict, of which nobody was told yet.
    pub(super) clashing: Vec<(ContextId, SpecId)>,
    /// Those of which not even the store knows whether they are committed, before it is opened again.
    pub(super) in_doubt: Vec<SpecId>,
    /// What came of decisions whose callers got an error instead.
    pub(super) outstanding: Vec<Aftermath>,
    /// The rounds that are under way, as they began.
    pub(super) rounds: Vec<Sealed>,
    /// Contexts that may not be changed.
    pub(super) stopped: Vec<Stopped>,
    pub(super) rounds_begun: u64,
}

impl State {
    /// The conflicts of a speculation are settled: another is committed in its place.
    pub(super) fn note_settled(&mut self, spec: SpecId, again: SpecId) {
        self.settled.push_back((spec, again));
        if self.settled.len() > OUTCOMES_KEPT_MAX {
            self.settled.pop_front();
        }
    }

    /// How a speculation was decided; nothing if it was not. Errors: nobody knows.
    pub(super) fn how_decided(&self, store: &Store, spec: SpecId) -> Result<Option<SpecState>, Fault> {
        if self.in_doubt.contains(&spec) {
            let text = format!("whether speculation {spec} was committed is known when the store was opened again");
            return Err(Fault::new(FaultKind::InDoubt, text));
        }
        let again = self.settled.iter().find(|(settled, _)| *settled == spec).map(|(_, again)| *again);
        let decided = match self.graph.outcome(again.unwrap_or(spec)) {
            Some(Outcome::Committed) => Some(SpecState::Committed),
            Some(Outcome::Aborted) => Some(SpecState::Aborted),
            // It is committed into what is around it.
            None => again.map(|_| SpecState::Voted),
        };
        if decided.is_some() || self.jobs.contains_key(&spec) {
            return Ok(decided);
        }
        if self.jobs.values().any(|job| job.parts.contains(spec)) {
            return Ok(Some(SpecState::Voted));
        }
        match store.remembers(spec) {
            Remembered::Committed => Ok(Some(SpecState::Committed)),
            Remembered::Undone => Ok(Some(SpecState::Aborted)),
            Remembered::Forgotten => {
                let text = format!("speculation {spec} was decided too long ago: nobody knows how");
                Err(Fault::new(FaultKind::NotFound, text))
            }
            Remembered::Never => Ok(None),
        }
    }

    /// The undecided speculations that an abort of this one undoes, itself included.
    pub(super) fn falls_with(&self, spec: SpecId) -> BTreeSet<SpecId> {
        let mut all = BTreeSet::new();
        let mut todo = vec![spec];
        while let Some(spec) = todo.pop() {
            let new: Vec<SpecId> = self.graph.falls_with(spec).into_iter().filter(|spec| all.insert(*spec)).collect();
            // What owns one of them falls as well.
            todo.extend(self.jobs.values().filter(|job| job.owns.iter().any(|o| new.contains(o))).map(|job| job.spec));
        }
        all
    }

    /// What is to be removed from the record before a speculation is undone: it, and what falls with it. Nothing if it is not on
    /// record: of what falls with it nothing is taken up again, as that has gone.
    pub(super) fn recorded_with(&self, spec: SpecId) -> Vec<SpecId> {
        let is_recorded = |spec: &SpecId| self.jobs.get(spec).is_some_and(|job| job.recorded);
        match is_recorded(&spec) {
            true => self.falls_with(spec).into_iter().filter(is_recorded).collect(),
            false => Vec::new(),
        }
    }

    /// Inside whom those are that an abort would undo: after it the graph does not say so any more.
    pub(super) fn nesting_of(&self, abort: &Event) -> BTreeMap<SpecId, SpecId> {
        let Event::Abort { spec, .. } = abort else { return BTreeMap::new() };
        let falls = self.graph.falls_with(*spec);
        falls.into_iter().filter_map(|spec| Some((spec, self.outer(spec)?))).collect()
    }

    /// Tells the graph of an event.
    pub(super) fn apply(&mut self, event: &Event) -> Result<Vec<Effect>, GraphError> {
        if !checks::are_made() {
            return self.graph.apply(event);
        }
        self.apply_checked(event).unwrap_or_else(|difference| checks::fail(difference))
    }

    /// The same, before a checker. The model costs time, so there are bounds to what is compared: see [`ModelChecker`].
    fn apply_checked(&mut self, event: &Event) -> Result<Result<Vec<Effect>, GraphError>, Box<Difference>> {
        let watched = !self.checker.gave_up();
        let answer = self.checker.apply(&mut self.graph, event)?;
        if watched && self.checker.gave_up() {
            tracing::warn!("too much is undecided: the graph is not held against its naive model any more");
        }
        Ok(answer)
    }

    /// Decided jobs are over: nothing of their contexts is left to judge, and the graph need not remember them.
    pub(super) fn end_contexts(&mut self, jobs: &[Job]) {
        for job in jobs {
            if let Err(error) = self.apply(&Event::Close { context: job.context }) {
                tracing::error!("ending the context of speculation {}: {error}", job.spec);
            }
        }
    }

    pub(super) fn insert(&mut self, job: Job) {
        self.contexts.insert(job.context, job.spec);
        job.over.store(false, Ordering::SeqCst);
        self.jobs.insert(job.spec, job);
    }

    pub(super) fn remove(&mut self, spec: SpecId) -> Option<Job> {
        let job = self.jobs.remove(&spec)?;
        self.contexts.remove(&job.context);
        job.over.store(true, Ordering::SeqCst);
        Some(job)
    }

    /// The undecided job of a context.
    pub(super) fn of(&self, context: ContextId) -> Option<&Job> {
        self.jobs.get(self.contexts.get(&context)?)
    }

    /// Whether these votes make the speculation final at once.
    pub(super) fn is_final_by(&mut self, spec: SpecId, votes: &[Event]) -> Result<bool, Fault> {
        let [vote] = votes else { return Ok(false) };
        let effects = match self.graph.preview(vote) {
            Err(error @ GraphError::Sealed(_)) => return Err(graph_fault(error)),
            effects => effects.unwrap_or_default(),
        };
        Ok(effects.iter().any(|effect| matches!(effect, Effect::Final { specs, .. } if specs.contains(&spec))))
    }

    pub(super) fn is_clashing(&self, spec: SpecId, conflicts: &Conflicts) -> bool {
        self.jobs.get(&spec).is_some_and(|job| !conflicts.of(job.context).is_empty())
    }

    /// How many files a job changed.
    pub(super) fn changes(&self, job: &Job, store: &Store) -> u64 {
        self.graph.carried_by(job.context).iter().map(|number| store.changes_count(*number)).sum()
    }

    /// The jobs that build on changes with these numbers; true of those that stay with what they found, if that is among them.
    pub(super) fn based_on(&self, numbers: &[IntervalId]) -> BTreeMap<SpecId, bool> {
        let found = |job: &Job| self.graph.found_by(job.context).iter().any(|number| numbers.contains(number));
        let jobs = self.graph.built_on(numbers).into_iter().filter_map(|context| self.of(context));
        jobs.map(|job| (job.spec, job.snapshot.is_some() && found(job))).collect()
    }

    /// The undecided speculation that one is inside of.
    pub(super) fn outer(&self, spec: SpecId) -> Option<SpecId> {
        if let Some(outer) = self.fallen_from.get(&spec) {
            return Some(*outer);
        }
        let outer = self.graph.outer(self.jobs.get(&spec)?.context)?;
        self.contexts.get(&outer).copied()
    }

    /// The undecided jobs that were started in one, those inside of them left out.
    pub(super) fn inner(&self, job: &Job) -> impl Iterator<Item = &Job> {
        let fallen = self.fallen_from.iter().filter(|(_, outer)| **outer == job.spec).map(|(inner, _)| inner);
        let inner = self.graph.inner(job.context).into_iter().filter_map(|context| self.of(context));
        inner.chain(fallen.filter_map(|inner| self.jobs.get(inner)))
    }

    /// The contexts inside one whose jobs are at work or held.
    pub(super) fn open_inside(&self, outer: ContextId) -> Vec<ContextId> {
        let inside = self.graph.inside(outer).into_iter();
        inside.filter(|inner| self.of(*inner).is_some_and(|job| job.state != SpecState::Voted)).collect()
    }

    /// Whether a context's job stays with what it has found.
    pub(super) fn stays(&self, context: ContextId) -> bool {
        self.of(context).is_some_and(|job| job.snapshot.is_some())
    }

    pub(super) fn job_of(&self, context: ContextId) -> Result<&Job, Fault> {
        self.of(context)
            .ok_or_else(|| Fault::new(FaultKind::NotFound, "the job around this one is decided already".to_string()))
    }

    /// An undecided job that the user may see and decide.
    pub(super) fn job(&self, spec: SpecId, uid: u32) -> Result<&Job, Fault> {
        let missing = || Fault::new(FaultKind::NotFound, format!("there is no undecided speculation {spec}"));
        let job = self.jobs.get(&spec).ok_or_else(missing)?;
        match job.may_see(uid) {
            true => Ok(job),
            false => Err(Fault::new(
                FaultKind::AccessDenied,
                format!(
                    "speculation {spec} belongs to user {}; only that user and root look at it and decide it",
                    job.info.uid
                ),
            )),
        }
    }
}

impl Nesting for State {
    fn inside(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.graph.inside(context)
    }

    fn around(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.graph.around(context).skip(1).collect()
    }

    fn under(&self, context: ContextId) -> BTreeSet<ContextId> {
        State::under(self, context)
    }

    fn seen(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.graph.wholly_seen_by(context)
    }
}

impl Job {
    /// Its owner's votes, the one for its own speculation last.
    pub(super) fn votes(&self) -> Vec<Event> {
        let owner = self.owner();
        self.owns.iter().chain([&self.spec]).map(|spec| Event::Vote { owner, spec: *spec }).collect()
    }

    /// Who decides it.
    pub(super) fn owner(&self) -> Owner {
        if self.kept { Owner::Store(self.context) } else { Owner::Context(self.context) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::graph::Sees;

    fn state() -> State {
        let mut state = State::default();
        let context = ContextId(1);
        for event in [
            Event::Open { context, interval: IntervalId(1), from: None, sees: Sees::Follows },
            Event::Speculate { context, interval: IntervalId(2), spec: SpecId(1) },
        ] {
            state.apply_checked(&event).expect("no difference").expect("the events make sense");
        }
        state
    }

    #[test]
    fn a_graph_that_went_astray_is_noticed_at_the_next_event() {
        let mut state = state();
        let before = state.graph.clone();
        let vote = Event::Vote { owner: Owner::Context(ContextId(1)), spec: SpecId(1) };
        state.apply_checked(&vote).expect("no difference").expect("its owner votes");
        state.graph = before;
        let close = Event::Close { context: ContextId(1) };
        let difference = state.apply_checked(&close).expect_err("the graph has lost the vote");
        assert_eq!((&difference.event, difference.late.last()), (&close, Some(&vote)), "{difference}");
    }

    #[test]
    fn what_the_graph_rightly_refuses_is_no_difference() {
        let mut state = state();
        let vote = Event::Vote { owner: Owner::Context(ContextId(2)), spec: SpecId(1) };
        let refused = state.apply_checked(&vote).expect("no difference");
        assert_eq!(refused, Err(GraphError::NotOwner(SpecId(1))));
    }
}
