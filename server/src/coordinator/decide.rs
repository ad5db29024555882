//! Decisions: what a vote to commit and an abort lead to.

use super::abort::Records;
use super::conflicts::Standing;
use super::prepare::{Outlook, Preparation};
use super::rounds::Round;
use super::status::decided;
use super::{Aftermath, Coordinator, Job, State, graph_fault};
use crate::access::AccessKey;
use crate::limits::FORGET_TIME_MAX;
use crate::ops::fault;
use crate::store::StoreError;
use crate::telling::{LockedBy, Telling};
use mojavefs::graph::{Effect, Event, Owner, Resume};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Conflict, Outcome, Resolution, SpecState};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What a vote leads to.
pub(super) enum Voted {
    /// All of it has happened.
    Done(Aftermath),
    /// It makes something final, which is to be recorded before.
    Sealed(Round),
    /// It waits for others, and is not on record: nothing has happened.
    Unrecorded,
    /// It makes this final, for which views are to be prepared: nothing has happened.
    Unprepared(Outlook),
    /// It makes this final, of which others have locked something: nothing has happened.
    Locked(Outlook, LockedBy),
}

/// How far a commit is.
pub(super) enum Step {
    Done(Outcome, Aftermath),
    Sealed(Outcome, Round),
    Unrecorded,
    Unprepared(Outlook),
    /// Others have locked something of it; what it comes to if they do not let go.
    Locked(Outlook, Outcome),
}

impl Coordinator {
    /// Whether what a speculation has changed is to count as modified when it becomes final.
    pub(crate) fn mark_modified(&self, spec: SpecId, uid: u32, is_modified: bool) -> Result<(), Fault> {
        let mut state = self.state.lock();
        state.job(spec, uid).map(drop).or_else(|fault| match fault.kind {
            // Deciding it says what became of it.
            FaultKind::NotFound | FaultKind::Decided => Ok(()),
            _ => Err(fault),
        })?;
        state.jobs.entry(spec).and_modify(|job| job.marks_modified = is_modified);
        Ok(())
    }

    /// A vote to commit, by the owner or root; refused while conflicts stand. Blocks for the disk; nobody else is held up.
    ///
    /// # Errors
    /// [`FaultKind::Sealed`] if something is being decided that it has to do with: nothing has happened, and it can be repeated
    /// once that is done. [`FaultKind::TimedOut`] if a kernel does not forget what it changes: nothing is decided.
    pub(crate) fn commit(
        &self,
        spec: SpecId,
        uid: u32,
        resolutions: &[Resolution],
        telling: &mut Telling<'_>,
    ) -> Result<(Outcome, Aftermath), Fault> {
        let _round = tracing::debug_span!("round", %spec).entered();
        let (context, own_decision) = {
            let state = self.state.lock();
            if let Some(outcome) = decided(&state, &self.store, spec, SpecState::Committed)? {
                return Ok((outcome, Aftermath::default()));
            }
            let job = state.job(spec, uid)?;
            (job.context, state.outer(spec).is_none().then(|| state.graph.carried_by(job.context)))
        };
        let standing = self.conflicts.of(context);
        if !standing.is_empty() && !resolutions.is_empty() {
            return self.commit_resolved((spec, uid), resolutions, telling);
        }
        if let Some(intervals) = own_decision.filter(|_| standing.is_empty()) {
            // Most of what a commit must make durable is written before anybody is kept waiting. An inner job's makes nothing
            // durable.
            let _stage = tracing::debug_span!("gather").entered();
            telling.apart(|| self.store.sync_early(&intervals)).map_err(fault::store)?;
        }
        let mut preparation = Preparation::of(telling.audience());
        loop {
            let step = {
                let _exclusive = self.decisions.write();
                self.try_commit(&mut self.state.lock(), spec, uid, &preparation)?
            };
            match step {
                Step::Done(outcome, aftermath) => return Ok((outcome, aftermath)),
                Step::Sealed(outcome, round) => return self.finish(outcome, (&round, preparation), telling),
                Step::Unrecorded => return self.commit_recorded((spec, uid), preparation, telling),
                Step::Unprepared(outlook) => telling.apart(|| self.prepare(&mut preparation, &outlook))?,
                Step::Locked(outlook, refused) => {
                    if !telling.apart(|| preparation.wait_for_unlock(&outlook)) {
                        return Ok((refused, Aftermath::default()));
                    }
                }
            }
        }
    }

    /// A vote that waits for others is cast once it is on record.
    fn commit_recorded<'a>(
        &'a self,
        (spec, uid): (SpecId, u32),
        mut preparation: Preparation<'a>,
        telling: &mut Telling<'_>,
    ) -> Result<(Outcome, Aftermath), Fault> {
        loop {
            match self.vote_recorded((spec, uid), &preparation, telling)? {
                Step::Done(outcome, aftermath) => return Ok((outcome, aftermath)),
                Step::Sealed(outcome, round) => return self.finish(outcome, (&round, preparation), telling),
                // It makes something final after all.
                Step::Unprepared(outlook) => telling.apart(|| self.prepare(&mut preparation, &outlook))?,
                Step::Locked(outlook, refused) => {
                    if !telling.apart(|| preparation.wait_for_unlock(&outlook)) {
                        return Ok((refused, Aftermath::default()));
                    }
                }
                // It was in conflict when it would have been written down, and is not any more.
                Step::Unrecorded => {
                    let text = format!("speculation {spec} has changed meanwhile");
                    return Err(Fault::new(FaultKind::Sealed, text));
                }
            }
        }
    }

    fn vote_recorded(
        &self,
        (spec, uid): (SpecId, u32),
        preparation: &Preparation<'_>,
        telling: &mut Telling<'_>,
    ) -> Result<Step, Fault> {
        let noted = self.gathered((spec, uid), telling, |state| {
            let job = state.job(spec, uid)?;
            job.must_be_there()?;
            match self.conflicts.of(job.context).is_empty() {
                true => self.note(state, spec, true).map(Some),
                // It is refused, as is found below.
                false => Ok(None),
            }
        })?;
        let noted =
            noted.map(|(held, was_recorded)| (telling.apart(|| self.store.make_held_durable(&held)), was_recorded));
        let _exclusive = self.decisions.write();
        let mut state = self.state.lock();
        let voted = match noted {
            Some(noted) => {
                let noted = self.noted(&mut state, spec, noted);
                noted.and_then(|()| self.try_commit(&mut state, spec, uid, preparation))
            }
            None => self.try_commit(&mut state, spec, uid, preparation),
        };
        if let Some(job) = state.jobs.get_mut(&spec) {
            job.votes = false;
            if job.recorded && job.state != SpecState::Voted {
                // It says that it was voted for.
                self.conflicts.outdated(job.context);
            }
        }
        voted
    }

    /// Records what was sealed, without a lock, and lets it take effect.
    fn finish(
        &self,
        outcome: Outcome,
        (round, mut preparation): (&Round, Preparation<'_>),
        telling: &mut Telling<'_>,
    ) -> Result<(Outcome, Aftermath), Fault> {
        preparation.is_sealed();
        let recorded = tracing::debug_span!("record").in_scope(|| telling.apart(|| self.record_round(round)));
        let deadline = Instant::now() + FORGET_TIME_MAX;
        let (_exclusive, mut state) = loop {
            if recorded.is_ok() {
                tracing::debug_span!("forget").in_scope(|| telling.apart(|| preparation.forget_reads(deadline)));
            }
            let (exclusive, state) = (self.decisions.write(), self.state.lock());
            if recorded.is_err() || preparation.is_forgotten() {
                break (exclusive, state);
            }
            if Instant::now() >= deadline {
                tracing::warn!("speculation {} is seen while it is still being read", outcome.spec);
                break (exclusive, state);
            }
        };
        let _stage = tracing::debug_span!("switch").entered();
        let ended = self.end_round(&mut state, round, recorded);
        preparation.end();
        let clashing = std::mem::take(&mut state.clashing);
        match ended {
            Ok(ended) => Ok((outcome, Aftermath { clashing, ..ended })),
            Err(fault) => {
                state.outstanding.push(Aftermath { clashing, ..Aftermath::default() });
                Err(fault)
            }
        }
    }

    pub(super) fn try_commit(
        &self,
        state: &mut State,
        spec: SpecId,
        uid: u32,
        preparation: &Preparation<'_>,
    ) -> Result<Step, Fault> {
        // It may have been decided with others just now.
        if let Some(outcome) = decided(state, &self.store, spec, SpecState::Committed)? {
            return Ok(Step::Done(outcome, Aftermath::default()));
        }
        let job = state.job(spec, uid)?;
        let standing = self.conflicts.of(job.context);
        job.must_be_there()?;
        if !standing.is_empty() {
            let outcome = self.refusal(state, job, &standing);
            return Ok(Step::Done(outcome, Aftermath::default()));
        }
        state.demand_unsealed(spec)?;
        state.demand_unconcerned(job, &self.conflicts)?;
        let outcome = Outcome::of(spec, SpecState::Committed, state.changes(job, &self.store));
        let votes = job.votes();
        if let Some(aftermath) = self.fold(state, spec)? {
            self.attempted.notify_all();
            return Ok(Step::Done(Outcome { state: SpecState::Voted, ..outcome }, aftermath));
        }
        let aftermath = match self.vote(state, spec, &votes, preparation)? {
            Voted::Sealed(round) => return Ok(Step::Sealed(outcome, round)),
            Voted::Unrecorded => return Ok(Step::Unrecorded),
            Voted::Unprepared(outlook) => return Ok(Step::Unprepared(outlook)),
            Voted::Locked(outlook, by) => {
                return Ok(Step::Locked(outlook, self.refused_for_lock(state, spec, &by)));
            }
            Voted::Done(aftermath) => Aftermath { clashing: std::mem::take(&mut state.clashing), ..aftermath },
        };
        self.tell_decided();
        let Some(job) = state.jobs.get(&spec) else { return Ok(Step::Done(outcome, aftermath)) };
        let waits_for = match state.outer(spec) {
            Some(_) => Vec::new(),
            None => state.open_under(job),
        };
        Ok(Step::Done(Outcome { state: SpecState::Voted, waits_for, ..outcome }, aftermath))
    }

    /// Casts an owner's votes, and carries out what follows at once.
    pub(super) fn vote(
        &self,
        state: &mut State,
        spec: SpecId,
        votes: &[Event],
        preparation: &Preparation<'_>,
    ) -> Result<Voted, Fault> {
        let Some((last, before)) = votes.split_last() else { return Ok(Voted::Done(Aftermath::default())) };
        let is_on_record = state.outer(spec).is_some() || state.jobs.get(&spec).is_some_and(|job| job.votes);
        if !is_on_record && !state.is_final_by(spec, votes)? {
            return Ok(Voted::Unrecorded);
        }
        for vote in before {
            // Nothing is final by these: the vote for the job's own speculation is the last.
            state.apply(vote).map_err(graph_fault)?;
        }
        loop {
            let Some(Effect::Final { numbers, specs, .. }) = state.graph.preview(last).map_err(graph_fault)?.pop()
            else {
                if !is_on_record {
                    // Something that it would have been final with is in conflict.
                    return Ok(Voted::Unrecorded);
                }
                state.apply(last).map_err(graph_fault)?;
                if let Some(job) = state.jobs.get_mut(&spec) {
                    job.state = SpecState::Voted;
                }
                return self.join_outer(state, spec).map(Voted::Done);
            };
            let outlook = Outlook::of(state, &numbers, &specs);
            // Who is waited for looks at what it wants as long as views are not prepared.
            if !specs.iter().any(|spec| state.is_clashing(*spec, &self.conflicts))
                && let Some(by) = preparation.locked(&outlook)
            {
                return Ok(Voted::Locked(outlook, by));
            }
            if !preparation.covers(&numbers, &self.store) {
                return Ok(Voted::Unprepared(outlook));
            }
            // Conflicts of those that have waited for this vote are noticed in the step that would make them final.
            self.judge_together(state, spec, &specs);
            let clashing = specs.iter().copied().filter(|spec| state.is_clashing(*spec, &self.conflicts));
            let clashing: Vec<SpecId> = clashing.collect();
            if clashing.is_empty() {
                return self.seal(state, spec, (numbers, specs)).map(Voted::Sealed);
            }
            for spec in clashing {
                state.apply(&Event::Conflict { spec }).map_err(graph_fault)?;
                if let Some(job) = state.jobs.get_mut(&spec) {
                    job.state = SpecState::Held;
                }
                state.clashing.extend(state.jobs.get(&spec).map(|job| (job.context, spec)));
            }
        }
    }

    /// Notes the conflicts of one of those that a vote would make final together, if they have any with each other.
    fn judge_together(&self, state: &State, voter: SpecId, specs: &[SpecId]) {
        let context = |spec: &SpecId| state.jobs.get(spec).map(|job| job.context);
        let contexts: Vec<ContextId> = specs.iter().filter_map(context).collect();
        if let Some(voter) = context(&voter).filter(|_| contexts.len() > 1)
            && let Some(loser) = self.conflicts.stand_together(&contexts, voter)
        {
            tracing::debug!("context {loser} can't become final together with those that it builds on");
        }
    }

    /// A commit is refused for now: somebody works on what it would change.
    fn refused_for_lock(&self, state: &State, spec: SpecId, by: &LockedBy) -> Outcome {
        let job = &state.jobs[&spec];
        let (path, what) = self.named_key(&state.sight(job), &AccessKey::Inode(by.ino));
        let conflicts = vec![Conflict { path, what, changed: true, in_use: Some(by.who.clone()) }];
        Outcome { conflicts, ..Outcome::of(spec, job.state, state.changes(job, &self.store)) }
    }

    fn refusal(&self, state: &State, job: &Job, standing: &Standing) -> Outcome {
        Outcome {
            conflicts: self.named(&state.sight(job), standing),
            conflicts_more: standing.more,
            ..Outcome::of(job.spec, job.state, state.changes(job, &self.store))
        }
    }

    /// A commit could not be made durable. If it is known not to have happened, what is on record stays undecided, and
    /// everything else is undone; else nothing can be said of it before the store is opened again.
    pub(super) fn not_committed(&self, state: &mut State, specs: &[SpecId], error: StoreError) -> Fault {
        let certain = matches!(error, StoreError::NotCommitted(_));
        let jobs = specs.iter().filter_map(|spec| state.jobs.get(spec));
        let (kept, undone): (Vec<&Job>, Vec<&Job>) = jobs.partition(|job| certain && job.recorded);
        let [kept, specs] = [kept, undone.clone()].map(|jobs| jobs.iter().map(|job| job.spec).collect::<Vec<SpecId>>());
        let failed: Vec<(SpecId, Owner)> = undone.iter().map(|job| (job.spec, job.owner())).collect();
        if !certain {
            state.in_doubt.extend(&specs);
        }
        self.undo_failed(state, &failed, if certain { Records::Go } else { Records::Stay });
        let named = |text: &str, specs: &[SpecId]| match specs {
            [] => String::new(),
            specs => format!("; speculation {} {text}", list(specs)),
        };
        if !certain {
            let text = named("may be committed or not, which is known when the store was opened again", &specs);
            return Fault::new(FaultKind::InDoubt, format!("{error}{text}"));
        }
        let text = format!("{error}{}{}", named("was rolled back", &specs), named("is undecided still", &kept));
        Fault::new(fault::store(error).kind, text)
    }

    /// A commit failed: it is an abort, of everything on top of it too.
    fn undo_failed(&self, state: &mut State, failed: &[(SpecId, Owner)], records: Records) {
        for (spec, owner) in failed {
            // One that fell with another before it is aborted already, which is no error.
            let abort = Event::Abort { owner: *owner, spec: *spec, code: 1, retry: false };
            match self.carry_out(state, &abort, records) {
                // The caller gets an error, not this.
                Ok(aftermath) => state.outstanding.push(aftermath),
                Err(fault) => tracing::error!("undoing a commit of speculation {spec} that failed: {fault}"),
            }
        }
    }

    /// What whoever owns the views has to carry out of decisions that ended in an error.
    pub(crate) fn outstanding(&self) -> Vec<Aftermath> {
        std::mem::take(&mut self.state.lock().outstanding)
    }

    /// An inner job's commit becomes part of the outer one: that one joins it.
    fn join_outer(&self, state: &mut State, spec: SpecId) -> Result<Aftermath, Fault> {
        let Some(outer) = state.taken_in_by(spec) else { return Ok(Aftermath::default()) };
        let inner = state.jobs.get(&spec).expect("the job was found before");
        let (context, parent) = (inner.context, state.jobs[&outer].context);
        let intervals = state.graph.carried_by(context);
        let mut parts = inner.parts.clone();
        parts.insert(spec);
        inner.over.store(true, Ordering::SeqCst);
        let interval = IntervalId(self.store.next_id().map_err(fault::store)?);
        let of = state.graph.current(context).unwrap_or(intervals[intervals.len() - 1]);
        // What the outer job does next builds on it, and the outer job can only go back to its start.
        let join = Event::Read { context: parent, of, interval, resume: Resume::Start };
        state.apply(&join).map_err(graph_fault)?;
        state.apply(&Event::Number { context: parent, number: interval }).map_err(graph_fault)?;
        if let Some(outer) = state.jobs.get_mut(&outer) {
            outer.parts.extend(&parts);
        }
        self.conflicts.fold(context, parent, state);
        self.conflicts.outdated(parent);
        state.inherit(spec).into_iter().for_each(|other| self.conflicts.outdated(other));
        let rescoped = state.open_inside(parent);
        Ok(Aftermath { folded: Some((context, parent, intervals)), rescoped, ..Aftermath::default() })
    }
}

pub(super) fn list(specs: &[SpecId]) -> String {
    specs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
