//! One client's session: its requests find their view, and what follows from them reaches the views it concerns.

mod files;
mod locks;
mod names;
mod operations;
mod origin;
mod speculations;
mod views;

use crate::coordinator::Aftermath;
use crate::limits::{GO_BACK_TIME_MAX, OPERATION_TRIES_MAX};
use crate::server::Shared;
use crate::views::urgent::{self, Ticket};
use crate::views::{SinkSlot, View, why_unsupervised};
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, Invalidation, NoticeSink, Reply, Request};
use parking_lot::Mutex;
use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// One client of a server. Dropping it closes its views: what they had undecided is aborted, unless it is held.
pub(crate) struct Session {
    shared: Arc<Shared>,
    sink: Arc<SinkSlot>,
    views: Mutex<HashMap<ViewId, Arc<OpenView>>>,
    embedded: bool,
    /// Its first view of what is final.
    trunk: OnceLock<ViewId>,
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
        Session { shared, sink: Arc::default(), views: Mutex::default(), embedded, trunk: OnceLock::new() }
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
        self.shared.wait_told(self.shared.views.queued().iter().filter(|other| other.id != view.id));
        Ok(Reply::Done)
    }
}

/// What a request asks for, in two words, for the log.
struct Kind<'a>(&'a Request<'a>);

impl fmt::Display for Kind<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, op) = match self.0 {
            Request::Fs { op, .. } => ("fs", format!("{op:?}")),
            Request::View(op) => ("view", format!("{op:?}")),
            Request::Speculation { op, .. } => ("speculation", format!("{op:?}")),
            Request::Admin(op) => ("admin", format!("{op:?}")),
        };
        let op = op.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        write!(f, "{group} {op}")
    }
}

impl Connection for Session {
    fn call(&self, request: Request<'_>) -> Result<Reply, Fault> {
        let _span = tracing::trace_span!("request", what = %Kind(&request)).entered();
        let answer = match request {
            Request::Fs { view, caller, op } => self.operation(view, caller, op),
            Request::View(op) => self.view_op(op),
            Request::Speculation { actor, op } => self.speculation(actor, op),
            Request::Admin(op) => self.admin(op),
        };
        // It steers the server, and nobody else.
        answer.map_err(|fault| match fault.kind {
            FaultKind::Again => Fault { kind: FaultKind::Busy, ..fault },
            _ => fault,
        })
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
