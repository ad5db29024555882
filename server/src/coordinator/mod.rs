//! Drives the interval graph: contexts and speculations come and go here, and decisions are carried out.

mod abort;
mod accesses;
mod attempts;
mod conflicts;
mod counts;
mod decide;
mod diff;
mod fold;
mod held;
mod inherit;
mod job;
mod join;
mod merge;
mod paths;
mod prepare;
#[cfg(test)]
mod restarts;
mod restore;
mod rings;
mod rounds;
mod segments;
mod state;
mod status;
mod waits;

pub(crate) use job::{Job, Kind, Stage};

use crate::access::{Access, AccessKey, AccessLog};
use crate::limits::FETCHES_MAX;
use crate::ops::{Ops, Scope, fault};
use crate::order::{Ordered, Place};
use crate::store::engine::cached_only;
use crate::store::{Key, Newer, Sight, Specs, Store, StoreError};
use conflicts::Conflicts;
use join::Joins;
use mojavefs::graph::{Event, GraphError, Sees};
use mojavefs::id::{ContextId, Ino, IntervalId, SpecId, ViewId};
use mojavefs::limits::{LEVELS_NESTING_MAX, NESTING_MAX};
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Fall, JobInfo, OnRead, SpecState};
use parking_lot::{Condvar, Mutex, RwLock};
use state::State;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How a job begins.
pub(crate) struct Beginning {
    /// Who runs it.
    pub(crate) info: JobInfo,
    pub(crate) kind: Kind,
    /// What it sees of others; a part of a job sees what the job sees.
    pub(crate) on_read: OnRead,
    /// A further speculation that it is to own.
    pub(crate) own: Option<SpecId>,
    /// Why it can go back to its start only.
    pub(crate) restarts: Option<String>,
}

impl Beginning {
    /// A job, which goes back to its start.
    pub(crate) fn job(info: JobInfo, on_read: OnRead) -> Self {
        Beginning { info, kind: Kind::Job, on_read, own: None, restarts: Some(String::new()) }
    }

    /// A part of the job that it begins in.
    pub(crate) fn part(info: JobInfo, kind: Kind, own: Option<SpecId>) -> Self {
        Beginning { info, kind, on_read: OnRead::Join, own, restarts: None }
    }
}

/// What a decision asks of whoever owns the views; carried out once no lock is held.
#[derive(Default)]
pub(crate) struct Aftermath {
    /// These intervals' changes are seen by trunk now.
    pub(crate) on_trunk: Vec<IntervalId>,
    /// What the first context changed, in these intervals, is seen by the second now.
    pub(crate) folded: Option<(ContextId, ContextId, Vec<IntervalId>)>,
    /// The same, as far as it carries the numbers of intervals of the second's own by now.
    pub(crate) reassigned: Vec<Key>,
    /// The first context, which changed nothing, is no more; it was inside the second.
    pub(crate) dropped: Option<(ContextId, ContextId)>,
    /// What these contexts see is reached in another way now.
    pub(crate) rescoped: Vec<ContextId>,
    /// These contexts' speculations were undone; why, if by another's end.
    pub(crate) undone: Vec<(ContextId, SpecId, Option<Fall>)>,
    /// What was changed in these intervals is undone.
    pub(crate) dead: Vec<IntervalId>,
    /// These contexts' speculations are permanent.
    pub(crate) committed: Vec<(ContextId, SpecId)>,
    /// These contexts' votes can't stand: something became final meanwhile that is in their way.
    pub(crate) clashing: Vec<(ContextId, SpecId)>,
    /// The process of this view is back from this speculation; true if its kernel holds nothing back that was written there.
    pub(crate) back: Option<(ViewId, SpecId, bool)>,
    /// Those of the undone ones that were held or voted for: nobody may be there any more who would notice.
    pub(crate) left_alone: BTreeSet<SpecId>,
    /// Kept until the views were told, so that nothing they may still read goes.
    pub(crate) jobs: Vec<Job>,
}

impl Aftermath {
    /// The held and the decided ones that were undone with this one.
    fn fallen_with(&self, spec: SpecId) -> Vec<SpecId> {
        self.left_alone.iter().copied().filter(|other| *other != spec).collect()
    }
}

type StateLock = Ordered<Mutex<State>>;

/// Everything undecided.
pub(crate) struct Coordinator {
    store: Arc<Store>,
    ops: Arc<Ops>,
    conflicts: Arc<Conflicts>,
    state: Arc<StateLock>,
    /// Rung at every decision.
    decided: Condvar,
    /// A job that was undone is run again or not, or one has voted or ended.
    attempted: Condvar,
    /// Operations hold it shared, decisions exclusively; it is never held while the disk is waited for.
    decisions: Ordered<RwLock<()>>,
    /// How many rounds are under way, and contexts kept from being changed: none more unless `decisions` is held exclusively.
    rounds: Arc<AtomicUsize>,
}

/// Reports what a context accesses.
struct ContextAccesses {
    conflicts: Arc<Conflicts>,
    joins: Joins,
    context: ContextId,
    /// Jobs that answer for what it sees: their commands see how it ends.
    seen_by: Vec<ContextId>,
    rounds: Arc<AtomicUsize>,
}

impl ContextAccesses {
    /// It is being decided: what it looks at now it sees after its commit.
    fn is_sealed(&self, context: ContextId) -> bool {
        self.rounds.load(Ordering::SeqCst) > 0 && self.joins.state.lock().graph.is_sealed(context)
    }
}

impl AccessLog for ContextAccesses {
    fn note(&self, key: AccessKey, how: Access, newer: Newer) {
        if !self.is_sealed(self.context) {
            self.conflicts.accessed(self.context, key.clone(), how, newer.any(), || self.joins.state.lock());
        }
        for outer in self.seen_by.iter().filter(|outer| !self.is_sealed(**outer)) {
            self.conflicts.accessed(*outer, key.clone(), Access::Read, newer.is_final, || self.joins.state.lock());
        }
    }

    fn meet(&self, key: &AccessKey, of: &[IntervalId]) -> Fault {
        self.joins.meet(self.context, key, of)
    }
}

/// Reports what processes outside every context change.
struct TrunkAccesses {
    store: Arc<Store>,
    conflicts: Arc<Conflicts>,
    state: Arc<StateLock>,
    rounds: Arc<AtomicUsize>,
}

impl AccessLog for TrunkAccesses {
    /// What is kept on disk has its conflicts there before what they are with.
    fn foresee(&self, changes: &[(AccessKey, Access)]) -> Result<(), Fault> {
        self.demand_unsealed(changes)?;
        let losers = changes.iter().flat_map(|(key, how)| self.conflicts.losers_to_trunk(key, *how));
        held::foresee(&self.store, &self.conflicts, &self.state, losers.collect())
    }

    fn note(&self, key: AccessKey, how: Access, _newer: Newer) {
        self.conflicts.accessed_on_trunk(&key, how);
    }

    fn meet(&self, _key: &AccessKey, _of: &[IntervalId]) -> Fault {
        Fault::new(FaultKind::Undecided, "trunk looks at nothing that is undecided")
    }
}

fn graph_fault(error: GraphError) -> Fault {
    let kind = match error {
        GraphError::Committed(_) | GraphError::Aborted(_) => FaultKind::Decided,
        GraphError::NotOwner(_) => FaultKind::AccessDenied,
        GraphError::Sealed(_) => FaultKind::Sealed,
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
            state: Arc::new(Ordered::mutex(Place::State, State::default())),
            decided: Condvar::new(),
            attempted: Condvar::new(),
            decisions: Ordered::rw_lock(Place::Decisions, ()),
            rounds: Arc::default(),
        };
        coordinator.restore()?;
        Ok(coordinator)
    }

    /// Runs an operation while nothing is decided. What it must read from the disk is read while nothing is held up by that, and
    /// it begins again.
    pub(crate) fn undisturbed<T>(&self, operation: impl Fn() -> Result<T, Fault>) -> Result<T, Fault> {
        let result = self.on_what_is_cached(&operation).unwrap_or_else(|| {
            let _shared = self.decisions.read();
            operation()
        });
        self.write_down_conflicts();
        result
    }

    /// Nothing if it has to read too much from the disk, or what it has to read can't be.
    fn on_what_is_cached<T>(&self, operation: impl Fn() -> Result<T, Fault>) -> Option<Result<T, Fault>> {
        for _ in 0..FETCHES_MAX {
            let (result, uncached) = {
                let _shared = self.decisions.read();
                cached_only(&operation)
            };
            match uncached.filter(|_| result.is_err()) {
                None => return Some(result),
                Some(uncached) => self.store.fetch(&uncached).ok()?,
            }
        }
        None
    }

    /// What trunk sees.
    pub(crate) fn trunk(&self) -> Scope {
        let (store, conflicts, state) = (self.store.clone(), self.conflicts.clone(), self.state.clone());
        let accesses = Arc::new(TrunkAccesses { store, conflicts, state, rounds: self.rounds.clone() });
        Scope { sight: Sight::trunk(), accesses: Some(accesses), over: Arc::default() }
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
        let (store, conflicts) = (self.store.clone(), self.conflicts.clone());
        let joins = Joins { store, conflicts, state: self.state.clone() };
        let accesses = ContextAccesses {
            conflicts: self.conflicts.clone(),
            joins,
            context: job.context,
            seen_by: state.answer_for(job),
            rounds: self.rounds.clone(),
        };
        Scope { sight: state.sight(job), accesses: Some(Arc::new(accesses)), over: job.over.clone() }
    }

    /// Starts a job's context and speculation, inside another context or on trunk.
    pub(crate) fn begin(
        &self,
        inside: Option<ContextId>,
        start: Beginning,
    ) -> Result<(SpecId, ContextId, Scope), Fault> {
        let Beginning { info, kind, on_read, own, restarts } = start;
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
        let on_read = match (outer, kind) {
            (Some(outer), _) if !outer.on_read.follows() => OnRead::Isolate,
            (_, Kind::Job) | (None, _) => on_read,
            (Some(Job { on_read: OnRead::Wait, .. }), _) => {
                let text = "a process can't speculate inside a job whose reads wait (--on-read wait)";
                return Err(Fault::new(FaultKind::Unsupported, text));
            }
            (Some(outer), _) => outer.on_read,
        };
        let (what, deepest) = match kind {
            Kind::Level => ("speculations", LEVELS_NESTING_MAX),
            Kind::Job | Kind::Segment { .. } => ("jobs", NESTING_MAX),
        };
        if inside.is_some_and(|context| state.graph.around(context).count() >= deepest) {
            return Err(Fault::new(FaultKind::Unsupported, format!("{what} nest {deepest} deep at most")));
        }
        let snapshot = match outer.and_then(|outer| outer.snapshot.clone()) {
            _ if on_read.follows() => None,
            Some(outer) => Some(outer),
            None => Some(Arc::new(self.store.take_snapshot().map_err(fault::store)?)),
        };
        let from = inside.and_then(|context| state.graph.current(context));
        let job = Job {
            spec,
            context,
            entry,
            info,
            since: job::now(),
            kind,
            restarts,
            no_checkpoint: None,
            probed: None,
            doomed: false,
            supervised: false,
            counted: None,
            on_read,
            snapshot,
            joined: BTreeMap::new(),
            owns: Vec::new(),
            parts: Specs::default(),
            replaces: None,
            marks_modified: false,
            state: SpecState::Running,
            stage: Stage::Runs,
            kept: false,
            recorded: false,
            votes: false,
            begun_during: state.last_round().max(outer.map_or(0, |outer| outer.begun_during)),
            bytes: Arc::default(),
            over: Arc::default(),
        };
        let sees = if on_read.follows() { Sees::Follows } else { Sees::Found };
        state.apply(&Event::Open { context, interval: first, from, sees }).map_err(graph_fault)?;
        state.apply(&Event::Speculate { context, interval: entry, spec }).map_err(graph_fault)?;
        self.conflicts.open(context, on_read.into());
        state.insert(job);
        if let Some(own) = own
            && let Err(fault) = self.own(&mut state, spec, own)
        {
            let abort = Event::Abort { owner: state.jobs[&spec].owner(), spec, code: 1, retry: false };
            self.carry_out_abort(&mut state, &abort)?;
            return Err(fault);
        }
        let scope = self.scope(&state, &state.jobs[&spec]);
        Ok((spec, context, scope))
    }

    /// A job becomes a further owner of another's speculation.
    fn own(&self, state: &mut State, spec: SpecId, other: SpecId) -> Result<(), Fault> {
        if is_planted(Planted::FurtherOwnerForgotten) {
            return Ok(());
        }
        let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
        let context = state.jobs[&spec].context;
        state.apply(&Event::CoOwn { context, interval, spec: other }).map_err(graph_fault)?;
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.owns.push(other);
        }
        // It falls with this one from now on.
        state.jobs.get(&state.part_of(other)).into_iter().for_each(|other| self.conflicts.outdated(other.context));
        Ok(())
    }

    /// Counts what a context writes.
    pub(crate) fn bytes_counter(&self, context: ContextId) -> Option<Arc<std::sync::atomic::AtomicU64>> {
        self.state.lock().of(context).map(|job| job.bytes.clone())
    }

    /// The contexts that one is inside of.
    pub(crate) fn around(&self, context: ContextId) -> BTreeSet<ContextId> {
        conflicts::Nesting::around(&*self.state.lock(), context)
    }

    /// A context has written over what others did to a file, which it had not seen. Outside of all contexts there is nobody to tell.
    pub(crate) fn wrote_over_others(&self, context: Option<ContextId>, ino: Ino) {
        if let Some(context) = context.filter(|_| !is_planted(Planted::OldPagesUnnoticed)) {
            self.conflicts.wrote_over_others(context, AccessKey::Inode(ino));
        }
    }

    /// Forgets what decided contexts accessed. Called in the background.
    pub(crate) fn sweep(&self) {
        self.conflicts.sweep(|| self.decisions.write());
    }
}
