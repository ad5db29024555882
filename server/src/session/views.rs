//! How views come, where their processes take them, and how they end.

use super::{OpenView, Session};
use crate::coordinator::{Beginning, Kind};
use crate::limits::{OPERATION_TRIES_MAX, UPCOMING_STEP};
use crate::views::View;
use mojavefs::id::{ContextId, SpecId, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{JobInfo, OnRead, OpenedView, Reply, ViewKind, ViewOp, ViewOwner};
use std::sync::Arc;

impl Session {
    pub(super) fn view_op(&self, op: ViewOp) -> Result<Reply, Fault> {
        match op {
            ViewOp::Open(kind) => Ok(Reply::View(self.open(kind)?)),
            ViewOp::Close(view) => self.close(view).map(|()| Reply::Done),
            ViewOp::Enter { view, info, own } => self.enter(view, info, own),
            ViewOp::Gone { view } => {
                self.shared.coordinator.doom(&self.open_view(view)?.view.entered());
                Ok(Reply::Done)
            }
            ViewOp::Undo { view, spec, actor, drained } => self.undo((view, spec), actor, drained),
            ViewOp::Segment { view } => self.begin_segment(view),
            ViewOp::NoSegment { view, why } => {
                let (_, context) = self.job_view(view)?;
                self.shared.coordinator.without_checkpoint(context, why).map(|()| Reply::Done)
            }
            ViewOp::Unheard { view } => {
                self.any_view(view)?.view.answer_at_once();
                Ok(Reply::Done)
            }
            ViewOp::AwaitRound { patient } => {
                if self.shared.coordinator.has_rounds() {
                    return Ok(Reply::Ended(self.shared.coordinator.wait_for_round(patient)));
                }
                // A read may wait for one that is about to be sealed.
                self.shared.upcomings.wait_for_end(UPCOMING_STEP);
                Ok(Reply::Ended(true))
            }
            ViewOp::Announced => {
                self.shared.let_it_be_told();
                Ok(Reply::Done)
            }
        }
    }

    /// Opens a view.
    pub(super) fn open(&self, kind: ViewKind) -> Result<OpenedView, Fault> {
        let parent = match &kind {
            ViewKind::Process { parent, .. } | ViewKind::Job { parent, .. } => Some(self.open_view(*parent)?),
            _ => None,
        };
        for _ in 0..OPERATION_TRIES_MAX {
            let before = parent.as_ref().and_then(|parent| parent.view.context());
            let opened = self.try_open(kind.clone());
            let is_led_out = || parent.as_ref().is_some_and(|parent| self.shared.is_led_out(&parent.view, before));
            match opened {
                Ok(Some(opened)) => return Ok(opened),
                // What it was started in is decided.
                Ok(None) => self.shared.let_it_be_told(),
                Err(_) if is_led_out() => {}
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::new(FaultKind::Busy, "what this is started in is decided all the time; try again later"))
    }

    /// Nothing if what it shows was decided before it was there to be led out of that.
    fn try_open(&self, kind: ViewKind) -> Result<Option<OpenedView>, Fault> {
        let coordinator = &self.shared.coordinator;
        // Whoever begins finds what is there.
        self.shared.origin.iter().for_each(|origin| origin.forget_looks());
        let uid = match &kind {
            ViewKind::Trunk => None,
            ViewKind::Job { info, .. } => Some(info.uid),
            ViewKind::Process { uid, .. } | ViewKind::Inside { uid, .. } => Some(*uid),
            ViewKind::Before { uid, .. } | ViewKind::After { uid, .. } => Some(*uid),
        };
        let (spec, context, scope, owner) = match kind {
            ViewKind::Trunk => (None, None, coordinator.trunk(), ViewOwner::Trunk),
            ViewKind::Process { parent, uid, pid } => {
                self.demand_nothing_to_lose(&self.open_view(parent)?.view, pid)?;
                let context = self.around(parent, uid)?;
                (None, context, coordinator.shown_by(context)?, ViewOwner::Process)
            }
            ViewKind::Job { parent, info, on_read, own, restarts } => {
                if let (OnRead::Isolate, Some(origin)) = (on_read, self.shared.origin.clone()) {
                    self.compare_all(&origin)?;
                }
                let parent = self.around(parent, info.uid)?;
                let start = Beginning { own, restarts, ..Beginning::job(info, on_read) };
                let (spec, context, scope) = coordinator.begin(parent, start)?;
                (Some(spec), Some(context), scope, ViewOwner::Job)
            }
            ViewKind::Before { spec, uid } => (None, None, coordinator.compared(spec, uid, false)?, ViewOwner::Guest),
            ViewKind::After { spec, uid } => (None, None, coordinator.compared(spec, uid, true)?, ViewOwner::Guest),
            ViewKind::Inside { spec, uid } => {
                let context = coordinator.context_for(spec, uid)?;
                (Some(spec), Some(context), coordinator.scope_of(context)?, ViewOwner::Guest)
            }
        };
        let id = self.shared.next_view();
        let view = View::new(id, context, (owner, uid), Arc::new(scope), self.sink.clone(), self.embedded);
        let view = Arc::new(view);
        let bytes = context.and_then(|context| coordinator.bytes_counter(context));
        self.shared.views.insert(view.clone());
        // From here on it is told of decisions. What it shows may have come to be seen in another way before.
        if let Some(context) = context {
            match coordinator.scope_of(context) {
                Ok(scope) if view.context() == Some(context) => view.set_scope(Arc::new(scope)),
                Ok(_) => {}
                Err(_) if view.context() == Some(context) => {
                    self.shared.close_view(&view);
                    return Ok(None);
                }
                // It was led out of that.
                Err(_) => {}
            }
        }
        if let Some(spec) = spec.filter(|_| owner == ViewOwner::Job) {
            coordinator.supervised(spec);
        }
        if owner == ViewOwner::Trunk {
            let _ = self.trunk.set(id);
        }
        self.views.lock().insert(id, Arc::new(OpenView { view, spec, bytes }));
        Ok(Some(OpenedView { view: id, spec }))
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
    pub(super) fn enter(&self, id: ViewId, info: JobInfo, own: Option<SpecId>) -> Result<Reply, Fault> {
        let open = self.open_view(id)?;
        if open.view.owner != ViewOwner::Process {
            return Err(Fault::new(FaultKind::Protocol, format!("view {id} is no process's")));
        }
        self.demand_comes_back(&open.view)?;
        let (spec, context, scope) = loop {
            let around = open.view.context();
            let coordinator = &self.shared.coordinator;
            match coordinator.begin(around, Beginning::part(info.clone(), Kind::Level, own)) {
                Err(_) if self.shared.is_led_out(&open.view, around) => {}
                entered => break entered?,
            }
        };
        self.shared.locks.enter(id, spec);
        open.view.go_into(context, spec, Arc::new(scope));
        Ok(Reply::View(OpenedView { view: id, spec: Some(spec) }))
    }

    /// The process of a job can go back to this point.
    pub(super) fn begin_segment(&self, id: ViewId) -> Result<Reply, Fault> {
        let (view, context) = self.job_view(id)?;
        if self.shared.views.of(Some(context)).len() > 1 {
            return Err(Fault::new(FaultKind::Busy, "something else works in the same view"));
        }
        self.demand_unlocked(&view)?;
        let (spec, context, scope) = self.shared.coordinator.begin_segment(context)?;
        view.go_into(context, spec, Arc::new(scope));
        Ok(Reply::View(OpenedView { view: id, spec: Some(spec) }))
    }

    /// The view of a job, and what it shows.
    pub(super) fn job_view(&self, id: ViewId) -> Result<(Arc<View>, ContextId), Fault> {
        let open = self.live_view(id)?;
        match open.view.context() {
            Some(context) if open.view.owner == ViewOwner::Job => Ok((open.view.clone(), context)),
            _ => Err(Fault::new(FaultKind::Protocol, format!("view {id} is no job's"))),
        }
    }

    /// The owner of a job's view is gone with it.
    pub(super) fn close(&self, id: ViewId) -> Result<(), Fault> {
        let Some(open) = self.views.lock().remove(&id) else {
            return Err(Fault::new(FaultKind::NotFound, format!("there is no view {id}")));
        };
        let closed = self.close_opened(&open);
        if let Some(spec) = open.spec.filter(|_| open.view.owner == ViewOwner::Job) {
            self.shared.coordinator.unsupervised(spec);
        }
        closed
    }

    fn close_opened(&self, open: &OpenView) -> Result<(), Fault> {
        self.shared.close_view(&open.view);
        let coordinator = &self.shared.coordinator;
        if open.view.owner == ViewOwner::Process && !open.view.entered().is_empty() {
            // What it has voted for stays, and waits for others.
            let specs = open.view.entered().into_iter().filter_map(|context| coordinator.spec_of(context));
            return specs
                .into_iter()
                .find(|spec| !coordinator.is_left(*spec))
                .map_or(Ok(()), |spec| self.abandon(spec));
        }
        let Some(spec) = open.spec.filter(|_| !open.view.is_dead()) else { return Ok(()) };
        if coordinator.is_held(spec) || open.view.owner == ViewOwner::Guest {
            return coordinator.beside_rounds(|| coordinator.hold_again(spec, &mut self.shared.telling()));
        }
        if coordinator.has_voted(spec)
            || open.view.base().and_then(|context| coordinator.spec_of(context)) != Some(spec)
        {
            return Ok(());
        }
        self.abandon(spec)
    }

    /// An owner that is gone without deciding has aborted.
    fn abandon(&self, spec: SpecId) -> Result<(), Fault> {
        let aborted = self.shared.coordinator.beside_rounds(|| {
            let mut telling = self.shared.telling();
            let aborted = self.shared.coordinator.abort(spec, None, &mut telling);
            self.shared.follow_outstanding();
            aborted.map(|(_, aftermath)| self.follow(aftermath))
        });
        match aborted {
            // Committed, or folded into the job around it, or what it is will be known later.
            Err(fault) if matches!(fault.kind, FaultKind::Decided | FaultKind::NotFound | FaultKind::InDoubt) => Ok(()),
            result => result,
        }
    }
}
