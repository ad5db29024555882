//! Taking up after a restart what was held, or voted for and waited for others.

use super::conflicts::Looming;
use super::held::Payload;
use super::job::{Kind, Met, Stage};
use super::prepare::Preparation;
use super::{Coordinator, Job, State, graph_fault};
use crate::access::{Access, AccessKey};
use crate::limits::{CHANGES_READ_MAX, PARENTS_MAX};
use crate::store::{Held, Key, Remembered, Sight, Specs, Store, StoreError};
use mojavefs::graph::{Event, Owner, Resume, Sees};
use mojavefs::id::{ContextId, Ino, IntervalId, Seq, SpecId};
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Back, SpecState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What records name that is not on record itself: the context and the entry of each speculation, or of one that stands for what
/// was around another.
type Missing = BTreeMap<SpecId, (ContextId, IntervalId)>;

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
        self.forget_parts(&mut kept)?;
        name_wholes(&mut kept);
        self.leave_out_committed(&mut kept);
        let mut state = self.state.lock();
        let missing = self.begin_missing(&mut state, &kept)?;
        let mut later = Vec::new();
        for (held, payload) in kept {
            let (spec, context) = (held.spec, payload.context);
            later.push((spec, context, payload.joined.clone(), payload.owns.clone(), payload.voted));
            self.restore_one(&mut state, held, payload)?;
        }
        for (spec, context, joined, owns, _) in &later {
            let entry = |of: &SpecId| state.jobs.get(of).map(|job| job.entry).or(missing.get(of).map(|of| of.1));
            for of in joined.keys().filter_map(entry).collect::<Vec<_>>() {
                let interval = IntervalId(self.store.next_id()?);
                let read = Event::Read { context: *context, of, interval, resume: Resume::Start };
                state.apply(&read).map_err(|why| corrupt(&format!("speculation {spec}: {why}")))?;
            }
            for other in owns {
                // It is that one's further owner; nothing was read.
                state.jobs.get_mut(other).into_iter().for_each(|owned| drop(owned.joined.remove(spec)));
                let interval = IntervalId(self.store.next_id()?);
                let own = Event::CoOwn { context: *context, interval, spec: *other };
                state.apply(&own).map_err(|why| corrupt(&format!("speculation {spec}: {why}")))?;
            }
        }
        for (spec, ..) in &later {
            state.take_over(*spec).map_err(|why| corrupt(&why))?;
        }
        self.end_missing(&mut state, missing).map_err(failed)?;
        self.conflicts.restore_looming(looming);
        for (spec, ..) in later.iter().filter(|(.., voted)| *voted) {
            self.restore_vote(&mut state, *spec).map_err(failed)?;
        }
        Ok(())
    }

    /// What has become part of another is on record with that, which has all that it had; its own record goes.
    fn forget_parts(&self, kept: &mut Vec<(Held, Payload)>) -> Result<(), StoreError> {
        let has = |whole: &Held, part: &Held| {
            whole.parts.contains(part.spec) && part.intervals.iter().all(|number| whole.intervals.contains(number))
        };
        let is_part = |(held, _): &&(Held, Payload)| kept.iter().any(|(whole, _)| has(whole, held));
        let parts: Vec<SpecId> = kept.iter().filter(is_part).map(|(held, _)| held.spec).collect();
        kept.retain(|(held, _)| !parts.contains(&held.spec));
        self.store.forget_held(&parts)
    }

    /// What was committed since is named by those of which the disk refused the newer record, or that they are no more.
    fn leave_out_committed(&self, kept: &mut [(Held, Payload)]) {
        let is_open = |spec: &SpecId| self.store.remembers(*spec) != Remembered::Committed;
        for (_, payload) in kept {
            payload.joined.retain(|spec, _| is_open(spec));
            payload.owns.retain(is_open);
        }
    }

    /// Whatever is named and not on record begins, for the graph to say what falls with it.
    fn begin_missing(&self, state: &mut State, kept: &[(Held, Payload)]) -> Result<Missing, StoreError> {
        let mut missing = Missing::new();
        let is_kept = |spec: &SpecId| kept.iter().any(|(held, _)| held.spec == *spec);
        let is_carried = |number: &IntervalId| kept.iter().any(|(held, _)| held.intervals.contains(number));
        let named = kept.iter().flat_map(|(_, payload)| payload.joined.keys().chain(&payload.owns));
        let specs: BTreeSet<SpecId> = named.copied().filter(|spec| !is_kept(spec)).collect();
        // What is further out, and what that depends on, is on record with what it is inside of.
        let around = kept.iter().filter_map(|(_, payload)| payload.outer.last()).copied();
        let numbers: BTreeSet<IntervalId> = around.filter(|number| !is_carried(number)).collect();
        for spec in specs {
            self.begin_one_missing(state, &mut missing, spec)?;
        }
        for number in numbers {
            let context = self.begin_one_missing(state, &mut missing, self.store.next_spec()?)?;
            let number = Event::Number { context, number };
            state.apply(&number).map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?;
        }
        Ok(missing)
    }

    fn begin_one_missing(
        &self,
        state: &mut State,
        missing: &mut Missing,
        spec: SpecId,
    ) -> Result<ContextId, StoreError> {
        let (context, interval) = (ContextId(self.store.next_id()?), IntervalId(self.store.next_id()?));
        let entry = IntervalId(self.store.next_id()?);
        let open = Event::Open { context, interval, from: None, sees: Sees::Follows };
        for event in [open, Event::Speculate { context, interval: entry, spec }] {
            state.apply(&event).map_err(|why| StoreError::corrupt(format!("speculation {spec}: {why}")))?;
        }
        missing.insert(spec, (context, entry));
        Ok(context)
    }

    /// The owners of what is missing have gone without a decision.
    fn end_missing(&self, state: &mut State, missing: Missing) -> Result<(), Fault> {
        for (spec, (context, _)) in missing {
            // It may have fallen with another owner of it.
            if state.graph.is_undecided(spec) {
                let abort = Event::Abort { owner: Owner::Context(context), spec, code: 1, retry: false };
                for (_, fallen, _) in self.carry_out_abort(state, &abort)?.undone {
                    tracing::warn!("speculation {fallen} falls with what it depended on, which was undecided");
                }
            }
            state.apply(&Event::Close { context }).map_err(graph_fault)?;
        }
        Ok(())
    }

    /// Votes again as a restored job's owner had. A vote that nothing keeps from being final any more is left for its owner to
    /// repeat.
    fn restore_vote(&self, state: &mut State, spec: SpecId) -> Result<(), Fault> {
        let Some(job) = state.jobs.get(&spec) else { return Ok(()) };
        let votes = job.votes();
        match state.is_final_by(spec, &votes)? {
            true => Ok(()),
            false => {
                state.jobs.entry(spec).and_modify(|job| job.votes = true);
                let voted = self.vote(state, spec, &votes, &Preparation::of(None)).map(drop);
                state.jobs.entry(spec).and_modify(|job| job.votes = false);
                voted
            }
        }
    }

    fn restore_one(&self, state: &mut State, held: Held, payload: Payload) -> Result<(), StoreError> {
        let (spec, context) = (held.spec, payload.context);
        let entry = payload.entry;
        let first = IntervalId(self.store.next_id()?);
        let outer = payload.outer.last().and_then(|number| state.graph.writer_of(*number));
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
            marks_modified: false,
            state: SpecState::Held,
            stage: Stage::Ended,
            kept: true,
            recorded: true,
            votes: false,
            begun_during: 0,
            kind: Kind::Job,
            restarts: None,
            no_checkpoint: None,
            probed: None,
            doomed: false,
            supervised: false,
            counted: None,
            over: Arc::default(),
            bytes: Arc::new(payload.bytes.into()),
        };
        state.insert(job);
        Ok(())
    }
}

/// What one depends on may have become part of another since that was written down: that stands for it.
fn name_wholes(kept: &mut [(Held, Payload)]) {
    let parts: Vec<(SpecId, Specs)> = kept.iter().map(|(held, _)| (held.spec, held.parts.clone())).collect();
    let whole = |spec| parts.iter().find(|(_, parts)| parts.contains(spec)).map_or(spec, |(whole, _)| *whole);
    for (held, payload) in kept {
        let joined = std::mem::take(&mut payload.joined).into_iter().map(|(spec, key)| (whole(spec), key));
        payload.joined = joined.filter(|(spec, _)| *spec != held.spec).collect();
        payload.owns = payload.owns.iter().map(|spec| whole(*spec)).filter(|spec| *spec != held.spec).collect();
    }
}

/// What is on record could not be taken up: the disk failed, or the records make no sense.
fn failed(fault: Fault) -> StoreError {
    match fault.kind {
        FaultKind::NoSpace => StoreError::NoSpace(fault.to_string()),
        FaultKind::Io | FaultKind::InDoubt => StoreError::Records(fault.to_string()),
        _ => StoreError::corrupt(format!("a held speculation: {fault}")),
    }
}

impl Payload {
    /// What was written, with the conflicts that may come and the directories of the host that it is about; older versions of the
    /// program wrote none of these, or the conflicts only.
    pub(super) fn decode(bytes: &[u8]) -> Result<(Self, Vec<Looming>), codec::CodecError> {
        if let Ok((mut payload, looming, dirs)) = codec::decode::<(Self, _, _)>(bytes) {
            payload.info.dirs = dirs;
            return Ok((payload, looming));
        }
        codec::decode(bytes).or_else(|_| Ok((codec::decode(bytes)?, Vec::new())))
    }
}

/// A directory that lies elsewhere than what is final says: what its move rests on.
fn moved_places(store: &Store, seen: &Sight, ino: Ino) -> Result<Vec<(AccessKey, Access)>, StoreError> {
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
    let mut places = vec![(AccessKey::Place(ino), Access::Write)];
    while at != Ino::ROOT && places.len() < PARENTS_MAX {
        places.push((AccessKey::Place(at), Access::Update));
        match parent(seen, at)? {
            Some(above) => at = above,
            None => break,
        }
    }
    Ok(places)
}

/// What a changed record means for conflicts, as the operation that changed it reported it.
fn accessed(store: &Store, seen: &Sight, key: &Key) -> Result<Vec<(AccessKey, Access)>, StoreError> {
    Ok(match key {
        Key::Inode(ino) => {
            let inode = store.inode(seen, *ino)?.found;
            let removed = inode.is_some_and(|inode| inode.kind == FileKind::Directory && inode.nlink == 0);
            let listing = removed.then_some((AccessKey::Listing(*ino), Access::Write));
            let places = moved_places(store, seen, *ino)?;
            listing.into_iter().chain([(AccessKey::Inode(*ino), Access::Write)]).chain(places).collect()
        }
        Key::Entry(parent, name) => {
            vec![
                (AccessKey::Entry(*parent, name.clone()), Access::Write),
                (AccessKey::Listing(*parent), Access::Update),
            ]
        }
        Key::Xattr(ino, name) => {
            vec![(AccessKey::Xattr(*ino, name.clone()), Access::Write), (AccessKey::XattrList(*ino), Access::Update)]
        }
        Key::DirStat(_) | Key::Inline(_) | Key::Block(..) => Vec::new(),
    })
}

/// What a held speculation has changed, as far as it matters for conflicts.
fn changes(store: &Store, held: &Held) -> Result<Vec<(AccessKey, Access)>, StoreError> {
    let mut live = held.intervals.clone();
    live.sort_unstable();
    let seen = Sight { snapshot: held.snapshot, live: live.into(), ..Sight::trunk() };
    let mut changes = Vec::new();
    for interval in &held.intervals {
        let mut after = None;
        loop {
            let page = store.changes(*interval, after.as_ref(), CHANGES_READ_MAX)?;
            for key in &page {
                changes.extend(accessed(store, &seen, key)?);
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last),
                None => break,
            }
        }
    }
    Ok(changes)
}
