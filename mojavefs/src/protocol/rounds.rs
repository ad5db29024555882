//! Asking again: what would change something that is just being decided waits until that is done.

use super::fault::{Fault, FaultKind};
use super::{Connection, ConnectionExt, NoticeSink, Reply, Request};
use crate::limits::{ROUND_STEP, ROUND_TIME_MAX};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Many threads that wait for the same: one of them asks the server for all, so that however many they are, what they ask does not
/// keep other requests of their session from being asked.
#[derive(Default)]
pub struct SharedWait {
    state: Mutex<Asked>,
    answered: Condvar,
}

#[derive(Default)]
struct Asked {
    /// How often something has ended that was waited for.
    ended: u64,
    /// Somebody is asking.
    under_way: bool,
}

impl SharedWait {
    /// Waits until `ask` has said that something has ended, for so long at most. `ask` takes a few seconds at most, and is asked
    /// again if nothing has ended by then. Whether something has. Errors: those of `ask`.
    pub fn wait(&self, limit: Option<Duration>, ask: impl Fn() -> Result<bool, Fault>) -> Result<bool, Fault> {
        let began = Instant::now();
        let is_too_late = || limit.is_some_and(|limit| began.elapsed() >= limit);
        let mut state = self.state.lock();
        let before = state.ended;
        while state.ended == before && !is_too_late() {
            if state.under_way {
                self.answered.wait(&mut state);
                continue;
            }
            state.under_way = true;
            drop(state);
            let ended = ask();
            state = self.state.lock();
            state.under_way = false;
            state.ended += u64::from(*ended.as_ref().unwrap_or(&false));
            self.answered.notify_all();
            ended?;
        }
        Ok(state.ended != before)
    }
}

/// A session whose requests wait for what is being decided, and are made again then.
pub struct Rounds {
    server: Arc<dyn Connection>,
    /// Whether this thread may wait, and goes on afterwards; else what would have to is refused, as by the server.
    may_wait: fn() -> bool,
    round: SharedWait,
}

/// What to say of something that would have waited for too long.
pub fn no_end(refused: &Fault) -> Fault {
    let limit = ROUND_TIME_MAX.as_secs();
    Fault::new(FaultKind::Io, format!("{refused}, and the disk has not answered for {limit} s; try again later"))
}

impl Rounds {
    /// For one session.
    pub fn new(server: Arc<dyn Connection>, may_wait: fn() -> bool) -> Self {
        Rounds { server, may_wait, round: SharedWait::default() }
    }

    fn wait(&self, limit: Option<Duration>) -> Result<bool, Fault> {
        let millis = ROUND_STEP.as_millis() as u32;
        self.round.wait(limit, || self.server.ended(Request::AwaitRound { millis }))
    }
}

impl Connection for Rounds {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        // A kernel would lose what it writes out if that were refused.
        let limit = (!matches!(request, Request::Write { .. })).then_some(ROUND_TIME_MAX);
        loop {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Sealed && (self.may_wait)() => {
                    if !self.wait(limit)? {
                        return Err(no_end(&fault));
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
            if matches!(request, Request::AwaitRound { .. }) {
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
        Request::Unlink { view: ViewId(1), parent: Ino::ROOT, name: b"file" }
    }

    #[test]
    fn what_is_refused_is_asked_again_once_something_has_ended() {
        let server = Arc::new(Foretold { refusals: 3.into(), has_ended: true, ..Foretold::default() });
        Rounds::new(server.clone(), || true).done(unlink()).expect("it waits");
        assert_eq!(server.questions.load(Ordering::SeqCst), 3);
    }

    #[test]
    fn who_may_not_wait_is_refused() {
        let server = Arc::new(Foretold { refusals: 1.into(), ..Foretold::default() });
        let refused = Rounds::new(server.clone(), || false).done(unlink()).expect_err("it would have to wait");
        assert_eq!((refused.kind, server.questions.load(Ordering::SeqCst)), (FaultKind::Sealed, 0));
    }

    #[test]
    fn a_wait_ends_by_its_limit() {
        let (wait, asked) = (SharedWait::default(), AtomicUsize::new(0));
        let ask = || {
            asked.fetch_add(1, Ordering::SeqCst);
            Ok(false)
        };
        assert_eq!(wait.wait(Some(Duration::from_millis(5)), ask), Ok(false));
        assert!(asked.load(Ordering::SeqCst) > 0);
        let broken = || Err(Fault::new(FaultKind::Disconnected, "it is gone"));
        assert!(wait.wait(None, broken).is_err());
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
                        Ok(true)
                    };
                    assert_eq!(wait.wait(None, ask), Ok(true));
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }
}
