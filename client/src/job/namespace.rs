//! The mount namespace of a job, and the processes in it.

use crate::limits::{KILL_TIME_MAX, POLL_INTERVAL};
use crate::sys;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

/// A mount namespace, kept open: its number can't come to mean another one meanwhile.
#[derive(Debug)]
pub(crate) struct MountNamespace {
    number: u64,
    _open: File,
}

impl PartialEq for MountNamespace {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

/// The mount namespace a process is in.
pub(crate) fn of(pid: u32) -> io::Result<MountNamespace> {
    let open = File::open(format!("/proc/{pid}/ns/mnt"))?;
    Ok(MountNamespace { number: open.metadata()?.ino(), _open: open })
}

/// The number of the mount namespace that a process, or a thread, is in.
pub(crate) fn number_of(pid: u32) -> Option<u64> {
    fs::metadata(format!("/proc/{pid}/ns/mnt")).ok().map(|namespace| namespace.ino())
}

/// The user who started a process, or became it: its real user id.
pub(crate) fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let line = status.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_whitespace().next()?.parse().ok()
}

impl MountNamespace {
    fn holds(&self, pid: u32) -> bool {
        number_of(pid) == Some(self.number)
    }
}

/// Kills every process in the namespace but those `spared`; they may take their time to end.
pub(crate) fn kill_in(namespace: &MountNamespace, spared: &dyn Fn(u32) -> bool) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let meant = |pid: &u32| namespace.holds(*pid) && !spared(*pid);
    let left: Vec<u32> = pids.filter(meant).collect();
    for pid in &left {
        // What is killed is what was looked at: the number may be another's by now.
        if let Ok(process) = sys::pidfd_open(*pid)
            && meant(pid)
        {
            let _ = sys::pidfd_kill(&process);
        }
    }
    left
}

/// Kills every process in the namespace but those `spared`, and waits until they are gone. Returns how many there were.
pub(crate) fn kill_all_in(namespace: &MountNamespace, spared: &dyn Fn(u32) -> bool) -> usize {
    let deadline = Instant::now() + KILL_TIME_MAX;
    let mut killed = std::collections::HashSet::new();
    // Most are gone at once.
    let mut pause = POLL_INTERVAL / 64;
    loop {
        let left = kill_in(namespace, spared);
        if left.is_empty() || Instant::now() > deadline {
            return killed.len();
        }
        killed.extend(left);
        super::supervise::reap();
        std::thread::sleep(pause);
        pause = (pause * 2).min(POLL_INTERVAL);
    }
}
