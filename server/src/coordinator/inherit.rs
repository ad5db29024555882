//! An inner job, level or segment that is committed becomes part of what is around it: so do its dependencies, and who depended on
//! it depends on that. What an inner job has read counts for the outer one when the inner one is undone, too: the outer one's
//! command has seen how it ended and what it said.

use super::held::write_down;
use super::job::{Kind, Met};
use super::state::State;
use super::{Aftermath, Coordinator, Job, graph_fault};
use crate::access::AccessKey;
use crate::ops::fault;
use mojavefs::graph::{Event, Resume};
use mojavefs::id::{ContextId, Ino, IntervalId, SpecId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Back, SpecState};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// What a job inside of another depends on.
pub(super) struct InnerReads {
    spec: SpecId,
    /// The speculation around it.
    outer: SpecId,
    back: Back,
    /// What it builds on, oldest first.
    of: Vec<IntervalId>,
    joined: Vec<(SpecId, Met)>,
}

impl Job {
    /// Where it goes back to if something falls that an inner one, which is part of it now, depended on.
    fn goes_back_for(&self, inner: &Job) -> Back {
        let inside = || "a speculation inside of it read it".to_owned();
        match self.kind {
            _ if inner.is_segment() => Back::Start("its command has ended".to_owned()),
            Kind::Job => Back::Start(inside()),
            Kind::Segment { .. } => Back::Earlier(inside()),
            Kind::Level => Back::Entry,
        }
    }
}

impl Coordinator {
    /// What jobs inside of others had read that are undone now: those around them depend on what is left of that.
    pub(super) fn pass_on_reads(
        &self,
        state: &mut State,
        reads: Vec<InnerReads>,
        aftermath: &mut Aftermath,
    ) -> Result<(), Fault> {
        for reads in reads {
            // One that is just being decided has voted.
            let stays = |outer: &&Job| {
                matches!(outer.state, SpecState::Running | SpecState::Held) && !state.graph.is_sealed(outer.context)
            };
            let outer = state.jobs.get(&reads.outer).filter(stays);
            let Some(context) = outer.filter(|_| !state.jobs.contains_key(&reads.spec)).map(|outer| outer.context)
            else {
                continue;
            };
            let mut joins = Vec::new();
            for of in reads.of.into_iter().rev() {
                let current = state.graph.current(context);
                let knows = current.is_some_and(|current| state.graph.builds_on(current, of));
                if !knows && state.graph.is_live(of) {
                    let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
                    let read = Event::Read { context, of, interval, resume: Resume::Start };
                    state.apply(&read).map_err(graph_fault)?;
                    joins.extend(state.graph.writer_of(of).and_then(|context| state.of(context)).map(|job| job.spec));
                }
            }
            if !joins.is_empty() {
                // Some were read only by what is undone with the inner one.
                let first = reads.joined.first().map(|(_, met)| met.clone());
                let further = joins.into_iter().map(|spec| state.part_of(spec)).zip(first.into_iter().cycle());
                let joined = reads.joined.into_iter().chain(further).collect();
                state.note_reads(reads.outer, reads.back, joined);
                match write_down(state, reads.outer, &self.store, &self.conflicts) {
                    Err(fault) if fault.kind == FaultKind::Sealed => self.conflicts.outdated(context),
                    written => written?,
                }
                aftermath.rescoped.push(context);
                aftermath.rescoped.extend(state.open_inside(context));
            }
        }
        Ok(())
    }
}

impl State {
    /// What the jobs depend on that are inside of others and that an event may undo.
    pub(super) fn inner_reads(&self) -> Vec<InnerReads> {
        let inner = self.jobs.values().filter(|job| job.kind == Kind::Job && job.state == SpecState::Running);
        let reads = |job: &Job| {
            let outer = self.jobs.get(&self.taken_in_by(job.spec)?)?;
            let parts = self.parts(job.spec);
            let joined = parts.iter().flat_map(|part| part.joined.iter().map(|(spec, met)| (*spec, met.clone())));
            let joined: Vec<_> = joined.collect();
            let current = self.graph.current(parts.last()?.context).filter(|_| !joined.is_empty())?;
            let of = self.graph.visible(current);
            Some(InnerReads { spec: job.spec, outer: outer.spec, back: outer.goes_back_for(job), of, joined })
        };
        inner.filter_map(reads).collect()
    }

    /// The jobs around one, or the level that it was started in, that answer for what it has read though it may be undone, as they
    /// stay with what they found.
    pub(super) fn answer_for(&self, job: &Job) -> Vec<ContextId> {
        let next = |job: &&Job| -> Option<&Job> {
            let outer = (job.kind == Kind::Job).then(|| self.outer(job.spec)).flatten();
            outer.and_then(|outer| self.jobs.get(&outer)).filter(|outer| outer.snapshot.is_some())
        };
        std::iter::successors(next(&job), next).map(|outer| outer.context).collect()
    }

    /// A job depends on these, too, and goes back there for them.
    fn note_reads(&mut self, spec: SpecId, back: Back, joined: Vec<(SpecId, Met)>) {
        let whole = self.part_of(spec);
        let is_new = |other: &SpecId| *other != whole && *other != spec && self.jobs.contains_key(other);
        let joined: Vec<_> = joined.into_iter().filter(|(other, _)| is_new(other)).collect();
        if let Some(job) = self.jobs.get_mut(&spec) {
            for (other, Met { key, .. }) in joined {
                job.joined.entry(other).or_insert_with(|| Met { key, back: back.clone() });
            }
        }
    }

    /// What one becomes part of: the next around it that is not part of something itself.
    pub(super) fn taken_in_by(&self, spec: SpecId) -> Option<SpecId> {
        let is_over = |outer: &SpecId| self.jobs.get(outer).is_some_and(|job| job.over.load(Ordering::SeqCst));
        self.around(spec).into_iter().skip(1).find(|outer| !is_over(outer))
    }

    /// A speculation and those that are part of it.
    pub(super) fn all_parts(&self, whole: SpecId) -> Vec<SpecId> {
        let inside = self.jobs.get(&whole).map(|job| self.graph.inside(job.context)).unwrap_or_default();
        let specs = inside.iter().filter_map(|inner| self.of(*inner)).map(|inner| inner.spec);
        specs.filter(|part| self.part_of(*part) == whole).chain([whole]).collect()
    }

    /// What others own of a job, with all that is part of it, and what that owns of others.
    fn owned_in_common(&self, whole: SpecId) -> BTreeSet<SpecId> {
        let parts = self.all_parts(whole);
        let owns = |job: &&Job| job.owns.iter().any(|owned| parts.contains(owned));
        let owned = parts.iter().filter_map(|part| self.jobs.get(part)).flat_map(|part| &part.owns);
        let owners = self.jobs.values().filter(owns).map(|owner| &owner.spec);
        owned.chain(owners).map(|spec| self.part_of(*spec)).filter(|spec| *spec != whole).collect()
    }

    /// What a speculation is part of by now, for others to depend on; mostly itself.
    pub(super) fn part_of(&self, mut spec: SpecId) -> SpecId {
        // One inside of another that is over has been committed into that.
        let is_part = |job: &&Job| job.is_segment() || job.over.load(Ordering::SeqCst);
        while let Some(outer) = self.jobs.get(&spec).filter(is_part).and_then(|job| self.outer(job.spec)) {
            spec = outer;
        }
        spec
    }

    /// An inner one was folded into what is around it. Returns the contexts of the others that depended on it, or that
    /// owned it or were owned by it.
    pub(super) fn inherit(&mut self, inner: SpecId) -> Vec<ContextId> {
        let Some(job) = self.jobs.get(&inner) else { return Vec::new() };
        let Some(outer) = self.taken_in_by(inner).and_then(|outer| self.jobs.get(&outer)) else { return Vec::new() };
        let (parent, back, whole) = (outer.spec, outer.goes_back_for(job), self.part_of(inner));
        // What it owned together with others it has voted for; it falls with that.
        let owned = job.owns.iter().map(|spec| (self.part_of(*spec), AccessKey::Inode(Ino::ROOT)));
        let in_common = self.owned_in_common(whole);
        let joined: Vec<_> = job.joined.iter().map(|(spec, met)| (*spec, met.key.clone())).chain(owned).collect();
        if let Some(outer) = self.jobs.get_mut(&parent) {
            for (spec, key) in joined.into_iter().filter(|(spec, _)| *spec != whole && *spec != parent) {
                outer.joined.entry(spec).or_insert_with(|| Met { key, back: back.clone() });
            }
        }
        let others: Vec<SpecId> =
            self.jobs.values().filter(|job| job.joined.contains_key(&inner)).map(|j| j.spec).collect();
        for other in &others {
            let is_itself = self.part_of(*other) == whole;
            let Some(other) = self.jobs.get_mut(other) else { continue };
            if let Some(met) = other.joined.remove(&inner).filter(|_| !is_itself) {
                other.joined.entry(whole).or_insert(met);
            }
        }
        others.iter().chain(&in_common).filter_map(|other| self.jobs.get(other)).map(|other| other.context).collect()
    }
}
