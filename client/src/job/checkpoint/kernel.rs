//! What the kernel keeps of a process and a fork does not: offsets and flags of open files, which the two share, locks, timers.

use super::locks::{self, Locks};
use super::signals::Signals;
use super::tracee::{Point, Tracee};
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::{Pid, Whence, lseek};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `ITIMER_REAL`, `ITIMER_VIRTUAL`, `ITIMER_PROF`.
const TIMERS: [u64; 3] = [0, 1, 2];
const TIMER_BYTES: usize = size_of::<libc::itimerval>();
/// Those of an open file that can be changed later.
const STATUS_FLAGS: OFlag = OFlag::O_APPEND.union(OFlag::O_NONBLOCK);

/// What is put back beside what the checkpoint itself keeps.
pub(super) struct Kernel {
    files: Vec<OpenFile>,
    locks: Vec<Locks>,
    /// Which, and as the kernel gave it.
    timers: Vec<(u64, [u8; TIMER_BYTES])>,
    signals: Signals,
}

/// An open regular file or directory.
struct OpenFile {
    number: i32,
    offset: i64,
    flags: OFlag,
}

impl Kernel {
    /// Notes it all. The process is stopped at `point`, and sees `mount`.
    pub(super) fn note(tracee: &Tracee, point: &Point, mount: &File) -> io::Result<Kernel> {
        let pid = tracee.pid();
        let signals = Signals::note(tracee)?;
        let inside = sys::cached_stat(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?.device;
        let process = sys::pidfd_open(pid.as_raw().cast_unsigned())?;
        let (mut files, mut locks) = (Vec::new(), Vec::new());
        for number in descriptors(pid)? {
            let stat = sys::cached_stat(&Path::new("/proc").join(format!("{pid}/fd/{number}")))?;
            if !matches!(stat.kind, libc::S_IFREG | libc::S_IFDIR) {
                continue;
            }
            let info = locks::info(pid, number)?;
            let Some((file, written)) = open_file(number, &info)? else { continue };
            let is_outside = stat.device != inside;
            // What is said to the outside is said; others may write there, too.
            if !(written && is_outside && is_inherited(pid, number)) {
                files.push(file);
            }
            if !(is_outside && locks::is_given(&process, number)?) {
                locks.push(Locks::note(number, &info, is_outside)?);
            }
        }
        Ok(Kernel { files, locks, timers: note_timers(tracee, point)?, signals })
    }

    /// What was locked since by a file that was open then is let go of, on behalf of process `pid`, the checkpoint.
    pub(super) fn release(&self, pid: Pid) -> io::Result<()> {
        let process = sys::pidfd_open(pid.as_raw().cast_unsigned())?;
        self.locks.iter().try_for_each(|locks| locks.release(pid, &process))
    }

    /// Puts it all back into the process that was made from the checkpoint and is stopped at `point`.
    pub(super) fn put_back(&self, tracee: &Tracee, point: &Point) -> io::Result<()> {
        let process = sys::pidfd_open(tracee.pid().as_raw().cast_unsigned())?;
        for file in &self.files {
            let fd = sys::pidfd_getfd(&process, file.number)?;
            lseek(&fd, file.offset, Whence::SeekSet)?;
            let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
            if flags & STATUS_FLAGS != file.flags {
                fcntl(&fd, FcntlArg::F_SETFL(flags.difference(STATUS_FLAGS) | file.flags))?;
            }
        }
        self.signals.put_back(tracee, point)?;
        self.locks.iter().try_for_each(|locks| locks.put_back(tracee, point, &process))?;
        for (which, value) in &self.timers {
            tracee.with_scratch(point, |memory, at| {
                memory.write_all_at(value, at)?;
                succeeded(tracee.call(point, libc::SYS_setitimer, &[*which, at, 0])?)
            })?;
        }
        Ok(())
    }
}

/// And whether it is open for writing. Nothing if it was opened as a mere place (`O_PATH`).
fn open_file(number: i32, info: &str) -> io::Result<Option<(OpenFile, bool)>> {
    let unreadable = || io::Error::other(format!("descriptor {number}: the kernel does not say where it stands"));
    let flags = locks::flags(info).ok_or_else(unreadable)?;
    if flags.contains(OFlag::O_PATH) {
        return Ok(None);
    }
    let offset = info.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok());
    let offset = offset.ok_or_else(unreadable)?;
    let written = flags & OFlag::O_ACCMODE != OFlag::O_RDONLY;
    Ok(Some((OpenFile { number, offset, flags: flags & STATUS_FLAGS }, written)))
}

/// This process writes there, too: the job was started with it, under whatever number it has it now.
fn is_inherited(pid: Pid, number: i32) -> bool {
    let target = fs::read_link(format!("/proc/{pid}/fd/{number}"));
    let mine = descriptors(Pid::this()).unwrap_or_default();
    let is_target = |mine: &i32| {
        let mine = fs::read_link(format!("/proc/self/fd/{mine}"));
        matches!((&mine, &target), (Ok(mine), Ok(target)) if mine == target)
    };
    mine.iter().any(is_target)
}

pub(super) fn descriptors(pid: Pid) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

fn note_timers(tracee: &Tracee, point: &Point) -> io::Result<Vec<(u64, [u8; TIMER_BYTES])>> {
    let mut timers = Vec::new();
    for which in TIMERS {
        let mut value = [0u8; TIMER_BYTES];
        tracee.with_scratch(point, |memory, at| {
            succeeded(tracee.call(point, libc::SYS_getitimer, &[which, at])?)?;
            memory.read_exact_at(&mut value, at)
        })?;
        // One that has just expired starts anew when its signal is taken, which is sent again.
        let (interval, left) = value.split_at_mut(TIMER_BYTES / 2);
        if left.iter().all(|byte| *byte == 0) {
            left.copy_from_slice(interval);
        }
        if value != [0u8; TIMER_BYTES] {
            timers.push((which, value));
        }
    }
    Ok(timers)
}

pub(super) fn succeeded(result: i64) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}
