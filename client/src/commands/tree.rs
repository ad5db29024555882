//! Copying trees with all that belongs to a file: mode, owner, times, extended attributes, hard links, holes. Until a copy is
//! complete, only its owner may look at it.

use super::progress::Progress;
use super::{host_fault, shown};
use crate::job::find::Filesystem;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// What a directory has until its contents are complete.
const PRIVATE_DIRECTORY: u32 = 0o700;
/// What a file has until its content is complete.
const PRIVATE_FILE: u32 = 0o600;

/// Refuses to copy a directory into itself, or over what it lies in. `to` may be missing.
pub(super) fn refuse_overlap(filesystem: &Filesystem, from: &Path, to: &Path) -> Result<(), Fault> {
    let from = filesystem.by_mountpoint(fs::canonicalize(from).map_err(fault_at(from))?);
    let mut there = to;
    let mut missing = Vec::new();
    let to = loop {
        match (fs::canonicalize(there), there.parent(), there.file_name()) {
            (Err(e), Some(parent), Some(name)) if e.kind() == ErrorKind::NotFound => {
                missing.push(name);
                there = parent;
            }
            (found, ..) => break found.map_err(fault_at(there))?,
        }
    };
    let to: PathBuf = std::iter::once(to.as_os_str()).chain(missing.into_iter().rev()).collect();
    // By whatever place of the filesystem they were named.
    let to = filesystem.by_mountpoint(to);
    let (a, b) = (shown(from.as_os_str().as_bytes()), shown(to.as_os_str().as_bytes()));
    let refused = match () {
        () if to.starts_with(&from) => {
            format!("cannot copy {a} into itself: {b} lies in it; name a directory elsewhere")
        }
        () if from.starts_with(&to) => {
            format!("cannot copy {a} over {b}, in which it lies; name a directory elsewhere")
        }
        () => return Ok(()),
    };
    Err(Fault::new(FaultKind::Invalid, refused))
}

/// A fault of a system call on a path that somebody else may have named.
fn fault_at(path: &Path) -> impl FnOnce(std::io::Error) -> Fault {
    host_fault(shown(path.as_os_str().as_bytes()))
}

/// What is copied. It is held open, so that nobody can put something else in its place, a link for instance.
pub(super) struct Source {
    held: File,
    /// How it is called, for people.
    path: PathBuf,
}

impl Source {
    const HELD: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

    /// The directory that a path leads to.
    pub(super) fn directory(path: &Path) -> std::io::Result<Source> {
        let held = nix::fcntl::open(path, Self::HELD | OFlag::O_DIRECTORY, Mode::empty())?;
        Ok(Source { held: held.into(), path: path.to_owned() })
    }

    /// The directory that a path leads to from `root`, by links that don't leave that (`CrossesDevices`).
    pub(super) fn directory_below(root: &Path, path: &Path) -> std::io::Result<Source> {
        let root = Source::directory(root)?;
        let how = OpenHow::new().flags(Self::HELD | OFlag::O_DIRECTORY).resolve(ResolveFlag::RESOLVE_BENEATH);
        let path = path.strip_prefix("/").unwrap_or(path);
        let held = openat2(&root.held, if path.as_os_str().is_empty() { Path::new(".") } else { path }, how)?;
        Ok(Source { held: held.into(), path: root.path.join(path) })
    }

    /// What has this name in a directory; of a link, the link.
    fn entry(&self, name: &OsStr) -> Result<Source, Fault> {
        let path = self.path.join(name);
        let held = openat(&self.held, name, Self::HELD | OFlag::O_NOFOLLOW, Mode::empty());
        let held = held.map_err(|errno| fault_at(&path)(errno.into()))?;
        Ok(Source { held: held.into(), path })
    }

    /// A path that leads to just this.
    fn way(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.held.as_raw_fd().to_string())
    }

    fn fault(&self) -> impl FnOnce(std::io::Error) -> Fault {
        fault_at(&self.path)
    }
}

/// A copy under way.
pub(super) struct Copy {
    /// Where files with several names were copied to, by device and inode.
    links: HashMap<(u64, u64), PathBuf>,
    progress: Progress,
    /// How many files were copied.
    pub(super) files: u64,
    /// Ownership is kept: only root can.
    owners: bool,
}

impl Copy {
    pub(super) fn new(done: &str) -> Self {
        // Each directory that a file lies in takes two.
        crate::daemon::raise_descriptors();
        Copy {
            links: HashMap::new(),
            progress: Progress::new(done, "files"),
            files: 0,
            owners: nix::unistd::geteuid().is_root(),
        }
    }

    /// Copies the directory `from` to `to`, whose missing parents are made. A directory that is there already gets the
    /// contents and keeps what it has itself.
    pub(super) fn tree(&mut self, from: &Source, to: &Path) -> Result<(), Fault> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(fault_at(parent))?;
        }
        match private_directory(to) {
            Ok(()) => {
                self.contents(from, to)?;
                let meta = from.held.metadata().map_err(from.fault())?;
                self.attributes(from, to, &meta)
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => self.contents(from, to),
            Err(e) => Err(fault_at(to)(e)),
        }
    }

    /// Copies what is in the directory `from` into the directory `to`.
    fn contents(&mut self, from: &Source, to: &Path) -> Result<(), Fault> {
        for entry in fs::read_dir(from.way()).map_err(from.fault())? {
            let name = entry.map_err(from.fault())?.file_name();
            self.one(&from.entry(&name)?, &to.join(&name))?;
        }
        Ok(())
    }

    pub(super) fn end(self) -> u64 {
        self.progress.end();
        self.files
    }

    fn one(&mut self, from: &Source, to: &Path) -> Result<(), Fault> {
        let meta = from.held.metadata().map_err(from.fault())?;
        self.files += 1;
        self.progress.add(1);
        if meta.nlink() > 1 && !meta.is_dir() {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                return fs::hard_link(first, to).map_err(fault_at(to));
            }
            self.links.insert((meta.dev(), meta.ino()), to.to_owned());
        }
        let kind = meta.file_type();
        match () {
            () if kind.is_dir() => {
                private_directory_or_existing(to).map_err(fault_at(to))?;
                self.contents(from, to)?;
            }
            () if kind.is_symlink() => {
                let target = readlinkat(&from.held, "").map_err(|errno| from.fault()(errno.into()))?;
                symlink(target, to).map_err(fault_at(to))?;
            }
            () if kind.is_file() => copy_data(from, to, meta.len())?,
            () => {
                let what = match () {
                    () if kind.is_fifo() => SFlag::S_IFIFO,
                    () if kind.is_socket() => SFlag::S_IFSOCK,
                    () if kind.is_char_device() => SFlag::S_IFCHR,
                    () => SFlag::S_IFBLK,
                };
                mknod(to, what, Mode::from_bits_truncate(PRIVATE_FILE), meta.rdev())
                    .map_err(|e| fault_at(to)(e.into()))?;
            }
        }
        self.attributes(from, to, &meta)
    }

    fn attributes(&self, from: &Source, to: &Path, meta: &Metadata) -> Result<(), Fault> {
        let failed = |e: nix::errno::Errno| fault_at(to)(e.into());
        if self.owners {
            let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
            fchownat(nix::fcntl::AT_FDCWD, to, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        copy_xattrs(from, to)?;
        if !meta.is_symlink() {
            let mode = self.mode(to, meta).map_err(fault_at(to))?;
            fs::set_permissions(to, Permissions::from_mode(mode)).map_err(fault_at(to))?;
        }
        let times = [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec())];
        let [atime, mtime] = times.map(|(seconds, nanos)| TimeSpec::new(seconds, nanos));
        utimensat(nix::fcntl::AT_FDCWD, to, &atime, &mtime, UtimensatFlags::NoFollowSymlink).map_err(failed)
    }

    /// The mode of a copy. Set-id bits would lend the rights of somebody else than before if the copy has another owner.
    fn mode(&self, to: &Path, meta: &Metadata) -> std::io::Result<u32> {
        let mode = meta.mode() & 0o7777;
        if self.owners {
            return Ok(mode);
        }
        let made = fs::symlink_metadata(to)?;
        let lent = if made.uid() == meta.uid() { 0 } else { libc::S_ISUID };
        let group_lent = if made.gid() == meta.gid() { 0 } else { libc::S_ISGID };
        Ok(mode & !(lent | group_lent))
    }
}

fn private_directory(path: &Path) -> std::io::Result<()> {
    DirBuilder::new().mode(PRIVATE_DIRECTORY).create(path)
}

/// A directory that is there already is made private too: it may show what goes into it to more users than it will in the end.
fn private_directory_or_existing(path: &Path) -> std::io::Result<()> {
    match private_directory(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists && fs::symlink_metadata(path)?.is_dir() => {
            fs::set_permissions(path, Permissions::from_mode(PRIVATE_DIRECTORY))
        }
        made => made,
    }
}

/// Copies a file's data and leaves its holes.
fn copy_data(from: &Source, to: &Path, length: u64) -> Result<(), Fault> {
    let mut source = File::open(from.way()).map_err(from.fault())?;
    let mut private = OpenOptions::new();
    private.write(true).create_new(true).mode(PRIVATE_FILE);
    let mut target = private.open(to).map_err(fault_at(to))?;
    target.set_len(length).map_err(fault_at(to))?;
    let mut at = 0;
    while let Some((start, end)) = next_data(&source, at, length).map_err(from.fault())? {
        source.seek(SeekFrom::Start(start)).map_err(from.fault())?;
        target.seek(SeekFrom::Start(start)).map_err(fault_at(to))?;
        let piece = std::io::Read::take(&source, end - start);
        let copied = std::io::copy(&mut { piece }, &mut target).map_err(fault_at(to))?;
        if copied < end - start {
            return Err(Fault::new(
                FaultKind::Io,
                format!("{} became shorter while it was copied", shown(from.path.as_os_str().as_bytes())),
            ));
        }
        at = end;
    }
    Ok(())
}

/// The next run of data from `at` on.
fn next_data(file: &File, at: u64, length: u64) -> std::io::Result<Option<(u64, u64)>> {
    use nix::unistd::{Whence, lseek};
    if at >= length {
        return Ok(None);
    }
    let start = match lseek(file, at.cast_signed(), Whence::SeekData) {
        Ok(start) => start.cast_unsigned(),
        Err(nix::errno::Errno::ENXIO) => return Ok(None),
        Err(nix::errno::Errno::EINVAL) => return Ok(Some((at, length))),
        Err(errno) => return Err(errno.into()),
    };
    let end = lseek(file, start.cast_signed(), Whence::SeekHole)?.cast_unsigned();
    Ok(Some((start, end.min(length))))
}

/// Copies extended attributes; those that the target does not take are an error, but for ones that only root may set.
fn copy_xattrs(from: &Source, to: &Path) -> Result<(), Fault> {
    for name in crate::sys::list_xattrs(&from.way()).map_err(from.fault())? {
        let value = crate::sys::read_xattr(&from.way(), &name).map_err(from.fault())?;
        match crate::sys::write_xattr(to, &name, &value) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && !nix::unistd::geteuid().is_root() => {}
            result => result.map_err(host_fault(format!(
                "{} {}",
                shown(to.as_os_str().as_bytes()),
                shown(name.as_bytes())
            )))?,
        }
    }
    Ok(())
}
