//! Mount namespaces of a process's own.

use crate::mount::mounts;
use crate::subordinate;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};
use std::fs;
use std::io;
use std::path::Path;

/// Whether this process entered a user namespace in which only its own user is known.
pub fn is_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| {
        map.split_whitespace().nth(2).and_then(|count| count.parse::<u64>().ok()) != Some(u64::from(u32::MAX))
    })
}

/// Enters a mount namespace of its own, whose mounts nobody else sees; as an ordinary user a user namespace as well, in
/// which the user and group are who they were, and so are those that subuid(5) gives to the user. Only before any thread was started.
pub fn enter() -> Result<(), Fault> {
    let failed = |what: &str, e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"));
    let (uid, gid) = (geteuid(), getegid());
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        // It has the rights already.
    } else if subordinate::enter(uid, gid).map_err(|e| failed("enter the user namespace of the job", e))? {
        unshare(CloneFlags::CLONE_NEWNS).map_err(|e| failed("make a namespace for the job", e.into()))?;
    } else {
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
    keep_apart().map_err(|e| failed("keep the job's mounts apart", e))
}

/// What the host mounts and unmounts reaches the job; what happens in here stays here.
fn keep_apart() -> io::Result<()> {
    let slave = |point: &Path, flags| mount(None::<&str>, point, None::<&str>, flags | MsFlags::MS_SLAVE, None::<&str>);
    match slave("/".as_ref(), MsFlags::MS_REC) {
        // A changed root (`chroot`) need not be a mount's. What can't be reached, nothing is mounted on from in here.
        Err(Errno::EINVAL) => mounts()?.iter().try_for_each(|mount| match slave(&mount.point, MsFlags::empty()) {
            Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTCONN) => Ok(()),
            other => Ok(other?),
        }),
        other => Ok(other?),
    }
}
