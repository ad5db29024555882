//! Files as every part sees them: kinds, attributes, times, names.

use crate::id::Ino;
use serde::{Deserialize, Serialize};

/// The name of a directory entry or extended attribute: any bytes but NUL (and `/` in entries).
pub type Name = Vec<u8>;

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device node.
    CharDevice,
    /// A block device node.
    BlockDevice,
}

/// A moment since the epoch, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1,000,000,000.
    pub nanos: u32,
}

impl Time {
    /// The next one, a nanosecond later.
    pub fn next(self) -> Time {
        match self.nanos {
            0..999_999_999 => Time { nanos: self.nanos + 1, ..self },
            _ => Time { seconds: self.seconds.saturating_add(1), nanos: 0 },
        }
    }
}

/// What `stat` shows of one file in one view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// The inode number.
    pub ino: Ino,
    /// The type.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky bits (`0o7777`).
    pub mode: u32,
    /// Names of the file; for a directory two and its subdirectories.
    pub nlink: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The device number of a device node, as the kernel's `dev_t` in 32 bits; else 0.
    pub rdev: u32,
    /// The length in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access: set by `utimensat` and creation only (as under `noatime`).
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// When it was made, unless a MojaveFS made it that did not record that.
    pub born: Option<Time>,
}

/// Which attributes to change. `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetAttr {
    /// New permission bits.
    pub mode: Option<u32>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes.
    pub size: Option<u64>,
    /// New access time.
    pub atime: Option<SetTime>,
    /// New modification time.
    pub mtime: Option<SetTime>,
    /// The caller is unprivileged: a change of the length clears set-id bits.
    pub clear_set_id: bool,
}

/// What a change of content has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// An offset or a count, in bytes.
    pub at: u64,
    /// Set-id bits were cleared: a kernel that runs the file must not do so by the mode that it has kept.
    pub mode_changed: bool,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SetTime {
    /// The server's clock.
    Now,
    /// This moment.
    At(Time),
}
