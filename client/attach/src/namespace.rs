//! Mount namespaces of a process's own.

use crate::mount::mounts;
use crate::subordinate;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, getegid, geteuid};
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
///
/// # Errors
/// The kernel or its settings refuse: `NotPermitted`, and what can be done.
pub fn enter() -> Result<(), Fault> {
    if unshare(CloneFlags::CLONE_NEWNS).is_ok() {
        // It has the rights already.
        return keep_apart().map_err(|e| refused("keep the job's mounts apart", &e, None));
    }
    enter_with_users(geteuid(), getegid())?;
    // Of a namespace that was made like this nothing else can be refused.
    keep_apart().map_err(|e| refused("keep the job's mounts apart", &e, Some(why_no_mounts())))
}

fn enter_with_users(uid: Uid, gid: Gid) -> Result<(), Fault> {
    let made = "make a namespace for the job";
    if subordinate::enter(uid, gid).map_err(|e| refused("enter the user namespace of the job", &e, None))? {
        return unshare(CloneFlags::CLONE_NEWNS).map_err(|e| refused(made, &e.into(), Some(why_no_mounts())));
    }
    let unshared = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS);
    unshared.map_err(|e| refused(made, &e.into(), Some(why_no_namespace())))?;
    let write = |path: &str, text: String| {
        fs::write(path, text).map_err(|e| {
            let is_read_only = e.kind() == io::ErrorKind::ReadOnlyFilesystem;
            refused(path, &e, is_read_only.then(|| "/proc must be mounted writable for this user's jobs".to_owned()))
        })
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn refused(what: &str, error: &io::Error, hint: Option<String>) -> Fault {
    let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    Fault::new(FaultKind::NotPermitted, format!("{what}: {error}{hint}"))
}

/// Why no user namespace can be made, as far as the kernel's settings say it, and what can be done.
fn why_no_namespace() -> String {
    let is = |path: &str, value: &str| fs::read_to_string(path).is_ok_and(|text| text.trim() == value);
    if is("/proc/sys/user/max_user_namespaces", "0") {
        return "user namespaces are switched off: `sysctl user.max_user_namespaces=10000` allows them; root, with CAP_SYS_ADMIN, needs none"
            .to_owned();
    }
    if is("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        return "only root may make user namespaces: `sysctl kernel.unprivileged_userns_clone=1` allows them to everybody".to_owned();
    }
    if geteuid().is_root() {
        return "root has no CAP_SYS_ADMIN, as in a container, which has to be started with it (`--cap-add SYS_ADMIN`), or with \
                user namespaces allowed (`--security-opt seccomp=unconfined`)"
            .to_owned();
    }
    "something keeps this user from making user namespaces: that the root directory was changed (chroot), or a container's seccomp \
     profile, which `--security-opt seccomp=unconfined` takes away; as root it works without"
        .to_owned()
}

/// Why nothing can be mounted in a user namespace that could be made.
fn why_no_mounts() -> String {
    "a user namespace could be made, and nothing can be mounted in it, as where AppArmor restricts them (Ubuntu): `sysctl \
     kernel.apparmor_restrict_unprivileged_userns=0` as root allows it, or an AppArmor profile with `userns,` for this program; as root \
     it works without"
        .to_owned()
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
