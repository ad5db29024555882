//! System calls that no crate wraps.
#![allow(unsafe_code)]

use nix::libc;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Starts writing a file's dirty pages to disk and does not wait for it.
pub(super) fn start_write_out(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as `file` is borrowed; the call touches no memory of ours.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
