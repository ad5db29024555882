//! Which attempts of a job follow each other (rule 16).
//!
//! A job that was undone for the sake of others is run again, as a new speculation, or goes on from a read as the one that it was.
//! Who has read its work, and fell with it, waits until that is there anew. It waits for older jobs only, and what counts is
//! when a job was started first: so nobody waits in a ring.

use super::waits::Wait;
use super::{Coordinator, Job, Stage, State};
use crate::limits::WAIT_NOTED_TIME;
use mojavefs::id::SpecId;
use mojavefs::limits::OUTCOMES_KEPT_MAX;
use mojavefs::protocol::SpecState;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What follows an attempt that was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Whoever supervises the job, this user's process, is there still, and has not said.
    Unknown { uid: u32, pid: u32 },
    /// Another attempt, by this process of `specrun`.
    Attempt { spec: SpecId, pid: u32 },
    /// It was a segment: its job goes on.
    Whole(SpecId),
}

/// Where a job stands whose attempt was undone, or a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Latest {
    /// It may be run again, and is not yet.
    Between,
    /// It is this speculation, unless that is decided.
    Is(SpecId),
}

/// The attempts of jobs, lately.
#[derive(Default)]
pub(super) struct Attempts {
    /// Of attempts that are not the first, which one was that.
    first: BTreeMap<SpecId, SpecId>,
    /// What follows those that were undone.
    next: BTreeMap<SpecId, Next>,
}

impl Attempts {
    /// An attempt was undone which this user's process supervises.
    fn undone(&mut self, spec: SpecId, (uid, pid): (u32, u32)) {
        put(&mut self.next, spec, Next::Unknown { uid, pid });
    }

    /// A segment was undone: its job goes on without it, or has fallen, too.
    fn segment_undone(&mut self, segment: SpecId, whole: SpecId) {
        put(&mut self.next, segment, Next::Whole(whole));
    }

    /// Another attempt of what was `was` has begun. Nobody says so of another's job, nor twice.
    fn begun(&mut self, spec: SpecId, was: SpecId, (uid, pid): (u32, u32)) -> bool {
        let is_own = self.next.get(&was) == Some(&Next::Unknown { uid, pid }) && was < spec;
        if is_own {
            let first = self.first(was);
            put(&mut self.first, spec, first);
            put(&mut self.next, was, Next::Attempt { spec, pid });
        }
        is_own
    }

    /// Whoever supervised an attempt is gone; without another one, the job is over.
    fn left(&mut self, spec: SpecId) {
        if matches!(self.next.get(&spec), Some(Next::Unknown { .. })) {
            self.next.remove(&spec);
        }
    }

    /// The attempt that followed an undone one at once, if this process has made it.
    fn following(&self, was: SpecId, by: u32) -> Option<SpecId> {
        match self.next.get(&was) {
            Some(Next::Attempt { spec, pid }) if *pid == by => Some(*spec),
            _ => None,
        }
    }

    /// The first attempt of a job.
    fn first(&self, mut spec: SpecId) -> SpecId {
        if let Some(Next::Whole(whole)) = self.next.get(&spec) {
            spec = *whole;
        }
        self.first.get(&spec).copied().unwrap_or(spec)
    }

    /// Whether the job of one attempt was started before that of another.
    pub(super) fn is_older(&self, spec: SpecId, than: SpecId) -> bool {
        self.first(spec) < self.first(than)
    }

    /// Where the job of an attempt stands that was undone, or of which a segment was.
    fn latest(&self, mut spec: SpecId) -> Latest {
        // Each is later than the one before, but for a segment's job.
        while let Some(next) = self.next.get(&spec) {
            match next {
                Next::Unknown { .. } => return Latest::Between,
                Next::Attempt { spec: next, .. } | Next::Whole(next) => spec = *next,
            }
        }
        Latest::Is(spec)
    }
}

/// Remembers it, and forgets the oldest for it.
fn put<T>(all: &mut BTreeMap<SpecId, T>, spec: SpecId, what: T) {
    all.insert(spec, what);
    if all.len() > OUTCOMES_KEPT_MAX {
        all.pop_first();
    }
}

impl State {
    /// A job was undone, or a part of one.
    pub(super) fn note_undone(&mut self, job: &Job) {
        match self.outer(job.spec).filter(|_| job.is_segment()) {
            Some(part) => {
                let whole = self.whole(part);
                self.attempts.segment_undone(job.spec, whole);
            }
            None if job.supervised => self.attempts.undone(job.spec, (job.info.uid, job.info.pid)),
            None => {}
        }
    }

    /// What somebody has read of an attempt that was undone is not there anew, and may come.
    fn is_awaited(&self, was: SpecId) -> bool {
        match self.attempts.latest(was) {
            Latest::Between => true,
            Latest::Is(spec) => self.is_at_it(spec),
        }
    }

    /// A job's command runs, or is about to go on.
    fn is_at_it(&self, spec: SpecId) -> bool {
        self.jobs.get(&spec).is_some_and(|job| job.state == SpecState::Running && job.stage != Stage::Ended)
    }
}

impl Coordinator {
    /// A job has a supervisor now, which may run it again as long as its view is open.
    pub(crate) fn supervised(&self, spec: SpecId) {
        self.state.lock().jobs.entry(spec).and_modify(|job| job.supervised = true);
    }

    /// The view is closed by which a job was supervised: this attempt is not followed by another one, unless that has begun.
    pub(crate) fn unsupervised(&self, spec: SpecId) {
        let mut state = self.state.lock();
        state.jobs.entry(spec).and_modify(|job| job.supervised = false);
        state.attempts.left(spec);
        self.attempted.notify_all();
    }

    /// A job that was undone is run again.
    pub(crate) fn runs_again(&self, spec: SpecId, was: SpecId, uid: u32) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let info = &state.job(spec, uid)?.info;
        let by = (info.uid, info.pid);
        if !state.attempts.begun(spec, was, by) {
            let text = format!("speculation {was} was not undone just now, or is of another process");
            return Err(Fault::new(FaultKind::Invalid, text));
        }
        self.attempted.notify_all();
        Ok(())
    }

    /// What a job is now that was undone and run again by this process.
    pub(crate) fn run_again(&self, was: SpecId, pid: u32) -> Vec<SpecId> {
        self.state.lock().attempts.following(was, pid).into_iter().collect()
    }

    /// Waits until of these, which were undone, those that are older than the job of `of` have been run again, or will not be,
    /// for `limit` at most; returns those that still are to be waited for. `behind` is the job that waits.
    pub(crate) fn wait_for_attempts(
        &self,
        specs: &[SpecId],
        of: SpecId,
        (behind, uid): (Option<SpecId>, u32),
        limit: Duration,
    ) -> Vec<SpecId> {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        let behind = behind.filter(|behind| state.job(*behind, uid).is_ok());
        loop {
            let older = specs.iter().copied().filter(|spec| state.attempts.is_older(*spec, of));
            let open: Vec<SpecId> = older.filter(|spec| state.is_awaited(*spec)).collect();
            let open = match behind {
                Some(behind) => state.attempts_behind(open, behind, deadline + WAIT_NOTED_TIME),
                None => open,
            };
            if open.is_empty() || self.attempted.wait_until(state.inner(), deadline).timed_out() {
                return open;
            }
        }
    }
}

impl State {
    /// Those of these that do not wait for the very job that would wait for them; it is noted that it does.
    fn attempts_behind(&mut self, mut specs: Vec<SpecId>, behind: SpecId, until: Instant) -> Vec<SpecId> {
        let Some(job) = self.jobs.get(&behind) else { return specs };
        let wait = |spec: &SpecId| match self.attempts.latest(*spec) {
            Latest::Is(now) => Some(Wait::End(now)),
            Latest::Between => None,
        };
        let not_in_vain = self.not_in_vain(job, specs.iter().filter_map(wait));
        specs.retain(|spec| wait(spec).is_none_or(|on| not_in_vain.contains(&on)));
        self.now_waits(behind, not_in_vain, until);
        specs
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user's process.
    const BY: (u32, u32) = (1000, 10);

    #[test]
    fn nobody_says_of_another_s_job_that_it_is_run_again_nor_of_one_that_was_not_undone() {
        let mut attempts = Attempts::default();
        assert!(!attempts.begun(SpecId(5), SpecId(1), BY), "it is not undone");
        attempts.undone(SpecId(5), BY);
        assert!(!attempts.begun(SpecId(6), SpecId(5), (1001, 10)) && !attempts.begun(SpecId(6), SpecId(5), (1000, 11)));
        assert!(
            !attempts.begun(SpecId(5), SpecId(5), BY) && !attempts.begun(SpecId(4), SpecId(5), BY),
            "not a later one"
        );
        assert!(attempts.begun(SpecId(6), SpecId(5), BY) && !attempts.begun(SpecId(7), SpecId(5), BY), "once");
    }

    #[test]
    fn a_job_is_as_old_as_its_first_attempt() {
        let mut attempts = Attempts::default();
        attempts.undone(SpecId(1), BY);
        assert!(attempts.begun(SpecId(5), SpecId(1), BY));
        attempts.undone(SpecId(5), BY);
        assert!(attempts.begun(SpecId(9), SpecId(5), BY));
        assert!(attempts.is_older(SpecId(9), SpecId(2)) && !attempts.is_older(SpecId(2), SpecId(9)));
        assert!(!attempts.is_older(SpecId(9), SpecId(1)), "it is that one");
        attempts.segment_undone(SpecId(12), SpecId(9));
        assert!(attempts.is_older(SpecId(12), SpecId(2)), "a segment is as old as its job");
        assert_eq!(attempts.following(SpecId(1), 10), Some(SpecId(5)));
        assert_eq!(attempts.following(SpecId(1), 11), None);
    }

    #[test]
    fn where_an_undone_job_stands_is_known_as_soon_as_its_supervisor_has_said_or_gone() {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.latest(SpecId(1)), Latest::Is(SpecId(1)), "it is not undone");
        attempts.undone(SpecId(1), BY);
        assert_eq!(attempts.latest(SpecId(1)), Latest::Between);
        assert!(attempts.begun(SpecId(5), SpecId(1), BY));
        assert_eq!(attempts.latest(SpecId(1)), Latest::Is(SpecId(5)));
        attempts.left(SpecId(1));
        assert_eq!(attempts.latest(SpecId(1)), Latest::Is(SpecId(5)), "the next attempt has begun");
        attempts.segment_undone(SpecId(7), SpecId(5));
        assert_eq!(attempts.latest(SpecId(7)), Latest::Is(SpecId(5)));
        attempts.undone(SpecId(5), BY);
        assert_eq!([1, 7].map(|was| attempts.latest(SpecId(was))), [Latest::Between; 2]);
        attempts.left(SpecId(5));
        // It was given up. Nothing undecided has that number.
        assert_eq!([1, 7].map(|was| attempts.latest(SpecId(was))), [Latest::Is(SpecId(5)); 2]);
    }

    #[test]
    fn no_more_is_remembered_than_lately_happened() {
        let mut attempts = Attempts::default();
        for spec in 1..=OUTCOMES_KEPT_MAX as u64 + 7 {
            attempts.undone(SpecId(2 * spec), BY);
            assert!(attempts.begun(SpecId(2 * spec + 1), SpecId(2 * spec), BY));
        }
        assert_eq!((attempts.first.len(), attempts.next.len()), (OUTCOMES_KEPT_MAX, OUTCOMES_KEPT_MAX));
        assert_eq!(attempts.latest(SpecId(2)), Latest::Is(SpecId(2)), "what was undone has no job");
    }
}
