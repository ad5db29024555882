//! Held speculations: owned by the store, they survive every process and every restart.

use super::conflicts::{Clash, Conflicts, Standing};
use super::rounds::Sealed;
use super::{Coordinator, Job, State, StateLock, graph_fault};
use crate::access::AccessKey;
use crate::limits::GATHER_TURNS_MAX;
use crate::ops::fault;
use crate::store::{Held, Rebased, Store, StoreError};
use crate::telling::Telling;
use mojavefs::graph::Event;
use mojavefs::id::{ContextId, Ino, IntervalId, Seq, SpecId};
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{JobInfo, OnRead, Outcome, SpecState};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the coordinator keeps of a held speculation beside its intervals and snapshot.
#[derive(Serialize, Deserialize)]
pub(super) struct Payload {
    pub(super) context: ContextId,
    pub(super) entry: IntervalId,
    /// Its directories stand at the end of the record: older ones have none.
    #[serde(with = "without_dirs")]
    pub(super) info: JobInfo,
    pub(super) since: i64,
    pub(super) bytes: u64,
    /// The undecided numbers around it: it falls with them. The last is one of the context that it is inside of.
    pub(super) outer: Vec<IntervalId>,
    pub(super) standing: Standing,
    pub(super) reads: Vec<u64>,
    pub(super) on_read: OnRead,
    pub(super) writer: IntervalId,
    /// What it depends on by its own reads, its further owners, and what it owns beside its own: it falls with them.
    pub(super) joined: BTreeMap<SpecId, AccessKey>,
    pub(super) owns: Vec<SpecId>,
    /// Its owner has voted to commit.
    pub(super) voted: bool,
}

/// Who runs a job and what, as records of every age have it.
mod without_dirs {
    use mojavefs::protocol::JobInfo;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(info: &JobInfo, serializer: S) -> Result<S::Ok, S::Error> {
        (info.uid, info.pid, &info.command).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<JobInfo, D::Error> {
        let (uid, pid, command) = Deserialize::deserialize(deserializer)?;
        Ok(JobInfo { uid, pid, command, dirs: Vec::new() })
    }
}

/// What a record of a job is to leave out, because it is final by then.
#[derive(Default)]
struct Settled<'a> {
    intervals: &'a [IntervalId],
    specs: &'a [SpecId],
}

fn record(state: &State, job: &Job, voted: bool, conflicts: &Conflicts) -> Result<Held, StoreError> {
    let recorded = record_with((state, job), &Settled::default(), voted, conflicts, conflicts.of(job.context));
    recorded.map(|rebased| rebased.held)
}

fn record_with(
    (state, job): (&State, &Job),
    settled: &Settled<'_>,
    voted: bool,
    conflicts: &Conflicts,
    standing: Standing,
) -> Result<Rebased, StoreError> {
    let graph = &state.graph;
    let found = graph.found_by(job.context);
    let (ended, mut outer): (Vec<_>, Vec<_>) = found.into_iter().partition(|number| settled.intervals.contains(number));
    // What has become part of another one is decided, and taken up again, with that.
    let owns: BTreeSet<SpecId> = job.owns.iter().map(|spec| state.part_of(*spec)).collect();
    let joined = job.joined.iter().map(|(spec, met)| (state.part_of(*spec), met.key.clone()));
    // It falls with its further owners, too, and with those of what is part of it.
    let further = state
        .all_parts(job.spec)
        .into_iter()
        .flat_map(|part| graph.owners(part))
        .filter_map(|(owner, _)| state.of(owner.context()));
    let further = further.map(|owner| (state.part_of(owner.spec), AccessKey::Inode(Ino::ROOT)));
    let joined: BTreeMap<SpecId, AccessKey> = further.chain(joined).collect();
    let is_other = |spec: &SpecId| *spec != job.spec && !settled.specs.contains(spec);
    // An isolated one has found numbers of those, too, that the one around it depends on.
    outer.sort_by_key(|number| graph.writer_of(*number) == graph.outer(job.context));
    let stays_with_it = job.snapshot.is_some() && !ended.is_empty();
    let payload = Payload {
        context: job.context,
        entry: job.entry,
        info: job.info.clone(),
        since: job.since,
        bytes: job.bytes.load(Ordering::Relaxed),
        outer,
        standing,
        reads: conflicts.reads_of(job.context),
        on_read: job.on_read,
        writer: graph.writer(job.context).unwrap_or(job.entry),
        joined: joined.into_iter().filter(|(spec, _)| is_other(spec)).collect(),
        owns: owns.into_iter().filter(is_other).collect(),
        voted,
    };
    let payload = codec::encode(&(payload, conflicts.looming(job.context), &job.info.dirs))
        .map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?;
    let (intervals, parts) = (graph.carried_by(job.context), job.parts.clone());
    let held = Held { spec: job.spec, intervals, snapshot: job.horizon(), payload, parts };
    Ok(Rebased { held, stays_with_it })
}

/// These will have conflicts. No other record than those of recorded ones is needed: they are written, to be on disk before what
/// is written next.
pub(super) fn foresee(
    store: &Store,
    conflicts: &Conflicts,
    state: &StateLock,
    losers: Vec<(ContextId, Clash)>,
) -> Result<(), Fault> {
    if losers.is_empty() {
        return Ok(());
    }
    let state = state.lock();
    let mut news = BTreeSet::new();
    let recorded = |loser: &ContextId| state.of(*loser).filter(|job| job.recorded);
    for job in losers.iter().filter_map(|(loser, _)| recorded(loser)) {
        state.demand_unconcerned(job, conflicts)?;
    }
    for (loser, clash) in losers {
        if recorded(&loser).is_some() && conflicts.foresee(loser, clash) {
            news.insert(loser);
        }
    }
    for (loser, spec) in news.iter().filter_map(|loser| Some((*loser, state.of(*loser)?.spec))) {
        write_down(&state, spec, store, conflicts).inspect_err(|_| conflicts.outdated(loser))?;
    }
    Ok(())
}

/// A recorded job is about to depend on more, or to change something in an interval of which its record knows nothing: that is
/// written down before, to be on disk before what is written next.
pub(super) fn write_down(state: &State, spec: SpecId, store: &Store, conflicts: &Conflicts) -> Result<(), Fault> {
    let Some(job) = state.jobs.get(&spec).filter(|job| job.recorded) else { return Ok(()) };
    state.demand_unconcerned(job, conflicts)?;
    let voted = job.votes || job.state == SpecState::Voted;
    let held = record(state, job, voted, conflicts).map_err(fault::store)?;
    store.note_held(&held).map_err(fault::store)
}

/// A hold or a vote could not be written down. Where the store has stopped, it may be there all the same.
fn not_recorded(spec: SpecId, error: StoreError) -> Fault {
    if matches!(error, StoreError::Stopped(_)) {
        let text = format!("{error}; whether speculation {spec} is held is known when the store was opened again");
        return Fault::new(FaultKind::InDoubt, text);
    }
    fault::store(error)
}

impl Coordinator {
    /// The store takes over as the owner of a speculation. Blocks for the disk; nobody else is held up.
    pub(crate) fn hold(&self, spec: SpecId, uid: u32, telling: &mut Telling<'_>) -> Result<Outcome, Fault> {
        let (held, was_recorded) = self.gathered((spec, uid), telling, |state| {
            let job = state.job(spec, uid)?;
            if job.state == SpecState::Voted {
                return Err(Fault::new(FaultKind::Decided, format!("speculation {spec} is voted for already")));
            }
            job.must_be_there()?;
            self.note(state, spec, false)
        })?;
        let noted = telling.apart(|| self.store.make_held_durable(&held));
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        self.noted(&mut state, spec, (noted, was_recorded))?;
        let already = match state.job(spec, uid) {
            Ok(job) if job.state == SpecState::Voted => {
                return Err(Fault::new(FaultKind::Decided, format!("speculation {spec} is voted for already")));
            }
            job => job?.kept,
        };
        state.demand_unsealed(spec)?;
        let changes = state.changes(&state.jobs[&spec], &self.store);
        if !already {
            state.take_over(spec)?;
        }
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.state = SpecState::Held;
            job.kept = true;
        }
        self.tell_decided();
        Ok(Outcome::of(spec, SpecState::Held, changes))
    }

    /// Writes to disk what a job has written, and does something to it while nothing of that is left to write: at the third time the
    /// job's changes wait meanwhile.
    pub(super) fn gathered<T>(
        &self,
        (spec, uid): (SpecId, u32),
        telling: &mut Telling<'_>,
        then: impl Fn(&mut State) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        for turn in 1.. {
            let (context, numbers) = {
                let state = self.state.lock();
                let context = state.job(spec, uid)?.context;
                (context, state.graph.carried_by(context))
            };
            let stopped = (turn == GATHER_TURNS_MAX).then(|| self.stop_changes(spec, context));
            telling.apart(|| self.store.write_out_content(&numbers)).map_err(fault::store)?;
            let _exclusive = self.decisions.write();
            let mut state = self.state.lock();
            let numbers = state.graph.carried_by(state.job(spec, uid)?.context);
            if self.store.is_written_out(&numbers) || stopped.is_some() {
                return then(&mut state);
            }
        }
        unreachable!("there are only so many turns")
    }

    /// Writes down that a job is held, or voted for; whether there was a record of it before. What it stands for is on disk.
    pub(super) fn note(&self, state: &mut State, spec: SpecId, voted: bool) -> Result<(Held, bool), Fault> {
        state.demand_unsealed(spec)?;
        let job = &state.jobs[&spec];
        if !is_planted(Planted::RecordBesideTheRound) {
            state.demand_unconcerned(job, &self.conflicts)?;
        }
        let is_before = |round: &&Sealed| job.snapshot.is_some() && round.is_before(job);
        if let Some(round) = state.rounds.iter().find(is_before).filter(|_| !is_planted(Planted::HoldBeforeThePlace)) {
            return Err(round.fault());
        }
        let held = record(state, job, voted, &self.conflicts).map_err(fault::store)?;
        self.store.note_held(&held).map_err(|error| not_recorded(spec, error))?;
        let was_recorded = job.recorded;
        state.jobs.entry(spec).and_modify(|job| (job.recorded, job.votes) = (true, voted));
        Ok((held, was_recorded))
    }

    /// What was written down is durable, or not.
    pub(super) fn noted(
        &self,
        state: &mut State,
        spec: SpecId,
        (result, was_recorded): (Result<(), StoreError>, bool),
    ) -> Result<(), Fault> {
        result.map_err(|error| {
            state.jobs.entry(spec).and_modify(|job| job.recorded = was_recorded);
            not_recorded(spec, error)
        })
    }

    /// Conflicts of held speculations survive a restart, too: they are written down, to be on disk before what is written next. No
    /// lock is held.
    pub(crate) fn write_down_conflicts(&self) {
        for context in self.conflicts.take_news() {
            let state = self.state.lock();
            let Some(spec) = state.of(context).map(|job| job.spec) else { continue };
            match write_down(&state, spec, &self.store, &self.conflicts) {
                Ok(()) => {}
                // Once the round has ended that its record has to do with.
                Err(fault) if fault.kind == FaultKind::Sealed => self.conflicts.outdated(context),
                Err(fault) => tracing::error!("writing down a conflict of speculation {spec}: {fault}"),
            }
        }
    }

    /// Writes down again what a held or voted speculation has become, after a view of it closed. Blocks for the disk.
    pub(crate) fn hold_again(&self, spec: SpecId, telling: &mut Telling<'_>) -> Result<(), Fault> {
        if self.is_held(spec) {
            return self.hold(spec, 0, telling).map(drop);
        }
        if !self.state.lock().jobs.get(&spec).is_some_and(|job| job.recorded) {
            return Ok(());
        }
        let voted = |state: &State| state.jobs.get(&spec).is_some_and(|job| job.state == SpecState::Voted);
        let (held, was_recorded) = self.gathered((spec, 0), telling, |state| self.note(state, spec, voted(state)))?;
        let noted = telling.apart(|| self.store.make_held_durable(&held));
        let mut state = self.state.lock();
        state.jobs.entry(spec).and_modify(|job| job.votes = false);
        self.noted(&mut state, spec, (noted, was_recorded))
    }
}

impl State {
    /// The store owns what a job has owned.
    pub(super) fn take_over(&mut self, spec: SpecId) -> Result<(), Fault> {
        let Some(job) = self.jobs.get(&spec) else { return Ok(()) };
        let context = job.context;
        for spec in job.owns.iter().copied().chain([spec]).collect::<Vec<_>>() {
            self.apply(&Event::Hold { context, spec }).map_err(graph_fault)?;
        }
        Ok(())
    }

    /// The records of held jobs that see these intervals, or lose by their becoming final, as they will be once those are
    /// final.
    pub(super) fn rebased_records(
        &self,
        intervals: &[IntervalId],
        specs: &[SpecId],
        (conflicts, mut losers): (&Conflicts, HashMap<ContextId, Standing>),
    ) -> Result<Vec<Rebased>, StoreError> {
        let settled = Settled { intervals, specs };
        let based = self.based_on(intervals);
        let recorded = self.jobs.values().filter(|job| job.recorded);
        let concerned: Vec<&Job> = recorded.filter(|job| job.is_concerned(specs, &based, &losers)).collect();
        let record = |job: &Job| {
            let standing = losers.remove(&job.context).unwrap_or_else(|| conflicts.of(job.context));
            record_with((self, job), &settled, job.state == SpecState::Voted, conflicts, standing)
        };
        concerned.into_iter().map(record).collect()
    }

    /// What depended on these speculations, which are final at `seq` now, is based on what is final then; `based` are those
    /// that built on them, and whether they stay with what they found there.
    pub(super) fn rebase(
        &mut self,
        based: &BTreeMap<SpecId, bool>,
        specs: &[SpecId],
        store: &Store,
        seq: Seq,
    ) -> Vec<ContextId> {
        let mut rebased = Vec::new();
        for job in self.jobs.values_mut().filter(|job| job.builds_on(specs) || based.contains_key(&job.spec)) {
            if based.get(&job.spec) == Some(&true) {
                job.snapshot = Some(Arc::new(store.adopt_snapshot(seq)));
            }
            job.joined.retain(|spec, _| !specs.contains(spec));
            job.owns.retain(|spec| !specs.contains(spec));
            rebased.push(job.context);
        }
        rebased
    }
}

#[cfg(test)]
mod tests {
    use super::super::Beginning;
    use super::*;
    use crate::access::Access;
    use crate::ops::{Ops, Scope, SystemClock};
    use crate::store::engine::Directory;
    use crate::store::{Newer, StoreOptions};
    use mojavefs::id::Ino;
    use tempfile::TempDir;

    const FILE: AccessKey = AccessKey::Inode(Ino(1000));

    fn coordinator() -> (Coordinator, TempDir) {
        let dir = TempDir::new().expect("a directory for the store");
        let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
        let store = Arc::new(Store::open(&Directory::at(dir.path()), options).expect("the store opens"));
        let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
        (Coordinator::open(store, ops).expect("nothing is held"), dir)
    }

    /// A job that has used the file.
    fn job(coordinator: &Coordinator, how: Access) -> SpecId {
        let beginning = Beginning::job(JobInfo::default(), OnRead::Isolate);
        let (spec, _, scope) = coordinator.begin(None, beginning).expect("a job");
        accesses(&scope, |accesses| accesses.note(FILE, how, Newer::default()));
        spec
    }

    fn accesses(scope: &Scope, call: impl FnOnce(&dyn crate::access::AccessLog)) {
        call(scope.accesses.as_deref().expect("uses are reported"));
    }

    /// What a restart would find of the conflicts of what is held.
    fn written_down(coordinator: &Coordinator) -> Vec<AccessKey> {
        let held = coordinator.store.held().expect("the records").pop().expect("one is held");
        let (payload, _) = Payload::decode(&held.payload).expect("a record");
        payload.standing.clashes.into_keys().collect()
    }

    #[test]
    fn a_conflict_with_trunk_is_on_disk_before_the_change() {
        let (coordinator, _dir) = coordinator();
        let held = job(&coordinator, Access::Read);
        coordinator.hold(held, 0, &mut Telling::nobody()).expect("a hold");
        assert_eq!(written_down(&coordinator), []);
        accesses(&coordinator.trunk(), |trunk| trunk.foresee(&[(FILE, Access::Write)]).expect("a write"));
        assert_eq!(written_down(&coordinator), [FILE]);
    }

    #[test]
    fn a_conflict_with_a_commit_is_on_disk_with_it() {
        let (coordinator, _dir) = coordinator();
        let held = job(&coordinator, Access::Read);
        coordinator.hold(held, 0, &mut Telling::nobody()).expect("a hold");
        let winner = job(&coordinator, Access::Write);
        assert_eq!(written_down(&coordinator), []);
        coordinator.commit(winner, 0, &[], &mut Telling::nobody()).expect("a commit");
        assert_eq!(written_down(&coordinator), [FILE]);
    }

    #[test]
    fn a_hold_of_which_a_stopped_store_does_not_know_is_in_doubt_and_any_other_failure_is_not() {
        let kind = |error| not_recorded(SpecId(1), error).kind;
        assert_eq!(kind(StoreError::Stopped("the disk failed".into())), FaultKind::InDoubt);
        assert_eq!(kind(StoreError::NoSpace("full".into())), FaultKind::NoSpace);
        assert_eq!(kind(StoreError::Records("failed".into())), FaultKind::Io);
    }
}
