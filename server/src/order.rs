//! The order of locks (`docs/locking.md`), held against what threads do where that is asked for: a thread takes a lock only while it
//! holds none that comes at the same place or later, and waits for the disk only while it holds none of the first four.

use crate::checks;
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// The places of locks, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Decisions,
    State,
    Users,
    Noticed,
    FinalWrites,
    Syncing,
}

thread_local! {
    static HELD: RefCell<Vec<Place>> = const { RefCell::new(Vec::new()) };
}

/// What waits for the disk comes next.
pub(crate) fn waits_for_the_disk() {
    if checks::are_made() {
        HELD.with_borrow(|held| {
            if held.first().is_some_and(|place| *place <= Place::Noticed) {
                checks::fail(format_args!("the disk is waited for with a lock held: {held:?}"));
            }
        });
    }
}

/// A lock that is held, or waited for.
struct Held(Option<Place>);

impl Held {
    fn take(place: Place) -> Held {
        if !checks::are_made() {
            return Held(None);
        }
        HELD.with_borrow_mut(|held| {
            if held.iter().any(|other| *other >= place) {
                checks::fail(format_args!("{place:?} is locked after {held:?}"));
            }
            held.push(place);
        });
        Held(Some(place))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(place) = self.0 {
            HELD.with_borrow_mut(|held| held.retain(|other| *other != place));
        }
    }
}

/// What a lock gives, for as long as it is held.
pub(crate) struct Guard<G> {
    guard: G,
    _held: Held,
}

impl<G> Guard<G> {
    /// The guard itself, for a condition variable.
    pub(crate) fn inner(&mut self) -> &mut G {
        &mut self.guard
    }
}

impl<G: Deref> Deref for Guard<G> {
    type Target = G::Target;

    fn deref(&self) -> &G::Target {
        &self.guard
    }
}

impl<G: DerefMut> DerefMut for Guard<G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// A lock with a place in the order.
pub(crate) struct Ordered<L> {
    place: Place,
    lock: L,
}

impl<T> Ordered<Mutex<T>> {
    pub(crate) fn mutex(place: Place, value: T) -> Self {
        Ordered { place, lock: Mutex::new(value) }
    }

    pub(crate) fn lock(&self) -> Guard<MutexGuard<'_, T>> {
        let held = Held::take(self.place);
        Guard { guard: self.lock.lock(), _held: held }
    }
}

impl<T> Ordered<RwLock<T>> {
    pub(crate) fn rw_lock(place: Place, value: T) -> Self {
        Ordered { place, lock: RwLock::new(value) }
    }

    pub(crate) fn read(&self) -> Guard<RwLockReadGuard<'_, T>> {
        let held = Held::take(self.place);
        Guard { guard: self.lock.read(), _held: held }
    }

    pub(crate) fn write(&self) -> Guard<RwLockWriteGuard<'_, T>> {
        let held = Held::take(self.place);
        Guard { guard: self.lock.write(), _held: held }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_taken_in_order() {
        let (first, second) = (Ordered::rw_lock(Place::Decisions, ()), Ordered::mutex(Place::State, 0));
        for _ in 0..2 {
            let _shared = first.read();
            *second.lock() += 1;
        }
        let mut state = second.lock();
        **state.inner() += 1;
        drop(state);
        drop(first.write());
        waits_for_the_disk();
        assert_eq!(*second.lock(), 3);
    }

    #[test]
    #[should_panic = "Decisions is locked after [State]"]
    fn a_lock_that_comes_earlier_is_not_taken() {
        let (first, second) = (Ordered::rw_lock(Place::Decisions, ()), Ordered::mutex(Place::State, ()));
        let _state = second.lock();
        drop(first.read());
    }

    #[test]
    #[should_panic = "the disk is waited for with a lock held: [State]"]
    fn the_disk_is_not_waited_for_with_a_lock_held() {
        let state = Ordered::mutex(Place::State, ());
        let _state = state.lock();
        waits_for_the_disk();
    }
}
