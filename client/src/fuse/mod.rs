//! Kernel requests <-> operations on a view, and nothing else: the only place that knows fuser.

mod answers;
mod convert;
mod holes;
mod serve;
mod slow;

pub(crate) use serve::serve_at;
pub(crate) use serve::{Kernel, serve};

use crate::limits::{BACKGROUND_REQUESTS_MAX, CACHE_TIME};
use crate::view::{CONTROL_XATTR, Caller, View};
use answers::{New, absent};
use convert::{attr, error, kind_of_mode, set_time};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
    WriteFlags,
};
use holes::Search;
use mojavefs::id::Ino;
use mojavefs::limits::{IO_BYTES_MAX, NAME_BYTES_MAX};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind, SetAttr};
use mojavefs::protocol::{ConnectionExt, FallocateMode, RenameMode, Request, SeekWhence, XattrMode};
use nix::libc;
use slow::Slow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

const GENERATION: Generation = Generation(0);
/// No names are given by handle: everything is known by inode.
const NO_HANDLE: FileHandle = FileHandle(0);

/// One view as fuser drives it.
struct Fuse {
    view: Arc<View>,
    slow: Slow,
    /// How the kernel is told, as soon as it listens.
    notifier: Arc<OnceLock<Notifier>>,
}

impl Filesystem for Fuse {
    fn init(&mut self, _req: &fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_READDIRPLUS_AUTO
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::FUSE_HANDLE_KILLPRIV_V2
            | InitFlags::FUSE_POSIX_ACL
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_NO_OPEN_SUPPORT
            | InitFlags::FUSE_ASYNC_DIO;
        if let Err(missing) = config.add_capabilities(wanted) {
            return Err(io::Error::other(format!("the kernel lacks FUSE features: {missing:?}")));
        }
        let limited = |result: Result<u32, u32>| result.map(drop);
        if limited(config.set_max_write(IO_BYTES_MAX as u32)).is_err() {
            return Err(io::Error::other(format!("the kernel does not take writes of {IO_BYTES_MAX} bytes")));
        }
        if let Err(most) = config.set_max_readahead(IO_BYTES_MAX as u32) {
            config.set_max_readahead(most).map_err(|_| io::Error::other("the kernel refuses its own read-ahead"))?;
        }
        config.set_max_background(BACKGROUND_REQUESTS_MAX).map_err(|_| io::Error::other("no background requests"))?;
        Ok(())
    }

    fn lookup(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _caller = Caller::is(req.pid());
        match self.view.give_entry(Ino(parent.0), name.as_bytes(), req.pid()) {
            Err(fault) if fault.kind == FaultKind::NotFound => reply.entry(&CACHE_TIME, &attr(&absent()), GENERATION),
            Ok((found, false)) => reply.entry(&Duration::ZERO, &attr(&found), GENERATION),
            result => self.entry(result.map(|(found, _)| found), reply),
        }
    }

    fn forget(&self, _req: &fuser::Request, ino: INodeNo, nlookup: u64) {
        self.view.forget(std::iter::once((Ino(ino.0), nlookup)));
    }

    fn getattr(&self, req: &fuser::Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _caller = Caller::is(req.pid());
        match self.view.attributes(Ino(ino.0), req.pid()) {
            Ok((found, true)) => reply.attr(&CACHE_TIME, &attr(&found)),
            Ok((found, false)) => reply.attr(&Duration::ZERO, &attr(&found)),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn setattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _caller = Caller::is(req.pid());
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            // Whether the caller may keep set-id bits is hidden from us here; root may.
            clear_set_id: size.is_some() && req.uid() != 0,
        };
        match self.view.server().attr(Request::SetAttr { view: self.view.id(), ino: Ino(ino.0), set }) {
            Ok(found) => reply.attr(&CACHE_TIME, &attr(&found)),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn readlink(&self, req: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        let _caller = Caller::is(req.pid());
        match self.view.server().data(Request::ReadLink { view: self.view.id(), ino: Ino(ino.0) }) {
            Ok(target) => reply.data(&target),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn mknod(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _caller = Caller::is(req.pid());
        let Some(kind) = kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        self.entry(self.create_file(req, parent, name, New { kind, mode, umask, rdev, target: b"" }), reply);
    }

    fn mkdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _caller = Caller::is(req.pid());
        let new = New { kind: FileKind::Directory, mode, umask, rdev: 0, target: b"" };
        self.entry(self.create_file(req, parent, name, new), reply);
    }

    fn unlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _caller = Caller::is(req.pid());
        let name = name.as_bytes();
        self.done(Request::Unlink { view: self.view.id(), parent: Ino(parent.0), name }, reply);
    }

    fn rmdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _caller = Caller::is(req.pid());
        let name = name.as_bytes();
        self.done(Request::RemoveDir { view: self.view.id(), parent: Ino(parent.0), name }, reply);
    }

    fn symlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _caller = Caller::is(req.pid());
        let target = target.as_os_str().as_bytes();
        let new = New { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0, target };
        self.entry(self.create_file(req, parent, name, new), reply);
    }

    fn rename(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _caller = Caller::is(req.pid());
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let request = Request::Rename {
            view: self.view.id(),
            parent: Ino(parent.0),
            name: name.as_bytes(),
            new_parent: Ino(newparent.0),
            new_name: newname.as_bytes(),
            mode,
        };
        self.done(request, reply);
    }

    fn link(&self, req: &fuser::Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let _caller = Caller::is(req.pid());
        let (parent, name) = (Ino(newparent.0), newname.as_bytes());
        self.entry(self.view.give(Request::Link { view: self.view.id(), ino: Ino(ino.0), parent, name }), reply);
    }

    fn open(&self, _req: &fuser::Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        // Nothing depends on it: the kernel need not ask again.
        reply.error(Errno::ENOSYS);
    }

    fn create(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _caller = Caller::is(req.pid());
        let new = New { kind: FileKind::Regular, mode, umask, rdev: 0, target: b"" };
        match self.create_file(req, parent, name, new) {
            Ok(made) => reply.created(&CACHE_TIME, &attr(&made), GENERATION, NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE),
            // Somebody else was first, which is as good: the kernel looks again, and opens what is there by its own rules.
            Err(fault) if fault.kind == FaultKind::Exists && flags & libc::O_EXCL == 0 => reply.error(Errno::ESTALE),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn read(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let cached = flags.0 & libc::O_DIRECT == 0;
        match self.view.read(Ino(ino.0), offset, size, cached) {
            Ok(data) => reply.data(&data),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn write(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        // For what the kernel writes out by itself nobody waits in a call.
        let _caller = (!write_flags.contains(WriteFlags::FUSE_WRITE_CACHE)).then(|| Caller::is(req.pid()));
        let append = flags.0 & nix::libc::O_APPEND != 0;
        let clear_set_id = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let request = Request::Write { view: self.view.id(), ino: Ino(ino.0), offset, data, append, clear_set_id };
        match self.view.server().offset(request) {
            Ok(_) => reply.written(data.len() as u32),
            // Written out by the kernel after its speculation was undone: nobody waits for it any more.
            Err(fault) if fault.kind == FaultKind::Stale && write_flags.contains(WriteFlags::FUSE_WRITE_CACHE) => {
                reply.written(data.len() as u32);
            }
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn flush(&self, _req: &fuser::Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        match self.view.settles() {
            // Most often there is nothing to wait for, and no other thread is needed to find that out.
            true if self.view.server().is_embedded()
                && self.view.server().done(Request::Settle { view: self.view.id(), wait: false }).is_ok() =>
            {
                reply.ok();
            }
            true => self.done_slowly(reply, |view| Request::Settle { view: view.id(), wait: true }),
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn fsync(&self, _req: &fuser::Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.view.syncs() {
            true => self.done_slowly(reply, move |view| Request::Fsync { view: view.id(), ino: Ino(ino.0) }),
            // Durable when it commits: the kernel need not ask again.
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn opendir(&self, _req: &fuser::Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.view.open_dir(Ino(ino.0))), FopenFlags::empty());
    }

    fn readdir(&self, req: &fuser::Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let _caller = Caller::is(req.pid());
        let dir = match self.view.dir(fh.0) {
            Ok(dir) => dir,
            Err(fault) => return reply.error(error(&fault)),
        };
        let mut listing = dir.lock();
        if offset == 0 {
            listing.rewind(&self.view);
        }
        let mut position = offset as usize;
        loop {
            match listing.entry(&self.view, position) {
                Ok(Some(entry)) => {
                    position += 1;
                    let name = OsStr::from_bytes(&entry.name);
                    if reply.add(INodeNo(entry.ino.0), position as u64, convert::kind(entry.kind), name) {
                        return reply.ok();
                    }
                }
                Ok(None) => return reply.ok(),
                // What comes before it is said first; then it is met again.
                Err(_) if position > offset as usize => return reply.ok(),
                Err(fault) => return reply.error(error(&fault)),
            }
        }
    }

    fn readdirplus(
        &self,
        req: &fuser::Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _caller = Caller::is(req.pid());
        let dir = match self.view.dir(fh.0) {
            Ok(dir) => dir,
            Err(fault) => return reply.error(error(&fault)),
        };
        let mut listing = dir.lock();
        if offset == 0 {
            listing.rewind(&self.view);
        }
        let (dir, mut position, mut is_empty) = (listing.ino(), offset as usize, true);
        loop {
            let entry = match listing.entry(&self.view, position) {
                Ok(Some(entry)) => entry,
                Ok(None) => return reply.ok(),
                Err(_) if !is_empty => return reply.ok(),
                Err(fault) => return reply.error(error(&fault)),
            };
            position += 1;
            let name = OsStr::from_bytes(&entry.name);
            let plain = Attr { ino: entry.ino, kind: entry.kind, ..absent() };
            // The kernel does not count `.` and `..` as looked up.
            let given = match position {
                ..=2 => None,
                _ => match self.view.give_listed(dir, &entry.name) {
                    Ok(given) => Some(given),
                    Err(fault) if fault.kind == FaultKind::NotFound => continue,
                    // What comes before it is said first; then it is met again.
                    Err(_) if !is_empty => return reply.ok(),
                    Err(fault) => return reply.error(error(&fault)),
                },
            };
            let (shown, time) = match &given {
                Some((given, true)) => (given, CACHE_TIME),
                Some((given, false)) => (given, Duration::ZERO),
                None => (&plain, Duration::ZERO),
            };
            if reply.add(INodeNo(shown.ino.0), position as u64, name, &time, &attr(shown), GENERATION) {
                if let Some((given, _)) = given {
                    self.view.take_back(given.ino);
                }
                return reply.ok();
            }
            is_empty = false;
        }
    }

    fn releasedir(&self, _req: &fuser::Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.view.close_dir(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, req: &fuser::Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    fn statfs(&self, _req: &fuser::Request, _ino: INodeNo, reply: ReplyStatfs) {
        const UNIT: u64 = 4096;
        match self.view.server().space(Request::StatFs { view: self.view.id() }) {
            Ok(space) => reply.statfs(
                space.total_bytes / UNIT,
                space.free_bytes / UNIT,
                space.available_bytes / UNIT,
                space.files + space.files_free,
                space.files_free,
                UNIT as u32,
                NAME_BYTES_MAX as u32,
                UNIT as u32,
            ),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    fn setxattr(
        &self,
        req: &fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _caller = Caller::is(req.pid());
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        if name == CONTROL_XATTR {
            return reply.error(Errno::EPERM);
        }
        let (view, ino, name) = (self.view.id(), Ino(ino.0), name.as_bytes());
        self.done(Request::SetXattr { view, ino, name, value, mode }, reply);
    }

    fn getxattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _caller = Caller::is(req.pid());
        let value = match name == CONTROL_XATTR {
            true => Ok(self.view.control().to_vec()),
            false => {
                let (view, ino, name) = (self.view.id(), Ino(ino.0), name.as_bytes());
                self.view.server().data(Request::GetXattr { view, ino, name })
            }
        };
        self.xattr(value, size, reply);
    }

    fn listxattr(&self, req: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let _caller = Caller::is(req.pid());
        let names = self.view.server().names(Request::ListXattr { view: self.view.id(), ino: Ino(ino.0) });
        let joined = names.map(|names| names.into_iter().flat_map(|name| [name, vec![0]].concat()).collect());
        self.xattr(joined, size, reply);
    }

    fn removexattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _caller = Caller::is(req.pid());
        let (view, ino, name) = (self.view.id(), Ino(ino.0), name.as_bytes());
        self.done(Request::RemoveXattr { view, ino, name }, reply);
    }

    fn fallocate(
        &self,
        _req: &fuser::Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let mode = match mode & !libc::FALLOC_FL_KEEP_SIZE {
            0 => FallocateMode::Allocate { keep_size },
            libc::FALLOC_FL_PUNCH_HOLE => FallocateMode::PunchHole,
            libc::FALLOC_FL_ZERO_RANGE => FallocateMode::ZeroRange { keep_size },
            _ => return reply.error(Errno::EOPNOTSUPP),
        };
        let ino = Ino(ino.0);
        self.done_slowly(reply, move |view| Request::Fallocate { view: view.id(), ino, offset, len: length, mode });
    }

    fn lseek(&self, req: &fuser::Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let _caller = Caller::is(req.pid());
        let whence = match whence {
            libc::SEEK_DATA => SeekWhence::Data,
            libc::SEEK_HOLE => SeekWhence::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let (view, notifier) = (self.view.clone(), self.notifier.clone());
        let search = Search { view, notifier, caller: req.pid(), ino: Ino(ino.0), offset, whence };
        let answer = |reply: ReplyLseek, found: Result<u64, Fault>| match found {
            Ok(found) => reply.offset(found.cast_signed()),
            Err(fault) => reply.error(error(&fault)),
        };
        match search.without_hole() {
            Some(found) => answer(reply, found),
            None => self.slow.run_by_turn(move |turn| answer(reply, search.with_holes(turn))),
        }
    }

    fn copy_file_range(
        &self,
        _req: &fuser::Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let view = self.view.clone();
        self.slow.run(move || {
            let request = Request::CopyRange {
                view: view.id(),
                ino: Ino(ino_in.0),
                offset: offset_in,
                to: Ino(ino_out.0),
                to_offset: offset_out,
                len,
            };
            match view.server().offset(request) {
                Ok(copied) => reply.written(copied as u32),
                Err(fault) => reply.error(error(&fault)),
            }
        });
    }
}
