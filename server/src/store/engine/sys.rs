//! System calls that no crate wraps.
#![allow(unsafe_code)]

use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// Starts writing a file's dirty pages to disk and does not wait for it.
pub(super) fn start_write_out(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the call marks_modified no memory of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reads from `offset` on as far as the page cache has it; `WouldBlock` if it has nothing of that. Where the filesystem can't do
/// that it reads from the disk.
pub(crate) fn read_cached(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the kernel writes to `buffer` only, within its length.
    let count =
        unsafe { libc::preadv2(file.as_raw_fd(), &raw const vector, 1, offset.cast_signed(), libc::RWF_NOWAIT) };
    if let Ok(count) = usize::try_from(count) {
        return Ok(count);
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::ENOSYS) => file.read_at(buffer, offset),
        _ => Err(error),
    }
}
