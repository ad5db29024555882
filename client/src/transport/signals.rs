//! What a signal means to a process that waits for a request.
//!
//! A kernel says that a caller has got a signal, once for each request, and not which. A signal that the program handles must not end what
//! is through in a while: no program expects that of a disk. One that ends it must, also after one that did not.

use crate::limits::SIGNAL_LOOK_INTERVAL;
use mojavefs_fs::{Signal, Waiting};
use nix::libc;
use std::fs;
use std::sync::Arc;

/// Those that end a process which does nothing about them, beside SIGKILL, into which the kernel turns all others of that kind.
const FATAL: [i32; 10] = [
    libc::SIGQUIT,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGSEGV,
    libc::SIGXCPU,
    libc::SIGXFSZ,
    libc::SIGSYS,
];

/// What a thread is about to do that has got a signal. Of one that can't be seen from here: to end.
pub(super) fn met_by(thread: u32) -> Signal {
    match fs::read_to_string(format!("/proc/{thread}/status")) {
        Ok(status) if !ends(&status) => Signal::Handled,
        _ => Signal::Ends,
    }
}

/// Whether a thread is about to end, by its `/proc/*/status`.
fn ends(status: &str) -> bool {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0)
    };
    let bit = |signal: i32| 1u64 << (signal - 1);
    let pending = set("SigPnd") | set("ShdPnd");
    let fatal = FATAL.iter().fold(0, |all, signal| all | bit(*signal));
    let unhandled = fatal & !set("SigBlk") & !set("SigIgn") & !set("SigCgt");
    pending & (bit(libc::SIGKILL) | unhandled) != 0
}

/// The caller of a request that waits has got a signal: `give_up` is called if that ends the wait, now or because of a later signal, of
/// which the kernel says nothing any more.
pub(super) fn interrupt(
    thread: u32,
    waiting: Arc<Waiting>,
    is_answered: impl Fn() -> bool + Send + 'static,
    give_up: impl FnOnce() + Send + 'static,
) {
    let signal = met_by(thread);
    if waiting.interrupt(signal) {
        return give_up();
    }
    if signal == Signal::Ends {
        return;
    }
    let watch = move || {
        while !is_answered() {
            std::thread::sleep(SIGNAL_LOOK_INTERVAL);
            if met_by(thread) == Signal::Ends {
                if waiting.interrupt(Signal::Ends) {
                    give_up();
                }
                return;
            }
        }
    };
    if let Err(error) = mojavefs_threads::detached("mojavefs-caller", watch) {
        tracing::error!("a thread that watches who has got a signal: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, caught: u64) -> String {
        format!(
            "Name:\tx\nSigPnd:\t{pending:016x}\nShdPnd:\t0000000000000000\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn a_thread_ends_by_sigkill_and_by_what_it_does_nothing_about() {
        let quit = 1 << (libc::SIGQUIT - 1);
        assert!(ends(&status(1 << (libc::SIGKILL - 1), 0)));
        assert!(ends(&status(quit, 0)) && !ends(&status(quit, quit)));
        assert!(!ends(&status(1 << (libc::SIGALRM - 1), 0)) && !ends(&status(0, 0)) && !ends(""));
        assert_eq!(met_by(std::process::id()), Signal::Handled);
        assert_eq!(met_by(u32::MAX), Signal::Ends);
    }
}
