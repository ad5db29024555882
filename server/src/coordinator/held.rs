//! Held speculations: owned by the store, they survive every process and every restart.

use super::conflicts::{Conflicts, Standing};
use super::{Coordinator, Job, State, graph_fault};
use crate::ops::fault;
use crate::store::{Held, Key, Sight, Store, StoreError};
use crate::touch::{Touch, TouchKey};
use mojavefs::codec;
use mojavefs::error::Fault;
use mojavefs::file::FileKind;
use mojavefs::graph::Event;
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs::wire::{JobInfo, Outcome, SpecState};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
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
}

fn record(job: &Job, outer: &[IntervalId], snapshot: Seq, conflicts: &Conflicts) -> Result<Held, StoreError> {
    let payload = Payload {
        context: job.context,
        entry: job.entry,
        info: job.info.clone(),
        since: job.since,
        bytes: job.bytes.load(Ordering::Relaxed),
        outer: outer.to_vec(),
        standing: conflicts.of(job.context),
        reads: conflicts.reads_of(job.context),
    };
    let payload = codec::encode(&payload).map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?;
    Ok(Held { spec: job.spec, intervals: job.intervals.clone(), snapshot, payload })
}

impl Coordinator {
    /// The store takes over as the owner of a speculation.
    pub(crate) fn hold(&self, spec: SpecId, uid: u32) -> Result<Outcome, Fault> {
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let job = state.job(spec, uid)?;
        let (context, already) = (job.context, job.is_held());
        let held = record(job, &job.outer, job.snapshot.seq(), &self.conflicts).map_err(fault::store)?;
        let changes = job.changes(&self.store);
        self.store.hold(&held).map_err(fault::store)?;
        if !already {
            state.graph.apply(&Event::Hold { context, spec }).map_err(graph_fault)?;
        }
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.state = SpecState::Held;
        }
        Ok(Outcome { spec, state: SpecState::Held, changes, conflicts: Vec::new(), conflicts_more: 0 })
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

    /// Writes down again what a held speculation has become, after a view of it closed or a conflict arose.
    pub(crate) fn hold_again(&self, spec: SpecId) -> Result<(), Fault> {
        match self.is_held(spec) {
            true => self.hold(spec, 0).map(drop),
            false => Ok(()),
        }
    }

    /// Takes up what was held when the store was closed; what it was nested in and is gone takes it along.
    pub(super) fn restore(&self) -> Result<(), StoreError> {
        let held = self.store.held()?;
        let kept: Vec<IntervalId> = held.iter().flat_map(|held| held.intervals.iter().copied()).collect();
        let mut state = self.state.lock();
        for held in held {
            let payload: Payload = codec::decode(&held.payload)
                .map_err(|why| StoreError::corrupt(format!("a held speculation: {why}")))?;
            if !payload.outer.iter().all(|outer| kept.contains(outer)) {
                tracing::warn!("speculation {} falls with the job around it, which was undecided", held.spec);
                self.store.abort(&held.intervals, &[held.spec])?;
                continue;
            }
            self.restore_one(&mut state, held, payload)?;
        }
        Ok(())
    }

    fn restore_one(&self, state: &mut State, held: Held, payload: Payload) -> Result<(), StoreError> {
        let (spec, context) = (held.spec, payload.context);
        // It goes on writing where it did before: what inner jobs committed into it lies in between.
        let entry = held.intervals.last().copied().unwrap_or(payload.entry);
        let first = held.intervals.iter().copied().find(|interval| *interval != entry);
        // The last one that began is the innermost.
        let mut outer = state.jobs.values().rev();
        let outer = outer.find(|job| job.intervals.iter().any(|i| payload.outer.contains(i)));
        let (parent, parent_context) = outer.map(|outer| (outer.spec, outer.context)).unzip();
        let from = parent_context.and_then(|context| state.graph.current(context));
        let events = [
            Event::Open { context, interval: first.unwrap_or(entry), from },
            Event::Speculate { context, interval: entry, spec },
            Event::Hold { context, spec },
        ];
        for event in &events {
            state.graph.apply(event).map_err(|why| StoreError::corrupt(format!("speculation {spec}: {why}")))?;
        }
        self.conflicts.open(context, parent_context);
        let seen = Sight { snapshot: held.snapshot, live: held.intervals.as_slice().into(), ..Sight::trunk() };
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
        let snapshot = Arc::new(self.store.adopt_snapshot(held.snapshot));
        let job = Job {
            spec,
            context,
            entry,
            info: payload.info,
            since: payload.since,
            parent,
            parent_context,
            depth: 1,
            snapshot,
            intervals: held.intervals,
            outer: payload.outer,
            state: SpecState::Held,
            bytes: Arc::new(payload.bytes.into()),
        };
        state.jobs.insert(spec, job);
        Ok(())
    }
}

/// What a changed record means for conflicts, as the operation that changed it reported it.
fn touched(store: &Store, seen: &Sight, key: &Key) -> Result<Vec<(TouchKey, Touch)>, StoreError> {
    Ok(match key {
        Key::Inode(ino) => {
            let inode = store.inode(seen, *ino)?.found;
            let removed = inode.is_some_and(|inode| inode.kind == FileKind::Directory && inode.nlink == 0);
            let listing = removed.then_some((TouchKey::Listing(*ino), Touch::Write));
            listing.into_iter().chain([(TouchKey::Inode(*ino), Touch::Write)]).collect()
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
    /// The records of held jobs that see these intervals, as they will be once those are final at `seq`.
    pub(super) fn rebased_records(
        &self,
        intervals: &[IntervalId],
        seq: Seq,
        conflicts: &Conflicts,
    ) -> Result<Vec<Held>, StoreError> {
        let concerned = self.jobs.values().filter(|job| job.is_held() && job.sees_any(intervals));
        let record = |job: &Job| {
            let outer: Vec<IntervalId> = job.outer.iter().copied().filter(|o| !intervals.contains(o)).collect();
            record(job, &outer, seq, conflicts)
        };
        concerned.map(record).collect()
    }

    /// Jobs that were started inside these intervals, which are final at `seq` now, are based on what is final then.
    pub(super) fn rebase(&mut self, intervals: &[IntervalId], store: &Store, seq: Seq) -> Vec<ContextId> {
        let mut rebased = Vec::new();
        let undecided: HashSet<SpecId> = self.jobs.keys().copied().collect();
        for job in self.jobs.values_mut().filter(|job| job.sees_any(intervals)) {
            job.outer.retain(|outer| !intervals.contains(outer));
            job.snapshot = Arc::new(store.adopt_snapshot(seq));
            if job.parent.is_some_and(|parent| !undecided.contains(&parent)) {
                job.parent = None;
                job.parent_context = None;
            }
            rebased.push(job.context);
        }
        rebased
    }
}
