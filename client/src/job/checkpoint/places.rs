//! Where the kernel believes directories to be: one that was moved in what is undone is believed to be where it was moved to for
//! as long as something keeps it in use, and can't be moved from where it is before somebody has looked that name up.

use super::kernel::descriptors;
use super::mapped;
use crate::mount::{self, MountInfo};
use crate::sys;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The directories of a mount that a process keeps in use, by their paths below the root of the mount.
pub(super) struct Places(BTreeSet<PathBuf>);

/// Where a mount, or a part of it, is to be seen.
struct Shown(Vec<MountInfo>);

impl Shown {
    fn of((_, minor): (u32, u32)) -> io::Result<Shown> {
        let all = mount::mounts()?;
        Ok(Shown(all.into_iter().filter(|mount| mount.kind == mount::FS_TYPE && mount.minor == minor).collect()))
    }

    /// What a path there leads to, below the root of the mount.
    fn below(&self, path: &Path) -> Option<PathBuf> {
        let around = mount::around(&self.0, path)?;
        let below = path.strip_prefix(&around.point).ok()?;
        Some(around.root.strip_prefix("/").ok()?.join(below))
    }
}

impl Places {
    /// Notes those of a process that is stopped: the ones that it is in or has open, and the ones in which a file lies that it
    /// has open or mapped.
    pub(super) fn note(pid: Pid, mount: &File) -> io::Result<Places> {
        let root = Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string());
        let device = sys::cached_stat(&root)?.device;
        let shown = Shown::of(device)?;
        let process = PathBuf::from(format!("/proc/{pid}"));
        let mut links = vec![process.join("cwd"), process.join("root"), process.join("exe")];
        links.extend(descriptors(pid)?.into_iter().map(|number| process.join(format!("fd/{number}"))));
        // To look at all that is mapped takes longer than the rest of a checkpoint.
        let maps = fs::read_to_string(process.join("maps"))?;
        let mapped = maps.lines().filter_map(|line| mapped::of(line, device));
        links.extend(mapped.map(|range| process.join(format!("map_files/{:x}-{:x}", range.start, range.end))));
        let mut places = BTreeSet::new();
        for link in links {
            let stat = sys::cached_stat(&link)?;
            if stat.device != device {
                continue;
            }
            let path = fs::read_link(&link)?;
            let Some(below) = shown.below(&path) else { continue };
            let place = if stat.kind == libc::S_IFDIR { Some(&*below) } else { below.parent() };
            places.extend(place.filter(|place| !place.as_os_str().is_empty()).map(Path::to_owned));
        }
        Ok(Places(places))
    }

    /// Has the kernel look them up in `mount`, which shows again what it showed when they were noted.
    pub(super) fn look_up(&self, mount: &File) {
        let resolve = ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV;
        let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve);
        for place in &self.0 {
            // One that is not there is nowhere else to be moved from; what others have undecided there is not looked at.
            if let Err(errno) = openat2(mount, place.as_path(), how) {
                tracing::debug!("looking up {} again: {errno}", place.display());
            }
        }
    }
}
