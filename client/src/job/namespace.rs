//! The mount namespace of a job, and the processes in it.

use crate::limits::{KILL_TIME_MAX, POLL_INTERVAL};
use mojavefs::error::{Fault, FaultKind};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getegid, geteuid};
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

/// Whether this process entered a user namespace in which only its own user is known.
pub(crate) fn is_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        map.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok()) != Some(u64::from(u32::MAX))
    })
}

/// Enters a mount namespace of its own, whose mounts nobody else sees; as an ordinary user a user namespace as well, in
/// which the user and group are who they were. Only before any thread was started.
pub(crate) fn enter() -> Result<(), Fault> {
    let failed = |what: &str, e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"));
    let (uid, gid) = (geteuid(), getegid());
    if unshare(CloneFlags::CLONE_NEWNS).is_err() {
        unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).map_err(|e| {
            let hint = "are user namespaces allowed? See kernel.unprivileged_userns_clone and, on Ubuntu, \
                        kernel.apparmor_restrict_unprivileged_userns; as root it works without";
            Fault::new(FaultKind::NotPermitted, format!("make a namespace for the job: {e}; {hint}"))
        })?;
        let write = |path: &str, text: String| fs::write(path, text).map_err(|e| failed(path, e));
        write("/proc/self/setgroups", "deny".to_owned())?;
        write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
        write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    }
    // What the host mounts and unmounts reaches the job; what happens in here stays here.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|e| failed("keep the job's mounts apart", e.into()))
}

/// Processes in the namespace.
fn processes_in(namespace: &MountNamespace) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let number = |pid: &u32| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|meta| meta.ino());
    pids.filter(|pid| number(pid).is_ok_and(|there| there == namespace.number)).collect()
}

/// Kills every process in the namespace but those spared, and waits until they are gone. Returns how many there were.
pub(crate) fn kill_all_in(namespace: &MountNamespace, spared: &[u32]) -> usize {
    let deadline = Instant::now() + KILL_TIME_MAX;
    let mut killed = std::collections::HashSet::new();
    loop {
        let left: Vec<u32> = processes_in(namespace).into_iter().filter(|pid| !spared.contains(pid)).collect();
        if left.is_empty() || Instant::now() > deadline {
            return killed.len();
        }
        for pid in left {
            killed.insert(pid);
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        super::supervise::reap();
        std::thread::sleep(POLL_INTERVAL);
    }
}
