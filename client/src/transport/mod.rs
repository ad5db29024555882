//! Kernel requests <-> the operations of [`mojavefs_fs`], and nothing else: the only place that knows fuser.

mod answers;
mod convert;
mod door;
mod listing;
mod serve;
mod slow;

pub(crate) use serve::serve_at;
pub(crate) use serve::{Kernel, serve};

use crate::limits::BACKGROUND_REQUESTS_MAX;
use answers::create;
use convert::{error, kind_of_mode, set_time};
use door::Door;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, TimeOrNow,
    WriteFlags,
};
use mojavefs::id::Ino;
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{Caller, FallocateMode, Reads, RenameMode, SeekWhence, XattrMode};
use mojavefs_fs::{Call, NewFile, Patience, Rename, Write, WritesOut};
use nix::libc;
use serve::Pages;
use slow::{Slow, Turn};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

const GENERATION: Generation = Generation(0);
/// No names are given by handle: everything is known by inode.
const NO_HANDLE: FileHandle = FileHandle(0);

/// Who asks.
fn caller(req: &fuser::Request) -> Caller {
    Caller { pid: req.pid(), uid: req.uid(), gid: req.gid() }
}

/// One view as fuser drives it.
struct Fuse {
    door: Door,
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
        let (parent, name) = (Ino(parent.0), name.as_bytes().to_vec());
        self.door.answer(caller(req), reply, move |call, _| call.look_up(parent, &name), answers::looked_up);
    }

    fn forget(&self, _req: &fuser::Request, ino: INodeNo, nlookup: u64) {
        self.door.view().forget(std::iter::once((Ino(ino.0), nlookup)));
    }

    fn getattr(&self, req: &fuser::Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let ino = Ino(ino.0);
        self.door.answer(caller(req), reply, move |call, _| call.attributes(ino), answers::attributes);
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
        let set = SetAttr {
            mode: mode.map(|mode| mode & 0o7777),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            clear_set_id: false,
        };
        let ino = Ino(ino.0);
        self.door.answer(caller(req), reply, move |call, _| call.set_attributes(ino, &set), answers::attributes);
    }

    fn readlink(&self, req: &fuser::Request, ino: INodeNo, reply: ReplyData) {
        let ino = Ino(ino.0);
        self.door.answer(caller(req), reply, move |call, _| call.read_link(ino), answers::data);
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
        let Some(kind) = kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        let new = NewFile { kind, mode, umask, rdev, target: Vec::new() };
        self.door.answer(caller(req), reply, create(parent, name, new), answers::entry);
    }

    fn mkdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let new = NewFile { kind: FileKind::Directory, mode, umask, rdev: 0, target: Vec::new() };
        self.door.answer(caller(req), reply, create(parent, name, new), answers::entry);
    }

    fn unlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (Ino(parent.0), name.as_bytes().to_vec());
        self.door.answer(caller(req), reply, move |call, _| call.unlink(parent, &name), answers::done);
    }

    fn rmdir(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (parent, name) = (Ino(parent.0), name.as_bytes().to_vec());
        self.door.answer(caller(req), reply, move |call, _| call.remove_dir(parent, &name), answers::done);
    }

    fn symlink(&self, req: &fuser::Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let target = target.as_os_str().as_bytes().to_vec();
        let new = NewFile { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0, target };
        self.door.answer(caller(req), reply, create(parent, name, new), answers::entry);
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
        let mode = match flags {
            flags if flags.is_empty() => RenameMode::Replace,
            RenameFlags::RENAME_NOREPLACE => RenameMode::NoReplace,
            RenameFlags::RENAME_EXCHANGE => RenameMode::Exchange,
            _ => return reply.error(Errno::EINVAL),
        };
        let from = (Ino(parent.0), name.as_bytes().to_vec());
        let to = (Ino(newparent.0), newname.as_bytes().to_vec());
        let rename = Rename { from, to, mode };
        self.door.answer(caller(req), reply, move |call, _| call.rename(&rename), answers::done);
    }

    fn link(&self, req: &fuser::Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (ino, parent, name) = (Ino(ino.0), Ino(newparent.0), newname.as_bytes().to_vec());
        self.door.answer(caller(req), reply, move |call, _| call.link(ino, parent, &name), answers::entry);
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
        let new = NewFile { kind: FileKind::Regular, mode, umask, rdev: 0, target: Vec::new() };
        let end = move |reply: ReplyCreate, made| answers::created(reply, made, flags & libc::O_EXCL != 0);
        self.door.answer(caller(req), reply, create(parent, name, new), end);
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
        // Many are the kernel's own, which can't be interrupted for a checkpoint.
        let reads = match flags.0 {
            flags if flags & libc::O_DIRECT != 0 => Reads::Once,
            flags if flags & libc::O_ACCMODE == libc::O_RDWR => Reads::Mapped,
            _ => Reads::Kept,
        };
        let range = (Ino(ino.0), offset, u64::from(size));
        self.door.answer_read(range, reply, move |call, _| call.read(range, reads), answers::data);
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
        let by_kernel = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let write = Write {
            ino: Ino(ino.0),
            offset,
            append: flags.0 & libc::O_APPEND != 0,
            clear_set_id: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            by_kernel,
        };
        let count = data.len() as u32;
        let copied = || {
            // What was stored to pages of what is being replaced is all that is to be written to what replaces it.
            let range = (write.ino, offset, data.len() as u64);
            let before = by_kernel.then(|| self.door.at_once(Caller::KERNEL, |call| call.read(range, Reads::Once)));
            let (data, before) = (data.to_vec(), before.flatten().and_then(Result::ok));
            move |call: &Call<'_>, _: &mut ReplyWrite| match &before {
                Some(before) => call.write_stored(&write, before, &data),
                None => call.write(&write, &data),
            }
        };
        let end = move |reply: ReplyWrite, written: Result<u64, Fault>| match written {
            // Written out by the kernel after its speculation was undone: nobody waits for it any more.
            Err(fault) if fault.kind == FaultKind::Stale && by_kernel => reply.written(count),
            written => answers::written(reply, written.map(|_| count)),
        };
        let caller = if by_kernel { Caller::KERNEL } else { caller(req) };
        self.door.answer_write(caller, reply, |call| call.write(&write, data), copied, end);
    }

    fn flush(&self, _req: &fuser::Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        let view = self.door.view();
        match view.settles() {
            // Most often there is nothing to wait for, and no other thread is needed to find that out.
            true if view.server().is_embedded() && view.call(Caller::KERNEL, Patience::Own).close(false).is_ok() => {
                reply.ok();
            }
            true => self.done_slowly(reply, |call| call.close(true)),
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn fsync(&self, _req: &fuser::Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        match self.door.view().syncs() {
            true => self.done_slowly(reply, move |call| call.sync(Ino(ino.0))),
            // Durable when it commits: the kernel need not ask again.
            false => reply.error(Errno::ENOSYS),
        }
    }

    fn opendir(&self, _req: &fuser::Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(self.door.view().open_dir(Ino(ino.0))), FopenFlags::empty());
    }

    fn readdir(&self, req: &fuser::Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let work = move |call: &Call<'_>, reply: &mut ReplyDirectory| listing::names(call, fh.0, offset, reply);
        let end = |reply: ReplyDirectory, listed: Result<(), Fault>| match listed {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(error(&fault)),
        };
        self.door.answer(caller(req), reply, work, end);
    }

    fn readdirplus(&self, req: &fuser::Request, _ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let work = move |call: &Call<'_>, reply: &mut ReplyDirectoryPlus| listing::files(call, fh.0, offset, reply);
        let end = |reply: ReplyDirectoryPlus, listed: Result<(), Fault>| match listed {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(error(&fault)),
        };
        self.door.answer(caller(req), reply, work, end);
    }

    fn releasedir(&self, _req: &fuser::Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.door.view().close_dir(fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, req: &fuser::Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.fsync(req, ino, fh, datasync, reply);
    }

    fn statfs(&self, _req: &fuser::Request, _ino: INodeNo, reply: ReplyStatfs) {
        self.door.answer(Caller::KERNEL, reply, |call, _| call.space(), answers::space);
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
        let mode = match flags {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.error(Errno::EINVAL),
        };
        let (ino, name, value) = (Ino(ino.0), name.as_bytes().to_vec(), value.to_vec());
        let work = move |call: &Call<'_>, _: &mut ReplyEmpty| call.set_xattr(ino, &name, &value, mode);
        self.door.answer(caller(req), reply, work, answers::done);
    }

    fn getxattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let (ino, name) = (Ino(ino.0), name.as_bytes().to_vec());
        let end = move |reply: ReplyXattr, value| answers::xattr(reply, value, size);
        self.door.answer(caller(req), reply, move |call, _| call.xattr(ino, &name), end);
    }

    fn listxattr(&self, req: &fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let ino = Ino(ino.0);
        let end = move |reply: ReplyXattr, names| answers::xattr(reply, names, size);
        self.door.answer(caller(req), reply, move |call, _| call.xattrs(ino), end);
    }

    fn removexattr(&self, req: &fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (ino, name) = (Ino(ino.0), name.as_bytes().to_vec());
        self.door.answer(caller(req), reply, move |call, _| call.remove_xattr(ino, &name), answers::done);
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
        let range = (Ino(ino.0), offset, length);
        self.done_slowly(reply, move |call| call.fallocate(range, mode));
    }

    fn lseek(&self, req: &fuser::Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let whence = match whence {
            libc::SEEK_DATA => SeekWhence::Data,
            libc::SEEK_HOLE => SeekWhence::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let (ino, caller, door) = (Ino(ino.0), caller(req), self.door.clone());
        match door.at_once(caller, |call| call.seek_at_once(ino, offset, whence).transpose()) {
            Some(Ok(Some(found))) => reply.offset(found.cast_signed()),
            Some(Err(fault)) => reply.error(error(&fault)),
            Some(Ok(None)) | None => {
                let told_by = self.notifier.clone();
                self.slow.run_by_turn(move |turn| {
                    let work = move |call: &Call<'_>, _: &mut ReplyLseek| {
                        // Those that answer the kernel must not wait until others have.
                        let kernel = told_by.get().filter(|_| turn == Turn::Aside).map(Pages);
                        call.seek(ino, offset, whence, kernel.as_ref().map(|kernel| kernel as &dyn WritesOut))
                    };
                    door.answer(caller, reply, work, answers::offset);
                });
            }
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
        let (from, to) = ((Ino(ino_in.0), offset_in, len), (Ino(ino_out.0), offset_out));
        let (work, door) = (move |call: &Call<'_>, _: &mut ReplyWrite| call.copy(from, to), self.door.clone());
        let end = |reply: ReplyWrite, copied: Result<u64, Fault>| {
            answers::written(reply, copied.map(|copied| copied as u32));
        };
        self.slow.run(move || door.answer(Caller::KERNEL, reply, work, end));
    }
}
