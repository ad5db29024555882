//! Running another program in an open level.
//!
//! The program that an `exec` starts knows nothing of the library, and could not be taken back to where the process entered
//! the level. So the process stays and waits: the program runs in a child, inside one more level. If that falls, the process
//! goes back to the `exec`, and the program is run again from there.

#![allow(unsafe_code)]

use crate::files;
use crate::level::{self, Entered};
use crate::sys::{self, Action, Errno, Mask};
use core::sync::atomic::{AtomicI32, Ordering};

/// The program that this process stands for.
static PROGRAM: AtomicI32 = AtomicI32::new(0);

/// Runs a program instead of this one, by `exec`, which returns only if that fails. In an open level it does so in a child,
/// and this process ends as the child does.
pub(crate) fn instead(exec: impl Fn() -> Errno) -> Errno {
    if level::current().is_some() && files::attached() {
        return in_a_level_of_its_own(exec);
    }
    level::finish(None);
    if level::in_doubt() { Errno(libc::EIO) } else { exec() }
}

fn in_a_level_of_its_own(exec: impl Fn() -> Errno) -> Errno {
    // Comes by here again, with memory as it was, whenever what the program has read is undone.
    loop {
        match level::speculate(None) {
            Ok(Entered::Commit) => break,
            Ok(Entered::Abort(_)) => {}
            Err(errno) => return errno,
        }
    }
    match start(exec) {
        Ok(program) => stand_for(program),
        Err(errno) => {
            // It is as if there had been no level: nothing was done in it. If others undo it now, the program is tried again.
            let _ = level::current().map(|(id, _)| level::commit(id));
            errno
        }
    }
}

/// Starts the program; returns once it runs.
fn start(exec: impl Fn() -> Errno) -> sys::Result<i32> {
    // Until signals are handed on none may run a handler of the program's that is to be replaced.
    let mask = sys::set_mask(!0);
    // Neither such a handler nor the kernel may reap the program before it is waited for.
    let children = sys::action(libc::SIGCHLD).unwrap_or_default();
    let _ = sys::set_action(libc::SIGCHLD, &Action::default());
    let reclaim_space = || {
        let _ = sys::set_action(libc::SIGCHLD, &children);
        sys::set_mask(mask);
    };
    let program = || {
        reclaim_space();
        exec()
    };
    let started = fork(program, files::all_but_ending(mask));
    if started.is_err() {
        reclaim_space();
    }
    started
}

/// Runs the program in a child; returns once it runs, or has failed to. All signals are blocked; meanwhile those that `mask` lets through end
/// the process, but none that the program sends: it runs by then.
fn fork(exec: impl Fn() -> Errno, mask: Mask) -> sys::Result<i32> {
    let [failed, fails]: [i32; 2] = sys::filled(libc::SYS_pipe2, &[0, libc::O_CLOEXEC as usize], 0, [0, 0])?;
    let parent = sys::pid();
    // SAFETY: the child does nothing but run the program.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Who ends this process ends what it stands for.
        let _ = sys::plain(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize]);
        if sys::parent() != parent {
            sys::exit(1);
        }
        let Errno(errno) = exec();
        let _ = sys::plain(libc::SYS_write, &[fails as usize, &raw const errno as usize, size_of::<i32>()]);
        sys::exit(1);
    }
    sys::close(fails);
    sys::wait_readable(failed, mask);
    let mut errno = [0; size_of::<i32>()];
    let read = loop {
        match sys::read(failed, &mut errno) {
            Err(Errno(libc::EINTR)) => {}
            other => break other,
        }
    };
    sys::close(failed);
    match (child, read) {
        (-1, _) => Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EAGAIN))),
        // Closed by the program that runs now.
        (program, Ok(0)) => Ok(program),
        (program, _) => {
            sys::reap(program, 0)?;
            Err(Errno(i32::from_ne_bytes(errno)))
        }
    }
}

/// Waits for the program, hands on what signals it is sent by way of this process, stops when it stops, ends as it ends.
fn stand_for(program: i32) -> ! {
    PROGRAM.store(program, Ordering::Relaxed);
    for signal in 1..=libc::SIGRTMAX() {
        pass_on(signal);
    }
    sys::set_mask(0);
    loop {
        let options = (libc::WEXITED | libc::WSTOPPED | libc::__WALL) as usize;
        let args = [libc::P_PID as usize, program as usize, 0, options, 0];
        // SAFETY: all zeros are a valid `siginfo_t`, which the call fills in.
        let empty: libc::siginfo_t = unsafe { core::mem::zeroed() };
        let ended = match sys::filled(libc::SYS_waitid, &args, 2, empty) {
            Ok(ended) => ended,
            Err(Errno(libc::EINTR)) => continue,
            Err(_) => sys::die(&[b"libmojave: the program that this process has started is gone; the process ends"]),
        };
        // SAFETY: `waitid` has filled it in for a child.
        let status = unsafe { ended.si_status() };
        match ended.si_code {
            libc::CLD_STOPPED => {
                stop_by(status);
                let _ = sys::kill(program, libc::SIGCONT);
            }
            libc::CLD_EXITED => {
                level::end();
                sys::exit(status)
            }
            _ => {
                level::end();
                end_by(status)
            }
        }
    }
}

/// Stops by the signal that the program was stopped by, and returns when it is told to go on: a shell that waits tells by the
/// signal whether its user has done that.
fn stop_by(signal: i32) {
    let handed_on = sys::action(signal);
    let _ = sys::set_action(signal, &Action::default());
    let _ = sys::kill(sys::pid(), signal);
    let _ = handed_on.map(|action| sys::set_action(signal, &action));
}

/// Signals that a process gets for what it does itself, that can't be caught, or that are the library's.
const KEPT: [i32; 8] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    files::SIGNAL,
];

/// Has the process hand on a signal, as far as the program hears of it.
fn pass_on(signal: i32) {
    let ignored = sys::action(signal).is_none_or(|action| action.is_ignored());
    // That of its children is done with: the program is waited for.
    if !ignored && signal != libc::SIGCHLD && !KEPT.contains(&signal) {
        // SAFETY: all zeros are a valid `sigaction`; the handler uses no memory of the program's.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = hand_on as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, core::ptr::null_mut());
        }
    }
}

extern "C" fn hand_on(signal: i32, about: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the kernel passes what it says of the signal.
    let by_the_kernel = unsafe { (*about).si_code } == libc::SI_KERNEL;
    let of_a_timer = [libc::SIGALRM, libc::SIGVTALRM, libc::SIGPROF].contains(&signal);
    // What a terminal sends goes to the program, too, which is of the same group.
    if !by_the_kernel || of_a_timer {
        let _ = sys::kill(PROGRAM.load(Ordering::Relaxed), signal);
    }
}

/// Ends by the signal that the program was ended by.
fn end_by(signal: i32) -> ! {
    // Its memory is the one to look at.
    let _ = sys::given(libc::SYS_setrlimit, &[libc::RLIMIT_CORE as usize, 0], 1, &[0u64, 0]);
    let _ = sys::set_action(signal, &Action::default());
    let _ = sys::kill(sys::pid(), signal);
    sys::exit(128 + signal)
}
