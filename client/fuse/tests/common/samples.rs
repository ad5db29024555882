//! A request of each kind, and what it asks for. None is longer than it must be.

use super::{NODE, body, request};
use mojavefs_fuse::protocol::abi::{self, FileLock, Opcode, fattr};
use mojavefs_fuse::protocol::{
    Creation, Hello, InitFlags, Lock, LockKind, Operation, SetAttributes, SetTime, Unnamed, WriteFlags,
};
use zerocopy::IntoBytes;

pub(crate) struct Sample {
    pub(crate) opcode: Opcode,
    pub(crate) bytes: Vec<u8>,
    /// What was agreed on with the kernel that writes it.
    pub(crate) taken: InitFlags,
    pub(crate) asks: Operation<'static>,
}

fn sample(opcode: Opcode, body: &[u8], asks: Operation<'static>) -> Sample {
    Sample { opcode, bytes: request(opcode, body), taken: InitFlags::NONE, asks }
}

/// No text.
pub(crate) const ODD_NAME: &[u8] = b"\xff\xfe \n\xc3";

pub(crate) fn all() -> Vec<Sample> {
    [names(), attributes(), made(), opened(), moved_bytes(), xattrs(), locks(), others()]
        .into_iter()
        .flatten()
        .collect()
}

fn names() -> Vec<Sample> {
    let moved = |flags| Operation::Rename { name: b"old", to: 7, new_name: ODD_NAME, flags };
    let both = b"old\0\xff\xfe \n\xc3\0";
    let to = abi::Rename2In { newdir: 7, flags: 2, padding: 0 };
    vec![
        sample(Opcode::Lookup, b"\xff\xfe \n\xc3\0", Operation::Lookup { name: ODD_NAME }),
        sample(Opcode::Unlink, b"file\0", Operation::Unlink { name: b"file" }),
        sample(Opcode::Rmdir, b"dir\0", Operation::Rmdir { name: b"dir" }),
        sample(Opcode::Rename, &body(&abi::RenameIn { newdir: 7 }, both), moved(0)),
        sample(Opcode::Rename2, &body(&to, both), moved(2)),
        sample(Opcode::Link, &body(&abi::LinkIn { oldnodeid: 8 }, b"new\0"), Operation::Link { ino: 8, name: b"new" }),
        sample(Opcode::Readlink, &[], Operation::Readlink),
        sample(Opcode::Forget, abi::ForgetIn { nlookup: 3 }.as_bytes(), Operation::Forget(vec![(NODE, 3)])),
        sample(
            Opcode::BatchForget,
            &body(&abi::BatchForgetIn { count: 2, dummy: 0 }, [5u64, 1, 6, u64::MAX].as_bytes()),
            Operation::Forget(vec![(5, 1), (6, u64::MAX)]),
        ),
    ]
}

fn attributes() -> Vec<Sample> {
    let of = abi::GetattrIn { getattr_flags: abi::GETATTR_FH, dummy: 0, fh: 9 };
    let statx = abi::StatxIn { getattr_flags: 0, reserved: 0, fh: 9, sx_flags: 0, sx_mask: 0xfff };
    // What is not said to be set is something else.
    let set = abi::SetattrIn {
        valid: fattr::SIZE | fattr::MTIME | fattr::ATIME | fattr::ATIME_NOW | fattr::FH | fattr::KILL_SUIDGID,
        fh: 9,
        size: 1 << 40,
        mtime: (-2i64).cast_unsigned(),
        mtimensec: 999_999_999,
        atime: 1,
        ctime: 2,
        mode: 0o100_777,
        uid: 3,
        gid: 4,
        ..abi::SetattrIn::default()
    };
    let asks = SetAttributes {
        size: Some(1 << 40),
        mtime: Some(SetTime::At(-2, 999_999_999)),
        atime: Some(SetTime::Now),
        handle: Some(9),
        kill_set_id: true,
        ..SetAttributes::default()
    };
    vec![
        sample(Opcode::Getattr, of.as_bytes(), Operation::Getattr { handle: Some(9) }),
        sample(Opcode::Statx, statx.as_bytes(), Operation::Statx { handle: None, mask: 0xfff }),
        sample(Opcode::Setattr, set.as_bytes(), Operation::Setattr(asks)),
        sample(Opcode::Access, abi::AccessIn { mask: 4, padding: 0 }.as_bytes(), Operation::Access { mask: 4 }),
        sample(Opcode::Statfs, &[], Operation::Statfs),
    ]
}

fn made() -> Vec<Sample> {
    let new = |mode, rdev| Creation { mode, umask: 0o027, rdev, group: None };
    let mknod = abi::MknodIn { mode: 0o020_666, rdev: 0x501, umask: 0o027, padding: 0 };
    let mkdir = abi::MkdirIn { mode: 0o1755, umask: 0o027 };
    let create = abi::CreateIn { flags: 0o302, mode: 0o100_644, umask: 0o027, open_flags: abi::OPEN_KILL_SUIDGID };
    vec![
        sample(
            Opcode::Symlink,
            b"link\0to/where\0",
            Operation::Symlink { name: b"link", target: b"to/where", group: None },
        ),
        sample(Opcode::Mknod, &body(&mknod, b"tty\0"), Operation::Make { name: b"tty", new: new(0o020_666, 0x501) }),
        sample(Opcode::Mkdir, &body(&mkdir, b"dir\0"), Operation::Make { name: b"dir", new: new(0o041_755, 0) }),
        sample(
            Opcode::Create,
            &body(&create, b"file\0"),
            Operation::Create { name: b"file", new: new(0o100_644, 0), flags: 0o302, kill_set_id: true },
        ),
        sample(
            Opcode::Tmpfile,
            &body(&create, b"/\0"),
            Operation::Tmpfile(Unnamed { new: new(0o100_644, 0), flags: 0o302 }),
        ),
    ]
}

fn opened() -> Vec<Sample> {
    let open = abi::OpenIn { flags: 0o1002, open_flags: abi::OPEN_KILL_SUIDGID };
    let release = abi::ReleaseIn { fh: 9, flags: 1, release_flags: abi::RELEASE_FLUSH, lock_owner: 6 };
    let flush = abi::FlushIn { fh: 9, unused: 1, padding: 2, lock_owner: 6 };
    let fsync = |fsync_flags| abi::FsyncIn { fh: 9, fsync_flags, padding: 0 };
    vec![
        sample(Opcode::Open, open.as_bytes(), Operation::Open { flags: 0o1002, runs: false, kill_set_id: true }),
        sample(Opcode::Opendir, open.as_bytes(), Operation::Opendir { flags: 0o1002 }),
        sample(
            Opcode::Release,
            release.as_bytes(),
            Operation::Release { handle: 9, flags: 1, flush: true, flock_unlock: false, lock_owner: 6 },
        ),
        sample(Opcode::Releasedir, release.as_bytes(), Operation::Releasedir { handle: 9 }),
        sample(Opcode::Flush, flush.as_bytes(), Operation::Flush { handle: 9, lock_owner: 6 }),
        sample(Opcode::Fsync, fsync(abi::FSYNC_FDATASYNC).as_bytes(), Operation::Fsync { handle: 9, data_only: true }),
        sample(Opcode::Fsyncdir, fsync(0).as_bytes(), Operation::Fsyncdir { handle: 9, data_only: false }),
    ]
}

fn moved_bytes() -> Vec<Sample> {
    let read = abi::ReadIn { fh: 9, offset: 1 << 33, size: 4096, read_flags: 2, lock_owner: 6, flags: 3, padding: 0 };
    let write = abi::WriteIn { fh: 9, offset: 1 << 33, size: 5, write_flags: 5, lock_owner: 6, flags: 3, padding: 0 };
    let listed = |attributes| Operation::Readdir { handle: 9, offset: 1 << 33, size: 4096, attributes };
    let copy =
        abi::CopyFileRangeIn { fh_in: 1, off_in: 2, nodeid_out: 3, fh_out: 4, off_out: 5, len: 1 << 40, flags: 7 };
    let copied = |wide| Operation::CopyFileRange { from: (1, 2), to: (3, 4, 5), length: 1 << 40, flags: 7, wide };
    vec![
        sample(
            Opcode::Read,
            read.as_bytes(),
            Operation::Read { handle: 9, offset: 1 << 33, size: 4096, flags: 3, lock_owner: 6 },
        ),
        sample(
            Opcode::Write,
            &body(&write, b"a\0b\0c"),
            Operation::Write {
                handle: 9,
                offset: 1 << 33,
                data: b"a\0b\0c",
                from: WriteFlags::CACHE.and(WriteFlags::KILL_SUIDGID),
                flags: 3,
                lock_owner: 6,
            },
        ),
        sample(Opcode::Readdir, read.as_bytes(), listed(false)),
        sample(Opcode::Readdirplus, read.as_bytes(), listed(true)),
        sample(Opcode::CopyFileRange, copy.as_bytes(), copied(false)),
        sample(Opcode::CopyFileRange64, copy.as_bytes(), copied(true)),
        sample(
            Opcode::Fallocate,
            abi::FallocateIn { fh: 9, offset: 1, length: 2, mode: 3, padding: 0 }.as_bytes(),
            Operation::Fallocate { handle: 9, offset: 1, length: 2, mode: 3 },
        ),
        sample(
            Opcode::Lseek,
            abi::LseekIn { fh: 9, offset: 1, whence: 3, padding: 0 }.as_bytes(),
            Operation::Lseek { handle: 9, offset: 1, whence: 3 },
        ),
    ]
}

fn xattrs() -> Vec<Sample> {
    let set = abi::SetxattrIn { size: 3, flags: 1 };
    let ext = abi::SetxattrExt { setxattr_flags: abi::SETXATTR_ACL_KILL_SGID, padding: 0 };
    let asks = |kill_set_gid| Operation::Setxattr { name: b"user.a", value: b"\0b\xff", flags: 1, kill_set_gid };
    let get = abi::GetxattrIn { size: 64, padding: 0 };
    let extended = body(&set, &body(&ext, b"user.a\0\0b\xff"));
    vec![
        sample(Opcode::Setxattr, &body(&set, b"user.a\0\0b\xff"), asks(false)),
        Sample { taken: InitFlags::SETXATTR_EXT, ..sample(Opcode::Setxattr, &extended, asks(true)) },
        sample(Opcode::Getxattr, &body(&get, b"user.a\0"), Operation::Getxattr { name: b"user.a", size: 64 }),
        sample(Opcode::Listxattr, get.as_bytes(), Operation::Listxattr { size: 64 }),
        sample(Opcode::Removexattr, b"user.a\0", Operation::Removexattr { name: b"user.a" }),
    ]
}

fn locks() -> Vec<Sample> {
    let asked = |kind: i32, lk_flags| abi::LkIn {
        fh: 9,
        owner: 6,
        lk: FileLock { start: 1, end: 2, kind: kind.cast_unsigned(), pid: 3 },
        lk_flags,
        padding: 0,
    };
    let lock = |kind| Lock { start: 1, end: 2, kind, pid: 3 };
    let set = |kind, waits, flock| Operation::Setlk { handle: 9, owner: 6, lock: lock(kind), flock, waits };
    vec![
        sample(
            Opcode::Getlk,
            asked(nix::libc::F_RDLCK, 0).as_bytes(),
            Operation::Getlk { handle: 9, owner: 6, lock: lock(LockKind::Shared), flock: false },
        ),
        sample(Opcode::Setlk, asked(nix::libc::F_UNLCK, 0).as_bytes(), set(LockKind::None, false, false)),
        sample(
            Opcode::Setlkw,
            asked(nix::libc::F_WRLCK, abi::LK_FLOCK).as_bytes(),
            set(LockKind::Exclusive, true, true),
        ),
    ]
}

fn others() -> Vec<Sample> {
    let init = abi::InitIn { major: 7, minor: 31, max_readahead: 1 << 17, flags: 0b1001 };
    let hello = Hello { major: 7, minor: 31, max_readahead: 1 << 17, offered: InitFlags(0b1001) };
    let ioctl = abi::IoctlIn { fh: 9, flags: 0, cmd: 0x5401, arg: 1, in_size: 0, out_size: 60 };
    let unknown = |opcode| sample(opcode, &[1; 24], Operation::Other(opcode as u32));
    vec![
        sample(Opcode::Init, init.as_bytes(), Operation::Init(hello)),
        sample(Opcode::Destroy, &[], Operation::Destroy),
        sample(Opcode::Interrupt, 77u64.as_bytes(), Operation::Interrupt { unique: 77 }),
        sample(Opcode::Ioctl, ioctl.as_bytes(), Operation::Ioctl { handle: 9, command: 0x5401 }),
        sample(Opcode::Syncfs, &[0; 8], Operation::Syncfs),
        unknown(Opcode::Bmap),
        unknown(Opcode::Poll),
        unknown(Opcode::NotifyReply),
        unknown(Opcode::Setupmapping),
        unknown(Opcode::Removemapping),
    ]
}
