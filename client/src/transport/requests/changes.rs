//! Names and attributes.

use super::{About, Requests};
use crate::transport::answers;
use crate::transport::convert::{kind_of_mode, set_time};
use crate::transport::reply::Reply;
use mojavefs::id::Ino;
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{RenameMode, XattrMode};
use mojavefs_fs::{Call, NewFile, Rename};
use mojavefs_fuse::protocol::{Creation, SetAttributes, Unnamed};
use nix::errno::Errno;
use nix::libc;

/// The part of a mode that is set and asked for.
const MODE_MASK: u32 = 0o7777;

fn new_file(kind: FileKind, new: &Creation) -> NewFile {
    NewFile { kind, mode: new.mode, umask: new.umask, rdev: new.rdev, target: Vec::new() }
}

impl Requests {
    pub(super) fn set_attributes(&self, about: About, set: &SetAttributes, reply: impl Reply) {
        let by_path = set.handle.is_none();
        let set = SetAttr {
            mode: set.mode.map(|mode| mode & MODE_MASK),
            uid: set.uid,
            gid: set.gid,
            size: set.size,
            atime: set.atime.map(set_time),
            mtime: set.mtime.map(set_time),
            clear_set_id: set.kill_set_id,
        };
        // By its path: who has opened it was asked for then.
        let writes = set.size.is_some() && by_path;
        self.answer(about, reply, move |call| {
            if writes {
                call.may_write(about.ino)?;
            }
            answers::found(call.set_attributes(about.ino, &set))
        });
    }

    pub(super) fn make(&self, about: About, name: &[u8], new: &Creation, reply: impl Reply) {
        let Some(kind) = kind_of_mode(new.mode) else { return reply.give(Err(Errno::EINVAL)) };
        let (name, new) = (name.to_vec(), new_file(kind, new));
        self.answer(about, reply, move |call| answers::made(call.create(about.ino, &name, &new)));
    }

    pub(super) fn symlink(&self, about: About, name: &[u8], target: &[u8], reply: impl Reply) {
        let (kind, target) = (FileKind::Symlink, target.to_vec());
        let (name, new) = (name.to_vec(), NewFile { kind, mode: 0o777, umask: 0, rdev: 0, target });
        self.answer(about, reply, move |call| answers::made(call.create(about.ino, &name, &new)));
    }

    pub(super) fn create(&self, about: About, (name, new): (&[u8], &Creation), flags: u32, reply: impl Reply) {
        let (name, new) = (name.to_vec(), new_file(FileKind::Regular, new));
        let handle = self.door.view().next_handle();
        self.answer(about, reply, move |call| {
            answers::created(call.view(), call.create(about.ino, &name, &new), (flags, handle))
        });
    }

    pub(super) fn create_unnamed(&self, about: About, unnamed: &Unnamed, reply: impl Reply) {
        let (new, flags) = (new_file(FileKind::Regular, &unnamed.new), unnamed.flags);
        let handle = self.door.view().next_handle();
        self.answer(about, reply, move |call| {
            answers::created(call.view(), call.create_unnamed(about.ino, &new), (flags, handle))
        });
    }

    pub(super) fn rename(
        &self,
        about: About,
        (name, to, new_name): (&[u8], Ino, &[u8]),
        flags: u32,
        reply: impl Reply,
    ) {
        let mode = match flags {
            0 => RenameMode::Replace,
            libc::RENAME_NOREPLACE => RenameMode::NoReplace,
            libc::RENAME_EXCHANGE => RenameMode::Exchange,
            libc::RENAME_WHITEOUT => RenameMode::Whiteout,
            _ => return reply.give(Err(Errno::EINVAL)),
        };
        let rename = Rename { from: (about.ino, name.to_vec()), to: (to, new_name.to_vec()), mode };
        self.answer(about, reply, move |call| answers::done(call.rename(&rename)));
    }

    pub(super) fn set_xattr(
        &self,
        about: About,
        (name, value): (&[u8], &[u8]),
        (flags, kill_set_gid): (u32, bool),
        reply: impl Reply,
    ) {
        let mode = match flags.cast_signed() {
            0 => XattrMode::Set,
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => return reply.give(Err(Errno::EINVAL)),
        };
        let (name, value) = (name.to_vec(), value.to_vec());
        let set = move |call: &Call<'_>| answers::done(call.set_xattr(about.ino, (&name, &value), mode, kill_set_gid));
        self.answer(about, reply, set);
    }
}
