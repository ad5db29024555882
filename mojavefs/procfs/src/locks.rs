//! File locks, as a descriptor's entry in `/proc` shows them: those of the open file, whoever took them, and of the process.

use crate::process::leading;

/// One lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// Whose it is.
    pub kind: LockKind,
    /// Nobody else may have one beside it.
    pub exclusive: bool,
    /// The first byte.
    pub start: i64,
    /// The last byte; `i64::MAX` for the end of the file, wherever that is.
    pub last: i64,
}

/// Who holds a lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// The open file, all of it (`flock`).
    Flock,
    /// The process, a range (`F_SETLK`).
    Posix,
    /// The open file, a range (`F_OFD_SETLK`).
    Described,
}

/// One that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// The lock; nothing if it is of another kind.
    pub lock: Option<Lock>,
    /// The process that has taken it; -1 if that is not said.
    pub taken_by: i32,
    /// As the kernel says it.
    pub line: &'a [u8],
}

/// Each lock in what `/proc` says of a descriptor (`/proc/PID/fdinfo/N`).
pub fn each_lock<'a>(info: &'a [u8], mut each: impl FnMut(Shown<'a>)) {
    for line in info.split(|byte| *byte == b'\n') {
        if let Some(line) = line.strip_prefix(b"lock:\t") {
            each(shown(line));
        }
    }
}

/// `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`
fn shown(line: &[u8]) -> Shown<'_> {
    let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(1);
    let kind = match words.next() {
        Some(b"FLOCK") => Some(LockKind::Flock),
        Some(b"POSIX") => Some(LockKind::Posix),
        Some(b"OFDLCK") => Some(LockKind::Described),
        _ => None,
    };
    let exclusive = words.nth(1) == Some(b"WRITE");
    let taken_by = match words.next() {
        Some(pid) if pid.first().is_some_and(u8::is_ascii_digit) => leading(pid, 10).0 as i32,
        _ => -1,
    };
    let mut range = words.skip(1);
    let start = leading(range.next().unwrap_or(b"0"), 10).0 as i64;
    let last = match range.next() {
        None | Some(b"EOF") => i64::MAX,
        Some(last) => leading(last, 10).0 as i64,
    };
    Shown { lock: kind.map(|kind| Lock { kind, exclusive, start, last }), taken_by, line }
}

impl Lock {
    /// How `flock` takes it again, which does not wait.
    pub fn how(&self) -> i32 {
        libc::LOCK_NB | if self.exclusive { libc::LOCK_EX } else { libc::LOCK_SH }
    }

    /// The same for `fcntl`.
    pub fn range(&self) -> libc::flock {
        let kind = if self.exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        let length = if self.last == i64::MAX { 0 } else { self.last - self.start + 1 };
        range(kind, self.start, length)
    }
}

/// All of a file, to be unlocked.
pub fn everything() -> libc::flock {
    range(libc::F_UNLCK, 0, 0)
}

/// A length of 0 is up to the end.
fn range(kind: i32, start: i64, length: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: length, l_pid: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lock: &str) -> Vec<(Option<Lock>, i32)> {
        let (info, mut all) = (format!("pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t17\nlock:\t{lock}\n"), Vec::new());
        each_lock(info.as_bytes(), |shown| all.push((shown.lock, shown.taken_by)));
        all
    }

    #[test]
    fn locks_are_read_as_the_kernel_shows_them() {
        let lock = |kind, exclusive, start, last, by| vec![(Some(Lock { kind, exclusive, start, last }), by)];
        let posix = "1: POSIX  ADVISORY  READ  77 00:2f:17 1073741826 1073742335";
        assert_eq!(read(posix), lock(LockKind::Posix, false, 1_073_741_826, 1_073_742_335, 77));
        assert_eq!(read("1: FLOCK  ADVISORY  WRITE 77 fe:01:5 0 EOF"), lock(LockKind::Flock, true, 0, i64::MAX, 77));
        assert_eq!(
            read("1: OFDLCK ADVISORY  WRITE -1 00:2f:17 5 EOF"),
            lock(LockKind::Described, true, 5, i64::MAX, -1)
        );
        assert_eq!(read("1: LEASE  ACTIVE    READ  77 fe:01:5 0 EOF"), [(None, 77)]);
    }

    #[test]
    fn a_range_is_as_long_as_it_was() {
        let range = |start, last| Lock { kind: LockKind::Posix, exclusive: true, start, last }.range();
        assert_eq!((range(5, 9).l_start, range(5, 9).l_len, range(5, i64::MAX).l_len), (5, 5, 0));
        assert_eq!(i32::from(range(5, 9).l_type), libc::F_WRLCK);
    }
}
