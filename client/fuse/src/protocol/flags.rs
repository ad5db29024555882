//! The flags of the protocol, each kind as a type of its own.

macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident($kind:ty) { $($(#[$flag_doc:meta])* $flag:ident = $bit:literal),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub $kind);

        impl $name {
            $($(#[$flag_doc])* pub const $flag: $name = $name(1 << $bit);)*

            /// None of them.
            pub const NONE: $name = $name(0);

            /// Whether all of these are among them.
            pub const fn has(self, others: $name) -> bool {
                self.0 & others.0 == others.0
            }

            /// Both.
            #[must_use]
            pub const fn and(self, others: $name) -> $name {
                $name(self.0 | others.0)
            }

            /// What is in both.
            #[must_use]
            pub const fn shared_with(self, others: $name) -> $name {
                $name(self.0 & others.0)
            }

            /// Those without these.
            #[must_use]
            pub const fn without(self, others: $name) -> $name {
                $name(self.0 & !others.0)
            }
        }
    )*};
}

flags! {
    /// `FUSE_INIT`'s: what a kernel offers, and what is taken of it.
    InitFlags(u64) {
        /// Reads of one file side by side.
        ASYNC_READ = 0,
        /// `fcntl` locks are ours.
        POSIX_LOCKS = 1,
        /// Handles with attributes (never used by Linux).
        FILE_OPS = 2,
        /// OPEN truncates, in one step with it.
        ATOMIC_O_TRUNC = 3,
        /// `.` and `..` can be looked up: files are opened by handle, also by NFS.
        EXPORT_SUPPORT = 4,
        /// Writes longer than a page.
        BIG_WRITES = 5,
        /// The umask is ours to apply.
        DONT_MASK = 6,
        /// Splicing to the device.
        SPLICE_WRITE = 7,
        /// Splicing pages away.
        SPLICE_MOVE = 8,
        /// Splicing from the device.
        SPLICE_READ = 9,
        /// `flock` locks are ours.
        FLOCK_LOCKS = 10,
        /// `ioctl` on directories.
        HAS_IOCTL_DIR = 11,
        /// The kernel drops pages when it is told of another size or time.
        AUTO_INVAL_DATA = 12,
        /// Listings with attributes.
        DO_READDIRPLUS = 13,
        /// These only where they are used.
        READDIRPLUS_AUTO = 14,
        /// Direct reads and writes side by side.
        ASYNC_DIO = 15,
        /// The kernel buffers writes.
        WRITEBACK_CACHE = 16,
        /// OPEN can be answered with `ENOSYS`.
        NO_OPEN_SUPPORT = 17,
        /// Look-ups and listings of one directory side by side.
        PARALLEL_DIROPS = 18,
        /// Set-id bits are ours to clear, in every write.
        HANDLE_KILLPRIV = 19,
        /// The kernel checks access control lists.
        POSIX_ACL = 20,
        /// Reading from the device of a connection that was aborted is an error of its own.
        ABORT_ERROR = 21,
        /// `max_pages` is in the answer.
        MAX_PAGES = 22,
        /// Targets of links are kept.
        CACHE_SYMLINKS = 23,
        /// OPENDIR can be answered with `ENOSYS`.
        NO_OPENDIR_SUPPORT = 24,
        /// Pages are dropped only when that is said.
        EXPLICIT_INVAL_DATA = 25,
        /// Mappings of DAX must be aligned.
        MAP_ALIGNMENT = 26,
        /// Parts of the tree are mounts of their own.
        SUBMOUNTS = 27,
        /// Set-id bits are ours to clear, where we are told.
        HANDLE_KILLPRIV_V2 = 28,
        /// SETXATTR says whether an access control list takes the set-group-id bit away.
        SETXATTR_EXT = 29,
        /// There are more flags than 32.
        INIT_EXT = 30,
        /// Security labels at creation.
        SECURITY_CTX = 32,
        /// DAX by file.
        HAS_INODE_DAX = 33,
        /// The group that makes the creator a member of the directory's comes with the request.
        CREATE_SUPP_GROUP = 34,
        /// A name can be made to be looked up again without being dropped.
        HAS_EXPIRE_ONLY = 35,
        /// Files opened for direct I/O can be mapped.
        DIRECT_IO_ALLOW_MMAP = 36,
        /// Files can be passed through.
        PASSTHROUGH = 37,
        /// Not offered for export.
        NO_EXPORT_SUPPORT = 38,
        /// Requests that were read can be had again.
        HAS_RESEND = 39,
        /// Mounts with mapped user ids.
        ALLOW_IDMAP = 40,
        /// Requests by io_uring.
        OVER_IO_URING = 41,
        /// Requests have a time limit.
        REQUEST_TIMEOUT = 42,
    }

    /// `FOPEN_*`: how a file that was opened is treated.
    OpenedFlags(u32) {
        /// No pages are kept for it.
        DIRECT_IO = 0,
        /// Pages that are there stay.
        KEEP_CACHE = 1,
        /// It has no position.
        NONSEEKABLE = 2,
        /// Its listing is kept.
        CACHE_DIR = 3,
        /// It is a stream.
        STREAM = 4,
        /// Its close is not told by FLUSH.
        NOFLUSH = 5,
        /// Direct writes side by side.
        PARALLEL_DIRECT_WRITES = 6,
        /// It is passed through.
        PASSTHROUGH = 7,
    }

    /// `FUSE_WRITE_*`: where what is written comes from.
    WriteFlags(u32) {
        /// From the page cache: nobody waits in a call.
        CACHE = 0,
        /// The owner of locks is named.
        LOCKOWNER = 1,
        /// Set-id bits are to be cleared.
        KILL_SUIDGID = 2,
    }

    /// `FUSE_OPEN_*`: what comes with an open.
    CreationFlags(u32) {
        /// Set-id bits are to be cleared, since the file is truncated.
        KILL_SUIDGID = 0,
    }
}
