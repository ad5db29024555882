//! Waiting: one relation over jobs, the jobs inside of them, and their commands (rule 9 of the interval graph).
//!
//! A read waits until it can be answered (`--on-read wait`), a supervisor until others are decided; and the command of a job
//! waits for the jobs that it has started. Who would wait for itself by that joins what it waits for, or goes on.

use super::{Coordinator, Job, State};
use crate::limits::{ANY_DECISION_WAIT, WAIT_NOTED_TIME};
use mojavefs::graph::{Awaited, Waits};
use mojavefs::id::{ContextId, SpecId};
use mojavefs::protocol::SpecState;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::time::{Duration, Instant};

/// What a job was last known to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wait {
    /// That this speculation is decided.
    Decision(SpecId),
    /// That this job ends, by which it becomes part of one that the waiting job is inside of.
    End(SpecId),
}

impl Wait {
    /// What is waited for.
    pub(super) fn spec(self) -> SpecId {
        let (Wait::Decision(spec) | Wait::End(spec)) = self;
        spec
    }
}

impl Job {
    /// It is neither voted for nor held.
    fn is_at_work(&self) -> bool {
        self.state == SpecState::Running
    }
}

impl State {
    /// Whether a job would wait for itself if it waited for this.
    pub(super) fn waits_in_vain(&self, job: &Job, on: Wait) -> bool {
        self.not_in_vain(job, [on]).is_empty()
    }

    /// Those of these for which a job would not wait for itself.
    pub(super) fn not_in_vain(&self, job: &Job, all: impl IntoIterator<Item = Wait>) -> Vec<Wait> {
        let all: Vec<(Wait, Option<Awaited>)> = all.into_iter().map(|on| (on, self.awaited(on))).collect();
        let awaited = all.iter().filter_map(|(_, awaited)| *awaited);
        let awaitable = self.graph.awaitable(job.context, awaited, &self.waits());
        let is_awaitable = |awaited: &Option<Awaited>| awaited.is_none_or(|awaited| awaitable.contains(&awaited));
        all.into_iter().filter(|(_, awaited)| is_awaitable(awaited)).map(|(on, _)| on).collect()
    }

    /// What a job waits for that does not join what it reads of another: that one's decision; or, if both are inside the same
    /// job, that the other becomes part of that.
    pub(super) fn read_waits_for(&self, reader: SpecId, of: SpecId) -> Wait {
        // One that has become part of what is around it is decided with that.
        let of = self.part_of(of);
        let around = self.around(reader);
        let them = self.around(of);
        let shared = them.iter().position(|spec| around.contains(spec));
        match shared.and_then(|shared| shared.checked_sub(1)) {
            Some(below) => Wait::End(them[below]),
            None => Wait::Decision(of),
        }
    }

    /// A speculation and those around it, the outermost last.
    pub(super) fn around(&self, spec: SpecId) -> Vec<SpecId> {
        std::iter::successors(Some(spec), |spec| self.outer(*spec)).collect()
    }

    fn awaited(&self, on: Wait) -> Option<Awaited> {
        let job = self.jobs.get(&on.spec())?;
        match on {
            Wait::Decision(_) => self.graph.current(job.context).map(Awaited::Decision),
            Wait::End(_) => job.is_at_work().then_some(Awaited::End(job.context)),
        }
    }

    /// Who waits for what.
    fn waits(&self) -> Waits {
        let mut waits = Waits::new();
        for job in self.jobs.values().filter(|job| job.is_at_work()) {
            let Some(outer) = self.graph.outer(job.context) else { continue };
            let all = waits.entry(outer).or_default();
            all.insert(Awaited::End(job.context));
            // A job votes when its segments depend on nothing any more that is undecided. One inside of another votes at once.
            if job.is_segment() && !self.is_inside(job.spec) {
                all.extend(self.graph.current(job.context).map(Awaited::Decision));
            }
        }
        let now = Instant::now();
        for (waiter, on) in &self.waiting {
            let lately = on.iter().filter(|(_, until)| **until > now);
            let awaited: Vec<Awaited> = lately.filter_map(|(on, _)| self.awaited(*on)).collect();
            waits.entry(*waiter).or_default().extend(awaited);
        }
        waits
    }

    /// Whether a job is inside of another.
    pub(super) fn is_inside(&self, spec: SpecId) -> bool {
        self.outer(self.whole(spec)).is_some()
    }

    /// Notes that a job waits, until then: if it still does, it asks again before.
    pub(super) fn now_waits(&mut self, waiter: SpecId, all: impl IntoIterator<Item = Wait>, until: Instant) {
        let now = Instant::now();
        self.waiting.retain(|_, on| {
            on.retain(|_, until| *until > now);
            !on.is_empty()
        });
        if let Some(waiter) = self.jobs.get(&waiter) {
            let waiting = self.waiting.entry(waiter.context).or_default();
            waiting.extend(all.into_iter().map(|on| (on, until)));
        }
    }
}

impl Coordinator {
    /// A process of one context stands in the line for a lock that one of another has: it waits for what that one waits for.
    pub(crate) fn waits_for_lock(&self, waiter: ContextId, holder: ContextId) {
        let mut state = self.state.lock();
        let spec = |context| state.job_of(context).map(|job| job.spec);
        if let (Ok(waiter), Ok(holder)) = (spec(waiter), spec(holder))
            && waiter != holder
        {
            state.now_waits(waiter, [Wait::End(holder)], Instant::now() + WAIT_NOTED_TIME);
        }
    }

    /// Something was decided: whoever waits looks again.
    pub(super) fn tell_decided(&self) {
        self.decided.notify_all();
        self.attempted.notify_all();
    }

    /// Waits until none of these is undecided, or until a time has passed; returns those that still are.
    pub(crate) fn wait_for(
        &self,
        specs: &[SpecId],
        (behind, uid): (Option<SpecId>, u32),
        limit: Duration,
    ) -> Result<Vec<SpecId>, Fault> {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        // Nobody says for another user's job that it waits.
        let behind = behind.filter(|behind| state.job(*behind, uid).is_ok());
        let job = behind.and_then(|behind| state.jobs.get(&behind));
        let decisions = || specs.iter().copied().map(Wait::Decision);
        if job.is_some_and(|job| state.not_in_vain(job, decisions()).len() < specs.len()) {
            let text = "this would wait for a speculation that waits for this job's own end; commit or abort it first";
            return Err(Fault::new(FaultKind::Deadlock, text));
        }
        if specs.is_empty() {
            // For any decision: what was met may be decided by now, so the wait is a short one.
            self.decided.wait_for(state.inner(), limit.min(ANY_DECISION_WAIT));
            return Ok(Vec::new());
        }
        loop {
            let open: Vec<SpecId> = specs.iter().copied().filter(|spec| state.jobs.contains_key(spec)).collect();
            if let Some(behind) = behind {
                let until = deadline + WAIT_NOTED_TIME;
                state.now_waits(behind, open.iter().copied().map(Wait::Decision), until);
            }
            if open.is_empty() || self.decided.wait_until(state.inner(), deadline).timed_out() {
                return Ok(open);
            }
        }
    }
}
