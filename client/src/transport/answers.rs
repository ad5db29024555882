//! How answers are given.

use super::convert::{attr, error};
use super::{Fuse, GENERATION, NO_HANDLE};
use crate::limits::CACHE_TIME;
use fuser::{
    Errno, FopenFlags, INodeNo, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};
use mojavefs::id::Ino;
use mojavefs::limits::NAME_BYTES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind};
use mojavefs::protocol::{Caller, SpaceInfo};
use mojavefs_fs::{Call, Given, NewFile};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Makes a file.
pub(super) fn create<R>(
    parent: INodeNo,
    name: &OsStr,
    new: NewFile,
) -> impl Fn(&Call<'_>, &mut R) -> Result<Given, Fault> + Send + use<R> {
    let (parent, name) = (Ino(parent.0), name.as_bytes().to_vec());
    move |call, _| call.create(parent, &name, &new)
}

impl Fuse {
    /// Asks for something that may wait for the disk.
    pub(super) fn done_slowly(
        &self,
        reply: ReplyEmpty,
        work: impl Fn(&Call<'_>) -> Result<(), Fault> + Send + 'static,
    ) {
        let door = self.door.clone();
        self.slow.run(move || door.answer(Caller::KERNEL, reply, move |call, _| work(call), done));
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
pub(super) fn time(lasts: bool) -> Duration {
    if lasts { CACHE_TIME } else { Duration::ZERO }
}

/// What a name that was made leads to; false if the kernel must not keep that.
pub(super) fn entry(reply: ReplyEntry, result: Result<Given, Fault>) {
    match result {
        Ok((found, lasts)) => reply.entry(&time(lasts), &attr(&found), GENERATION),
        Err(fault) => reply.error(error(&fault)),
    }
}

/// What a name leads to; false if the kernel must not keep that.
pub(super) fn looked_up(reply: ReplyEntry, result: Result<Given, Fault>) {
    match result {
        Err(fault) if fault.kind == FaultKind::NotFound => reply.entry(&CACHE_TIME, &attr(&absent()), GENERATION),
        result => entry(reply, result),
    }
}

/// A file that was made and is open, and whether the kernel may keep what it is told; `exclusively` if it had to be new.
pub(super) fn created(reply: ReplyCreate, result: Result<Given, Fault>, exclusively: bool) {
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
pub(super) fn attributes(reply: ReplyAttr, result: Result<Given, Fault>) {
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
