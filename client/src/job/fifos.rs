//! Processes of a job that wait in opening a fifo which was there before it: whoever has that open outside of the job is never met,
//! as the kernel asks no filesystem who it is.

use crate::limits::{FIFO_LOOK_INTERVAL, FIFO_WAIT};
use nix::libc;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

/// The most bytes of a path.
const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

/// What was seen of the job's processes.
pub(crate) struct Fifos {
    /// The job's filesystem.
    device: u64,
    began: SystemTime,
    looked: Instant,
    /// Which thread opens which fifo, and since when.
    waiting: HashMap<(u32, u64), Instant>,
    told: HashSet<u64>,
}

impl Fifos {
    /// Of a job that begins now, in a view that `mount` is of.
    pub(crate) fn new(mount: &File) -> Self {
        Fifos {
            device: mount.metadata().map_or(0, |metadata| metadata.dev()),
            began: SystemTime::now(),
            looked: Instant::now(),
            waiting: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// The fifos, as they were named, for which a process below this one has waited for a while; each once.
    pub(crate) fn look(&mut self, main: u32) -> Vec<PathBuf> {
        if self.looked.elapsed() < FIFO_LOOK_INTERVAL {
            return Vec::new();
        }
        self.looked = Instant::now();
        let mut found = Vec::new();
        let mut waiting = HashMap::new();
        for thread in threads_below(main) {
            let Some((path, ino)) = self.opens(thread) else { continue };
            let since = self.waiting.get(&(thread, ino)).copied().unwrap_or(self.looked);
            waiting.insert((thread, ino), since);
            if since.elapsed() >= FIFO_WAIT && self.told.insert(ino) {
                found.push(path);
            }
        }
        self.waiting = waiting;
        found
    }

    /// The fifo that a thread is opening, if it is one of those.
    fn opens(&self, thread: u32) -> Option<(PathBuf, u64)> {
        let (directory, address) = opening(&fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?)?;
        let named = path_at(thread, address)?;
        let around = match directory {
            _ if named.is_absolute() => format!("/proc/{thread}/root/"),
            libc::AT_FDCWD => format!("/proc/{thread}/cwd/"),
            fd => format!("/proc/{thread}/fd/{fd}/"),
        };
        let place = Path::new(&around).join(named.strip_prefix("/").unwrap_or(&named));
        let metadata = fs::metadata(place).ok()?;
        // Not every transport tells when a file was made.
        let made = metadata.created().or_else(|_| metadata.modified());
        let was_there = made.is_ok_and(|made| made < self.began);
        (metadata.file_type().is_fifo() && metadata.dev() == self.device && was_there).then(|| (named, metadata.ino()))
    }
}

/// The directory and the address of the path of a call that opens something, as `/proc/PID/syscall` shows it.
fn opening(line: &str) -> Option<(libc::c_int, u64)> {
    let mut words = line.split_whitespace();
    let call: libc::c_long = words.next()?.parse().ok()?;
    let mut number = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    match call {
        libc::SYS_openat | libc::SYS_openat2 => {
            // The kernel looks at the lower half.
            let directory = number()? as u32;
            Some((directory.cast_signed(), number()?))
        }
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open | libc::SYS_creat => Some((libc::AT_FDCWD, number()?)),
        _ => None,
    }
}

fn path_at(thread: u32, address: u64) -> Option<PathBuf> {
    let mut bytes = vec![0; PATH_BYTES_MAX];
    let read = File::open(format!("/proc/{thread}/mem")).ok()?.read_at(&mut bytes, address).ok()?;
    let length = bytes[..read].iter().position(|byte| *byte == 0)?;
    bytes.truncate(length);
    (length > 0).then(|| PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// The threads of a process and of all that come from it.
fn threads_below(main: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut processes = vec![main];
    while let Some(process) = processes.pop() {
        let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        for thread in tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok()) {
            all.push(thread);
            let children = fs::read_to_string(format!("/proc/{process}/task/{thread}/children")).unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_open_are_told_from_others() {
        let openat = format!("{} 0xffffff9c 0x7f0010 0x1 0x0 0x0 0x0 0x7ffc 0x7f11", libc::SYS_openat);
        assert_eq!(opening(&openat), Some((libc::AT_FDCWD, 0x7f_0010)));
        let below = format!("{} 0x5 0x7f0010 0x1 0x0 0x0 0x0 0x7ffc 0x7f11", libc::SYS_openat);
        assert_eq!(opening(&below), Some((5, 0x7f_0010)));
        for other in ["running\n", "-1 0x7ffc 0x7f11\n", "", &format!("{} 0x3 0x7f 0x1", libc::SYS_read)] {
            assert_eq!(opening(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_comes_before_those_that_come_from_it() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a child");
        let below = threads_below(std::process::id());
        assert!(below.contains(&std::process::id()) && below.contains(&child.id()));
        assert_eq!(threads_below(child.id()), [child.id()]);
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }
}
