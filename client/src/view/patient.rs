//! A session for a view whose programs wait for decisions (`--on-read wait`).

use crate::limits::{AWAIT_STEP, READS_AGAIN_MAX};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, NoticeSink, Reply, Request};
use parking_lot::Mutex;
use std::collections::HashSet;
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
    /// What the kernel has been told to read again.
    read_again: Mutex<HashSet<(Ino, u64)>>,
}

impl Patient {
    /// For the view of a speculation of this user.
    pub(crate) fn new(server: Arc<dyn Connection>, (spec, uid): (SpecId, u32)) -> Self {
        let (interrupts, waiting, over, read_again) = Default::default();
        Patient { server, spec, uid, interrupts, waiting, over, read_again }
    }

    /// Reads up to `size` bytes for a page cache. The kernel took the file's size for known before it asked; if the file has
    /// become shorter while the read waited, it would show zeros behind its end. So a read that has waited and meets the end
    /// fails, once: the kernel was reading ahead, and asks again for what it needs. (If it was not, the program's call ends early
    /// or with `EINTR`.)
    pub(super) fn read(&self, view: ViewId, ino: Ino, offset: u64, size: u32) -> Result<Vec<u8>, Fault> {
        let mut waited = false;
        let reply = self.call_again(&Request::Read { view, ino, offset, size }, || waited = true)?;
        if waited {
            // Only a read that begins after the kernel was told that the file has changed makes it shorter there.
            self.while_waiting(|| self.server.done(Request::Announced))?;
        }
        let Reply::Data(data) = reply else {
            return Err(Fault::new(FaultKind::Protocol, format!("this is no answer to a read: {reply:?}")));
        };
        let mut read_again = self.read_again.lock();
        let is_again = read_again.remove(&(ino, offset));
        if !waited || is_again || data.len() == size as usize {
            return Ok(data);
        }
        if read_again.len() == READS_AGAIN_MAX {
            read_again.clear();
        }
        read_again.insert((ino, offset));
        Err(Fault::new(FaultKind::Interrupted, format!("inode {ino} may be shorter by now: read it again")))
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
        self.while_waiting(|| self.server.specs(Request::Await { specs: Vec::new(), millis, behind, uid: self.uid }))?;
        Ok(())
    }

    fn while_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let result = wait();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl Patient {
    /// Repeats a request while it meets undecided work; says each time that it has waited.
    fn call_again(&self, request: &Request<'_>, mut waited: impl FnMut()) -> Result<Reply, Fault> {
        let before = self.interrupts.load(Ordering::SeqCst);
        loop {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Undecided => {
                    if self.over.load(Ordering::SeqCst) || self.interrupts.load(Ordering::SeqCst) != before {
                        return Err(Fault::new(FaultKind::Interrupted, "the wait for a decision was interrupted"));
                    }
                    self.wait()?;
                    waited();
                }
                result => return result,
            }
        }
    }
}

impl Connection for Patient {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        self.call_again(&request, || {})
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        self.server.set_notice_sink(sink);
    }

    fn is_embedded(&self) -> bool {
        self.server.is_embedded()
    }
}
