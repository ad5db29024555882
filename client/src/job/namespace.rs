//! The mount namespace of a job, and the processes in it.

use crate::limits::{KILL_TIME_MAX, POLL_INTERVAL};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// Processes in the namespace.
fn processes_in(namespace: &MountNamespace) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let number = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|meta| meta.ino());
    pids.filter(|pid| number(pid).is_ok_and(|there| there == namespace.number)).collect()
}

/// Kills every process in the namespace but those `spared`; they may take their time to end.
pub(crate) fn kill_in(namespace: &MountNamespace, spared: &dyn Fn(u32) -> bool) -> Vec<u32> {
    let left: Vec<u32> = processes_in(namespace).into_iter().filter(|pid| !spared(*pid)).collect();
    for pid in &left {
        let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
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
