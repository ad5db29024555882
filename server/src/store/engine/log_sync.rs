//! Syncs of a log: one at a time, each for all who have asked before it began.
//!
//! A sync covers what was written before it began, so who asks while one is under way needs the next; and all who ask meanwhile
//! are served by that one. Whoever finds none under way does it, on its own thread.

use super::{EngineError, Result};
use parking_lot::{Condvar, Mutex, MutexGuard};

/// The syncs of one log.
#[derive(Default)]
pub(super) struct LogSync {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

#[derive(Default)]
struct Rounds {
    /// How many syncs have begun.
    begun: u64,
    /// How many of them have ended.
    ended: u64,
    /// The first that failed, and with what. What the log had to write then may be lost whatever a later one would say, so none is
    /// tried.
    failed: Option<(u64, Failure)>,
}

/// An error that several are told.
struct Failure {
    is_full: bool,
    text: String,
}

impl LogSync {
    /// Returns when all that was written before is durable. `sync` writes the log to disk.
    pub(super) fn sync(&self, sync: impl Fn() -> Result<()>) -> Result<()> {
        self.run_until(self.next(), sync)
    }

    /// The first sync that covers all that is written by now.
    fn next(&self) -> u64 {
        self.rounds.lock().begun + 1
    }

    fn run_until(&self, mine: u64, sync: impl Fn() -> Result<()>) -> Result<()> {
        let mut rounds = self.rounds.lock();
        while rounds.ended < mine {
            if let Some((_, failure)) = &rounds.failed {
                return Err(EngineError::Refused(failure.text.clone()));
            }
            if rounds.ended < rounds.begun {
                self.ended.wait(&mut rounds);
                continue;
            }
            rounds.begun += 1;
            let result = MutexGuard::unlocked(&mut rounds, &sync);
            rounds.ended += 1;
            if let Err(error) = result {
                rounds.failed = Some((rounds.ended, Failure::of(error)));
            }
            self.ended.notify_all();
        }
        match &rounds.failed {
            Some((round, failure)) if *round == mine => Err(failure.told()),
            _ => Ok(()),
        }
    }
}

impl Failure {
    fn of(error: EngineError) -> Self {
        Failure { is_full: matches!(error, EngineError::Full(_)), text: error.to_string() }
    }

    fn told(&self) -> EngineError {
        if self.is_full { EngineError::Full(self.text.clone()) } else { EngineError::Failed(self.text.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::sync::mpsc;
    use std::thread;

    /// What eight are told who ask while the first sync is under way, how often there is a sync after it, and what who asked for
    /// that one is told, which ends so.
    fn ask_during(first: Result<()>) -> (Vec<Result<()>>, usize, Result<()>) {
        let log = LogSync::default();
        let (begins, begun) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let under_way = move || {
            begins.send(()).expect("somebody waits");
            ended.recv().expect("how it ends")
        };
        thread::scope(|scope| {
            let log = &log;
            let asked_first = scope.spawn(move || log.sync(under_way));
            begun.recv().expect("it begins");
            let asked: Vec<u64> = (0..8).map(|_| log.next()).collect();
            end.send(first).expect("it is under way");
            let told_first = asked_first.join().expect("no panic");
            let syncs = Cell::new(0);
            let sync = || {
                syncs.set(syncs.get() + 1);
                Ok(())
            };
            let told = asked.into_iter().map(|round| log.run_until(round, sync)).collect();
            (told, syncs.get(), told_first)
        })
    }

    #[test]
    fn all_who_ask_while_a_sync_is_under_way_get_the_next() {
        let (told, syncs, told_first) = ask_during(Ok(()));
        assert!(told_first.is_ok() && told.iter().all(Result::is_ok));
        assert_eq!(syncs, 1);
    }

    #[test]
    fn after_a_failure_no_sync_is_tried() {
        let (told, syncs, told_first) = ask_during(Err(EngineError::Full("no room".into())));
        assert!(matches!(told_first, Err(EngineError::Full(_))), "{told_first:?}");
        assert!(told.iter().all(|told| matches!(told, Err(EngineError::Refused(_)))), "{told:?}");
        assert_eq!(syncs, 0);
    }

    #[test]
    fn all_who_have_asked_for_a_sync_that_fails_are_told() {
        let log = LogSync::default();
        let round = log.next();
        let told = [(); 2].map(|()| log.run_until(round, || Err(EngineError::Failed("broken".into()))));
        assert!(told.iter().all(|told| matches!(told, Err(EngineError::Failed(_)))), "{told:?}");
    }
}
