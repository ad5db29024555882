//! The processes of a job: started, watched, ended.

use super::namespace;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It exited with this code.
    Exited(i32),
    /// It was killed by this signal.
    Killed(i32),
    /// It took longer than it may.
    TimedOut,
}

/// Passed on to the job when they come from another process; from a terminal they reach the job by themselves.
const PASSED_ON: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGWINCH,
    Signal::SIGCONT,
];

/// What a job stands on.
pub(crate) struct Ground<'a> {
    /// Whether it is gone.
    pub(crate) fallen: &'a dyn Fn() -> bool,
    /// Called when the job was asked to end: what it waits for must not keep it from that.
    pub(crate) interrupt: &'a dyn Fn(),
}

/// Watches a job. Made before any thread is started, so that no signal is lost.
pub(crate) struct Supervisor {
    signals: SignalFd,
}

impl Supervisor {
    pub(crate) fn new() -> io::Result<Self> {
        let mut watched = SigSet::empty();
        PASSED_ON.into_iter().chain([Signal::SIGCHLD, Signal::SIGTSTP]).for_each(|signal| watched.add(signal));
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), None)?;
        // What a job leaves behind becomes ours, wherever it hides in the tree.
        set_child_subreaper(true)?;
        Ok(Supervisor { signals: SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)? })
    }

    /// Runs a command to its end, or to `limit`, or until it has lost its ground. Signals and the
    /// terminal are the command's.
    pub(crate) fn run(
        &self,
        command: &[OsString],
        limit: Option<Duration>,
        ground: &Ground<'_>,
        environment: &[(&str, String)],
        stdio: Option<(Stdio, Stdio)>,
    ) -> io::Result<Ending> {
        let (program, args) = command.split_first().ok_or_else(|| io::Error::other("there is no command"))?;
        let mut child = Command::new(program);
        child.args(args).envs(environment.iter().map(|(name, value)| (name, value)));
        if let Some((stdout, stderr)) = stdio {
            child.stdout(stdout).stderr(stderr);
        }
        crate::sys::unblock_signals(&mut child);
        let main = Pid::from_raw(child.spawn()?.id().cast_signed());
        // What it holds of the command's output would keep that open.
        drop(child);
        let deadline = limit.map(|limit| Instant::now() + limit);
        loop {
            if let Some(ending) = self.reap_until(main)? {
                return Ok(ending);
            }
            if (ground.fallen)() {
                return Ok(Ending::Killed(Signal::SIGKILL as i32));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Ending::TimedOut);
            }
            self.wait(deadline)?;
            if self.pass_on(main)? {
                (ground.interrupt)();
            }
        }
    }

    /// A signal that asks for the end, if one came since no command runs.
    pub(crate) fn asked_to_end(&self) -> io::Result<Option<i32>> {
        while let Some(info) = self.signals.read_signal()? {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            if let Ok(signal @ (Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT)) = signal {
                return Ok(Some(signal as i32));
            }
        }
        Ok(None)
    }

    /// Waits for a signal; not longer than until the job's time is up.
    fn wait(&self, deadline: Option<Instant>) -> io::Result<()> {
        // A job that has fallen is noticed soon even if nothing signals it.
        let tick = Duration::from_millis(200);
        let left = deadline.map_or(tick, |deadline| deadline.saturating_duration_since(Instant::now()).min(tick));
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Passes signals on to the job; whether one of them asks it to end.
    fn pass_on(&self, main: Pid) -> io::Result<bool> {
        let mut ends = false;
        while let Some(info) = self.signals.read_signal()? {
            let Ok(signal) = Signal::try_from(info.ssi_signo.cast_signed()) else { continue };
            let from_a_process = info.ssi_code <= 0;
            if from_a_process && PASSED_ON.contains(&signal) {
                let _ = kill(main, signal);
            }
            ends |= matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT);
        }
        Ok(ends)
    }

    /// Takes in every process that has ended; says how the main one did, if it did.
    fn reap_until(&self, main: Pid) -> io::Result<Option<Ending>> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == main => return Ok(Some(Ending::Exited(code))),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                    return Ok(Some(Ending::Killed(signal as i32)));
                }
                // Stopped from the terminal: the shell must see the whole of us stopped.
                Ok(WaitStatus::Stopped(pid, _)) if pid == main => raise(Signal::SIGSTOP)?,
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

/// Takes in whatever has ended.
pub(crate) fn reap() {
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
}

/// Ends every process that a job left behind: all children, and all in its mount namespace. Returns how many.
pub(crate) fn end_all() -> usize {
    let me = std::process::id();
    let mut ended = 0;
    if let Ok(here) = namespace::of(me) {
        ended += namespace::kill_all_in(&here, &|pid| pid == me);
    }
    // Those that went to another namespace are still our descendants.
    loop {
        let children = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
        let pids: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        if pids.is_empty() {
            return ended;
        }
        for pid in &pids {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        ended += pids.len();
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => reap(),
            Err(_) => return ended,
        }
    }
}
