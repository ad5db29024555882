//! Notices to a client at the other end of a socket.

use mojavefs::limits::NOTICE_TIME_MAX;
use mojavefs::protocol::codec;
use mojavefs::protocol::{Notice, NoticeSink};
use mojavefs_net::{Frame, FrameKind};
use parking_lot::{Condvar, Mutex};
use std::collections::HashSet;
use std::time::Instant;
use tokio::sync::{Notify, mpsc};

/// Sends notices and waits until the client has applied them. It does not own the session: a client that is gone must not
/// be kept alive by what it has to be told.
pub(super) struct RemoteSink {
    frames: mpsc::Sender<Frame>,
    /// Ends the connection.
    hangup: Notify,
    open: Mutex<Open>,
    acknowledged: Condvar,
}

#[derive(Default)]
struct Open {
    numbers: HashSet<u64>,
    last: u64,
    closed: bool,
}

impl RemoteSink {
    pub(super) fn new(frames: mpsc::Sender<Frame>) -> Self {
        RemoteSink { frames, hangup: Notify::new(), open: Mutex::default(), acknowledged: Condvar::new() }
    }

    /// Returns once the connection is to be ended.
    pub(super) async fn hung_up(&self) {
        self.hangup.notified().await;
    }

    /// Ends the connection.
    pub(super) fn hang_up(&self) {
        self.hangup.notify_one();
    }

    pub(super) fn acknowledge(&self, number: u64) {
        self.open.lock().numbers.remove(&number);
        self.acknowledged.notify_all();
    }

    /// The client is gone: nobody waits for it any more.
    pub(super) fn close(&self) {
        self.open.lock().closed = true;
        self.acknowledged.notify_all();
    }
}

impl NoticeSink for RemoteSink {
    fn deliver(&self, notice: Notice) {
        let body = match codec::encode(&notice) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!("a notice: {error}");
                return self.hang_up();
            }
        };
        let number = {
            let mut open = self.open.lock();
            if open.closed {
                return;
            }
            open.last += 1;
            let number = open.last;
            open.numbers.insert(number);
            number
        };
        if self.frames.blocking_send(Frame { kind: FrameKind::Notice, number, body }).is_err() {
            return;
        }
        let deadline = Instant::now() + NOTICE_TIME_MAX;
        let mut open = self.open.lock();
        while open.numbers.contains(&number) && !open.closed {
            if self.acknowledged.wait_until(&mut open, deadline).timed_out() && open.numbers.contains(&number) {
                tracing::warn!("a client does not take its notices: its connection is ended");
                return self.hang_up();
            }
        }
    }
}
