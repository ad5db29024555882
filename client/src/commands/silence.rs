//! Whoever waits for a daemon that does not answer is told so.

use crate::limits::SILENCE_TIME;
use crate::output::err;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

/// Until it is dropped a daemon is waited for.
pub(super) struct Silence(#[expect(dead_code, reason = "its end is what is heard")] Sender<()>);

impl Silence {
    pub(super) fn begin() -> Self {
        let (over, heard) = channel::<()>();
        let tell = move || {
            if heard.recv_timeout(SILENCE_TIME) == Err(RecvTimeoutError::Timeout) {
                err!("mojavefs: the daemon does not answer yet; waiting for it");
            }
        };
        // Without it nothing is told, and all else is as it was.
        drop(mojavefs_threads::detached("mojavefs-silent", tell));
        Silence(over)
    }
}
