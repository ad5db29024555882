//! The structures and numbers of `abi.rs` and `flags.rs` are those of the system's `<linux/fuse.h>`, as a C compiler reads it.
//!
//! What came later than that header is left out: each thing has the version from which on it is compared.

use mojavefs_fuse::protocol::abi::{self, Opcode, fattr, notify};
use mojavefs_fuse::protocol::{CreationFlags, InitFlags, OpenedFlags, ROOT, WriteFlags};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::mem::offset_of;
use std::process::Command;
use tempfile::TempDir;

/// The oldest header that can be compared with: the second number of its version.
const MINOR_MIN: u32 = 34;
/// How many things there are to compare even with that.
const COMPARED_MIN: usize = 330;

/// A number that both have.
struct Same {
    since: u32,
    /// What the compiler is asked.
    c: String,
    ours: u64,
}

/// Structures: the version, ours, the name in C, and the fields, each with its name in C if that is another, and its version if it is
/// later than the structure.
macro_rules! structures {
    ($($since:literal $ours:ident = $c:ident { $($field:ident $(as $other:ident)? $(since $later:literal)?),* $(,)? })*) => {
        vec![$(
            Same { since: $since, c: format!("sizeof(struct {})", stringify!($c)), ours: size_of::<abi::$ours>() as u64 },
            $(Same {
                since: [$since, $($later)?].into_iter().max().unwrap_or($since),
                c: format!("offsetof(struct {}, {})", stringify!($c), last(&[stringify!($field), $(stringify!($other))?])),
                ours: offset_of!(abi::$ours, $field) as u64,
            },)*
        )*]
    };
}

/// Constants of a module or a type: the prefix in C, how a number is made of them, and the names by version.
macro_rules! constants {
    ($prefix:literal, $of:ident, $number:expr, { $($since:literal: $($name:ident)*;)* }) => {
        vec![$($(
            Same { since: $since, c: format!("{}{}", $prefix, stringify!($name)), ours: $number($of::$name) },
        )*)*]
    };
}

fn last(names: &[&str]) -> String {
    names.last().copied().unwrap_or_default().to_owned()
}

fn answers() -> Vec<Same> {
    structures! {
        34 OutHeader = fuse_out_header { len, error, unique }
        34 Attr = fuse_attr {
            ino, size, blocks, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, nlink, uid, gid, rdev, blksize, flags,
        }
        34 EntryOut = fuse_entry_out {
            nodeid, generation, entry_valid, attr_valid, entry_valid_nsec, attr_valid_nsec, attr,
        }
        34 AttrOut = fuse_attr_out { attr_valid, attr_valid_nsec, dummy, attr }
        34 OpenOut = fuse_open_out { fh, open_flags, backing_id since 40 }
        34 WriteOut = fuse_write_out { size, padding }
        34 StatfsOut = fuse_kstatfs { blocks, bfree, bavail, files, ffree, bsize, namelen, frsize, padding, spare }
        34 GetxattrOut = fuse_getxattr_out { size, padding }
        34 FileLock = fuse_file_lock { start, end, kind as type, pid }
        34 LseekOut = fuse_lseek_out { offset }
        39 SxTime = fuse_sx_time { tv_sec, tv_nsec, reserved as __reserved }
        39 Statx = fuse_statx {
            mask, blksize, attributes, nlink, uid, gid, mode, spare0 as __spare0, ino, size, blocks, attributes_mask, atime, btime,
            ctime, mtime, rdev_major, rdev_minor, dev_major, dev_minor, spare2 as __spare2,
        }
        39 StatxOut = fuse_statx_out { attr_valid, attr_valid_nsec, flags, spare, stat }
        34 InitOut = fuse_init_out {
            major, minor, max_readahead, flags, max_background, congestion_threshold, max_write, time_gran, max_pages,
            map_alignment, flags2 since 36, max_stack_depth since 40, request_timeout since 43, unused since 43,
        }
        34 Dirent = fuse_dirent { ino, off, namelen, kind as type }
        45 CopyFileRangeOut = fuse_copy_file_range_out { bytes_copied }
        34 InvalInodeOut = fuse_notify_inval_inode_out { ino, off, len }
        34 InvalEntryOut = fuse_notify_inval_entry_out { parent, namelen, flags since 38 }
    }
}

fn requests() -> Vec<Same> {
    structures! {
        34 InHeader = fuse_in_header {
            len, opcode, unique, nodeid, uid, gid, pid, total_extlen since 38, padding since 38,
        }
        34 ForgetIn = fuse_forget_in { nlookup }
        34 ForgetOne = fuse_forget_one { nodeid, nlookup }
        34 BatchForgetIn = fuse_batch_forget_in { count, dummy }
        34 GetattrIn = fuse_getattr_in { getattr_flags, dummy, fh }
        34 SetattrIn = fuse_setattr_in {
            valid, padding, fh, size, lock_owner, atime, mtime, ctime, atimensec, mtimensec, ctimensec, mode, unused4, uid, gid,
            unused5,
        }
        34 MknodIn = fuse_mknod_in { mode, rdev, umask, padding }
        34 MkdirIn = fuse_mkdir_in { mode, umask }
        34 RenameIn = fuse_rename_in { newdir }
        34 Rename2In = fuse_rename2_in { newdir, flags, padding }
        34 LinkIn = fuse_link_in { oldnodeid }
        34 OpenIn = fuse_open_in { flags, open_flags }
        34 CreateIn = fuse_create_in { flags, mode, umask, open_flags }
        34 ReleaseIn = fuse_release_in { fh, flags, release_flags, lock_owner }
        34 FlushIn = fuse_flush_in { fh, unused, padding, lock_owner }
        34 ReadIn = fuse_read_in { fh, offset, size, read_flags, lock_owner, flags, padding }
        34 WriteIn = fuse_write_in { fh, offset, size, write_flags, lock_owner, flags, padding }
        34 FsyncIn = fuse_fsync_in { fh, fsync_flags, padding }
        34 GetxattrIn = fuse_getxattr_in { size, padding }
        34 LkIn = fuse_lk_in { fh, owner, lk, lk_flags, padding }
        34 AccessIn = fuse_access_in { mask, padding }
        34 InterruptIn = fuse_interrupt_in { unique }
        34 FallocateIn = fuse_fallocate_in { fh, offset, length, mode, padding }
        34 LseekIn = fuse_lseek_in { fh, offset, whence, padding }
        34 CopyFileRangeIn = fuse_copy_file_range_in { fh_in, off_in, nodeid_out, fh_out, off_out, len, flags }
        34 IoctlIn = fuse_ioctl_in { fh, flags, cmd, arg, in_size, out_size }
        39 StatxIn = fuse_statx_in { getattr_flags, reserved, fh, sx_flags, sx_mask }
        38 ExtHeader = fuse_ext_header { size, kind as type }
        // Some headers of 7.38 have it.
        39 SuppGroups = fuse_supp_groups { nr_groups }
    }
}

/// Structures that are only a part of those in C, or all of another one.
fn parts() -> Vec<Same> {
    let same = |c: &str, ours: usize| Same { since: 34, c: c.to_owned(), ours: ours as u64 };
    let ext_start = size_of::<abi::SetxattrIn>();
    vec![
        same("FUSE_COMPAT_SETXATTR_IN_SIZE", ext_start),
        same("offsetof(struct fuse_setxattr_in, size)", offset_of!(abi::SetxattrIn, size)),
        same("offsetof(struct fuse_setxattr_in, flags)", offset_of!(abi::SetxattrIn, flags)),
        same("sizeof(struct fuse_setxattr_in)", ext_start + size_of::<abi::SetxattrExt>()),
        same(
            "offsetof(struct fuse_setxattr_in, setxattr_flags)",
            ext_start + offset_of!(abi::SetxattrExt, setxattr_flags),
        ),
        same("offsetof(struct fuse_setxattr_in, padding)", ext_start + offset_of!(abi::SetxattrExt, padding)),
        same("offsetof(struct fuse_init_in, major)", offset_of!(abi::InitIn, major)),
        same("offsetof(struct fuse_init_in, minor)", offset_of!(abi::InitIn, minor)),
        same("offsetof(struct fuse_init_in, max_readahead)", offset_of!(abi::InitIn, max_readahead)),
        same("offsetof(struct fuse_init_in, flags)", offset_of!(abi::InitIn, flags)),
        // What is behind it is read as the second word of the flags.
        Same { since: 36, ..same("offsetof(struct fuse_init_in, flags2)", size_of::<abi::InitIn>()) },
        same("sizeof(struct fuse_statfs_out)", size_of::<abi::StatfsOut>()),
        same("sizeof(struct fuse_lk_out)", size_of::<abi::FileLock>()),
        // A page of a directory is built of these.
        same("FUSE_NAME_OFFSET", size_of::<abi::Dirent>()),
        same("FUSE_NAME_OFFSET_DIRENTPLUS", size_of::<abi::EntryOut>() + size_of::<abi::Dirent>()),
    ]
}

fn flags() -> Vec<Same> {
    let init = constants!("FUSE_", InitFlags, |flags: InitFlags| flags.0, {
        34: ASYNC_READ POSIX_LOCKS FILE_OPS ATOMIC_O_TRUNC EXPORT_SUPPORT BIG_WRITES DONT_MASK SPLICE_WRITE SPLICE_MOVE;
        34: SPLICE_READ FLOCK_LOCKS HAS_IOCTL_DIR AUTO_INVAL_DATA DO_READDIRPLUS READDIRPLUS_AUTO ASYNC_DIO WRITEBACK_CACHE;
        34: NO_OPEN_SUPPORT PARALLEL_DIROPS HANDLE_KILLPRIV POSIX_ACL ABORT_ERROR MAX_PAGES CACHE_SYMLINKS NO_OPENDIR_SUPPORT;
        34: EXPLICIT_INVAL_DATA MAP_ALIGNMENT SUBMOUNTS HANDLE_KILLPRIV_V2 SETXATTR_EXT;
        36: INIT_EXT SECURITY_CTX HAS_INODE_DAX;
        // Some headers of 7.38 have these.
        39: CREATE_SUPP_GROUP HAS_EXPIRE_ONLY;
        // That of 7.39 calls it otherwise.
        40: DIRECT_IO_ALLOW_MMAP;
        40: PASSTHROUGH NO_EXPORT_SUPPORT HAS_RESEND;
        41: ALLOW_IDMAP;
        42: OVER_IO_URING;
        43: REQUEST_TIMEOUT;
    });
    let opened = constants!("FOPEN_", OpenedFlags, |flags: OpenedFlags| flags.0.into(), {
        34: DIRECT_IO KEEP_CACHE NONSEEKABLE CACHE_DIR STREAM;
        35: NOFLUSH;
        38: PARALLEL_DIRECT_WRITES;
        40: PASSTHROUGH;
    });
    let write = constants!("FUSE_WRITE_", WriteFlags, |flags: WriteFlags| flags.0.into(), { 34: CACHE LOCKOWNER KILL_SUIDGID; });
    let creation =
        constants!("FUSE_OPEN_", CreationFlags, |flags: CreationFlags| flags.0.into(), { 34: KILL_SUIDGID; });
    [init, opened, write, creation].into_iter().flatten().collect()
}

fn numbers() -> Vec<Same> {
    let set = constants!("FATTR_", fattr, u64::from, {
        34: MODE UID GID SIZE ATIME MTIME FH ATIME_NOW MTIME_NOW LOCKOWNER CTIME KILL_SUIDGID;
    });
    let notices =
        constants!("FUSE_NOTIFY_", notify, |code: i32| code as u64, { 34: INVAL_INODE INVAL_ENTRY; 44: INC_EPOCH; });
    let others = constants!("FUSE_", abi, u64::from, {
        34: GETATTR_FH LK_FLOCK FSYNC_FDATASYNC SETXATTR_ACL_KILL_SGID OPEN_KILL_SUIDGID RELEASE_FLUSH RELEASE_FLOCK_UNLOCK;
        // Some headers of 7.38 have it.
        39: EXT_GROUPS;
    });
    let version = Same { since: 34, c: "FUSE_KERNEL_VERSION".to_owned(), ours: abi::MAJOR.into() };
    let root = Same { since: 34, c: "FUSE_ROOT_ID".to_owned(), ours: ROOT };
    [set, notices, others, vec![version, root]].into_iter().flatten().collect()
}

/// `FUSE_BATCH_FORGET` for `BatchForget`.
fn c_name(opcode: Opcode) -> String {
    let mut name = String::from("FUSE");
    for letter in format!("{opcode:?}").chars() {
        if letter.is_uppercase() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name.replace("RANGE64", "RANGE_64")
}

fn opcodes() -> Vec<Same> {
    let since = |opcode| match opcode {
        Opcode::Tmpfile => 37,
        Opcode::Statx => 39,
        Opcode::CopyFileRange64 => 45,
        _ => 34,
    };
    let same = |opcode: &Opcode| Same { since: since(*opcode), c: c_name(*opcode), ours: *opcode as u64 };
    Opcode::ALL.iter().map(same).collect()
}

fn program(all: &[Same]) -> String {
    let mut text =
        String::from("#include <linux/fuse.h>\n#include <stddef.h>\n#include <stdio.h>\n\nint main(void) {\n");
    text.push_str("printf(\"%d\\n\", FUSE_KERNEL_MINOR_VERSION);\n");
    for (number, Same { since, c, .. }) in all.iter().enumerate() {
        let print = format!("printf(\"{number} %llu\\n\", (unsigned long long)({c}));");
        writeln!(text, "#if FUSE_KERNEL_MINOR_VERSION >= {since}\n{print}\n#endif").expect("strings take everything");
    }
    text + "return 0;\n}\n"
}

/// What the program prints: the second number of the header's version, and the value of each thing that it has.
fn output_of(program: &str) -> (u32, BTreeMap<usize, u64>) {
    let place = TempDir::new().expect("a directory for the program");
    let (source, binary) = (place.path().join("layout.c"), place.path().join("layout"));
    std::fs::write(&source, program).expect("the source is written");
    let compiled = Command::new("cc").arg("-o").arg(&binary).arg(&source).output().expect("a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let run = Command::new(&binary).output().expect("the program runs");
    assert!(run.status.success());
    let output = String::from_utf8(run.stdout).expect("it prints numbers");
    let mut lines = output.lines();
    let minor = lines.next().and_then(|line| line.parse().ok()).expect("it prints the version first");
    let value = |line: &str| {
        let (number, value) = line.split_once(' ').expect("two numbers a line");
        (number.parse().expect("the number of the thing"), value.parse().expect("its value"))
    };
    (minor, lines.map(value).collect())
}

#[test]
fn structures_and_numbers_are_those_of_the_systems_header() {
    let all: Vec<Same> =
        [answers(), requests(), parts(), flags(), numbers(), opcodes()].into_iter().flatten().collect();
    let (minor, theirs) = output_of(&program(&all));
    assert!(minor >= MINOR_MIN, "<linux/fuse.h> is that of FUSE 7.{minor}; install newer kernel headers");
    let mut different = Vec::new();
    for (number, Same { since, c, ours }) in all.iter().enumerate() {
        let expected = (minor >= *since).then_some(*ours);
        if theirs.get(&number).copied() != expected {
            different.push(format!("{c}: {:?} in C, {expected:?} here", theirs.get(&number)));
        }
    }
    assert!(different.is_empty(), "with the header of FUSE 7.{minor}:\n{}", different.join("\n"));
    assert!(theirs.len() >= COMPARED_MIN, "only {} things were compared", theirs.len());
}
