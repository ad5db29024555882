//! Performs ops, and answers in words that don't depend on where they are performed.

mod bytes;
mod looking;
mod names;

use crate::known;
use crate::op::{Op, Step};
use crate::sys::{self, Mapping};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// How many descriptors, and how many mappings, are kept across steps.
pub const SLOTS: u8 = 6;
/// Between two tries of a call that passes (see [`known`]).
const PAUSE: Duration = Duration::from_millis(1);

/// What came of an op: words for an answer, or the error.
type Said = Result<String, Errno>;

/// The bytes that a `fill` stands for: zeros for 0, else bytes that nothing else has.
pub fn bytes_of(fill: u32, length: usize) -> Vec<u8> {
    if fill == 0 {
        return vec![0; length];
    }
    let mut random = crate::random::Random(u64::from(fill) << 32);
    let mut bytes: Vec<u8> =
        std::iter::repeat_with(|| random.number().to_le_bytes()).take(length.div_ceil(8)).flatten().collect();
    bytes.truncate(length);
    bytes
}

/// Bytes, told short.
pub fn digest(bytes: &[u8]) -> String {
    match bytes.iter().all(|b| *b == 0) {
        true => format!("{}:zeros", bytes.len()),
        false => format!("{}:{:016x}", bytes.len(), xxh3_64(bytes)),
    }
}

/// An error's name.
pub(crate) fn errno(errno: Errno) -> String {
    format!("{errno:?}")
}

fn done<T>(result: Result<T, Errno>) -> Said {
    result.map(|_| "ok".to_owned())
}

pub(crate) fn io(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

struct Mapped {
    mapping: Mapping,
    offset: u64,
    /// What is mapped, to ask for its size.
    file: OwnedFd,
}

/// One program's state: open descriptors, mappings, where it was started.
pub struct Performer {
    root: PathBuf,
    slots: [Option<OwnedFd>; SLOTS as usize],
    maps: [Option<Mapped>; SLOTS as usize],
}

impl Performer {
    /// In the working directory, which absolute paths are then below.
    pub fn new() -> std::io::Result<Self> {
        nix::sys::stat::umask(Mode::from_bits_truncate(0o022));
        Ok(Performer { root: std::env::current_dir()?, slots: Default::default(), maps: Default::default() })
    }

    /// Performs a step; the answer is one line.
    pub fn perform(&mut self, step: &Step) -> String {
        if !step.by_child {
            return self.answer(&step.op);
        }
        sys::in_a_child(|| self.answer(&step.op)).unwrap_or_else(errno)
    }

    fn answer(&mut self, op: &Op) -> String {
        for _ in 0..known::STALE_TRIES {
            match self.try_op(op) {
                Ok(said) => return said,
                Err(e) if known::passes(e) => std::thread::sleep(PAUSE),
                Err(e) => return errno(e),
            }
        }
        errno(Errno::ESTALE)
    }

    fn try_op(&mut self, op: &Op) -> Said {
        let tried = self.bytes(op).or_else(|| self.mapped(op)).or_else(|| self.names(op)).or_else(|| self.looking(op));
        tried.unwrap_or(Err(Errno::ENOSYS))
    }

    /// Absolute paths are below where the program was started.
    fn at(&self, path: &str) -> PathBuf {
        match path.strip_prefix('/') {
            Some(rest) => self.root.join(rest),
            None => Path::new(path).to_owned(),
        }
    }

    /// Where it was started.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    fn text(&self, path: &str) -> String {
        self.at(path).to_string_lossy().into_owned()
    }

    fn slot(&self, slot: u8) -> Result<BorrowedFd<'_>, Errno> {
        let fd = self.slots.get(usize::from(slot)).and_then(Option::as_ref);
        fd.map(AsFd::as_fd).ok_or(Errno::EBADF)
    }

    fn keep(&mut self, slot: u8, fd: OwnedFd) -> Said {
        *self.slots.get_mut(usize::from(slot)).ok_or(Errno::EBADF)? = Some(fd);
        done(Ok(()))
    }

    /// Opens for the time of one op; never waits at a fifo.
    fn open(&self, path: &str, flags: OFlag) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        nix::fcntl::open(&self.at(path), flags, Mode::from_bits_truncate(0o666))
    }
}

fn offset(number: u64) -> Result<i64, Errno> {
    i64::try_from(number).map_err(|_| Errno::EINVAL)
}
