//! The kernel's types and ours.

use crate::errno;
use crate::limits::CACHE_TIME;
use mojavefs::limits::BLOCK_BYTES;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::{self, Attr, FileKind};
use mojavefs_fuse::protocol::{Attributes, Lasting, SetTime};
use nix::errno::Errno;
use nix::libc;
use std::sync::OnceLock;
use std::time::Duration;

pub(super) fn error(fault: &Fault) -> Errno {
    let errno = errno::of(fault.kind);
    tracing::debug!("{errno}: {fault}");
    errno
}

/// Over a host, how long kernels of this process may believe what they are told: others change it, and do not tell.
static BELIEVED: OnceLock<Duration> = OnceLock::new();

/// From now on kernels believe for so long only what they are told. Said before the first one is answered.
pub(crate) fn believe_for(time: Duration) {
    let _ = BELIEVED.set(time);
}

/// How long the kernel keeps what it is told, if it may.
pub(super) fn lasting(lasts: bool) -> Lasting {
    Lasting(if lasts { BELIEVED.get().copied().unwrap_or(CACHE_TIME) } else { Duration::ZERO })
}

/// The type as it is in a mode.
pub(super) fn type_of(kind: FileKind) -> u32 {
    match kind {
        FileKind::Regular => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

/// The type in a mode of `mknod`; `None` for one that is no file's.
pub(super) fn kind_of_mode(mode: u32) -> Option<FileKind> {
    Some(match mode & libc::S_IFMT {
        0 | libc::S_IFREG => FileKind::Regular,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => return None,
    })
}

pub(super) fn set_time(set: SetTime) -> file::SetTime {
    match set {
        SetTime::Now => file::SetTime::Now,
        SetTime::At(seconds, nanos) => file::SetTime::At(file::Time { seconds, nanos }),
    }
}

/// `st_blocks`. A file with bytes has one at least: `tar` reads nothing of a file without, which may be mapped and written to
/// without our knowing.
fn blocks(attr: &Attr) -> u64 {
    let least = u64::from(attr.kind == FileKind::Regular && attr.size > 0);
    attr.blocks.max(least)
}

pub(super) fn attributes(attr: &Attr) -> Attributes {
    let time = |time: file::Time| (time.seconds, time.nanos);
    Attributes {
        ino: attr.ino.shown(),
        mode: type_of(attr.kind) | attr.mode,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size: attr.size,
        blocks: blocks(attr),
        block_bytes: BLOCK_BYTES as u32,
        accessed: time(attr.atime),
        modified: time(attr.mtime),
        changed: time(attr.ctime),
        born: attr.born.map(time),
    }
}
