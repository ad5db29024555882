//! Joining: what a context sees of others' undecided work, how it becomes part of it, and why it fell with it (rules 2 and 5
//! of the interval graph).

use super::conflicts::Conflicts;
use super::held::write_down;
use super::job::{Kind, Met};
use super::paths::{describe, join, path_of};
use super::{Coordinator, Job, State, StateLock, graph_fault};
use crate::access::AccessKey;
use crate::limits::{DOOM_TIME_MAX, PROBE_TIME, WAIT_NOTED_TIME};
use crate::ops::fault;
use crate::store::{Sight, Store};
use mojavefs::graph::{Cause, Effect, Event, Resume, Seen};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::WHY_LINKS_MAX;
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Back, Fall, Joined, OnRead, SpecState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The way from an operation to the graph.
pub(super) struct Joins {
    pub(super) store: Arc<Store>,
    pub(super) conflicts: Arc<Conflicts>,
    pub(super) state: Arc<StateLock>,
}

impl Joins {
    /// A context has met versions of undecided intervals that it does not see, or that are later than its own. The caller
    /// keeps decisions from happening meanwhile.
    pub(super) fn meet(&self, context: ContextId, key: &AccessKey, of: &[IntervalId]) -> Fault {
        self.try_meet(context, key, of).err().unwrap_or_else(|| Fault::new(FaultKind::Again, "look again"))
    }

    fn try_meet(&self, context: ContextId, key: &AccessKey, of: &[IntervalId]) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let me = state.job_of(context)?;
        let (spec, on_read) = (me.spec, me.on_read);
        let mut back = None;
        for interval in of {
            // One that was decided since the version was read is not met any more.
            let Some(them) = state.writer_of(*interval) else { continue };
            if them.spec == spec || !on_read.meets() && state.under(context).contains(&them.context) {
                continue;
            }
            if them.must_be_probed() {
                let level = (them.spec, them.context);
                state.to_probe.push(level);
                return Err(Fault::new(FaultKind::Again, "whether its owner lives is not known"));
            }
            match on_read {
                OnRead::Join => self.join(state, spec, them.spec, key, &mut back)?,
                OnRead::Wait => {
                    let (other, on) = (them.spec, state.read_waits_for(spec, them.spec));
                    if state.waits_in_vain(&state.jobs[&spec], on) || is_planted(Planted::JoinInsteadOfWaiting) {
                        self.join(state, spec, other, key, &mut back)?;
                        continue;
                    }
                    state.now_waits(spec, [on], Instant::now() + WAIT_NOTED_TIME);
                    let text = format!("this is undecided work of speculation {other}");
                    return Err(Fault::new(FaultKind::Undecided, text));
                }
                _ => {
                    let text = format!("this is undecided work of speculation {}; try again later", them.spec);
                    return Err(Fault::new(FaultKind::Busy, text));
                }
            }
        }
        match state.graph.writer(context) {
            Some(writer) if of.iter().any(|number| *number > writer) => self.number(state, spec, writer),
            _ => Ok(()),
        }
    }

    /// What a job changes from now on sorts above what it has seen. Its last number was `before`.
    fn number(&self, state: &mut State, spec: SpecId, before: IntervalId) -> Result<(), Fault> {
        let context = state.jobs[&spec].context;
        let number = IntervalId(self.store.next_id().map_err(fault::store)?);
        state.apply(&Event::Number { context, number }).map_err(graph_fault)?;
        let written = write_down(state, spec, &self.store, &self.conflicts);
        if written.is_err() {
            for event in [Event::Number { context, number: before }, Event::Discard { number }] {
                state.apply(&event).map_err(graph_fault)?;
            }
        }
        written
    }

    /// A job becomes part of another by a read. `back` is where it goes back to if that one falls, once that is known: all that a read
    /// meets at once leads back to the same.
    fn join(
        &self,
        state: &mut State,
        spec: SpecId,
        other: SpecId,
        key: &AccessKey,
        back: &mut Option<Back>,
    ) -> Result<(), Fault> {
        let (context, theirs) = (state.jobs[&spec].context, state.jobs[&other].context);
        let Some(of) = state.graph.current(theirs) else { return Ok(()) };
        let known = state.graph.current(context).is_some_and(|mine| state.graph.builds_on(mine, of));
        if known || is_planted(Planted::DeliverWithoutJoining) {
            return Ok(());
        }
        let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
        if back.is_none() {
            *back = state.jobs.get_mut(&spec).and_then(Job::goes_back);
        }
        let back = back.clone().ok_or_else(|| {
            let text = format!("this is undecided work of speculation {other}: where to go back?");
            Fault::new(FaultKind::Checkpoint, text)
        })?;
        let other = state.part_of(other);
        if let Some(me) = state.jobs.get_mut(&spec).filter(|me| !me.joined.contains_key(&other)) {
            me.joined.insert(other, Met { key: key.clone(), back });
            if let Err(fault) = write_down(state, spec, &self.store, &self.conflicts) {
                state.jobs.entry(spec).and_modify(|me| drop(me.joined.remove(&other)));
                return Err(fault);
            }
        }
        // A context goes back to its start; one that could go back to this read has just begun.
        let read = Event::Read { context, of, interval, resume: Resume::Start };
        state.apply(&read).map(drop).map_err(graph_fault)
    }
}

impl Job {
    /// It is a level of a process that may have died since it was last asked: a process whose death can be seen has nothing
    /// undecided that could be.
    fn must_be_probed(&self) -> bool {
        self.kind == Kind::Level && self.probed.is_none_or(|at| at.elapsed() > PROBE_TIME)
    }
}

impl State {
    /// The contexts that one builds on, itself included.
    pub(super) fn under(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.graph.current(context).map(|current| self.graph.contexts_under(current)).unwrap_or_default()
    }

    /// What a job sees.
    pub(super) fn sight(&self, job: &Job) -> Sight {
        let nothing = || Seen { numbers: Vec::new(), missed: Vec::new(), writer: job.entry };
        let Seen { mut numbers, missed, writer } = self.graph.seen_by(job.context).unwrap_or_else(nothing);
        if is_planted(Planted::DeliverWithoutJoining) {
            numbers.extend(self.jobs.values().flat_map(|job| self.graph.carried_by(job.context)));
            numbers.sort_unstable();
            numbers.dedup();
        }
        let (live, missed) = (numbers.into(), missed.into());
        Sight { snapshot: job.horizon(), live, missed, writer, meets: job.on_read.meets() }
    }

    /// The undecided job whose changes carry this number.
    fn writer_of(&self, number: IntervalId) -> Option<&Job> {
        self.graph.writer_of(number).and_then(|context| self.of(context))
    }

    /// The undecided speculations that a vote waits for, other than its own.
    pub(super) fn open_under(&self, job: &Job) -> Vec<SpecId> {
        let Some(current) = self.graph.current(job.context) else { return Vec::new() };
        let open = self.graph.open_under(current).into_iter().map(|spec| self.part_of(spec)).collect::<BTreeSet<_>>();
        // Its own is open still if another owner has not voted.
        let owners = |spec| match spec == job.spec {
            true => self.graph.owners(spec).into_iter().filter(|(_, voted)| !voted).collect(),
            false => Vec::new(),
        };
        let others = |spec: SpecId| {
            let owners = owners(spec).into_iter().filter_map(|(owner, _)| self.of(owner.context())).map(|job| job.spec);
            let owners = owners.filter(|owner| *owner != job.spec);
            owners.chain((spec != job.spec).then_some(spec)).collect::<Vec<_>>()
        };
        open.into_iter().flat_map(others).collect()
    }
}

impl State {
    /// Whose work a job has read itself, or by what has become part of it.
    fn read_by(&self, job: &Job) -> BTreeSet<SpecId> {
        let parts = self.inner(job).filter(|part| part.state == SpecState::Voted || part.is_segment());
        let inside = parts.flat_map(|part| self.read_by(part));
        job.joined.keys().copied().chain(inside.collect::<Vec<_>>()).collect()
    }
}

impl Coordinator {
    /// Why a speculation depends on another, for people.
    pub(super) fn joined(&self, sight: &Sight, spec: SpecId, met: &Met) -> Joined {
        let (path, what) = self.named_key(sight, &met.key);
        Joined { spec, path, what, back: Some(met.back.clone()) }
    }

    /// The path of an object, and what of it.
    pub(crate) fn named_key(&self, sight: &Sight, key: &AccessKey) -> (Vec<u8>, String) {
        let (ino, name, what) = describe(key);
        let path = path_of(&self.store, sight, ino).ok().flatten();
        let path = path.or_else(|| path_of(&self.store, &Sight::trunk(), ino).ok().flatten());
        let path = path.unwrap_or_else(|| format!("(inode {ino})").into_bytes());
        let path = name.map_or_else(|| path.clone(), |name| join(&path, name));
        (path, what.to_owned())
    }

    /// What to tell those that fell by an event, of which these are the effects, but are not its subject. Their jobs are
    /// there still.
    pub(super) fn falls(&self, state: &State, effects: &[Effect]) -> BTreeMap<SpecId, Fall> {
        let mut falls = BTreeMap::new();
        let undone = effects.iter().flat_map(|effect| match effect {
            Effect::Dead { specs, .. } => &specs[..],
            _ => &[],
        });
        let undone: BTreeSet<SpecId> = undone.map(|spec| state.whole(*spec)).collect();
        for effect in effects {
            let Effect::Dead { specs, numbers, cause, .. } = effect else { continue };
            let (Cause::Aborted { spec: root, .. } | Cause::OwnerGone { spec: root }) = *cause;
            // What they saw of each other is what names their files.
            let sight = Sight { live: numbers.clone().into(), ..Sight::trunk() };
            for spec in specs.iter().filter(|spec| **spec != root) {
                let (Some(job), Some(first)) = (state.jobs.get(spec), state.jobs.get(&root)) else { continue };
                let (chain, under) = self.chain(state, &sight, job, root);
                let running = |met: &SpecId| state.jobs.get(met).is_some_and(|job| !job.kept);
                let met = under.into_iter().map(|met| state.part_of(met));
                // A part of a job goes on in the midst of it: whoever waits for the job would wait for that, too.
                let left = state.around(*spec);
                let goes_on = job.is_segment() && !specs.contains(&state.whole(*spec));
                let is_older = |met: &SpecId| state.attempts.is_older(*met, *spec);
                let is_met =
                    |met: &SpecId| !specs.contains(met) && !left.contains(met) && running(met) && is_older(met);
                let met = met.filter(|met| !goes_on && is_met(met)).collect();
                let own = state.whole(*spec);
                let sources = state.read_by(job).into_iter().filter(|read| undone.contains(read) && *read != own);
                let sources = sources.filter(|read| !left.contains(read)).collect();
                falls.insert(*spec, Fall { root, info: first.info.clone(), chain, met, sources });
            }
        }
        falls
    }

    /// The shortest way by which a job depends on a speculation, and all that it depends on.
    fn chain(&self, state: &State, sight: &Sight, job: &Job, root: SpecId) -> (Vec<Joined>, Vec<SpecId>) {
        let mut came_from: BTreeMap<SpecId, SpecId> = BTreeMap::new();
        let mut todo = std::collections::VecDeque::from([job.spec]);
        while let Some(at) = todo.pop_front() {
            let Some(next) = state.jobs.get(&at) else { continue };
            let folded = state.inner(next).filter(|job| job.state == SpecState::Voted || job.is_segment());
            let folded: Vec<SpecId> = folded.map(|job| job.spec).collect();
            for spec in next.joined.keys().chain(&next.owns).chain(&state.outer(at)).chain(&folded) {
                if *spec != job.spec && !came_from.contains_key(spec) {
                    came_from.insert(*spec, at);
                    todo.push_back(*spec);
                }
            }
        }
        let mut chain = Vec::new();
        let mut at = root;
        while let Some(before) = came_from.get(&at).and_then(|before| state.jobs.get(before)) {
            let is_segment = state.jobs.get(&at).is_some_and(Job::is_segment);
            match before.joined.get(&at) {
                Some(met) => chain.push(self.joined(sight, at, met)),
                // A job and its segments are one.
                None if is_segment || before.is_segment() => {}
                None => chain.push(Joined { spec: at, path: Vec::new(), what: String::new(), back: None }),
            }
            at = before.spec;
            if at == job.spec || chain.len() == WHY_LINKS_MAX {
                break;
            }
        }
        chain.reverse();
        (chain, came_from.into_keys().collect())
    }

    /// The levels that were met by somebody and whose processes may be dead.
    pub(crate) fn to_probe(&self) -> Vec<(SpecId, ContextId)> {
        std::mem::take(&mut self.state.lock().to_probe)
    }

    /// Everybody who could know has been asked whether a level's process lives. Waits for the end of one that does not.
    pub(crate) fn probed(&self, spec: SpecId) {
        let deadline = Instant::now() + DOOM_TIME_MAX;
        let mut state = self.state.lock();
        while state.jobs.get(&spec).is_some_and(|job| job.doomed) {
            if self.decided.wait_until(state.inner(), deadline).timed_out() {
                break;
            }
        }
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.probed = Some(Instant::now());
        }
    }

    /// The process that entered these contexts is dead.
    pub(crate) fn doom(&self, entered: &[ContextId]) {
        let mut state = self.state.lock();
        let specs: Vec<SpecId> = entered.iter().filter_map(|context| state.contexts.get(context).copied()).collect();
        for spec in specs {
            state.jobs.entry(spec).and_modify(|job| job.doomed = true);
        }
    }

    /// The undecided speculations whose work a path shows to whoever joins: those that changed what the path names, or
    /// how it is reached.
    pub(crate) fn writers(&self, path: &[u8]) -> Result<Vec<SpecId>, Fault> {
        let found = self.undisturbed(|| self.find_writers(path))?;
        let state = self.state.lock();
        let jobs: BTreeSet<SpecId> = found.into_iter().map(|spec| state.part_of(spec)).collect();
        Ok(jobs.into_iter().collect())
    }

    fn find_writers(&self, path: &[u8]) -> Result<Vec<SpecId>, Fault> {
        let mut found: BTreeSet<SpecId> = BTreeSet::new();
        let mut sight = Sight { meets: true, ..Sight::trunk() };
        let mut at = mojavefs::id::Ino::ROOT;
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        loop {
            let inode = self.store.inode(&sight, at).map_err(fault::store)?;
            if self.meet_writer(&mut sight, &mut found, inode.met) {
                continue;
            }
            let Some(name) = names.clone().next() else { break };
            let entry = self.store.entry(&sight, at, name).map_err(fault::store)?;
            if self.meet_writer(&mut sight, &mut found, entry.met) {
                continue;
            }
            names.next();
            match entry.found {
                Some(entry) => at = entry.ino,
                None if found.is_empty() => {
                    let text =
                        format!("there is no `{}`, and nobody who has undecided work there", path.escape_ascii());
                    return Err(Fault::new(FaultKind::NotFound, text));
                }
                None => break,
            }
        }
        Ok(found.into_iter().collect())
    }

    fn meet_writer(&self, sight: &mut Sight, found: &mut BTreeSet<SpecId>, met: Option<IntervalId>) -> bool {
        let state = self.state.lock();
        let Some(job) = met.and_then(|met| state.writer_of(met)) else { return false };
        found.insert(job.spec);
        let mut live = [&sight.live[..], &state.sight(job).live].concat();
        live.sort_unstable();
        live.dedup();
        sight.live = live.into();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Beginning;
    use crate::ops::{NewFile, Ops, SystemClock};
    use crate::store::StoreOptions;
    use crate::store::engine::memory::Memory;
    use crate::telling::Telling;
    use mojavefs::id::Ino;
    use mojavefs::protocol::JobInfo;
    use mojavefs::protocol::file::FileKind;

    const NEW: NewFile<'static> =
        NewFile { kind: FileKind::Regular, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target: b"" };

    fn coordinator() -> (Coordinator, Arc<Ops>) {
        let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
        let store = Arc::new(Store::open(&Memory::of(1 << 30), options).expect("the store opens"));
        let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
        (Coordinator::open(store, ops.clone()).expect("nothing is held"), ops)
    }

    #[test]
    fn a_read_that_meets_the_work_of_many_asks_once_where_to_go_back_to() {
        const MANY: usize = 100;
        let (coordinator, ops) = coordinator();
        for n in 0..MANY {
            let job = Beginning::job(JobInfo::default(), OnRead::Committed);
            let (_, _, scope) = coordinator.begin(None, job).expect("a job");
            ops.create(&scope, Ino::ROOT, n.to_string().as_bytes(), NEW).expect("a file");
        }
        let job = Beginning { restarts: None, ..Beginning::job(JobInfo::default(), OnRead::Join) };
        let (_, reader, _) = coordinator.begin(None, job).expect("a job");
        let list = |context| {
            let scope = coordinator.scope_of(context).expect("it is undecided");
            ops.read_dir(&scope, Ino::ROOT, None, 2 * MANY as u32).map_err(|fault| fault.kind)
        };
        assert_eq!(list(reader).err(), Some(FaultKind::Checkpoint));
        let (segment, reader, _) = coordinator.begin_segment(reader).expect("it can go back to here");
        assert_eq!(list(reader).err(), Some(FaultKind::Again));
        assert_eq!(list(reader).expect("it has joined all").0.len(), MANY);
        let state = coordinator.state.lock();
        let backs: Vec<&Back> = state.jobs[&segment].joined.values().map(|met| &met.back).collect();
        assert!(backs.len() == MANY && backs.iter().all(|back| **back == Back::Read), "{backs:?}");
    }

    #[test]
    fn who_runs_inside_a_job_that_has_joined_another_looks_anew_when_that_is_committed() {
        let (coordinator, ops) = coordinator();
        let begin =
            |inside| coordinator.begin(inside, Beginning::job(JobInfo::default(), OnRead::Join)).expect("a job");
        let (first, _, scope) = begin(None);
        ops.create(&scope, Ino::ROOT, b"file", NEW).expect("a file");
        let (_, outer, scope) = begin(None);
        let met = ops.lookup(&scope, Ino::ROOT, b"file").expect_err("it is undecided");
        assert_eq!(met.kind, FaultKind::Again);
        let (_, inner, scope) = begin(Some(outer));
        ops.lookup(&scope, Ino::ROOT, b"file").expect("it is seen through the outer job");
        let (_, aftermath) = coordinator.commit(first, 0, &[], &mut Telling::nobody()).expect("a commit");
        for context in [outer, inner] {
            assert!(aftermath.rescoped.contains(&context), "{context}: {:?}", aftermath.rescoped);
            let seen = coordinator.state.lock().graph.seen_by(context).expect("it is undecided").numbers;
            let scope = coordinator.scope_of(context).expect("it is undecided");
            assert_eq!(scope.sight.live[..], seen[..]);
        }
    }
}
