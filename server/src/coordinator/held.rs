//! Held speculations: owned by the store, they survive every process and every restart.

use super::conflicts::{Clash, Conflicts, Looming, Standing};
use super::job::{Kind, Met, Stage};
use super::{Coordinator, Job, State, graph_fault};
use crate::limits::PARENTS_MAX;
use crate::ops::fault;
use crate::store::{Held, Key, Sight, Store, StoreError};
use crate::touch::{Touch, TouchKey};
use mojavefs::graph::{Event, Graph, Resume, Sees};
use mojavefs::id::{ContextId, Ino, IntervalId, Seq, SpecId};
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Back, JobInfo, OnRead, Outcome, SpecState};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What the coordinator keeps of a held speculation beside its intervals and snapshot.
#[derive(Serialize, Deserialize)]
struct Payload {
    context: ContextId,
    entry: IntervalId,
    info: JobInfo,
    since: i64,
    bytes: u64,
    /// Undecided intervals around it: it falls with them.
    outer: Vec<IntervalId>,
    standing: Standing,
    reads: Vec<u64>,
    on_read: OnRead,
    writer: IntervalId,
    /// What it depends on by its own reads, and owns beside its own: it falls with them.
    joined: BTreeMap<SpecId, TouchKey>,
    owns: Vec<SpecId>,
    /// Its owner has voted to commit.
    voted: bool,
}

/// What a record of a job is to leave out, because it is final by then.
#[derive(Default)]
struct Settled<'a> {
    intervals: &'a [IntervalId],
    specs: &'a [SpecId],
    /// Since when; `None` if nothing is.
    seq: Option<Seq>,
}

fn record(graph: &Graph, job: &Job, voted: bool, conflicts: &Conflicts) -> Result<Held, StoreError> {
    record_with((graph, job), &Settled::default(), voted, conflicts, conflicts.of(job.context))
}

fn record_with(
    (graph, job): (&Graph, &Job),
    settled: &Settled<'_>,
    voted: bool,
    conflicts: &Conflicts,
    standing: Standing,
) -> Result<Held, StoreError> {
    let found = graph.found_by(job.context);
    let (ended, outer): (Vec<_>, Vec<_>) = found.into_iter().partition(|number| settled.intervals.contains(number));
    let joined = job.joined.iter().filter(|(spec, _)| !settled.specs.contains(spec));
    let snapshot = match settled.seq {
        Some(seq) if job.snapshot.is_some() && !ended.is_empty() => seq,
        _ => job.horizon(),
    };
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
        joined: joined.map(|(spec, met)| (*spec, met.key.clone())).collect(),
        owns: job.owns.iter().copied().filter(|spec| !settled.specs.contains(spec)).collect(),
        voted,
    };
    let payload = codec::encode(&(payload, conflicts.looming(job.context)))
        .map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?;
    let (intervals, parts) = (graph.carried_by(job.context), job.parts.clone());
    Ok(Held { spec: job.spec, intervals, snapshot, payload, parts })
}

/// These will have conflicts. No other record than those of recorded ones is needed: they are written. Blocks for the disk if
/// there are such.
pub(super) fn foresee(
    store: &Store,
    conflicts: &Conflicts,
    state: &Mutex<State>,
    losers: Vec<(ContextId, Clash)>,
) -> Result<(), Fault> {
    if losers.is_empty() {
        return Ok(());
    }
    let state = state.lock();
    let mut news = BTreeSet::new();
    for (loser, clash) in losers {
        if state.of(loser).is_some_and(|job| job.recorded) && conflicts.foresee(loser, clash) {
            news.insert(loser);
        }
    }
    for (loser, spec) in news.iter().filter_map(|loser| Some((*loser, state.of(*loser)?.spec))) {
        write_down(&state, spec, store, conflicts).inspect_err(|_| conflicts.outdated(loser))?;
    }
    Ok(())
}

/// A recorded job is about to depend on more, or to change something in an interval of which its record knows nothing: that is
/// written down before. Blocks for the disk.
pub(super) fn write_down(state: &State, spec: SpecId, store: &Store, conflicts: &Conflicts) -> Result<(), Fault> {
    let Some(job) = state.jobs.get(&spec).filter(|job| job.recorded) else { return Ok(()) };
    let held = record(&state.graph, job, job.state == SpecState::Voted, conflicts).map_err(fault::store)?;
    store.hold(&held).map_err(fault::store)
}

impl Coordinator {
    /// The store takes over as the owner of a speculation.
    pub(crate) fn hold(&self, spec: SpecId, uid: u32) -> Result<Outcome, Fault> {
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let job = state.job(spec, uid)?;
        let already = job.kept;
        if job.state == SpecState::Voted {
            return Err(Fault::new(FaultKind::Decided, format!("speculation {spec} is voted for already")));
        }
        job.must_be_there()?;
        let held = record(&state.graph, job, false, &self.conflicts).map_err(fault::store)?;
        let changes = state.changes(job, &self.store);
        self.store.hold(&held).map_err(fault::store)?;
        if !already {
            state.take_over(spec)?;
        }
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.state = SpecState::Held;
            (job.kept, job.recorded) = (true, true);
        }
        self.decided.notify_all();
        Ok(Outcome::of(spec, SpecState::Held, changes))
    }

    /// Writes a vote down that has to wait for others, with the content it stands for.
    pub(super) fn record_vote(&self, state: &mut State, spec: SpecId) -> Result<(), Fault> {
        let Some(job) = state.jobs.get(&spec) else { return Ok(()) };
        let held = record(&state.graph, job, true, &self.conflicts).map_err(fault::store)?;
        self.store.hold(&held).map_err(fault::store)?;
        state.jobs.entry(spec).and_modify(|job| job.recorded = true);
        Ok(())
    }

    /// Conflicts of held speculations survive a restart, too. No lock is held.
    pub(crate) fn write_down_conflicts(&self) {
        for context in self.conflicts.take_news() {
            if let Some(spec) = self.spec_of(context)
                && let Err(fault) = self.hold_again(spec)
            {
                tracing::error!("writing down a conflict of speculation {spec}: {fault}");
            }
        }
    }

    /// Writes down again what a held or voted speculation has become, after a view of it closed or a conflict arose.
    pub(crate) fn hold_again(&self, spec: SpecId) -> Result<(), Fault> {
        if self.is_held(spec) {
            return self.hold(spec, 0).map(drop);
        }
        let mut state = self.state.lock();
        match state.jobs.get(&spec).is_some_and(|job| job.recorded) {
            true => self.record_vote(&mut state, spec),
            false => Ok(()),
        }
    }

    /// Takes up what was held or voted for when the store was closed; what it depended on and is gone takes it along.
    pub(super) fn restore(&self) -> Result<(), StoreError> {
        let corrupt = |why: &dyn std::fmt::Display| StoreError::corrupt(format!("a held speculation: {why}"));
        let (mut kept, mut looming) = (Vec::new(), Vec::new());
        for held in self.store.held()? {
            let (payload, theirs) = Payload::decode(&held.payload).map_err(|why| corrupt(&why))?;
            looming.extend(theirs);
            kept.push((held, payload));
        }
        while let Some(at) = kept.iter().position(|(_, payload)| !payload.stands_on(&kept)) {
            let (held, _) = kept.remove(at);
            tracing::warn!("speculation {} falls with what it depended on, which was undecided", held.spec);
            self.store.abort(&held.intervals, &[held.spec])?;
        }
        let mut state = self.state.lock();
        let mut later = Vec::new();
        for (held, payload) in kept {
            let (spec, context) = (held.spec, payload.context);
            later.push((spec, context, payload.joined.clone(), payload.owns.clone(), payload.voted));
            self.restore_one(&mut state, held, payload)?;
        }
        self.conflicts.restore_looming(looming);
        for (spec, context, joined, owns, _) in &later {
            for of in joined.keys().filter_map(|spec| state.jobs.get(spec)).map(|job| job.entry).collect::<Vec<_>>() {
                let interval = IntervalId(self.store.next_id()?);
                let read = Event::Read { context: *context, of, interval, resume: Resume::Start };
                state.apply(&read).map_err(|why| corrupt(&format!("speculation {spec}: {why}")))?;
            }
            for other in owns {
                let interval = IntervalId(self.store.next_id()?);
                let own = Event::CoOwn { context: *context, interval, spec: *other };
                state.apply(&own).map_err(|why| corrupt(&format!("speculation {spec}: {why}")))?;
            }
        }
        for (spec, _, _, _, voted) in later {
            self.restore_word(&mut state, spec, voted).map_err(|why| corrupt(&why))?;
        }
        Ok(())
    }

    /// Says again what a restored job's owner had said: hold it, or commit. A vote that nothing keeps from being final any
    /// more is left for its owner to repeat.
    fn restore_word(&self, state: &mut State, spec: SpecId, voted: bool) -> Result<(), Fault> {
        let Some(job) = state.jobs.get(&spec) else { return Ok(()) };
        let votes = job.votes();
        state.take_over(spec)?;
        if !voted || state.is_final_by(spec, &votes) {
            return Ok(());
        }
        self.vote(state, spec, &votes).map(drop)
    }

    fn restore_one(&self, state: &mut State, held: Held, payload: Payload) -> Result<(), StoreError> {
        let (spec, context) = (held.spec, payload.context);
        let entry = payload.entry;
        let first = IntervalId(self.store.next_id()?);
        // The last one that began is the innermost.
        let outer = payload.outer.iter().filter_map(|number| state.of(state.graph.writer_of(*number)?));
        let (parent, parent_context) = outer.map(|outer| (outer.spec, outer.context)).max().unzip();
        let from = parent_context.and_then(|context| state.graph.current(context));
        let sees = if payload.on_read.follows() { Sees::Follows } else { Sees::Had(payload.outer.clone()) };
        let events =
            [Event::Open { context, interval: first, from, sees }, Event::Speculate { context, interval: entry, spec }];
        // One that has become part of another one is on record with that, too.
        let own = held.intervals.iter().copied().filter(|number| state.graph.writer_of(*number).is_none());
        let own: Vec<IntervalId> = own.chain([payload.writer]).collect();
        let numbers = own.into_iter().map(|number| Event::Number { context, number });
        for event in events.into_iter().chain(numbers) {
            state.apply(&event).map_err(|why| StoreError::corrupt(format!("speculation {spec}: {why}")))?;
        }
        self.conflicts.open(context, parent_context, payload.on_read.meets());
        let mut live = held.intervals.clone();
        live.sort_unstable();
        let seen = Sight { snapshot: held.snapshot, live: live.into(), ..Sight::trunk() };
        let mut changes = Vec::new();
        for interval in &held.intervals {
            let mut after = None;
            loop {
                let page = self.store.changes(*interval, after.as_ref(), 4096)?;
                for key in &page {
                    changes.extend(touched(&self.store, &seen, key)?);
                }
                match page.into_iter().last() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        self.conflicts.restore(context, payload.standing, &payload.reads, changes.into_iter());
        let snapshot = (held.snapshot != Seq::NOW).then(|| Arc::new(self.store.adopt_snapshot(held.snapshot)));
        let over = Back::Start("its command is over".to_owned());
        let job = Job {
            spec,
            context,
            entry,
            info: payload.info,
            since: payload.since,
            parent,
            parent_context,
            depth: 1,
            on_read: payload.on_read,
            snapshot,
            joined: payload.joined.into_iter().map(|(spec, key)| (spec, Met { key, back: over.clone() })).collect(),
            owns: payload.owns,
            parts: held.parts,
            replaces: None,
            state: SpecState::Held,
            stage: Stage::Ended,
            kept: true,
            recorded: true,
            kind: Kind::Job,
            restarts: None,
            excuse: None,
            probed: None,
            doomed: false,
            over: Arc::default(),
            bytes: Arc::new(payload.bytes.into()),
        };
        state.insert(job);
        Ok(())
    }
}

impl Payload {
    /// What was written, with the conflicts that may come; those of older versions of the program wrote none of these.
    fn decode(bytes: &[u8]) -> Result<(Self, Vec<Looming>), codec::CodecError> {
        codec::decode(bytes).or_else(|_| Ok((codec::decode(bytes)?, Vec::new())))
    }

    /// Whether all that it depends on is there.
    fn stands_on(&self, kept: &[(Held, Payload)]) -> bool {
        let around = |outer: &IntervalId| kept.iter().any(|(held, _)| held.intervals.contains(outer));
        let there = |spec: &SpecId| kept.iter().any(|(held, _)| held.spec == *spec);
        self.outer.iter().all(around) && self.joined.keys().chain(&self.owns).all(there)
    }
}

/// A directory that lies elsewhere than what is final says: what its move rests on.
fn moved_places(store: &Store, seen: &Sight, ino: Ino) -> Result<Vec<(TouchKey, Touch)>, StoreError> {
    let parent = |sight: &Sight, ino: Ino| -> Result<Option<Ino>, StoreError> {
        let inode = store.inode(sight, ino)?.found;
        Ok(inode.filter(|inode| inode.kind == FileKind::Directory && inode.nlink > 0).map(|inode| inode.home.0))
    };
    let (Some(mut at), Some(before)) = (parent(seen, ino)?, parent(&Sight::trunk(), ino)?) else {
        return Ok(Vec::new());
    };
    if at == before {
        return Ok(Vec::new());
    }
    let mut places = vec![(TouchKey::Place(ino), Touch::Write)];
    while at != Ino::ROOT && places.len() < PARENTS_MAX {
        places.push((TouchKey::Place(at), Touch::Update));
        match parent(seen, at)? {
            Some(above) => at = above,
            None => break,
        }
    }
    Ok(places)
}

/// What a changed record means for conflicts, as the operation that changed it reported it.
fn touched(store: &Store, seen: &Sight, key: &Key) -> Result<Vec<(TouchKey, Touch)>, StoreError> {
    Ok(match key {
        Key::Inode(ino) => {
            let inode = store.inode(seen, *ino)?.found;
            let removed = inode.is_some_and(|inode| inode.kind == FileKind::Directory && inode.nlink == 0);
            let listing = removed.then_some((TouchKey::Listing(*ino), Touch::Write));
            let places = moved_places(store, seen, *ino)?;
            listing.into_iter().chain([(TouchKey::Inode(*ino), Touch::Write)]).chain(places).collect()
        }
        Key::Entry(parent, name) => {
            vec![(TouchKey::Entry(*parent, name.clone()), Touch::Write), (TouchKey::Listing(*parent), Touch::Update)]
        }
        Key::Xattr(ino, name) => {
            vec![(TouchKey::Xattr(*ino, name.clone()), Touch::Write), (TouchKey::XattrList(*ino), Touch::Update)]
        }
        Key::DirStat(_) | Key::Inline(_) | Key::Block(..) => Vec::new(),
    })
}

impl State {
    /// The store owns what a job has owned.
    fn take_over(&mut self, spec: SpecId) -> Result<(), Fault> {
        let Some(job) = self.jobs.get(&spec) else { return Ok(()) };
        let context = job.context;
        for spec in job.owns.iter().copied().chain([spec]).collect::<Vec<_>>() {
            self.apply(&Event::Hold { context, spec }).map_err(graph_fault)?;
        }
        Ok(())
    }

    /// The records of held jobs that see these intervals, or lose by their becoming final, as they will be once those are
    /// final at `seq`.
    pub(super) fn rebased_records(
        &self,
        intervals: &[IntervalId],
        specs: &[SpecId],
        seq: Seq,
        (conflicts, mut losers): (&Conflicts, HashMap<ContextId, Standing>),
    ) -> Result<Vec<Held>, StoreError> {
        let settled = Settled { intervals, specs, seq: Some(seq) };
        let based = self.found_any(intervals);
        let is_concerned =
            |job: &&Job| job.builds_on(specs) || based.contains(&job.spec) || losers.contains_key(&job.context);
        let concerned: Vec<&Job> = self.jobs.values().filter(|job| job.recorded).filter(is_concerned).collect();
        let record = |job: &Job| {
            let standing = losers.remove(&job.context).unwrap_or_else(|| conflicts.of(job.context));
            record_with((&self.graph, job), &settled, job.state == SpecState::Voted, conflicts, standing)
        };
        concerned.into_iter().map(record).collect()
    }

    /// What depended on these speculations, which are final at `seq` now, is based on what is final then; `based` are those
    /// that were started inside of them.
    pub(super) fn rebase(
        &mut self,
        based: &BTreeSet<SpecId>,
        specs: &[SpecId],
        store: &Store,
        seq: Seq,
    ) -> Vec<ContextId> {
        let mut rebased = Vec::new();
        for job in self.jobs.values_mut().filter(|job| job.builds_on(specs) || based.contains(&job.spec)) {
            if job.snapshot.is_some() && based.contains(&job.spec) {
                job.snapshot = Some(Arc::new(store.adopt_snapshot(seq)));
            }
            job.joined.retain(|spec, _| !specs.contains(spec));
            job.owns.retain(|spec| !specs.contains(spec));
            if job.parent.is_some_and(|parent| specs.contains(&parent)) {
                job.parent = None;
                job.parent_context = None;
            }
            rebased.push(job.context);
        }
        rebased
    }
}

#[cfg(test)]
mod tests {
    use super::super::Beginning;
    use super::*;
    use crate::ops::{Ops, Scope, SystemClock};
    use crate::store::StoreOptions;
    use crate::store::engine::Directory;
    use tempfile::TempDir;

    const FILE: TouchKey = TouchKey::Inode(Ino(1000));

    fn coordinator() -> (Coordinator, TempDir) {
        let dir = TempDir::new().expect("a directory for the store");
        let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
        let store = Arc::new(Store::open(&Directory::at(dir.path()), options).expect("the store opens"));
        let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
        (Coordinator::open(store, ops).expect("nothing is held"), dir)
    }

    /// A job that has used the file.
    fn job(coordinator: &Coordinator, how: Touch) -> SpecId {
        let beginning = Beginning::job(JobInfo::default(), OnRead::Isolate);
        let (spec, _, scope) = coordinator.begin(None, beginning).expect("a job");
        touches(&scope, |touches| touches.touch(FILE, how, false));
        spec
    }

    fn touches(scope: &Scope, call: impl FnOnce(&dyn crate::touch::Touches)) {
        call(scope.touches.as_deref().expect("uses are reported"));
    }

    /// What a restart would find of the conflicts of what is held.
    fn written_down(coordinator: &Coordinator) -> Vec<TouchKey> {
        let held = coordinator.store.held().expect("the records").pop().expect("one is held");
        let (payload, _) = Payload::decode(&held.payload).expect("a record");
        payload.standing.clashes.into_keys().collect()
    }

    #[test]
    fn a_conflict_with_trunk_is_on_disk_before_the_change() {
        let (coordinator, _dir) = coordinator();
        let held = job(&coordinator, Touch::Read);
        coordinator.hold(held, 0).expect("a hold");
        assert_eq!(written_down(&coordinator), []);
        touches(&coordinator.trunk(), |trunk| trunk.foresee(&[(FILE, Touch::Write)]).expect("a write"));
        assert_eq!(written_down(&coordinator), [FILE]);
    }

    #[test]
    fn a_conflict_with_a_commit_is_on_disk_with_it() {
        let (coordinator, _dir) = coordinator();
        let held = job(&coordinator, Touch::Read);
        coordinator.hold(held, 0).expect("a hold");
        let winner = job(&coordinator, Touch::Write);
        assert_eq!(written_down(&coordinator), []);
        coordinator.commit(winner, 0, &[]).expect("a commit");
        assert_eq!(written_down(&coordinator), [FILE]);
    }
}
