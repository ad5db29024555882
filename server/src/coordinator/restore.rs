//! Taking up after a restart what was held, or voted for and waited for others.

use super::conflicts::Looming;
use super::held::Payload;
use super::job::{Kind, Met, Stage};
use super::{Coordinator, Job, State};
use crate::limits::{CHANGES_READ_MAX, PARENTS_MAX};
use crate::store::{Held, Key, Sight, Store, StoreError};
use crate::touch::{Touch, TouchKey};
use mojavefs::graph::{Event, Resume, Sees};
use mojavefs::id::{Ino, IntervalId, Seq, SpecId};
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Back, SpecState};
use std::sync::Arc;

impl Coordinator {
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
        let outer = outer.max_by_key(|outer| outer.spec).map(|outer| outer.context);
        let from = outer.and_then(|context| state.graph.current(context));
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
        self.conflicts.open(context, payload.on_read.into());
        let changes = changes(&self.store, &held)?;
        self.conflicts.restore(context, payload.standing, &payload.reads, changes.into_iter());
        let snapshot = (held.snapshot != Seq::NOW).then(|| Arc::new(self.store.adopt_snapshot(held.snapshot)));
        let over = Back::Start("its command is over".to_owned());
        let job = Job {
            spec,
            context,
            entry,
            info: payload.info,
            since: payload.since,
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
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, Vec<Looming>), codec::CodecError> {
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

/// What a held speculation has changed, as far as it matters for conflicts.
fn changes(store: &Store, held: &Held) -> Result<Vec<(TouchKey, Touch)>, StoreError> {
    let mut live = held.intervals.clone();
    live.sort_unstable();
    let seen = Sight { snapshot: held.snapshot, live: live.into(), ..Sight::trunk() };
    let mut changes = Vec::new();
    for interval in &held.intervals {
        let mut after = None;
        loop {
            let page = store.changes(*interval, after.as_ref(), CHANGES_READ_MAX)?;
            for key in &page {
                changes.extend(touched(store, &seen, key)?);
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::super::Beginning;
    use super::*;
    use crate::ops::{NewFile, Ops, Scope, SystemClock};
    use crate::store::StoreOptions;
    use crate::store::engine::memory::Memory;
    use mojavefs::graph::Seen;
    use mojavefs::id::ContextId;
    use mojavefs::protocol::fault::FaultKind;
    use mojavefs::protocol::{JobInfo, OnRead};

    struct World {
        store: Arc<Store>,
        ops: Arc<Ops>,
        coordinator: Coordinator,
    }

    impl World {
        fn new() -> Self {
            let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
            let store = Arc::new(Store::open(&Memory::of(1 << 30), options).expect("the store opens"));
            let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
            let coordinator = Coordinator::open(store.clone(), ops.clone()).expect("nothing is held");
            World { store, ops, coordinator }
        }

        fn begin(&self, inside: Option<ContextId>, on_read: OnRead) -> (SpecId, ContextId) {
            let beginning = Beginning::job(JobInfo::default(), on_read);
            let (spec, context, _) = self.coordinator.begin(inside, beginning).expect("a job");
            (spec, context)
        }

        fn scope(&self, context: ContextId) -> Scope {
            self.coordinator.scope_of(context).expect("it is undecided")
        }

        fn create(&self, context: ContextId, name: &[u8]) {
            let (kind, target) = (FileKind::Regular, &b""[..]);
            let new = NewFile { kind, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target };
            self.ops.create(&self.scope(context), Ino::ROOT, name, new).expect("a file");
        }

        fn names(&self, context: ContextId) -> Vec<Vec<u8>> {
            let (entries, _) = self.ops.read_dir(&self.scope(context), Ino::ROOT, None, 100, false).expect("a listing");
            entries.into_iter().map(|entry| entry.name).filter(|name| !name.starts_with(b".")).collect()
        }

        fn seen(&self, context: ContextId) -> (Seen, Vec<IntervalId>) {
            let graph = &self.coordinator.state.lock().graph;
            (graph.seen_by(context).expect("it is undecided"), graph.found_by(context))
        }

        fn restart(&mut self) {
            self.coordinator = Coordinator::open(self.store.clone(), self.ops.clone()).expect("all is taken up");
        }
    }

    #[test]
    fn an_isolated_job_inside_another_sees_after_a_restart_what_it_has_found() {
        let mut world = World::new();
        let (outer, context) = world.begin(None, OnRead::Join);
        world.create(context, b"before");
        let (inner, isolated) = world.begin(Some(context), OnRead::Isolate);
        // What is folded into the outer job has numbers of its own, and so has what that does next.
        let (other, beside) = world.begin(Some(context), OnRead::Join);
        world.create(beside, b"beside");
        world.coordinator.commit(other, 0, &[]).expect("a commit");
        world.create(context, b"after");
        assert_eq!(world.names(isolated), [b"before"]);
        for spec in [outer, inner] {
            world.coordinator.hold(spec, 0).expect("a hold");
        }
        let before = world.seen(isolated);
        world.restart();
        let after = world.seen(isolated);
        assert_eq!((&after.0.writer, &after.1), (&before.0.writer, &before.1));
        // The outer job's first interval is another one now; nothing carries its number.
        let carried = |numbers: &[IntervalId]| -> Vec<IntervalId> {
            numbers.iter().copied().filter(|number| world.store.changes_count(*number) > 0).collect()
        };
        assert_eq!(carried(&after.0.missed), carried(&before.0.missed));
        assert!(!carried(&after.0.missed).is_empty(), "nothing was missed");
        assert_eq!(world.names(isolated), [b"before"]);
        assert_eq!(world.names(context), [&b"after"[..], b"before", b"beside"]);
    }

    #[test]
    fn what_is_held_falls_with_what_was_read_inside_of_it_by_way_of_what_is_undone() {
        let mut world = World::new();
        let (writer, context) = world.begin(None, OnRead::Join);
        let (part, inside) = world.begin(Some(context), OnRead::Join);
        world.create(inside, b"file");
        let (held, context) = world.begin(None, OnRead::Join);
        let (_, reader) = world.begin(Some(context), OnRead::Join);
        let met = world.ops.lookup(&world.scope(reader), Ino::ROOT, b"file").expect_err("it is undecided");
        assert_eq!(met.kind, FaultKind::Again);
        world.ops.lookup(&world.scope(reader), Ino::ROOT, b"file").expect("it is joined");
        world.coordinator.hold(held, 0).expect("a hold");
        world.coordinator.abort(part, None).expect("an abort");
        let status = world.coordinator.status(0).into_iter().find(|status| status.id == held).expect("it is held");
        assert_eq!(status.joined.iter().map(|joined| joined.spec).collect::<Vec<_>>(), [writer]);
        world.restart();
        assert!(world.coordinator.is_idle(), "it has read what never happened");
    }
}
