//! Plays a history on a store as sessions and the coordinator do, and on the model.

use super::history::{Change, Step, pattern};
use super::model::{Job, Kept, Model};
use mojavefs::id::{Ino, IntervalId, SpecId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{FileKind, SetAttr, Time};
use mojavefs::protocol::{FallocateMode, RenameMode};
use mojavefs_faulty::{Faulty, PowerCut};
use mojavefs_server::ops::{Clock, NewFile, Ops, Scope, SetIds};
use mojavefs_server::store::{Held, Sight, Snapshot, Specs, Store, StoreError, StoreOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

pub(crate) const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

struct NoTime;

impl Clock for NoTime {
    fn now(&self) -> Time {
        Time::default()
    }
}

/// An undecided job, as the coordinator has it.
pub(super) struct Running {
    intervals: Vec<IntervalId>,
    /// Dropped when it is decided.
    snapshot: Option<Snapshot>,
}

/// How far a history came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// To its end.
    Done,
    /// The store has stopped, and says so.
    Stopped,
    /// The power was cut.
    Cut,
}

pub(crate) struct World {
    pub(super) place: Faulty,
    store: Option<Arc<Store>>,
    ops: Option<Ops>,
    pub(super) running: BTreeMap<usize, Running>,
    readers: Vec<Snapshot>,
    /// Jobs that could not be decided, and that their histories have left.
    left: BTreeSet<usize>,
    /// Steps are printed as they are made.
    is_traced: bool,
    /// It was open once: that there is a store is durable.
    pub(crate) has_opened: bool,
    /// What may be found. One of these, as a whole, if it is not known whether the last step happened.
    pub(crate) models: Vec<Model>,
}

pub(super) type Played = Result<(), Stop>;

/// A step after which nothing goes on.
pub(super) struct Stop;

pub(super) fn file_name(file: usize) -> [u8; 1] {
    [b'a' + file as u8]
}

/// Runs it; nothing if the power was cut in it.
fn unless_cut<T>(work: impl FnOnce() -> T) -> Option<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => Some(done),
        Err(thrown) if thrown.is::<PowerCut>() => None,
        Err(thrown) => resume_unwind(thrown),
    }
}

impl World {
    pub(crate) fn new(place: Faulty) -> Self {
        let is_traced = std::env::var_os("MOJAVEFS_CASE").is_some();
        let (running, readers, models) = (BTreeMap::new(), Vec::new(), vec![Model::new()]);
        World {
            place,
            store: None,
            ops: None,
            running,
            readers,
            left: BTreeSet::new(),
            has_opened: false,
            is_traced,
            models,
        }
    }

    pub(super) fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    pub(super) fn ops(&self) -> &Ops {
        self.ops.as_ref().expect("the store is open")
    }

    /// What is known, until something is not.
    pub(super) fn model(&mut self) -> &mut Model {
        self.models.first_mut().expect("there is one")
    }

    /// Opens the store and plays a history.
    pub(crate) fn play(&mut self, history: &[Step]) -> Ended {
        let played = unless_cut(|| {
            if self.open().is_err() {
                return Ended::Stopped;
            }
            for step in history {
                if self.step(step).is_err() {
                    return Ended::Stopped;
                }
            }
            Ended::Done
        });
        played.unwrap_or(Ended::Cut)
    }

    fn open(&mut self) -> Result<(), StoreError> {
        let store = Arc::new(Store::open(&self.place, OPTIONS)?);
        self.ops = Some(Ops::new(store.clone(), Arc::new(NoTime)));
        self.store = Some(store);
        self.has_opened = true;
        Ok(())
    }

    /// Closes the store; false if the power was cut meanwhile.
    pub(crate) fn close(&mut self) -> bool {
        unless_cut(|| {
            self.ops = None;
            self.readers.clear();
            self.running.clear();
            self.store = None;
        })
        .is_some()
    }

    fn sight(&self, who: Option<usize>) -> Sight {
        let Some(job) = who.map(|job| &self.running[&job]) else { return Sight::trunk() };
        let writer = *job.intervals.last().expect("a job has an interval");
        let mut sight = Sight { live: job.intervals.clone().into(), writer, ..Sight::trunk() };
        if let Some(snapshot) = &job.snapshot {
            sight.snapshot = snapshot.seq();
        }
        sight
    }

    pub(super) fn scope(&self, who: Option<usize>) -> Scope {
        Scope { sight: self.sight(who), accesses: None, over: Arc::default() }
    }

    fn step(&mut self, step: &Step) -> Played {
        if self.is_traced {
            println!("{step:?}");
        }
        match step {
            Step::Change(who, file, how) => {
                if !self.may_change(*who, *file, how) {
                    return Ok(());
                }
                let known = self.model().clone();
                self.model().change_perhaps(*who, *file, how);
                let done = self.change(*who, *file, how);
                if done.is_ok() {
                    self.models = vec![known];
                    self.model().change(*who, *file, how);
                }
                Ok(())
            }
            Step::Begin { job, isolated } => {
                drop(self.begin(*job, *isolated));
                Ok(())
            }
            Step::Enter(job) => {
                if let Some(interval) = self.running(*job).and_then(|_| self.store().next_id().ok()) {
                    self.running.get_mut(job).expect("it is there").intervals.push(IntervalId(interval));
                }
                Ok(())
            }
            Step::Reassign(job) => {
                self.reassign(*job);
                Ok(())
            }
            Step::Early(job) => {
                if let Some(running) = self.running(*job) {
                    drop(self.store().sync_early(&running.intervals));
                }
                Ok(())
            }
            Step::Commit(jobs) => self.commit(jobs),
            Step::Abort(job) => self.abort(*job),
            Step::Hold(job) => self.hold(*job),
            Step::Fsync(file) => {
                let found = self.ops().lookup(&Scope { ..self.scope(None) }, Ino::ROOT, &file_name(*file));
                match found.map(|found| self.ops().fsync(&self.scope(None), found.ino)) {
                    Ok(Ok(())) => self.model().synced(*file),
                    Ok(Err(_)) => self.model().sync_failed(),
                    Err(_) => {}
                }
                Ok(())
            }
            Step::Sync => {
                if self.store().sync().is_ok() {
                    self.model().all_synced();
                } else {
                    self.model().sync_failed();
                }
                Ok(())
            }
            Step::SyncLog => {
                drop(self.store().sync_log());
                Ok(())
            }
            Step::Reclaim => {
                drop(self.reclaim());
                Ok(())
            }
            Step::Snapshot => {
                self.readers.extend(self.store().take_snapshot().ok());
                Ok(())
            }
            Step::EndSnapshot => {
                self.readers.pop();
                Ok(())
            }
            Step::Restart => self.restart(),
        }
    }

    fn running(&self, job: usize) -> Option<&Running> {
        self.running.get(&job)
    }

    /// What a history would do is left out where something has failed and that was not foreseen: the coordinator would refuse
    /// it, or it would be work of a job that is over.
    fn may_change(&self, who: Option<usize>, file: usize, how: &Change) -> bool {
        let jobs = &self.models[0].jobs;
        let is_open = |job: usize| jobs.get(&job).is_some_and(|job| job.kept == Kept::No) && !self.left.contains(&job);
        let others = jobs.iter().filter(|(job, _)| Some(**job) != who);
        let is_free = |file: usize| !others.clone().any(|(_, job)| job.files.contains_key(&file));
        let target = if let Change::Rename(to) = how { *to } else { file };
        who.is_none_or(is_open) && is_free(file) && is_free(target)
    }

    pub(super) fn change(&self, who: Option<usize>, file: usize, how: &Change) -> Result<(), Fault> {
        let (scope, name) = (self.scope(who), file_name(file));
        let found = match self.ops().lookup(&scope, Ino::ROOT, &name) {
            Err(fault) if fault.kind == FaultKind::NotFound => None,
            found => Some(found?.ino),
        };
        let make = || match found {
            Some(ino) => Ok(ino),
            None => {
                let (kind, mode, umask, uid, gid, rdev) = (FileKind::Regular, 0o644, 0, 0, 0, 0);
                let new = NewFile { kind, mode, umask, uid, gid, rdev, target: b"" };
                self.ops().create(&scope, Ino::ROOT, &name, new).map(|made| made.ino)
            }
        };
        match (how, found) {
            (Change::Write { at, len, seed }, _) => {
                self.ops().write(&scope, make()?, (*at, false), &pattern(*at, *len, *seed), SetIds::Stay).map(drop)
            }
            (Change::Resize(size), _) => {
                let set = SetAttr { size: Some(*size), ..SetAttr::default() };
                self.ops().set_attr(&scope, make()?, &set, 0).map(drop)
            }
            (Change::Punch { at, len }, Some(ino)) => {
                self.ops().fallocate(&scope, ino, (*at, *len), FallocateMode::PunchHole, SetIds::Stay).map(drop)
            }
            (Change::Allocate { at, len, keep_size }, _) => self.allocate(&scope, make()?, *at..at + len, *keep_size),
            (Change::Remove, Some(_)) => self.ops().unlink(&scope, Ino::ROOT, &name).map(drop),
            (Change::Rename(to), Some(_)) => {
                let (from, to) = ((Ino::ROOT, &name[..]), (Ino::ROOT, &file_name(*to)[..]));
                self.ops().rename(&scope, from, to, RenameMode::Replace, (0, 0)).map(drop)
            }
            (_, None) => Ok(()),
        }
    }

    fn allocate(&self, scope: &Scope, ino: Ino, range: Range<u64>, keep_size: bool) -> Result<(), Fault> {
        let (mut at, mut new) = (range.start, Vec::new());
        let mut refused = None;
        while at < range.end && refused.is_none() {
            let step = self.ops().allocate(scope, ino, at..range.end)?;
            new.extend(step.new);
            (at, refused) = (step.until, step.refused);
        }
        if let Some(refused) = refused {
            new.iter().try_for_each(|blocks| self.ops().unallocate(scope, ino, blocks))?;
            return Err(refused);
        }
        let (mode, len) = (FallocateMode::Allocate { keep_size }, range.end - range.start);
        self.ops().fallocate(scope, ino, (range.start, len), mode, SetIds::Stay).map(drop)
    }

    fn begin(&mut self, job: usize, isolated: bool) -> Result<(), StoreError> {
        if self.running.contains_key(&job) {
            self.left.insert(job);
            return Ok(());
        }
        self.left.remove(&job);
        let spec = self.store().next_spec()?;
        let interval = IntervalId(self.store().next_id()?);
        let snapshot = if isolated { Some(self.store().take_snapshot()?) } else { None };
        self.running.insert(job, Running { intervals: vec![interval], snapshot });
        self.model().jobs.insert(job, Job { spec, kept: Kept::No, files: BTreeMap::new() });
        Ok(())
    }

    fn reassign(&mut self, job: usize) {
        let Some([.., to, from]) = self.running(job).map(|running| &running.intervals[..]) else { return };
        let (from, to) = (*from, *to);
        let handed = self.store().changes(from, None, usize::MAX);
        let handed = handed.and_then(|keys| self.store().reassign(from, to, &keys));
        // After an error the job has both.
        if handed.is_ok() {
            self.running.get_mut(&job).expect("it is there").intervals.pop();
        }
    }

    pub(super) fn commit(&mut self, jobs: &[usize]) -> Played {
        let jobs: Vec<usize> = jobs.iter().copied().filter(|job| self.running.contains_key(job)).collect();
        let intervals: Vec<IntervalId> = jobs.iter().flat_map(|job| self.running[job].intervals.clone()).collect();
        if self.store().sync_early(&intervals).is_err() {
            let undecided = |job: &usize| self.models[0].jobs[job].kept == Kept::No;
            let refused: Vec<usize> = jobs.into_iter().filter(undecided).collect();
            return refused.into_iter().try_for_each(|job| self.abort(job));
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let model = self.model().clone();
        let specs: Specs = jobs.iter().map(|job| model.jobs[job].spec).collect();
        let held: Vec<SpecId> =
            jobs.iter().filter(|job| model.jobs[*job].kept != Kept::No).map(|job| model.jobs[job].spec).collect();
        let mut after = model.clone();
        after.commit(&jobs);
        // Until it is known.
        self.models.push(after.clone());
        match self.store().commit(&intervals, &specs, &held, &[]) {
            Ok(_) => {
                self.models = vec![after];
                self.running.retain(|job, _| !jobs.contains(job));
                Ok(())
            }
            Err(StoreError::NotCommitted(_)) => {
                self.models = vec![model];
                // What is on record stays undecided.
                for job in jobs {
                    if self.model().jobs[&job].kept == Kept::No {
                        self.abort(job)?;
                    }
                }
                Ok(())
            }
            Err(_) => Err(Stop),
        }
    }

    pub(super) fn abort(&mut self, job: usize) -> Played {
        let Some(running) = self.running(job) else { return Ok(()) };
        let intervals = running.intervals.clone();
        let (spec, kept) = (self.model().jobs[&job].spec, self.model().jobs[&job].kept);
        if kept != Kept::No {
            self.model().jobs.get_mut(&job).expect("it is there").kept = Kept::Perhaps;
            if self.store().release(&[spec]).is_err() {
                return Ok(());
            }
        }
        let _ = self.store().abort(&intervals, &[]);
        self.running.remove(&job);
        self.model().abort(job);
        Ok(())
    }

    fn hold(&mut self, job: usize) -> Played {
        let Some(running) = self.running(job) else { return Ok(()) };
        let snapshot = running.snapshot.as_ref().map_or(mojavefs::id::Seq::NOW, Snapshot::seq);
        let (spec, intervals) = (self.models[0].jobs[&job].spec, running.intervals.clone());
        let held = Held { spec, intervals, snapshot, payload: Vec::new(), parts: Specs::default() };
        let before = self.model().jobs[&job].kept;
        let set = |world: &mut Self, kept| world.model().jobs.get_mut(&job).expect("it is there").kept = kept;
        set(self, if before == Kept::Yes { Kept::Yes } else { Kept::Perhaps });
        match self.store().hold(&held) {
            Ok(()) => set(self, Kept::Yes),
            // Nothing goes on.
            Err(StoreError::Stopped(_)) => return Err(Stop),
            Err(_) => set(self, before),
        }
        Ok(())
    }

    /// All that can be done in the background.
    pub(super) fn reclaim(&self) -> Result<(), StoreError> {
        loop {
            let given_back = self.store().reclaim_space()?;
            if !self.store().reclaim(&|_| false)?.more && given_back == 0 && !self.store().has_unused()? {
                return Ok(());
            }
        }
    }

    fn restart(&mut self) -> Played {
        if self.has_stopped() {
            return Err(Stop);
        }
        self.ops = None;
        self.readers.clear();
        self.store = None;
        self.take_up().map_err(|why| {
            // That it can't be opened while the disk fails is no damage.
            println!("it can't be opened again: {why}");
            Stop
        })
    }

    /// Opens the store, and takes up what is held, as the coordinator does.
    pub(super) fn take_up(&mut self) -> Result<(), String> {
        self.open().map_err(|error| format!("it can't be opened: {error}"))?;
        let held = self.store().held().map_err(|error| format!("what is held: {error}"))?;
        self.model().restart(|spec| held.iter().any(|held| held.spec == spec));
        self.running.clear();
        for (job, known) in self.model().jobs.clone() {
            let Some(held) = held.iter().find(|held| held.spec == known.spec) else {
                return Err(format!("speculation {} is not held any more", known.spec));
            };
            let isolated = held.snapshot != mojavefs::id::Seq::NOW;
            let snapshot = isolated.then(|| self.store().adopt_snapshot(held.snapshot));
            self.running.insert(job, Running { intervals: held.intervals.clone(), snapshot });
        }
        match held.iter().find(|held| !self.models[0].jobs.values().any(|job| job.spec == held.spec)) {
            Some(held) => Err(format!("speculation {} is held, and should not be", held.spec)),
            None => Ok(()),
        }
    }
}
