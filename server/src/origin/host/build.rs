//! Single files on the host: made, written and given their attributes.

use super::super::Wanted;
use super::switch::{At, set_mode};
use super::{look, sys, xattrs};
use crate::limits::COPY_PIECE_BYTES;
use crate::store::Inode;
use mojavefs::id::Ino;
use mojavefs::protocol::file::{FileKind, Name, Time};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Makes a file of any kind at a name that is free, for its user only so far.
pub(super) fn make(at: &At, inode: &Inode, _ino: Ino, wanted: &dyn Wanted) -> io::Result<()> {
    let private = Mode::from_bits_truncate(0o600);
    match inode.kind {
        FileKind::Directory => mkdirat(&at.dir, at.name(), Mode::from_bits_truncate(0o700))?,
        FileKind::Symlink => {
            let target = inode.target.as_deref().unwrap_or_default();
            symlinkat(OsStr::from_bytes(target), &at.dir, at.name())?;
        }
        FileKind::Regular => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let file = File::from(openat(&at.dir, at.name(), flags, private)?);
            write(&file, inode, wanted)?;
        }
        FileKind::Fifo => mknodat(&at.dir, at.name(), SFlag::S_IFIFO, private, 0)?,
        FileKind::Socket => mknodat(&at.dir, at.name(), SFlag::S_IFSOCK, private, 0)?,
        FileKind::CharDevice => mknodat(&at.dir, at.name(), SFlag::S_IFCHR, private, inode.rdev.into())?,
        FileKind::BlockDevice => mknodat(&at.dir, at.name(), SFlag::S_IFBLK, private, inode.rdev.into())?,
    }
    Ok(())
}

/// Writes all that is to be in a file that is empty. What is zeros stays a hole.
fn write(file: &File, inode: &Inode, wanted: &dyn Wanted) -> io::Result<()> {
    let mut at = 0;
    while at < inode.size {
        let bytes = wanted.read(inode, at, COPY_PIECE_BYTES as usize)?;
        if bytes.is_empty() {
            break;
        }
        let mut done = 0;
        for page in bytes.chunks(4096) {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, at + done)?;
            }
            done += page.len() as u64;
        }
        at += done;
    }
    file.set_len(inode.size)
}

/// Writes all that is to be in a file over what is in it.
pub(super) fn overwrite(found: &OwnedFd, inode: &Inode, wanted: &dyn Wanted) -> io::Result<()> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let file = File::options().write(true).open(path)?;
    let mut at = 0;
    while at < inode.size {
        let bytes = wanted.read(inode, at, COPY_PIECE_BYTES as usize)?;
        if bytes.is_empty() {
            break;
        }
        file.write_all_at(&bytes, at)?;
        at += bytes.len() as u64;
    }
    file.set_len(inode.size)
}

/// Owner, extended attributes, permissions and times, in this order: each may take away a later one.
pub(super) fn set_attributes(found: &OwnedFd, inode: &Inode, wanted: &[(Name, Vec<u8>)]) -> io::Result<()> {
    let Some(is) = look(found)? else { return Ok(()) };
    if (is.inode.uid, is.inode.gid) != (inode.uid, inode.gid) {
        let (uid, gid) = (Some(Uid::from_raw(inode.uid)), Some(Gid::from_raw(inode.gid)));
        fchownat(found, "", uid, gid, AtFlags::AT_EMPTY_PATH)?;
    }
    let before = xattrs(found)?;
    for (name, _) in before.iter().filter(|(name, _)| !wanted.iter().any(|(wanted, _)| wanted == name)) {
        sys::remove_xattr(found, &CString::new(name.clone())?)?;
    }
    for attribute @ (name, value) in wanted {
        if !before.contains(attribute) {
            sys::set_xattr(found, &CString::new(name.clone())?, value)?;
        }
    }
    if inode.kind != FileKind::Symlink && look(found)?.is_some_and(|is| is.inode.mode != inode.mode) {
        set_mode(found, inode.mode)?;
    }
    set_times(found, inode)
}

/// The times of last access and modification.
pub(super) fn set_times(found: &OwnedFd, inode: &Inode) -> io::Result<()> {
    let Some(is) = look(found)? else { return Ok(()) };
    if (is.inode.atime, is.inode.mtime) == (inode.atime, inode.mtime) {
        return Ok(());
    }
    let spec = |time: Time| TimeSpec::new(time.seconds, time.nanos.into());
    let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let flags = UtimensatFlags::FollowSymlink;
    Ok(utimensat(nix::fcntl::AT_FDCWD, &path, &spec(inode.atime), &spec(inode.mtime), flags)?)
}
