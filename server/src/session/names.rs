//! Operations on names, and what others are told of them.

use super::Session;
use crate::limits::GIVE_TRIES_MAX;
use crate::ops::{NewFile, Ops, Scope};
use mojavefs::id::{Ino, ViewId};
use mojavefs::limits::GLANCES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, Name};
use mojavefs::protocol::{Invalidation, RenameMode, Reply};
use std::cell::Cell;

/// From when on something was looked at.
#[derive(Clone, Copy)]
pub(super) struct Since {
    /// How much had changed for others.
    pub(super) changes: u64,
    /// How many rounds had ended.
    pub(super) ended: u64,
}

impl Session {
    /// The kernel of a view is about to know an inode, by a name, with attributes as they were after `since`. From here on it is told
    /// of changes; if there were some in between, the attributes are read again.
    fn given(&self, view: ViewId, name: Invalidation, attr: Attr, since: Since) -> Result<Reply, Fault> {
        self.given_by(view, Some(name), attr, since)
    }

    /// The same by its number, without a name.
    fn given_by(&self, view: ViewId, name: Option<Invalidation>, attr: Attr, since: Since) -> Result<Reply, Fault> {
        let open = self.open_view(view)?;
        let ino = attr.ino;
        open.view.kernel.hold(ino);
        let attr = self.attr_as_of_now(view, attr, since.changes)?;
        let what: Vec<Invalidation> = name.into_iter().chain([Invalidation::Inode(ino)]).collect();
        let lasts = self.shared.lasts(&open.view, &what, since.ended);
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
    pub(super) fn since(&self) -> Since {
        Since { changes: self.shared.changes(), ended: self.shared.upcomings.ended() }
    }

    /// Looks at a name that the kernel of a view is about to know.
    fn asks<T>(
        &self,
        view: ViewId,
        (parent, name): (Ino, &[u8]),
        operation: impl Fn(&Ops, &Scope) -> Result<T, Fault>,
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

    /// Something may have lost its last name.
    fn may_have_gone(&self) -> Reply {
        self.shared.nudge_keeper();
        Reply::Done
    }

    /// Finds a name, for a kernel that is told when that changes.
    pub(super) fn lookup(&self, view: ViewId, parent: Ino, name: &[u8]) -> Result<Reply, Fault> {
        let since = self.since();
        let found = self.asks(view, (parent, name), |ops, scope| ops.lookup(scope, parent, name));
        let attr = found.map_err(|fault| self.absent(view, entry(parent, name), since, fault))?;
        self.given(view, entry(parent, name), attr, since)
    }

    /// The same of several for a listing, which looks at no undecided file by it: up to the first that can't be looked at.
    pub(super) fn glance(&self, view: ViewId, parent: Ino, names: &[Name]) -> Result<Reply, Fault> {
        let mut found = Vec::new();
        for name in names.iter().take(GLANCES_MAX) {
            match self.glance_one(view, parent, name) {
                Ok(given) => found.push(Some(given)),
                Err(fault) if fault.kind == FaultKind::NotFound => found.push(None),
                Err(fault) if found.is_empty() => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(Reply::Glanced(found))
    }

    fn glance_one(&self, view: ViewId, parent: Ino, name: &[u8]) -> Result<(Attr, bool), Fault> {
        let since = self.since();
        let (attr, current) = self.asks(view, (parent, name), |ops, scope| ops.glance(scope, parent, name))?;
        let open = self.open_view(view)?;
        open.view.kernel.hold(attr.ino);
        let what = [entry(parent, name), Invalidation::Inode(attr.ino)];
        let lasts = current && self.shared.changes() == since.changes;
        Ok((attr, lasts && self.shared.lasts(&open.view, &what, since.ended)))
    }

    /// The same for nobody who acts on it.
    pub(super) fn glance_named(&self, view: ViewId, parent: Ino, name: &[u8]) -> Result<Reply, Fault> {
        let since = self.since();
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

    /// Makes a file.
    pub(super) fn create(&self, view: ViewId, (parent, name): (Ino, &[u8]), new: NewFile<'_>) -> Result<Reply, Fault> {
        let since = self.since();
        self.open_view(view)?.view.kernel.asks_for(parent, name);
        let attr = self.change(view, |_| named(parent, name), |ops, scope| ops.create(scope, parent, name, new))?;
        // What it has made others can't have made otherwise meanwhile.
        self.given(view, entry(parent, name), attr, Since { ended: self.since().ended, ..since })
    }

    /// Makes a file without a name.
    pub(super) fn create_unnamed(&self, view: ViewId, parent: Ino, new: NewFile<'_>) -> Result<Reply, Fault> {
        let since = self.since();
        let kernel = &self.open_view(view)?.view.kernel;
        let create = |ops: &Ops, scope: &Scope| {
            // Before it is there: what has no name, and no kernel knows, is removed at once.
            let made = Cell::new(None);
            let about_to = |ino| {
                kernel.hold(ino);
                made.set(Some(ino));
            };
            let created = ops.create_unnamed(scope, parent, new, about_to);
            created.inspect_err(|_| made.get().into_iter().for_each(|ino| kernel.release(ino)))
        };
        let attr = self.change(view, |_| Vec::new(), create)?;
        self.given_by(view, None, attr, since)
    }

    /// Finds a file by its number.
    pub(super) fn lookup_inode(&self, view: ViewId, ino: Ino, around: bool) -> Result<Reply, Fault> {
        let since = self.since();
        let attr = self.on(view, |ops, scope| ops.lookup_inode(scope, ino, around))?;
        self.given_by(view, None, attr, since)
    }

    /// Adds a name.
    pub(super) fn link(&self, view: ViewId, ino: Ino, parent: Ino, name: &[u8]) -> Result<Reply, Fault> {
        let since = self.since();
        let what = |_: &Attr| [named(parent, name), vec![Invalidation::Inode(ino)]].concat();
        self.open_view(view)?.view.kernel.asks_for(parent, name);
        let attr = self.change(view, what, |ops, scope| ops.link(scope, ino, parent, name))?;
        self.given(view, entry(parent, name), attr, Since { ended: self.since().ended, ..since })
    }

    /// Removes a name that is no directory.
    pub(super) fn unlink(&self, view: ViewId, parent: Ino, name: &[u8]) -> Result<Reply, Fault> {
        let what = |gone: &Ino| lost(named(parent, name), Some(*gone));
        self.change(view, what, |ops, scope| ops.unlink(scope, parent, name))?;
        self.open_view(view)?.view.kernel.took_away(parent, name);
        Ok(self.may_have_gone())
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&self, view: ViewId, parent: Ino, name: &[u8]) -> Result<Reply, Fault> {
        let what = |gone: &Ino| lost(named(parent, name), Some(*gone));
        self.change(view, what, |ops, scope| ops.remove_dir(scope, parent, name))?;
        self.open_view(view)?.view.kernel.took_away(parent, name);
        Ok(self.may_have_gone())
    }

    /// Renames.
    pub(super) fn rename(
        &self,
        view: ViewId,
        (parent, name): (Ino, &[u8]),
        (new_parent, new_name): (Ino, &[u8]),
        mode: RenameMode,
        owner: (u32, u32),
    ) -> Result<Reply, Fault> {
        let what = |gone: &Option<Ino>| lost([named(parent, name), named(new_parent, new_name)].concat(), *gone);
        let open = self.open_view(view)?;
        open.view.kernel.asks_for(parent, name);
        open.view.kernel.asks_for(new_parent, new_name);
        self.change(view, what, |ops, scope| ops.rename(scope, (parent, name), (new_parent, new_name), mode, owner))?;
        if mode != RenameMode::Exchange && (parent, name) != (new_parent, new_name) {
            open.view.kernel.took_away(parent, name);
        }
        Ok(self.may_have_gone())
    }

    /// Reads a page of a directory.
    pub(super) fn read_dir(&self, view: ViewId, ino: Ino, after: Option<&[u8]>, limit: u32) -> Result<Reply, Fault> {
        let since = self.since();
        let ((entries, end), decision) = self.on(view, |ops, scope| {
            let page = ops.read_dir(scope, ino, after, limit)?;
            Ok((page, self.shared.upcomings.last_change_of(ino)))
        })?;
        let lasts = self.shared.lasts(&self.open_view(view)?.view, &[Invalidation::Inode(ino)], since.ended);
        Ok(Reply::Entries { entries, end, lasts, decision })
    }
}

/// What has lost a name has other attributes by that.
fn lost(mut what: Vec<Invalidation>, ino: Option<Ino>) -> Vec<Invalidation> {
    what.extend(ino.map(Invalidation::Attributes));
    what
}

pub(super) fn entry(parent: Ino, name: &[u8]) -> Invalidation {
    Invalidation::Entry { parent, name: name.to_vec() }
}

/// A name changed, and with it its directory.
fn named(parent: Ino, name: &[u8]) -> Vec<Invalidation> {
    vec![entry(parent, name), Invalidation::Inode(parent)]
}
