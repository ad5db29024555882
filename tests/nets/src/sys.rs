//! System calls that no crate in use wraps, each as thin as can be.
#![allow(unsafe_code)]

use nix::errno::Errno;
use nix::libc::{self, c_int, c_long, c_void};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

fn check(result: c_long) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

fn text(text: &str) -> Result<CString, Errno> {
    CString::new(text).map_err(|_| Errno::EINVAL)
}

/// `copy_file_range(2)`; moves both offsets.
pub(crate) fn copy_range(
    (from, offset): (BorrowedFd<'_>, &mut i64),
    (to, to_offset): (BorrowedFd<'_>, &mut i64),
    length: usize,
) -> Result<usize, Errno> {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both offsets are ours for the time of the call.
    check(unsafe { libc::copy_file_range(from, offset, to, to_offset, length, 0) } as c_long)
}

/// `sendfile(2)`; moves the offset.
pub(crate) fn sendfile(
    to: BorrowedFd<'_>,
    from: BorrowedFd<'_>,
    offset: &mut i64,
    length: usize,
) -> Result<usize, Errno> {
    // SAFETY: the offset is ours for the time of the call.
    check(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), offset, length) } as c_long)
}

/// `splice(2)` out of a file; moves the offset.
pub(crate) fn splice_out(
    from: BorrowedFd<'_>,
    offset: &mut i64,
    pipe: BorrowedFd<'_>,
    length: usize,
) -> Result<usize, Errno> {
    let (from, pipe) = (from.as_raw_fd(), pipe.as_raw_fd());
    // SAFETY: the offset is ours for the time of the call; a pipe has none.
    check(unsafe { libc::splice(from, offset, pipe, ptr::null_mut(), length, 0) } as c_long)
}

/// `splice(2)` into a file; moves the offset.
pub(crate) fn splice_in(
    pipe: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: &mut i64,
    length: usize,
) -> Result<usize, Errno> {
    let (pipe, to) = (pipe.as_raw_fd(), to.as_raw_fd());
    // SAFETY: the offset is ours for the time of the call; a pipe has none.
    check(unsafe { libc::splice(pipe, ptr::null_mut(), to, offset, length, 0) } as c_long)
}

/// `getdents64(2)`.
pub(crate) fn getdents(dir: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the buffer is as long as we say.
    check(unsafe { libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len()) })
}

/// `memfd_create(2)`.
pub(crate) fn memfd() -> Result<OwnedFd, Errno> {
    // SAFETY: the name is terminated.
    let fd = check(c_long::from(unsafe { libc::memfd_create(c"bytes".as_ptr(), libc::MFD_CLOEXEC) }))?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as c_int) })
}

/// `statx(2)` of a path, without following a link at its end.
pub(crate) fn statx(path: &str) -> Result<libc::statx, Errno> {
    let path = text(path)?;
    // SAFETY: zeros are a value of this structure, which the call fills in.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let (flags, mask) = (libc::AT_SYMLINK_NOFOLLOW, libc::STATX_BASIC_STATS);
    // SAFETY: the path is terminated, and the structure ours.
    check(c_long::from(unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), flags, mask, &raw mut found) }))?;
    Ok(found)
}

/// `flock(2)`.
pub(crate) fn flock(fd: BorrowedFd<'_>, operation: c_int) -> Result<usize, Errno> {
    // SAFETY: the call touches no memory of ours.
    check(c_long::from(unsafe { libc::flock(fd.as_raw_fd(), operation) }))
}

/// Nanoseconds of the clock that never jumps, `CLOCK_MONOTONIC`.
pub(crate) fn now() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    assert_eq!(result, 0, "there is such a clock");
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// An extended attribute's owner.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    /// A path, whose links are followed except for the last one.
    Path(&'a str),
    /// An open file.
    Open(BorrowedFd<'a>),
}

/// `lsetxattr(2)`, `fsetxattr(2)`.
pub(crate) fn set_xattr(owner: Owner<'_>, name: &str, value: &[u8], flags: c_int) -> Result<usize, Errno> {
    let name = text(name)?;
    let (value, length) = (value.as_ptr().cast::<c_void>(), value.len());
    let result = match owner {
        Owner::Path(path) => {
            let path = text(path)?;
            // SAFETY: the strings are terminated, and the value is as long as we say.
            unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value, length, flags) }
        }
        // SAFETY: as above.
        Owner::Open(fd) => unsafe { libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value, length, flags) },
    };
    check(c_long::from(result))
}

/// `lgetxattr(2)`, `fgetxattr(2)`.
pub(crate) fn get_xattr(owner: Owner<'_>, name: &str) -> Result<Vec<u8>, Errno> {
    let name = text(name)?;
    let mut value = vec![0u8; 1 << 16];
    let (at, length) = (value.as_mut_ptr().cast::<c_void>(), value.len());
    let found = match owner {
        Owner::Path(path) => {
            let path = text(path)?;
            // SAFETY: the strings are terminated, and the buffer is as long as we say.
            unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), at, length) }
        }
        // SAFETY: as above.
        Owner::Open(fd) => unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), at, length) },
    };
    value.truncate(check(found as c_long)?);
    Ok(value)
}

/// `llistxattr(2)`: the names, each terminated by a zero.
pub(crate) fn list_xattr(path: &str) -> Result<Vec<u8>, Errno> {
    let path = text(path)?;
    let mut names = vec![0u8; 1 << 16];
    // SAFETY: the path is terminated, and the buffer is as long as we say.
    let found = unsafe { libc::llistxattr(path.as_ptr(), names.as_mut_ptr().cast(), names.len()) };
    names.truncate(check(found as c_long)?);
    Ok(names)
}

/// `lremovexattr(2)`.
pub(crate) fn remove_xattr(path: &str, name: &str) -> Result<usize, Errno> {
    let (path, name) = (text(path)?, text(name)?);
    // SAFETY: the strings are terminated.
    check(c_long::from(unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }))
}

/// A mapping of a file. Its memory is touched by the kernel only, which answers `EFAULT` where a program would get `SIGBUS`.
pub(crate) struct Mapping {
    at: *mut c_void,
    length: usize,
}

impl Mapping {
    /// `mmap(2)`.
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        offset: i64,
        length: usize,
        prot: c_int,
        flags: c_int,
    ) -> Result<Self, Errno> {
        // SAFETY: a new mapping takes nobody's memory.
        let at = unsafe { libc::mmap(ptr::null_mut(), length, prot, flags, fd.as_raw_fd(), offset) };
        if at == libc::MAP_FAILED { Err(Errno::last()) } else { Ok(Mapping { at, length }) }
    }

    /// How long it is.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    fn range(&self, offset: usize, length: usize) -> (*mut c_void, usize) {
        let offset = offset.min(self.length);
        (self.at.wrapping_byte_add(offset), length.min(self.length - offset))
    }

    /// Copies a part of it into a file.
    pub(crate) fn write_to(&self, to: BorrowedFd<'_>, offset: usize, length: usize) -> Result<usize, Errno> {
        let (at, length) = self.range(offset, length);
        // SAFETY: the range is in the mapping; the kernel looks whether it can be read.
        check(unsafe { libc::write(to.as_raw_fd(), at, length) } as c_long)
    }

    /// Fills a part of it from a file.
    pub(crate) fn read_from(&self, from: BorrowedFd<'_>, offset: usize, length: usize) -> Result<usize, Errno> {
        let (at, length) = self.range(offset, length);
        // SAFETY: the range is in the mapping, to which nothing in Rust refers.
        check(unsafe { libc::pread(from.as_raw_fd(), at, length, 0) } as c_long)
    }

    /// `msync(2)`, which waits.
    pub(crate) fn sync(&self) -> Result<usize, Errno> {
        // SAFETY: the range is the mapping.
        check(c_long::from(unsafe { libc::msync(self.at, self.length, libc::MS_SYNC) }))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nothing refers to the mapping.
        unsafe { libc::munmap(self.at, self.length) };
    }
}

/// Does something in a child that is forked for it, and takes what it says.
pub(crate) fn in_a_child(work: impl FnOnce() -> String) -> Result<String, Errno> {
    let (from, to) = nix::unistd::pipe()?;
    // SAFETY: the program has one thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => {
            drop(from);
            let said = work();
            let written = nix::unistd::write(&to, said.as_bytes());
            // SAFETY: the child ends here, and runs nothing of its parent's.
            unsafe { libc::_exit(c_int::from(written != Ok(said.len()))) }
        }
        nix::unistd::ForkResult::Parent { child } => {
            drop(to);
            let mut said = String::new();
            let read = std::io::Read::read_to_string(&mut std::fs::File::from(from), &mut said);
            nix::sys::wait::waitpid(child, None)?;
            read.map(|_| said).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
        }
    }
}
