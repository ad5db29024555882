//! A session for a view whose programs wait for decisions (`--on-read wait`).

use crate::limits::AWAIT_STEP;
use crate::patience::{Patience, may_wait, patience, wait_for_others};
use mojavefs::id::SpecId;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::rounds::{SharedWait, Waited};
use mojavefs::protocol::{Connection, ConnectionExt, FsOp, NoticeSink, Reply, Request, SpecOp, ViewOp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Repeats a request that met another's undecided work once something was decided.
pub struct WaitForDecision {
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
    decision: SharedWait,
}

impl WaitForDecision {
    /// For the view of a speculation of this user.
    pub(crate) fn new(server: Arc<dyn Connection>, (spec, uid): (SpecId, u32)) -> Self {
        let (interrupts, waiting, over, decision) = Default::default();
        WaitForDecision { server, spec, uid, interrupts, waiting, over, decision }
    }

    /// Reads up to `size` bytes for a page cache. The kernel took the file's size for known before it asked; if the file has
    /// become shorter while the read waited, it would show zeros behind its end. So a read that has waited and meets the end
    /// fails with `Interrupted`, as often as that happens: the kernel was reading ahead, and asks again for what it needs. If
    /// that has to wait for somebody else in turn, the program's call ends early or with `EINTR`. A read that has not waited
    /// tells the kernel how long the file is.
    pub(crate) fn read(&self, request: &Request<'_>) -> Result<Vec<u8>, Fault> {
        let Request::Fs { op: FsOp::Read { ino, size, .. }, .. } = *request else {
            return Err(Fault::new(FaultKind::Protocol, "this reads nothing"));
        };
        let mut waited = matches!(patience(), Patience::Since(_));
        let reply = self.call_again(request, || waited = true)?;
        let Reply::Data(data) = reply else {
            return Err(Fault::new(FaultKind::Protocol, format!("this is no answer to a read: {reply:?}")));
        };
        if !waited {
            return Ok(data);
        }
        // Only a read that begins after the kernel was told that the file has changed makes it shorter there.
        self.while_waiting(|| self.server.done(ViewOp::Announced))?;
        if data.len() == size as usize {
            return Ok(data);
        }
        Err(Fault::new(FaultKind::Interrupted, format!("inode {ino} may be shorter by now: read it again")))
    }

    /// Whatever waits is answered with `EINTR`; with `for_good` whatever would wait later, too.
    pub fn interrupt(&self, for_good: bool) {
        self.over.fetch_or(for_good, Ordering::SeqCst);
        self.interrupts.fetch_add(1, Ordering::SeqCst);
    }

    /// The program is back from what was undone, and may wait as before.
    pub fn wait_again(&self) {
        self.over.store(false, Ordering::SeqCst);
    }

    /// How often those that wait were told to stop.
    pub(crate) fn interrupts(&self) -> u64 {
        self.interrupts.load(Ordering::SeqCst)
    }

    /// Whether a request waits. The kernel keeps what it concerns locked meanwhile.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Waits until something is decided, or for a while.
    fn wait(&self) -> Result<(), Fault> {
        let (millis, behind) = (AWAIT_STEP.as_millis() as u32, Some(self.spec));
        let ask = || {
            self.server.specs(SpecOp::Await { specs: Vec::new(), millis, behind }.by(self.uid)).map(|_| Waited::Ended)
        };
        self.while_waiting(|| wait_for_others(|| self.decision.wait(ask))).map(drop)
    }

    fn while_waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let result = wait();
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        result
    }
}

impl WaitForDecision {
    /// Repeats a request while it meets undecided work; says each time that it has waited.
    fn call_again(&self, request: &Request<'_>, mut waited: impl FnMut()) -> Result<Reply, Fault> {
        let before = match patience() {
            Patience::Since(interrupts) => interrupts,
            _ => self.interrupts(),
        };
        loop {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Undecided && may_wait() => {
                    if self.over.load(Ordering::SeqCst) || self.interrupts() != before {
                        return Err(Fault::new(FaultKind::Interrupted, "the wait for a decision was interrupted"));
                    }
                    self.wait()?;
                    if !may_wait() {
                        return Err(fault);
                    }
                    waited();
                }
                result => return result,
            }
        }
    }
}

impl Connection for WaitForDecision {
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

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::id::{Ino, ViewId};
    use parking_lot::Mutex;
    use std::collections::VecDeque;

    fn first_bytes() -> Request<'static> {
        FsOp::Read { ino: Ino::ROOT, offset: 0, size: 16, reads: mojavefs::protocol::Reads::Once }.on(ViewId(1))
    }

    /// A server whose answers to reads are given beforehand.
    #[derive(Default)]
    struct Foretold {
        /// The next ones; nothing where something undecided is met.
        reads: Mutex<VecDeque<Option<&'static str>>>,
        asked: Mutex<Vec<&'static str>>,
    }

    impl Connection for Foretold {
        fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
            let (asked, answer) = match request {
                Request::Fs { op: FsOp::Read { .. }, .. } => {
                    let data = self.reads.lock().pop_front().expect("a read that was foretold");
                    let undecided = || Fault::new(FaultKind::Undecided, "undecided");
                    ("read", data.map(|data| Reply::Data(data.as_bytes().to_vec())).ok_or_else(undecided))
                }
                Request::Speculation { op: SpecOp::Await { .. }, .. } => ("await", Ok(Reply::Specs(Vec::new()))),
                Request::View(ViewOp::Announced) => ("announced", Ok(Reply::Done)),
                other => panic!("nobody asks for this: {other:?}"),
            };
            self.asked.lock().push(asked);
            answer
        }

        fn set_notice_sink(&self, _: Arc<dyn NoticeSink>) {}

        fn is_embedded(&self) -> bool {
            true
        }
    }

    /// What comes of so many reads of the same bytes, and what the server was asked.
    fn read(reads: &[Option<&'static str>], times: usize) -> (Vec<Result<Vec<u8>, FaultKind>>, Vec<&'static str>) {
        let server = Arc::new(Foretold { reads: Mutex::new(reads.iter().copied().collect()), ..Foretold::default() });
        let wait = WaitForDecision::new(server.clone(), (SpecId(1), 0));
        let read = || wait.read(&first_bytes()).map_err(|fault| fault.kind);
        let found = std::iter::repeat_with(read).take(times).collect();
        let asked = server.asked.lock().clone();
        (found, asked)
    }

    #[test]
    fn a_read_that_has_waited_is_answered_when_the_decision_is_announced() {
        let whole = "sixteen bytes ..";
        let (found, asked) = read(&[None, None, Some(whole)], 1);
        assert_eq!(found, [Ok(whole.as_bytes().to_vec())]);
        assert_eq!(asked, ["read", "await", "read", "await", "read", "announced"]);
    }

    #[test]
    fn a_read_that_has_waited_and_meets_the_end_is_made_again() {
        let (found, asked) = read(&[None, Some("short"), Some("short")], 2);
        assert_eq!(found, [Err(FaultKind::Interrupted), Ok(b"short".to_vec())]);
        assert_eq!(asked, ["read", "await", "read", "announced", "read"]);
    }

    #[test]
    fn a_read_that_waits_again_and_meets_the_end_is_made_again_as_often_as_it_does() {
        let (found, asked) = read(&[None, Some("short"), None, None, Some("less"), None, Some("end"), Some("end")], 4);
        let again = Err(FaultKind::Interrupted);
        assert_eq!(found, [again.clone(), again.clone(), again, Ok(b"end".to_vec())]);
        assert_eq!(asked.iter().filter(|asked| **asked == "announced").count(), 3);
        // Nor does one count that was made again long before, or that the kernel did not make again.
        let (found, _) = read(&[None, Some("short"), Some("short"), None, Some("less")], 3);
        assert_eq!(found, [Err(FaultKind::Interrupted), Ok(b"short".to_vec()), Err(FaultKind::Interrupted)]);
    }

    #[test]
    fn a_read_that_has_not_waited_is_answered_as_it_is() {
        let (found, asked) = read(&[Some("short")], 1);
        assert_eq!((found, asked), (vec![Ok(b"short".to_vec())], vec!["read"]));
    }

    #[test]
    fn who_is_told_to_stop_waits_for_no_decision_any_more() {
        let server = Arc::new(Foretold { reads: Mutex::new(VecDeque::from([None])), ..Foretold::default() });
        let wait = WaitForDecision::new(server.clone(), (SpecId(1), 0));
        wait.interrupt(true);
        let found = wait.read(&first_bytes()).map_err(|fault| fault.kind);
        assert_eq!((found, &server.asked.lock()[..]), (Err(FaultKind::Interrupted), &["read"][..]));
    }
}
