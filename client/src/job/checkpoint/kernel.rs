//! What the kernel keeps of a process and a fork does not: offsets and flags of open files, which the two share, locks, timers.

use super::tracee::{Point, Tracee};
use crate::sys;
use nix::fcntl::{FcntlArg, FlockArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Whence, lseek};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
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
    locks: Vec<Lock>,
    /// Which, and as the kernel gave it.
    timers: Vec<(u64, [u8; TIMER_BYTES])>,
    /// Signals that were on their way.
    signals: Vec<Signal>,
}

/// An open regular file or directory.
struct OpenFile {
    number: i32,
    offset: i64,
    flags: OFlag,
    /// How it was locked as a whole.
    lock: Option<FlockArg>,
}

/// A record lock; it belongs to the process.
struct Lock {
    number: i32,
    exclusive: bool,
    start: i64,
    /// 0 is up to the end.
    length: i64,
}

impl Kernel {
    /// Notes it all. The process is stopped at `point`, and sees `mount`.
    pub(super) fn note(tracee: &Tracee, point: &Point, mount: &File) -> io::Result<Kernel> {
        let pid = tracee.pid();
        let signals = pending(&fs::read_to_string(format!("/proc/{pid}/status"))?)?;
        let inside = sys::cached_stat(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?.device;
        let held = locks_of(pid)?;
        let (mut files, mut locks) = (Vec::new(), Vec::new());
        let mut claimed = 0;
        for number in descriptors(pid)? {
            let stat = sys::cached_stat(&Path::new("/proc").join(format!("{pid}/fd/{number}")))?;
            if !matches!(stat.kind, libc::S_IFREG | libc::S_IFDIR) {
                continue;
            }
            let here = |lock: &&HeldLock| (lock.device, lock.ino) == (stat.device, stat.ino);
            let whole = held.iter().filter(here).find(|lock| lock.whole);
            let lock = whole.map(|lock| if lock.exclusive { FlockArg::LockExclusive } else { FlockArg::LockShared });
            let Some((file, written)) = open_file(pid, number, lock)? else { continue };
            // What is said to the outside is said; others may write there, too.
            if !(written && stat.device != inside && is_inherited(pid, number)) {
                files.push(file);
            }
            for lock in held.iter().filter(here).filter(|lock| !lock.whole) {
                claimed += 1;
                let length = lock.end.map_or(0, |end| end - lock.start + 1);
                locks.push(Lock { number, exclusive: lock.exclusive, start: lock.start, length });
            }
        }
        if claimed < held.iter().filter(|lock| !lock.whole).count() {
            return Err(io::Error::other("a file that it has locked is not among its open ones"));
        }
        Ok(Kernel { files, locks, timers: note_timers(tracee, point)?, signals })
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
            put_flock(fd, file.lock)?;
        }
        for signal in &self.signals {
            kill(tracee.pid(), *signal)?;
        }
        for lock in &self.locks {
            lock.take(tracee, point)?;
        }
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
fn open_file(pid: Pid, number: i32, lock: Option<FlockArg>) -> io::Result<Option<(OpenFile, bool)>> {
    let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"))?;
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
    let unreadable = |_| io::Error::other(format!("descriptor {number}: the kernel does not say where it stands"));
    let flags = i32::from_str_radix(field("flags:"), 8).map_err(unreadable)?;
    let flags = OFlag::from_bits_retain(flags);
    if flags.contains(OFlag::O_PATH) {
        return Ok(None);
    }
    let offset = field("pos:").parse().map_err(unreadable)?;
    let written = flags & OFlag::O_ACCMODE != OFlag::O_RDONLY;
    Ok(Some((OpenFile { number, offset, flags: flags & STATUS_FLAGS, lock }, written)))
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

/// The signals that have been sent to a process and have not reached it, by its `status`.
fn pending(status: &str) -> io::Result<Vec<Signal>> {
    let sets = ["SigPnd:", "ShdPnd:"].map(|name| {
        let field = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        u64::from_str_radix(field.trim(), 16).unwrap_or(0)
    });
    let numbers = (1..=64).filter(|number| (sets[0] | sets[1]) & 1 << (number - 1) != 0);
    let known =
        |number| Signal::try_from(number).map_err(|_| io::Error::other("a real-time signal is on its way to it"));
    numbers.map(known).collect()
}

fn descriptors(pid: Pid) -> io::Result<Vec<i32>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Locks belong to the open file, which this descriptor shares.
fn put_flock(fd: OwnedFd, lock: Option<FlockArg>) -> io::Result<()> {
    let how = match lock {
        Some(FlockArg::LockExclusive) => libc::LOCK_EX | libc::LOCK_NB,
        Some(_) => libc::LOCK_SH | libc::LOCK_NB,
        None => libc::LOCK_UN,
    };
    sys::flock(fd.as_fd(), how)
}

impl Lock {
    fn take(&self, tracee: &Tracee, point: &Point) -> io::Result<()> {
        let kind = if self.exclusive { libc::F_WRLCK } else { libc::F_RDLCK } as i16;
        // `struct flock`, field by field.
        let mut bytes = [0u8; size_of::<libc::flock>()];
        bytes[0..2].copy_from_slice(&kind.to_ne_bytes());
        bytes[2..4].copy_from_slice(&(libc::SEEK_SET as i16).to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.start.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.length.to_ne_bytes());
        tracee.with_scratch(point, |memory, at| {
            memory.write_all_at(&bytes, at)?;
            let arguments = [self.number.cast_unsigned().into(), libc::F_SETLK as u64, at];
            succeeded(tracee.call(point, libc::SYS_fcntl, &arguments)?)
        })
    }
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

fn succeeded(result: i64) -> io::Result<()> {
    match result {
        0.. => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error as i32)),
    }
}

/// A lock as the kernel lists it.
#[derive(Debug, PartialEq)]
struct HeldLock {
    /// Of the whole file (`flock`), not of a part (`fcntl`).
    whole: bool,
    exclusive: bool,
    device: (u32, u32),
    ino: u64,
    start: i64,
    /// The last byte; nothing is the end of the file.
    end: Option<i64>,
}

fn locks_of(pid: Pid) -> io::Result<Vec<HeldLock>> {
    let all = fs::read_to_string("/proc/locks")?;
    let mine = all.lines().filter(|line| line.split_whitespace().nth(4) == Some(&pid.to_string()));
    let parse = |line| held_lock(line).ok_or_else(|| io::Error::other(format!("this lock is not understood: {line}")));
    mine.map(parse).collect()
}

/// `1: POSIX  ADVISORY  WRITE 12345 00:2f:17 0 EOF`
fn held_lock(line: &str) -> Option<HeldLock> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, kind, _, how, _, file, start, end] = words[..] else { return None };
    let place: Vec<&str> = file.split(':').collect();
    let [major, minor, ino] = place[..] else { return None };
    Some(HeldLock {
        whole: match kind {
            "FLOCK" => true,
            "POSIX" => false,
            _ => return None,
        },
        exclusive: how == "WRITE",
        device: (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?),
        ino: ino.parse().ok()?,
        start: start.parse().ok()?,
        end: if end == "EOF" { None } else { Some(end.parse().ok()?) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_read_as_the_kernel_lists_them() {
        let lock = held_lock("3: POSIX  ADVISORY  READ 77 00:2f:17 1073741826 1073742335").expect("a record lock");
        assert_eq!((lock.whole, lock.exclusive, lock.device, lock.ino), (false, false, (0, 0x2f), 17));
        assert_eq!((lock.start, lock.end), (1_073_741_826, Some(1_073_742_335)));
        let lock = held_lock("1: FLOCK  ADVISORY  WRITE 77 fe:01:5 0 EOF").expect("a lock of a whole file");
        assert_eq!((lock.whole, lock.exclusive, lock.end), (true, true, None));
        assert_eq!(held_lock("2: LEASE  ACTIVE    READ  77 fe:01:5 0 EOF"), None);
    }
}
