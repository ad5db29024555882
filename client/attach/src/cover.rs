//! A view over every place where its filesystem is mounted in this process's namespace.
//!
//! Everything is looked up before anything is covered: what a descriptor stands for is found again whatever lies over it by then.

use crate::find::Filesystem;
use crate::mount::{self, MountInfo};
use crate::places::{Place, Table, Within, in_proc, root_of};
use crate::sys;
use mojavefs::protocol::control::Ask;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// What a view was put over.
#[derive(Debug, Default)]
pub struct Cover {
    /// The view's device: major and minor number.
    pub device: (u32, u32),
    /// In the order in which it has to be taken away.
    points: Vec<PathBuf>,
}

impl Cover {
    /// Whether there is nothing to take away.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// Takes the view away from all of them.
    pub fn take_away(self) -> io::Result<()> {
        self.points.iter().try_for_each(|point| mount::unmount(point, true))
    }
}

/// What is done on the way.
struct Covering<'a> {
    filesystem: &'a Filesystem,
    places: &'a [Place<'a>],
    view: &'a OwnedFd,
    device: (u32, u32),
    tell: &'a dyn Fn(&Ask) -> Result<(), Fault>,
    /// What of the view is to be put over each place.
    trees: Vec<Option<OwnedFd>>,
    points: Vec<PathBuf>,
}

/// Puts a view's mount over every place where the filesystem is to be seen. Where that takes names of the view, `tell` tells the
/// daemon that they are looked up for nobody who acts on them.
///
/// # Errors
/// A place can't be covered, and what it is.
pub fn cover(
    filesystem: &Filesystem,
    view: &OwnedFd,
    tell: &dyn Fn(&Ask) -> Result<(), Fault>,
) -> Result<Cover, Fault> {
    let table = Table::of(filesystem)?;
    let places = table.places(filesystem)?;
    let device = sys::cached_stat(&in_proc(view)).map_err(failed("look at the job's view"))?.device;
    let points = Vec::new();
    let trees = places.iter().map(|_| None).collect();
    let mut covering = Covering { filesystem, places: &places, view, device, tell, trees, points };
    let first = covering.first()?;
    // Parts can be taken of what is mounted in this namespace only.
    sys::move_mount_onto(view.as_fd(), places[first].at.as_fd()).map_err(covering.not_covered(places[first].mount))?;
    let is_whole = root_of(places[first].mount) == Path::new("/");
    let is_alone = places.len() == 1 && filesystem.is_mountpoint(places[first].mount);
    if is_alone {
        covering.restrict(first, view)?;
        return Ok(Cover { device, points: vec![places[first].mount.point.clone()] });
    }
    tell(&Ask::Glancing { on: true })?;
    let done = covering.cover_all(first, is_whole);
    tell(&Ask::Glancing { on: false })?;
    done.map(|()| Cover { device, points: covering.points })
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> Fault {
    move |e| Fault::new(FaultKind::Io, format!("{what}: {e}"))
}

impl Covering<'_> {
    /// The place over which all of the view is put first: one where all of the filesystem is mounted, if there is one.
    fn first(&self) -> Result<usize, Fault> {
        let outermost = || self.places.iter().enumerate().filter(|(_, place)| place.within.is_none());
        let is_whole = |place: &Place<'_>| root_of(place.mount) == Path::new("/");
        let is_meant = |place: &Place<'_>| is_whole(place) && place.mount.point == self.filesystem.mountpoint;
        let is_directory =
            |place: &Place<'_>| sys::cached_stat(&in_proc(&place.at)).is_ok_and(|stat| stat.kind == libc::S_IFDIR);
        let choices: [&dyn Fn(&Place<'_>) -> bool; 3] = [&is_meant, &is_whole, &is_directory];
        let found = choices.iter().find_map(|is_it| outermost().find(|(_, place)| is_it(place)));
        found.map(|(at, _)| at).ok_or_else(|| {
            let text = format!(
                "no directory of the filesystem on {} can be reached from here; mount one, or run the job elsewhere",
                self.filesystem.mountpoint.display()
            );
            Fault::new(FaultKind::Unsupported, text)
        })
    }

    fn cover_all(&mut self, first: usize, is_whole: bool) -> Result<(), Fault> {
        for at in 0..self.places.len() {
            if at != first || !is_whole {
                self.trees[at] = Some(self.tree(&self.places[at])?);
            }
        }
        if is_whole {
            self.furnish(first, self.view)?;
        } else {
            let place = &self.places[first];
            mount::unmount(&place.mount.point, true).map_err(self.not_covered(place.mount))?;
        }
        for at in 0..self.places.len() {
            if self.places[at].within.is_none() && (at != first || !is_whole) {
                self.put(at, &self.places[at].at)?;
            }
        }
        Ok(())
    }

    /// What of the view is to be seen at a place: the file that is to be seen there now.
    fn tree(&self, place: &Place<'_>) -> Result<OwnedFd, Fault> {
        let root = root_of(place.mount);
        let below = root.strip_prefix("/").unwrap_or(root);
        if root != place.mount.root {
            self.name_again(place, below);
        }
        let found = match find(self.view, below) {
            // Others have renamed it and not decided that yet: then it counts as looked at.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                (self.tell)(&Ask::Glancing { on: false })?;
                let found = find(self.view, below);
                (self.tell)(&Ask::Glancing { on: true })?;
                found
            }
            found => found,
        };
        let found = match found {
            Err(error) if is_absent(&error) => return Err(gone(place.mount)),
            found => found.map_err(self.not_covered(place.mount))?,
        };
        let stat = sys::cached_stat(&in_proc(&found)).map_err(self.not_covered(place.mount))?;
        // Over the host a file may have another number with us.
        let ino = if self.filesystem.is_host() { stat.ino } else { place.ino };
        match (stat.device, stat.ino) == (self.device, ino) {
            true => sys::clone_tree(found.as_fd(), false).map_err(self.not_covered(place.mount)),
            false => Err(gone(place.mount)),
        }
    }

    /// The kernel has lost the name of what is mounted in a place: until it is looked up again, nothing can be put over it.
    fn name_again(&self, place: &Place<'_>, below: &Path) {
        let is_whole =
            |other: &&Place<'_>| root_of(other.mount) == Path::new("/") && other.mount.minor == place.mount.minor;
        if let Some(whole) = self.places.iter().find(is_whole) {
            // What can't be found there is not found in the view either, or is not to be covered after all.
            drop(find(&whole.at, below));
        }
    }

    /// Puts the view over a place, or where that is to be in the view.
    fn put(&mut self, at: usize, onto: &OwnedFd) -> Result<(), Fault> {
        let place = &self.places[at];
        let Some(tree) = self.trees[at].take() else { return Ok(()) };
        match sys::move_mount_onto(tree.as_fd(), onto.as_fd()) {
            Err(error) if is_absent(&error) => return Err(gone(place.mount)),
            done => done.map_err(self.not_covered(place.mount))?,
        }
        self.furnish(at, &tree)
    }

    /// Makes what covers a place what that was: with its restrictions, and with what is mounted in it.
    fn furnish(&mut self, at: usize, tree: &OwnedFd) -> Result<(), Fault> {
        let place = &self.places[at];
        self.restrict(at, tree)?;
        if !matches!(place.within, Some(Within::Directly(_))) {
            self.points.push(place.mount.point.clone());
        }
        let is_main = self.filesystem.is_mountpoint(place.mount);
        for inner in 0..self.places.len() {
            let inside = &self.places[inner];
            match inside.within {
                Some(Within::Directly(outer)) if outer == at => {
                    if let Some(onto) = self.in_tree(place, tree, inside.mount)? {
                        self.put(inner, &onto)?;
                    }
                }
                // Below the mountpoint it is hidden, with what it is mounted on.
                Some(Within::Further(outer)) if outer == at && !is_main => self.put(inner, &self.places[inner].at)?,
                _ => {}
            }
        }
        if is_main { Ok(()) } else { self.show_others(place, tree) }
    }

    /// What else is mounted in a place is to be seen in what covers it.
    fn show_others(&self, place: &Place<'_>, tree: &OwnedFd) -> Result<(), Fault> {
        for (other, root) in &place.others {
            let Some(onto) = self.in_tree(place, tree, other)? else { continue };
            let shown =
                sys::clone_tree(root.as_fd(), true).and_then(|copy| sys::move_mount_onto(copy.as_fd(), onto.as_fd()));
            shown.map_err(|e| {
                let text = format!("show what is mounted on {} in the job: {e}; unmount it", other.point.display());
                Fault::new(FaultKind::Io, text)
            })?;
        }
        Ok(())
    }

    /// Where something that is mounted in a place belongs in what covers that; nothing if that has nothing there.
    fn in_tree(&self, place: &Place<'_>, tree: &OwnedFd, inner: &MountInfo) -> Result<Option<OwnedFd>, Fault> {
        let Ok(below) = inner.point.strip_prefix(&place.mount.point) else { return Ok(None) };
        match find(tree, below) {
            Err(error) if is_absent(&error) => Ok(None),
            found => found.map(Some).map_err(self.not_covered(inner)),
        }
    }

    fn restrict(&self, at: usize, tree: &OwnedFd) -> Result<(), Fault> {
        match self.places[at].mount.restrictions {
            0 => Ok(()),
            attributes => {
                sys::restrict_mount(tree.as_fd(), attributes).map_err(self.not_covered(self.places[at].mount))
            }
        }
    }

    fn not_covered(&self, mount: &MountInfo) -> impl FnOnce(io::Error) -> Fault + use<> {
        let (point, is_main) = (mount.point.display().to_string(), mount.point == self.filesystem.mountpoint);
        let hint = if is_main {
            String::new()
        } else {
            format!("; `umount {point}`, or the job could write there what is not undone")
        };
        move |e| Fault::new(FaultKind::Io, format!("put the job's view over {point}: {e}{hint}"))
    }
}

/// A place that shows what is not there in the view, or what the kernel knows no path of.
fn gone(mount: &MountInfo) -> Fault {
    let (point, root) = (mount.point.display(), root_of(mount).display());
    let text = format!(
        "{point} shows what was {root} of the filesystem and is not there any more, so what is written there could not be undone: \
         `umount {point}`, or bind it anew"
    );
    Fault::new(FaultKind::NotFound, text)
}

/// What a path leads to below a directory of a view, not yet opened.
fn find(from: &OwnedFd, below: &Path) -> io::Result<OwnedFd> {
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(resolve);
    Ok(openat2(from, below, how)?)
}

fn is_absent(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV | Errno::ESTALE))
}
