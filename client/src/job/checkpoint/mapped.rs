//! Files of the job's that are mapped: what was written there so far belongs to what comes before a checkpoint.

use super::tracee::{Point, Tracee};
use crate::sys;
use nix::libc;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Has the process, which is stopped at `point`, write out all that it has mapped of `mount`, and waits for that: to write out
/// the whole filesystem (`syncfs`) does not wait for FUSE since Linux 6.18.
pub(super) fn write_out(tracee: &Tracee, point: &Point, mount: &File) -> io::Result<()> {
    let (major, minor) = sys::cached_stat(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?.device;
    let maps = fs::read_to_string(format!("/proc/{}/maps", tracee.pid()))?;
    let device = format!("{major:02x}:{minor:02x}");
    for (start, end) in maps.lines().filter_map(|line| shared_of(line, &device)) {
        let result = tracee.call(point, libc::SYS_msync, &[start, end - start, libc::MS_SYNC as u64])?;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
    }
    Ok(())
}

/// Where a line of `maps` says that a file of this device is mapped for others, too.
fn shared_of(line: &str, device: &str) -> Option<(u64, u64)> {
    let mut words = line.split_whitespace();
    let (range, rights) = (words.next()?, words.next()?);
    let (start, end) = range.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (rights.ends_with('s') && words.nth(1)? == device).then_some((number(start)?, number(end)?))
}

#[cfg(test)]
mod tests {
    use super::shared_of;

    #[test]
    fn only_shared_mappings_of_the_device_are_written_out() {
        let line = "7f0c1000-7f0c3000 rw-s 00001000 00:3a 1234                       /mnt/a b";
        assert_eq!(shared_of(line, "00:3a"), Some((0x7f0c_1000, 0x7f0c_3000)));
        assert_eq!(shared_of(&line.replace("rw-s", "r--s"), "00:3a"), Some((0x7f0c_1000, 0x7f0c_3000)));
        assert_eq!(shared_of(&line.replace("rw-s", "rw-p"), "00:3a"), None);
        assert_eq!(shared_of(line, "00:3b"), None);
    }
}
