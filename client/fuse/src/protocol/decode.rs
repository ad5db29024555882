//! Reading requests: bytes in, a [`Request`] out.

use super::abi::{self, Opcode, fattr};
use super::answer::{Lock, LockKind};
use super::flags::{CreationFlags, InitFlags, WriteFlags};
use super::handshake::Hello;
use super::request::{Creation, Malformed, Operation, Request, SetAttributes, SetTime, Unnamed};
use zerocopy::FromBytes;

/// What is left of a request.
struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    fn take<T: FromBytes>(&mut self) -> Result<T, &'static str> {
        let (value, rest) = T::read_from_prefix(self.0).map_err(|_| "it ends too early")?;
        self.0 = rest;
        Ok(value)
    }

    /// Bytes up to a zero.
    fn name(&mut self) -> Result<&'a [u8], &'static str> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or("a name has no end")?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(name)
    }

    fn bytes(&mut self, length: u32) -> Result<&'a [u8], &'static str> {
        let (bytes, rest) = self.0.split_at_checked(length as usize).ok_or("it has less data than it says")?;
        self.0 = rest;
        Ok(bytes)
    }
}

/// Reads a request. `taken` is what was agreed on with the kernel: some requests are longer by it.
///
/// # Errors
/// The bytes are no request of this protocol.
pub fn decode(bytes: &[u8], taken: InitFlags) -> Result<Request<'_>, Malformed> {
    let no_request = |what| Malformed { unique: None, what };
    let (header, rest) =
        abi::InHeader::read_from_prefix(bytes).map_err(|_| no_request("it is shorter than its header"))?;
    let malformed = |what| Malformed { unique: Some(header.unique), what };
    if header.len as usize != bytes.len() {
        return Err(malformed("it is not as long as it says"));
    }
    let extensions = usize::from(header.total_extlen) * 8;
    let (rest, extensions) = match rest.len().checked_sub(extensions) {
        Some(end) => rest.split_at(end),
        None => return Err(malformed("it is shorter than its extensions")),
    };
    let group = supplementary_group(extensions).map_err(malformed)?;
    let operation = match Opcode::of(header.opcode) {
        Some(opcode @ (Opcode::Forget | Opcode::BatchForget)) => {
            forget(opcode, Arguments(rest), header.nodeid).map_err(malformed)?
        }
        Some(opcode) => operation(opcode, Arguments(rest), taken, group).map_err(malformed)?,
        None => Operation::Other(header.opcode),
    };
    let abi::InHeader { unique, nodeid: node, uid, gid, pid, .. } = header;
    Ok(Request { unique, node, uid, gid, pid, operation })
}

/// What the extensions say of groups: one at most.
fn supplementary_group(extensions: &[u8]) -> Result<Option<u32>, &'static str> {
    let mut rest = extensions;
    while !rest.is_empty() {
        let header = abi::ExtHeader::read_from_prefix(rest).map_err(|_| "an extension ends too early")?.0;
        let length = header.size as usize;
        if length < size_of::<abi::ExtHeader>() {
            return Err("an extension is shorter than its header");
        }
        let (this, others) = rest.split_at_checked(length).ok_or("an extension is longer than all of them")?;
        rest = others;
        if header.kind == abi::EXT_GROUPS {
            let mut body = Arguments(&this[size_of::<abi::ExtHeader>()..]);
            let groups: abi::SuppGroups = body.take()?;
            return if groups.nr_groups == 0 { Ok(None) } else { body.take().map(Some) };
        }
    }
    Ok(None)
}

fn operation(
    opcode: Opcode,
    mut rest: Arguments<'_>,
    taken: InitFlags,
    group: Option<u32>,
) -> Result<Operation<'_>, &'static str> {
    Ok(match opcode {
        Opcode::Lookup => Operation::Lookup { name: rest.name()? },
        Opcode::Unlink => Operation::Unlink { name: rest.name()? },
        Opcode::Rmdir => Operation::Rmdir { name: rest.name()? },
        Opcode::Removexattr => Operation::Removexattr { name: rest.name()? },
        Opcode::Getattr | Opcode::Setattr | Opcode::Statx => attributes(opcode, rest)?,
        Opcode::Symlink | Opcode::Mknod | Opcode::Mkdir | Opcode::Create | Opcode::Tmpfile => {
            creation(opcode, rest, group)?
        }
        Opcode::Rename => {
            let abi::RenameIn { newdir: to } = rest.take()?;
            Operation::Rename { name: rest.name()?, to, new_name: rest.name()?, flags: 0 }
        }
        Opcode::Rename2 => {
            let abi::Rename2In { newdir: to, flags, .. } = rest.take()?;
            Operation::Rename { name: rest.name()?, to, new_name: rest.name()?, flags }
        }
        Opcode::Link => {
            let abi::LinkIn { oldnodeid: ino } = rest.take()?;
            Operation::Link { ino, name: rest.name()? }
        }
        Opcode::Setxattr | Opcode::Getxattr | Opcode::Listxattr => xattr(opcode, rest, taken)?,
        Opcode::Open | Opcode::Opendir | Opcode::Release | Opcode::Releasedir | Opcode::Flush => handle(opcode, rest)?,
        Opcode::Fsync | Opcode::Fsyncdir => {
            let abi::FsyncIn { fh: handle, fsync_flags, .. } = rest.take()?;
            let data_only = fsync_flags & abi::FSYNC_FDATASYNC != 0;
            match opcode {
                Opcode::Fsync => Operation::Fsync { handle, data_only },
                _ => Operation::Fsyncdir { handle, data_only },
            }
        }
        Opcode::Read | Opcode::Readdir | Opcode::Readdirplus => {
            let abi::ReadIn { fh: handle, offset, size, lock_owner, flags, .. } = rest.take()?;
            match opcode {
                Opcode::Read => Operation::Read { handle, offset, size, flags, lock_owner },
                _ => Operation::Readdir { handle, offset, size, attributes: opcode == Opcode::Readdirplus },
            }
        }
        Opcode::Write => {
            let abi::WriteIn { fh: handle, offset, size, write_flags, lock_owner, flags, .. } = rest.take()?;
            Operation::Write {
                handle,
                offset,
                data: rest.bytes(size)?,
                from: WriteFlags(write_flags),
                flags,
                lock_owner,
            }
        }
        Opcode::Fallocate => {
            let abi::FallocateIn { fh: handle, offset, length, mode, .. } = rest.take()?;
            Operation::Fallocate { handle, offset, length, mode }
        }
        Opcode::Lseek => {
            let abi::LseekIn { fh: handle, offset, whence, .. } = rest.take()?;
            Operation::Lseek { handle, offset, whence }
        }
        Opcode::CopyFileRange | Opcode::CopyFileRange64 => {
            let abi::CopyFileRangeIn { fh_in, off_in, nodeid_out, fh_out, off_out, len: length, flags } =
                rest.take()?;
            let wide = opcode == Opcode::CopyFileRange64;
            Operation::CopyFileRange { from: (fh_in, off_in), to: (nodeid_out, fh_out, off_out), length, flags, wide }
        }
        Opcode::Getlk | Opcode::Setlk | Opcode::Setlkw => lock(opcode, rest)?,
        Opcode::Ioctl => {
            let abi::IoctlIn { fh: handle, cmd: command, .. } = rest.take()?;
            Operation::Ioctl { handle, command }
        }
        Opcode::Access => Operation::Access { mask: rest.take::<abi::AccessIn>()?.mask },
        Opcode::Interrupt => Operation::Interrupt { unique: rest.take::<abi::InterruptIn>()?.unique },
        Opcode::Init => init(rest)?,
        Opcode::Readlink => Operation::Readlink,
        Opcode::Statfs => Operation::Statfs,
        Opcode::Destroy => Operation::Destroy,
        Opcode::Syncfs => Operation::Syncfs,
        Opcode::Forget
        | Opcode::BatchForget
        | Opcode::Bmap
        | Opcode::Poll
        | Opcode::NotifyReply
        | Opcode::Setupmapping
        | Opcode::Removemapping => Operation::Other(opcode as u32),
    })
}

fn init(mut rest: Arguments<'_>) -> Result<Operation<'_>, &'static str> {
    let abi::InitIn { major, minor, max_readahead, flags } = rest.take()?;
    let more = match InitFlags(flags.into()).has(InitFlags::INIT_EXT) {
        true => rest.take::<u32>()?,
        false => 0,
    };
    let offered = InitFlags(u64::from(flags) | u64::from(more) << 32);
    Ok(Operation::Init(Hello { major, minor, max_readahead, offered }))
}

fn forget(opcode: Opcode, mut rest: Arguments<'_>, node: u64) -> Result<Operation<'_>, &'static str> {
    if opcode == Opcode::Forget {
        let abi::ForgetIn { nlookup } = rest.take()?;
        return Ok(Operation::Forget(vec![(node, nlookup)]));
    }
    let abi::BatchForgetIn { count, .. } = rest.take()?;
    // No more than there can be in it, whatever it says.
    let most = rest.0.len() / size_of::<abi::ForgetOne>();
    if count as usize > most {
        return Err("it forgets less than it says");
    }
    let one = |_| rest.take().map(|abi::ForgetOne { nodeid, nlookup }| (nodeid, nlookup));
    Ok(Operation::Forget((0..count).map(one).collect::<Result<_, _>>()?))
}

fn attributes(opcode: Opcode, mut rest: Arguments<'_>) -> Result<Operation<'_>, &'static str> {
    let by = |flags: u32, handle: u64| (flags & abi::GETATTR_FH != 0).then_some(handle);
    Ok(match opcode {
        Opcode::Getattr => {
            let abi::GetattrIn { getattr_flags, fh, .. } = rest.take()?;
            Operation::Getattr { handle: by(getattr_flags, fh) }
        }
        Opcode::Statx => {
            let abi::StatxIn { getattr_flags, fh, sx_mask: mask, .. } = rest.take()?;
            Operation::Statx { handle: by(getattr_flags, fh), mask }
        }
        _ => {
            let set: abi::SetattrIn = rest.take()?;
            let has = |flag| set.valid & flag != 0;
            let time = |(is_set, is_now), seconds: u64, nanos| {
                let at = if has(is_now) { SetTime::Now } else { SetTime::At(seconds.cast_signed(), nanos) };
                has(is_set).then_some(at)
            };
            Operation::Setattr(SetAttributes {
                mode: has(fattr::MODE).then_some(set.mode),
                uid: has(fattr::UID).then_some(set.uid),
                gid: has(fattr::GID).then_some(set.gid),
                size: has(fattr::SIZE).then_some(set.size),
                atime: time((fattr::ATIME, fattr::ATIME_NOW), set.atime, set.atimensec),
                mtime: time((fattr::MTIME, fattr::MTIME_NOW), set.mtime, set.mtimensec),
                handle: has(fattr::FH).then_some(set.fh),
                kill_set_id: has(fattr::KILL_SUIDGID),
            })
        }
    })
}

fn creation(opcode: Opcode, mut rest: Arguments<'_>, group: Option<u32>) -> Result<Operation<'_>, &'static str> {
    let new = |mode, umask, rdev| Creation { mode, umask, rdev, group };
    Ok(match opcode {
        Opcode::Symlink => Operation::Symlink { name: rest.name()?, target: rest.name()?, group },
        Opcode::Mknod => {
            let abi::MknodIn { mode, rdev, umask, .. } = rest.take()?;
            Operation::Make { name: rest.name()?, new: new(mode, umask, rdev) }
        }
        Opcode::Mkdir => {
            let abi::MkdirIn { mode, umask } = rest.take()?;
            let mode = nix::libc::S_IFDIR | mode & !nix::libc::S_IFMT;
            Operation::Make { name: rest.name()?, new: new(mode, umask, 0) }
        }
        opcode => {
            let abi::CreateIn { flags, mode, umask, open_flags } = rest.take()?;
            let new = new(mode, umask, 0);
            let kill_set_id = CreationFlags(open_flags).has(CreationFlags::KILL_SUIDGID);
            match opcode {
                Opcode::Tmpfile => Operation::Tmpfile(Unnamed { new, flags }),
                _ => Operation::Create { name: rest.name()?, new, flags, kill_set_id },
            }
        }
    })
}

fn xattr(opcode: Opcode, mut rest: Arguments<'_>, taken: InitFlags) -> Result<Operation<'_>, &'static str> {
    if opcode != Opcode::Setxattr {
        let abi::GetxattrIn { size, .. } = rest.take()?;
        return Ok(match opcode {
            Opcode::Getxattr => Operation::Getxattr { name: rest.name()?, size },
            _ => Operation::Listxattr { size },
        });
    }
    let abi::SetxattrIn { size, flags } = rest.take()?;
    let kill_set_gid = match taken.has(InitFlags::SETXATTR_EXT) {
        true => rest.take::<abi::SetxattrExt>()?.setxattr_flags & abi::SETXATTR_ACL_KILL_SGID != 0,
        false => false,
    };
    Ok(Operation::Setxattr { name: rest.name()?, value: rest.bytes(size)?, flags, kill_set_gid })
}

fn handle(opcode: Opcode, mut rest: Arguments<'_>) -> Result<Operation<'_>, &'static str> {
    Ok(match opcode {
        Opcode::Open => {
            let abi::OpenIn { flags, open_flags } = rest.take()?;
            let (runs, kill_set_id) = (flags & abi::FMODE_EXEC != 0, open_flags & abi::OPEN_KILL_SUIDGID != 0);
            Operation::Open { flags, runs, kill_set_id }
        }
        Opcode::Opendir => Operation::Opendir { flags: rest.take::<abi::OpenIn>()?.flags },
        Opcode::Flush => {
            let abi::FlushIn { fh: handle, lock_owner, .. } = rest.take()?;
            Operation::Flush { handle, lock_owner }
        }
        opcode => {
            let abi::ReleaseIn { fh: handle, flags, release_flags, lock_owner } = rest.take()?;
            let has = |flag| release_flags & flag != 0;
            let (flush, flock_unlock) = (has(abi::RELEASE_FLUSH), has(abi::RELEASE_FLOCK_UNLOCK));
            match opcode {
                Opcode::Release => Operation::Release { handle, flags, flush, flock_unlock, lock_owner },
                _ => Operation::Releasedir { handle },
            }
        }
    })
}

fn lock(opcode: Opcode, mut rest: Arguments<'_>) -> Result<Operation<'_>, &'static str> {
    let abi::LkIn { fh: handle, owner, lk, lk_flags, .. } = rest.take()?;
    let kind = match lk.kind.cast_signed() {
        nix::libc::F_RDLCK => LockKind::Shared,
        nix::libc::F_WRLCK => LockKind::Exclusive,
        nix::libc::F_UNLCK => LockKind::None,
        _ => return Err("it is about a lock of no kind"),
    };
    let (lock, flock) = (Lock { start: lk.start, end: lk.end, kind, pid: lk.pid }, lk_flags & abi::LK_FLOCK != 0);
    Ok(match opcode {
        Opcode::Getlk => Operation::Getlk { handle, owner, lock, flock },
        _ => Operation::Setlk { handle, owner, lock, flock, waits: opcode == Opcode::Setlkw },
    })
}
