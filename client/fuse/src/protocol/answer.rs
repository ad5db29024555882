//! What a kernel is answered.

use super::abi;
use super::flags::OpenedFlags;
use super::listing::Page;
use std::time::Duration;
use zerocopy::{Immutable, IntoBytes};

/// What a kernel is told of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Attributes {
    pub ino: u64,
    /// Kind and permissions.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u32,
    /// In bytes.
    pub size: u64,
    /// What it takes, in units of 512 bytes.
    pub blocks: u64,
    /// The unit of reading and writing that is best, in bytes.
    pub block_bytes: u32,
    /// Seconds since 1970 and nanoseconds beyond them, of these times.
    pub accessed: (i64, u32),
    pub modified: (i64, u32),
    pub changed: (i64, u32),
    /// When it was made, if that is known.
    pub born: Option<(i64, u32)>,
}

/// How long a kernel may keep something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasting(pub Duration);

/// What a name leads to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The inode; 0 for a name that is not there, which the kernel is to remember.
    pub node: u64,
    /// Which file of this number it is, if numbers are given out again.
    pub generation: u64,
    /// Of the name.
    pub name_lasts: Lasting,
    /// Of the attributes.
    pub attributes_last: Lasting,
    /// What it is.
    pub attributes: Attributes,
}

/// A file or directory that is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// How we call it.
    pub handle: u64,
    /// How the kernel treats it.
    pub flags: OpenedFlags,
    /// What it is passed through to, if it is.
    pub backing: i32,
}

/// The space of a filesystem, in units of `unit` bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Space {
    pub unit: u32,
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
    /// The longest name, in bytes.
    pub name_bytes: u32,
}

/// What kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// With others that share it.
    Shared,
    /// By one alone.
    Exclusive,
    /// None.
    None,
}

/// A lock on a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The first byte.
    pub start: u64,
    /// The last one.
    pub end: u64,
    /// Its kind.
    pub kind: LockKind,
    /// The process that has it.
    pub pid: u32,
}

/// What a request is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    /// There is nothing to say but that it is done.
    Done,
    Entry(Entry),
    Attributes(Attributes, Lasting),
    /// The same for STATX, which tells when it was made, too.
    Statx(Attributes, Lasting),
    Opened(Opened),
    Created(Entry, Opened),
    Data(Vec<u8>),
    /// So many bytes were written, or copied.
    Written(u32),
    /// The same for copies of any length.
    Copied(u64),
    Space(Space),
    /// How long an extended attribute is, or the list of them.
    Length(u32),
    Lock(Lock),
    Offset(u64),
    Listing(Page),
}

/// `fuse_attr`
pub(super) fn attr(of: &Attributes) -> abi::Attr {
    abi::Attr {
        ino: of.ino,
        size: of.size,
        blocks: of.blocks,
        atime: of.accessed.0.cast_unsigned(),
        mtime: of.modified.0.cast_unsigned(),
        ctime: of.changed.0.cast_unsigned(),
        atimensec: of.accessed.1,
        mtimensec: of.modified.1,
        ctimensec: of.changed.1,
        mode: of.mode,
        nlink: of.nlink,
        uid: of.uid,
        gid: of.gid,
        rdev: of.rdev,
        blksize: of.block_bytes,
        flags: 0,
    }
}

/// `fuse_entry_out`
pub(super) fn entry(of: &Entry) -> abi::EntryOut {
    let (name, attributes) = (of.name_lasts.0, of.attributes_last.0);
    abi::EntryOut {
        nodeid: of.node,
        generation: of.generation,
        entry_valid: name.as_secs(),
        attr_valid: attributes.as_secs(),
        entry_valid_nsec: name.subsec_nanos(),
        attr_valid_nsec: attributes.subsec_nanos(),
        attr: attr(&of.attributes),
    }
}

fn attr_out(of: &Attributes, lasts: Lasting) -> abi::AttrOut {
    let (attr_valid, attr_valid_nsec) = (lasts.0.as_secs(), lasts.0.subsec_nanos());
    abi::AttrOut { attr_valid, attr_valid_nsec, dummy: 0, attr: attr(of) }
}

fn open_out(of: &Opened) -> abi::OpenOut {
    abi::OpenOut { fh: of.handle, open_flags: of.flags.0, backing_id: of.backing }
}

/// `fuse_statx_out`. Numbers of devices are as the kernel writes them in 32 bits.
fn statx_out(of: &Attributes, lasts: Lasting) -> abi::StatxOut {
    let time = |(tv_sec, tv_nsec): (i64, u32)| abi::SxTime { tv_sec, tv_nsec, reserved: 0 };
    let mask = nix::libc::STATX_BASIC_STATS | of.born.map_or(0, |_| nix::libc::STATX_BTIME);
    let stat = abi::Statx {
        mask,
        blksize: of.block_bytes,
        nlink: of.nlink,
        uid: of.uid,
        gid: of.gid,
        mode: of.mode as u16,
        ino: of.ino,
        size: of.size,
        blocks: of.blocks,
        atime: time(of.accessed),
        btime: of.born.map(time).unwrap_or_default(),
        ctime: time(of.changed),
        mtime: time(of.modified),
        rdev_major: of.rdev >> 8 & 0xfff,
        rdev_minor: of.rdev & 0xff | of.rdev >> 12 & 0xfff00,
        ..abi::Statx::default()
    };
    let (attr_valid, attr_valid_nsec) = (lasts.0.as_secs(), lasts.0.subsec_nanos());
    abi::StatxOut { attr_valid, attr_valid_nsec, stat, ..abi::StatxOut::default() }
}

/// The longest head: that of STATX.
const HEAD_BYTES_MAX: usize = size_of::<abi::OutHeader>() + size_of::<abi::StatxOut>();

/// The header of an answer, and what of it is of a fixed form.
pub struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    length: usize,
}

impl Head {
    fn new() -> Self {
        Head { bytes: [0; HEAD_BYTES_MAX], length: size_of::<abi::OutHeader>() }
    }

    fn with(mut self, part: &(impl IntoBytes + Immutable)) -> Self {
        let part = part.as_bytes();
        self.bytes[self.length..self.length + part.len()].copy_from_slice(part);
        self.length += part.len();
        self
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

fn head(answer: &Answer) -> Head {
    let head = Head::new();
    match answer {
        Answer::Done | Answer::Data(_) | Answer::Listing(_) => head,
        Answer::Entry(found) => head.with(&entry(found)),
        Answer::Attributes(found, lasts) => head.with(&attr_out(found, *lasts)),
        Answer::Statx(found, lasts) => head.with(&statx_out(found, *lasts)),
        Answer::Opened(opened) => head.with(&open_out(opened)),
        Answer::Created(made, opened) => head.with(&entry(made)).with(&open_out(opened)),
        Answer::Written(size) => head.with(&abi::WriteOut { size: *size, padding: 0 }),
        Answer::Copied(bytes_copied) => head.with(&abi::CopyFileRangeOut { bytes_copied: *bytes_copied }),
        Answer::Space(space) => head.with(&abi::StatfsOut {
            blocks: space.total,
            bfree: space.free,
            bavail: space.available,
            files: space.files,
            ffree: space.files_free,
            bsize: space.unit,
            namelen: space.name_bytes,
            frsize: space.unit,
            ..abi::StatfsOut::default()
        }),
        Answer::Length(size) => head.with(&abi::GetxattrOut { size: *size, padding: 0 }),
        Answer::Lock(lock) => head.with(&file_lock(lock)),
        Answer::Offset(offset) => head.with(&abi::LseekOut { offset: *offset }),
    }
}

fn file_lock(lock: &Lock) -> abi::FileLock {
    let kind = match lock.kind {
        LockKind::Shared => nix::libc::F_RDLCK,
        LockKind::Exclusive => nix::libc::F_WRLCK,
        LockKind::None => nix::libc::F_UNLCK,
    };
    abi::FileLock { start: lock.start, end: lock.end, kind: kind.cast_unsigned(), pid: lock.pid }
}

/// The answer to a request as two pieces, which are sent together; an error as the kernel numbers it, above 0.
pub fn encode(unique: u64, answer: &Result<Answer, i32>) -> (Head, &[u8]) {
    let (error, mut head, body): (i32, Head, &[u8]) = match answer {
        Err(errno) => (-errno, Head::new(), &[]),
        Ok(answer) => {
            let body = match answer {
                Answer::Data(data) => data,
                Answer::Listing(page) => page.bytes(),
                _ => &[],
            };
            (0, head(answer), body)
        }
    };
    let len = (head.length + body.len()) as u32;
    let header = abi::OutHeader { len, error, unique };
    head.bytes[..size_of::<abi::OutHeader>()].copy_from_slice(header.as_bytes());
    (head, body)
}
