//! A session for the view of a job that makes checkpoints: before it joins another's undecided work, the process that reads is
//! stopped on its way out of the call, so that the call can be made again, now and after a rollback.

use crate::limits::{CHECKPOINT_TIME_MAX, CHECKPOINT_TRIES_MAX};
use crate::patience;
use mojavefs::id::ViewId;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, NoticeSink, Reply, Request, ViewOp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

/// Asks the one who supervises the job, by number and process; false if nobody is there.
pub type Question = dyn Fn(u64, u32) -> bool + Send + Sync;

/// A process that waits in a call, by its number, and where the answer goes: why it was not stopped, or nothing if it was.
type Waiter = (u32, Sender<Option<String>>);

/// Asks before it joins.
pub struct CheckpointBeforeJoin {
    server: Arc<dyn Connection>,
    view: ViewId,
    question: OnceLock<Box<Question>>,
    next: AtomicU64,
    /// Those who wait for an answer, by the number of the question.
    waiting: Mutex<HashMap<u64, Waiter>>,
    /// The process that is on its way out of its call, to be stopped; 0 for none. Not each error ends a call.
    stopping: AtomicU32,
}

impl CheckpointBeforeJoin {
    /// For one view of a session.
    pub(crate) fn new(server: Arc<dyn Connection>, view: ViewId) -> Self {
        let waiting = Mutex::default();
        let (question, next, stopping) = (OnceLock::new(), AtomicU64::new(1), AtomicU32::new(0));
        CheckpointBeforeJoin { server, view, question, next, waiting, stopping }
    }

    /// Whom to ask.
    pub fn ask_by(&self, question: Box<Question>) {
        drop(self.question.set(question));
    }

    /// The answer to a question; false if it comes too late.
    pub fn answer(&self, ticket: u64, why_not: Option<String>) -> bool {
        let Some((pid, sender)) = self.waiting.lock().remove(&ticket) else { return false };
        if why_not.is_none() {
            self.stopping.store(pid, Ordering::SeqCst);
        }
        sender.send(why_not).is_ok()
    }

    /// The process that was to be stopped has stopped, or is not waited for any more.
    pub fn has_stopped(&self) {
        self.stopping.store(0, Ordering::SeqCst);
    }

    /// Has the process that waits for this thread stopped; else says why not.
    fn stop(&self) -> Result<(), String> {
        let pid = patience::caller().ok_or("the read could not be interrupted: it had the file open, or maps it")?;
        if self.stopping.load(Ordering::SeqCst) == pid {
            // Whoever stops it waits for the end of its call.
            return Ok(());
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = channel();
        self.waiting.lock().insert(ticket, (pid, sender));
        let asked = self.question.get().is_some_and(|question| question(ticket, pid));
        let in_time = asked.then(|| answer.recv_timeout(CHECKPOINT_TIME_MAX).ok()).flatten();
        let said = match (in_time, self.waiting.lock().remove(&ticket)) {
            (Some(said), _) => Some(said),
            // Nobody can answer any more.
            (None, Some(_)) => None,
            // It is being answered at this moment.
            (None, None) => answer.recv().ok(),
        };
        said.unwrap_or_else(|| Some("the checkpoint took too long".to_owned())).map_or(Ok(()), Err)
    }
}

impl Connection for CheckpointBeforeJoin {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        for _ in 0..CHECKPOINT_TRIES_MAX {
            match self.server.call(request.clone()) {
                Err(fault) if fault.kind == FaultKind::Checkpoint && patience::may_wait() => match self.stop() {
                    Ok(()) => {
                        return Err(Fault::new(FaultKind::Interrupted, "the call is made again from a checkpoint"));
                    }
                    // If that fails because the view was undone, so does the call, once its process may know.
                    Err(why) => {
                        if let Err(fault) = self.server.done(ViewOp::NoSegment { view: self.view, why }) {
                            tracing::debug!("{fault}");
                        }
                    }
                },
                result => return result,
            }
        }
        Err(Fault::new(FaultKind::Busy, "others change this all the time; try again later"))
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        self.server.set_notice_sink(sink);
    }

    fn is_embedded(&self) -> bool {
        self.server.is_embedded()
    }
}
