//! File locks, as a descriptor's entry in `/proc` shows them: those of the open file, whoever took them, and of the process.

use super::tracee::{Point, Tracee};
use crate::sys;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Whose a lock is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    /// The open file's, all of it (`flock`).
    Whole,
    /// The open file's, a range (`F_OFD_SETLK`).
    Range,
    /// The process's (`F_SETLK`).
    Process,
}

/// A lock as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lock {
    whose: Whose,
    exclusive: bool,
    start: i64,
    /// 0 is up to the end.
    length: i64,
}

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
        self.held.iter().any(|lock| lock.whose != Whose::Process)
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
        let own = |lock: &&Lock| lock.whose == Whose::Process;
        self.held.iter().filter(own).try_for_each(|lock| lock.take_as(tracee, point, self.number))
    }

    /// Those that a descriptor of our own takes and releases as well: it shares the open file.
    fn put_open_file_back(&self, pid: Pid, process: &OwnedFd) -> io::Result<()> {
        let now = shown(&info(pid, self.number)?)?;
        for whose in [Whose::Whole, Whose::Range] {
            let of = |locks: &[Lock]| locks.iter().copied().filter(|lock| lock.whose == whose).collect::<Vec<_>>();
            let (before, now) = (of(&self.held), of(&now));
            if before == now {
                continue;
            }
            let fd = sys::pidfd_getfd(process, self.number)?;
            // One lock of the whole file is turned into another in one step.
            if before.is_empty() || whose == Whose::Range {
                release_all(&fd, whose)?;
            }
            before.iter().try_for_each(|lock| lock.take(&fd))?;
        }
        Ok(())
    }
}

impl Lock {
    fn flock(&self) -> libc::flock {
        let kind = if self.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        range(kind, self.start, self.length)
    }

    fn take(&self, fd: &OwnedFd) -> io::Result<()> {
        match self.whose {
            Whose::Whole if self.exclusive => sys::flock(fd.as_fd(), libc::LOCK_EX | libc::LOCK_NB),
            Whose::Whole => sys::flock(fd.as_fd(), libc::LOCK_SH | libc::LOCK_NB),
            _ => Ok(fcntl(fd, FcntlArg::F_OFD_SETLK(&self.flock())).map(drop)?),
        }
    }

    /// In the place of the process.
    fn take_as(&self, tracee: &Tracee, point: &Point, number: i32) -> io::Result<()> {
        let flock = self.flock();
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
}

fn range(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: length, l_pid: 0 }
}

fn release_all(fd: &OwnedFd, whose: Whose) -> io::Result<()> {
    match whose {
        Whose::Whole => sys::flock(fd.as_fd(), libc::LOCK_UN),
        _ => Ok(fcntl(fd, FcntlArg::F_OFD_SETLK(&range(libc::F_UNLCK, 0, 0))).map(drop)?),
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
        lock.whose != Whose::Process || access != unfit
    };
    let lines = info.lines().filter_map(|line| line.strip_prefix("lock:"));
    let parse = |line| lock(line).ok_or_else(|| io::Error::other(format!("this lock is not understood: {line}")));
    Ok(lines.map(parse).collect::<io::Result<Vec<_>>>()?.into_iter().filter(fits).collect())
}

/// `1: POSIX  ADVISORY  WRITE 12345 00:2f:17 0 EOF`
fn lock(line: &str) -> Option<Lock> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, whose, _, how, _, _, start, end] = words[..] else { return None };
    let whose = match whose {
        "FLOCK" => Whose::Whole,
        "OFDLCK" => Whose::Range,
        "POSIX" => Whose::Process,
        _ => return None,
    };
    let start = start.parse().ok()?;
    let length = if end == "EOF" { 0 } else { end.parse::<i64>().ok()? - start + 1 };
    Some(Lock { whose, exclusive: how == "WRITE", start, length })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(access: &str, lock: &str) -> String {
        format!("pos:\t0\nflags:\t010000{access}\nmnt_id:\t29\nino:\t17\nlock:\t{lock}\n")
    }

    #[test]
    fn locks_are_read_as_the_kernel_shows_them() {
        let read = |lock: &str| shown(&info("2", lock)).ok();
        let lock = |whose, exclusive, start, length| Some(vec![Lock { whose, exclusive, start, length }]);
        let posix = "1: POSIX  ADVISORY  READ  77 00:2f:17 1073741826 1073742335";
        assert_eq!(read(posix), lock(Whose::Process, false, 1_073_741_826, 510));
        assert_eq!(read("1: FLOCK  ADVISORY  WRITE 77 fe:01:5 0 EOF"), lock(Whose::Whole, true, 0, 0));
        assert_eq!(read("1: OFDLCK ADVISORY  WRITE -1 00:2f:17 5 EOF"), lock(Whose::Range, true, 5, 0));
        assert_eq!(read("1: LEASE  ACTIVE    READ  77 fe:01:5 0 EOF"), None);
    }

    #[test]
    fn a_lock_is_taken_again_by_a_descriptor_that_may() {
        let posix = "1: POSIX  ADVISORY  WRITE 77 00:2f:17 0 EOF";
        let count = |access| shown(&info(access, posix)).map(|locks| locks.len()).unwrap_or_default();
        assert_eq!(["0", "1", "2"].map(count), [0, 1, 1]);
    }
}
