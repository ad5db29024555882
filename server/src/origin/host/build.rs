//! Single files on the host: made, written and given their attributes.

use super::super::Wanted;
use super::switch::At;
use super::{look, sys, xattrs};
use crate::limits::COPY_PIECE_BYTES;
use crate::store::Inode;
use mojavefs::protocol::file::{FileKind, Name, Time};
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Makes a file of any kind at a name that is free, with nothing in it and for its user only.
pub(super) fn make(at: &At, inode: &Inode) -> io::Result<()> {
    let private = Mode::from_bits_truncate(0o600);
    match inode.kind {
        FileKind::Directory => mkdirat(&at.dir, at.name(), Mode::from_bits_truncate(0o700))?,
        FileKind::Symlink => {
            let target = inode.target.as_deref().unwrap_or_default();
            symlinkat(OsStr::from_bytes(target), &at.dir, at.name())?;
        }
        FileKind::Regular => {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            drop(openat(&at.dir, at.name(), flags, private)?);
        }
        FileKind::Fifo => mknodat(&at.dir, at.name(), SFlag::S_IFIFO, private, 0)?,
        FileKind::Socket => mknodat(&at.dir, at.name(), SFlag::S_IFSOCK, private, 0)?,
        FileKind::CharDevice => mknodat(&at.dir, at.name(), SFlag::S_IFCHR, private, inode.rdev.into())?,
        FileKind::BlockDevice => mknodat(&at.dir, at.name(), SFlag::S_IFBLK, private, inode.rdev.into())?,
    }
    Ok(())
}

/// Holes are looked for in pieces of this length.
const PAGE_BYTES: usize = 4096;

/// Writes all that is to be in a regular file that was just made. What is zeros stays a hole.
pub(super) fn write(at: &At, inode: &Inode, wanted: &dyn Wanted) -> io::Result<()> {
    if inode.kind != FileKind::Regular || inode.size == 0 {
        return Ok(());
    }
    let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = File::from(openat(&at.dir, at.name(), flags, Mode::empty())?);
    let mut done = 0;
    while done < inode.size {
        let bytes = wanted.read(inode, done, COPY_PIECE_BYTES as usize)?;
        if bytes.is_empty() {
            break;
        }
        // Runs of pages that have something in them.
        let mut from = 0;
        let is_zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
        for (page, chunk) in bytes.chunks(PAGE_BYTES).enumerate() {
            if is_zero(chunk) {
                file.write_all_at(&bytes[from..page * PAGE_BYTES], done + from as u64)?;
                from = (page * PAGE_BYTES) + chunk.len();
            }
        }
        file.write_all_at(&bytes[from..], done + from as u64)?;
        done += bytes.len() as u64;
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

/// Permission bits of what a descriptor stands for.
fn set_mode(found: &OwnedFd, mode: u32) -> io::Result<()> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let mode = Mode::from_bits_truncate(mode);
    Ok(fchmodat(nix::fcntl::AT_FDCWD, &path, mode, FchmodatFlags::FollowSymlink)?)
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
