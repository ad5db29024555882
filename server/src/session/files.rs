//! Operations on what files are and hold.

use super::Session;
use crate::ops::{Ops, Scope, SetIds};
use mojavefs::id::{Ino, ViewId};
use mojavefs::limits::BLOCK_BYTES;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::{Attr, SetAttr};
use mojavefs::protocol::{FallocateMode, Invalidation, Reply};
use std::ops::Range;

/// Access control lists among extended attributes.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";
/// The whole of a file.
const ALL: Range<u64> = 0..u64::MAX;

impl Session {
    fn attributes_of(&self, view: ViewId, attr: Attr, ended: u64) -> Result<Reply, Fault> {
        let lasts = self.shared.lasts(&self.open_view(view)?.view, &[Invalidation::Inode(attr.ino)], ended);
        Ok(Reply::Attr { attr, lasts })
    }

    /// Changes a part of a file's content.
    fn change_content<T>(
        &self,
        view: ViewId,
        ino: Ino,
        range: &Range<u64>,
        operation: impl Fn(&Ops, &Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let around = |context| self.shared.coordinator.around(context);
        let open = self.open_view(view)?;
        let _changing = self.shared.views.about_to_change(&open.view, (ino, range), around);
        let changed = self.change(view, |_| file(ino), operation)?;
        if let Some(context) = open.view.context() {
            self.shared.locks.note_change(context, ino);
        }
        Ok(changed)
    }

    pub(super) fn may_be_mapped(&self, view: ViewId, ino: Ino, mapped: bool) -> Result<(), Fault> {
        if mapped {
            self.open_view(view)?.view.kernel.may_be_mapped(ino);
        }
        Ok(())
    }

    /// Reads something that a kernel keeps for as long as it knows the inode.
    pub(super) fn reads<T>(
        &self,
        view: ViewId,
        ino: Ino,
        operation: impl Fn(&Ops, &Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let open = self.open_view(view)?;
        self.shared.upcomings.read(&self.shared.store, &open.view, ino)?;
        let read = self.operate(&open.view, operation);
        self.shared.upcomings.was_read(view, ino);
        read
    }

    /// Reads attributes, for a kernel that is told when they change.
    pub(super) fn get_attr(&self, view: ViewId, ino: Ino) -> Result<Reply, Fault> {
        let ended = self.since().ended;
        let attr = self.on(view, |ops, scope| ops.get_attr(scope, ino))?;
        self.attributes_of(view, attr, ended)
    }

    /// The same for nobody who acts on them.
    pub(super) fn glance_at(&self, view: ViewId, ino: Ino) -> Result<Reply, Fault> {
        // If it is to go back further, nobody waits for that: it is who asks that brings it back.
        let scope = self.live_view(view)?.view.scope();
        let ended = self.since().ended;
        let glance = || self.shared.ops.glance_at(&scope, ino);
        let (attr, current) = self.shared.coordinator.undisturbed(glance)?;
        let lasts = self.shared.lasts(&self.live_view(view)?.view, &[Invalidation::Inode(ino)], ended);
        Ok(Reply::Attr { attr, lasts: lasts && current })
    }

    /// Changes attributes, for a caller of this group.
    pub(super) fn set_attr(&self, view: ViewId, ino: Ino, set: &SetAttr, gid: u32) -> Result<Reply, Fault> {
        let ended = self.since().ended;
        let set_attr = |ops: &Ops, scope: &Scope| ops.set_attr(scope, ino, set, gid);
        let attr = match set.size {
            Some(_) => self.change_content(view, ino, &ALL, set_attr)?,
            None => self.change(view, |_| file(ino), set_attr)?,
        };
        self.attributes_of(view, attr, ended)
    }

    /// Writes, and notes what is written over.
    pub(super) fn write(
        &self,
        view: ViewId,
        ino: Ino,
        (offset, append): (u64, bool),
        data: &[u8],
        (set_ids, mapped): (SetIds, bool),
    ) -> Result<Reply, Fault> {
        self.may_be_mapped(view, ino, mapped)?;
        let write = |ops: &Ops, scope: &Scope| ops.write(scope, ino, (offset, append), data, set_ids);
        let range = if append { ALL } else { offset..offset.saturating_add(data.len() as u64) };
        let decision = if mapped { self.shared.upcomings.last_change_of(ino) } else { 0 };
        let written = self.change_content(view, ino, &range, write).inspect_err(|fault| {
            let waits = mapped && fault.kind.has_to_wait();
            if let Some(open) = self.any_view(view).ok().filter(|_| waits) {
                open.view.writes_out_later(ino, &range, decision);
            }
        })?;
        let open = self.open_view(view)?;
        let has_waited =
            open.view.has_waited_to_write(ino, &range, |since| self.shared.upcomings.change_later(ino, since));
        if mapped && (has_waited || open.view.may_be_old(ino, &range)) {
            self.shared.coordinator.wrote_over_others(open.view.context(), ino);
        }
        open.count_written(data.len() as u64);
        if written.at != offset {
            // The kernel believes it elsewhere: the file has grown without it.
            open.view.queue([Invalidation::Inode(ino)]);
            self.shared.nudge_announcer();
        }
        Ok(Reply::Changed(written))
    }

    /// Makes room, holes or zeros.
    pub(super) fn fallocate(
        &self,
        view: ViewId,
        ino: Ino,
        (offset, len): (u64, u64),
        mode: FallocateMode,
        set_ids: SetIds,
    ) -> Result<Reply, Fault> {
        let range = offset..offset.saturating_add(len);
        let mut new = Vec::new();
        let taken = match mode {
            FallocateMode::Allocate { .. } => self.allocate(view, ino, &range, &mut new),
            FallocateMode::PunchHole | FallocateMode::ZeroRange { .. } => Ok(()),
        };
        let fallocate = |ops: &Ops, scope: &Scope| ops.fallocate(scope, ino, (offset, len), mode, set_ids);
        let changed = taken.and_then(|()| self.change_content(view, ino, &range, fallocate));
        if changed.is_err() {
            self.unallocate(view, ino, &new);
        }
        changed.map(Reply::Changed)
    }

    /// Takes the space for a range in steps, between which others have their turn. The blocks that are new are added to `new`.
    fn allocate(&self, view: ViewId, ino: Ino, range: &Range<u64>, new: &mut Vec<Range<u64>>) -> Result<(), Fault> {
        let mut at = range.start;
        while at < range.end || range.is_empty() {
            let rest = at..range.end;
            let allocate = |ops: &Ops, scope: &Scope| {
                ops.check_range(ino, (rest.start, rest.end - rest.start))?;
                ops.allocate(scope, ino, rest.clone())
            };
            let step = self.change_content(view, ino, &rest, allocate)?;
            new.extend(step.new);
            at = step.until;
            if let Some(refused) = step.refused {
                return Err(refused);
            }
        }
        Ok(())
    }

    /// Gives the space back that was taken for nothing.
    fn unallocate(&self, view: ViewId, ino: Ino, blocks: &[Range<u64>]) {
        for blocks in blocks {
            let range = blocks.start * BLOCK_BYTES..blocks.end * BLOCK_BYTES;
            let unallocate = |ops: &Ops, scope: &Scope| ops.unallocate(scope, ino, blocks);
            if let Err(fault) = self.change_content(view, ino, &range, unallocate) {
                // It is the file's, and goes with it.
                tracing::warn!("space that inode {ino} was refused is not given back: {fault}");
                return;
            }
        }
    }

    /// Copies within the store.
    pub(super) fn copy_range(
        &self,
        view: ViewId,
        from: (Ino, u64),
        target: (Ino, u64),
        len: u64,
        set_ids: SetIds,
    ) -> Result<Reply, Fault> {
        let range = target.1..target.1.saturating_add(len);
        let copy = |ops: &Ops, scope: &Scope| ops.copy_range(scope, from, target, len, set_ids);
        let copied = self.change_content(view, target.0, &range, copy)?;
        self.open_view(view)?.count_written(copied.at);
        Ok(Reply::Changed(copied))
    }

    /// Waits until a file is on disk.
    pub(super) fn fsync(&self, view: ViewId, ino: Ino) -> Result<Reply, Fault> {
        // Not kept apart from decisions: it waits for the disk, and they must not wait for it.
        let open = self.open_view(view)?;
        self.shared.ops.fsync(&open.view.scope(), ino)?;
        self.settle(&open.view)
    }

    /// Reads an extended attribute.
    pub(super) fn get_xattr(&self, view: ViewId, ino: Ino, name: &[u8]) -> Result<Reply, Fault> {
        let get = |ops: &Ops, scope: &Scope| ops.get_xattr(scope, ino, name);
        // Kernels keep access control lists, and no others.
        let is_kept = name.starts_with(ACL_PREFIX);
        let value = if is_kept { self.reads(view, ino, get) } else { self.on(view, get) };
        value.map(Reply::Data)
    }
}

/// A file changed.
pub(super) fn file(ino: Ino) -> Vec<Invalidation> {
    vec![Invalidation::Inode(ino)]
}
