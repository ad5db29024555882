//! Files of the job's that are mapped: what was written there so far belongs to what comes before a checkpoint.

use super::tracee::{Point, Tracee};
use crate::sys;
use nix::libc;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Has the process, which is stopped at `point`, write out all that it has mapped of `mount`, and waits for that: to write out
/// the whole filesystem (`syncfs`) does not wait for FUSE since Linux 6.18.
pub(super) fn write_out(tracee: &Tracee, point: &Point, mount: &File) -> io::Result<()> {
    let device = sys::cached_stat(&Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()))?.device;
    let maps = fs::read_to_string(format!("/proc/{}/maps", tracee.pid()))?;
    for Range { start, end } in maps.lines().filter(|line| is_shared(line)).filter_map(|line| of(line, device)) {
        let result = tracee.call(point, libc::SYS_msync, &[start, end - start, libc::MS_SYNC as u64])?;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result as i32));
        }
    }
    Ok(())
}

/// Where a line of `maps` says that a file of this device is mapped.
pub(super) fn of(line: &str, (major, minor): (u32, u32)) -> Option<Range<u64>> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    (words.nth(2)? == format!("{major:02x}:{minor:02x}")).then_some(number(start)?..number(end)?)
}

/// It is mapped for others, too.
fn is_shared(line: &str) -> bool {
    line.split_whitespace().nth(1).is_some_and(|rights| rights.ends_with('s'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_mappings_of_the_device_are_written_out() {
        let line = "7f0c1000-7f0c3000 rw-s 00001000 00:3a 1234                       /mnt/a b";
        assert_eq!(of(line, (0, 0x3a)), Some(0x7f0c_1000..0x7f0c_3000));
        assert_eq!(of(line, (0, 0x3b)), None);
        assert!(is_shared(line) && is_shared(&line.replace("rw-s", "r--s")));
        assert!(!is_shared(&line.replace("rw-s", "rw-p")));
    }
}
