//! Before a round is sealed views are prepared for it: their kernels forget what they were told of what it changes, and keep nothing of
//! it that they are told until it has taken effect. So it is seen all at once, and no kernel is needed any more once it is sealed.

use super::rounds::Stop;
use super::{Coordinator, State};
use crate::limits::{GATHER_TURNS_MAX, LOCKED_TIME_MAX};
use crate::store::Store;
use crate::telling::{Audience, LockedBy};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::protocol::fault::Fault;
use std::collections::HashMap;
use std::time::Instant;

/// What a vote would make final.
pub(super) struct Outlook {
    pub(super) numbers: Vec<IntervalId>,
    /// The speculations, with their contexts.
    pub(super) specs: Vec<(SpecId, ContextId)>,
}

impl Outlook {
    pub(super) fn of(state: &State, numbers: &[IntervalId], specs: &[SpecId]) -> Self {
        let context = |spec: &SpecId| state.jobs.get(spec).map(|job| (*spec, job.context));
        Outlook { numbers: numbers.to_vec(), specs: specs.iter().filter_map(context).collect() }
    }

    fn contexts(&self) -> Vec<ContextId> {
        self.specs.iter().map(|(_, context)| *context).collect()
    }
}

/// For what views are prepared, until this is dropped.
pub(super) struct Preparation<'a> {
    /// Nobody where there are no views.
    audience: Option<&'a dyn Audience>,
    expected: Option<Expected>,
    turns: usize,
    stops: Vec<Stop<'a>>,
    /// How long it is waited for at most that others let go of what they have locked.
    unlocked_by: Option<Instant>,
}

struct Expected {
    /// The number of the announcement.
    number: u64,
    /// These intervals, and what was the last change of each as of then.
    changed: HashMap<IntervalId, u64>,
}

impl<'a> Preparation<'a> {
    pub(super) fn of(audience: Option<&'a dyn Audience>) -> Self {
        Preparation { audience, expected: None, turns: 0, stops: Vec::new(), unlocked_by: None }
    }

    /// Somebody outside has locked what is to be made final, after it was changed.
    pub(super) fn locked(&self, outlook: &Outlook) -> Option<LockedBy> {
        self.audience?.locked(&outlook.contexts(), &outlook.numbers)
    }

    /// Waits until nobody has, for some time altogether; whether there is any left.
    pub(super) fn wait_for_unlock(&mut self, outlook: &Outlook) -> bool {
        // What they have locked they may look at meanwhile.
        self.end();
        let deadline = *self.unlocked_by.get_or_insert_with(|| Instant::now() + LOCKED_TIME_MAX);
        if let Some(audience) = self.audience {
            audience.wait_for_unlock((&outlook.contexts(), &outlook.numbers), deadline);
        }
        Instant::now() < deadline
    }

    /// Nobody sees anything of what these intervals have changed before, nor piece by piece once they are final. Stays so while they
    /// are sealed.
    pub(super) fn covers(&self, numbers: &[IntervalId], store: &Store) -> bool {
        let Some(audience) = self.audience else { return true };
        let mut changed = changed(numbers, store).peekable();
        match &self.expected {
            None => changed.peek().is_none(),
            Some(expected) => {
                changed.all(|(number, last)| expected.changed.get(&number) == Some(&last))
                    && audience.is_ready(expected.number)
            }
        }
    }

    /// The round is on record: kernels forget what they have read since, so that they know nothing of it when it takes effect. Blocks for
    /// kernels, until then at most.
    pub(super) fn forget_reads(&self, deadline: Instant) {
        if let (Some(audience), Some(expected)) = (self.audience, &self.expected) {
            audience.forget_reads(expected.number, deadline);
        }
    }

    /// Whether kernels know nothing of it.
    pub(super) fn is_forgotten(&self) -> bool {
        match (self.audience, &self.expected) {
            (Some(audience), Some(expected)) => audience.is_forgotten(expected.number),
            _ => true,
        }
    }

    /// The round has taken effect, or will not.
    pub(super) fn end(&mut self) {
        if let (Some(audience), Some(Expected { number, .. })) = (self.audience, self.expected.take()) {
            audience.end(number);
        }
    }

    /// What is sealed changes no more by itself.
    pub(super) fn is_sealed(&mut self) {
        self.stops.clear();
    }
}

impl Drop for Preparation<'_> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Those of some intervals that have changed something, and what was the last change of each.
fn changed<'s>(numbers: &'s [IntervalId], store: &'s Store) -> impl Iterator<Item = (IntervalId, u64)> + 's {
    numbers.iter().map(|number| (*number, store.last_change(*number))).filter(|(_, last)| *last > 0)
}

impl Coordinator {
    /// Prepares views for what a vote would make final. Whoever goes on changing that is stopped in the third turn. Blocks for kernels; no
    /// lock is held.
    ///
    /// # Errors
    /// [`FaultKind::TimedOut`](mojavefs::protocol::fault::FaultKind::TimedOut) if a kernel does not forget what it must: nothing has happened.
    pub(super) fn prepare<'a>(&'a self, preparation: &mut Preparation<'a>, outlook: &Outlook) -> Result<(), Fault> {
        let Some(audience) = preparation.audience else { return Ok(()) };
        let _stage = tracing::debug_span!("prepare", turn = preparation.turns).entered();
        preparation.end();
        preparation.turns += 1;
        if preparation.turns >= GATHER_TURNS_MAX {
            let stops = outlook.specs.iter().map(|(spec, context)| self.stop_changes(*spec, *context));
            preparation.stops = stops.collect();
        }
        let changed: HashMap<IntervalId, u64> = changed(&outlook.numbers, &self.store).collect();
        let mut numbers: Vec<IntervalId> = changed.keys().copied().collect();
        numbers.sort_unstable();
        let number = audience.expect(&numbers);
        preparation.expected = Some(Expected { number, changed });
        audience.forget(number)
    }
}
