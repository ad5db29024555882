//! Answers as fuser gives them.

use super::{Reply, errno};
use ::fuser::{
    FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
};
use mojavefs_fuse::protocol::abi::EntryOut;
use mojavefs_fuse::protocol::{Answer, Attributes, Listed, Page};
use nix::errno::Errno;
use nix::libc;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// As much of a directory as a kernel reads at once at least, which fuser does not tell.
pub(super) const PAGE_BYTES: u32 = 4096;

macro_rules! replied {
    ($($kind:ident($reply:ident)),*) => {
        /// Where fuser takes an answer.
        pub(super) enum Replied {
            Nothing,
            $($kind($reply)),*
        }

        $(impl From<$reply> for Replied {
            fn from(reply: $reply) -> Self {
                Replied::$kind(reply)
            }
        })*

        impl Replied {
            fn refuse(self, why: Errno) {
                match self {
                    Replied::Nothing => {}
                    $(Replied::$kind(reply) => reply.error(errno(why))),*
                }
            }
        }
    };
}

replied! {
    Entry(ReplyEntry), Attr(ReplyAttr), Data(ReplyData), Empty(ReplyEmpty), Open(ReplyOpen), Create(ReplyCreate), Write(ReplyWrite),
    Directory(ReplyDirectory), DirectoryPlus(ReplyDirectoryPlus), Statfs(ReplyStatfs), Xattr(ReplyXattr), Lseek(ReplyLseek)
}

impl Reply for Replied {
    fn give(self, answer: Result<Answer, Errno>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(why) => return self.refuse(why),
        };
        match (self, answer) {
            (Replied::Empty(reply), Answer::Done) => reply.ok(),
            (Replied::Entry(reply), Answer::Entry(found)) => {
                reply.entry(&found.name_lasts.0, &attr(&found.attributes), Generation(found.generation));
            }
            (Replied::Attr(reply), Answer::Attributes(found, lasts)) => reply.attr(&lasts.0, &attr(&found)),
            (Replied::Data(reply), Answer::Data(data)) => reply.data(&data),
            (Replied::Xattr(reply), Answer::Data(data)) => reply.data(&data),
            (Replied::Xattr(reply), Answer::Length(size)) => reply.size(size),
            (Replied::Open(reply), Answer::Opened(opened)) => {
                reply.opened(FileHandle(opened.handle), FopenFlags::from_bits_truncate(opened.flags.0));
            }
            (Replied::Create(reply), Answer::Created(made, opened)) => {
                let flags = FopenFlags::from_bits_truncate(opened.flags.0);
                let (handle, generation) = (FileHandle(opened.handle), Generation(made.generation));
                reply.created(&made.name_lasts.0, &attr(&made.attributes), generation, handle, flags);
            }
            (Replied::Write(reply), Answer::Written(count)) => reply.written(count),
            (Replied::Lseek(reply), Answer::Offset(offset)) => reply.offset(offset.cast_signed()),
            (Replied::Statfs(reply), Answer::Space(space)) => reply.statfs(
                space.total,
                space.free,
                space.available,
                space.files,
                space.files_free,
                space.unit,
                space.name_bytes,
                space.unit,
            ),
            (Replied::Directory(reply), Answer::Listing(page)) => names(reply, &page),
            (Replied::DirectoryPlus(reply), Answer::Listing(page)) => files(reply, &page),
            (reply, answer) => {
                tracing::error!("{answer:?} is no answer to what was asked");
                reply.refuse(Errno::EIO);
            }
        }
    }

    fn when_interrupted(&self, _tell: Box<dyn FnOnce() + Send>) {}
}

fn names(mut reply: ReplyDirectory, page: &Page) {
    for (Listed { ino, next, kind, name }, _) in page.entries() {
        // There is room: the kernel reads no less than a page.
        let _ = reply.add(INodeNo(ino), next, file_type(kind << 12), OsStr::from_bytes(name));
    }
    reply.ok();
}

fn files(mut reply: ReplyDirectoryPlus, page: &Page) {
    for (Listed { next, name, .. }, given) in page.entries() {
        let Some(given) = given else { continue };
        let lasts = Duration::new(given.attr_valid, given.attr_valid_nsec);
        let (ino, found) = (INodeNo(given.nodeid), attr(&attributes(&given)));
        let _ = reply.add(ino, next, OsStr::from_bytes(name), &lasts, &found, Generation(given.generation));
    }
    reply.ok();
}

fn attributes(given: &EntryOut) -> Attributes {
    let of = &given.attr;
    Attributes {
        ino: of.ino,
        mode: of.mode,
        nlink: of.nlink,
        uid: of.uid,
        gid: of.gid,
        rdev: of.rdev,
        size: of.size,
        blocks: of.blocks,
        block_bytes: of.blksize,
        accessed: (of.atime.cast_signed(), of.atimensec),
        modified: (of.mtime.cast_signed(), of.mtimensec),
        changed: (of.ctime.cast_signed(), of.ctimensec),
        born: None,
    }
}

fn file_type(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

fn system_time((seconds, nanos): (i64, u32)) -> SystemTime {
    let (whole, nanos) = (Duration::from_secs(seconds.unsigned_abs()), Duration::from_nanos(nanos.into()));
    if seconds < 0 { UNIX_EPOCH - whole + nanos } else { UNIX_EPOCH + whole + nanos }
}

fn attr(of: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(of.ino),
        size: of.size,
        blocks: of.blocks,
        atime: system_time(of.accessed),
        mtime: system_time(of.modified),
        ctime: system_time(of.changed),
        crtime: UNIX_EPOCH,
        kind: file_type(of.mode),
        perm: (of.mode & 0o7777) as u16,
        nlink: of.nlink,
        uid: of.uid,
        gid: of.gid,
        rdev: of.rdev,
        blksize: of.block_bytes,
        flags: 0,
    }
}
