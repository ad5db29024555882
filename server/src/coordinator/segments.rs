//! Segments of a job: what it did since its process could go back to a call that was about to read others' undecided work.
//!
//! A segment is a context inside the job's, and the next one is inside of it. It falls without the job; when the job is decided its
//! segments become part of it. For everybody else a job and its segments are one.

use super::decide::Voted;
use super::job::{Kind, Stage};
use super::prepare::Preparation;
use super::waits::Wait;
use super::{Aftermath, Beginning, Coordinator, Job, State};
use crate::ops::Scope;
use mojavefs::id::{ContextId, SpecId};
use mojavefs::protocol::SpecState;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::collections::BTreeSet;

impl Coordinator {
    /// The process of a job, or of its last segment, can go back to this point.
    pub(crate) fn begin_segment(&self, inside: ContextId) -> Result<(SpecId, ContextId, Scope), Fault> {
        let info = {
            let state = self.state.lock();
            let job = state.job_of(inside)?;
            if job.state != SpecState::Running {
                return Err(Fault::new(FaultKind::Decided, format!("speculation {} is voted for already", job.spec)));
            }
            job.info.clone()
        };
        self.begin(Some(inside), Beginning::part(info, Kind::Segment { fresh: true }, None))
    }

    /// The process of a job can't go back to this point: what it meets next is joined without.
    pub(crate) fn without_checkpoint(&self, context: ContextId, why: String) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let spec = state.job_of(context)?.spec;
        state.jobs.entry(spec).and_modify(|job| job.no_checkpoint = Some(why));
        Ok(())
    }

    /// The segments of a job become part of it, the last one first; with it they can go back to its start only. What is to be
    /// told of each is handed to `told`.
    pub(crate) fn fold_segments(&self, spec: SpecId, told: impl Fn(Aftermath)) -> Result<(), Fault> {
        loop {
            let aftermath = {
                let _exclusive = self.decisions.write();
                let mut state = self.state.lock();
                let Some(segment) = state.parts(spec).last().filter(|part| part.is_segment()).map(|part| part.spec)
                else {
                    return Ok(());
                };
                state.demand_unsealed(segment)?;
                match self.fold(&mut state, segment)? {
                    Some(aftermath) => aftermath,
                    None => {
                        let votes = state.jobs[&segment].votes();
                        match self.vote(&mut state, segment, &votes, &Preparation::of(None))? {
                            Voted::Done(aftermath) => aftermath,
                            Voted::Sealed(_) | Voted::Unrecorded | Voted::Unprepared(_) | Voted::Locked(..) => {
                                unreachable!("a segment is final with its job only")
                            }
                        }
                    }
                }
            };
            told(aftermath);
        }
    }

    /// The command of a job has ended: what its segments depend on that is undecided and does not wait for the job itself. Nothing
    /// for a job inside of another, which becomes part of that at once. An error, `Again`, if its process is to be taken back.
    pub(crate) fn unsettled(&self, spec: SpecId, uid: u32) -> Result<Vec<SpecId>, Fault> {
        let mut state = self.state.lock();
        state.job(spec, uid)?;
        let gone = || Fault::new(FaultKind::NotFound, format!("there is no undecided speculation {spec}"));
        let job = state.jobs.get_mut(&spec).ok_or_else(gone)?;
        if job.stage == Stage::GoesBack {
            return Err(Fault::new(FaultKind::Busy, format!("the process of speculation {spec} is to be taken back")));
        }
        job.stage = Stage::Ended;
        self.attempted.notify_all();
        if state.is_inside(spec) {
            return Ok(Vec::new());
        }
        let job = &state.jobs[&spec];
        let parts = state.parts(spec);
        if parts.iter().any(|part| !self.conflicts.of(part.context).is_empty()) {
            // Its vote is refused whatever becomes of the others.
            return Ok(Vec::new());
        }
        let segments = parts.into_iter().filter(|part| part.is_segment());
        let open: BTreeSet<SpecId> = segments.flat_map(|segment| state.open_under(segment)).collect();
        let waits = state.not_in_vain(job, open.into_iter().map(Wait::Decision)).into_iter();
        Ok(waits.map(|on| on.spec()).collect())
    }

    /// The process of a job has come back; false if one of the segments that it is still in was undone meanwhile, or all of it.
    pub(crate) fn is_back(&self, job: ContextId, entered: &[ContextId]) -> bool {
        let mut state = self.state.lock();
        let alive = entered.iter().chain([&job]).all(|context| state.contexts.contains_key(context));
        for context in entered.iter().chain([&job]) {
            if let Some(spec) = state.contexts.get(context).copied() {
                // It was of a read that was never made.
                state.jobs.entry(spec).and_modify(|job| job.no_checkpoint = None);
            }
        }
        if alive && let Some(spec) = state.contexts.get(&job).copied() {
            state.jobs.entry(spec).and_modify(|job| job.stage = Stage::Runs);
        }
        alive
    }
}

impl State {
    /// A job and its open segments, each inside the one before.
    pub(super) fn parts(&self, spec: SpecId) -> Vec<&Job> {
        let mut parts: Vec<&Job> = self.jobs.get(&spec).into_iter().collect();
        let is_next = |job: &&Job| job.is_segment() && job.state == SpecState::Running;
        while let Some(next) = parts.last().and_then(|last| self.inner(last).find(is_next)) {
            parts.push(next);
        }
        parts
    }

    /// The last segment of a job, or the job itself, which must be undecided.
    pub(super) fn tip(&self, spec: SpecId) -> &Job {
        self.parts(spec).pop().expect("the caller has found the job")
    }

    /// The job that a segment belongs to; of everything else, itself.
    pub(super) fn whole(&self, mut spec: SpecId) -> SpecId {
        while let Some(outer) =
            self.jobs.get(&spec).filter(|job| job.is_segment()).and_then(|segment| self.outer(segment.spec))
        {
            spec = outer;
        }
        spec
    }

    /// What was inside this part of a job was undone: the job's process is to go back.
    pub(super) fn goes_back(&mut self, part: Option<SpecId>) {
        if let Some(spec) = part.map(|part| self.whole(part)) {
            self.jobs.entry(spec).and_modify(|job| job.stage = Stage::GoesBack);
        }
    }
}
