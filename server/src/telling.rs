//! Telling views what decisions mean to them: before they take effect, and after.

use mojavefs::id::{ContextId, Ino, IntervalId};
use mojavefs::protocol::fault::Fault;
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How often who waits lets others go on before it sleeps.
const YIELDS: usize = 32;

/// Whoever is shown what is decided: views, and the kernels behind them. What a decision is about to show is announced beforehand, so
/// that it is seen all at once.
pub(crate) trait Audience: Sync {
    /// From now on what is said of what these intervals have changed is provisional: no kernel keeps it. Returns the number of this
    /// announcement.
    fn expect(&self, intervals: &[IntervalId]) -> u64;

    /// Kernels forget what they were told of it before. Blocks for kernels.
    ///
    /// # Errors
    /// [`FaultKind::TimedOut`](mojavefs::protocol::fault::FaultKind::TimedOut), naming what it is that a kernel does not forget.
    fn forget(&self, number: u64) -> Result<(), Fault>;

    /// Whether no kernel can have written anything that it keeps from us to what it changes. Stays so until it has
    /// [ended](Audience::end).
    fn is_ready(&self, number: u64) -> bool;

    /// Kernels forget what they have read of it since, and whoever reads more waits. Blocks for kernels, until then at most.
    fn forget_reads(&self, number: u64, deadline: Instant);

    /// Whether no kernel knows anything of it. Stays so until it has ended.
    fn is_forgotten(&self, number: u64) -> bool;

    /// It has taken effect, or will not.
    fn end(&self, number: u64);

    /// A lock that somebody outside of these contexts has taken on what they have changed, since they did.
    fn locked(&self, contexts: &[ContextId], intervals: &[IntervalId]) -> Option<LockedBy>;

    /// Waits until there is none, or until then.
    fn wait_for_unlock(&self, outlook: (&[ContextId], &[IntervalId]), deadline: Instant);
}

/// Who has locked a file.
#[derive(Clone, Debug)]
pub(crate) struct LockedBy {
    pub(crate) ino: Ino,
    /// Which process does what, for people.
    pub(crate) who: String,
}

/// The decisions of which views are being told: numbered as they begin, so that whoever must know that all were told waits for those
/// that had begun by then, and keeps no later one from beginning.
#[derive(Default)]
pub(crate) struct Effects {
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Default)]
struct State {
    begun: u64,
    under_way: BTreeSet<u64>,
}

impl Effects {
    fn begin(&self) -> u64 {
        let mut state = self.state.lock();
        state.begun += 1;
        let number = state.begun;
        state.under_way.insert(number);
        number
    }

    fn end(&self, number: u64) {
        self.state.lock().under_way.remove(&number);
        self.ended.notify_all();
    }

    /// Waits until views were told of everything that has taken effect by now, for so long at most. Whether they were.
    pub(crate) fn wait(&self, limit: Option<Duration>) -> bool {
        let until = self.state.lock().begun;
        self.wait_for(until, limit.map(|limit| Instant::now() + limit))
    }

    /// The same for those up to this number.
    fn wait_for(&self, until: u64, deadline: Option<Instant>) -> bool {
        let is_under_way = |state: &mut State| state.under_way.first().is_some_and(|first| *first <= until);
        // Most often it takes less time than to sleep and be woken.
        for _ in 0..YIELDS {
            if !is_under_way(&mut self.state.lock()) {
                return true;
            }
            std::thread::yield_now();
        }
        let mut state = self.state.lock();
        match deadline {
            None => self.ended.wait_while(&mut state, is_under_way),
            Some(deadline) => _ = self.ended.wait_while_until(&mut state, is_under_way, deadline),
        }
        !is_under_way(&mut state)
    }
}

/// Kept by who decides, from before a decision takes effect until the views were told of it: what they are to be told stays in the
/// index of changes, and whoever asks how it was decided waits. Let go while the disk is waited for.
pub(crate) struct Telling<'a> {
    effects: Option<(&'a Effects, u64)>,
    audience: Option<&'a dyn Audience>,
}

impl<'a> Telling<'a> {
    /// Of the views that these effects concern.
    pub(crate) fn of(effects: &'a Effects, audience: &'a dyn Audience) -> Self {
        Telling { effects: Some((effects, effects.begin())), audience: Some(audience) }
    }

    /// Where there are no views.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Telling { effects: None, audience: None }
    }

    /// Who is told beforehand; nobody where there are no views.
    pub(crate) fn audience(&self) -> Option<&'a dyn Audience> {
        self.audience
    }

    /// Does something that takes time, and has no effect yet. No lock is held.
    pub(crate) fn apart<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let Some((effects, number)) = self.effects.take() else { return work() };
        effects.end(number);
        let result = work();
        self.effects = Some((effects, effects.begin()));
        result
    }
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if let Some((effects, number)) = self.effects {
            effects.end(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telling(effects: &Effects) -> Telling<'_> {
        Telling { effects: Some((effects, effects.begin())), audience: None }
    }

    #[test]
    fn what_begins_later_is_not_waited_for() {
        let effects = Effects::default();
        let all_told = || effects.wait(Some(Duration::ZERO));
        assert!(all_told());
        let first = telling(&effects);
        assert!(!all_told());
        let later = telling(&effects);
        drop(first);
        assert!(effects.wait_for(1, None) && !all_told());
        drop(later);
        assert!(all_told());
    }

    #[test]
    fn who_waits_for_the_disk_is_not_waited_for() {
        let effects = Effects::default();
        let mut telling = telling(&effects);
        telling.apart(|| assert!(effects.wait(None)));
        assert!(!effects.wait(Some(Duration::ZERO)));
    }
}
