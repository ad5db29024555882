//! System calls that no crate wraps: extended attributes of what a descriptor stands for.
#![allow(unsafe_code)]

use nix::libc;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// Where `/proc` has what a descriptor stands for, links themselves included.
fn path(fd: &OwnedFd) -> CString {
    CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap_or_default()
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Reads what a call says of its length first, until it has not become longer in between.
fn sized(call: impl Fn(*mut libc::c_void, usize) -> isize) -> io::Result<Vec<u8>> {
    loop {
        let len = check(call(std::ptr::null_mut(), 0))?;
        if len == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0_u8; len];
        match check(call(bytes.as_mut_ptr().cast(), len)) {
            Ok(len) => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            Err(error) if error.raw_os_error() == Some(libc::ERANGE) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The names of its extended attributes, each followed by a NUL.
pub(super) fn list_xattrs(fd: &OwnedFd) -> io::Result<Vec<u8>> {
    let path = path(fd);
    // SAFETY: the path is terminated; the kernel writes at most `len` bytes to `to`, which are there.
    sized(|to, len| unsafe { libc::listxattr(path.as_ptr(), to.cast(), len) })
}

/// One of its extended attributes.
pub(super) fn get_xattr(fd: &OwnedFd, name: &CStr) -> io::Result<Vec<u8>> {
    let path = path(fd);
    // SAFETY: path and name are terminated; the kernel writes at most `len` bytes to `to`, which are there.
    sized(|to, len| unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), to, len) })
}

/// Sets one of its extended attributes.
pub(super) fn set_xattr(fd: &OwnedFd, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = path(fd);
    // SAFETY: path and name are terminated, and the value is as long as is said.
    let result = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(result as isize).map(drop)
}

/// Removes one of its extended attributes.
pub(super) fn remove_xattr(fd: &OwnedFd, name: &CStr) -> io::Result<()> {
    let path = path(fd);
    // SAFETY: path and name are terminated.
    check(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) } as isize).map(drop)
}

/// What `FS_IOC_GETFSUUID` answers.
#[repr(C)]
#[derive(Default)]
pub(super) struct FilesystemUuid {
    len: u8,
    bytes: [u8; 16],
}

nix::ioctl_read!(get_filesystem_uuid, 0x15, 0, FilesystemUuid);

/// What tells the filesystem of a file or directory from others, in short, if it says that of itself.
pub(super) fn filesystem_uuid(found: &OwnedFd) -> io::Result<Option<u64>> {
    let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
    let open = nix::fcntl::open(path(found).as_c_str(), flags, nix::sys::stat::Mode::empty())?;
    let mut uuid = FilesystemUuid::default();
    // SAFETY: the kernel writes one such structure to where it is told to, which is there.
    unsafe { get_filesystem_uuid(open.as_raw_fd(), &raw mut uuid) }?;
    let half = |at: usize| uuid.bytes[at..at + 8].iter().fold(0, |half, byte| half << 8 | u64::from(*byte));
    Ok((uuid.len == 16).then(|| half(0) ^ half(8)))
}

/// Writes everything to disk that the filesystem of this has.
pub(super) fn sync_filesystem(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed; the call touches no memory of ours.
    check(unsafe { libc::syncfs(fd.as_raw_fd()) } as isize).map(drop)
}

/// Whether somebody has a file open for writing, or mapped so. `found` is open for reading. One of which that can't be asked is not.
pub(super) fn is_being_written(found: &OwnedFd) -> bool {
    // SAFETY: the descriptor is open for as long as it is borrowed; the calls touch no memory of ours.
    let leased = unsafe { libc::fcntl(found.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    let is_written = leased != 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN);
    if leased == 0 {
        // SAFETY: the same.
        unsafe { libc::fcntl(found.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }
    is_written
}
