//! Drives the interval graph: contexts and speculations come and go here, and decisions are carried out.

mod absorb;
mod conflicts;
mod diff;
mod held;
mod job;
mod join;
mod merge;
mod paths;
mod state;
mod touches;

pub(crate) use job::Job;

use crate::ops::{Ops, Scope, fault};
use crate::store::{Sight, Store, StoreError};
use crate::touch::{Touch, TouchKey, Touches};
use conflicts::{Conflicts, Standing};
use join::Joins;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::graph::{Effect, Event, GraphError, Owner, Resume};
use mojavefs::id::{ContextId, IntervalId, SpecId, ViewId};
use mojavefs::limits::NESTING_MAX;
use mojavefs::wire::{Fall, JobInfo, OnRead, Outcome, Resolution, SpecState, SpecStatus};
use parking_lot::{Condvar, Mutex, RwLock};
use state::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a job begins.
pub(crate) struct Beginning {
    /// Who runs it.
    pub(crate) info: JobInfo,
    /// What it sees of others.
    /// What the one around it does, if that is not said: it is a level of a process.
    pub(crate) on_read: Option<OnRead>,
    /// A further speculation that it is to own.
    pub(crate) own: Option<SpecId>,
}

/// What a decision asks of whoever owns the views; carried out once no lock is held.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// These intervals' changes are seen by trunk now.
    pub(crate) on_trunk: Vec<IntervalId>,
    /// What the first context changed, in these intervals, is seen by the second now.
    pub(crate) folded: Option<(ContextId, ContextId, Vec<IntervalId>)>,
    /// The first context, which changed nothing, is no more; it was inside the second.
    pub(crate) dropped: Option<(ContextId, Option<ContextId>)>,
    /// What these contexts see is reached in another way now.
    pub(crate) rescoped: Vec<ContextId>,
    /// These contexts' speculations were undone; why, if by another's end.
    pub(crate) undone: Vec<(ContextId, SpecId, Option<Fall>)>,
    /// These contexts' speculations are permanent.
    pub(crate) committed: Vec<(ContextId, SpecId)>,
    /// These contexts' votes can't stand: something became final meanwhile that is in their way.
    pub(crate) clashing: Vec<(ContextId, SpecId)>,
    /// The process of this view is back from what was undone; true if its kernel holds nothing back that was written there.
    pub(crate) back: Option<(ViewId, bool)>,
    /// Kept until the views were told, so that nothing they may still read goes.
    pub(crate) jobs: Vec<Job>,
}

/// Everything undecided.
pub(crate) struct Coordinator {
    store: Arc<Store>,
    ops: Arc<Ops>,
    conflicts: Arc<Conflicts>,
    state: Arc<Mutex<State>>,
    /// Rung at every decision.
    decided: Condvar,
    /// Operations hold it shared, decisions exclusively.
    decisions: RwLock<()>,
}

/// Reports what a context touches.
struct ContextTouches {
    conflicts: Arc<Conflicts>,
    joins: Joins,
    context: ContextId,
}

impl Touches for ContextTouches {
    fn touch(&self, key: TouchKey, how: Touch, newer_final: bool) {
        self.conflicts.touched(self.context, key, how, newer_final);
    }

    fn meet(&self, key: &TouchKey, of: &[IntervalId]) -> Fault {
        self.joins.meet(self.context, key, of)
    }
}

/// Reports what processes outside every context change.
struct TrunkTouches(Arc<Conflicts>);

impl Touches for TrunkTouches {
    fn touch(&self, key: TouchKey, how: Touch, _newer_final: bool) {
        self.0.touched_on_trunk(key, how);
    }

    fn meet(&self, _key: &TouchKey, _of: &[IntervalId]) -> Fault {
        Fault::new(FaultKind::Undecided, "trunk looks at nothing that is undecided")
    }
}

fn graph_fault(error: GraphError) -> Fault {
    let kind = match error {
        GraphError::Committed(_) | GraphError::Aborted(_) => FaultKind::Decided,
        GraphError::NotOwner(_) => FaultKind::AccessDenied,
        _ => FaultKind::NotFound,
    };
    Fault::new(kind, error.to_string())
}

impl Coordinator {
    /// Takes up what was held before.
    pub(crate) fn open(store: Arc<Store>, ops: Arc<Ops>) -> Result<Self, StoreError> {
        let coordinator = Coordinator {
            store,
            ops,
            conflicts: Arc::new(Conflicts::new()),
            state: Arc::default(),
            decided: Condvar::new(),
            decisions: RwLock::new(()),
        };
        coordinator.restore()?;
        Ok(coordinator)
    }

    /// Runs an operation while nothing is decided.
    pub(crate) fn undisturbed<T>(&self, operation: impl FnOnce() -> T) -> T {
        let result = {
            let _shared = self.decisions.read();
            operation()
        };
        self.write_down_conflicts();
        result
    }

    /// What trunk sees.
    pub(crate) fn trunk(&self) -> Scope {
        Scope {
            sight: Sight::trunk(),
            touches: Some(Arc::new(TrunkTouches(self.conflicts.clone()))),
            over: Arc::default(),
        }
    }

    /// What a context sees, or trunk.
    pub(crate) fn shown_by(&self, context: Option<ContextId>) -> Result<Scope, Fault> {
        match context {
            Some(context) => self.scope_of(context),
            None => Ok(self.trunk()),
        }
    }

    /// What an undecided context sees.
    pub(crate) fn scope_of(&self, context: ContextId) -> Result<Scope, Fault> {
        let state = self.state.lock();
        let job = state.of(context);
        job.map(|job| self.scope(&state, job))
            .ok_or_else(|| Fault::new(FaultKind::Stale, format!("context {context} is decided")))
    }

    fn scope(&self, state: &State, job: &Job) -> Scope {
        let joins = Joins { store: self.store.clone(), state: self.state.clone() };
        let touches = ContextTouches { conflicts: self.conflicts.clone(), joins, context: job.context };
        Scope { sight: state.sight(job), touches: Some(Arc::new(touches)), over: job.over.clone() }
    }

    /// Starts a job's context and speculation, inside another context or on trunk.
    pub(crate) fn begin(
        &self,
        inside: Option<ContextId>,
        start: Beginning,
    ) -> Result<(SpecId, ContextId, Scope), Fault> {
        let Beginning { info, on_read, own } = start;
        let is_level = on_read.is_none();
        let new = || self.store.next_id().map_err(fault::store);
        let (context, first, entry) = (ContextId(new()?), IntervalId(new()?), IntervalId(new()?));
        let spec = self.store.next_spec().map_err(fault::store)?;
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let outer = match inside {
            Some(context) => Some(state.job_of(context)?),
            None => None,
        };
        if let Some(spec) = own {
            state.job(spec, info.uid)?;
        }
        let on_read = match (outer, on_read) {
            (Some(outer), _) if !outer.on_read.follows() => OnRead::Isolate,
            (Some(Job { on_read: OnRead::Wait, .. }), None) => {
                let text = "a process can't speculate inside a job whose reads wait (--on-read wait)";
                return Err(Fault::new(FaultKind::Unsupported, text));
            }
            (Some(outer), None) => outer.on_read,
            (_, on_read) => on_read.unwrap_or_default(),
        };
        if outer.is_some_and(|outer| outer.depth >= NESTING_MAX) {
            return Err(Fault::new(FaultKind::Unsupported, format!("jobs nest {NESTING_MAX} deep at most")));
        }
        let snapshot = match outer.and_then(|outer| outer.snapshot.clone()) {
            _ if on_read.follows() => None,
            Some(outer) => Some(outer),
            None => Some(Arc::new(self.store.take_snapshot().map_err(fault::store)?)),
        };
        let from = inside.and_then(|context| state.graph.current(context));
        let seen = outer.map(|outer| state.sight(outer).live.to_vec()).unwrap_or_default();
        let job = Job {
            spec,
            context,
            entry,
            info,
            since: job::now(),
            parent: outer.map(|outer| outer.spec),
            parent_context: inside,
            is_level,
            probed: None,
            doomed: false,
            depth: outer.map_or(0, |outer| outer.depth) + 1,
            on_read,
            snapshot,
            intervals: vec![first, entry],
            writer: entry,
            outer: seen,
            joined: BTreeMap::new(),
            owns: Vec::new(),
            state: SpecState::Running,
            recorded: false,
            bytes: Arc::default(),
            over: Arc::default(),
        };
        state.apply(&Event::Open { context, interval: first, from }).map_err(graph_fault)?;
        state.apply(&Event::Speculate { context, interval: entry, spec }).map_err(graph_fault)?;
        self.conflicts.open(context, inside, on_read == OnRead::Join);
        state.insert(job);
        if let Some(own) = own {
            self.own(&mut state, spec, own)?;
        }
        let scope = self.scope(&state, &state.jobs[&spec]);
        Ok((spec, context, scope))
    }

    /// A job becomes a further owner of another's speculation.
    fn own(&self, state: &mut State, spec: SpecId, other: SpecId) -> Result<(), Fault> {
        let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
        let context = state.jobs[&spec].context;
        state.apply(&Event::CoOwn { context, interval, spec: other }).map_err(graph_fault)?;
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.owns.push(other);
            job.intervals.push(interval);
            job.writer = interval;
        }
        Ok(())
    }

    /// Counts what a context writes.
    pub(crate) fn bytes_counter(&self, context: ContextId) -> Option<Arc<std::sync::atomic::AtomicU64>> {
        self.state.lock().of(context).map(|job| job.bytes.clone())
    }

    /// The context of an undecided speculation, for its owner or root.
    pub(crate) fn context_for(&self, spec: SpecId, uid: u32) -> Result<ContextId, Fault> {
        let state = self.state.lock();
        Ok(state.job(spec, uid)?.context)
    }

    /// Everything undecided that a user may see.
    pub(crate) fn status(&self, uid: u32) -> Vec<SpecStatus> {
        let jobs: Vec<_> = {
            let state = self.state.lock();
            let visible = state.jobs.values().filter(|job| job.may_see(uid));
            let row = |job: &Job| {
                let (sight, standing) = (state.sight(job), self.conflicts.of(job.context));
                (job.status(&self.store), sight, standing, job.joined.clone())
            };
            visible.map(row).collect()
        };
        let named = |(status, sight, standing, joined): (SpecStatus, Sight, Standing, BTreeMap<SpecId, TouchKey>)| {
            let joined = joined.iter().map(|(spec, key)| self.joined(&sight, *spec, key)).collect();
            SpecStatus { conflicts: self.named(&sight, &standing), joined, ..status }
        };
        jobs.into_iter().map(named).collect()
    }

    /// A vote to commit, by the owner or root; refused while conflicts stand.
    pub(crate) fn commit(
        &self,
        spec: SpecId,
        uid: u32,
        resolutions: &[Resolution],
    ) -> Result<(Outcome, Aftermath), Fault> {
        if let Some(outcome) = self.decided(spec, SpecState::Committed)? {
            return Ok((outcome, Aftermath::default()));
        }
        let (context, intervals) = {
            let state = self.state.lock();
            let job = state.job(spec, uid)?;
            (job.context, job.intervals.clone())
        };
        let standing = self.conflicts.of(context);
        if !standing.is_empty() && !resolutions.is_empty() {
            return self.commit_resolved(spec, uid, resolutions);
        }
        if standing.is_empty() {
            // Most of what a commit must make durable is written before anybody is kept waiting.
            self.store.sync_early(&intervals).map_err(fault::store)?;
        }
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let standing = self.conflicts.of(context);
        let job = state.job(spec, uid)?;
        if !standing.is_empty() {
            let outcome = self.refusal(&state, job, &standing);
            return Ok((outcome, Aftermath::default()));
        }
        let outcome = Outcome::of(spec, SpecState::Committed, job.changes(&self.store));
        let votes = job.votes();
        if let Some(aftermath) = self.absorb(&mut state, spec)? {
            return Ok((Outcome { state: SpecState::Voted, ..outcome }, aftermath));
        }
        if state.jobs[&spec].parent.is_none() && !state.is_final_by(spec, &votes) {
            self.record_vote(&mut state, spec)?;
        }
        let mut aftermath = self.vote(&mut state, spec, &votes)?;
        aftermath.clashing = std::mem::take(&mut state.clashing);
        self.decided.notify_all();
        let Some(job) = state.jobs.get(&spec) else { return Ok((outcome, aftermath)) };
        let waits_for = match job.parent {
            Some(_) => Vec::new(),
            None => state.open_under(job),
        };
        Ok((Outcome { state: SpecState::Voted, waits_for, ..outcome }, aftermath))
    }

    /// Casts an owner's votes, and carries out what follows.
    fn vote(&self, state: &mut State, spec: SpecId, votes: &[Event]) -> Result<Aftermath, Fault> {
        let Some((last, before)) = votes.split_last() else { return Ok(Aftermath::default()) };
        for vote in before {
            // Nothing is final by these: the vote for the job's own speculation is the last.
            state.apply(vote).map_err(graph_fault)?;
        }
        loop {
            let Some(Effect::Final { intervals, specs }) = state.graph.preview(last).map_err(graph_fault)?.pop() else {
                state.apply(last).map_err(graph_fault)?;
                if let Some(job) = state.jobs.get_mut(&spec).filter(|job| !job.is_held()) {
                    job.state = SpecState::Voted;
                }
                return self.fold(state, spec);
            };
            // Conflicts of those that have waited for this vote are noticed in the step that would make them final.
            let clashing = specs.iter().copied().filter(|spec| state.is_clashing(*spec, &self.conflicts));
            let clashing: Vec<SpecId> = clashing.collect();
            if clashing.is_empty() {
                return self.make_final(state, last, intervals, &specs);
            }
            for spec in clashing {
                state.apply(&Event::Conflict { spec }).map_err(graph_fault)?;
                state.clashing.extend(state.jobs.get(&spec).map(|job| (job.context, spec)));
            }
        }
    }

    fn refusal(&self, state: &State, job: &Job, standing: &Standing) -> Outcome {
        Outcome {
            conflicts: self.named(&state.sight(job), standing),
            conflicts_more: standing.more,
            ..Outcome::of(job.spec, job.state, job.changes(&self.store))
        }
    }

    /// Where a speculation stands, or how it was decided lately.
    pub(crate) fn outcome(&self, spec: SpecId) -> Result<Outcome, Fault> {
        use mojavefs::graph::Outcome as Decided;
        let state = self.state.lock();
        if let Some(outcome) = state.absorbed_outcome(spec) {
            return Ok(outcome);
        }
        let how = match (state.jobs.get(&spec), state.graph.outcome(spec)) {
            (Some(job), _) => job.state,
            (None, Some(Decided::Committed)) => SpecState::Committed,
            (None, Some(Decided::Aborted)) => SpecState::Aborted,
            (None, None) => {
                let text = format!("there is no speculation {spec} that is undecided or was decided lately");
                return Err(Fault::new(FaultKind::NotFound, text));
            }
        };
        Ok(Outcome::of(spec, how, 0))
    }

    /// The answer for a decision that was made before; an error if it was made the other way.
    fn decided(&self, spec: SpecId, wanted: SpecState) -> Result<Option<Outcome>, Fault> {
        use mojavefs::graph::Outcome as Decided;
        let state = self.state.lock();
        if let Some(outcome) = state.absorbed_outcome(spec) {
            return match wanted {
                SpecState::Aborted => Err(into_its_surroundings(spec)),
                _ => Ok(Some(outcome)),
            };
        }
        let decided = match state.graph.outcome(spec) {
            None => return Ok(None),
            Some(Decided::Committed) => SpecState::Committed,
            Some(Decided::Aborted) => SpecState::Aborted,
        };
        if decided == wanted {
            return Ok(Some(Outcome::of(spec, decided, 0)));
        }
        let how = if decided == SpecState::Committed { "committed" } else { "aborted" };
        Err(Fault::new(FaultKind::Decided, format!("speculation {spec} is {how} already")))
    }

    /// Carries out that a vote makes something final: durably first, then for everybody to see.
    fn make_final(
        &self,
        state: &mut State,
        vote: &Event,
        mut all: Vec<IntervalId>,
        specs: &[SpecId],
    ) -> Result<Aftermath, Fault> {
        let jobs: Vec<Job> = specs.iter().filter_map(|spec| state.remove(*spec)).collect();
        all.extend(jobs.iter().flat_map(|job| job.intervals.iter().copied()));
        all.sort_unstable();
        all.dedup();
        let held: Vec<SpecId> = jobs.iter().filter(|job| job.recorded).map(|job| job.spec).collect();
        let rebased = |seq| state.rebased_records(&all, specs, seq, &self.conflicts);
        let seq = match self.store.commit(&all, &held, &rebased) {
            Ok(seq) => seq,
            Err(error) => {
                let failed: Vec<(SpecId, Owner)> = jobs.iter().map(|job| (job.spec, job.owner())).collect();
                jobs.into_iter().for_each(|job| state.insert(job));
                self.undo_failed(state, &failed);
                let text = format!("{error}; speculation {} was rolled back", list(specs));
                return Err(Fault::new(fault::store(error).kind, text));
            }
        };
        state.apply(vote).map_err(graph_fault)?;
        let mut aftermath = Aftermath { rescoped: state.rebase(&all, specs, &self.store, seq), ..Aftermath::default() };
        jobs.iter().for_each(|job| drop(self.conflicts.decided(job.context, false)));
        state.end_contexts(&jobs);
        aftermath.on_trunk.extend(all);
        aftermath.committed.extend(jobs.iter().map(|job| (job.context, job.spec)));
        aftermath.jobs.extend(jobs);
        Ok(aftermath)
    }

    /// A commit could not be made durable and is known not to have happened: it is an abort, of everything on top of it too.
    fn undo_failed(&self, state: &mut State, failed: &[(SpecId, Owner)]) {
        for (spec, owner) in failed {
            // One that fell with another before it is aborted already, which is no error.
            let abort = Event::Abort { owner: *owner, spec: *spec, code: 1, retry: false };
            if let Err(fault) = self.carry_out_abort(state, &abort) {
                tracing::error!("undoing a commit of speculation {spec} that failed: {fault}");
            }
        }
    }

    /// An inner job's commit becomes part of the outer one: that one joins it.
    fn fold(&self, state: &mut State, spec: SpecId) -> Result<Aftermath, Fault> {
        let inner = state.jobs.get(&spec).expect("the job was found before");
        let (context, parent, intervals) = (inner.context, inner.parent_context, inner.intervals.clone());
        let Some(parent) = parent else { return Ok(Aftermath::default()) };
        inner.over.store(true, Ordering::SeqCst);
        let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
        let of = state.graph.current(context).unwrap_or(intervals[intervals.len() - 1]);
        // What the outer job does next builds on it, and the outer job can only go back to its start.
        let join = Event::Read { context: parent, of, interval, resume: Resume::Start };
        state.apply(&join).map_err(graph_fault)?;
        let outer = state.contexts.get(&parent).copied();
        if let Some(outer) = outer.and_then(|outer| state.jobs.get_mut(&outer)) {
            outer.intervals.extend(intervals.iter().copied());
            outer.intervals.push(interval);
            outer.writer = interval;
        }
        self.conflicts.fold(context, parent);
        self.conflicts.outdated(parent);
        let outer = state.contexts.get(&parent).copied();
        let rescoped = outer.map(|outer| state.inside(outer)).unwrap_or_default();
        Ok(Aftermath { folded: Some((context, parent, intervals)), rescoped, ..Aftermath::default() })
    }

    /// An abort by the owner or root, or, with no user, because the owner is gone.
    pub(crate) fn abort(&self, spec: SpecId, uid: Option<u32>) -> Result<(Outcome, Aftermath), Fault> {
        if let Some(outcome) = self.decided(spec, SpecState::Aborted)? {
            return Ok((outcome, Aftermath::default()));
        }
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let job = state.job(spec, uid.unwrap_or(0))?;
        if job.state == SpecState::Voted && job.parent.is_some() {
            return Err(into_its_surroundings(spec));
        }
        let outcome = Outcome::of(spec, SpecState::Aborted, job.changes(&self.store));
        // What it owns beside its own it entered later: that falls with it.
        let event = Event::Abort { owner: job.owner(), spec, code: 1, retry: false };
        let aftermath = self.carry_out_abort(&mut state, &event)?;
        Ok((outcome, aftermath))
    }

    /// Undoes a speculation and everything on top of it.
    fn carry_out_abort(&self, state: &mut State, abort: &Event) -> Result<Aftermath, Fault> {
        let effects = state.apply(abort).map_err(graph_fault)?;
        let falls = self.falls(state, &effects);
        let mut aftermath = Aftermath::default();
        self.decided.notify_all();
        for effect in effects {
            let Effect::Dead { intervals, specs, .. } = effect else { continue };
            let jobs: Vec<Job> = specs.iter().filter_map(|spec| state.remove(*spec)).collect();
            let mut all = intervals;
            all.extend(jobs.iter().flat_map(|job| job.intervals.iter().copied()));
            all.sort_unstable();
            all.dedup();
            let held: Vec<SpecId> = jobs.iter().filter(|job| job.recorded).map(|job| job.spec).collect();
            state.end_contexts(&jobs);
            self.store.abort(&all, &held).map_err(fault::store)?;
            for job in jobs {
                self.conflicts.decided(job.context, true);
                aftermath.undone.push((job.context, job.spec, falls.get(&job.spec).cloned()));
                aftermath.jobs.push(job);
            }
        }
        Ok(aftermath)
    }

    /// Forgets what decided contexts touched. Called in the background.
    pub(crate) fn sweep(&self) {
        self.conflicts.sweep();
    }

    /// Whether anything is undecided.
    pub(crate) fn is_idle(&self) -> bool {
        self.state.lock().jobs.is_empty()
    }

    /// The undecided speculation a context owns.
    pub(crate) fn spec_of(&self, context: ContextId) -> Option<SpecId> {
        self.state.lock().contexts.get(&context).copied()
    }

    /// Whether its owner has voted.
    pub(crate) fn has_voted(&self, spec: SpecId) -> bool {
        self.state.lock().jobs.get(&spec).is_some_and(|job| job.state == SpecState::Voted)
    }

    /// Whether a speculation is held by the store.
    pub(crate) fn is_held(&self, spec: SpecId) -> bool {
        self.state.lock().jobs.get(&spec).is_some_and(Job::is_held)
    }
}

fn into_its_surroundings(spec: SpecId) -> Fault {
    Fault::new(FaultKind::Decided, format!("speculation {spec} is committed into the job around it; abort that one"))
}

fn list(specs: &[SpecId]) -> String {
    specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
