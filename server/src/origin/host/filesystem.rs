//! Which filesystem something is on, by a number that is the same after a restart, whatever its device is called then.

use super::sys;
use mojavefs::protocol::file::FileKind;
use nix::sys::statvfs::fstatvfs;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;

/// Numbers are kept in so many bits.
const INDEX_MASK: u64 = 0x0fff;

#[derive(Default)]
struct Known {
    /// The number of each, and what it stands for: none stands for two.
    indices: HashMap<u64, u64>,
    /// The identifiers of filesystems that say no more of themselves than their device, once they were asked.
    of_devices: HashMap<u64, u64>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// A small number for the filesystem that something is on, of which the kernel says that it is on this device; nothing if another one has
/// that number.
pub(super) fn index(found: &OwnedFd, kind: FileKind, device: u64) -> io::Result<Option<u64>> {
    let id = fstatvfs(found)?.filesystem_id();
    let mut known = KNOWN.lock();
    let known = known.get_or_insert_default();
    let id = match id {
        id if id != 0 && id != device => id,
        _ => known.id_of_device(found, kind, device),
    };
    // Two copies of a filesystem may say the same of themselves.
    Ok([id, id ^ device.rotate_left(32)].into_iter().find_map(|id| known.index_of(id, (id, device))))
}

impl Known {
    /// By what it was made with, as XFS has it; else by its device.
    fn id_of_device(&mut self, found: &OwnedFd, kind: FileKind, device: u64) -> u64 {
        if let Some(id) = self.of_devices.get(&device) {
            return *id;
        }
        // Others are not to be opened. Whoever comes to one of those has come through a directory.
        if !matches!(kind, FileKind::Directory | FileKind::Regular) {
            return device;
        }
        let id = sys::filesystem_uuid(found).ok().flatten().unwrap_or(device);
        self.of_devices.insert(device, id);
        id
    }

    fn index_of(&mut self, id: u64, is: (u64, u64)) -> Option<u64> {
        let folded = id ^ (id >> 32);
        let index = (folded ^ (folded >> 12) ^ (folded >> 24)) & INDEX_MASK;
        let stands_for = is.0 ^ is.1.rotate_left(16);
        (*self.indices.entry(index).or_insert(stands_for) == stands_for).then_some(index)
    }
}
