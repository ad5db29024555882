//! What a kernel is still to be told of others' changes, and who waits until it was.

use crate::views::invalidations::InvalidationSet;
use mojavefs::protocol::Invalidation;
use parking_lot::{Condvar, Mutex};
use std::time::Instant;

/// What is noted is numbered, and told in that order, each thing once.
#[derive(Default)]
pub(crate) struct Lane {
    state: Mutex<State>,
    some_was_told: Condvar,
}

#[derive(Default)]
struct State {
    what: InvalidationSet,
    noted: u64,
    told: u64,
    /// Somebody tells, and goes on until there is no more.
    is_being_told: bool,
}

impl Lane {
    /// Notes more. Its number, and whether somebody tells already.
    pub(crate) fn note(&self, what: impl IntoIterator<Item = Invalidation>) -> (u64, bool) {
        let mut state = self.state.lock();
        state.what.add(what);
        state.noted += 1;
        let is_being_told = std::mem::replace(&mut state.is_being_told, true);
        (state.noted, is_being_told)
    }

    /// Tells what there is; false if there is nothing. Called by one thread at a time.
    pub(crate) fn tell(&self, tell: impl FnOnce(InvalidationSet)) -> bool {
        let (what, noted) = {
            let mut state = self.state.lock();
            if state.told >= state.noted {
                state.is_being_told = false;
                return false;
            }
            (std::mem::take(&mut state.what), state.noted)
        };
        tell(what);
        self.are_told(noted);
        true
    }

    /// Who was to tell can't: the next one who notes something sees to it.
    pub(crate) fn is_left(&self) {
        self.state.lock().is_being_told = false;
    }

    /// Nothing is told any more, and nobody need wait for that.
    pub(crate) fn close(&self) {
        self.are_told(u64::MAX);
    }

    fn are_told(&self, number: u64) {
        let mut state = self.state.lock();
        state.told = state.told.max(number);
        drop(state);
        self.some_was_told.notify_all();
    }

    /// Whether what has this number was told.
    pub(crate) fn is_told(&self, number: u64) -> bool {
        self.state.lock().told >= number
    }

    /// The number of what was noted last.
    pub(crate) fn last(&self) -> u64 {
        self.state.lock().noted
    }

    /// Whether there is something to tell, or being told.
    pub(crate) fn has_more(&self) -> bool {
        let state = self.state.lock();
        state.told < state.noted
    }

    /// Waits until what has this number was told; false at the deadline.
    pub(crate) fn wait(&self, number: u64, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        self.some_was_told.wait_while_until(&mut state, |state| state.told < number, deadline);
        state.told >= number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::id::Ino;

    fn note(lane: &Lane) -> (u64, bool) {
        lane.note([Invalidation::Inode(Ino::ROOT)])
    }

    #[test]
    fn what_is_noted_while_it_is_told_is_told_by_the_same() {
        let lane = Lane::default();
        assert_eq!(note(&lane), (1, false));
        assert!(lane.tell(|what| {
            assert_eq!((what.what.len(), note(&lane)), (1, (2, true)));
        }));
        assert!(lane.wait(1, Instant::now()) && !lane.wait(2, Instant::now()) && lane.has_more());
        assert!(lane.tell(drop) && lane.wait(2, Instant::now()) && !lane.tell(drop));
        assert_eq!(note(&lane), (3, false));
    }

    #[test]
    fn nobody_waits_for_what_is_closed() {
        let lane = Lane::default();
        let (number, _) = note(&lane);
        assert!(!lane.wait(number, Instant::now()));
        lane.close();
        let (later, _) = note(&lane);
        assert!(lane.wait(later, Instant::now()) && !lane.tell(drop) && !lane.has_more());
    }

    #[test]
    fn what_nobody_could_tell_is_told_with_the_next() {
        let lane = Lane::default();
        note(&lane);
        lane.is_left();
        assert_eq!(note(&lane), (2, false));
        assert!(lane.tell(|what| assert_eq!(what.what.len(), 2)) && lane.wait(2, Instant::now()));
    }
}
