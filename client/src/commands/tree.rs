//! Copying trees with all that belongs to a file: mode, owner, times, extended attributes, hard links, holes.

use super::host_fault;
use super::progress::Progress;
use mojavefs::error::{Fault, FaultKind};
use nix::fcntl::AtFlags;
use nix::libc;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat};
use std::collections::HashMap;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

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
        Copy {
            links: HashMap::new(),
            progress: Progress::new(done, "files"),
            files: 0,
            owners: nix::unistd::geteuid().is_root(),
        }
    }

    /// Copies what is in the directory `from` into the directory `to`.
    pub(super) fn contents(&mut self, from: &Path, to: &Path) -> Result<(), Fault> {
        for entry in fs::read_dir(from).map_err(host_fault(from.display()))? {
            let entry = entry.map_err(host_fault(from.display()))?;
            self.one(&entry.path(), &to.join(entry.file_name()))?;
        }
        Ok(())
    }

    pub(super) fn end(self) -> u64 {
        self.progress.end();
        self.files
    }

    fn one(&mut self, from: &Path, to: &Path) -> Result<(), Fault> {
        let meta = fs::symlink_metadata(from).map_err(host_fault(from.display()))?;
        self.files += 1;
        self.progress.add(1);
        if meta.nlink() > 1 && !meta.is_dir() {
            if let Some(first) = self.links.get(&(meta.dev(), meta.ino())) {
                return fs::hard_link(first, to).map_err(host_fault(to.display()));
            }
            self.links.insert((meta.dev(), meta.ino()), to.to_owned());
        }
        let kind = meta.file_type();
        match () {
            () if kind.is_dir() => {
                match fs::create_dir(to) {
                    Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
                        return Err(host_fault(to.display())(e));
                    }
                    _ => {}
                }
                self.contents(from, to)?;
            }
            () if kind.is_symlink() => {
                let target = fs::read_link(from).map_err(host_fault(from.display()))?;
                symlink(target, to).map_err(host_fault(to.display()))?;
            }
            () if kind.is_file() => copy_data(from, to, meta.len())?,
            () => {
                let what = match () {
                    () if kind.is_fifo() => SFlag::S_IFIFO,
                    () if kind.is_socket() => SFlag::S_IFSOCK,
                    () if kind.is_char_device() => SFlag::S_IFCHR,
                    () => SFlag::S_IFBLK,
                };
                mknod(to, what, Mode::from_bits_truncate(0o600), meta.rdev())
                    .map_err(|e| host_fault(to.display())(e.into()))?;
            }
        }
        self.attributes(from, to, &meta)
    }

    fn attributes(&self, from: &Path, to: &Path, meta: &Metadata) -> Result<(), Fault> {
        let failed = |e: nix::errno::Errno| host_fault(to.display())(e.into());
        if self.owners {
            let (uid, gid) = (Uid::from_raw(meta.uid()), Gid::from_raw(meta.gid()));
            fchownat(nix::fcntl::AT_FDCWD, to, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
        }
        copy_xattrs(from, to)?;
        if !meta.is_symlink() {
            fs::set_permissions(to, Permissions::from_mode(meta.mode() & 0o7777)).map_err(host_fault(to.display()))?;
        }
        let times = [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec())];
        let [atime, mtime] = times.map(|(seconds, nanos)| TimeSpec::new(seconds, nanos));
        utimensat(nix::fcntl::AT_FDCWD, to, &atime, &mtime, UtimensatFlags::NoFollowSymlink).map_err(failed)
    }
}

/// Copies a file's data and leaves its holes.
fn copy_data(from: &Path, to: &Path, length: u64) -> Result<(), Fault> {
    let mut source = File::open(from).map_err(host_fault(from.display()))?;
    let mut target = File::create_new(to).map_err(host_fault(to.display()))?;
    target.set_len(length).map_err(host_fault(to.display()))?;
    let mut at = 0;
    while let Some((start, end)) = next_data(&source, at, length).map_err(host_fault(from.display()))? {
        source.seek(SeekFrom::Start(start)).map_err(host_fault(from.display()))?;
        target.seek(SeekFrom::Start(start)).map_err(host_fault(to.display()))?;
        let piece = std::io::Read::take(&source, end - start);
        let copied = std::io::copy(&mut { piece }, &mut target).map_err(host_fault(to.display()))?;
        if copied < end - start {
            return Err(Fault::new(FaultKind::Io, format!("{} became shorter while it was copied", from.display())));
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
fn copy_xattrs(from: &Path, to: &Path) -> Result<(), Fault> {
    for name in crate::sys::list_xattrs(from).map_err(host_fault(from.display()))? {
        let value = crate::sys::read_xattr(from, &name).map_err(host_fault(from.display()))?;
        match crate::sys::write_xattr(to, &name, &value) {
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && !nix::unistd::geteuid().is_root() => {}
            result => result.map_err(host_fault(format!("{} {}", to.display(), name.to_string_lossy())))?,
        }
    }
    Ok(())
}
