//! The structures of `fuse.h`, as they lie in memory, and its numbers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Eq)]
        #[repr(C)]
        #[allow(missing_docs)]
        pub struct $name { $(pub $field: $kind),* }
    )*};
}

structures! {
    /// `fuse_in_header`
    InHeader { len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16 }
    /// `fuse_out_header`
    OutHeader { len: u32, error: i32, unique: u64 }
    /// `fuse_attr`
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32,
        nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// `fuse_entry_out`
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32, attr: Attr,
    }
    /// `fuse_attr_out`
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr }
    /// `fuse_open_out`
    OpenOut { fh: u64, open_flags: u32, backing_id: i32 }
    /// `fuse_write_out`
    WriteOut { size: u32, padding: u32 }
    /// `fuse_kstatfs`, which is all of `fuse_statfs_out`
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// `fuse_getxattr_out`
    GetxattrOut { size: u32, padding: u32 }
    /// `fuse_file_lock`, which is all of `fuse_lk_out`
    FileLock { start: u64, end: u64, kind: u32, pid: u32 }
    /// `fuse_lseek_out`
    LseekOut { offset: u64 }
    /// `fuse_sx_time`
    SxTime { tv_sec: i64, tv_nsec: u32, reserved: i32 }
    /// `fuse_statx`
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64, size: u64, blocks: u64,
        attributes_mask: u64, atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime, rdev_major: u32, rdev_minor: u32,
        dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// `fuse_statx_out`
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx }
    /// `fuse_init_out`
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16, max_write: u32,
        time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16, unused: [u16; 11],
    }
    /// `fuse_dirent`, without its name
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32 }
    /// `fuse_copy_file_range_out`
    CopyFileRangeOut { bytes_copied: u64 }

    /// `fuse_forget_in`
    ForgetIn { nlookup: u64 }
    /// `fuse_forget_one`
    ForgetOne { nodeid: u64, nlookup: u64 }
    /// `fuse_batch_forget_in`
    BatchForgetIn { count: u32, dummy: u32 }
    /// `fuse_getattr_in`
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64 }
    /// `fuse_setattr_in`
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// `fuse_mknod_in`
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32 }
    /// `fuse_mkdir_in`
    MkdirIn { mode: u32, umask: u32 }
    /// `fuse_rename_in`
    RenameIn { newdir: u64 }
    /// `fuse_rename2_in`
    Rename2In { newdir: u64, flags: u32, padding: u32 }
    /// `fuse_link_in`
    LinkIn { oldnodeid: u64 }
    /// `fuse_open_in`
    OpenIn { flags: u32, open_flags: u32 }
    /// `fuse_create_in`
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32 }
    /// `fuse_release_in`
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64 }
    /// `fuse_flush_in`
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64 }
    /// `fuse_read_in`
    ReadIn { fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_write_in`
    WriteIn { fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32 }
    /// `fuse_fsync_in`
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32 }
    /// `fuse_setxattr_in` as it is without `FUSE_SETXATTR_EXT`
    SetxattrIn { size: u32, flags: u32 }
    /// What `FUSE_SETXATTR_EXT` adds to it
    SetxattrExt { setxattr_flags: u32, padding: u32 }
    /// `fuse_getxattr_in`
    GetxattrIn { size: u32, padding: u32 }
    /// `fuse_lk_in`
    LkIn { fh: u64, owner: u64, lk: FileLock, lk_flags: u32, padding: u32 }
    /// `fuse_access_in`
    AccessIn { mask: u32, padding: u32 }
    /// `fuse_init_in` as it is without `FUSE_INIT_EXT`
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32 }
    /// `fuse_interrupt_in`
    InterruptIn { unique: u64 }
    /// `fuse_fallocate_in`
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32 }
    /// `fuse_lseek_in`
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32 }
    /// `fuse_copy_file_range_in`
    CopyFileRangeIn { fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64 }
    /// `fuse_ioctl_in`
    IoctlIn { fh: u64, flags: u32, cmd: u32, arg: u64, in_size: u32, out_size: u32 }
    /// `fuse_statx_in`
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32 }
    /// `fuse_ext_header`
    ExtHeader { size: u32, kind: u32 }
    /// `fuse_supp_groups`, without the groups
    SuppGroups { nr_groups: u32 }

    /// `fuse_notify_inval_inode_out`
    InvalInodeOut { ino: u64, off: i64, len: i64 }
    /// `fuse_notify_inval_entry_out`
    InvalEntryOut { parent: u64, namelen: u32, flags: u32 }
}

macro_rules! opcodes {
    ($($name:ident = $number:literal),* $(,)?) => {
        /// `enum fuse_opcode`
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Opcode { $($name = $number),* }

        impl Opcode {
            /// Each of them.
            pub const ALL: &[Opcode] = &[$(Opcode::$name),*];

            /// The one with this number.
            pub fn of(number: u32) -> Option<Self> {
                match number {
                    $($number => Some(Opcode::$name),)*
                    _ => None,
                }
            }
        }
    };
}

opcodes! {
    Lookup = 1, Forget = 2, Getattr = 3, Setattr = 4, Readlink = 5, Symlink = 6, Mknod = 8, Mkdir = 9, Unlink = 10, Rmdir = 11, Rename = 12,
    Link = 13, Open = 14, Read = 15, Write = 16, Statfs = 17, Release = 18, Fsync = 20, Setxattr = 21, Getxattr = 22, Listxattr = 23,
    Removexattr = 24, Flush = 25, Init = 26, Opendir = 27, Readdir = 28, Releasedir = 29, Fsyncdir = 30, Getlk = 31, Setlk = 32, Setlkw = 33,
    Access = 34, Create = 35, Interrupt = 36, Bmap = 37, Destroy = 38, Ioctl = 39, Poll = 40, NotifyReply = 41, BatchForget = 42,
    Fallocate = 43, Readdirplus = 44, Rename2 = 45, Lseek = 46, CopyFileRange = 47, Setupmapping = 48, Removemapping = 49, Syncfs = 50,
    Tmpfile = 51, Statx = 52, CopyFileRange64 = 53,
}

/// The version that is spoken: 7.45, as of Linux 6.18.
pub const MAJOR: u32 = 7;
/// Its second number.
pub const MINOR: u32 = 45;

/// `FATTR_*`: what SETATTR sets.
#[allow(missing_docs)]
pub mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const LOCKOWNER: u32 = 1 << 9;
    pub const CTIME: u32 = 1 << 10;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `FUSE_GETATTR_FH`
pub const GETATTR_FH: u32 = 1 << 0;
/// `FUSE_LK_FLOCK`
pub const LK_FLOCK: u32 = 1 << 0;
/// `FUSE_FSYNC_FDATASYNC`
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// `FUSE_SETXATTR_ACL_KILL_SGID`
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `FUSE_OPEN_KILL_SUIDGID`
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `FUSE_RELEASE_FLUSH`
pub const RELEASE_FLUSH: u32 = 1 << 0;
/// `FUSE_RELEASE_FLOCK_UNLOCK`
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;
/// `FUSE_EXT_GROUPS`
pub const EXT_GROUPS: u32 = 32;
/// `__FMODE_EXEC`: OPEN's flags of a file that is opened to be run.
pub const FMODE_EXEC: u32 = 0x20;

/// `enum fuse_notify_code`
#[allow(missing_docs)]
pub mod notify {
    pub const INVAL_INODE: i32 = 2;
    pub const INVAL_ENTRY: i32 = 3;
    pub const INC_EPOCH: i32 = 8;
}
