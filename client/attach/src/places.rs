//! Where a filesystem is mounted in this process's namespace: its mountpoint, what of it is bound elsewhere, and other mounts of
//! the same server. What a job writes at any of them is to be undone with it, so its view has to cover all of them.

use crate::find::Filesystem;
use crate::mount::{self, DELETED, FS_TYPE, MountInfo};
use crate::sys;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The mounts of this process's namespace, and which of them show a filesystem's files.
pub struct Table {
    all: Vec<MountInfo>,
    own: Vec<usize>,
    /// These are directories of the host.
    is_host: bool,
}

/// A place where the filesystem is mounted.
pub(crate) struct Place<'a> {
    pub(crate) mount: &'a MountInfo,
    /// Its root.
    pub(crate) at: OwnedFd,
    /// Which file that is: it has the same number in every view.
    pub(crate) ino: u64,
    /// The place in which it lies, by its index, if it lies in one.
    pub(crate) within: Option<Within>,
    /// What else is mounted in it and to be seen there, with its root. At the mountpoint itself that is hidden from jobs.
    pub(crate) others: Vec<(&'a MountInfo, OwnedFd)>,
}

/// How a place lies in another one.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Within {
    /// It is mounted on a directory or file of that.
    Directly(usize),
    /// It is mounted on something else that is mounted there.
    Further(usize),
}

impl Table {
    /// Reads it.
    ///
    /// # Errors
    /// It can't be found out whether another mount shows the same files.
    pub fn of(filesystem: &Filesystem) -> Result<Table, Fault> {
        let mut all = mount::mounts().map_err(|e| Fault::new(FaultKind::Io, format!("read the mounts: {e}")))?;
        if filesystem.is_host() {
            let mounted = all.len();
            for (dir, (major, minor)) in filesystem.host.iter().cloned() {
                let around = mount::around(&all[..mounted], &dir).cloned().ok_or_else(|| {
                    let dir = dir.display();
                    let text = format!(
                        "{dir} lies on no mount that is to be seen here, as in a changed root (chroot): `mount --bind {dir} {dir}` first"
                    );
                    Fault::new(FaultKind::NotFound, text)
                })?;
                let elsewhere = elsewhere(&all[..mounted], &around, &dir);
                // As if it were mounted there by itself.
                all.push(MountInfo { root: dir.clone(), point: dir, major, minor, ..around });
                all.extend(elsewhere);
            }
            let own = (mounted..all.len()).collect();
            return Ok(Table { all, own, is_host: true });
        }
        let mut known = vec![(filesystem.minor, true)];
        let mut own = Vec::new();
        for (at, mount) in all.iter().enumerate().filter(|(_, mount)| mount.kind == FS_TYPE) {
            let is_own = match known.iter().find(|(minor, _)| *minor == mount.minor) {
                Some((_, is_own)) => *is_own,
                None => {
                    // One that is hidden by others says nothing of the rest.
                    let Some(is_own) = is_of_same_server(filesystem, mount)? else { continue };
                    known.push((mount.minor, is_own));
                    is_own
                }
            };
            if is_own {
                own.push(at);
            }
        }
        Ok(Table { all, own, is_host: false })
    }

    /// Whether the filesystem is the host's own.
    pub(crate) fn is_host(&self) -> bool {
        self.is_host
    }

    /// Every mount of the filesystem's files, whether it is to be seen or hidden by others.
    pub fn own(&self) -> impl Iterator<Item = &MountInfo> {
        self.own.iter().map(|at| &self.all[*at])
    }

    /// What a path leads to: a path from the filesystem's root, if it is one in it.
    pub fn path_of(&self, path: &Path) -> Option<PathBuf> {
        let nearest = mount::around(&self.all, path)?;
        let own = self.own().filter(|own| own.id == nearest.id && path.starts_with(&own.point));
        let own = own.max_by_key(|own| own.point.as_os_str().len())?;
        let below = path.strip_prefix(&own.point).ok()?;
        Some(join(root_of(own).strip_prefix("/").ok()?, below))
    }

    /// The places where the filesystem is to be seen, those that others lie in before them.
    pub(crate) fn places(&self, filesystem: &Filesystem) -> Result<Vec<Place<'_>>, Fault> {
        let mut places: Vec<Place<'_>> = Vec::new();
        for mount in self.own() {
            let failed = |e: io::Error| {
                Fault::new(FaultKind::Io, format!("look at the filesystem on {}: {e}", mount.point.display()))
            };
            if let Some((at, ino)) = open(mount).map_err(failed)? {
                let others = if filesystem.is_mountpoint(mount) { Ok(Vec::new()) } else { self.others_in(mount) };
                places.push(Place { mount, at, ino, within: None, others: others.map_err(failed)? });
            }
        }
        // What lies in another has the longer path.
        places.sort_by_key(|place| place.mount.point.as_os_str().len());
        for at in 0..places.len() {
            places[at].within = self.around(places[at].mount, &places);
        }
        Ok(places)
    }

    fn around(&self, mount: &MountInfo, places: &[Place<'_>]) -> Option<Within> {
        let mut lowest = self.lowest(mount);
        let mut direct = true;
        // Each is further up; a list that was read while it changed may not end.
        for _ in 0..self.all.len() {
            let is_around = |place: &Place<'_>| {
                // A directory of the host has the number of the mount around it.
                place.mount.id == lowest.parent && lowest.point.starts_with(&place.mount.point)
            };
            if let Some(at) = places.iter().position(is_around) {
                return Some(if direct { Within::Directly(at) } else { Within::Further(at) });
            }
            lowest = self.lowest(self.by_id(lowest.parent)?);
            direct = false;
        }
        None
    }

    fn by_id(&self, id: u64) -> Option<&MountInfo> {
        self.all.iter().find(|mount| mount.id == id)
    }

    /// The first of those that are mounted over each other at the same place.
    fn lowest<'a>(&'a self, mount: &'a MountInfo) -> &'a MountInfo {
        let mut lowest = mount;
        for _ in 0..self.all.len() {
            match self.by_id(lowest.parent).filter(|parent| parent.point == lowest.point && parent.id != lowest.id) {
                Some(parent) => lowest = parent,
                None => break,
            }
        }
        lowest
    }

    /// What else is mounted in a place, and to be seen there: not the filesystem itself.
    fn others_in(&self, place: &MountInfo) -> io::Result<Vec<(&MountInfo, OwnedFd)>> {
        let is_other = |mount: &&MountInfo| {
            let own = self.own().any(|own| own.id == mount.id);
            let is_below = mount.point != place.point && mount.point.starts_with(&place.point);
            // A directory of the host has the number of the mount around it, in which others lie elsewhere.
            !own && is_below && self.lowest(mount).parent == place.id
        };
        let mut others = Vec::new();
        for mount in self.all.iter().filter(is_other) {
            others.extend(open(mount)?.map(|(at, _)| (mount, at)));
        }
        Ok(others)
    }
}

/// Where else a directory of the host is to be seen, or a part of it: as what it is, and where. `around` is the mount on which it lies.
fn elsewhere(mounts: &[MountInfo], around: &MountInfo, dir: &Path) -> Vec<MountInfo> {
    let Ok(below) = dir.strip_prefix(&around.point) else { return Vec::new() };
    let shown = join(root_of(around), below);
    let is_same = |mount: &&MountInfo| {
        let of = (mount.major, mount.minor) == (around.major, around.minor);
        of && mount.id != around.id && !mount.root.as_os_str().as_bytes().ends_with(DELETED.as_bytes())
    };
    let place = |mount: &MountInfo| match (shown.strip_prefix(&mount.root), mount.root.strip_prefix(&shown)) {
        // One of those above it is mounted there.
        (Ok(rest), _) => Some(MountInfo { root: dir.to_owned(), point: join(&mount.point, rest), ..mount.clone() }),
        (_, Ok(rest)) => Some(MountInfo { root: join(dir, rest), ..mount.clone() }),
        _ => None,
    };
    mounts.iter().filter(is_same).filter_map(place).collect()
}

/// The root of a mount and its inode, if its path leads there: nothing is mounted over it or on the way to it, and this user can get
/// there.
fn open(mount: &MountInfo) -> io::Result<Option<(OwnedFd, u64)>> {
    let opened = nix::fcntl::open(&mount.point, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty());
    let is_hidden = |error: &io::Error| {
        let errno = error.raw_os_error();
        let barred = errno == Some(nix::libc::EACCES) && !geteuid().is_root();
        // Of what lies on the mount of a daemon that is gone, nothing can be written either.
        let gone = [nix::libc::ENOENT, nix::libc::ENOTDIR, nix::libc::ENOTCONN, nix::libc::ESTALE];
        barred || errno.is_some_and(|errno| gone.contains(&errno))
    };
    let found = opened.map_err(io::Error::from).and_then(|at| {
        let stat = sys::cached_stat(&in_proc(&at))?;
        Ok((stat.mount == mount.id).then_some((at, stat.ino)))
    });
    match found {
        Err(error) if is_hidden(&error) => Ok(None),
        found => found,
    }
}

fn is_to_be_seen(mount: &MountInfo) -> bool {
    matches!(open(mount), Ok(Some(_)))
}

/// A path that leads to what a descriptor stands for.
pub fn in_proc(fd: &impl AsRawFd) -> PathBuf {
    Path::new("/proc/self/fd").join(fd.as_raw_fd().to_string())
}

/// Whether a mount that is not the filesystem's shows the same files: another daemon may have mounted its server, or the mount for
/// everybody has come to be seen in a job. It is opened only where nothing else tells, since who has it open keeps it from being
/// unmounted. Nothing if it would have to be, and is hidden by others.
fn is_of_same_server(filesystem: &Filesystem, mount: &MountInfo) -> Result<Option<bool>, Fault> {
    let is_address =
        |source: &Path| ["unix:", "tcp:"].iter().any(|kind| source.as_os_str().as_bytes().starts_with(kind.as_bytes()));
    let (here, there) = (&filesystem.source, &mount.source);
    // A store has one daemon at most.
    if here != there && !(is_address(here) && is_address(there)) {
        return Ok(Some(false));
    }
    match filesystem.is_recorded_as_same(mount) {
        Some(is_same) => Ok(Some(is_same)),
        None if is_to_be_seen(mount) => filesystem.has_server_of(mount).map(Some),
        None => Ok(None),
    }
}

/// Where all of the filesystem of a mount is to be seen, if that is anywhere; else the mount itself.
pub(crate) fn whole<'a>(mounts: &'a [MountInfo], found: &'a MountInfo) -> &'a MountInfo {
    let is_whole = |mount: &MountInfo| mount.root == Path::new("/");
    if is_whole(found) {
        return found;
    }
    let same = mounts.iter().filter(|mount| mount.kind == FS_TYPE && mount.minor == found.minor);
    same.filter(|mount| is_whole(mount)).find(|mount| is_to_be_seen(mount)).unwrap_or(found)
}

/// What of the filesystem is mounted, by the last path that the kernel knows of it.
pub(crate) fn root_of(mount: &MountInfo) -> &Path {
    let root = mount.root.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(root.strip_suffix(DELETED.as_bytes()).unwrap_or(root)))
}

/// A path below a root; the root itself without a slash at its end.
pub(crate) fn join(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) }
}
