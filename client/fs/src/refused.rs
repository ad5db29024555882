//! Files whose undecided work was refused to a view (`--on-read fail`).

use crate::deliveries;
use crate::limits::REFUSED_FILES_MAX;
use crate::patience;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use parking_lot::Mutex;
use std::collections::HashSet;

/// Which files were refused, and the kernel may not have been told since of what others have changed.
///
/// A kernel does not take the size from an answer if it is told that the file has changed while it waits for the answer, or before
/// it has read it: the program would be given the new bytes up to the old size. So what was refused is given only once the kernel has
/// been told all.
#[derive(Default)]
pub(crate) struct Refused(Mutex<HashSet<Ino>>);

impl Refused {
    /// What `ask` says of a file, once the kernel will take all of it; `settle` waits until that has been told all there is. Errors:
    /// [`FaultKind::Sealed`] if the caller must not wait.
    pub(crate) fn ask<T>(
        &self,
        ino: Ino,
        ask: impl Fn() -> Result<T, Fault>,
        settle: impl Fn() -> Result<(), Fault>,
    ) -> Result<T, Fault> {
        loop {
            let was_refused = self.0.lock().contains(&ino);
            let answer = ask();
            match &answer {
                Err(fault) if fault.kind == FaultKind::Busy => self.note(ino),
                Ok(_) if was_refused => {
                    // What was found is not given.
                    deliveries::forget();
                    if !patience::may_wait() {
                        let text = format!("the kernel may not know yet that inode {ino} is decided");
                        return Err(Fault::new(FaultKind::Sealed, text));
                    }
                    settle()?;
                    self.told(ino);
                    continue;
                }
                _ => {}
            }
            return answer;
        }
    }

    fn note(&self, ino: Ino) {
        let mut refused = self.0.lock();
        if refused.len() == REFUSED_FILES_MAX {
            refused.clear();
        }
        refused.insert(ino);
    }

    /// The kernel has been told that a file has changed, and all else that it was to be told with that.
    pub(crate) fn told(&self, ino: Ino) {
        self.0.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn busy() -> Result<u8, Fault> {
        Err(Fault::new(FaultKind::Busy, "undecided"))
    }

    fn kind(answer: Result<u8, Fault>) -> Result<u8, FaultKind> {
        answer.map_err(|fault| fault.kind)
    }

    fn never() -> Result<(), Fault> {
        unreachable!("there is nothing to wait for")
    }

    #[test]
    fn what_was_refused_is_asked_for_again_when_the_kernel_has_been_told_all() {
        let (refused, ino) = (Refused::default(), Ino::ROOT);
        assert_eq!(kind(refused.ask(ino, || Ok(1), never)), Ok(1));
        assert_eq!(kind(refused.ask(ino, busy, never)), Err(FaultKind::Busy));
        // The kernel would not take an answer that was found before it is told.
        let told = Cell::new(0);
        let settle = || {
            told.set(1);
            Ok(())
        };
        assert_eq!(kind(refused.ask(ino, || Ok(told.get()), settle)), Ok(1));
        assert_eq!(kind(refused.ask(ino, || Ok(2), never)), Ok(2));
    }

    #[test]
    fn who_asks_after_the_kernel_has_been_told_is_answered() {
        let (refused, ino) = (Refused::default(), Ino::ROOT);
        assert_eq!(kind(refused.ask(ino, busy, never)), Err(FaultKind::Busy));
        refused.told(ino);
        assert_eq!(kind(refused.ask(ino, || Ok(2), never)), Ok(2));
    }

    #[test]
    fn who_must_not_wait_for_that_says_so() {
        let (refused, ino) = (Refused::default(), Ino::ROOT);
        let _asking = patience::Asking::for_process(1, patience::Patience::Never);
        assert_eq!(kind(refused.ask(ino, busy, never)), Err(FaultKind::Busy));
        assert_eq!(kind(refused.ask(ino, || Ok(2), never)), Err(FaultKind::Sealed));
        refused.told(ino);
        assert_eq!(kind(refused.ask(ino, || Ok(2), never)), Ok(2));
    }
}
