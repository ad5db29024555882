//! After everything is removed nothing is left: not in the store, not of processes, mounts, descriptors.

use crate::net::Failure;
use mojavefs_harness::{Mount, until};
use nix::unistd::Pid;
use std::fs;

/// How much more memory a daemon may have after a run, in KiB: caches fill.
const MEMORY_KIB_MAX: u64 = 64 << 10;

/// What a daemon has that must not grow: mounts of jobs, descriptors, children, memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    mounts: usize,
    descriptors: usize,
    children: usize,
    memory_kib: u64,
}

impl Standing {
    /// That of the daemon behind a mount.
    pub fn of(mount: &Mount) -> Self {
        let daemon = mount.daemon();
        let file = |name: &str| fs::read_to_string(format!("/proc/{daemon}/{name}")).expect("the daemon lives");
        let here = mount.beside("").display().to_string();
        let mounts = file("mountinfo").lines().filter(|line| line.contains(&here)).count();
        let memory = file("status").lines().find_map(|line| Some(line.strip_prefix("RssAnon:")?.trim().to_owned()));
        let memory = memory.and_then(|kib| kib.strip_suffix(" kB")?.parse().ok());
        Standing {
            mounts,
            descriptors: descriptors(mount, daemon),
            children: file(&format!("task/{daemon}/children")).split_whitespace().count(),
            memory_kib: memory.expect("RssAnon in KiB"),
        }
    }

    fn has_grown_since(&self, before: &Standing) -> bool {
        self.mounts > before.mounts
            || self.descriptors > before.descriptors
            || self.children > before.children
            || self.memory_kib > before.memory_kib + MEMORY_KIB_MAX
    }
}

/// Those that are not the store's own, which come and go.
fn descriptors(mount: &Mount, daemon: Pid) -> usize {
    let open = fs::read_dir(format!("/proc/{daemon}/fd")).expect("the daemon lives");
    let targets = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    targets.filter(|target| !target.starts_with(mount.store())).count()
}

/// Removes everything on a mount whose store is its own, unmounts it, and looks for what is left.
pub fn left_nothing(mount: &Mount, before: &Standing) -> Result<(), Failure> {
    for entry in fs::read_dir(mount.path()).expect("list the mount") {
        let path = entry.expect("an entry").path();
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| Failure::new("removing", format!("{}: {e}", path.display())))?;
    }
    for name in root_xattrs(mount) {
        crate::sys::remove_xattr(&mount.path().to_string_lossy(), &name)
            .map_err(|e| Failure::new("removing", format!("the root's {name}: {e}")))?;
    }
    nothing_runs(mount, before)?;
    mount
        .left_in_store()
        .map_err(|left| Failure::new("left in the store", format!("everything was removed, and {left}")))
}

fn root_xattrs(mount: &Mount) -> Vec<String> {
    let names = crate::sys::list_xattr(&mount.path().to_string_lossy()).unwrap_or_default();
    let names = names.split(|b| *b == 0).filter(|name| !name.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}

fn nothing_runs(mount: &Mount, before: &Standing) -> Result<(), Failure> {
    let undecided = mount.status();
    if !undecided.is_empty() {
        return Err(Failure::new("undecided", format!("still undecided: {undecided:?}")));
    }
    // What ended a moment ago is being closed.
    let grown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        until("the daemon has what it had before", || !Standing::of(mount).has_grown_since(before));
    }));
    grown.map_err(|_| Failure::new("grown", format!("the daemon had {before:?} and has {:?}", Standing::of(mount))))
}
