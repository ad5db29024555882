//! The crate fuser as a transport: what it tells of requests, as they are ([`Operation`]), and its replies. What it does not tell is in
//! `docs/fuse.md`.

use super::OFFER;
use super::privileges::keeps_set_ids;
use super::reply::Reply;
use super::requests::Requests;
use crate::limits::FUSE_THREADS;
use ::fuser::{
    BackgroundSession, BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Session,
    SessionACL, TimeOrNow, WriteFlags,
};
use mojavefs::protocol::Caller;
use mojavefs_fuse::protocol::{self, Creation, Operation, Request, SetAttributes, SetTime};
use nix::libc;
use parking_lot::Mutex;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

mod replies;

use replies::Replied;

/// A connection that fuser reads from.
pub(super) struct Connection(Mutex<Option<BackgroundSession>>);

impl Connection {
    /// Waits until the mount is gone.
    pub(super) fn join(&self) -> io::Result<()> {
        let session = self.0.lock().take();
        session.map_or(Ok(()), BackgroundSession::join)
    }
}

/// Answers the kernel behind `device`, on threads of its own.
pub(super) fn start(device: OwnedFd, requests: Requests) -> io::Result<Connection> {
    let mut config = Config::default();
    config.n_threads = Some(FUSE_THREADS);
    config.clone_fd = true;
    config.acl = SessionACL::All;
    let session = Session::from_fd(Fuser(requests), device, SessionACL::All, config)?;
    Ok(Connection(Mutex::new(Some(session.spawn()?))))
}

struct Fuser(Requests);

impl Fuser {
    fn carry_out(&self, req: &::fuser::Request, ino: INodeNo, operation: Operation<'_>, reply: impl Into<Replied>) {
        let (node, uid, gid, pid) = (ino.0, req.uid(), req.gid(), req.pid());
        // Nothing here is answered by number.
        self.0.carry_out(Request { unique: 0, node, uid, gid, pid, operation }, reply.into());
    }
}

fn time(set: TimeOrNow) -> SetTime {
    let TimeOrNow::SpecificTime(time) = set else { return SetTime::Now };
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SetTime::At(since.as_secs().cast_signed(), since.subsec_nanos()),
        Err(before) => {
            let before = before.duration();
            let nanos = before.subsec_nanos();
            let seconds = -before.as_secs().cast_signed() - i64::from(nanos > 0);
            SetTime::At(seconds, if nanos > 0 { 1_000_000_000 - nanos } else { 0 })
        }
    }
}

fn creation(mode: u32, umask: u32, rdev: u32) -> Creation {
    Creation { mode, umask, rdev, group: None }
}

impl Filesystem for Fuser {
    fn init(&mut self, _req: &::fuser::Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::from_bits_truncate(OFFER.required.0);
        if let Err(missing) = config.add_capabilities(wanted) {
            return Err(io::Error::other(format!("the kernel lacks FUSE features: {missing:?}")));
        }
        if config.set_max_write(OFFER.io_bytes).is_err() {
            return Err(io::Error::other(format!("the kernel does not take writes of {} bytes", OFFER.io_bytes)));
        }
        if let Err(most) = config.set_max_readahead(OFFER.io_bytes) {
            config.set_max_readahead(most).map_err(|_| io::Error::other("the kernel refuses its own read-ahead"))?;
        }
        config.set_max_background(OFFER.background).map_err(|_| io::Error::other("no background requests"))?;
        Ok(())
    }

    fn lookup(&self, req: &::fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.carry_out(req, parent, Operation::Lookup { name: name.as_bytes() }, reply);
    }

    fn forget(&self, req: &::fuser::Request, ino: INodeNo, nlookup: u64) {
        self.carry_out(req, ino, Operation::Forget(vec![(ino.0, nlookup)]), Replied::Nothing);
    }

    fn getattr(&self, req: &::fuser::Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.carry_out(req, ino, Operation::Getattr { handle: fh.map(|fh| fh.0) }, reply);
    }

    fn setattr(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let (atime, mtime, handle) = (atime.map(time), mtime.map(time), fh.map(|fh| fh.0));
        // Whether the caller may keep set-id bits is not told.
        let caller = Caller { pid: req.pid(), uid: req.uid(), gid: req.gid() };
        let kill_set_id = size.is_some() && !keeps_set_ids(caller);
        let set = SetAttributes { mode, uid, gid, size, atime, mtime, handle, kill_set_id };
        self.carry_out(req, ino, Operation::Setattr(set), reply);
    }

    fn readlink(&self, req: &::fuser::Request, ino: INodeNo, reply: ReplyData) {
        self.carry_out(req, ino, Operation::Readlink, reply);
    }

    fn mknod(
        &self,
        req: &::fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (name, new) = (name.as_bytes(), creation(mode, umask, rdev));
        self.carry_out(req, parent, Operation::Make { name, new }, reply);
    }

    fn mkdir(&self, req: &::fuser::Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let new = creation(libc::S_IFDIR | mode & !libc::S_IFMT, umask, 0);
        self.carry_out(req, parent, Operation::Make { name: name.as_bytes(), new }, reply);
    }

    fn unlink(&self, req: &::fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.carry_out(req, parent, Operation::Unlink { name: name.as_bytes() }, reply);
    }

    fn rmdir(&self, req: &::fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.carry_out(req, parent, Operation::Rmdir { name: name.as_bytes() }, reply);
    }

    fn symlink(&self, req: &::fuser::Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let (name, target) = (name.as_bytes(), target.as_os_str().as_bytes());
        self.carry_out(req, parent, Operation::Symlink { name, target, group: None }, reply);
    }

    fn rename(
        &self,
        req: &::fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, to, new_name, flags) = (name.as_bytes(), newparent.0, newname.as_bytes(), flags.bits());
        self.carry_out(req, parent, Operation::Rename { name, to, new_name, flags }, reply);
    }

    fn link(&self, req: &::fuser::Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.carry_out(req, newparent, Operation::Link { ino: ino.0, name: newname.as_bytes() }, reply);
    }

    fn open(&self, req: &::fuser::Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (flags, kill_set_id) = (flags.0.cast_unsigned(), req.uid() != 0);
        let runs = flags & protocol::abi::FMODE_EXEC != 0;
        self.carry_out(req, ino, Operation::Open { flags, runs, kill_set_id }, reply);
    }

    fn create(
        &self,
        req: &::fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (name, new, flags) = (name.as_bytes(), creation(mode, umask, 0), flags.cast_unsigned());
        self.carry_out(req, parent, Operation::Create { name, new, flags, kill_set_id: false }, reply);
    }

    fn read(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let flags = flags.0.cast_unsigned();
        self.carry_out(req, ino, Operation::Read { handle: fh.0, offset, size, flags, lock_owner: 0 }, reply);
    }

    fn write(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (from, flags) = (protocol::WriteFlags(write_flags.bits()), flags.0.cast_unsigned());
        self.carry_out(req, ino, Operation::Write { handle: fh.0, offset, data, from, flags, lock_owner: 0 }, reply);
    }

    fn flush(&self, req: &::fuser::Request, ino: INodeNo, fh: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        self.carry_out(req, ino, Operation::Flush { handle: fh.0, lock_owner: owner.0 }, reply);
    }

    fn release(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        flush: bool,
        reply: ReplyEmpty,
    ) {
        let (handle, flags) = (fh.0, flags.0.cast_unsigned());
        self.carry_out(
            req,
            ino,
            Operation::Release { handle, flags, flush, flock_unlock: false, lock_owner: 0 },
            reply,
        );
    }

    fn fsync(&self, req: &::fuser::Request, ino: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.carry_out(req, ino, Operation::Fsync { handle: fh.0, data_only }, reply);
    }

    fn opendir(&self, req: &::fuser::Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.carry_out(req, ino, Operation::Opendir { flags: flags.0.cast_unsigned() }, reply);
    }

    fn readdir(&self, req: &::fuser::Request, ino: INodeNo, fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        let (handle, size) = (fh.0, replies::PAGE_BYTES);
        self.carry_out(req, ino, Operation::Readdir { handle, offset, size, attributes: false }, reply);
    }

    fn readdirplus(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (handle, size) = (fh.0, replies::PAGE_BYTES);
        self.carry_out(req, ino, Operation::Readdir { handle, offset, size, attributes: true }, reply);
    }

    fn releasedir(&self, req: &::fuser::Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.carry_out(req, ino, Operation::Releasedir { handle: fh.0 }, reply);
    }

    fn fsyncdir(&self, req: &::fuser::Request, ino: INodeNo, fh: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.carry_out(req, ino, Operation::Fsyncdir { handle: fh.0, data_only }, reply);
    }

    fn statfs(&self, req: &::fuser::Request, ino: INodeNo, reply: ReplyStatfs) {
        self.carry_out(req, ino, Operation::Statfs, reply);
    }

    fn setxattr(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (name, flags) = (name.as_bytes(), flags.cast_unsigned());
        self.carry_out(req, ino, Operation::Setxattr { name, value, flags, kill_set_gid: false }, reply);
    }

    fn getxattr(&self, req: &::fuser::Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        self.carry_out(req, ino, Operation::Getxattr { name: name.as_bytes(), size }, reply);
    }

    fn listxattr(&self, req: &::fuser::Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.carry_out(req, ino, Operation::Listxattr { size }, reply);
    }

    fn removexattr(&self, req: &::fuser::Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.carry_out(req, ino, Operation::Removexattr { name: name.as_bytes() }, reply);
    }

    fn fallocate(
        &self,
        req: &::fuser::Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mode = mode.cast_unsigned();
        self.carry_out(req, ino, Operation::Fallocate { handle: fh.0, offset, length, mode }, reply);
    }

    fn lseek(&self, req: &::fuser::Request, ino: INodeNo, fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let (offset, whence) = (offset.cast_unsigned(), whence.cast_unsigned());
        self.carry_out(req, ino, Operation::Lseek { handle: fh.0, offset, whence }, reply);
    }

    fn copy_file_range(
        &self,
        req: &::fuser::Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let (from, to) = ((fh_in.0, offset_in), (ino_out.0, fh_out.0, offset_out));
        self.carry_out(req, ino_in, Operation::CopyFileRange { from, to, length, flags: 0, wide: false }, reply);
    }
}

fn errno(errno: nix::errno::Errno) -> Errno {
    Errno::from_i32(errno as i32)
}
