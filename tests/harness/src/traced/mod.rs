//! A process that is stopped before and after each of its calls that change files, from outside: for a test that kills it there, cuts the
//! power there, or does something of its own meanwhile. The process itself knows nothing of it.

mod call;

pub use call::{Call, Edge};

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// How often the list of a process's threads is read, until there is no new one.
const LISTS_MAX: usize = 100;

/// What becomes of the process at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    Goes,
    /// It is killed; a call that it was about to make is not made.
    IsKilled,
}

/// A process that is traced, until this is dropped.
pub struct Traced {
    pid: Pid,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Traced {
    /// Takes hold of a process. `at_call` is called before and after each call that changes something below a directory, by whichever of
    /// its threads, while that thread waits. Errors: it may not be traced, or is gone.
    pub fn seize(pid: Pid, below: &Path, at_call: impl FnMut(&Call) -> Then + Send + 'static) -> nix::Result<Traced> {
        let is_over = Arc::new(AtomicBool::new(false));
        let (begun, has_begun) = mpsc::channel();
        let mut tracer = Tracer {
            pid,
            below: below.to_owned(),
            is_over: is_over.clone(),
            calls: HashMap::new(),
            at_call: Box::new(at_call),
        };
        // Only the thread that has taken hold of a process may ask about it; when that ends, the process is let go.
        let thread = std::thread::spawn(move || {
            let seized = tracer.seize_all();
            let is_seized = seized.is_ok();
            let _ = begun.send(seized);
            if is_seized {
                tracer.run();
            }
        });
        has_begun.recv().unwrap_or(Err(Errno::ESRCH))?;
        Ok(Traced { pid, is_over, thread: Some(thread) })
    }

    /// Lets it go. Panics if what was to be done at a call has panicked.
    pub fn end(mut self) {
        if let Err(panic) = self.stop() {
            std::panic::resume_unwind(panic);
        }
    }

    fn stop(&mut self) -> std::thread::Result<()> {
        self.is_over.store(true, Ordering::SeqCst);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Means nothing to the process, but whoever traces it hears of it.
        let _ = kill(self.pid, Signal::SIGWINCH);
        thread.join()
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

struct Tracer {
    pid: Pid,
    below: PathBuf,
    is_over: Arc<AtomicBool>,
    /// What threads are in the middle of.
    calls: HashMap<Pid, Option<Call>>,
    at_call: Box<dyn FnMut(&Call) -> Then + Send>,
}

impl Tracer {
    fn seize_all(&self) -> nix::Result<()> {
        let mut seized = HashSet::new();
        for _ in 0..LISTS_MAX {
            let list = fs::read_dir(format!("/proc/{}/task", self.pid)).map_err(|_| Errno::ESRCH)?;
            let threads = list.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
            let new: Vec<Pid> = threads.map(Pid::from_raw).filter(|thread| !seized.contains(thread)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for thread in new {
                let seize = ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE);
                match seize.and_then(|()| ptrace::interrupt(thread)) {
                    // It was made by one that is traced, and so is it; or it is gone.
                    Err(Errno::EPERM) if !seized.is_empty() => {}
                    Err(Errno::ESRCH) => {}
                    done => done?,
                }
                seized.insert(thread);
            }
        }
        Err(Errno::EAGAIN)
    }

    /// Goes on until the process is gone, or let go.
    fn run(&mut self) {
        // Children of other threads are others' business.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let waited = waitpid(None, Some(flags));
            if self.is_over.load(Ordering::SeqCst) {
                return;
            }
            let (thread, signal) = match waited {
                Ok(WaitStatus::PtraceSyscall(thread)) => {
                    if self.is_to_be_killed(thread) {
                        let _ = kill(self.pid, Signal::SIGKILL);
                        return;
                    }
                    (thread, None)
                }
                Ok(WaitStatus::Stopped(thread, signal)) => (thread, Some(signal)),
                Ok(WaitStatus::PtraceEvent(thread, ..)) => (thread, None),
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            // One that is gone meanwhile needs no word.
            let _ = ptrace::syscall(thread, signal);
        }
    }

    /// A thread begins or ends a call.
    fn is_to_be_killed(&mut self, thread: Pid) -> bool {
        let Ok(info) = ptrace::syscall_info(thread) else { return false };
        let call = match call::begins(&info) {
            Some((number, words)) => {
                let call = Call::decode(thread, number, words);
                let call = call.filter(|call| call.paths.iter().any(|path| path.starts_with(&self.below)));
                self.calls.insert(thread, call.clone());
                call
            }
            None => {
                let call = self.calls.remove(&thread).flatten();
                call.map(|call| Call { edge: Edge::After, has_failed: call::has_failed(&info), ..call })
            }
        };
        call.is_some_and(|call| (self.at_call)(&call) == Then::IsKilled)
    }
}
