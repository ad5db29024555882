//! The file locks of a process that goes back to a checkpoint.

use super::tracee::{Point, Tracee};
use crate::sys;
use mojavefs_procfs::locks::{Lock, LockKind, each_lock, everything};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// How a descriptor was locked.
pub(super) struct Locks {
    number: i32,
    held: Vec<Lock>,
    /// Others may wait for it: it is no file of the job's own.
    outside: bool,
}

impl Locks {
    /// Of the descriptor whose entry in `/proc` is `info`.
    pub(super) fn note(number: i32, info: &str, outside: bool) -> io::Result<Locks> {
        Ok(Locks { number, held: shown(info)?, outside })
    }

    /// Locks that belong to the open file, and so to the checkpoint as well, for as long as that sleeps.
    pub(super) fn are_shared(&self) -> bool {
        self.held.iter().any(|lock| lock.kind != LockKind::Posix)
    }

    /// Whoever waits for what was locked since need not wait for the checkpoint of process `pid`.
    pub(super) fn release(&self, pid: Pid, process: &OwnedFd) -> io::Result<()> {
        match self.outside && !self.are_shared() {
            true => self.put_open_file_back(pid, process),
            false => Ok(()),
        }
    }

    /// Makes them what they were, in the process that is stopped at `point`.
    pub(super) fn put_back(&self, tracee: &Tracee, point: &Point, process: &OwnedFd) -> io::Result<()> {
        self.put_open_file_back(tracee.pid(), process)?;
        let own = |lock: &&Lock| lock.kind == LockKind::Posix;
        self.held.iter().filter(own).try_for_each(|lock| take_as(lock, tracee, point, self.number))
    }

    /// Those that a descriptor of our own takes and releases as well: it shares the open file.
    fn put_open_file_back(&self, pid: Pid, process: &OwnedFd) -> io::Result<()> {
        let now = shown(&info(pid, self.number)?)?;
        for kind in [LockKind::Flock, LockKind::Described] {
            let of = |locks: &[Lock]| locks.iter().copied().filter(|lock| lock.kind == kind).collect::<Vec<_>>();
            let (before, now) = (of(&self.held), of(&now));
            if before == now {
                continue;
            }
            let fd = sys::pidfd_getfd(process, self.number)?;
            // One lock of the whole file is turned into another in one step.
            if before.is_empty() || kind == LockKind::Described {
                release_all(&fd, kind)?;
            }
            before.iter().try_for_each(|lock| take(lock, &fd))?;
        }
        Ok(())
    }
}

fn take(lock: &Lock, fd: &OwnedFd) -> io::Result<()> {
    match lock.kind {
        LockKind::Flock => sys::flock(fd.as_fd(), lock.how()),
        _ => Ok(fcntl(fd, FcntlArg::F_OFD_SETLK(&lock.range())).map(drop)?),
    }
}

/// In the place of the process.
fn take_as(lock: &Lock, tracee: &Tracee, point: &Point, number: i32) -> io::Result<()> {
    let flock = lock.range();
    // `struct flock`, field by field.
    let mut bytes = [0u8; size_of::<libc::flock>()];
    bytes[0..2].copy_from_slice(&flock.l_type.to_ne_bytes());
    bytes[2..4].copy_from_slice(&flock.l_whence.to_ne_bytes());
    bytes[8..16].copy_from_slice(&flock.l_start.to_ne_bytes());
    bytes[16..24].copy_from_slice(&flock.l_len.to_ne_bytes());
    tracee.with_scratch(point, |memory, at| {
        memory.write_all_at(&bytes, at)?;
        let arguments = [number.cast_unsigned().into(), libc::F_SETLK as u64, at];
        super::kernel::succeeded(tracee.call(point, libc::SYS_fcntl, &arguments)?)
    })
}

fn release_all(fd: &OwnedFd, kind: LockKind) -> io::Result<()> {
    match kind {
        LockKind::Flock => sys::flock(fd.as_fd(), libc::LOCK_UN),
        _ => Ok(fcntl(fd, FcntlArg::F_OFD_SETLK(&everything())).map(drop)?),
    }
}

/// What `/proc` says of a descriptor.
pub(super) fn info(pid: Pid, number: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))
}

/// The job was started with this very open file: who started it has it, too, and what is locked by it is theirs.
pub(super) fn is_given(process: &OwnedFd, number: i32) -> io::Result<bool> {
    let theirs = sys::pidfd_getfd(process, number)?;
    let is_theirs = |mine: i32| mine != theirs.as_raw_fd() && sys::is_same_open(&mine, &theirs);
    Ok(super::kernel::descriptors(Pid::this())?.into_iter().any(is_theirs))
}

/// Flags of an open file, from its entry in `/proc`.
pub(super) fn flags(info: &str) -> Option<OFlag> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    i32::from_str_radix(flags.trim(), 8).ok().map(OFlag::from_bits_retain)
}

/// The process's own locks are shown with each of its descriptors of that file; not each can take them again.
fn shown(info: &str) -> io::Result<Vec<Lock>> {
    let access = flags(info).unwrap_or(OFlag::O_RDWR) & OFlag::O_ACCMODE;
    let fits = |lock: &Lock| {
        let unfit = if lock.exclusive { OFlag::O_RDONLY } else { OFlag::O_WRONLY };
        lock.kind != LockKind::Posix || access != unfit
    };
    let (mut locks, mut unknown) = (Vec::new(), None);
    each_lock(info.as_bytes(), |shown| match shown.lock {
        Some(lock) => locks.push(lock),
        None => unknown = Some(String::from_utf8_lossy(shown.line).into_owned()),
    });
    match unknown {
        Some(line) => Err(io::Error::other(format!("this lock is not understood: {line}"))),
        None => Ok(locks.into_iter().filter(fits).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(access: &str, lock: &str) -> String {
        format!("pos:\t0\nflags:\t010000{access}\nmnt_id:\t29\nino:\t17\nlock:\t{lock}\n")
    }

    #[test]
    fn a_lock_is_taken_again_by_a_descriptor_that_may() {
        let posix = "1: POSIX  ADVISORY  WRITE 77 00:2f:17 0 EOF";
        let count = |access| shown(&info(access, posix)).map(|locks| locks.len()).unwrap_or_default();
        assert_eq!(["0", "1", "2"].map(count), [0, 1, 1]);
    }
}
