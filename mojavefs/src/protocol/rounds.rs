//! Asking again: what would change something that is just being decided waits until that is done.

use super::fault::{Fault, FaultKind};
use super::{Connection, ConnectionExt, NoticeSink, Reply, Request, SpecOp, ViewOp};
use crate::limits::ROUND_TIME_MAX;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// What came of one question whether something has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// It has.
    Ended,
    /// It has not: ask again.
    NotYet,
    /// It has not, and is not waited for any longer.
    TooLong,
}

/// Many threads that wait for the same: one of them asks the server for all, so that however many they are, what they ask does not
/// keep other requests of their session from being asked.
#[derive(Default)]
pub struct SharedWait {
    state: Mutex<Asked>,
    answered: Condvar,
}

#[derive(Default)]
struct Asked {
    /// How often a question was answered that ends the wait, and how the last was.
    answers: u64,
    ended: bool,
    /// Somebody is asking.
    under_way: bool,
}

impl SharedWait {
    /// Waits until `ask` has said that something has ended (true), or that it was waited for too long. `ask` may block. Errors: those
    /// of `ask`.
    pub fn wait(&self, ask: impl Fn() -> Result<Waited, Fault>) -> Result<bool, Fault> {
        let mut state = self.state.lock();
        let before = state.answers;
        while state.answers == before {
            if state.under_way {
                self.answered.wait(&mut state);
                continue;
            }
            state.under_way = true;
            drop(state);
            let answer = ask();
            state = self.state.lock();
            state.under_way = false;
            if let Ok(waited @ (Waited::Ended | Waited::TooLong)) = answer {
                state.answers += 1;
                state.ended = waited == Waited::Ended;
            }
            self.answered.notify_all();
            answer?;
        }
        Ok(state.ended)
    }
}

/// Waits for something, and says whether it has ended.
pub type Wait<'a> = &'a dyn Fn() -> Result<bool, Fault>;

/// A session whose requests wait for what is being decided, and are made again then.
pub struct Rounds {
    server: Arc<dyn Connection>,
    /// Whether this thread may wait, and goes on afterwards; else what would have to is refused, as by the server.
    may_wait: fn() -> bool,
    /// Whether a request waits however long it takes.
    is_patient: fn(&Request<'_>) -> bool,
    /// Waits for what it is given; fails if nobody waits for the answer any more.
    waits: fn(Wait<'_>) -> Result<bool, Fault>,
    round: SharedWait,
    patient: SharedWait,
}

impl Rounds {
    /// For one session.
    pub fn new(
        server: Arc<dyn Connection>,
        may_wait: fn() -> bool,
        is_patient: fn(&Request<'_>) -> bool,
        waits: fn(Wait<'_>) -> Result<bool, Fault>,
    ) -> Self {
        let (round, patient) = Default::default();
        Rounds { server, may_wait, is_patient, waits, round, patient }
    }

    /// The same where every thread waits; and a decision as long as for its own record, which has no limit.
    pub fn of(server: Arc<dyn Connection>) -> Self {
        let decides = |request: &Request<'_>| {
            let decision =
                |op: &SpecOp| matches!(op, SpecOp::Commit { .. } | SpecOp::Abort { .. } | SpecOp::Hold { .. });
            match request {
                Request::Speculation { op, .. } => decision(op),
                Request::View(op) => matches!(op, ViewOp::Undo { .. }),
                Request::Fs { .. } | Request::Admin(_) => false,
            }
        };
        Self::new(server, || true, decides, |wait| wait())
    }

    fn wait(&self, patient: bool) -> Result<bool, Fault> {
        let ask = || {
            Ok(match (self.server.ended(ViewOp::AwaitRound { patient })?, patient) {
                (true, _) => Waited::Ended,
                (false, true) if !(self.may_wait)() => {
                    return Err(Fault::new(FaultKind::Interrupted, "nobody waits for this any more"));
                }
                (false, true) => Waited::NotYet,
                (false, false) => Waited::TooLong,
            })
        };
        if patient { self.patient.wait(ask) } else { self.round.wait(ask) }
    }
}

impl Connection for Rounds {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        loop {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Sealed && (self.may_wait)() => {
                    let is_patient = (self.is_patient)(&request);
                    if !(self.waits)(&|| self.wait(is_patient))? {
                        let limit = ROUND_TIME_MAX.as_secs();
                        let text = format!("{fault}, and the disk has not answered for {limit} s; try again later");
                        return Err(Fault::new(FaultKind::Io, text));
                    }
                    if !(self.may_wait)() {
                        return Err(fault);
                    }
                }
                result => return result,
            }
        }
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        self.server.set_notice_sink(sink);
    }

    fn is_embedded(&self) -> bool {
        self.server.is_embedded()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Ino, ViewId};
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    /// Refuses so many requests, and says of each question whether something has ended.
    #[derive(Default)]
    struct Foretold {
        refusals: AtomicUsize,
        questions: AtomicUsize,
        has_ended: bool,
    }

    impl Connection for Foretold {
        fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
            if matches!(request, Request::View(ViewOp::AwaitRound { .. })) {
                self.questions.fetch_add(1, Ordering::SeqCst);
                return Ok(Reply::Ended(self.has_ended));
            }
            let left = self.refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
            match left {
                Ok(_) => Err(Fault::new(FaultKind::Sealed, "it is being decided")),
                Err(_) => Ok(Reply::Done),
            }
        }

        fn set_notice_sink(&self, _sink: Arc<dyn NoticeSink>) {}

        fn is_embedded(&self) -> bool {
            true
        }
    }

    fn unlink() -> Request<'static> {
        crate::protocol::FsOp::Unlink { parent: Ino::ROOT, name: b"file" }.on(ViewId(1))
    }

    #[test]
    fn what_is_refused_is_asked_again_once_something_has_ended() {
        let server = Arc::new(Foretold { refusals: 3.into(), has_ended: true, ..Foretold::default() });
        Rounds::of(server.clone()).done(unlink()).expect("it waits");
        assert_eq!(server.questions.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn who_may_not_wait_is_refused() {
        let server = Arc::new(Foretold { refusals: 1.into(), ..Foretold::default() });
        let refused = Rounds::new(server.clone(), || false, |_| false, |wait| wait())
            .done(unlink())
            .expect_err("it would have to wait");
        assert_eq!((refused.kind, server.questions.load(Ordering::SeqCst)), (FaultKind::Sealed, 0));
    }

    #[test]
    fn what_takes_too_long_is_an_error_but_for_who_is_patient() {
        let server = Arc::new(Foretold { refusals: 1.into(), ..Foretold::default() });
        let refused = Rounds::of(server.clone()).done(unlink()).expect_err("it takes too long");
        assert_eq!((refused.kind, server.questions.load(Ordering::SeqCst)), (FaultKind::Io, 1));
        let (wait, asked) = (SharedWait::default(), AtomicUsize::new(0));
        let ask = || match asked.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => Ok(Waited::NotYet),
            _ => Ok(Waited::Ended),
        };
        assert_eq!((wait.wait(ask), asked.load(Ordering::SeqCst)), (Ok(true), 3));
        assert!(wait.wait(|| Err(Fault::new(FaultKind::Disconnected, "it is gone"))).is_err());
    }

    #[test]
    fn one_asks_for_all_who_wait() {
        const WAITERS: usize = 8;
        let (wait, asking, most) = (SharedWait::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        let all = Barrier::new(WAITERS);
        thread::scope(|scope| {
            for _ in 0..WAITERS {
                scope.spawn(|| {
                    all.wait();
                    let ask = || {
                        most.fetch_max(asking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        thread::yield_now();
                        asking.fetch_sub(1, Ordering::SeqCst);
                        Ok(Waited::Ended)
                    };
                    assert_eq!(wait.wait(ask), Ok(true));
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }
}
