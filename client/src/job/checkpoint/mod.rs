//! Checkpoints of a job's process in the middle of a system call, and the way back to them.
//!
//! A process that is about to read another job's undecided work is stopped on its way out of the call, which is answered with
//! `EINTR`. A fork made in its place is the checkpoint, which sleeps; the process makes the call again and becomes part of the
//! other. If that one is undone, the process is ended, and a process made from the checkpoint takes its number and makes the
//! same call again. The program notices nothing. Works for a job of one process with one thread that has the rights to bring a
//! number back; any other goes back to its start.

mod kernel;
mod locks;
mod mapped;
mod obstacles;
mod places;
mod signals;
mod sizes;
mod tracee;

use super::supervise;
use crate::limits::CHECKPOINTS_MAX;
use kernel::Kernel;
use mojavefs::id::SpecId;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use places::Places;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::Instant;
use tracee::{Point, Tracee};

/// `struct clone_args`, in 8-byte fields: which of them is what.
const CLONE_ARGS_FIELDS: usize = 11;
const FIELD_FLAGS: usize = 0;
const FIELD_SET_TID: usize = 8;
const FIELD_SET_TID_SIZE: usize = 9;

const NOT_STOPPED: &str = "the process did not stop in time";

/// One who decides whether a checkpoint counts.
pub(crate) trait Ledger {
    /// The process was stopped, or why not. False if that comes too late.
    fn stopped(&self, why_not: Option<String>) -> bool;
    /// The process has a checkpoint: its job begins a segment.
    fn begin_segment(&self) -> Result<SpecId, String>;
    /// It has none.
    fn no_segment(&self, why: String);
}

/// The checkpoints of a job, the oldest first.
#[derive(Default)]
pub(crate) struct Checkpoints {
    taken: Vec<Checkpoint>,
    /// The process, if it was to be stopped and has not yet: it goes on as soon as it has.
    late: Option<Tracee>,
}

/// A process that sleeps in the middle of a call.
struct Checkpoint {
    /// The segment that began with it.
    segment: SpecId,
    asleep: Asleep,
    point: Point,
    kernel: Kernel,
    places: Places,
    taken: Instant,
}

/// A stopped process that never goes on: it ends with this.
struct Asleep(Option<Tracee>);

impl Checkpoints {
    pub(crate) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// When the one was taken with which a segment began, if one was.
    pub(crate) fn of(&self, segment: SpecId) -> Option<Instant> {
        self.taken.iter().find(|checkpoint| checkpoint.segment == segment).map(|checkpoint| checkpoint.taken)
    }

    /// Their processes.
    pub(crate) fn pids(&self) -> Vec<Pid> {
        self.taken.iter().filter_map(|checkpoint| checkpoint.asleep.0.as_ref()).map(Tracee::pid).collect()
    }

    /// The command has ended, so whoever waits for what it has locked need not wait for its checkpoints.
    pub(crate) fn release_locks(&self) -> io::Result<()> {
        let asleep = self.taken.iter().filter_map(|checkpoint| Some((checkpoint, checkpoint.asleep.0.as_ref()?.pid())));
        asleep.into_iter().try_for_each(|(checkpoint, pid)| checkpoint.kernel.release(pid))
    }

    /// Lets a process go on that has stopped too late for a checkpoint.
    pub(crate) fn let_go_late(&mut self) -> io::Result<()> {
        let Some(tracee) = self.late.take() else { return Ok(()) };
        match tracee.point()? {
            Some(point) => tracee.let_go(&point),
            None => {
                self.late = Some(tracee);
                Ok(())
            }
        }
    }

    /// Takes one of the job's main process, on behalf of a call of process `caller` that waits for it. `mount` is the job's.
    /// An error leaves the process in nobody's hands.
    pub(crate) fn take(&mut self, main: Pid, caller: u32, mount: &File, ledger: &dyn Ledger) -> io::Result<()> {
        let obstacle = match () {
            () if self.late.is_some() => Some(NOT_STOPPED.to_owned()),
            () if self.taken.len() == CHECKPOINTS_MAX => {
                Some(format!("the job has {CHECKPOINTS_MAX} checkpoints already"))
            }
            () => obstacles::find(main, caller, &self.pids(), mount).unwrap_or_else(|error| Some(error.to_string())),
        };
        let tracee = match obstacle {
            None => Tracee::seize(main).map_err(|error| format!("the process can't be stopped: {error}")),
            Some(obstacle) => Err(obstacle),
        };
        let (counts, tracee) = match tracee {
            Ok(tracee) => (ledger.stopped(None), tracee),
            Err(why) => {
                ledger.stopped(Some(why));
                return Ok(());
            }
        };
        let Some(point) = tracee.stopped()? else {
            // Something in the kernel keeps it. Its calls need not wait for a checkpoint any more.
            ledger.no_segment(NOT_STOPPED.to_owned());
            self.late = Some(tracee);
            return Ok(());
        };
        if counts {
            match self.checkpoint(&tracee, &point, mount, ledger) {
                Ok(checkpoint) => self.taken.push(checkpoint),
                Err(why) => ledger.no_segment(why),
            }
        }
        tracee.let_go(&point)
    }

    fn checkpoint(
        &self,
        tracee: &Tracee,
        point: &Point,
        mount: &File,
        ledger: &dyn Ledger,
    ) -> Result<Checkpoint, String> {
        let failed = |error: io::Error| format!("the checkpoint failed: {error}");
        if let Some(obstacle) = point.obstacle(tracee).map_err(failed)? {
            return Err(obstacle);
        }
        let kernel = Kernel::note(tracee, point, mount).map_err(failed)?;
        let places = Places::note(tracee.pid(), mount).map_err(failed)?;
        mapped::write_out(tracee, point, mount).map_err(failed)?;
        // As if the process's parent had started it: then so can one that is made from it.
        let flags = libc::CLONE_PARENT as u64;
        let copy = tracee.call_clone(point, libc::SYS_clone, &[flags]).map_err(failed)?;
        let dies_with_me = copy.die_with_me();
        let asleep = Asleep(Some(copy));
        dies_with_me.map_err(failed)?;
        let taken = Instant::now();
        Ok(Checkpoint { segment: ledger.begin_segment()?, asleep, point: *point, kernel, places, taken })
    }

    /// Ends the job's processes and brings its main one back to where `segment` began; `before` runs when it is there and has not
    /// gone on yet, and leads the view of `mount` out of what is undone. After an error the job has no processes any more.
    pub(crate) fn go_back(
        &mut self,
        segment: SpecId,
        main: Pid,
        mount: &File,
        before: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), String> {
        let at = self.taken.iter().position(|checkpoint| checkpoint.segment == segment);
        let at = at.ok_or_else(|| format!("segment {segment} has no checkpoint"))?;
        self.taken.truncate(at + 1);
        // It is ended with the others.
        self.late = None;
        supervise::end_all_but(&self.pids());
        let Some(checkpoint) = self.taken.pop() else { return Err("the checkpoint is gone".to_owned()) };
        let failed = |error: io::Error| format!("process {main} could not be brought back: {error}");
        let back = checkpoint.revive(main).map_err(failed)?;
        let ready = checkpoint.kernel.put_back(&back, &checkpoint.point).map_err(failed);
        let refresh = || {
            checkpoint.places.look_up(mount);
            sizes::refresh(main, mount).map_err(failed)
        };
        match ready.and_then(|()| before()).and_then(|()| refresh()) {
            Ok(()) => back.let_go(&checkpoint.point).map_err(failed),
            Err(why) => {
                drop(Asleep(Some(back)));
                Err(why)
            }
        }
    }
}

impl Checkpoint {
    /// A process made from it, under the number of the one that it was made from.
    fn revive(&self, number: Pid) -> io::Result<Tracee> {
        let asleep = self.asleep.0.as_ref().ok_or_else(|| io::Error::other("the checkpoint is gone"))?;
        asleep.with_scratch(&self.point, |memory, at| {
            let mut arguments = [0u64; CLONE_ARGS_FIELDS];
            let after = size_of_val(&arguments) as u64;
            arguments[FIELD_FLAGS] = libc::CLONE_PARENT as u64;
            arguments[FIELD_SET_TID] = at + after;
            arguments[FIELD_SET_TID_SIZE] = 1;
            let bytes: Vec<u8> = arguments.iter().flat_map(|field| field.to_ne_bytes()).collect();
            memory.write_all_at(&bytes, at)?;
            memory.write_all_at(&number.as_raw().to_ne_bytes(), at + after)?;
            asleep.call_clone(&self.point, libc::SYS_clone3, &[at, after])
        })
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        let Some(tracee) = self.0.take() else { return };
        let pid = tracee.pid();
        let _ = kill(pid, Signal::SIGKILL);
        // Its death comes to its tracer, which is this thread, and to its parent, which is this process.
        let _ = waitpid(pid, Some(WaitPidFlag::__WALL));
        std::mem::forget(tracee);
    }
}
