//! The working directory and inherited descriptors that lie on the filesystem: opened again in the job's view.
//!
//! The kernel says by which path something was opened, and others may have put something else there since. So nothing is
//! opened but the same file, and no link is followed on the way to it.

use crate::places::{Table, in_proc};
use crate::sys;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::libc;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Whence, fchdir, lseek};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is open on a filesystem.
pub struct Descriptors {
    directory: Option<Spot>,
    open: Vec<Open>,
}

/// Where something lies, and which file it is: that has the same number in every view.
struct Spot {
    /// The place of the filesystem by which it is reached.
    point: PathBuf,
    path: PathBuf,
    /// Over the host it may have another number in views.
    ino: Option<u64>,
}

/// Where the filesystem is mounted, and its device there.
type Place = (PathBuf, (u32, u32));

struct Open {
    fd: RawFd,
    /// The descriptor as it was inherited: others share its offset.
    original: OwnedFd,
    spot: Spot,
    flags: OFlag,
    offset: Option<i64>,
    close_on_exec: bool,
}

/// How often the working directory is asked for, and how long between.
const DIRECTORY_TRIES: u32 = 40;
const DIRECTORY_NAP: Duration = Duration::from_millis(5);

/// The working directory. While others' changes are announced the kernel may have lost its name for an instant, and finds it
/// again when it is looked up.
///
/// # Errors
/// `NotFound` if it was removed.
pub fn working_directory() -> io::Result<PathBuf> {
    for _ in 0..DIRECTORY_TRIES {
        match std::env::current_dir() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(found) =
                    fs::read_link("/proc/self/cwd").ok().and_then(|path| renamed(&path, Path::new(".")))
                {
                    return Ok(found);
                }
                let _ = std::env::var_os("PWD").map(fs::metadata);
                std::thread::sleep(DIRECTORY_NAP);
            }
            found => return found,
        }
    }
    std::env::current_dir()
}

/// How the kernel calls what has no name, or one that it has to look up again.
const NAMELESS: &[u8] = b" (deleted)";

/// The path of a directory whose name the kernel has lost, if it leads there all the same: the root of a bind mount, for one.
fn renamed(path: &Path, file: &Path) -> Option<PathBuf> {
    let path = path.as_os_str().as_bytes().strip_suffix(NAMELESS)?;
    let path = PathBuf::from(OsStr::from_bytes(path));
    let (there, here) = (sys::cached_stat(&path).ok()?, sys::cached_stat(file).ok()?);
    let is_same = (there.mount, there.ino, there.kind) == (here.mount, here.ino, libc::S_IFDIR);
    is_same.then_some(path)
}

/// What this process has open on the filesystem, in whatever place of it.
pub fn on(table: &Table) -> Descriptors {
    let places: Vec<Place> = table.own().map(|mount| (mount.point.clone(), (mount.major, mount.minor))).collect();
    let entries = fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let fds: Vec<RawFd> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let open = fds.into_iter().filter_map(|fd| look(fd, (&places, !table.is_host()))).collect();
    let directory =
        working_directory().ok().and_then(|path| Spot::new(path, Path::new("."), (&places, !table.is_host())));
    Descriptors { directory, open }
}

impl Spot {
    /// Of the file or directory `file`, if it is one of the filesystem's. Pipes and devices are the same in every view.
    fn new(path: PathBuf, file: &Path, (places, by_number): (&[Place], bool)) -> Option<Spot> {
        let stat = sys::cached_stat(file).ok()?;
        if !matches!(stat.kind, libc::S_IFREG | libc::S_IFDIR) {
            return None;
        }
        let path = renamed(&path, file).unwrap_or(path);
        let here = places.iter().filter(|(point, device)| stat.device == *device && path.starts_with(point));
        let (point, _) = here.max_by_key(|(point, _)| point.as_os_str().len())?;
        Some(Spot { point: point.clone(), path, ino: by_number.then_some(stat.ino) })
    }

    /// The same in the view of this device, not yet opened.
    fn find(&self, view: (u32, u32)) -> io::Result<OwnedFd> {
        let lost = || io::Error::new(io::ErrorKind::NotFound, "it is not there any more");
        let below = self.path.strip_prefix(&self.point).map_err(|_| lost())?;
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let root = nix::fcntl::open(&self.point, flags, Mode::empty())?;
        let found = match below.as_os_str().is_empty() {
            true => root,
            false => beneath(&root, below, flags).map_err(|errno| match errno {
                Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV => lost(),
                errno => errno.into(),
            })?,
        };
        let stat = sys::cached_stat(&in_proc(&found))?;
        match stat.device == view && self.ino.is_none_or(|ino| ino == stat.ino) {
            true => Ok(found),
            false => Err(lost()),
        }
    }
}

fn beneath(root: &OwnedFd, below: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    openat2(root, below, OpenHow::new().flags(flags).resolve(resolve))
}

fn look(fd: RawFd, places: (&[Place], bool)) -> Option<Open> {
    let link = Path::new("/proc/self/fd").join(fd.to_string());
    let spot = Spot::new(fs::read_link(&link).ok()?, &link, places)?;
    let borrowed = sys::borrow(fd);
    let flags = OFlag::from_bits_retain(fcntl(borrowed, FcntlArg::F_GETFL).ok()?);
    let close_on_exec = fcntl(borrowed, FcntlArg::F_GETFD).ok()? & FdFlag::FD_CLOEXEC.bits() != 0;
    let offset = lseek(borrowed, 0, Whence::SeekCur).ok();
    let original = fcntl(borrowed, FcntlArg::F_DUPFD_CLOEXEC(ORIGINALS_FROM)).ok()?;
    Some(Open { fd, original: sys::own(original), spot, flags, offset, close_on_exec })
}

/// Where inherited descriptors are kept, out of the way of those that shells use.
const ORIGINALS_FROM: RawFd = 100;

impl Descriptors {
    /// Whether the working directory is one of them.
    pub fn have_directory(&self) -> bool {
        self.directory.is_some()
    }

    /// Standard error as it was inherited, if it lies on the filesystem.
    pub fn stderr(&self) -> Option<io::Result<OwnedFd>> {
        let open = self.open.iter().find(|open| open.fd == libc::STDERR_FILENO);
        open.map(|open| open.original.try_clone())
    }

    /// What the job read or wrote through its descriptors has happened: whoever shares the inherited ones goes on there.
    pub fn catch_up(&self) {
        for open in self.open.iter().filter(|open| open.offset.is_some()) {
            if let Ok(at) = lseek(sys::borrow(open.fd), 0, Whence::SeekCur)
                && Some(at) != open.offset
            {
                let _ = lseek(&open.original, at, Whence::SeekSet);
            }
        }
    }

    /// What the job had of them is nobody's any more: they are what was inherited.
    pub fn restore(&self) {
        for open in &self.open {
            // As it was then; nothing is lost if that can't be.
            let _ = sys::dup_onto(open.original.as_fd(), open.fd, open.close_on_exec);
        }
    }

    /// Opens them again, now that their paths lead into `view`.
    pub fn reopen(&self, view: &impl AsRawFd) -> Result<(), Fault> {
        if self.directory.is_none() && self.open.is_empty() {
            return Ok(());
        }
        let view = sys::cached_stat(&in_proc(view))
            .map_err(|e| Fault::new(FaultKind::Io, format!("look at the job's view: {e}")))?
            .device;
        if let Some(directory) = &self.directory {
            directory.find(view).and_then(|found| Ok(fchdir(&found)?)).map_err(|e| {
                Fault::new(FaultKind::Io, format!("go to {} in the job's view: {e}", directory.path.display()))
            })?;
        }
        for (at, open) in self.open.iter().enumerate() {
            let before = self.open[..at].iter().find(|before| sys::is_same_open(&before.original, &open.original));
            open.reopen(view, before).map_err(|e| {
                let path = open.spot.path.display();
                let text = format!("open {path} (descriptor {}) in the job's view: {e}", open.fd);
                Fault::new(FaultKind::Io, text)
            })?;
        }
        Ok(())
    }
}

impl Open {
    /// Opens it again, or as a copy of `before`, which shares its offset. A file without a name is nobody else's, and stays.
    fn reopen(&self, view: (u32, u32), before: Option<&Open>) -> io::Result<()> {
        let become_this = |fd| sys::dup_onto(fd, self.fd, self.close_on_exec);
        if let Some(before) = before {
            return become_this(sys::borrow(before.fd));
        }
        let found = match self.spot.find(view) {
            Err(_) if self.has_no_name() => return become_this(self.original.as_fd()),
            found => found?,
        };
        let flags = self.flags - (OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_TRUNC | OFlag::O_NOFOLLOW);
        let again = nix::fcntl::open(&in_proc(&found), flags | OFlag::O_CLOEXEC, Mode::empty())?;
        if let Some(offset) = self.offset {
            let _ = lseek(again.as_fd(), offset, Whence::SeekSet);
        }
        become_this(again.as_fd())
    }

    /// Whether it was removed.
    fn has_no_name(&self) -> bool {
        fstat(&self.original).map_or_else(|errno| errno == Errno::ESTALE, |stat| stat.st_nlink == 0)
    }
}
