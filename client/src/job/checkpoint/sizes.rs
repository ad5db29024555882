//! How long files are, as the kernel believes: it appends, copies, and serves mapped pages by what it was told when a program last
//! asked, which may be of what was undone since.

use super::kernel::descriptors;
use super::mapped;
use crate::sys;
use nix::libc;
use nix::unistd::Pid;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// Has the kernel ask about each file of `mount` that a process, which is stopped, has open or mapped.
pub(super) fn refresh(pid: Pid, mount: &File) -> io::Result<()> {
    let device = sys::cached_stat(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?.device;
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open = descriptors(pid)?.into_iter().map(|number| process.join(format!("fd/{number}")));
    let maps = fs::read_to_string(process.join("maps"))?;
    let mapped = maps.lines().filter_map(|line| mapped::of(line, device));
    let mapped = mapped.map(|range| process.join(format!("map_files/{:x}-{:x}", range.start, range.end)));
    let mut known = HashSet::new();
    for path in open.chain(mapped) {
        let stat = sys::cached_stat(&path)?;
        if stat.kind == libc::S_IFREG && stat.device == device && known.insert(stat.ino) {
            // If that fails, so will whatever the process does to the file.
            let _ = sys::fresh_stat_through(&path);
        }
    }
    Ok(())
}
