//! Descriptors.

use super::{Errno, Result, fd_arg, filled, plain, read, zeroed};

/// Waits for what comes on a connection, and leaves it there; whether there is any: 1, or 0 at the end.
pub(crate) fn peek(fd: i32) -> Result<usize> {
    let mut byte = 0u8;
    plain(libc::SYS_recvfrom, &[fd_arg(fd), &raw mut byte as usize, 1, libc::MSG_PEEK as usize, 0, 0])
}

/// Sends all of a message on a connection.
pub(crate) fn send(fd: i32, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let args = [fd_arg(fd), bytes.as_ptr() as usize, bytes.len(), libc::MSG_NOSIGNAL as usize, 0, 0];
        match plain(libc::SYS_sendto, &args) {
            Ok(sent) => bytes = &bytes[sent..],
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives as much as there is room for.
pub(crate) fn receive(fd: i32, into: &mut [u8]) -> Result<()> {
    let mut filled = 0;
    while filled < into.len() {
        match read(fd, &mut into[filled..]) {
            Ok(0) => return Err(Errno(libc::ENOTCONN)),
            Ok(got) => filled += got,
            Err(Errno(libc::EINTR)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Device and inode, as far as the kernel knows by itself: it asks no filesystem. An empty path is the working directory.
pub(crate) fn identity(path: &[u8]) -> Result<(u32, u32, u64)> {
    // Device and inode are told without being asked for; asking could reach the filesystem.
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH;
    let args = [fd_arg(libc::AT_FDCWD), path.as_ptr() as usize, flags as usize, 0];
    let found: libc::statx = filled(libc::SYS_statx, &args, 4, zeroed())?;
    Ok((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
}

/// Which kind of file a descriptor is of (`S_IFREG` and so on; 0: none), as far as the kernel knows by itself.
pub(crate) fn kind(fd: i32) -> Result<u32> {
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH;
    let args = [fd_arg(fd), c"".as_ptr() as usize, flags as usize, libc::STATX_TYPE as usize];
    let found: libc::statx = filled(libc::SYS_statx, &args, 4, zeroed())?;
    Ok(u32::from(found.stx_mode) & libc::S_IFMT)
}

/// The device that a descriptor's file lies on, as far as the kernel knows by itself.
pub(crate) fn device(fd: i32) -> Result<Option<(u32, u32)>> {
    let flags = libc::AT_STATX_DONT_SYNC | libc::AT_EMPTY_PATH;
    let args = [fd_arg(fd), c"".as_ptr() as usize, flags as usize, 0];
    let found: libc::statx = filled(libc::SYS_statx, &args, 4, zeroed())?;
    Ok(Some((found.stx_dev_major, found.stx_dev_minor)))
}

/// Has the kernel ask the filesystem for a file's attributes, if it knows that its own are old, or if it `must`.
pub(crate) fn refresh(fd: i32, must: bool) {
    let flags = if must { libc::AT_STATX_FORCE_SYNC } else { libc::AT_STATX_SYNC_AS_STAT } | libc::AT_EMPTY_PATH;
    let args = [fd_arg(fd), c"".as_ptr() as usize, flags as usize, libc::STATX_SIZE as usize];
    // If that fails, so will whatever is done to the file.
    let _ = filled::<libc::statx>(libc::SYS_statx, &args, 4, zeroed());
}

pub(crate) fn stat(path: &[u8]) -> Result<libc::stat> {
    filled(libc::SYS_newfstatat, &[fd_arg(libc::AT_FDCWD), path.as_ptr() as usize, 0, 0], 2, zeroed())
}

pub(crate) fn fstat(fd: i32) -> Result<libc::stat> {
    filled(libc::SYS_fstat, &[fd_arg(fd)], 1, zeroed())
}

pub(crate) fn fcntl(fd: i32, command: i32, argument: usize) -> Result<i32> {
    plain(libc::SYS_fcntl, &[fd_arg(fd), command as usize, argument]).map(|value| value as i32)
}
