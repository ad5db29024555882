//! Where stores, keys and mounts lie: mistakes in their paths are told before anything is made.

use super::host_fault;
use crate::daemon;
use crate::mount;
use mojavefs::error::{Fault, FaultKind};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

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
