//! Processes: this one, its children, their ends.

use super::{Action, Errno, Mask, Result, close, fd_arg, filled, given, plain, set_action, set_mask, zeroed};

pub(crate) fn pid() -> i32 {
    plain(libc::SYS_getpid, &[]).unwrap_or(0) as i32
}

pub(crate) fn parent() -> i32 {
    plain(libc::SYS_getppid, &[]).unwrap_or(0) as i32
}

pub(crate) fn kill(pid: i32, signal: i32) -> Result<()> {
    plain(libc::SYS_kill, &[fd_arg(pid), signal as usize]).map(drop)
}

/// Reaps one child of whatever kind, and says how many page faults are counted for it; nothing if it runs and `options` say
/// not to wait.
pub(crate) fn reap(pid: i32, options: i32) -> Result<Option<u64>> {
    let mut usage: libc::rusage = zeroed();
    let options = options | libc::__WALL;
    loop {
        match plain(libc::SYS_wait4, &[fd_arg(pid), 0, options as usize, &raw mut usage as usize]) {
            Err(Errno(libc::EINTR)) => {}
            other => return other.map(|reaped| (reaped != 0).then_some(usage.ru_minflt as u64)),
        }
    }
}

/// The page faults of all children of this process that were reaped, and of theirs.
pub(crate) fn faults_of_reaped() -> u64 {
    let usage = filled::<libc::rusage>(libc::SYS_getrusage, &[libc::RUSAGE_CHILDREN as isize as usize], 1, zeroed());
    usage.map_or(0, |usage| usage.ru_minflt as u64)
}

/// Waits until a process that was told to end has.
pub(crate) fn await_end(pid: i32) {
    let Ok(process) = plain(libc::SYS_pidfd_open, &[fd_arg(pid), 0]) else { return };
    let waited = libc::pollfd { fd: process as i32, events: libc::POLLIN, revents: 0 };
    while given(libc::SYS_poll, &[0, 1, usize::MAX], 0, &waited) == Err(Errno(libc::EINTR)) {}
    close(process as i32);
}

/// Waits until something can be read, or the other end is closed, with these signals blocked. One that comes later than that is not taken.
pub(crate) fn wait_readable(file: i32, mask: Mask) {
    let waited = libc::pollfd { fd: file, events: libc::POLLIN, revents: 0 };
    let args = [0, 1, 0, &raw const mask as usize, size_of::<Mask>()];
    while given(libc::SYS_ppoll, &args, 0, &waited) == Err(Errno(libc::EINTR)) {}
}

/// Whether this process has children other than checkpoints.
pub(crate) fn has_children() -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    plain(libc::SYS_waitid, &[libc::P_ALL as usize, 0, 0, options as usize, 0]) != Err(Errno(libc::ECHILD))
}

/// Whether a child of the program's has ended and was not waited for.
pub(crate) fn is_ended_child_left() -> bool {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // The signal, an errno, the code, a gap, and the pid; nothing is filled in if there is none.
    let args = [libc::P_ALL as usize, 0, 0, options as usize, 0];
    filled(libc::SYS_waitid, &args, 2, [0i32; 32]).is_ok_and(|info| info[4] != 0)
}

pub(crate) fn exit(code: i32) -> ! {
    loop {
        let _ = plain(libc::SYS_exit_group, &[code as usize]);
    }
}

/// Whether the kernel says at once that there is no other thread: leaving a group of threads does nothing if it has but one.
pub(crate) fn is_alone() -> bool {
    plain(libc::SYS_unshare, &[libc::CLONE_THREAD as usize]).is_ok()
}

/// Ends this process with a last word: it can neither go on nor back.
pub(crate) fn die(words: &[&[u8]]) -> ! {
    for text in words.iter().chain([&b"\n"[..]].iter()) {
        let _ = plain(libc::SYS_write, &[2, text.as_ptr() as usize, text.len()]);
    }
    let _ = set_action(libc::SIGABRT, &Action::default());
    set_mask(0);
    let _ = kill(pid(), libc::SIGABRT);
    exit(125)
}
