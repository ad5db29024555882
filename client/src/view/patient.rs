//! A session for a view whose programs wait for decisions (`--on-read wait`).

use crate::limits::AWAIT_STEP;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::wire::{Connection, ConnectionExt, NoticeSink, Reply, Request};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Repeats a request that met another's undecided work once something was decided.
pub(crate) struct Patient {
    server: Arc<dyn Connection>,
    spec: SpecId,
    /// Whose it is.
    uid: u32,
    /// How often those that wait were told to stop.
    interrupts: AtomicU64,
    /// How many requests wait.
    waiting: AtomicU64,
    /// Nobody is to wait any more.
    over: AtomicBool,
}

impl Patient {
    /// For the view of a speculation of this user.
    pub(crate) fn new(server: Arc<dyn Connection>, (spec, uid): (SpecId, u32)) -> Self {
        let (interrupts, waiting) = Default::default();
        Patient { server, spec, uid, interrupts, waiting, over: AtomicBool::new(false) }
    }

    /// Whatever waits is answered with `EINTR`; with `for_good` whatever would wait later, too.
    pub(crate) fn interrupt(&self, for_good: bool) {
        self.over.fetch_or(for_good, Ordering::SeqCst);
        self.interrupts.fetch_add(1, Ordering::SeqCst);
    }

    /// The program is back from what was undone, and may wait as before.
    pub(crate) fn wait_again(&self) {
        self.over.store(false, Ordering::SeqCst);
    }

    /// Whether a request waits. The kernel keeps what it concerns locked meanwhile.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until something is decided, or for a while.
    fn wait(&self) -> Result<(), Fault> {
        let (millis, behind) = (AWAIT_STEP.as_millis() as u32, Some(self.spec));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let decided = self.server.specs(Request::Await { specs: Vec::new(), millis, behind, uid: self.uid });
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        decided.map(drop)
    }
}

impl Connection for Patient {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let before = self.interrupts.load(Ordering::SeqCst);
        loop {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Undecided => {
                    if self.over.load(Ordering::SeqCst) || self.interrupts.load(Ordering::SeqCst) != before {
                        return Err(Fault::new(FaultKind::Interrupted, "the wait for a decision was interrupted"));
                    }
                    self.wait()?;
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
