//! Telling views what a decision means to them.

use parking_lot::{RwLock, RwLockReadGuard};

/// Kept by who decides, from before a decision takes effect until the views were told of it: meanwhile nothing is removed from the
/// index of changes that says of what, and whoever asks how it was decided waits. Let go while the disk is waited for.
pub(crate) struct Telling<'a> {
    lock: Option<&'a RwLock<()>>,
    held: Option<RwLockReadGuard<'a, ()>>,
}

impl<'a> Telling<'a> {
    /// Of the views that this lock stands for. No lock is held.
    pub(crate) fn of(lock: &'a RwLock<()>) -> Self {
        Telling { lock: Some(lock), held: Some(lock.read()) }
    }

    /// Where there are no views.
    #[cfg(test)]
    pub(crate) fn nobody() -> Self {
        Telling { lock: None, held: None }
    }

    /// Does something that takes time. No lock is held.
    pub(crate) fn apart<T>(&mut self, work: impl FnOnce() -> T) -> T {
        self.held = None;
        let result = work();
        self.held = self.lock.map(RwLock::read);
        result
    }
}
