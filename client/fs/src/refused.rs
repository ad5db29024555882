//! Files whose undecided work was refused to a view (`--on-read fail`).

use crate::limits::REFUSED_FILES_MAX;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use parking_lot::Mutex;
use std::collections::HashSet;

/// Which files were refused, and the kernel has not been told since that they are decided.
///
/// A kernel does not take the size from an answer if it is told that the file has changed while it waits for the answer, or before
/// it has read it: the program would be given the new bytes up to the old size. Who asks again all the time is likely to be
/// answered at that moment.
#[derive(Default)]
pub(crate) struct Refused(Mutex<HashSet<Ino>>);

impl Refused {
    /// What `ask` says of a file, unless the kernel would not take all of it: then the file counts as undecided once more.
    pub(crate) fn ask<T>(&self, ino: Ino, ask: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
        let was_refused = self.0.lock().contains(&ino);
        let answer = ask();
        match &answer {
            Err(fault) if fault.kind == FaultKind::Busy => {
                let mut refused = self.0.lock();
                if refused.len() == REFUSED_FILES_MAX {
                    refused.clear();
                }
                refused.insert(ino);
            }
            // If the kernel is told nothing of it, it need not be.
            Ok(_) if was_refused => {
                self.told(ino);
                return Err(Fault::new(FaultKind::Busy, format!("inode {ino} was undecided until now; try again")));
            }
            _ => {}
        }
        answer
    }

    /// The kernel has been told that a file has changed, and all else that it was to be told with that.
    pub(crate) fn told(&self, ino: Ino) {
        self.0.lock().remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy() -> Result<u8, Fault> {
        Err(Fault::new(FaultKind::Busy, "undecided"))
    }

    fn kind(answer: Result<u8, Fault>) -> Result<u8, FaultKind> {
        answer.map_err(|fault| fault.kind)
    }

    #[test]
    fn what_was_refused_is_so_until_the_kernel_has_been_told() {
        let (refused, ino) = (Refused::default(), Ino::ROOT);
        assert_eq!(kind(refused.ask(ino, || Ok(1))), Ok(1));
        assert_eq!(kind(refused.ask(ino, busy)), Err(FaultKind::Busy));
        // It is decided, and the kernel is told while it waits for the answer.
        let told_meanwhile = || {
            refused.told(ino);
            Ok(2)
        };
        assert_eq!(kind(refused.ask(ino, told_meanwhile)), Err(FaultKind::Busy));
        assert_eq!(kind(refused.ask(ino, || Ok(2))), Ok(2));
    }

    #[test]
    fn who_asks_after_the_kernel_has_been_told_is_answered() {
        let (refused, ino) = (Refused::default(), Ino::ROOT);
        assert_eq!(kind(refused.ask(ino, busy)), Err(FaultKind::Busy));
        refused.told(ino);
        assert_eq!(kind(refused.ask(ino, || Ok(2))), Ok(2));
    }

    #[test]
    fn one_of_which_the_kernel_is_told_nothing_is_refused_once_more_only() {
        let (refused, ino) = (Refused::default(), Ino::ROOT);
        assert_eq!(kind(refused.ask(ino, busy)), Err(FaultKind::Busy));
        assert_eq!(kind(refused.ask(ino, || Ok(2))), Err(FaultKind::Busy));
        assert_eq!(kind(refused.ask(ino, || Ok(2))), Ok(2));
    }
}
