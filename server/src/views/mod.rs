//! What one mount sees, as the server knows it, and what it must be told.

mod announce;
pub(crate) mod cache;
mod invalidations;
pub(crate) mod names;
mod state;
pub(crate) mod upcoming;
pub(crate) mod urgent;

use crate::ops::Scope;
use crate::views::cache::KernelCache;
use crate::views::invalidations::InvalidationSet;
use crate::views::state::State;
use crate::views::urgent::{Ticket, Urgent};
use mojavefs::id::{ContextId, Ino, ViewId};
use mojavefs::limits::INVALIDATIONS_MAX;
use mojavefs::protocol::{Invalidation, Notice, NoticeSink, ViewOwner};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// Where a session's notices go, once its client has said so.
#[derive(Default)]
pub(crate) struct SinkSlot(RwLock<Option<Arc<dyn NoticeSink>>>);

impl SinkSlot {
    pub(crate) fn set(&self, sink: Arc<dyn NoticeSink>) {
        *self.0.write() = Some(sink);
    }

    fn deliver(&self, notice: Notice) {
        let sink = self.0.read().clone();
        if let Some(sink) = sink {
            sink.deliver(notice);
        }
    }
}

/// Why nobody makes checkpoints of who reads through a view of such an owner, for people; nothing where somebody may.
pub(crate) fn why_unsupervised(owner: ViewOwner) -> Option<&'static str> {
    match owner {
        ViewOwner::Process => Some("a process that speculates by itself (libmojave), or what it started, read it"),
        ViewOwner::Guest => Some("it was read from outside of the job, by `mojavefs shell`"),
        ViewOwner::Trunk | ViewOwner::Job => None,
    }
}

/// One mount.
pub(crate) struct View {
    pub(crate) id: ViewId,
    state: Mutex<State>,
    /// Rung when that changes, or what it shows.
    turned: Condvar,
    pub(crate) owner: ViewOwner,
    /// Who opened it; everybody's if nobody is named.
    pub(crate) uid: Option<u32>,
    /// Its client lives in this process.
    pub(crate) embedded: bool,
    /// What is visible, what new versions carry; replaced when the context's interval changes.
    scope: RwLock<Arc<Scope>>,
    /// What its kernel may keep.
    pub(crate) kernel: KernelCache,
    sink: Arc<SinkSlot>,
    queue: Mutex<Queue>,
    settled: Condvar,
    pub(crate) urgent: Urgent,
}

/// Invalidations that another view's changes call for.
#[derive(Default)]
struct Queue {
    what: InvalidationSet,
    queued: u64,
    delivered: u64,
}

impl View {
    pub(crate) fn new(
        id: ViewId,
        context: Option<ContextId>,
        (owner, uid): (ViewOwner, Option<u32>),
        scope: Arc<Scope>,
        sink: Arc<SinkSlot>,
        embedded: bool,
    ) -> Self {
        View {
            id,
            state: Mutex::new(State::of(context)),
            turned: Condvar::new(),
            owner,
            uid,
            embedded,
            scope: RwLock::new(scope),
            kernel: KernelCache::default(),
            sink,
            queue: Mutex::default(),
            settled: Condvar::new(),
            urgent: Urgent::default(),
        }
    }

    /// Tells the view at once and returns when its kernel knows.
    pub(crate) fn deliver(&self, notice: Notice) {
        self.sink.deliver(notice);
    }

    /// Tells the view what its kernel must look up again, and returns when it has.
    pub(crate) fn tell(&self, set: InvalidationSet) {
        let view = self.id;
        self.deliver_all(set, |what, all_names| Notice::Invalidate { view, what, all_names });
    }

    /// Tells the view what its kernel must forget since it is about to change, and returns when it has.
    pub(crate) fn forget(&self, set: InvalidationSet) {
        let view = self.id;
        self.deliver_all(set, |what, all_names| Notice::Forget { view, what, all_names });
    }

    fn deliver_all(&self, set: InvalidationSet, notice: impl Fn(Vec<Invalidation>, bool) -> Notice) {
        let mut rest = set.what;
        while rest.len() > INVALIDATIONS_MAX {
            let later = rest.split_off(INVALIDATIONS_MAX);
            self.deliver(notice(rest, false));
            rest = later;
        }
        if !rest.is_empty() || set.all_names {
            self.deliver(notice(rest, set.all_names));
        }
    }

    /// Something that its kernel may believe was changed in another context. Attributes are looked up again from now on;
    /// names once what is returned was waited for, content once [`View::flush`] was called, since these wait for requests under
    /// way.
    pub(crate) fn invalidate_now(self: &Arc<Self>, what: &[Invalidation]) -> Option<Ticket> {
        let believed: Vec<Invalidation> = what.iter().filter(|what| self.kernel.believes(what)).cloned().collect();
        if believed.is_empty() || self.is_dead() {
            return None;
        }
        if !self.embedded {
            self.queue(believed);
            return None;
        }
        let (names, content): (Vec<_>, Vec<_>) =
            believed.into_iter().partition(|what| matches!(what, Invalidation::Entry { .. }));
        if !content.is_empty() {
            let attributes = content.iter().map(|what| Invalidation::Attributes(inode_of(what))).collect();
            self.deliver(Notice::Invalidate { view: self.id, what: attributes, all_names: false });
            self.queue(content);
        }
        (!names.is_empty()).then(|| self.tell_names(names))
    }

    /// Notes what its kernel must look up again; [`View::flush`] tells it.
    pub(crate) fn queue(&self, what: impl IntoIterator<Item = Invalidation>) {
        let mut queue = self.queue.lock();
        queue.what.add(what.into_iter().filter(|what| self.kernel.believes(what)));
        queue.queued += 1;
    }

    pub(crate) fn has_queued(&self) -> bool {
        let queue = self.queue.lock();
        queue.delivered < queue.queued
    }

    /// Tells the view all that it is queue. Called by one thread only.
    pub(crate) fn flush(&self) {
        let (what, queued) = {
            let mut queue = self.queue.lock();
            (std::mem::take(&mut queue.what), queue.queued)
        };
        self.tell(what);
        let mut queue = self.queue.lock();
        queue.delivered = queue.delivered.max(queued);
        drop(queue);
        self.settled.notify_all();
    }

    /// It is closed: nothing that is queued is delivered any more, and nobody need wait for that.
    pub(crate) fn close(&self) {
        self.queue.lock().delivered = u64::MAX;
        self.settled.notify_all();
    }

    /// Waits until everything queued up to now was delivered; false at the deadline.
    pub(crate) fn wait_settled(&self, deadline: Instant) -> bool {
        let mut queue = self.queue.lock();
        let target = queue.queued;
        while queue.delivered < target {
            if self.settled.wait_until(&mut queue, deadline).timed_out() {
                return queue.delivered >= target;
            }
        }
        true
    }
}

fn inode_of(what: &Invalidation) -> Ino {
    match what {
        Invalidation::Inode(ino) | Invalidation::Attributes(ino) => *ino,
        Invalidation::Entry { parent, .. } => *parent,
    }
}

/// Every open view of a server.
#[derive(Default)]
pub(crate) struct Views {
    by_id: RwLock<HashMap<ViewId, Arc<View>>>,
}

impl Views {
    pub(crate) fn insert(&self, view: Arc<View>) {
        self.by_id.write().insert(view.id, view);
    }

    pub(crate) fn remove(&self, id: ViewId) -> Option<Arc<View>> {
        self.by_id.write().remove(&id)
    }

    pub(crate) fn all(&self) -> Vec<Arc<View>> {
        self.by_id.read().values().cloned().collect()
    }

    /// The views that were opened for a context.
    pub(crate) fn based_on(&self, context: ContextId) -> Vec<Arc<View>> {
        self.by_id.read().values().filter(|view| view.base() == Some(context)).cloned().collect()
    }

    /// The views of one context (of trunk for none).
    pub(crate) fn of(&self, context: Option<ContextId>) -> Vec<Arc<View>> {
        self.by_id.read().values().filter(|view| view.context() == context).cloned().collect()
    }

    /// The other views that show what `view` changes.
    pub(crate) fn audience(&self, view: &View) -> Vec<Arc<View>> {
        let views = self.by_id.read();
        if views.len() == 1 {
            return Vec::new();
        }
        let context = view.context();
        views.values().filter(|other| other.id != view.id && other.context() == context).cloned().collect()
    }

    /// The views of other contexts that see what `view` changes.
    pub(crate) fn followers(&self, view: &View) -> Vec<Arc<View>> {
        let views = self.by_id.read();
        if views.len() == 1 {
            return Vec::new();
        }
        let context = view.context();
        views.values().filter(|other| other.follows() && other.context() != context).cloned().collect()
    }

    /// Every view with something to be told.
    pub(crate) fn queued(&self) -> Vec<Arc<View>> {
        self.by_id.read().values().filter(|view| view.has_queued()).cloned().collect()
    }

    /// Whether any kernel still knows the inode.
    pub(crate) fn holds(&self, ino: Ino) -> bool {
        self.by_id.read().values().any(|view| view.kernel.holds(ino))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Sight;

    #[test]
    fn nobody_waits_for_a_view_that_is_closed() {
        let scope = Scope { sight: Sight::trunk(), accesses: None, over: Arc::default() };
        let view = View::new(ViewId(1), None, (ViewOwner::Trunk, None), Arc::new(scope), Arc::default(), true);
        view.queue([Invalidation::Inode(Ino::ROOT)]);
        assert!(!view.wait_settled(Instant::now()));
        view.close();
        view.queue([Invalidation::Inode(Ino::ROOT)]);
        assert!(view.wait_settled(Instant::now()));
    }
}
