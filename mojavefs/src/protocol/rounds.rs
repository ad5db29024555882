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
