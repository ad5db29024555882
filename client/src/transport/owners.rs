//! Processes that have locked something through a file whose closing the kernel does not tell ([`is_closed_silently`]): what they have
//! locked is let go of when they end, if nobody has done so before.

use mojavefs::id::Ino;
use mojavefs::protocol::{Caller, LockOwner, Unlocked};
use mojavefs_attach::sys;
use mojavefs_fs::{Patience, View};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

/// The last bit of the number of such an open file.
const SILENT: u64 = 1;

/// The number of an open file.
pub(super) fn handle(number: u64, is_closed_silently: bool) -> u64 {
    number << 1 | if is_closed_silently { SILENT } else { 0 }
}

/// Whether the kernel says nothing when a process closes this open file, while others have it open.
pub(super) fn is_closed_silently(handle: u64) -> bool {
    handle & SILENT != 0
}

/// Those of one kernel.
#[derive(Default)]
pub(super) struct Owners {
    /// What each may have locked, by its number: a kernel calls a later process the same as one that has ended.
    files: Mutex<BTreeMap<(LockOwner, u32), HashSet<Ino>>>,
}

impl Owners {
    /// A process is about to lock a file. One that can't be seen from here lets go when the last one closes what it has opened.
    pub(super) fn watch(self: &Arc<Self>, view: &Arc<View>, pid: u32, owner: LockOwner, ino: Ino) {
        {
            let mut files = self.files.lock();
            if let Some(known) = files.get_mut(&(owner, pid)) {
                known.insert(ino);
                return;
            }
            files.insert((owner, pid), HashSet::from([ino]));
        }
        let watched = sys::pidfd_open(pid).and_then(|process| {
            let (owners, view) = (Arc::downgrade(self), Arc::downgrade(view));
            mojavefs_threads::detached("mojavefs-owner", move || wait(&process, &owners, &view, (owner, pid)))
        });
        if let Err(error) = watched {
            tracing::debug!("process {pid}, which locks inode {ino}, is not watched: {error}");
            self.files.lock().remove(&(owner, pid));
        }
    }
}

/// Waits for the end of a process.
fn wait(process: &OwnedFd, owners: &Weak<Owners>, view: &Weak<View>, (owner, pid): (LockOwner, u32)) {
    let mut ends = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    while poll(&mut ends, PollTimeout::NONE) == Err(Errno::EINTR) {}
    let (Some(owners), Some(view)) = (owners.upgrade(), view.upgrade()) else { return };
    let files = {
        let mut all = owners.files.lock();
        let files = all.remove(&(owner, pid)).unwrap_or_default();
        // Else they may be a later process's.
        let is_last = all.range((owner, 0)..=(owner, u32::MAX)).next().is_none();
        if is_last { files } else { HashSet::new() }
    };
    let call = view.call(Caller::KERNEL, Patience::Own);
    for ino in files {
        if let Err(fault) = call.unlock(ino, Unlocked::Owner(owner)) {
            tracing::debug!("letting go of what a process had locked of inode {ino}: {fault}");
        }
    }
}
