//! When a job, level or segment inside another one is committed, it simply was never apart from that.
//!
//! A process may enter and commit a hundred thousand speculations in one job. Each as a context of its own to the job's end
//! would make every later look-up slower; so they leave the graph, and their changes are the outer job's. These are handed over to
//! an interval that it has already, as long as that costs no more than the inner one itself did: one that changed much keeps an
//! interval of its own.

use super::job::Kind;
use super::{Aftermath, Coordinator, State, graph_fault};
use crate::limits::{REASSIGNED_ALWAYS, REASSIGNED_MAX};
use crate::ops::fault;
use crate::store::{Key, StoreError};
use mojavefs::graph::Event;
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::OUTCOMES_KEPT_MAX;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Outcome, SpecState};
use std::sync::atomic::Ordering;

impl Coordinator {
    /// Makes a committed one part of what is around it; nothing if it can't be done without a trace.
    pub(super) fn fold(&self, state: &mut State, spec: SpecId) -> Result<Option<Aftermath>, Fault> {
        let Some((parent, outer)) = state.absorbs(spec) else { return Ok(None) };
        // Before anything has happened that could not be undone.
        let new_writer = IntervalId(self.store.next_id().map_err(fault::store)?);
        let job = &state.jobs[&spec];
        job.over.store(true, Ordering::SeqCst);
        let (context, is_job, numbers) = (job.context, job.kind == Kind::Job, state.graph.carried_by(job.context));
        let (reads_are_noted, depends) = (job.snapshot.is_some(), !job.joined.is_empty());
        let has_changed = |number: &IntervalId| self.store.changes_count(*number) > 0;
        let is_alone = !depends && state.graph.built_on(&numbers).len() == 1;
        let (changed, unchanged): (Vec<_>, Vec<_>) = numbers.into_iter().partition(has_changed);
        // To look for who depends on it takes time in proportion to all that is undecided.
        let mut others = if is_alone { Vec::new() } else { state.inherit(spec) };
        others.extend(state.graph.inside(context));
        if changed.is_empty() && !reads_are_noted {
            self.conflicts.decided(context, true);
        } else {
            self.conflicts.fold(context, outer, state);
        }
        self.conflicts.outdated(outer);
        others.into_iter().for_each(|other| self.conflicts.outdated(other));
        state.apply(&Event::Fold { context }).map_err(graph_fault)?;
        for number in unchanged {
            // What it had taken in and stays in the graph keeps its numbers.
            if !state.graph.is_in_use(number) {
                state.apply(&Event::Discard { number }).map_err(graph_fault)?;
            }
        }
        let job = state.remove(spec).expect("it was found before");
        state.jobs.entry(parent).and_modify(|outer| outer.takes_in(&job));
        state.folded.push_back(spec);
        if state.folded.len() > OUTCOMES_KEPT_MAX {
            state.folded.pop_front();
        }
        let mut aftermath = Aftermath { jobs: vec![job], ..Aftermath::default() };
        if changed.is_empty() && !is_job && !depends {
            aftermath.dropped = Some((context, outer));
            return Ok(Some(aftermath));
        }
        let (changed, reassigned) = self.reassign(state, changed);
        // It would not notice that what it writes next is under what the inner one wrote; and what stays with what it has found
        // in it does not see what it writes from now on.
        let is_found = is_job && state.graph.inside(outer).into_iter().any(|inside| state.stays(inside));
        if is_found || !changed.is_empty() && !state.jobs[&parent].on_read.meets() {
            state.apply(&Event::Number { context: outer, number: new_writer }).map_err(graph_fault)?;
        }
        aftermath.reassigned = reassigned;
        aftermath.rescoped = state.open_inside(outer);
        aftermath.folded = Some((context, outer, changed));
        Ok(Some(aftermath))
    }

    /// Hands what an folded level has changed in these intervals over to those that the outer job had before, as far as
    /// that is simple. Returns the intervals that stay, and the records that were handed over.
    fn reassign(&self, state: &mut State, mut new: Vec<IntervalId>) -> (Vec<IntervalId>, Vec<Key>) {
        let mut all = Vec::new();
        new.sort_unstable();
        new.retain(|from| {
            let Some(to) = state.graph.taker(*from) else { return true };
            let handed = self.records_to_hand_over(*from, to, REASSIGNED_MAX - all.len()).and_then(|keys| {
                if let Some(keys) = &keys {
                    self.store.reassign(*from, to, keys)?;
                }
                Ok(keys)
            });
            match handed {
                Ok(Some(keys)) => all.extend(keys),
                Ok(None) => return true,
                // On a full disk for one. The outer job has both intervals: nothing is wrong.
                Err(error) => {
                    tracing::warn!("interval {from} stays apart from {to}: {error}");
                    return true;
                }
            }
            if let Err(error) = state.apply(&Event::Reassign { from: *from, to }) {
                // Nothing carries it any more: it is one number more to look for.
                tracing::error!(
                    "what carried number {from} carries {to} now, and the graph does not take that: {error}"
                );
            }
            false
        });
        (new, all)
    }

    /// What an interval has changed; nothing if it is more than `most`, or so much more than what the other interval has that
    /// it would be handed on and on.
    fn records_to_hand_over(
        &self,
        from: IntervalId,
        to: IntervalId,
        most: usize,
    ) -> Result<Option<Vec<Key>>, StoreError> {
        let files = |interval| self.store.changes_count(interval);
        if files(from) > most as u64 || files(from) > REASSIGNED_ALWAYS as u64 && files(from) > files(to) {
            return Ok(None);
        }
        let keys = self.store.changes(from, None, most + 1)?;
        let few = keys.len() <= REASSIGNED_ALWAYS;
        let fits = keys.len() <= most && (few || self.store.changes(to, None, keys.len())?.len() == keys.len());
        Ok(fits.then_some(keys))
    }
}

impl State {
    /// The job, and its context, that a level can become part of, without anybody's knowing that it was apart.
    fn absorbs(&self, spec: SpecId) -> Option<(SpecId, ContextId)> {
        self.jobs.get(&spec).filter(|job| !job.recorded && self.graph.can_fold(job.context))?;
        // One that was committed itself meanwhile is no place for it any more.
        let outer = self.taken_in_by(spec).filter(|outer| self.outer(spec) == Some(*outer))?;
        Some((outer, self.jobs.get(&outer)?.context))
    }

    /// Where a level stands that is part of another by now.
    pub(super) fn folded_outcome(&self, spec: SpecId) -> Option<Outcome> {
        self.folded.contains(&spec).then(|| Outcome::of(spec, SpecState::Voted, 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::Beginning;
    use crate::ops::{NewFile, Ops, Scope, SetIds, SystemClock};
    use crate::store::engine::Directory;
    use crate::store::{Store, StoreOptions};
    use crate::telling::Telling;
    use mojavefs::id::Ino;
    use mojavefs::protocol::fault::FaultKind;
    use mojavefs::protocol::file::FileKind;
    use mojavefs::protocol::{JobInfo, OnRead};
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use tempfile::TempDir;

    const KNOWN: usize = 4;

    struct World {
        coordinator: Coordinator,
        job: SpecId,
        context: ContextId,
        file: Ino,
        _dir: TempDir,
    }

    impl World {
        fn new(on_read: OnRead) -> Self {
            let dir = TempDir::new().expect("a directory for the store");
            let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
            let store = Arc::new(Store::open(&Directory::at(dir.path()), options).expect("the store opens"));
            let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
            let coordinator = Coordinator::open(store, ops).expect("nothing is held");
            let file = create(&coordinator, &coordinator.trunk(), b"file");
            let beginning = Beginning::job(JobInfo::default(), on_read);
            let (job, context, _) = coordinator.begin(None, beginning).expect("a job");
            World { coordinator, job, context, file, _dir: dir }
        }

        fn enter(&self, inside: ContextId) -> (SpecId, ContextId, Scope) {
            let beginning = Beginning::part(JobInfo::default(), Kind::Level, None);
            self.coordinator.begin(Some(inside), beginning).expect("a level")
        }

        fn write(&self, scope: &Scope, text: &str) {
            let ops = &self.coordinator.ops;
            ops.write(scope, self.file, (0, false), text.as_bytes(), SetIds::Stay).expect("a write");
        }

        fn read(&self, context: ContextId, ino: Ino) -> String {
            let scope = self.coordinator.scope_of(context).expect("it is undecided");
            let bytes = self.coordinator.ops.read(&scope, ino, 0, 100).expect("bytes");
            String::from_utf8(bytes).expect("text")
        }

        /// Looks a name up, joining whoever has made it.
        fn look(&self, context: ContextId, name: &[u8]) {
            let ops = &self.coordinator.ops;
            let scope = || self.coordinator.scope_of(context).expect("it is undecided");
            ops.lookup(&scope(), Ino::ROOT, name)
                .map(drop)
                .unwrap_or_else(|met| assert_eq!(met.kind, FaultKind::Again));
            ops.lookup(&scope(), Ino::ROOT, name).expect("it is joined");
        }

        fn commit(&self, spec: SpecId) -> Aftermath {
            self.coordinator.commit(spec, 0, &[], &mut Telling::nobody()).expect("a commit").1
        }

        fn changes(&self) -> u64 {
            let state = self.coordinator.state.lock();
            state.changes(&state.jobs[&self.job], &self.coordinator.store)
        }

        fn intervals(&self, spec: SpecId) -> usize {
            let state = self.coordinator.state.lock();
            state.graph.carried_by(state.jobs[&spec].context).len()
        }
    }

    fn create(coordinator: &Coordinator, scope: &Scope, name: &[u8]) -> Ino {
        let (kind, target) = (FileKind::Regular, &b""[..]);
        let new = NewFile { kind, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target };
        coordinator.ops.create(scope, Ino::ROOT, name, new).expect("a file").ino
    }

    #[test]
    fn however_many_levels_change_something_few_intervals_are_left_of_them() {
        for on_read in [OnRead::Join, OnRead::Isolate] {
            change_in_levels(on_read);
        }
    }

    fn change_in_levels(on_read: OnRead) {
        let world = World::new(on_read);
        for number in 0..1000 {
            let (level, _, scope) = world.enter(world.context);
            world.write(&scope, &format!("{number:4}"));
            create(&world.coordinator, &scope, format!("new {number}").as_bytes());
            let aftermath = world.commit(level);
            assert!(aftermath.reassigned.contains(&Key::Inode(world.file)), "views of the job are told");
            assert!(world.intervals(world.job) <= KNOWN, "after {number} levels: {}", world.intervals(world.job));
            let size = world.coordinator.state.lock().graph.size();
            assert!(size.0 <= KNOWN && size.2 == 1, "after {number} levels: {size:?}");
            // Between levels others of the job write it, too.
            world.write(&world.coordinator.scope_of(world.context).expect("it is undecided"), "job ");
        }
        let changes = world.changes();
        assert_eq!((changes, world.read(world.context, world.file)), (1001, "job ".to_owned()));
    }

    #[test]
    fn however_many_inner_jobs_others_have_read_or_have_read_others_few_intervals_are_left_of_them() {
        let world = World::new(OnRead::Join);
        let begin =
            |inside| world.coordinator.begin(inside, Beginning::job(JobInfo::default(), OnRead::Join)).expect("a job");
        let (other, beside, scope) = begin(None);
        create(&world.coordinator, &scope, b"other");
        for round in 0..100 {
            let (inner, context, scope) = begin(Some(world.context));
            let name = format!("new {round}");
            create(&world.coordinator, &scope, name.as_bytes());
            world.look(context, b"other");
            world.look(beside, name.as_bytes());
            world.commit(inner);
            let size = world.coordinator.state.lock().graph.size();
            assert!(size.0 <= 2 * KNOWN && size.2 == 2, "after {round} jobs: {size:?}");
        }
        let status = world.coordinator.status(0);
        let joined = |spec| {
            status
                .iter()
                .find(|status| status.id == spec)
                .map(|status| status.joined.iter().map(|joined| joined.spec).collect::<Vec<_>>())
        };
        assert_eq!((joined(other), joined(world.job)), (Some(vec![world.job]), Some(vec![other])));
        let (_, aftermath) = world.coordinator.abort(world.job, None, &mut Telling::nobody()).expect("an abort");
        let undone: BTreeSet<SpecId> = aftermath.undone.iter().map(|(_, spec, _)| *spec).collect();
        assert_eq!(undone, [world.job, other].into());
    }

    #[test]
    fn what_inner_jobs_change_again_and_again_is_kept_once() {
        let world = World::new(OnRead::Join);
        for round in 0..100 {
            let beginning = Beginning::job(JobInfo::default(), OnRead::Join);
            let (inner, _, scope) = world.coordinator.begin(Some(world.context), beginning).expect("a job");
            world.write(&scope, &format!("{round:4}"));
            world.commit(inner);
            assert!(world.intervals(world.job) <= KNOWN, "after {round} jobs: {}", world.intervals(world.job));
        }
        assert_eq!((world.changes(), world.read(world.context, world.file)), (1, "  99".to_owned()));
    }

    #[test]
    fn of_levels_inside_one_another_a_few_intervals_are_left() {
        const NESTED: usize = 500;
        let world = World::new(OnRead::Join);
        let mut entered = vec![(world.job, world.context)];
        for number in 0..NESTED {
            let (level, context, scope) = world.enter(entered[number].1);
            create(&world.coordinator, &scope, format!("new {number}").as_bytes());
            world.write(&scope, &format!("{number:4}"));
            entered.push((level, context));
        }
        for number in (1..entered.len()).rev() {
            world.commit(entered[number].0);
            let (outer, context) = entered[number - 1];
            assert!(world.intervals(outer) <= KNOWN + NESTED / 8, "{number}: {}", world.intervals(outer));
            assert_eq!(world.read(context, world.file), format!("{:4}", NESTED - 1));
        }
        let changes = world.changes();
        assert!(changes as usize > NESTED);
    }

    #[test]
    fn a_level_that_changed_much_keeps_its_interval_until_as_much_is_around_it() {
        let world = World::new(OnRead::Join);
        let mut intervals = Vec::new();
        for level in 0..20 {
            let (spec, _, scope) = world.enter(world.context);
            for file in 0..100 {
                create(&world.coordinator, &scope, format!("{level} {file}").as_bytes());
            }
            world.commit(spec);
            intervals.push(world.intervals(world.job));
        }
        assert!(intervals[0] > 1 && intervals[19] <= KNOWN, "{intervals:?}");
    }

    #[test]
    fn what_an_isolated_job_inside_sees_stays_as_it_was() {
        let world = World::new(OnRead::Join);
        let (level, _, scope) = world.enter(world.context);
        world.write(&scope, "one");
        world.commit(level);
        let beginning = Beginning::job(JobInfo::default(), OnRead::Isolate);
        let (isolated, inside, _) = world.coordinator.begin(Some(world.context), beginning).expect("a job");
        let before = world.intervals(world.job);
        let (level, _, scope) = world.enter(world.context);
        world.write(&scope, "two");
        world.commit(level);
        assert_eq!(world.intervals(world.job), before + 1);
        assert_eq!([inside, world.context].map(|context| world.read(context, world.file)), ["one", "two"]);
        world.coordinator.abort(isolated, None, &mut Telling::nobody()).expect("an abort");
    }

    #[test]
    fn levels_side_by_side_in_an_isolated_job_do_not_see_each_other() {
        let world = World::new(OnRead::Isolate);
        let (first, _, scope) = world.enter(world.context);
        let (second, beside, later) = world.enter(world.context);
        world.write(&scope, "one");
        world.commit(first);
        assert_eq!([world.context, beside].map(|context| world.read(context, world.file)), ["one", ""]);
        // What the job writes next is above what the level wrote.
        world.write(&world.coordinator.scope_of(world.context).expect("it is undecided"), "two");
        assert_eq!(world.read(world.context, world.file), "two");
        world.write(&later, "three");
        let (outcome, _) = world.coordinator.commit(second, 0, &[], &mut Telling::nobody()).expect("an answer");
        assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    }

    #[test]
    fn what_a_level_of_an_isolated_job_has_only_read_counts_as_read_by_the_job() {
        let world = World::new(OnRead::Isolate);
        let (level, context, _) = world.enter(world.context);
        world.read(context, world.file);
        world.commit(level);
        world.write(&world.coordinator.trunk(), "else");
        let (outcome, _) = world.coordinator.commit(world.job, 0, &[], &mut Telling::nobody()).expect("an answer");
        assert_eq!(outcome.conflicts.len(), 1, "{outcome:?}");
    }
}
