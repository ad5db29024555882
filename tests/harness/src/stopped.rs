//! A daemon that hangs.

use super::until;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;

/// A daemon that is stopped; it goes on when this is dropped.
pub struct Stopped(Pid);

impl Stopped {
    /// Stops it, and waits until all its threads are.
    pub fn new(daemon: Pid) -> Self {
        kill(daemon, Signal::SIGSTOP).expect("stop the daemon");
        // One thread is told, and tells the others: until then they go on.
        let stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        let threads = || fs::read_dir(format!("/proc/{daemon}/task")).expect("its threads").flatten();
        until("the daemon is stopped", || threads().all(stopped));
        Stopped(daemon)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
