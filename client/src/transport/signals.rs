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

/// Those that stop a process, and have it go on: it does nothing else by them.
const STOPPING: [i32; 5] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU, libc::SIGCONT];

/// What a thread is about to do that has got a signal. Of one that can't be seen from here: to end.
fn met_by(thread: u32) -> Signal {
    let status = fs::read_to_string(format!("/proc/{thread}/status"));
    status.map_or(Signal::Ends, |status| in_status(&status))
}

/// The same by its `/proc/*/status`.
fn in_status(status: &str) -> Signal {
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|line| u64::from_str_radix(line.trim(), 16).ok()).unwrap_or(0)
    };
    let bit = |signal: i32| 1u64 << (signal - 1);
    let all = |signals: &[i32]| signals.iter().fold(0, |all, signal| all | bit(*signal));
    let pending = (set("SigPnd") | set("ShdPnd")) & !set("SigBlk");
    let unhandled = pending & !set("SigIgn") & !set("SigCgt");
    if pending & bit(libc::SIGKILL) | unhandled & all(&FATAL) != 0 {
        return Signal::Ends;
    }
    let stops = unhandled & all(&STOPPING);
    if pending & !stops != 0 { Signal::Handled } else { Signal::Stops }
}

/// The caller of a request that waits has got a signal: `give_up` is called if that ends the wait, now or because of a later signal, of
/// which the kernel says nothing any more. What is not as much as `least` counts for nothing.
pub(super) fn interrupt(
    (thread, least): (u32, Signal),
    waiting: Arc<Waiting>,
    is_answered: impl Fn() -> bool + Send + 'static,
    give_up: impl FnOnce() + Send + 'static,
) {
    let met = move || Some(met_by(thread)).filter(|signal| *signal >= least).unwrap_or(Signal::Stops);
    let signal = met();
    if waiting.interrupt(signal) {
        return give_up();
    }
    if signal == Signal::Ends {
        return;
    }
    let watch = move || {
        while !is_answered() {
            std::thread::sleep(SIGNAL_LOOK_INTERVAL);
            let later = met();
            if waiting.interrupt(later) {
                return give_up();
            }
            if later == Signal::Ends {
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

    fn of(pending: &[i32], caught: &[i32]) -> Signal {
        let set = |signals: &[i32]| signals.iter().fold(0u64, |all, signal| all | 1 << (signal - 1));
        let (pending, caught) = (set(pending), set(caught));
        in_status(&format!(
            "Name:\tx\nSigPnd:\t{pending:016x}\nShdPnd:\t0\nSigBlk:\t0\nSigIgn:\t0\nSigCgt:\t{caught:016x}\n"
        ))
    }

    #[test]
    fn a_thread_ends_by_sigkill_and_by_what_it_does_nothing_about() {
        let (kill, quit, alarm) = (libc::SIGKILL, libc::SIGQUIT, libc::SIGALRM);
        assert_eq!(
            (of(&[kill], &[]), of(&[quit], &[]), of(&[alarm, quit], &[alarm])),
            (Signal::Ends, Signal::Ends, Signal::Ends)
        );
        assert_eq!((of(&[quit], &[quit]), of(&[alarm], &[alarm])), (Signal::Handled, Signal::Handled));
        assert_eq!(met_by(u32::MAX), Signal::Ends);
    }

    #[test]
    fn who_is_only_stopped_waits_on() {
        let (stop, terminal) = (libc::SIGSTOP, libc::SIGTSTP);
        assert_eq!(
            (of(&[stop], &[]), of(&[stop, terminal], &[]), of(&[], &[])),
            (Signal::Stops, Signal::Stops, Signal::Stops)
        );
        assert_eq!((of(&[terminal], &[terminal]), of(&[stop, libc::SIGKILL], &[])), (Signal::Handled, Signal::Ends));
        assert_eq!(met_by(std::process::id()), Signal::Stops);
    }
}
