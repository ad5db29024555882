//! Drives the interval graph: contexts and speculations come and go here, and decisions are carried out.

mod conflicts;
mod diff;
mod held;
mod job;
mod merge;
mod paths;
mod touches;

pub(crate) use job::Job;

use crate::ops::{Ops, Scope, fault};
use crate::store::{Sight, Store, StoreError};
use crate::touch::{Touch, TouchKey, Touches};
use conflicts::{Conflicts, Standing};
use mojavefs::error::{Fault, FaultKind};
use mojavefs::graph::{Effect, Event, Graph, GraphError, Owner, Resume};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::NESTING_MAX;
use mojavefs::wire::{JobInfo, Outcome, Resolution, SpecState, SpecStatus};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a decision asks of whoever owns the views; carried out once no lock is held.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// These intervals' changes are seen by trunk now.
    pub(crate) on_trunk: Vec<IntervalId>,
    /// These intervals' changes are seen by this context now.
    pub(crate) folded: Option<(ContextId, Vec<IntervalId>)>,
    /// What these contexts see is reached in another way now.
    pub(crate) rescoped: Vec<ContextId>,
    /// These contexts' speculations were undone.
    pub(crate) undone: Vec<(ContextId, SpecId)>,
    /// Kept until the views were told, so that nothing they may still read goes.
    pub(crate) jobs: Vec<Job>,
}

/// Everything undecided.
pub(crate) struct Coordinator {
    store: Arc<Store>,
    ops: Arc<Ops>,
    conflicts: Arc<Conflicts>,
    state: Mutex<State>,
    /// Operations hold it shared, decisions exclusively.
    decisions: RwLock<()>,
}

#[derive(Default)]
struct State {
    graph: Graph,
    jobs: BTreeMap<SpecId, Job>,
}

/// Reports what a context touches.
struct ContextTouches {
    conflicts: Arc<Conflicts>,
    context: ContextId,
}

impl Touches for ContextTouches {
    fn touch(&self, key: TouchKey, how: Touch, newer_final: bool) {
        self.conflicts.touched(self.context, key, how, newer_final);
    }
}

/// Reports what processes outside every context change.
struct TrunkTouches(Arc<Conflicts>);

impl Touches for TrunkTouches {
    fn touch(&self, key: TouchKey, how: Touch, _newer_final: bool) {
        self.0.touched_on_trunk(key, how);
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
            state: Mutex::default(),
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
        Scope { sight: Sight::trunk(), touches: Some(Arc::new(TrunkTouches(self.conflicts.clone()))) }
    }

    /// What an undecided context sees.
    pub(crate) fn scope_of(&self, context: ContextId) -> Result<Scope, Fault> {
        let state = self.state.lock();
        state
            .jobs
            .values()
            .find(|job| job.context == context)
            .map(|job| self.scope(&state, job))
            .ok_or_else(|| Fault::new(FaultKind::NotFound, format!("context {context} is decided")))
    }

    fn scope(&self, state: &State, job: &Job) -> Scope {
        let writer = state.graph.current(job.context).unwrap_or(job.entry);
        let missed = state.missed(job);
        let mut live = state.graph.visible(writer);
        live.extend(job.intervals.iter().chain(&job.outer));
        live.retain(|interval| !missed.contains(interval));
        live.sort_unstable();
        live.dedup();
        let touches = ContextTouches { conflicts: self.conflicts.clone(), context: job.context };
        Scope {
            sight: Sight { snapshot: job.snapshot.seq(), live: live.into(), missed: missed.into(), writer },
            touches: Some(Arc::new(touches)),
        }
    }

    /// Starts a job's context and speculation, inside another context or on trunk.
    pub(crate) fn begin(&self, inside: Option<ContextId>, info: JobInfo) -> Result<(SpecId, ContextId, Scope), Fault> {
        let new = || self.store.next_id().map_err(fault::store);
        let (context, first, entry) = (ContextId(new()?), IntervalId(new()?), IntervalId(new()?));
        let spec = self.store.next_spec().map_err(fault::store)?;
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let outer = match inside {
            Some(context) => Some(state.job_of(context)?),
            None => None,
        };
        if outer.is_some_and(|outer| outer.depth >= NESTING_MAX) {
            return Err(Fault::new(FaultKind::Unsupported, format!("jobs nest {NESTING_MAX} deep at most")));
        }
        let snapshot = match outer {
            Some(outer) => outer.snapshot.clone(),
            None => Arc::new(self.store.take_snapshot().map_err(fault::store)?),
        };
        let from = inside.and_then(|context| state.graph.current(context));
        let mut seen: Vec<IntervalId> = from.map(|from| state.graph.visible(from)).unwrap_or_default();
        if let Some(outer) = outer {
            seen.extend(outer.intervals.iter().chain(&outer.outer));
            seen.sort_unstable();
            seen.dedup();
        }
        let job = Job {
            spec,
            context,
            entry,
            info,
            since: job::now(),
            parent: outer.map(|outer| outer.spec),
            parent_context: inside,
            depth: outer.map_or(0, |outer| outer.depth) + 1,
            snapshot,
            intervals: vec![first, entry],
            outer: seen,
            state: SpecState::Running,
            bytes: Arc::default(),
        };
        state.graph.apply(&Event::Open { context, interval: first, from }).map_err(graph_fault)?;
        state.graph.apply(&Event::Speculate { context, interval: entry, spec }).map_err(graph_fault)?;
        self.conflicts.open(context, inside);
        let scope = self.scope(&state, &job);
        state.jobs.insert(spec, job);
        Ok((spec, context, scope))
    }

    /// Counts what a context writes.
    pub(crate) fn bytes_counter(&self, context: ContextId) -> Option<Arc<std::sync::atomic::AtomicU64>> {
        self.state.lock().jobs.values().find(|job| job.context == context).map(|job| job.bytes.clone())
    }

    /// The context of an undecided speculation, for its owner or root.
    pub(crate) fn context_for(&self, spec: SpecId, uid: u32) -> Result<ContextId, Fault> {
        let state = self.state.lock();
        Ok(state.job(spec, uid)?.context)
    }

    /// Everything undecided that a user may see.
    pub(crate) fn status(&self, uid: u32) -> Vec<SpecStatus> {
        let jobs: Vec<(SpecStatus, Sight, Standing)> = {
            let state = self.state.lock();
            let visible = state.jobs.values().filter(|job| job.may_see(uid));
            let seen = |job: &Job| self.scope(&state, job).sight;
            visible.map(|job| (job.status(&self.store), seen(job), self.conflicts.of(job.context))).collect()
        };
        let named = |(status, sight, standing)| SpecStatus { conflicts: self.named(&sight, &standing), ..status };
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
        let changes = job.changes(&self.store);
        let owner = job.owner();
        let vote = Event::Vote { owner, spec };
        let aftermath = match state.graph.preview(&vote).map_err(graph_fault)?.pop() {
            Some(Effect::Final { intervals, specs }) => self.make_final(&mut state, &vote, intervals, &specs)?,
            _ => {
                state.graph.apply(&vote).map_err(graph_fault)?;
                self.fold(&mut state, spec)?
            }
        };
        let now = if effects_pending(&state, spec) { SpecState::Voted } else { SpecState::Committed };
        Ok((Outcome { spec, state: now, changes, conflicts: Vec::new(), conflicts_more: 0 }, aftermath))
    }

    fn refusal(&self, state: &State, job: &Job, standing: &Standing) -> Outcome {
        Outcome {
            spec: job.spec,
            state: job.state,
            changes: job.changes(&self.store),
            conflicts: self.named(&self.scope(state, job).sight, standing),
            conflicts_more: standing.more,
        }
    }

    /// The answer for a decision that was made before; an error if it was made the other way.
    fn decided(&self, spec: SpecId, wanted: SpecState) -> Result<Option<Outcome>, Fault> {
        use mojavefs::graph::Outcome as Decided;
        let state = self.state.lock();
        let decided = match state.graph.outcome(spec) {
            None => return Ok(None),
            Some(Decided::Committed) => SpecState::Committed,
            Some(Decided::Aborted) => SpecState::Aborted,
        };
        if decided == wanted {
            return Ok(Some(Outcome { spec, state: decided, changes: 0, conflicts: Vec::new(), conflicts_more: 0 }));
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
        let jobs: Vec<Job> = specs.iter().filter_map(|spec| state.jobs.remove(spec)).collect();
        all.extend(jobs.iter().flat_map(|job| job.intervals.iter().copied()));
        all.sort_unstable();
        all.dedup();
        let held: Vec<SpecId> = jobs.iter().filter(|job| job.is_held()).map(|job| job.spec).collect();
        let rebased = |seq| state.rebased_records(&all, seq, &self.conflicts);
        let seq = match self.store.commit(&all, &held, &rebased) {
            Ok(seq) => seq,
            Err(error) => {
                let failed: Vec<(SpecId, Owner)> = jobs.iter().map(|job| (job.spec, job.owner())).collect();
                state.jobs.extend(jobs.into_iter().map(|job| (job.spec, job)));
                self.undo_failed(state, &failed);
                let text = format!("{error}; speculation {} was rolled back", list(specs));
                return Err(Fault::new(fault::store(error).kind, text));
            }
        };
        state.graph.apply(vote).map_err(graph_fault)?;
        let mut aftermath = Aftermath { rescoped: state.rebase(&all, &self.store, seq), ..Aftermath::default() };
        jobs.iter().for_each(|job| drop(self.conflicts.decided(job.context, false)));
        state.end_contexts(&jobs);
        aftermath.on_trunk.extend(all);
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
        let inner = state.jobs.get_mut(&spec).expect("the job was found before");
        inner.state = SpecState::Voted;
        let (context, parent, intervals) = (inner.context, inner.parent_context, inner.intervals.clone());
        let Some(parent) = parent else { return Ok(Aftermath::default()) };
        let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
        let of = state.graph.current(context).unwrap_or(intervals[intervals.len() - 1]);
        let join = Event::Read { context: parent, of, interval, resume: Resume::Here };
        state.graph.apply(&join).map_err(graph_fault)?;
        let outer = state.jobs.values_mut().find(|job| job.context == parent);
        if let Some(outer) = outer {
            outer.intervals.extend(intervals.iter().copied());
            outer.intervals.push(interval);
        }
        self.conflicts.fold(context, parent);
        self.conflicts.outdated(parent);
        let outer = state.jobs.values().find(|job| job.context == parent).map(|job| job.spec);
        let rescoped = outer.map(|outer| state.inside(outer)).unwrap_or_default();
        Ok(Aftermath { folded: Some((parent, intervals)), rescoped, ..Aftermath::default() })
    }

    /// An abort by the owner or root, or, with no user, because the owner is gone.
    pub(crate) fn abort(&self, spec: SpecId, uid: Option<u32>) -> Result<(Outcome, Aftermath), Fault> {
        if let Some(outcome) = self.decided(spec, SpecState::Aborted)? {
            return Ok((outcome, Aftermath::default()));
        }
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let job = state.job(spec, uid.unwrap_or(0))?;
        if job.state == SpecState::Voted {
            let text = format!("speculation {spec} is committed into the job around it; abort that one");
            return Err(Fault::new(FaultKind::Decided, text));
        }
        let changes = job.changes(&self.store);
        let event = Event::Abort { owner: job.owner(), spec, code: 1, retry: false };
        let aftermath = self.carry_out_abort(&mut state, &event)?;
        Ok((Outcome { spec, state: SpecState::Aborted, changes, conflicts: Vec::new(), conflicts_more: 0 }, aftermath))
    }

    /// Undoes a speculation and everything on top of it.
    fn carry_out_abort(&self, state: &mut State, abort: &Event) -> Result<Aftermath, Fault> {
        let effects = state.graph.apply(abort).map_err(graph_fault)?;
        let mut aftermath = Aftermath::default();
        for effect in effects {
            let Effect::Dead { intervals, specs, .. } = effect else { continue };
            let jobs: Vec<Job> = specs.iter().filter_map(|spec| state.jobs.remove(spec)).collect();
            let mut all = intervals;
            all.extend(jobs.iter().flat_map(|job| job.intervals.iter().copied()));
            all.sort_unstable();
            all.dedup();
            let held: Vec<SpecId> = jobs.iter().filter(|job| job.is_held()).map(|job| job.spec).collect();
            state.end_contexts(&jobs);
            self.store.abort(&all, &held).map_err(fault::store)?;
            for job in jobs {
                self.conflicts.decided(job.context, true);
                aftermath.undone.push((job.context, job.spec));
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
        self.state.lock().jobs.values().find(|job| job.context == context).map(|job| job.spec)
    }

    /// Whether a speculation is held by the store.
    pub(crate) fn is_held(&self, spec: SpecId) -> bool {
        self.state.lock().jobs.get(&spec).is_some_and(Job::is_held)
    }
}

fn effects_pending(state: &State, spec: SpecId) -> bool {
    state.jobs.contains_key(&spec)
}

fn list(specs: &[SpecId]) -> String {
    specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl State {
    /// Decided jobs are over: nothing of their contexts is left to judge, and the graph need not remember them.
    fn end_contexts(&mut self, jobs: &[Job]) {
        for job in jobs {
            if let Err(error) = self.graph.apply(&Event::Close { context: job.context }) {
                tracing::error!("ending the context of speculation {}: {error}", job.spec);
            }
        }
    }

    /// What the jobs around `job` changed where it does not see it: since an inner one committed into them.
    fn missed(&self, job: &Job) -> Vec<IntervalId> {
        let mut missed = Vec::new();
        let mut at = job.parent;
        while let Some(outer) = at.and_then(|spec| self.jobs.get(&spec)) {
            missed.extend(outer.intervals.iter().filter(|interval| !job.outer.contains(interval)));
            at = outer.parent;
        }
        missed
    }

    /// The contexts of all jobs inside the one of `outer`.
    fn inside(&self, outer: SpecId) -> Vec<ContextId> {
        // A job begins after the one around it, so it comes later.
        let mut specs = vec![outer];
        let mut contexts = Vec::new();
        for job in self.jobs.values().filter(|job| job.state != SpecState::Voted) {
            if job.parent.is_some_and(|parent| specs.contains(&parent)) {
                specs.push(job.spec);
                contexts.push(job.context);
            }
        }
        contexts
    }

    fn job_of(&self, context: ContextId) -> Result<&Job, Fault> {
        self.jobs
            .values()
            .find(|job| job.context == context)
            .ok_or_else(|| Fault::new(FaultKind::NotFound, "the job around this one is decided already".to_string()))
    }

    /// An undecided job that the user may see and decide.
    fn job(&self, spec: SpecId, uid: u32) -> Result<&Job, Fault> {
        let missing = || Fault::new(FaultKind::NotFound, format!("there is no undecided speculation {spec}"));
        let job = self.jobs.get(&spec).ok_or_else(missing)?;
        match job.may_see(uid) {
            true => Ok(job),
            false => Err(Fault::new(
                FaultKind::AccessDenied,
                format!("speculation {spec} belongs to user {}; only that user and root decide it", job.info.uid),
            )),
        }
    }
}

impl Job {
    /// Who decides it.
    fn owner(&self) -> Owner {
        match self.is_held() {
            true => Owner::Store(self.context),
            false => Owner::Context(self.context),
        }
    }
}
