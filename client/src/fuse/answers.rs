//! What requests have in common: how files are made, and how answers are given.

use super::convert::{attr, error};
use super::{Fuse, GENERATION, KERNEL, NO_HANDLE};
use crate::limits::CACHE_TIME;
use crate::view::View;
use fuser::{
    Errno, FopenFlags, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};
use mojavefs::id::Ino;
use mojavefs::limits::NAME_BYTES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind};
use mojavefs::protocol::{ConnectionExt, Request, SpaceInfo};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// What a new file is made from.
pub(super) struct New {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) rdev: u32,
    pub(super) target: Vec<u8>,
}

/// Makes a file in the name of whoever asks.
pub(super) fn create<R>(
    req: &fuser::Request,
    parent: INodeNo,
    name: &OsStr,
    new: New,
) -> impl Fn(&View, &mut R) -> Result<(Attr, bool), Fault> + Send + use<R> {
    let (uid, gid, parent, name) = (req.uid(), req.gid(), Ino(parent.0), name.as_bytes().to_vec());
    move |view, _| {
        view.give(Request::Create {
            view: view.id(),
            parent,
            name: &name,
            kind: new.kind,
            mode: new.mode & 0o7777,
            umask: new.umask,
            uid,
            gid,
            rdev: new.rdev,
            target: &new.target,
        })
    }
}

impl Fuse {
    /// Asks for something that may wait for the disk.
    pub(super) fn done_slowly(&self, reply: ReplyEmpty, request: impl Fn(&View) -> Request<'static> + Send + 'static) {
        let door = self.door.clone();
        self.slow.run(move || door.answer(KERNEL, reply, move |view, _| view.server().done(request(view)), done));
    }
}

/// Something about no file that is the kernel's to cache.
pub(super) fn done(reply: ReplyEmpty, result: Result<(), Fault>) {
    match result {
        Ok(()) => reply.ok(),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// How long the kernel keeps what it is told, if it may.
fn time(lasts: bool) -> Duration {
    if lasts { CACHE_TIME } else { Duration::ZERO }
}

/// What a name that was made leads to; false if the kernel must not keep that.
pub(super) fn entry(reply: ReplyEntry, result: Result<(Attr, bool), Fault>) {
    match result {
        Ok((found, lasts)) => reply.entry(&time(lasts), &attr(&found), GENERATION),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// What a name leads to; false if the kernel must not keep that.
pub(super) fn looked_up(reply: ReplyEntry, result: Result<(Attr, bool), Fault>) {
    match result {
        Err(fault) if fault.kind == FaultKind::NotFound => reply.entry(&CACHE_TIME, &attr(&absent()), GENERATION),
        result => entry(reply, result),
    }
}

/// A file that was made and is open, and whether the kernel may keep what it is told; `exclusively` if it had to be new.
pub(super) fn created(reply: ReplyCreate, result: Result<(Attr, bool), Fault>, exclusively: bool) {
    match result {
        Ok((made, lasts)) => {
            reply.created(&time(lasts), &attr(&made), GENERATION, NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE);
        }
        // Somebody else was first, which is as good: the kernel looks again, and opens what is there by its own rules.
        Err(fault) if fault.kind == FaultKind::Exists && !exclusively => reply.error(Errno::ESTALE),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// A file's attributes; false if the kernel must not keep them.
pub(super) fn attributes(reply: ReplyAttr, result: Result<(Attr, bool), Fault>) {
    match result {
        Ok((found, lasts)) => reply.attr(&time(lasts), &attr(&found)),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// Bytes.
pub(super) fn data(reply: ReplyData, result: Result<Vec<u8>, Fault>) {
    match result {
        Ok(data) => reply.data(&data),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// How many bytes were written.
pub(super) fn written(reply: ReplyWrite, result: Result<u32, Fault>) {
    match result {
        Ok(count) => reply.written(count),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// A place in a file.
pub(super) fn offset(reply: ReplyLseek, result: Result<u64, Fault>) {
    match result {
        Ok(found) => reply.offset(found.cast_signed()),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// A value, or how long it is, if there is no room for it.
pub(super) fn xattr(reply: ReplyXattr, result: Result<Vec<u8>, Fault>, size: u32) {
    match result {
        Ok(value) if size == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(Errno::ERANGE),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// The space under the store.
pub(super) fn space(reply: ReplyStatfs, result: Result<SpaceInfo, Fault>) {
    const UNIT: u64 = 4096;
    match result {
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

/// A name that is not there, for the kernel to remember.
pub(super) fn absent() -> Attr {
    let time = mojavefs::protocol::file::Time::default();
    Attr {
        ino: Ino(0),
        kind: FileKind::Regular,
        mode: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
    }
}
