//! Aborts: what is undone, and what falls with it.

use super::status::{decided, into_its_surroundings};
use super::{Aftermath, Coordinator, Job, State, graph_fault};
use crate::ops::fault;
use crate::store::StoreError;
use crate::telling::Telling;
use mojavefs::graph::{Effect, Event, Owner};
use mojavefs::id::SpecId;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Outcome, SpecState};
use std::collections::BTreeSet;

/// How far an abort is.
enum Abort {
    Done(Outcome, Box<Aftermath>),
    /// These records are to be removed first.
    OnRecord(Vec<SpecId>),
}

/// What an abort does with the records of what is held or voted for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Records {
    /// They are removed.
    Go,
    /// They are removed already, or nothing can be removed.
    Stay,
}

impl Coordinator {
    /// An abort by the owner or root, or, with no user, because the owner is gone. Blocks for the disk if it outlives a restart;
    /// nobody else is held up.
    ///
    /// # Errors
    /// [`FaultKind::Sealed`] as for a commit.
    pub(crate) fn abort(
        &self,
        spec: SpecId,
        uid: Option<u32>,
        telling: &mut Telling<'_>,
    ) -> Result<(Outcome, Aftermath), Fault> {
        loop {
            let recorded = {
                let _exclusive = self.decisions.write();
                match self.try_abort(&mut self.state.lock(), spec, uid)? {
                    Abort::Done(outcome, aftermath) => return Ok((outcome, *aftermath)),
                    Abort::OnRecord(recorded) => recorded,
                }
            };
            let released = telling.apart(|| self.store.release(&recorded));
            released.map_err(|error| self.not_released(spec, &recorded, error))?;
        }
    }

    fn try_abort(&self, state: &mut State, spec: SpecId, uid: Option<u32>) -> Result<Abort, Fault> {
        // It may have fallen with another just now.
        if let Some(outcome) = decided(state, &self.store, spec, SpecState::Aborted)? {
            return Ok(Abort::Done(outcome, Box::default()));
        }
        let job = state.job(spec, uid.unwrap_or(0))?;
        if job.state == SpecState::Voted && state.outer(spec).is_some() {
            return Err(into_its_surroundings(spec));
        }
        state.demand_unsealed(spec)?;
        let recorded = state.recorded_with(spec);
        if !recorded.is_empty() {
            recorded.iter().try_for_each(|spec| state.demand_unconcerned(&state.jobs[spec], &self.conflicts))?;
            for spec in &recorded {
                state.jobs.entry(*spec).and_modify(|job| job.recorded = false);
            }
            return Ok(Abort::OnRecord(recorded));
        }
        let job = &state.jobs[&spec];
        let changes = state.parts(spec).iter().map(|part| state.changes(part, &self.store)).sum();
        let outcome = Outcome::of(spec, SpecState::Aborted, changes);
        // What it owns beside its own it entered later: that falls with it.
        let event = Event::Abort { owner: job.owner(), spec, code: 1, retry: false };
        let aftermath = self.carry_out_abort(state, &event)?;
        Ok(Abort::Done(Outcome { undone: aftermath.fallen_with(spec), ..outcome }, Box::new(aftermath)))
    }

    /// What was to be removed from the record may be there still: nothing has happened.
    fn not_released(&self, spec: SpecId, recorded: &[SpecId], error: StoreError) -> Fault {
        let mut state = self.state.lock();
        for spec in recorded {
            if let Some(job) = state.jobs.get_mut(spec) {
                job.recorded = true;
                self.conflicts.outdated(job.context);
            }
        }
        still_undecided(spec, error)
    }

    /// Undoes a speculation and everything on top of it. After an error whoever owns the views is owed what it led to.
    pub(super) fn carry_out_abort(&self, state: &mut State, abort: &Event) -> Result<Aftermath, Fault> {
        self.carry_out(state, abort, Records::Go)
    }

    pub(super) fn carry_out(&self, state: &mut State, abort: &Event, records: Records) -> Result<Aftermath, Fault> {
        let mut aftermath = Aftermath::default();
        let records = match (records, abort) {
            (Records::Go, Event::Abort { spec, .. }) => self.release(state, *spec)?,
            _ => records,
        };
        match self.undo(state, abort, records, &mut aftermath) {
            Ok(()) => Ok(aftermath),
            Err(fault) => {
                state.outstanding.push(aftermath);
                Err(fault)
            }
        }
    }

    /// What outlives a restart is undone there first, to be on disk before what is written next: if that can't be, nothing has
    /// happened.
    fn release(&self, state: &State, spec: SpecId) -> Result<Records, Fault> {
        let recorded = state.recorded_with(spec);
        if recorded.is_empty() {
            return Ok(Records::Go);
        }
        self.store.forget_held(&recorded).map_err(|error| still_undecided(spec, error))?;
        Ok(Records::Stay)
    }

    fn undo(&self, state: &mut State, abort: &Event, records: Records, aftermath: &mut Aftermath) -> Result<(), Fault> {
        let reads = state.inner_reads();
        let nesting = state.nesting_of(abort);
        let effects = state.apply(abort).map_err(graph_fault)?;
        state.fallen_from = nesting;
        let falls = self.falls(state, &effects);
        let mut failed = None;
        let mut gone = BTreeSet::new();
        self.tell_decided();
        for effect in effects {
            let Effect::Dead { numbers: all, specs, .. } = effect else { continue };
            gone.extend(specs.iter().copied());
            let jobs: Vec<Job> = specs.iter().filter_map(|spec| state.remove(*spec)).collect();
            let recorded = jobs.iter().filter(|job| job.recorded && records == Records::Go);
            let held: Vec<SpecId> = recorded.map(|job| job.spec).collect();
            state.end_contexts(&jobs);
            if let Err(error) = self.store.abort(&all, &held) {
                failed = Some(fault::store(error));
            }
            aftermath.dead.extend(all);
            for job in jobs {
                state.note_undone(&job);
                let outer = state.outer(job.spec);
                if job.is_segment() {
                    state.goes_back(outer);
                } else if job.is_held() || job.state == SpecState::Voted && outer.is_none() {
                    aftermath.left_alone.insert(job.spec);
                }
                self.conflicts.decided(job.context, true);
                aftermath.undone.push((job.context, job.spec, falls.get(&job.spec).cloned()));
                aftermath.jobs.push(job);
            }
        }
        state.fallen_from.clear();
        if let Err(fault) = self.pass_on_reads(state, reads, aftermath) {
            failed = Some(fault);
        }
        // A further owner goes on in the graph from before it was one; its job can't.
        let owner = |job: &&Job| job.owns.iter().any(|owned| gone.contains(owned));
        let owners: Vec<(SpecId, Owner)> =
            state.jobs.values().filter(owner).map(|job| (job.spec, job.owner())).collect();
        for (spec, owner) in owners {
            if state.jobs.contains_key(&spec) {
                let abort = Event::Abort { owner, spec, code: 1, retry: false };
                if let Err(fault) = self.undo(state, &abort, records, aftermath) {
                    failed = Some(fault);
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn still_undecided(spec: SpecId, error: StoreError) -> Fault {
    let fault = fault::store(error);
    let text = format!(
        "speculation {spec} can't be undone now and is undecided still: {fault}; `mojavefs abort {spec}` tries again"
    );
    Fault::new(fault.kind, text)
}
