//! The working directory and inherited descriptors that lie on the filesystem: opened again in the job's view.

use crate::sys;
use mojavefs::error::{Fault, FaultKind};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is open below a path.
pub struct Descriptors {
    directory: Option<PathBuf>,
    open: Vec<Open>,
}

struct Open {
    fd: RawFd,
    /// The descriptor as it was inherited: others share its offset.
    original: OwnedFd,
    path: PathBuf,
    flags: OFlag,
    offset: Option<i64>,
    close_on_exec: bool,
}

/// How often the working directory is asked for, and how long between.
const DIRECTORY_TRIES: u32 = 40;
const DIRECTORY_NAP: Duration = Duration::from_millis(5);

/// The working directory. While others' changes are announced the kernel may have lost its name for an instant, and finds it
/// again when it is looked up.
///
/// # Errors
/// `NotFound` if it was removed.
pub fn working_directory() -> io::Result<PathBuf> {
    for _ in 0..DIRECTORY_TRIES {
        match std::env::current_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let _ = std::env::var_os("PWD").map(fs::metadata);
                std::thread::sleep(DIRECTORY_NAP);
            }
            found => return found,
        }
    }
    std::env::current_dir()
}

/// What this process has open below `mountpoint`.
pub fn on(mountpoint: &Path) -> Descriptors {
    let directory = working_directory().ok().filter(|dir| dir.starts_with(mountpoint));
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let fds: Vec<RawFd> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let open = fds.into_iter().filter_map(|fd| look(fd, mountpoint)).collect();
    Descriptors { directory, open }
}

fn look(fd: RawFd, mountpoint: &Path) -> Option<Open> {
    let path = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
    if !path.starts_with(mountpoint) {
        return None;
    }
    let borrowed = sys::borrow(fd);
    let flags = OFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFL).ok()?);
    let close_on_exec = fcntl(borrowed, FcntlArg::F_GETFD).ok()? & FdFlag::FD_CLOEXEC.bits() != 0;
    let offset = lseek(borrowed, 0, Whence::SeekCur).ok();
    let original = fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(ORIGINALS_FROM)).ok()?;
    Some(Open { fd, original: sys::own(original), path, flags, offset, close_on_exec })
}

/// Where inherited descriptors are kept, out of the way of those that shells use.
const ORIGINALS_FROM: RawFd = 100;

impl Descriptors {
    /// Standard error as it was inherited, if it lies on the filesystem.
    pub fn stderr(&self) -> Option<io::Result<OwnedFd>> {
        let open = self.open.iter().find(|open| open.fd == libc::STDERR_FILENO);
        open.map(|open| open.original.try_clone())
    }

    /// What the job read or wrote through its descriptors has happened: whoever shares the inherited ones goes on there.
    pub fn catch_up(&self) {
        for open in self.open.iter().filter(|open| open.offset.is_some()) {
            if let Ok(at) = lseek(sys::borrow(open.fd), 0, Whence::SeekCur)
                && Some(at) != open.offset
            {
                let _ = lseek(&open.original, at, Whence::SeekSet);
            }
        }
    }

    /// Opens them again, now that their paths lead into the view.
    pub fn reopen(&self) -> Result<(), Fault> {
        if let Some(directory) = &self.directory {
            std::env::set_current_dir(directory).map_err(|e| {
                Fault::new(FaultKind::Io, format!("go to {} in the job's view: {e}", directory.display()))
            })?;
        }
        for (at, open) in self.open.iter().enumerate() {
            let before = self.open[..at].iter().find(|before| sys::is_same_open(&before.original, &open.original));
            open.reopen(before).map_err(|e| {
                let text = format!("open {} (descriptor {}) in the job's view: {e}", open.path.display(), open.fd);
                Fault::new(FaultKind::Io, text)
            })?;
        }
        Ok(())
    }
}

impl Open {
    /// Opens it again, or as a copy of `before`, which shares its offset.
    fn reopen(&self, before: Option<&Open>) -> nix::Result<()> {
        let failed = |e: io::Error| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        if let Some(before) = before {
            return sys::dup_onto(sys::borrow(before.fd), self.fd, self.close_on_exec).map_err(failed);
        }
        let flags = self.flags - (OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC);
        let again = nix::fcntl::open(&self.path, flags, Mode::empty())?;
        if let Some(offset) = self.offset {
            // A fifo or the like has none; then it had none before.
            let _ = lseek(again.as_fd(), offset, Whence::SeekSet);
        }
        sys::dup_onto(again.as_fd(), self.fd, self.close_on_exec).map_err(failed)
    }
}
