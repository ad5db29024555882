//! The working directory and inherited descriptors that lie on the filesystem: opened again in the job's view.

use crate::sys;
use mojavefs::error::{Fault, FaultKind};
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::sys::stat::Mode;
use nix::unistd::{Whence, lseek};
use std::fs;
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

/// What is open below a path.
pub(crate) struct Descriptors {
    directory: Option<PathBuf>,
    open: Vec<Open>,
}

struct Open {
    fd: RawFd,
    path: PathBuf,
    flags: OFlag,
    offset: Option<i64>,
    close_on_exec: bool,
}

/// What this process has open below `mountpoint`.
pub(crate) fn on(mountpoint: &Path) -> Descriptors {
    let directory = std::env::current_dir().ok().filter(|dir| dir.starts_with(mountpoint));
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
    Some(Open { fd, path, flags, offset, close_on_exec })
}

impl Descriptors {
    /// Opens them again, now that their paths lead into the view.
    pub(crate) fn reopen(&self) -> Result<(), Fault> {
        if let Some(directory) = &self.directory {
            std::env::set_current_dir(directory).map_err(|e| {
                Fault::new(FaultKind::Io, format!("go to {} in the job's view: {e}", directory.display()))
            })?;
        }
        for open in &self.open {
            open.reopen().map_err(|e| {
                let text = format!("open {} (descriptor {}) in the job's view: {e}", open.path.display(), open.fd);
                Fault::new(FaultKind::Io, text)
            })?;
        }
        Ok(())
    }
}

impl Open {
    fn reopen(&self) -> nix::Result<()> {
        let flags = self.flags - (OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC);
        let again = nix::fcntl::open(&self.path, flags, Mode::empty())?;
        if let Some(offset) = self.offset {
            // A fifo or the like has none; then it had none before.
            let _ = lseek(again.as_fd(), offset, Whence::SeekSet);
        }
        let target: RawFd = self.fd;
        sys::dup_onto(again.as_fd(), target, self.close_on_exec)
            .map_err(|e| nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(nix::libc::EIO)))
    }
}
