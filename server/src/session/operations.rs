//! The operations of the filesystem: each to who does it.

use super::Session;
use super::files::file;
use crate::ops::{NewFile, Ops, Scope, SetIds};
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Caller, FsOp, Reads, Reply};

impl Session {
    /// An operation on what a view shows.
    pub(super) fn operation(&self, view: ViewId, caller: Caller, op: FsOp<'_>) -> Result<Reply, Fault> {
        self.compare_for(view, &op)?;
        match op {
            FsOp::Lookup { parent, name } => self.lookup(view, parent, name),
            FsOp::Glance { parent, names } => self.glance(view, parent, &names),
            FsOp::GlanceNamed { parent, name } => self.glance_named(view, parent, name),
            FsOp::Create { parent, name, kind, mode, umask, rdev, target } => {
                let Caller { uid, gid, .. } = caller;
                self.create(view, (parent, name), NewFile { kind, mode, umask, uid, gid, rdev, target })
            }
            FsOp::CreateUnnamed { parent, mode, umask } => {
                let (Caller { uid, gid, .. }, kind) = (caller, FileKind::Regular);
                self.create_unnamed(view, parent, NewFile { kind, mode, umask, uid, gid, rdev: 0, target: b"" })
            }
            FsOp::LookupInode { ino, around } => self.lookup_inode(view, ino, around),
            FsOp::Link { ino, parent, name } => self.link(view, ino, parent, name),
            FsOp::Unlink { parent, name } => self.unlink(view, parent, name),
            FsOp::RemoveDir { parent, name } => self.remove_dir(view, parent, name),
            FsOp::Rename { parent, name, new_parent, new_name, mode } => {
                self.rename(view, (parent, name), (new_parent, new_name), mode, (caller.uid, caller.gid))
            }
            FsOp::ReadDir { ino, after, limit } => self.read_dir(view, ino, after, limit),
            FsOp::GetAttr { ino } => self.get_attr(view, ino),
            FsOp::GlanceAt { ino } => self.glance_at(view, ino),
            FsOp::SetAttr { ino, set } => self.set_attr(view, ino, &set, caller.gid),
            FsOp::ReadLink { ino } => self.reads(view, ino, |ops, scope| ops.read_link(scope, ino)).map(Reply::Data),
            FsOp::Read { ino, offset, size, reads: Reads::Once } => {
                self.on(view, |ops, scope| ops.read(scope, ino, offset, size)).map(Reply::Data)
            }
            FsOp::Read { ino, offset, size, reads } => {
                self.may_be_mapped(view, ino, reads == Reads::Mapped)?;
                self.reads(view, ino, |ops, scope| ops.read(scope, ino, offset, size)).map(Reply::Data)
            }
            FsOp::Write { ino, offset, data, append, clear_set_id, mapped } => {
                self.write(view, ino, (offset, append), data, (set_ids(clear_set_id, caller), mapped))
            }
            FsOp::Fallocate { ino, offset, len, mode, clear_set_id } => {
                self.fallocate(view, ino, (offset, len), mode, set_ids(clear_set_id, caller))
            }
            FsOp::Seek { ino, offset, whence } => {
                Ok(Reply::Offset(self.on(view, |ops, scope| ops.seek(scope, ino, offset, whence))?))
            }
            FsOp::CopyRange { ino, offset, to, to_offset, len, clear_set_id } => {
                self.copy_range(view, (ino, offset), (to, to_offset), len, set_ids(clear_set_id, caller))
            }
            FsOp::Fsync { ino } => self.fsync(view, ino),
            FsOp::GetXattr { ino, name } => self.get_xattr(view, ino, name),
            FsOp::ListXattr { ino } => Ok(Reply::Names(self.on(view, |ops, scope| ops.list_xattr(scope, ino))?)),
            FsOp::SetXattr { ino, name, value, mode, clear_set_gid } => {
                let set = |ops: &Ops, scope: &Scope| ops.set_xattr(scope, ino, (name, value), mode, clear_set_gid);
                self.change(view, |_| file(ino), set)?;
                Ok(Reply::Done)
            }
            FsOp::RemoveXattr { ino, name } => {
                self.change(view, |_| file(ino), |ops, scope| ops.remove_xattr(scope, ino, name))?;
                Ok(Reply::Done)
            }
            FsOp::StatFs => Ok(Reply::Space(self.on(view, |ops, _| ops.space())?)),
            FsOp::Forget { inos } => Ok(self.forget(view, &inos)),
            FsOp::Settle { wait } => self.settle_others(view, wait),
            FsOp::AwaitNotices => self.settle_one(view),
            FsOp::Lock { ino, asked, waits } => self.lock(view, ino, &asked, waits),
            FsOp::AwaitOffer { after, millis } => self.await_offer(view, after, millis),
            FsOp::LeaveLine { ino, asked } => Ok(self.leave_line(view, ino, &asked)),
            FsOp::TestLock { ino, asked } => self.test_lock(view, ino, &asked),
            FsOp::Unlock { ino, whose } => {
                self.shared.locks.unlock(view, ino, whose);
                Ok(Reply::Done)
            }
            FsOp::MakeCurrent { ino } => self.make_current(view, ino),
        }
    }

    /// The kernel of a view knows these inodes no more.
    fn forget(&self, view: ViewId, inos: &[Ino]) -> Reply {
        // A view that was rolled back may still forget.
        if let Some(open) = self.views.lock().get(&view).cloned() {
            inos.iter().for_each(|ino| open.view.kernel.release(*ino));
            self.shared.nudge_keeper();
        }
        Reply::Done
    }

    /// Waits until a view was told what others have changed.
    pub(super) fn settle_one(&self, view: ViewId) -> Result<Reply, Fault> {
        let open = self.live_view(view)?;
        match self.shared.tells_in_turn() {
            true => self.shared.tell_queued(),
            false => self.shared.wait_told([&open.view]),
        }
        Ok(Reply::Done)
    }

    /// Waits until others were told of what a view has changed.
    fn settle_others(&self, view: ViewId, wait: bool) -> Result<Reply, Fault> {
        let queued = self.shared.views.queued();
        match wait || queued.iter().all(|other| other.id == view) {
            // Also for processes that end because of what was undone: they must not wait for their own end.
            true => self.settle(&self.live_view(view)?.view.clone()),
            false => Err(Fault::new(FaultKind::Busy, "others are being told")),
        }
    }
}

fn set_ids(clear: bool, caller: Caller) -> SetIds {
    if clear { SetIds::Go { gid: caller.gid } } else { SetIds::Stay }
}
