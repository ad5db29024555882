//! The operations of the filesystem that a view shows, as they are asked for.

use super::message::Request;
use crate::id::{Ino, ViewId};
use crate::protocol::file::{FileKind, Name, SetAttr};
use crate::protocol::lock::{LockAsked, Unlocked};
use serde::{Deserialize, Serialize};

/// How a rename treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Refuse (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swap the two names (`RENAME_EXCHANGE`).
    Exchange,
    /// Replace it, and leave a character device of number 0 in the old place (`RENAME_WHITEOUT`), by which overlayfs knows what it has removed.
    Whiteout,
}

/// What `fallocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FallocateMode {
    /// Reserve space; the length grows to the end of the range unless `keep_size`.
    Allocate {
        /// Leave the length as it is.
        keep_size: bool,
    },
    /// Make a hole; the length stays.
    PunchHole,
    /// Make it read as zeros.
    ZeroRange {
        /// Leave the length as it is.
        keep_size: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeekWhence {
    /// The next data.
    Data,
    /// The next hole.
    Hole,
}

/// Whether an extended attribute must, may or must not exist before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Either way.
    Set,
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
}

/// What a file is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reads {
    /// For a kernel, which keeps what it gets.
    Kept,
    /// The same, for a descriptor through which the file may be mapped and written to.
    Mapped,
    /// Nobody keeps it.
    Once,
}

/// Whoever makes a system call, as the kernel says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caller {
    /// The process, as its host numbers it; 0 where it is the kernel itself, which reads ahead or writes out.
    pub pid: u32,
    /// The user by whose rights it is made.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Caller {
    /// The kernel itself, on nobody's behalf.
    pub const KERNEL: Caller = Caller { pid: 0, uid: 0, gid: 0 };
}

/// One operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FsOp<'a> {
    /// Finds a name. Answer: [`Reply::Attr`](super::Reply::Attr).
    Lookup {
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
    },
    /// Finds names for a listing: each as [`FsOp::Lookup`] would, but no undecided inode is looked at. Answer:
    /// [`Reply::Glanced`](super::Reply::Glanced).
    Glance {
        /// The directory.
        parent: Ino,
        /// The names, at most [`crate::limits::GLANCES_MAX`].
        names: Vec<Name>,
    },
    /// Finds a name for nobody who acts on it. Fault: `Busy` if the name is undecided itself. Answer: [`Reply::Attr`](super::Reply::Attr).
    GlanceNamed {
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
    },
    /// The kernel of this view has dropped these inodes. Answer: [`Reply::Done`](super::Reply::Done).
    Forget {
        /// The inodes.
        inos: Vec<Ino>,
    },
    /// Reads attributes. Answer: [`Reply::Attr`](super::Reply::Attr).
    GetAttr {
        /// The inode.
        ino: Ino,
    },
    /// Reads attributes for nobody who acts on them: as [`FsOp::GetAttr`], but another's undecided work is not looked at by
    /// it. Answer: [`Reply::Attr`](super::Reply::Attr).
    GlanceAt {
        /// The inode.
        ino: Ino,
    },
    /// Changes attributes. Answer: [`Reply::Attr`](super::Reply::Attr).
    SetAttr {
        /// The inode.
        ino: Ino,
        /// What to change.
        set: SetAttr,
    },
    /// Reads a symbolic link. Answer: [`Reply::Data`](super::Reply::Data).
    ReadLink {
        /// The link.
        ino: Ino,
    },
    /// Creates a file of any kind. Answer: [`Reply::Attr`](super::Reply::Attr).
    Create {
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
        /// The type.
        kind: FileKind,
        /// Permission bits before the umask.
        mode: u32,
        /// Bits to clear, unless the directory has a default ACL.
        umask: u32,
        /// The device number of a device node.
        rdev: u32,
        /// The target of a symbolic link.
        target: &'a [u8],
    },
    /// Creates a regular file without a name, of which nothing is left once no kernel knows it, unless it was given one meanwhile. Answer:
    /// [`Reply::Attr`](super::Reply::Attr).
    CreateUnnamed {
        /// The directory whose file it would be: its group, if it is set-group-id, and its default ACL count.
        parent: Ino,
        /// Permission bits before the umask.
        mode: u32,
        /// Bits to clear, unless the directory has a default ACL.
        umask: u32,
    },
    /// Finds a file by its number, or the directory around a directory. Answer: [`Reply::Attr`](super::Reply::Attr).
    LookupInode {
        /// The file.
        ino: Ino,
        /// Whether what is around it is meant.
        around: bool,
    },
    /// Adds a name. Answer: [`Reply::Attr`](super::Reply::Attr).
    Link {
        /// The file.
        ino: Ino,
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
    },
    /// Removes a name that is no directory. Answer: [`Reply::Done`](super::Reply::Done).
    Unlink {
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
    },
    /// Removes an empty directory. Answer: [`Reply::Done`](super::Reply::Done).
    RemoveDir {
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
    },
    /// Renames. Answer: [`Reply::Done`](super::Reply::Done).
    Rename {
        /// The old directory.
        parent: Ino,
        /// The old name.
        name: &'a [u8],
        /// The new directory.
        new_parent: Ino,
        /// The new name.
        new_name: &'a [u8],
        /// What becomes of an existing target.
        mode: RenameMode,
    },
    /// Reads up to `size` bytes. Answer: [`Reply::Data`](super::Reply::Data), shorter only at the end of the file.
    Read {
        /// The file.
        ino: Ino,
        /// Where, in bytes.
        offset: u64,
        /// At most [`crate::limits::IO_BYTES_MAX`].
        size: u32,
        /// What for.
        reads: Reads,
    },
    /// Writes all of `data`. Answer: [`Reply::Changed`](super::Reply::Changed), where it was written.
    Write {
        /// The file.
        ino: Ino,
        /// Where, in bytes.
        offset: u64,
        /// At most [`crate::limits::IO_BYTES_MAX`].
        #[serde(with = "serde_bytes")]
        data: &'a [u8],
        /// At the end, wherever that is: `offset` is where the kernel believes it to be.
        append: bool,
        /// The caller is unprivileged: set-id bits are cleared.
        clear_set_id: bool,
        /// It was written through a mapping.
        mapped: bool,
    },
    /// Allocates, punches or zeroes. Answer: [`Reply::Changed`](super::Reply::Changed), the end of the range.
    Fallocate {
        /// The file.
        ino: Ino,
        /// Where.
        offset: u64,
        /// How much, in bytes.
        len: u64,
        /// What.
        mode: FallocateMode,
        /// The caller is unprivileged: set-id bits are cleared.
        clear_set_id: bool,
    },
    /// Finds data or a hole. Answer: [`Reply::Offset`](super::Reply::Offset).
    Seek {
        /// The file.
        ino: Ino,
        /// From where.
        offset: u64,
        /// What.
        whence: SeekWhence,
    },
    /// Copies within the store. Answer: [`Reply::Changed`](super::Reply::Changed), the bytes copied.
    CopyRange {
        /// The source.
        ino: Ino,
        /// Where in the source.
        offset: u64,
        /// The target.
        to: Ino,
        /// Where in the target.
        to_offset: u64,
        /// How much, in bytes.
        len: u64,
        /// The caller is unprivileged: set-id bits of the target are cleared.
        clear_set_id: bool,
    },
    /// Makes a file durable; inside a speculation it waits for no disk. Answer: [`Reply::Done`](super::Reply::Done).
    Fsync {
        /// The file or directory.
        ino: Ino,
    },
    /// Waits until other views were told of what this one changed (close-to-open). Answer: [`Reply::Done`](super::Reply::Done); without `wait`
    /// [`Busy`](super::fault::FaultKind::Busy) if there is something to wait for.
    Settle {
        /// Whether to wait.
        wait: bool,
    },
    /// Waits until this view was told what others have changed up to now. Answer: [`Reply::Done`](super::Reply::Done).
    AwaitNotices,
    /// Takes a lock, or lets go of one. Answer: [`Reply::Locked`](super::Reply::Locked). Errors: [`Locked`](super::fault::FaultKind::Locked) if
    /// it is another's; with `waits` [`Queued`](super::fault::FaultKind::Queued), and the owner stands in a line: it asks again
    /// after [`FsOp::AwaitOffer`], or gives up ([`FsOp::LeaveLine`]); [`Deadlock`](super::fault::FaultKind::Deadlock).
    Lock {
        /// The file.
        ino: Ino,
        /// What is asked.
        asked: LockAsked,
        /// Whether to stand in the line.
        waits: bool,
    },
    /// Waits until a lock for which somebody in this view stands in the line may be taken, or for `millis`. Answer:
    /// [`Reply::Number`](super::Reply::Number), how many have been so far.
    AwaitOffer {
        /// How many were known; returns at once if there are more.
        after: u64,
        /// For so long at most.
        millis: u32,
    },
    /// One who stands in a line gives up. Answer: [`Reply::Done`](super::Reply::Done).
    LeaveLine {
        /// The file.
        ino: Ino,
        /// What was asked.
        asked: LockAsked,
    },
    /// What would be in the way of a lock. Answer: [`Reply::Obstacle`](super::Reply::Obstacle).
    TestLock {
        /// The file.
        ino: Ino,
        /// The lock.
        asked: LockAsked,
    },
    /// Somebody has closed a file. Answer: [`Reply::Done`](super::Reply::Done).
    Unlock {
        /// The file.
        ino: Ino,
        /// Whose locks on it are let go.
        whose: Unlocked,
    },
    /// Has other views write out what they hold back of a file, and waits until this one was told of it. Answer:
    /// [`Reply::Done`](super::Reply::Done).
    MakeCurrent {
        /// The file.
        ino: Ino,
    },
    /// A page of a directory in an order that never changes. Answer: [`Reply::Entries`](super::Reply::Entries).
    ReadDir {
        /// The directory.
        ino: Ino,
        /// The last name of the page before.
        after: Option<&'a [u8]>,
        /// At most this many, and [`crate::limits::LISTING_ENTRIES_MAX`].
        limit: u32,
    },
    /// Reads an extended attribute. Answer: [`Reply::Data`](super::Reply::Data).
    GetXattr {
        /// The file.
        ino: Ino,
        /// The attribute.
        name: &'a [u8],
    },
    /// Sets one. Answer: [`Reply::Done`](super::Reply::Done).
    SetXattr {
        /// The file.
        ino: Ino,
        /// The attribute.
        name: &'a [u8],
        /// Its value.
        #[serde(with = "serde_bytes")]
        value: &'a [u8],
        /// Whether it must exist.
        mode: XattrMode,
        /// It is an access ACL, and who sets it may not keep the set-group-id bit.
        clear_set_gid: bool,
    },
    /// Lists them. Answer: [`Reply::Names`](super::Reply::Names).
    ListXattr {
        /// The file.
        ino: Ino,
    },
    /// Removes one. Answer: [`Reply::Done`](super::Reply::Done).
    RemoveXattr {
        /// The file.
        ino: Ino,
        /// The attribute.
        name: &'a [u8],
    },
    /// Space and inodes. Answer: [`Reply::Space`](super::Reply::Space).
    StatFs,
}

impl<'a> FsOp<'a> {
    /// In a view, in the name of whoever calls.
    pub fn of(self, view: ViewId, caller: Caller) -> Request<'a> {
        Request::Fs { view, caller, op: self }
    }

    /// In a view, on nobody's behalf.
    pub fn on(self, view: ViewId) -> Request<'a> {
        self.of(view, Caller::KERNEL)
    }
}
