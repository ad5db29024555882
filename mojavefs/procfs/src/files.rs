//! Files of `/proc`, read into buffers of the caller's.

use crate::call::{Errno, Result, fd_arg, plain};

/// Opens a path that ends with a NUL, close-on-exec.
///
/// # Errors
/// The kernel's error number.
pub fn open(path: &[u8], flags: i32) -> Result<i32> {
    if path.last() != Some(&0) {
        return Err(Errno(libc::EINVAL));
    }
    let flags = flags | libc::O_CLOEXEC;
    plain(libc::SYS_openat, &[fd_arg(libc::AT_FDCWD), path.as_ptr() as usize, flags as usize]).map(|fd| fd as i32)
}

/// Closes a descriptor.
pub fn close(fd: i32) {
    // A descriptor is gone after close, whatever that says.
    let _ = plain(libc::SYS_close, &[fd_arg(fd)]);
}

/// Reads from where the descriptor stands.
///
/// # Errors
/// The kernel's error number.
pub fn read(fd: i32, into: &mut [u8]) -> Result<usize> {
    plain(libc::SYS_read, &[fd_arg(fd), into.as_mut_ptr() as usize, into.len()])
}

/// Reads a file from a place on, wherever its offset is.
///
/// # Errors
/// The kernel's error number.
pub fn read_at(fd: i32, from: usize, into: &mut [u8]) -> Result<usize> {
    plain(libc::SYS_pread64, &[fd_arg(fd), into.as_mut_ptr() as usize, into.len(), from])
}

/// Moves a descriptor's offset, and returns it.
///
/// # Errors
/// The kernel's error number.
pub fn seek(fd: i32, offset: i64, whence: i32) -> Result<i64> {
    plain(libc::SYS_lseek, &[fd_arg(fd), offset as usize, whence as usize]).map(|at| at as i64)
}

/// Reads an open file of `/proc` from its start to its end; what does not fit is an error.
///
/// # Errors
/// The kernel's error number; `ENOMEM` if it does not fit.
pub fn read_whole(fd: i32, into: &mut [u8]) -> Result<&[u8]> {
    let mut filled = 0;
    loop {
        match read_at(fd, filled, &mut into[filled..]) {
            Ok(0) if filled == into.len() => return Err(Errno(libc::ENOMEM)),
            Ok(0) => return Ok(&into[..filled]),
            Ok(more) => filled += more,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Reads a file of `/proc` to its end; what does not fit is an error.
///
/// # Errors
/// The kernel's error number; `ENOMEM` if it does not fit.
pub fn read_all<'a>(path: &[u8], into: &'a mut [u8]) -> Result<&'a [u8]> {
    let fd = open(path, libc::O_RDONLY)?;
    let result = read_whole(fd, into);
    close(fd);
    result
}

/// Reads a file of `/proc` that the kernel writes in one piece.
///
/// # Errors
/// The kernel's error number.
pub fn read_once<'a>(path: &[u8], into: &'a mut [u8]) -> Result<&'a [u8]> {
    let fd = open(path, libc::O_RDONLY)?;
    let got = read(fd, into);
    close(fd);
    got.map(|bytes| &into[..bytes])
}
