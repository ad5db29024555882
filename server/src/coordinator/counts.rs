//! How many changes there are, for people who look at them one by one.
//!
//! What every decision says is how many files were changed at some time, which costs nothing. What is held for review is counted as its
//! diff shows it: what was made and removed again is nothing, and what took another's place is one.

use super::{Coordinator, Job, State};
use crate::limits::COUNTED_CHANGES_MAX;
use crate::store::Store;
use mojavefs::id::SpecId;
use mojavefs::protocol::SpecState;

/// A job's changes, counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counted {
    /// The last change that is counted.
    last: u64,
    changes: u64,
}

impl State {
    /// The last change of a job, and how many files it changed at some time.
    fn extent(&self, job: &Job, store: &Store) -> (u64, u64) {
        let numbers = self.graph.carried_by(job.context);
        let last = numbers.iter().map(|number| store.last_change(*number)).max().unwrap_or(0);
        (last, self.changes(job, store))
    }

    /// What was counted of a job, if it has changed nothing since.
    pub(super) fn counted(&self, job: &Job, store: &Store) -> Option<u64> {
        job.counted.filter(|counted| self.extent(job, store).0 == counted.last).map(|counted| counted.changes)
    }
}

impl Coordinator {
    /// How many changes the diff of something held shows; nothing if it is not held, or there are so many that counting takes long.
    pub(crate) fn count(&self, spec: SpecId) -> Option<u64> {
        let last = {
            let state = self.state.lock();
            let job = state.jobs.get(&spec).filter(|job| job.state == SpecState::Held)?;
            if let Some(counted) = state.counted(job, &self.store) {
                return Some(counted);
            }
            let (last, files) = state.extent(job, &self.store);
            (files <= COUNTED_CHANGES_MAX).then_some(last)?
        };
        // Who can't be counted is counted by files; reading it says why.
        let all = self.changes_of(spec, 0).ok()?.all(&self.store).ok()?;
        let changes = all.len() as u64;
        self.state.lock().jobs.entry(spec).and_modify(|job| job.counted = Some(Counted { last, changes }));
        Some(changes)
    }

    /// Counts what is held and was not counted yet.
    pub(crate) fn count_held(&self) {
        let held: Vec<SpecId> = {
            let state = self.state.lock();
            state.jobs.values().filter(|job| job.is_held()).map(|job| job.spec).collect()
        };
        for spec in held {
            self.count(spec);
        }
    }
}
