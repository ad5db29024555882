//! The kernel's types and ours.

use crate::errno;
use fuser::{Errno, FileAttr, FileType, INodeNo, TimeOrNow};
use mojavefs::limits::BLOCK_BYTES;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::{Attr, FileKind, SetTime, Time};
use nix::libc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn error(fault: &Fault) -> Errno {
    let errno = errno::of(fault.kind);
    tracing::debug!("{errno}: {fault}");
    Errno::from_i32(errno as i32)
}

pub(super) fn kind(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The type in a mode of `mknod`; `None` for one that is no file's.
pub(super) fn kind_of_mode(mode: u32) -> Option<FileKind> {
    Some(match mode & libc::S_IFMT {
        0 | libc::S_IFREG => FileKind::Regular,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFCHR => FileKind::CharDevice,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => return None,
    })
}

fn system_time(time: Time) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(time.nanos));
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    match time.seconds {
        0.. => UNIX_EPOCH + seconds + nanos,
        _ => UNIX_EPOCH - seconds + nanos,
    }
}

fn time(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Time { seconds: since.as_secs().cast_signed(), nanos: since.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let nanos = before.subsec_nanos();
            let seconds = -before.as_secs().cast_signed() - i64::from(nanos > 0);
            Time { seconds, nanos: if nanos > 0 { 1_000_000_000 - nanos } else { 0 } }
        }
    }
}

pub(super) fn set_time(set: TimeOrNow) -> SetTime {
    match set {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(at) => SetTime::At(time(at)),
    }
}

/// `st_blocks`. A file with bytes has one at least: `tar` reads nothing of a file without, which may be mapped and written to
/// without our knowing.
fn blocks(attr: &Attr) -> u64 {
    let least = u64::from(attr.kind == FileKind::Regular && attr.size > 0);
    attr.blocks.max(least)
}

pub(super) fn attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: blocks(attr),
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime: system_time(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind(attr.kind),
        perm: attr.mode as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLOCK_BYTES as u32,
        flags: 0,
    }
}
