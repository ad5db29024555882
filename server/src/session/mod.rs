//! One client's session: its requests find their view, and what follows from them reaches the views it concerns.

mod requests;
mod views;

use crate::coordinator::Aftermath;
use crate::limits::{AWAIT_TIME_MAX, GO_BACK_TIME_MAX, OPERATION_TRIES_MAX, UPCOMING_STEP};
use crate::server::Shared;
use crate::telling::Telling;
use crate::views::urgent::{self, Ticket};
use crate::views::{SinkSlot, View, why_unsupervised};
use mojavefs::id::{SpecId, ViewId};
use mojavefs::limits::NOTICE_TIME_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, Invalidation, NoticeSink, Reply, Request};
use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
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
        let open = self.any_view(id)?;
        if open.view.is_dead() {
            // The job's processes are about to be ended: they see nothing of that.
            open.view.wait_ended(GO_BACK_TIME_MAX);
        }
        self.live_view(id)
    }

    /// The same for whoever ends its processes.
    fn live_view(&self, id: ViewId) -> Result<Arc<OpenView>, Fault> {
        let view = self.any_view(id)?;
        match view.view.is_dead() {
            true => Err(Fault::new(FaultKind::Stale, format!("the speculation of view {id} was rolled back"))),
            false => Ok(view),
        }
    }

    /// A view, though what it shows may have been undone.
    fn any_view(&self, id: ViewId) -> Result<Arc<OpenView>, Fault> {
        let view = self.views.lock().get(&id).cloned();
        view.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no view {id}")))
    }

    fn follow(&self, aftermath: Aftermath) {
        self.shared.follow(aftermath);
    }

    fn decide(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let mut telling = self.shared.telling();
        let reply = self.decide_and_follow(request, &mut telling);
        self.shared.follow_outstanding();
        reply
    }

    fn decide_and_follow(&self, request: Request<'_>, telling: &mut Telling<'_>) -> Result<Reply, Fault> {
        let coordinator = &self.shared.coordinator;
        if let Request::Commit { spec, uid, .. } | Request::Hold { spec, uid } = request {
            coordinator
                .context_for(spec, uid)
                .map_or(Ok(()), |_| coordinator.fold_segments(spec, |told| self.follow(told)))?;
        }
        let (outcome, aftermath) = match request {
            Request::Commit { spec, uid, resolutions, touch } => {
                coordinator.mark_modified(spec, uid, touch)?;
                coordinator.commit(spec, uid, &resolutions, telling)?
            }
            Request::Abort { spec, uid, back } => {
                let (outcome, aftermath) = coordinator.abort(spec, Some(uid), telling)?;
                (outcome, Aftermath { back: back.map(|(view, drained)| (view, spec, drained)), ..aftermath })
            }
            Request::Hold { spec, uid } => (coordinator.hold(spec, uid, telling)?, Aftermath::default()),
            _ => return Err(Fault::new(FaultKind::Protocol, "this is no decision")),
        };
        coordinator.write_down_conflicts();
        let back = aftermath.back;
        self.follow(aftermath);
        if let Some((id, spec, _)) = back {
            // Nothing is left to do if it fell by this very abort.
            self.shared.come_out(&self.live_view(id)?.view, spec, false);
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

    /// Runs an operation, again if what it met has become part of what the view sees. What is just being decided is not waited for.
    fn operate<T>(
        &self,
        view: &View,
        operation: impl Fn(&crate::ops::Ops, &crate::ops::Scope) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let mut tries = 0;
        while tries < OPERATION_TRIES_MAX {
            tries += 1;
            let falls = view.falls();
            let stale = || Fault::new(FaultKind::Stale, format!("the speculation of view {} is decided", view.id));
            let was_over = Cell::new(false);
            let result = self.shared.coordinator.undisturbed(|| {
                let scope = view.scope();
                was_over.set(scope.is_over());
                if scope.is_over() { Err(stale()) } else { operation(&self.shared.ops, &scope) }
            });
            if view.moves() && view.scope().is_over() {
                self.shared.let_it_be_told();
                view.wait_back(GO_BACK_TIME_MAX);
            }
            if was_over.get() && view.falls() == falls && !view.scope().is_over() {
                // What it showed was committed meanwhile, and the view was led out of it.
                continue;
            }
            match (result, view.context(), why_unsupervised(view.owner)) {
                (Err(fault), Some(context), _) if fault.kind == FaultKind::Again => {
                    self.shared.probe();
                    // One that is undone meanwhile is over, which is found next.
                    if let Ok(scope) = self.shared.coordinator.scope_of(context) {
                        view.set_scope(Arc::new(scope));
                    }
                }
                (Err(fault), Some(context), Some(why)) if fault.kind == FaultKind::Checkpoint => {
                    self.shared.coordinator.without_checkpoint(context, why.to_owned())?;
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
        let result = self.operate(&open.view, |ops, scope| {
            self.shared.coordinator.demand_changeable(open.view.context())?;
            operation(ops, scope)
        })?;
        let audience = self.shared.views.audience(&open.view);
        let followers = self.shared.views.followers(&open.view);
        if !audience.is_empty() || !followers.is_empty() {
            self.shared.note_change();
            let what = what(&result);
            audience.iter().for_each(|other| other.queue(what.iter().cloned()));
            let told: Vec<Ticket> = followers.iter().filter_map(|other| other.invalidate_now(&what)).collect();
            self.shared.nudge_announcer();
            if !told.is_empty() {
                self.shared.waiters.wait(view, urgent::directories(&what), told);
            }
        }
        Ok(result)
    }

    fn settle(&self, view: &View) -> Result<Reply, Fault> {
        if self.shared.tells_in_turn() {
            // What is left is being told by this very thread.
            self.shared.tell_queued();
            return Ok(Reply::Done);
        }
        let deadline = Instant::now() + NOTICE_TIME_MAX;
        for other in self.shared.views.queued().into_iter().filter(|other| other.id != view.id) {
            if !other.wait_settled(deadline) {
                tracing::warn!("view {} does not take its notices", other.id);
            }
        }
        Ok(Reply::Done)
    }
}

/// What a request asks for, in a word, for the log.
struct Kind<'a>(&'a Request<'a>);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let request = format!("{:?}", self.0);
        f.write_str(request.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default())
    }
}

impl Connection for Session {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let _span = tracing::trace_span!("request", what = %Kind(&request)).entered();
        match request {
            Request::OpenView(kind) => Ok(Reply::View(self.open(kind)?)),
            Request::Gone { view } => {
                self.shared.coordinator.doom(&self.open_view(view)?.view.entered());
                Ok(Reply::Done)
            }
            Request::Enter { view, info, own } => self.enter(view, info, own),
            Request::Segment { view } => self.begin_segment(view),
            Request::NoSegment { view, why } => {
                let (_, context) = self.job_view(view)?;
                self.shared.coordinator.without_checkpoint(context, why).map(|()| Reply::Done)
            }
            Request::Unheard { view } => {
                self.any_view(view)?.view.answer_at_once();
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
            Request::AwaitRound { patient } => {
                if self.shared.coordinator.has_rounds() {
                    return Ok(Reply::Ended(self.shared.coordinator.wait_for_round(patient)));
                }
                // A read may wait for one that is about to be sealed.
                self.shared.upcomings.wait_for_end(UPCOMING_STEP);
                Ok(Reply::Ended(true))
            }
            Request::Outcome { spec } => {
                let outcome = self.shared.coordinator.outcome(spec)?;
                // Whoever hears of a decision finds that every view was told of it.
                self.shared.effects.wait(None);
                Ok(Reply::Outcome(outcome))
            }
            Request::Writers { path } => Ok(Reply::Specs(self.shared.coordinator.writers(&path)?)),
            Request::Reclaim => self.shared.reclaim(),
            Request::Search { anew } => self.shared.search(anew),
            Request::Unmerged => self.shared.unmerged(),
            Request::Sync => self.shared.sync(),
            Request::Announced => {
                self.shared.let_it_be_told();
                Ok(Reply::Done)
            }
            Request::Forget { view, inos } => self.forget(view, &inos),
            Request::Settle { view, wait } => {
                let queued = self.shared.views.queued();
                match wait || queued.iter().all(|other| other.id == view) {
                    // Also for processes that end because of what was undone: they must not wait for their own end.
                    true => self.settle(&self.live_view(view)?.view.clone()),
                    false => Err(Fault::new(FaultKind::Again, "others are being told")),
                }
            }
            Request::Lookup { .. }
            | Request::Glance { .. }
            | Request::GlanceNamed { .. }
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
