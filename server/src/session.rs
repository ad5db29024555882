//! One client's session: its requests find their view, and what follows from them reaches the views it concerns.

use crate::coordinator::{Aftermath, Beginning, Kind};
use crate::limits::{AWAIT_TIME_MAX, GIVE_TRIES_MAX, GO_BACK_TIME_MAX, OPERATION_TRIES_MAX, TELL_TIME_MAX};
use crate::ops::NewFile;
use crate::server::Shared;
use crate::urgent::{self, Ticket};
use crate::view::{SinkSlot, View, Whose};
use mojavefs::error::{Fault, FaultKind};
use mojavefs::file::Attr;
use mojavefs::id::{ContextId, Ino, SpecId, ViewId};
use mojavefs::limits::NOTICE_TIME_MAX;
use mojavefs::wire::{
    Connection, DirEntry, Invalidation, JobInfo, NoticeSink, OpenedView, RenameMode, Reply, Request, ViewKind,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One client of a server. Dropping it closes its views: what they had undecided is aborted, unless it is held.
pub(crate) struct Session {
    shared: Arc<Shared>,
    sink: Arc<SinkSlot>,
    views: Mutex<HashMap<ViewId, Arc<OpenView>>>,
    embedded: bool,
}

/// A view of this session.
struct OpenView {
    view: Arc<View>,
    spec: Option<SpecId>,
    /// Counts what is written, for people.
    bytes: Option<Arc<AtomicU64>>,
}

impl OpenView {
    fn count_written(&self, bytes: u64) {
        if let Some(written) = &self.bytes {
            written.fetch_add(bytes, Ordering::Relaxed);
        }
    }
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, embedded: bool) -> Self {
        Session { shared, sink: Arc::default(), views: Mutex::default(), embedded }
    }

    fn open_view(&self, id: ViewId) -> Result<Arc<OpenView>, Fault> {
        let view = self.views.lock().get(&id).cloned();
        let view = view.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no view {id}")))?;
        match view.view.is_dead() {
            true => Err(Fault::new(FaultKind::Stale, format!("the speculation of view {id} was rolled back"))),
            false => Ok(view),
        }
    }

    fn open(&self, kind: ViewKind) -> Result<OpenedView, Fault> {
        let coordinator = &self.shared.coordinator;
        // Or what it is started in could be committed meanwhile, and the new view not be led out.
        let _nothing_is_decided = self.shared.telling.try_write_for(TELL_TIME_MAX);
        let uid = match &kind {
            ViewKind::Trunk => None,
            ViewKind::Job { info, .. } => Some(info.uid),
            ViewKind::Process { uid, .. } | ViewKind::Before { uid, .. } | ViewKind::Inside { uid, .. } => Some(*uid),
        };
        let (spec, context, scope, whose) = match kind {
            ViewKind::Trunk => (None, None, coordinator.trunk(), Whose::Trunk),
            ViewKind::Process { parent, uid } => {
                let context = self.around(parent, uid)?;
                (None, context, coordinator.shown_by(context)?, Whose::Process)
            }
            ViewKind::Job { parent, info, on_read, own, restarts } => {
                let parent = self.around(parent, info.uid)?;
                let start = Beginning { own, restarts, ..Beginning::job(info, on_read) };
                let (spec, context, scope) = coordinator.begin(parent, start)?;
                (Some(spec), Some(context), scope, Whose::Job)
            }
            ViewKind::Before { spec, uid } => (None, None, coordinator.before(spec, uid)?, Whose::Guest),
            ViewKind::Inside { spec, uid } => {
                let context = coordinator.context_for(spec, uid)?;
                (Some(spec), Some(context), coordinator.scope_of(context)?, Whose::Guest)
            }
        };
        let id = self.shared.next_view();
        let view = View::new(id, context, (whose, uid), Arc::new(scope), self.sink.clone(), self.embedded);
        let view = Arc::new(view);
        let bytes = context.and_then(|context| coordinator.bytes_counter(context));
        self.shared.views.insert(view.clone());
        self.views.lock().insert(id, Arc::new(OpenView { view, spec, bytes }));
        Ok(OpenedView { view: id, spec })
    }

    /// The context in which a user starts something, by the view that it is started in.
    fn around(&self, parent: ViewId, uid: u32) -> Result<Option<ContextId>, Fault> {
        let view = self.open_view(parent)?.view.clone();
        match view.uid.filter(|owner| uid != 0 && *owner != uid) {
            None => Ok(view.context()),
            Some(owner) => {
                let text =
                    format!("this is in a job of user {owner}: only that user and root start something inside of it");
                Err(Fault::new(FaultKind::AccessDenied, text))
            }
        }
    }

    /// A process enters a speculation.
    fn enter(&self, id: ViewId, info: JobInfo, own: Option<SpecId>) -> Result<Reply, Fault> {
        let open = self.open_view(id)?;
        if open.view.whose != Whose::Process {
            return Err(Fault::new(FaultKind::Protocol, format!("view {id} is no process's")));
        }
        let (spec, context, scope) = loop {
            let around = open.view.context();
            let entered = self.shared.coordinator.begin(around, Beginning::part(info.clone(), Kind::Level, own));
            match entered {
                Err(_) if self.shared.is_led_out(&open.view, around) => {}
                entered => break entered?,
            }
        };
        open.view.go_into(context, spec, Arc::new(scope));
        Ok(Reply::View(OpenedView { view: id, spec: Some(spec) }))
    }

    /// The process of a job can go back to this point.
    fn begin_leg(&self, id: ViewId) -> Result<Reply, Fault> {
        let (view, context) = self.job_view(id)?;
        if self.shared.views.of(Some(context)).len() > 1 {
            return Err(Fault::new(FaultKind::Busy, "something else works in the same view"));
        }
        let (spec, context, scope) = self.shared.coordinator.begin_leg(context)?;
        view.go_into(context, spec, Arc::new(scope));
        Ok(Reply::View(OpenedView { view: id, spec: Some(spec) }))
    }

    fn job_view(&self, id: ViewId) -> Result<(Arc<View>, ContextId), Fault> {
        let open = self.open_view(id)?;
        match open.view.context() {
            Some(context) if open.view.whose == Whose::Job => Ok((open.view.clone(), context)),
            _ => Err(Fault::new(FaultKind::Protocol, format!("view {id} is no job's"))),
        }
    }

    /// The owner of a job's view is gone with it.
    fn close(&self, id: ViewId) -> Result<(), Fault> {
        let Some(open) = self.views.lock().remove(&id) else {
            return Err(Fault::new(FaultKind::NotFound, format!("there is no view {id}")));
        };
        self.shared.close_view(&open.view);
        if let Some(outermost) = open.view.entered().first().filter(|_| open.view.whose == Whose::Process) {
            return match self.shared.coordinator.spec_of(*outermost) {
                Some(spec) if !self.shared.coordinator.has_voted(spec) => self.abandon(spec),
                _ => Ok(()),
            };
        }
        let Some(spec) = open.spec.filter(|_| !open.view.is_dead()) else { return Ok(()) };
        let coordinator = &self.shared.coordinator;
        if coordinator.is_held(spec) {
            return coordinator.hold_again(spec);
        }
        if open.view.whose != Whose::Job
            || coordinator.has_voted(spec)
            || open.view.base().and_then(|context| coordinator.spec_of(context)) != Some(spec)
        {
            return Ok(());
        }
        self.abandon(spec)
    }

    /// An owner that is gone without deciding has aborted.
    fn abandon(&self, spec: SpecId) -> Result<(), Fault> {
        let _telling = self.shared.telling.read();
        let aborted = self.shared.coordinator.abort(spec, None);
        self.shared.follow_owed();
        match aborted {
            Ok((_, aftermath)) => {
                self.follow(aftermath);
                Ok(())
            }
            // Committed, or folded into the job around it.
            Err(fault) if matches!(fault.kind, FaultKind::Decided | FaultKind::NotFound) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    fn follow(&self, aftermath: Aftermath) {
        self.shared.follow(aftermath);
    }

    fn decide(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let _telling = self.shared.telling.read();
        let reply = self.decide_and_follow(request);
        self.shared.follow_owed();
        reply
    }

    fn decide_and_follow(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let coordinator = &self.shared.coordinator;
        if let Request::Commit { spec, uid, .. } | Request::Hold { spec, uid } = request {
            coordinator
                .context_for(spec, uid)
                .map_or(Ok(()), |_| coordinator.fold_legs(spec, |told| self.follow(told)))?;
        }
        let (outcome, aftermath) = match request {
            Request::Commit { spec, uid, resolutions } => coordinator.commit(spec, uid, &resolutions)?,
            Request::Abort { spec, uid, back } => {
                let (outcome, aftermath) = coordinator.abort(spec, Some(uid))?;
                (outcome, Aftermath { back: back.map(|(view, drained)| (view, spec, drained)), ..aftermath })
            }
            Request::Hold { spec, uid } => (coordinator.hold(spec, uid)?, Aftermath::default()),
            _ => return Err(Fault::new(FaultKind::Protocol, "this is no decision")),
        };
        coordinator.write_down_conflicts();
        let back = aftermath.back;
        self.follow(aftermath);
        if let Some((id, spec, _)) = back {
            // Nothing is left to do if it fell by this very abort.
            self.shared.come_out(&self.open_view(id)?.view, spec, false);
        }
        Ok(Reply::Outcome(outcome))
    }

    /// Runs an operation on what a view sees.
    fn on<T>(
        &self,
        view: ViewId,
        operation: impl Fn(&crate::ops::Ops, &crate::ops::Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.operate(&self.open_view(view)?.view, operation)
    }

    /// Runs an operation, again if what it met has become part of what the view sees.
    fn operate<T>(
        &self,
        view: &View,
        operation: impl Fn(&crate::ops::Ops, &crate::ops::Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        for _ in 0..OPERATION_TRIES_MAX {
            let falls = view.falls();
            let stale = || Fault::new(FaultKind::Stale, format!("the speculation of view {} is decided", view.id));
            let (was_over, result) = self.shared.coordinator.undisturbed(|| {
                let scope = view.scope();
                match scope.is_over() {
                    true => (true, Err(stale())),
                    false => (false, operation(&self.shared.ops, &scope)),
                }
            });
            if view.moves() && view.scope().is_over() {
                self.shared.let_it_be_told();
                view.wait_back(GO_BACK_TIME_MAX);
            }
            if was_over && view.falls() == falls && !view.scope().is_over() {
                // What it showed was committed meanwhile, and the view was led out of it.
                continue;
            }
            match (result, view.context(), view.whose.unsupervised()) {
                (Err(fault), Some(context), _) if fault.kind == FaultKind::Again => {
                    self.shared.probe();
                    view.set_scope(Arc::new(self.shared.coordinator.scope_of(context)?));
                }
                (Err(fault), Some(context), Some(why)) if fault.kind == FaultKind::Checkpoint => {
                    self.shared.coordinator.excuse(context, why.to_owned())?;
                }
                (result, ..) => return result,
            }
        }
        Err(Fault::new(FaultKind::Busy, "others change this all the time; try again later"))
    }

    /// The same for one that changes something: other views of the same are told.
    fn change<T>(
        &self,
        view: ViewId,
        what: impl FnOnce(&T) -> Vec<Invalidation>,
        operation: impl Fn(&crate::ops::Ops, &crate::ops::Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let open = self.open_view(view)?;
        let result = self.operate(&open.view, operation)?;
        let audience = self.shared.views.audience(&open.view);
        let followers = self.shared.views.followers(&open.view);
        if !audience.is_empty() || !followers.is_empty() {
            self.shared.note_change();
            let what = what(&result);
            audience.iter().for_each(|other| other.owe(what.iter().cloned()));
            let told: Vec<Ticket> = followers.iter().filter_map(|other| other.startle(&what)).collect();
            self.shared.nudge_announcer();
            if !told.is_empty() {
                self.shared.waiters.wait(view, urgent::directories(&what), told);
            }
        }
        Ok(result)
    }

    /// The kernel of a view is about to know an inode, with attributes as they were after `since`. From here on it is told
    /// of changes; if there were some in between, the attributes are read again.
    fn given(&self, view: ViewId, mut attr: Attr, mut since: u64) -> Result<Reply, Fault> {
        let open = self.open_view(view)?;
        open.view.hold(attr.ino);
        for _ in 0..GIVE_TRIES_MAX {
            let now = self.shared.changes();
            if now == since {
                return Ok(Reply::Attr(attr));
            }
            since = now;
            // One that is gone by now was there when it was asked for.
            if let Ok(again) = self.on(view, |ops, scope| ops.get_attr(scope, attr.ino)) {
                attr = again;
            }
        }
        open.view.owe([Invalidation::Inode(attr.ino)]);
        self.shared.nudge_announcer();
        Ok(Reply::Attr(attr))
    }

    fn names(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let since = self.shared.changes();
        match request {
            Request::Lookup { view, parent, name } => {
                let attr = self.asks(view, (parent, name), |ops, scope| ops.lookup(scope, parent, name))?;
                self.given(view, attr, since)
            }
            Request::Glance { view, parent, name } => {
                let (attr, current) = self.asks(view, (parent, name), |ops, scope| ops.glance(scope, parent, name))?;
                self.open_view(view)?.view.hold(attr.ino);
                Ok(Reply::Glance { attr, current: current && self.shared.changes() == since })
            }
            Request::Create { view, parent, name, kind, mode, umask, uid, gid, rdev, target } => {
                let new = NewFile { kind, mode, umask, uid, gid, rdev, target };
                self.open_view(view)?.view.asks_for(parent, name);
                let attr =
                    self.change(view, |_| named(parent, name), |ops, scope| ops.create(scope, parent, name, new))?;
                self.given(view, attr, since)
            }
            Request::Link { view, ino, parent, name } => {
                let what = |_: &Attr| [named(parent, name), vec![Invalidation::Inode(ino)]].concat();
                self.open_view(view)?.view.asks_for(parent, name);
                let attr = self.change(view, what, |ops, scope| ops.link(scope, ino, parent, name))?;
                self.given(view, attr, since)
            }
            Request::Unlink { view, parent, name } => {
                let what = |gone: &Ino| lost(named(parent, name), Some(*gone));
                self.change(view, what, |ops, scope| ops.unlink(scope, parent, name))?;
                self.open_view(view)?.view.took_away(parent, name);
                Ok(self.may_have_gone())
            }
            Request::RemoveDir { view, parent, name } => {
                let what = |gone: &Ino| lost(named(parent, name), Some(*gone));
                self.change(view, what, |ops, scope| ops.remove_dir(scope, parent, name))?;
                self.open_view(view)?.view.took_away(parent, name);
                Ok(self.may_have_gone())
            }
            Request::Rename { view, parent, name, new_parent, new_name, mode } => {
                let what =
                    |gone: &Option<Ino>| lost([named(parent, name), named(new_parent, new_name)].concat(), *gone);
                let open = self.open_view(view)?;
                open.view.asks_for(parent, name);
                open.view.asks_for(new_parent, new_name);
                self.change(view, what, |ops, scope| ops.rename(scope, (parent, name), (new_parent, new_name), mode))?;
                if mode != RenameMode::Exchange && (parent, name) != (new_parent, new_name) {
                    open.view.took_away(parent, name);
                }
                Ok(self.may_have_gone())
            }
            Request::ReadDir { view, ino, after, limit, attrs } => {
                let (entries, end) = self.on(view, |ops, scope| ops.read_dir(scope, ino, after, limit, attrs))?;
                self.hold_listed(view, &entries, since)?;
                Ok(Reply::Entries { entries, end })
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
        open.view.asks_for(parent, name);
        self.operate(&open.view, operation)
    }

    fn hold_listed(&self, view: ViewId, entries: &[DirEntry], since: u64) -> Result<(), Fault> {
        let open = self.open_view(view)?;
        let given = || entries.iter().filter(|entry| entry.attr.is_some()).map(|entry| entry.ino);
        given().for_each(|ino| open.view.hold(ino));
        if self.shared.changes() != since {
            open.view.owe(given().map(Invalidation::Inode));
            self.shared.nudge_announcer();
        }
        Ok(())
    }

    /// Something may have lost its last name.
    fn may_have_gone(&self) -> Reply {
        self.shared.nudge_keeper();
        Reply::Done
    }

    fn files(&self, request: Request<'_>) -> Result<Reply, Fault> {
        match request {
            Request::GetAttr { view, ino } => Ok(Reply::Attr(self.on(view, |ops, scope| ops.get_attr(scope, ino))?)),
            Request::SetAttr { view, ino, set } => {
                Ok(Reply::Attr(self.change(view, |_| file(ino), |ops, scope| ops.set_attr(scope, ino, &set))?))
            }
            Request::ReadLink { view, ino } => Ok(Reply::Data(self.on(view, |ops, scope| ops.read_link(scope, ino))?)),
            Request::Read { view, ino, offset, size } => {
                Ok(Reply::Data(self.on(view, |ops, scope| ops.read(scope, ino, offset, size))?))
            }
            Request::Write { view, ino, offset, data, append, clear_set_id } => {
                let at = (offset, append);
                let written =
                    self.change(view, |_| file(ino), |ops, scope| ops.write(scope, ino, at, data, clear_set_id))?;
                let open = self.open_view(view)?;
                open.count_written(data.len() as u64);
                if written != offset {
                    // The kernel believes it elsewhere: the file has grown without it.
                    open.view.owe([Invalidation::Inode(ino)]);
                    self.shared.nudge_announcer();
                }
                Ok(Reply::Offset(written))
            }
            Request::Fallocate { view, ino, offset, len, mode } => {
                self.change(view, |_| file(ino), |ops, scope| ops.fallocate(scope, ino, offset, len, mode))?;
                Ok(Reply::Done)
            }
            Request::Seek { view, ino, offset, whence } => {
                Ok(Reply::Offset(self.on(view, |ops, scope| ops.seek(scope, ino, offset, whence))?))
            }
            Request::CopyRange { view, ino, offset, to, to_offset, len } => {
                let (from, target) = ((ino, offset), (to, to_offset));
                let copied = self.change(view, |_| file(to), |ops, scope| ops.copy_range(scope, from, target, len))?;
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

    fn attributes(&self, request: Request<'_>) -> Result<Reply, Fault> {
        match request {
            Request::GetXattr { view, ino, name } => {
                Ok(Reply::Data(self.on(view, |ops, scope| ops.get_xattr(scope, ino, name))?))
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

    fn forget(&self, view: ViewId, inos: &[Ino]) -> Result<Reply, Fault> {
        // A view that was rolled back may still forget.
        if let Some(open) = self.views.lock().get(&view).cloned() {
            inos.iter().for_each(|ino| open.view.release(*ino));
            self.shared.nudge_keeper();
        }
        Ok(Reply::Done)
    }

    fn settle(&self, view: &View) -> Result<Reply, Fault> {
        let deadline = Instant::now() + NOTICE_TIME_MAX;
        for other in self.shared.views.owed().into_iter().filter(|other| other.id != view.id) {
            if !other.wait_settled(deadline) {
                tracing::warn!("view {} does not take its notices", other.id);
            }
        }
        Ok(Reply::Done)
    }
}

impl Connection for Session {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        match request {
            Request::OpenView(kind) => Ok(Reply::View(self.open(kind)?)),
            Request::Gone { view } => {
                self.shared.coordinator.doom(&self.open_view(view)?.view.entered());
                Ok(Reply::Done)
            }
            Request::Enter { view, info, own } => self.enter(view, info, own),
            Request::Leg { view } => self.begin_leg(view),
            Request::NoLeg { view, why } => {
                let (_, context) = self.job_view(view)?;
                self.shared.coordinator.excuse(context, why).map(|()| Reply::Done)
            }
            Request::Unheard { view } => {
                self.job_view(view)?.0.answer_at_once();
                Ok(Reply::Done)
            }
            Request::Unsettled { spec, uid } => Ok(Reply::Specs(self.shared.coordinator.unsettled(spec, uid)?)),
            Request::CloseView(view) => self.close(view).map(|()| Reply::Done),
            Request::Status { uid } => Ok(Reply::Status(self.shared.coordinator.status(uid))),
            Request::Commit { .. } | Request::Abort { .. } | Request::Hold { .. } => self.decide(request),
            Request::Diff { spec, uid, from } => {
                Ok(Reply::Diff(self.shared.coordinator.diff(spec, uid, from.as_deref())?))
            }
            Request::Await { specs, millis, behind, uid } => {
                let limit = Duration::from_millis(millis.into()).min(AWAIT_TIME_MAX);
                Ok(Reply::Specs(self.shared.coordinator.wait_for(&specs, (behind, uid), limit)?))
            }
            Request::Outcome { spec } => {
                let outcome = self.shared.coordinator.outcome(spec)?;
                // Whoever hears of a decision finds that every view was told of it.
                drop(self.shared.telling.write());
                Ok(Reply::Outcome(outcome))
            }
            Request::Writers { path } => Ok(Reply::Specs(self.shared.coordinator.writers(&path)?)),
            Request::Reclaim => self.shared.reclaim(),
            Request::Unmerged => self.shared.unmerged(),
            Request::Sync => self.shared.sync(),
            Request::Forget { view, inos } => self.forget(view, &inos),
            Request::Settle { view, wait } => {
                let owed = self.shared.views.owed();
                match wait || owed.iter().all(|other| other.id == view) {
                    true => self.settle(&self.open_view(view)?.view.clone()),
                    false => Err(Fault::new(FaultKind::Again, "others are being told")),
                }
            }
            Request::Lookup { .. }
            | Request::Glance { .. }
            | Request::Create { .. }
            | Request::Link { .. }
            | Request::Unlink { .. }
            | Request::RemoveDir { .. }
            | Request::Rename { .. }
            | Request::ReadDir { .. } => self.names(request),
            _ => self.files(request),
        }
    }

    fn set_notice_sink(&self, sink: Arc<dyn NoticeSink>) {
        self.sink.set(sink);
    }

    fn is_embedded(&self) -> bool {
        self.embedded
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let ids: Vec<ViewId> = self.views.lock().keys().copied().collect();
        for id in ids {
            if let Err(fault) = self.close(id) {
                tracing::error!("closing view {id}: {fault}");
            }
        }
    }
}

fn file(ino: Ino) -> Vec<Invalidation> {
    vec![Invalidation::Inode(ino)]
}

/// A name changed, and with it its directory.
/// What has lost a name has other attributes by that.
fn lost(mut what: Vec<Invalidation>, ino: Option<Ino>) -> Vec<Invalidation> {
    what.extend(ino.map(Invalidation::Attributes));
    what
}

fn named(parent: Ino, name: &[u8]) -> Vec<Invalidation> {
    vec![Invalidation::Entry { parent, name: name.to_vec() }, Invalidation::Inode(parent)]
}
