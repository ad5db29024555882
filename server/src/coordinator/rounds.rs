//! Rounds (rule 12 of the interval graph): a decision is sealed, recorded, and switched.
//!
//! What a commit makes final is sealed under the lock that keeps operations out, in memory. Then it is written down and made
//! durable while no lock is held, and everybody else goes on, but for those who would change what is sealed, or conflict with it
//! by something that is final at once, or need a record of what the round is about. Then it takes effect, in memory. Several are
//! under way at a time, as long as they have nothing to do with each other; the log is synced for all together.

#[cfg(test)]
mod histories;

use super::conflicts::{Conflicts, Standing};
use super::{Aftermath, Coordinator, Job, State, graph_fault};
use crate::access::{Access, AccessKey};
use crate::ops::fault;
use crate::store::{Key, Prepared, Rebased, Specs, StoreError};
use mojavefs::graph::Event;
use mojavefs::id::{ContextId, Ino, IntervalId, SpecId};
use mojavefs::limits::{ROUND_STEP, ROUND_TIME_MAX};
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What a round makes final.
#[derive(Clone)]
pub(super) struct Sealed {
    /// Whose vote it was.
    voter: SpecId,
    /// Rounds are counted as they begin.
    number: u64,
    since: Instant,
    numbers: Vec<IntervalId>,
    /// Those of them whose changes count as modified by it.
    modified: Vec<IntervalId>,
    specs: Vec<SpecId>,
    contexts: Vec<ContextId>,
    /// Held speculations that are so no more.
    released: Vec<SpecId>,
}

/// A context that may not be changed for now.
pub(super) struct Stopped {
    /// As of rounds.
    number: u64,
    since: Instant,
    spec: SpecId,
    context: ContextId,
}

/// While it lives, whatever would change a context waits, as it does for a round.
pub(super) struct Stop<'a> {
    coordinator: &'a Coordinator,
    number: u64,
}

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.coordinator.state.lock().stopped.retain(|stopped| stopped.number != self.number);
        self.coordinator.rounds.fetch_sub(1, Ordering::SeqCst);
        self.coordinator.decided.notify_all();
    }
}

/// A round that is to be recorded.
pub(super) struct Round {
    sealed: Sealed,
    /// All that is committed by it, with what has become part of that.
    committed: Specs,
    /// The new records of held jobs that build on it or lose by it.
    rebased: Vec<Rebased>,
}

impl Sealed {
    /// Whether it was under way already when a job began.
    pub(super) fn is_before(&self, job: &Job) -> bool {
        self.number <= job.begun_during
    }

    pub(super) fn fault(&self) -> Fault {
        sealed(self.voter)
    }
}

fn sealed(spec: SpecId) -> Fault {
    Fault::new(FaultKind::Sealed, format!("speculation {spec} is just being decided"))
}

impl Job {
    /// It builds on these speculations, which are becoming final, or loses by that.
    pub(super) fn is_concerned(
        &self,
        specs: &[SpecId],
        based: &BTreeMap<SpecId, bool>,
        losers: &HashMap<ContextId, Standing>,
    ) -> bool {
        self.builds_on(specs) || based.contains_key(&self.spec) || losers.contains_key(&self.context)
    }
}

impl State {
    /// Nothing of a speculation, nor around it, is being decided.
    pub(super) fn demand_unsealed(&self, spec: SpecId) -> Result<(), Fault> {
        if self.rounds.is_empty() {
            return Ok(());
        }
        let around = self.around(spec).into_iter().filter_map(|spec| self.jobs.get(&spec));
        match around.map(|job| job.context).find(|context| self.graph.is_sealed(*context)) {
            Some(_) => Err(sealed(spec)),
            None => Ok(()),
        }
    }

    /// No round that is under way is about a job, or about what it builds on, and the job loses by none: else what is on record of it
    /// changes with that round, and it is neither decided nor written down before.
    pub(super) fn demand_unconcerned(&self, job: &Job, conflicts: &Conflicts) -> Result<(), Fault> {
        for round in &self.rounds {
            let is_about = round.specs.iter().chain(&round.released).any(|spec| *spec == job.spec);
            let (based, losers) = (self.based_on(&round.numbers), conflicts.of_losers(&round.contexts));
            if is_about || job.is_concerned(&round.specs, &based, &losers) {
                return Err(round.fault());
            }
        }
        Ok(())
    }

    /// The rounds, and whatever else is waited for like one: by number, and since when.
    fn waited_for(&self) -> impl Iterator<Item = (u64, Instant)> {
        let stopped = self.stopped.iter().map(|stopped| (stopped.number, stopped.since));
        self.rounds.iter().map(|round| (round.number, round.since)).chain(stopped)
    }

    /// The number of the last round that is under way; 0 if none is.
    pub(super) fn last_round(&self) -> u64 {
        self.rounds.last().map_or(0, |round| round.number)
    }
}

impl Coordinator {
    /// Seals what a vote makes final, which has no conflicts. Refused while another round is under way that has to do with it.
    /// `specs` and `numbers` are what the vote would make final.
    pub(super) fn seal(
        &self,
        state: &mut State,
        voter: SpecId,
        (numbers, specs): (Vec<IntervalId>, Vec<SpecId>),
    ) -> Result<Round, Fault> {
        let owner = state.jobs[&voter].owner();
        let jobs: Vec<&Job> = specs.iter().filter_map(|spec| state.jobs.get(spec)).collect();
        let contexts: Vec<ContextId> = jobs.iter().map(|job| job.context).collect();
        jobs.iter().try_for_each(|job| state.demand_unconcerned(job, &self.conflicts))?;
        let modified =
            jobs.iter().filter(|job| job.marks_modified).flat_map(|job| state.graph.carried_by(job.context)).collect();
        let losers = self.conflicts.of_losers(&contexts);
        let loses = |other: &&Sealed| other.contexts.iter().any(|context| losers.contains_key(context));
        if let Some(other) = state.rounds.iter().find(loses).filter(|_| !is_planted(Planted::RoundBesideItsRival)) {
            return Err(sealed(other.voter));
        }
        let recorded = jobs.iter().filter(|job| job.recorded).map(|job| job.spec);
        let released: Vec<SpecId> = recorded.chain(jobs.iter().filter_map(|job| job.replaces)).collect();
        let mut committed: Specs = jobs.iter().map(|job| job.spec).collect();
        jobs.iter().for_each(|job| committed.extend(&job.parts));
        let mut rebased = state.rebased_records(&numbers, &specs, (&self.conflicts, losers)).map_err(fault::store)?;
        rebased.retain(|rebased| !released.contains(&rebased.held.spec));
        state.apply(&Event::Prepare { owner, spec: voter }).map_err(graph_fault)?;
        state.rounds_begun += 1;
        let sealed = Sealed {
            voter,
            number: state.rounds_begun,
            since: Instant::now(),
            numbers,
            modified,
            specs,
            contexts,
            released,
        };
        state.rounds.push(sealed.clone());
        self.rounds.fetch_add(1, Ordering::SeqCst);
        Ok(Round { sealed, committed, rebased })
    }

    /// Writes a round down and makes it durable. Blocks for the disk; no lock is held.
    pub(super) fn record_round(&self, round: &Round) -> Result<Prepared, StoreError> {
        let Sealed { numbers, modified, released, .. } = &round.sealed;
        let prepared = self.store.prepare((numbers, modified), &round.committed, released, &round.rebased)?;
        self.store.make_durable(&prepared)?;
        Ok(prepared)
    }

    /// What was sealed takes effect, or it does not if it could not be recorded.
    pub(super) fn end_round(
        &self,
        state: &mut State,
        round: &Round,
        recorded: Result<Prepared, StoreError>,
    ) -> Result<Aftermath, Fault> {
        let Sealed { voter, numbers, specs, contexts, .. } = &round.sealed;
        debug_assert!(
            contexts.iter().all(|context| self.conflicts.of(*context).is_empty()),
            "a conflict with what was sealed"
        );
        state.rounds.retain(|other| other.voter != *voter);
        self.rounds.fetch_sub(1, Ordering::SeqCst);
        self.tell_decided();
        let prepared = match recorded {
            Ok(prepared) => prepared,
            Err(error) => {
                state.apply(&Event::Cancel { spec: *voter }).map_err(graph_fault)?;
                return Err(self.not_committed(state, specs, error));
            }
        };
        let based = state.based_on(numbers);
        state.apply(&Event::Confirm { spec: *voter }).map_err(graph_fault)?;
        let seq = self.store.confirm(prepared);
        let jobs: Vec<Job> = specs.iter().filter_map(|spec| state.remove(*spec)).collect();
        let rescoped = state.rebase(&based, specs, &self.store, seq);
        let mut aftermath = Aftermath { rescoped, ..Aftermath::default() };
        jobs.iter().for_each(|job| self.conflicts.decided(job.context, false));
        state.end_contexts(&jobs);
        aftermath.on_trunk.extend(numbers);
        aftermath.committed.extend(jobs.iter().map(|job| (job.context, job.spec)));
        aftermath.jobs.extend(jobs);
        Ok(aftermath)
    }

    /// A file may be locked: it is not part of what is being decided. Called while nothing can be sealed.
    pub(crate) fn demand_lockable(&self, ino: Ino) -> Result<(), Fault> {
        if self.rounds.load(Ordering::SeqCst) == 0 {
            return Ok(());
        }
        for round in &self.state.lock().rounds {
            let mut changed = round.numbers.iter().map(|number| self.store.has_changed(*number, &Key::Inode(ino)));
            if changed.any(|changed| changed.unwrap_or(true)) {
                return Err(round.fault());
            }
        }
        Ok(())
    }

    /// Whether something is being decided, or kept from being changed.
    pub(crate) fn has_rounds(&self) -> bool {
        self.rounds.load(Ordering::SeqCst) > 0
    }

    /// Waits until a round that is under way has ended; not at all if none is. Whether one has: else all of them have been under way for
    /// too long, or, where that does not matter (`patient`), some time has gone by.
    pub(crate) fn wait_for_round(&self, patient: bool) -> bool {
        let mut state = self.state.lock();
        let before: Vec<(u64, Instant)> = state.waited_for().collect();
        // Which of them is in the way is not known here: one that takes long must not speak for another that has just begun.
        let Some(last) = before.iter().map(|(_, since)| *since).max() else { return true };
        let until = if patient { Instant::now() + ROUND_STEP } else { last + ROUND_TIME_MAX };
        // Later ones do not count.
        let all_go_on =
            |state: &mut State| before.iter().all(|(number, _)| state.waited_for().any(|(now, _)| now == *number));
        self.decided.wait_while_until(state.inner(), all_go_on, until);
        !all_go_on(&mut state)
    }

    /// Repeats a decision until nothing that is being decided is in its way: somebody is gone who could ask again. No lock is held, but
    /// by `work`.
    pub(crate) fn beside_rounds<T>(&self, mut work: impl FnMut() -> Result<T, Fault>) -> Result<T, Fault> {
        loop {
            match work() {
                Err(fault) if fault.kind == FaultKind::Sealed => drop(self.wait_for_round(true)),
                result => return result,
            }
        }
    }

    /// Keeps a context from being changed.
    pub(super) fn stop_changes(&self, spec: SpecId, context: ContextId) -> Stop<'_> {
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        state.rounds_begun += 1;
        let number = state.rounds_begun;
        state.stopped.push(Stopped { number, since: Instant::now(), spec, context });
        self.rounds.fetch_add(1, Ordering::SeqCst);
        Stop { coordinator: self, number }
    }

    /// A context may be changed: it is not being decided. Called while nothing can be sealed.
    pub(crate) fn demand_changeable(&self, context: Option<ContextId>) -> Result<(), Fault> {
        let Some(context) = context.filter(|_| self.rounds.load(Ordering::SeqCst) > 0) else { return Ok(()) };
        let state = self.state.lock();
        if let Some(Stopped { spec, .. }) = state.stopped.iter().find(|stopped| stopped.context == context) {
            return Err(Fault::new(FaultKind::Sealed, format!("speculation {spec} is just being written down")));
        }
        match state.of(context).filter(|_| state.graph.is_sealed(context)) {
            Some(_) if is_planted(Planted::ChangeAfterTheSeal) => Ok(()),
            Some(job) => Err(sealed(job.spec)),
            None => Ok(()),
        }
    }
}

impl super::TrunkAccesses {
    /// Nothing is changed that a round under way has changed, or rests on: that comes before or after it.
    pub(super) fn demand_unsealed(&self, changes: &[(AccessKey, Access)]) -> Result<(), Fault> {
        if self.rounds.load(Ordering::SeqCst) == 0 || is_planted(Planted::ChangeBesideTheSeal) {
            return Ok(());
        }
        let losers = changes.iter().flat_map(|(key, how)| self.conflicts.losers_to_trunk(key, *how));
        let losers: BTreeSet<ContextId> = losers.map(|(loser, _)| loser).collect();
        let state = self.state.lock();
        match losers.into_iter().find(|loser| state.graph.is_sealed(*loser)).and_then(|loser| state.of(loser)) {
            Some(job) => Err(sealed(job.spec)),
            None => Ok(()),
        }
    }
}
