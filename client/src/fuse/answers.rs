//! What requests have in common.

use super::convert::{attr, error};
use super::{Fuse, GENERATION};
use crate::limits::CACHE_TIME;
use crate::view::View;
use fuser::{Errno, INodeNo, ReplyEmpty, ReplyEntry, ReplyXattr};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::{Attr, FileKind};
use mojavefs::protocol::{ConnectionExt, Request};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// What a new file is made from.
pub(super) struct New<'a> {
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) umask: u32,
    pub(super) rdev: u32,
    pub(super) target: &'a [u8],
}

impl Fuse {
    /// Makes a file in the name of whoever asks.
    pub(super) fn create_file(
        &self,
        req: &fuser::Request,
        parent: INodeNo,
        name: &OsStr,
        new: New<'_>,
    ) -> Result<Attr, Fault> {
        self.view.give(Request::Create {
            view: self.view.id(),
            parent: Ino(parent.0),
            name: name.as_bytes(),
            kind: new.kind,
            mode: new.mode & 0o7777,
            umask: new.umask,
            uid: req.uid(),
            gid: req.gid(),
            rdev: new.rdev,
            target: new.target,
        })
    }

    /// Something about no file that is the kernel's to cache.
    pub(super) fn done(&self, request: Request<'_>, reply: ReplyEmpty) {
        match self.view.server().done(request) {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    /// The same on a thread that may wait for the disk.
    pub(super) fn done_slowly(
        &self,
        reply: ReplyEmpty,
        request: impl FnOnce(&View) -> Request<'static> + Send + 'static,
    ) {
        let view = self.view.clone();
        self.slow.run(move || match view.server().done(request(&view)) {
            Ok(()) => reply.ok(),
            Err(fault) => reply.error(error(&fault)),
        });
    }

    /// What a name leads to.
    pub(super) fn entry(&self, result: Result<Attr, Fault>, reply: ReplyEntry) {
        match result {
            Ok(found) => reply.entry(&CACHE_TIME, &attr(&found), GENERATION),
            Err(fault) => reply.error(error(&fault)),
        }
    }

    /// A value, or how long it is, if there is no room for it.
    pub(super) fn xattr(&self, result: Result<Vec<u8>, Fault>, size: u32, reply: ReplyXattr) {
        match result {
            Ok(value) if size == 0 => reply.size(value.len() as u32),
            Ok(value) if value.len() <= size as usize => reply.data(&value),
            Ok(_) => reply.error(Errno::ERANGE),
            Err(fault) => reply.error(error(&fault)),
        }
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
