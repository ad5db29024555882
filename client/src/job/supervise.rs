//! The processes of a job: started, watched, ended.

use super::namespace;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, raise, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
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

/// What ended a wait.
pub(crate) enum Woken {
    /// This signal asked for the end.
    Asked(i32),
    /// What was awaited, by its place.
    By(usize),
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
pub(crate) trait Ground {
    /// Whether it is gone.
    fn has_fallen(&self) -> bool;

    /// The job was asked to end: what it waits for must not keep it from that.
    fn interrupt(&self) {}

    /// Readable when there is something to [attend](Ground::attend) to.
    fn bell(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Does what is to be done for the job, whose main process is given.
    fn attend(&self, _main: Pid) {}
}

impl<F: Fn() -> bool> Ground for F {
    fn has_fallen(&self) -> bool {
        self()
    }
}

/// A job that runs.
pub(crate) struct Running {
    main: Pid,
    deadline: Cell<Option<Instant>>,
}

impl Running {
    /// Its main process.
    pub(crate) fn main(&self) -> Pid {
        self.main
    }

    /// Since then its command has not run: that time does not count.
    pub(crate) fn has_stood_still(&self, since: Instant) {
        self.deadline.set(self.deadline.get().and_then(|deadline| deadline.checked_add(since.elapsed())));
    }
}

/// Watches a job. Made before any thread is started, so that no signal is lost.
pub(crate) struct Supervisor {
    signals: SignalFd,
    /// The signal that last asked for the end, and when.
    asked: Cell<Option<(i32, Instant)>>,
}

impl Supervisor {
    pub(crate) fn new() -> io::Result<Self> {
        // What it was started to ignore (`nohup`) it does not hear of, as its command doesn't.
        let heard =
            PASSED_ON.into_iter().chain([Signal::SIGTSTP]).filter(|signal| !crate::sys::is_ignored(*signal as i32));
        let watched: SigSet = heard.chain([Signal::SIGCHLD]).collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), None)?;
        EARLIER.get_or_init(children);
        // What a job leaves behind becomes ours, wherever it hides in the tree.
        set_child_subreaper(true)?;
        let signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Supervisor { signals, asked: Cell::new(None) })
    }

    /// The signal that has asked for the end since then, though it may not have come to that.
    pub(crate) fn was_asked(&self, since: Instant) -> Option<i32> {
        self.asked.get().filter(|(_, at)| *at >= since).map(|(signal, _)| signal)
    }

    /// Starts a command that may take `limit`. Signals and the terminal are the command's.
    pub(crate) fn start(
        &self,
        command: &[OsString],
        limit: Option<Duration>,
        environment: &[(&str, String)],
        stdio: Option<(Stdio, Stdio)>,
    ) -> io::Result<Running> {
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
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        Ok(Running { main, deadline: Cell::new(deadline) })
    }

    /// Watches a command to its end, or to its limit, or until it has lost its ground.
    pub(crate) fn watch(&self, running: &Running, ground: &dyn Ground) -> io::Result<Ending> {
        let main = running.main;
        loop {
            let deadline = running.deadline.get();
            if let Some(ending) = self.reap_until(main)? {
                return Ok(ending);
            }
            if ground.has_fallen() {
                return Ok(Ending::Killed(Signal::SIGKILL as i32));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(Ending::TimedOut);
            }
            self.wait(deadline, ground.bell())?;
            let since = Instant::now();
            ground.attend(main);
            running.has_stood_still(since);
            if self.pass_on(main)? {
                ground.interrupt();
            }
        }
    }

    /// While no command runs: waits until one of these is readable, or a signal asks for the end.
    pub(crate) fn wait_for(&self, awaited: &[BorrowedFd<'_>]) -> io::Result<Woken> {
        let awaited = awaited.iter().copied().chain([self.signals.as_fd()]);
        let mut awaited: Vec<PollFd<'_>> = awaited.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        loop {
            match poll(&mut awaited, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            if let Some(signal) = self.asked_to_end()? {
                return Ok(Woken::Asked(signal));
            }
            let signals = awaited.len() - 1;
            if let Some(at) = awaited.iter().position(|fd| fd.any() == Some(true)).filter(|at| *at != signals) {
                return Ok(Woken::By(at));
            }
        }
    }

    /// A signal that asks for the end, if one came since no command runs.
    pub(crate) fn asked_to_end(&self) -> io::Result<Option<i32>> {
        while let Some(info) = self.signals.read_signal()? {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            if signal == Ok(Signal::SIGTSTP) {
                raise(Signal::SIGSTOP)?;
            }
            if let Some(signal) = self.note_asked(signal) {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }

    /// Waits for a signal or the bell; not longer than until the job's time is up.
    fn wait(&self, deadline: Option<Instant>, bell: Option<BorrowedFd<'_>>) -> io::Result<()> {
        // A job that has fallen is noticed soon even if nothing signals it.
        let tick = Duration::from_millis(200);
        let left = deadline.map_or(tick, |deadline| deadline.saturating_duration_since(Instant::now()).min(tick));
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let awaited = std::iter::once(self.signals.as_fd()).chain(bell);
        let mut awaited: Vec<PollFd<'_>> = awaited.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut awaited, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Passes signals on to the job; whether one of them asks it to end.
    fn pass_on(&self, main: Pid) -> io::Result<bool> {
        let mut ends = false;
        while let Some(info) = self.signals.read_signal()? {
            let signal = Signal::try_from(info.ssi_signo.cast_signed());
            let from_a_process = info.ssi_code <= 0;
            if let Ok(signal) = signal
                && from_a_process
                && PASSED_ON.contains(&signal)
            {
                let _ = kill(main, signal);
            }
            ends |= self.note_asked(signal).is_some();
        }
        Ok(ends)
    }

    /// Notes a signal if it asks for the end, and returns it then.
    fn note_asked(&self, signal: nix::Result<Signal>) -> Option<i32> {
        let asks =
            |signal: &Signal| matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT);
        let signal = signal.ok().filter(asks)? as i32;
        self.asked.set(Some((signal, Instant::now())));
        Some(signal)
    }

    /// Takes in every process that has ended; says how the main one did, if it did.
    fn reap_until(&self, main: Pid) -> io::Result<Option<Ending>> {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == main => return Ok(Some(Ending::Exited(code))),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => {
                    return Ok(Some(Ending::Killed(signal as i32)));
                }
                // Stopped from the terminal: the shell must see the whole of us stopped. Whoever sends SIGSTOP means just it.
                Ok(WaitStatus::Stopped(pid, signal)) if pid == main && signal != Signal::SIGSTOP => {
                    raise(Signal::SIGSTOP)?;
                }
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
    end_all_but(&[])
}

/// Kills every process in a job's mount namespace but these children, without waiting for their end.
pub(crate) fn kill_all_but(spared: &[Pid]) {
    let me = std::process::id();
    if let Ok(here) = namespace::of(me) {
        namespace::kill_in(&here, &|pid| pid == me || spared.contains(&Pid::from_raw(pid.cast_signed())));
    }
}

/// The children that were there before the job: as the first process of a container this one has also those that nobody else has any
/// more, such as the daemon.
static EARLIER: OnceLock<Vec<Pid>> = OnceLock::new();

fn children() -> Vec<Pid> {
    let me = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/{me}/task/{me}/children")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok().map(Pid::from_raw)).collect()
}

/// Ends every process that a job left behind but these children.
pub(crate) fn end_all_but(spared: &[Pid]) -> usize {
    let me = std::process::id();
    let is_spared = |pid: u32| spared.contains(&Pid::from_raw(pid.cast_signed()));
    let is_earlier = |pid: &Pid| EARLIER.get().is_some_and(|earlier| earlier.contains(pid));
    let mut ended = 0;
    if let Ok(here) = namespace::of(me) {
        ended += namespace::kill_all_in(&here, &|pid| pid == me || is_spared(pid));
    }
    // Those that went to another namespace are still our descendants.
    loop {
        let pids: Vec<Pid> = children().into_iter().filter(|pid| !spared.contains(pid) && !is_earlier(pid)).collect();
        if pids.is_empty() {
            return ended;
        }
        for pid in &pids {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        ended += pids.len();
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => reap(),
            Err(_) => return ended,
        }
    }
}
