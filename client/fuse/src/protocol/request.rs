//! What a kernel asks for.

use super::answer::Lock;
use super::flags::WriteFlags;
use super::handshake::Hello;
use std::fmt;

/// One request. What it names is borrowed from what was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Its number, by which it is answered.
    pub unique: u64,
    /// The inode that it is about.
    pub node: u64,
    /// Whose it is: the user id of whoever asks. Of a thread of the kernel's own it says nothing.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// The thread, as our process namespace numbers it; 0 for the kernel itself, or one that can't be seen from here.
    pub pid: u32,
    /// What is asked for.
    pub operation: Operation<'a>,
}

/// What is made, but for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creation {
    /// Kind and permissions, before the umask.
    pub mode: u32,
    /// The umask of who asks.
    pub umask: u32,
    /// The device that it stands for.
    pub rdev: u32,
    /// The group that makes who asks a member of the directory's, if that is another than his own.
    pub group: Option<u32>,
}

/// A file without a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unnamed {
    /// What it is made as.
    pub new: Creation,
    /// How it is opened, as for `open`.
    pub flags: u32,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The present one.
    Now,
    /// Seconds since 1970, and nanoseconds beyond them.
    At(i64, u32),
}

/// What SETATTR changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct SetAttributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
    /// By a handle, for one that is truncated.
    pub handle: Option<u64>,
    /// Set-id bits are to be cleared.
    pub kill_set_id: bool,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Operation<'a> {
    Lookup {
        name: &'a [u8],
    },
    /// Inodes, each with how often it was given: not answered.
    Forget(Vec<(u64, u64)>),
    Getattr {
        handle: Option<u64>,
    },
    Setattr(SetAttributes),
    Readlink,
    Symlink {
        name: &'a [u8],
        target: &'a [u8],
        group: Option<u32>,
    },
    /// MKNOD and MKDIR.
    Make {
        name: &'a [u8],
        new: Creation,
    },
    Unlink {
        name: &'a [u8],
    },
    Rmdir {
        name: &'a [u8],
    },
    /// RENAME and RENAME2.
    Rename {
        name: &'a [u8],
        to: u64,
        new_name: &'a [u8],
        flags: u32,
    },
    /// `ino` gets this name in the directory.
    Link {
        ino: u64,
        name: &'a [u8],
    },
    /// `runs`: to be run as a program.
    Open {
        flags: u32,
        runs: bool,
        kill_set_id: bool,
    },
    Read {
        handle: u64,
        offset: u64,
        size: u32,
        flags: u32,
        lock_owner: u64,
    },
    Write {
        handle: u64,
        offset: u64,
        data: &'a [u8],
        from: WriteFlags,
        flags: u32,
        lock_owner: u64,
    },
    Statfs,
    Release {
        handle: u64,
        flags: u32,
        flush: bool,
        flock_unlock: bool,
        lock_owner: u64,
    },
    Fsync {
        handle: u64,
        data_only: bool,
    },
    Setxattr {
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
        kill_set_gid: bool,
    },
    Getxattr {
        name: &'a [u8],
        size: u32,
    },
    Listxattr {
        size: u32,
    },
    Removexattr {
        name: &'a [u8],
    },
    Flush {
        handle: u64,
        lock_owner: u64,
    },
    Init(Hello),
    Opendir {
        flags: u32,
    },
    /// READDIR, and READDIRPLUS with attributes.
    Readdir {
        handle: u64,
        offset: u64,
        size: u32,
        attributes: bool,
    },
    Releasedir {
        handle: u64,
    },
    Fsyncdir {
        handle: u64,
        data_only: bool,
    },
    Getlk {
        handle: u64,
        owner: u64,
        lock: Lock,
        flock: bool,
    },
    /// SETLK, and SETLKW which waits.
    Setlk {
        handle: u64,
        owner: u64,
        lock: Lock,
        flock: bool,
        waits: bool,
    },
    Access {
        mask: u32,
    },
    Create {
        name: &'a [u8],
        new: Creation,
        flags: u32,
        kill_set_id: bool,
    },
    /// That request is not waited for any more.
    Interrupt {
        unique: u64,
    },
    Destroy,
    Ioctl {
        handle: u64,
        command: u32,
    },
    Fallocate {
        handle: u64,
        offset: u64,
        length: u64,
        mode: u32,
    },
    Lseek {
        handle: u64,
        offset: u64,
        whence: u32,
    },
    /// Also the form whose answer has 64 bits.
    CopyFileRange {
        from: (u64, u64),
        to: (u64, u64, u64),
        length: u64,
        flags: u64,
        wide: bool,
    },
    Syncfs,
    Tmpfile(Unnamed),
    Statx {
        handle: Option<u64>,
        mask: u32,
    },
    /// One that nothing is known of here beside its number: BMAP, POLL, NOTIFY_REPLY, SETUPMAPPING, REMOVEMAPPING, and what later kernels ask.
    Other(u32),
}

/// What was read is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Its number, if it has one: then it can be answered.
    pub unique: Option<u64>,
    /// What is wrong.
    pub what: &'static str,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unique {
            Some(unique) => write!(f, "request {unique} of the kernel is malformed: {}", self.what),
            None => write!(f, "what the kernel has sent is no request: {}", self.what),
        }
    }
}

impl std::error::Error for Malformed {}
