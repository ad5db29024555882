//! Where stores, keys and mounts lie: mistakes in their paths are told before anything is made.

use super::{host_fault, shown};
use crate::daemon;
use crate::mount;
use crate::output::err;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::unistd::{getegid, geteuid};
use std::fs::{self, Metadata};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Of a directory: what lies in it can be removed by its owner only.
const STICKY: u32 = 0o1000;

/// What is at the path of a store.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Found {
    /// Nothing, in a directory that is there.
    Nothing,
    /// An empty directory.
    Empty,
    /// A directory with something in it: a store, or it will be refused.
    Something,
}

impl Found {
    /// A store that is opened there is a new one.
    pub(super) fn becomes_new(self) -> bool {
        self != Found::Something
    }
}

/// Looks at the path of a store. Errors: it is no directory, or its parent is none.
pub(super) fn look(store: &Path) -> Result<Found, Fault> {
    let shown = store.display();
    match fs::metadata(store) {
        Ok(found) if !found.is_dir() => {
            Err(Fault::new(FaultKind::NotDirectory, format!("{shown} is no directory, so it is no store")))
        }
        Ok(_) => {
            let mut entries = fs::read_dir(store).map_err(host_fault(shown))?;
            // The root of a disk of its own has this.
            let others = entries.any(|entry| !entry.is_ok_and(|entry| entry.file_name() == "lost+found"));
            Ok(if others { Found::Something } else { Found::Empty })
        }
        Err(e) if e.kind() == ErrorKind::NotFound => has_parent(store).map(|()| Found::Nothing),
        Err(e) => Err(host_fault(shown)(e)),
    }
}

/// Refuses to mount where it would hide what the machine, this daemon or others need.
pub(super) fn check_hides(point: &Path, store: Option<&Path>) -> Result<(), Fault> {
    let shown = point.display();
    let refuse =
        |why: String| Err(Fault::new(FaultKind::Invalid, format!("{shown} {why}; mount on another directory")));
    if point == Path::new("/") {
        return refuse("is the root of all there is, which the mount would hide".into());
    }
    if let Some(kind) = mount::kernel_filesystem(point).map_err(host_fault("read the mounts"))? {
        return refuse(format!("is the kernel's own ({kind}), and programs need it"));
    }
    let sockets = real(&daemon::runtime_path());
    if sockets.starts_with(point) {
        return refuse(format!(
            "holds the control sockets of daemons ({}), which the mount would hide",
            sockets.display()
        ));
    }
    match store.map(real) {
        Some(store) if store == point => refuse("is the store itself".into()),
        Some(store) if store.starts_with(point) => {
            refuse(format!("holds the store {}, which the mount would hide", store.display()))
        }
        Some(store) if point.starts_with(&store) => {
            refuse(format!("lies in the store {}, a part of which the mount would hide", store.display()))
        }
        _ => Ok(()),
    }
}

/// A path without symbolic links, also of what is still to be made in a directory that is there.
fn real(path: &Path) -> PathBuf {
    let parent = || Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?));
    fs::canonicalize(path).ok().or_else(parent).unwrap_or_else(|| path.to_owned())
}

/// Says so if somebody else could put another thing in the place of `what` at `path`: a directory on the way to it belongs to
/// another user, or is writable by others who may remove from it what is not theirs.
pub(super) fn warn_of_others(what: &str, path: &Path) {
    let path = real(&std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
    let above: Vec<&Path> = path.ancestors().collect();
    // From the top: whoever has that has the rest.
    let found = above.iter().rev().find_map(|at| Some((at, others_in(&fs::metadata(at).ok()?, **at == path)?)));
    if let Some((at, why)) = found {
        let (at, path) = (shown(at.as_os_str().as_bytes()), shown(path.as_os_str().as_bytes()));
        err!("mojavefs: warning: {at} {why}, who can put something else in the place of {what} {path}");
    }
}

/// Which other users can change what is in a directory, or have a file of their own there.
fn others_in(found: &Metadata, is_it: bool) -> Option<String> {
    let (me, mode) = (geteuid().as_raw(), found.mode());
    if found.uid() != 0 && found.uid() != me {
        return Some(format!("belongs to user {}", found.uid()));
    }
    let groups_of_others = found.gid() != 0 && found.gid() != getegid().as_raw();
    match mode {
        // Nothing lies in a file, and what is not theirs they can't remove from a directory with the sticky bit.
        _ if is_it && !found.is_dir() || mode & STICKY != 0 => None,
        _ if mode & 0o002 != 0 => Some("is writable by every user".into()),
        _ if mode & 0o020 != 0 && groups_of_others => {
            Some(format!("is writable by the users of group {}", found.gid()))
        }
        _ => None,
    }
}

/// The directory in which something is to be made must be there: a missing one is a slip of the pen more often than not.
pub(super) fn has_parent(path: &Path) -> Result<(), Fault> {
    let whole = std::path::absolute(path).map_err(host_fault(path.display()))?;
    match whole.parent() {
        Some(parent) if !parent.is_dir() => {
            let (parent, path) = (parent.display(), path.display());
            Err(Fault::new(
                FaultKind::NotFound,
                format!("there is no directory {parent} for {path}; make it with mkdir"),
            ))
        }
        _ => Ok(()),
    }
}
