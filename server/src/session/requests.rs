//! Requests on names, files and their attributes: to operations, and to what other views are told of them.

use super::Session;
use crate::limits::GIVE_TRIES_MAX;
use crate::ops::{NewFile, Ops, Scope};
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Attr;
use mojavefs::protocol::{DirEntry, Invalidation, Reads, RenameMode, Reply, Request};
use std::ops::Range;

/// Access control lists among extended attributes.
const ACL_PREFIX: &[u8] = b"system.posix_acl_";

/// The whole of a file.
const ALL: Range<u64> = 0..u64::MAX;

/// From when on something was looked at.
#[derive(Clone, Copy)]
struct Since {
    /// How much had changed for others.
    changes: u64,
    /// How many rounds had ended.
    ended: u64,
}

impl Session {
    /// The kernel of a view is about to know an inode, by a name, with attributes as they were after `since`. From here on it is told
    /// of changes; if there were some in between, the attributes are read again.
    fn given(&self, view: ViewId, name: Invalidation, attr: Attr, since: Since) -> Result<Reply, Fault> {
        let open = self.open_view(view)?;
        let ino = attr.ino;
        open.view.kernel.hold(ino);
        let attr = self.attr_as_of_now(view, attr, since.changes)?;
        let lasts = self.shared.lasts(&open.view, &[name, Invalidation::Inode(ino)], since.ended);
        Ok(Reply::Attr { attr, lasts })
    }

    fn attr_as_of_now(&self, view: ViewId, mut attr: Attr, mut since: u64) -> Result<Attr, Fault> {
        for _ in 0..GIVE_TRIES_MAX {
            let now = self.shared.changes();
            if now == since {
                return Ok(attr);
            }
            since = now;
            // One that is gone by now was there when it was asked for.
            if let Ok(again) = self.on(view, |ops, scope| ops.get_attr(scope, attr.ino)) {
                attr = again;
            }
        }
        self.open_view(view)?.view.queue([Invalidation::Inode(attr.ino)]);
        self.shared.nudge_announcer();
        Ok(attr)
    }

    /// As of now, for what is looked at next.
    fn since(&self) -> Since {
        Since { changes: self.shared.changes(), ended: self.shared.upcomings.ended() }
    }

    /// Looks names up, and changes them.
    pub(super) fn names(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let since = self.since();
        match request {
            Request::Lookup { view, parent, name } => {
                let found = self.asks(view, (parent, name), |ops, scope| ops.lookup(scope, parent, name));
                let attr = found.map_err(|fault| self.absent(view, entry(parent, name), since, fault))?;
                self.given(view, entry(parent, name), attr, since)
            }
            Request::Glance { view, parent, name } => {
                let (attr, current) = self.asks(view, (parent, name), |ops, scope| ops.glance(scope, parent, name))?;
                let open = self.open_view(view)?;
                open.view.kernel.hold(attr.ino);
                let what = [entry(parent, name), Invalidation::Inode(attr.ino)];
                let lasts = current && self.shared.changes() == since.changes;
                Ok(Reply::Attr { attr, lasts: lasts && self.shared.lasts(&open.view, &what, since.ended) })
            }
            Request::GlanceNamed { view, parent, name } => {
                // As for attributes: who asks is the one that brings the view back.
                let open = self.live_view(view)?;
                open.view.kernel.asks_for(parent, name);
                let scope = open.view.scope();
                let glance = || self.shared.ops.glance_named(&scope, parent, name);
                let (attr, current) = self.shared.coordinator.undisturbed(glance)?;
                open.view.kernel.hold(attr.ino);
                let what = [entry(parent, name), Invalidation::Inode(attr.ino)];
                let lasts = current && self.shared.changes() == since.changes;
                Ok(Reply::Attr { attr, lasts: lasts && self.shared.lasts(&open.view, &what, since.ended) })
            }
            Request::Create { view, parent, name, kind, mode, umask, uid, gid, rdev, target } => {
                let new = NewFile { kind, mode, umask, uid, gid, rdev, target };
                self.open_view(view)?.view.kernel.asks_for(parent, name);
                let attr =
                    self.change(view, |_| named(parent, name), |ops, scope| ops.create(scope, parent, name, new))?;
                // What it has made others can't have made otherwise meanwhile.
                self.given(view, entry(parent, name), attr, Since { ended: self.since().ended, ..since })
            }
            Request::Link { view, ino, parent, name } => {
                let what = |_: &Attr| [named(parent, name), vec![Invalidation::Inode(ino)]].concat();
                self.open_view(view)?.view.kernel.asks_for(parent, name);
                let attr = self.change(view, what, |ops, scope| ops.link(scope, ino, parent, name))?;
                self.given(view, entry(parent, name), attr, Since { ended: self.since().ended, ..since })
            }
            Request::Unlink { view, parent, name } => {
                let what = |gone: &Ino| lost(named(parent, name), Some(*gone));
                self.change(view, what, |ops, scope| ops.unlink(scope, parent, name))?;
                self.open_view(view)?.view.kernel.took_away(parent, name);
                Ok(self.may_have_gone())
            }
            Request::RemoveDir { view, parent, name } => {
                let what = |gone: &Ino| lost(named(parent, name), Some(*gone));
                self.change(view, what, |ops, scope| ops.remove_dir(scope, parent, name))?;
                self.open_view(view)?.view.kernel.took_away(parent, name);
                Ok(self.may_have_gone())
            }
            Request::Rename { view, parent, name, new_parent, new_name, mode } => {
                let what =
                    |gone: &Option<Ino>| lost([named(parent, name), named(new_parent, new_name)].concat(), *gone);
                let open = self.open_view(view)?;
                open.view.kernel.asks_for(parent, name);
                open.view.kernel.asks_for(new_parent, new_name);
                self.change(view, what, |ops, scope| ops.rename(scope, (parent, name), (new_parent, new_name), mode))?;
                if mode != RenameMode::Exchange && (parent, name) != (new_parent, new_name) {
                    open.view.kernel.took_away(parent, name);
                }
                Ok(self.may_have_gone())
            }
            Request::ReadDir { view, ino, after, limit, attrs } => {
                let ((entries, end), decision) = self.on(view, |ops, scope| {
                    let page = ops.read_dir(scope, ino, after, limit, attrs)?;
                    Ok((page, self.shared.upcomings.last_change_of(ino)))
                })?;
                self.hold_listed(view, &entries, since.changes)?;
                let lasts = self.shared.lasts(&self.open_view(view)?.view, &[Invalidation::Inode(ino)], since.ended);
                Ok(Reply::Entries { entries, end, lasts, decision })
            }
            _ => Err(Fault::new(FaultKind::Protocol, "this is no request about names")),
        }
    }

    /// Looks at a name that the kernel of a view is about to know.
    fn asks<T>(
        &self,
        view: ViewId,
        (parent, name): (Ino, &[u8]),
        operation: impl Fn(&crate::ops::Ops, &crate::ops::Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let open = self.open_view(view)?;
        open.view.kernel.asks_for(parent, name);
        self.operate(&open.view, operation)
    }

    /// What a kernel is about to be told of a name that is not there.
    fn absent(&self, view: ViewId, name: Invalidation, since: Since, fault: Fault) -> Fault {
        let is_absent = fault.kind == FaultKind::NotFound;
        match self.open_view(view) {
            Ok(open) if is_absent && !self.shared.lasts(&open.view, &[name], since.ended) => {
                Fault { kind: FaultKind::NotFoundNow, ..fault }
            }
            _ => fault,
        }
    }

    fn hold_listed(&self, view: ViewId, entries: &[DirEntry], since: u64) -> Result<(), Fault> {
        let open = self.open_view(view)?;
        let given = || entries.iter().filter(|entry| entry.attr.is_some()).map(|entry| entry.ino);
        given().for_each(|ino| open.view.kernel.hold(ino));
        if self.shared.changes() != since {
            open.view.queue(given().map(Invalidation::Inode));
            self.shared.nudge_announcer();
        }
        Ok(())
    }

    /// Something may have lost its last name.
    fn may_have_gone(&self) -> Reply {
        self.shared.nudge_keeper();
        Reply::Done
    }

    /// What files are and hold.
    pub(super) fn files(&self, request: Request<'_>) -> Result<Reply, Fault> {
        match request {
            Request::GetAttr { view, ino } => {
                let ended = self.since().ended;
                let attr = self.on(view, |ops, scope| ops.get_attr(scope, ino))?;
                self.attributes_of(view, attr, ended)
            }
            Request::GlanceAt { view, ino } => {
                // If it is to go back further, nobody waits for that: it is who asks that brings it back.
                let scope = self.live_view(view)?.view.scope();
                let ended = self.since().ended;
                let glance = || self.shared.ops.glance_at(&scope, ino);
                let (attr, current) = self.shared.coordinator.undisturbed(glance)?;
                let lasts = self.shared.lasts(&self.live_view(view)?.view, &[Invalidation::Inode(ino)], ended);
                Ok(Reply::Attr { attr, lasts: lasts && current })
            }
            Request::SetAttr { view, ino, set } => {
                let ended = self.since().ended;
                let set_attr = |ops: &Ops, scope: &Scope| ops.set_attr(scope, ino, &set);
                let attr = match set.size {
                    Some(_) => self.change_content(view, ino, &ALL, set_attr)?,
                    None => self.change(view, |_| file(ino), set_attr)?,
                };
                self.attributes_of(view, attr, ended)
            }
            Request::ReadLink { view, ino } => {
                self.reads(view, ino, |ops, scope| ops.read_link(scope, ino)).map(Reply::Data)
            }
            Request::Read { view, ino, offset, size, reads: Reads::Once } => {
                self.on(view, |ops, scope| ops.read(scope, ino, offset, size)).map(Reply::Data)
            }
            Request::Read { view, ino, offset, size, reads } => {
                self.may_be_mapped(view, ino, reads == Reads::Mapped)?;
                self.reads(view, ino, |ops, scope| ops.read(scope, ino, offset, size)).map(Reply::Data)
            }
            Request::Write { view, ino, offset, data, append, clear_set_id, mapped } => {
                self.may_be_mapped(view, ino, mapped)?;
                let at = (offset, append);
                let write = |ops: &Ops, scope: &Scope| ops.write(scope, ino, at, data, clear_set_id);
                let range = if append { ALL } else { offset..offset.saturating_add(data.len() as u64) };
                let written = self.change_content(view, ino, &range, write)?;
                let open = self.open_view(view)?;
                if mapped && open.view.may_be_old(ino, &range) {
                    self.shared.coordinator.wrote_over_others(open.view.context(), ino);
                }
                open.count_written(data.len() as u64);
                if written != offset {
                    // The kernel believes it elsewhere: the file has grown without it.
                    open.view.queue([Invalidation::Inode(ino)]);
                    self.shared.nudge_announcer();
                }
                Ok(Reply::Offset(written))
            }
            Request::Fallocate { view, ino, offset, len, mode } => {
                let range = offset..offset.saturating_add(len);
                self.change_content(view, ino, &range, |ops, scope| ops.fallocate(scope, ino, offset, len, mode))?;
                Ok(Reply::Done)
            }
            Request::Seek { view, ino, offset, whence } => {
                Ok(Reply::Offset(self.on(view, |ops, scope| ops.seek(scope, ino, offset, whence))?))
            }
            Request::CopyRange { view, ino, offset, to, to_offset, len } => {
                let (from, target, range) = ((ino, offset), (to, to_offset), to_offset..to_offset.saturating_add(len));
                let copy = |ops: &Ops, scope: &Scope| ops.copy_range(scope, from, target, len);
                let copied = self.change_content(view, to, &range, copy)?;
                self.open_view(view)?.count_written(copied);
                Ok(Reply::Offset(copied))
            }
            Request::Fsync { view, ino } => {
                // Not kept apart from decisions: it waits for the disk, and they must not wait for it.
                let open = self.open_view(view)?;
                self.shared.ops.fsync(&open.view.scope(), ino)?;
                self.settle(&open.view)
            }
            _ => self.attributes(request),
        }
    }

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
        let _changing = self.shared.views.about_to_change(&self.open_view(view)?.view, ino, range);
        self.change(view, |_| file(ino), operation)
    }

    fn may_be_mapped(&self, view: ViewId, ino: Ino, mapped: bool) -> Result<(), Fault> {
        if mapped {
            self.open_view(view)?.view.kernel.may_be_mapped(ino);
        }
        Ok(())
    }

    /// Reads something that a kernel keeps for as long as it knows the inode.
    fn reads<T>(
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

    /// Extended attributes, and the space there is.
    pub(super) fn attributes(&self, request: Request<'_>) -> Result<Reply, Fault> {
        match request {
            Request::GetXattr { view, ino, name } => {
                let get = |ops: &Ops, scope: &Scope| ops.get_xattr(scope, ino, name);
                // Kernels keep access control lists, and no others.
                let is_kept = name.starts_with(ACL_PREFIX);
                let value = if is_kept { self.reads(view, ino, get) } else { self.on(view, get) };
                value.map(Reply::Data)
            }
            Request::ListXattr { view, ino } => {
                Ok(Reply::Names(self.on(view, |ops, scope| ops.list_xattr(scope, ino))?))
            }
            Request::SetXattr { view, ino, name, value, mode } => {
                self.change(view, |_| file(ino), |ops, scope| ops.set_xattr(scope, ino, name, value, mode))?;
                Ok(Reply::Done)
            }
            Request::RemoveXattr { view, ino, name } => {
                self.change(view, |_| file(ino), |ops, scope| ops.remove_xattr(scope, ino, name))?;
                Ok(Reply::Done)
            }
            Request::StatFs { view } => Ok(Reply::Space(self.on(view, |ops, _| ops.space())?)),
            _ => Err(Fault::new(FaultKind::Protocol, "this request is not known")),
        }
    }

    /// The kernel of a view knows these inodes no more.
    pub(super) fn forget(&self, view: ViewId, inos: &[Ino]) -> Result<Reply, Fault> {
        // A view that was rolled back may still forget.
        if let Some(open) = self.views.lock().get(&view).cloned() {
            inos.iter().for_each(|ino| open.view.kernel.release(*ino));
            self.shared.nudge_keeper();
        }
        Ok(Reply::Done)
    }
}

fn file(ino: Ino) -> Vec<Invalidation> {
    vec![Invalidation::Inode(ino)]
}

/// What has lost a name has other attributes by that.
fn lost(mut what: Vec<Invalidation>, ino: Option<Ino>) -> Vec<Invalidation> {
    what.extend(ino.map(Invalidation::Attributes));
    what
}

fn entry(parent: Ino, name: &[u8]) -> Invalidation {
    Invalidation::Entry { parent, name: name.to_vec() }
}

/// A name changed, and with it its directory.
fn named(parent: Ino, name: &[u8]) -> Vec<Invalidation> {
    vec![entry(parent, name), Invalidation::Inode(parent)]
}
