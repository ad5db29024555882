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
use mojavefs::protocol::{Invalidation, Notice, NoticeSink};
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

/// Whose a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Everybody's: trunk's.
    Trunk,
    /// A job's.
    Job,
    /// That of a process that speculates.
    Process,
    /// It was opened to look into a speculation.
    Guest,
}

impl Whose {
    /// Why nobody makes checkpoints of who reads through such a view, for people; nothing where somebody may.
    pub(crate) fn unsupervised(self) -> Option<&'static str> {
        match self {
            Whose::Process => Some("a process that speculates by itself (libmojave), or what it started, read it"),
            Whose::Guest => Some("it was read from outside of the job, by `mojavefs shell`"),
            Whose::Trunk | Whose::Job => None,
        }
    }
}

/// One mount.
pub(crate) struct View {
    pub(crate) id: ViewId,
    state: Mutex<State>,
    /// Rung when that changes, or what it shows.
    turned: Condvar,
    pub(crate) whose: Whose,
    /// Who opened it; everybody's if nobody is named.
    pub(crate) uid: Option<u32>,
    /// Its client lives in this process.
    pub(crate) embedded: bool,
    /// What is visible, what new versions carry; replaced when the context's interval changes.
    scope: RwLock<Arc<Scope>>,
    /// What its kernel may keep.
    pub(crate) kernel: KernelCache,
    sink: Arc<SinkSlot>,
    owed: Mutex<Owed>,
    settled: Condvar,
    pub(crate) urgent: Urgent,
}

/// Invalidations that another view's changes call for.
#[derive(Default)]
struct Owed {
    what: InvalidationSet,
    queued: u64,
    delivered: u64,
}

impl View {
    pub(crate) fn new(
        id: ViewId,
        context: Option<ContextId>,
        (whose, uid): (Whose, Option<u32>),
        scope: Arc<Scope>,
        sink: Arc<SinkSlot>,
        embedded: bool,
    ) -> Self {
        View {
            id,
            state: Mutex::new(State::of(context)),
            turned: Condvar::new(),
            whose,
            uid,
            embedded,
            scope: RwLock::new(scope),
            kernel: KernelCache::default(),
            sink,
            owed: Mutex::default(),
            settled: Condvar::new(),
            urgent: Urgent::default(),
        }
    }

    /// Tells the view at once and returns when its kernel knows.
    pub(crate) fn deliver(&self, notice: Notice) {
        self.sink.deliver(notice);
    }

    /// Tells the view what its kernel must look up again, and returns when it has.
    pub(crate) fn tell(&self, pile: InvalidationSet) {
        let view = self.id;
        self.deliver_all(pile, |what, all_names| Notice::Invalidate { view, what, all_names });
    }

    /// Tells the view what its kernel must forget since it is about to change, and returns when it has.
    pub(crate) fn forget(&self, pile: InvalidationSet) {
        let view = self.id;
        self.deliver_all(pile, |what, all_names| Notice::Forget { view, what, all_names });
    }

    fn deliver_all(&self, pile: InvalidationSet, notice: impl Fn(Vec<Invalidation>, bool) -> Notice) {
        let mut rest = pile.what;
        while rest.len() > INVALIDATIONS_MAX {
            let later = rest.split_off(INVALIDATIONS_MAX);
            self.deliver(notice(rest, false));
            rest = later;
        }
        if !rest.is_empty() || pile.all_names {
            self.deliver(notice(rest, pile.all_names));
        }
    }

    /// Something that its kernel may believe was changed in another context. Attributes are looked up again from now on;
    /// names once what is returned was waited for, content once [`View::pay`] was called, since these wait for requests under
    /// way.
    pub(crate) fn startle(self: &Arc<Self>, what: &[Invalidation]) -> Option<Ticket> {
        let believed: Vec<Invalidation> = what.iter().filter(|what| self.kernel.believes(what)).cloned().collect();
        if believed.is_empty() || self.is_dead() {
            return None;
        }
        if !self.embedded {
            self.owe(believed);
            return None;
        }
        let (names, content): (Vec<_>, Vec<_>) =
            believed.into_iter().partition(|what| matches!(what, Invalidation::Entry { .. }));
        if !content.is_empty() {
            let attributes = content.iter().map(|what| Invalidation::Attributes(inode_of(what))).collect();
            self.deliver(Notice::Invalidate { view: self.id, what: attributes, all_names: false });
            self.owe(content);
        }
        (!names.is_empty()).then(|| self.tell_names(names))
    }

    /// Notes what its kernel must look up again; [`View::pay`] tells it.
    pub(crate) fn owe(&self, what: impl IntoIterator<Item = Invalidation>) {
        let mut owed = self.owed.lock();
        owed.what.add(what.into_iter().filter(|what| self.kernel.believes(what)));
        owed.queued += 1;
    }

    pub(crate) fn is_owed(&self) -> bool {
        let owed = self.owed.lock();
        owed.delivered < owed.queued
    }

    /// Tells the view all that it is owed. Called by one thread only.
    pub(crate) fn pay(&self) {
        let (what, queued) = {
            let mut owed = self.owed.lock();
            (std::mem::take(&mut owed.what), owed.queued)
        };
        self.tell(what);
        let mut owed = self.owed.lock();
        owed.delivered = owed.delivered.max(queued);
        drop(owed);
        self.settled.notify_all();
    }

    /// It is closed: nothing that it is owed is delivered any more, and nobody need wait for that.
    pub(crate) fn close(&self) {
        self.owed.lock().delivered = u64::MAX;
        self.settled.notify_all();
    }

    /// Waits until everything owed up to now was delivered; false at the deadline.
    pub(crate) fn wait_settled(&self, deadline: Instant) -> bool {
        let mut owed = self.owed.lock();
        let target = owed.queued;
        while owed.delivered < target {
            if self.settled.wait_until(&mut owed, deadline).timed_out() {
                return owed.delivered >= target;
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
    pub(crate) fn owed(&self) -> Vec<Arc<View>> {
        self.by_id.read().values().filter(|view| view.is_owed()).cloned().collect()
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
        let scope = Scope { sight: Sight::trunk(), touches: None, over: Arc::default() };
        let view = View::new(ViewId(1), None, (Whose::Trunk, None), Arc::new(scope), Arc::default(), true);
        view.owe([Invalidation::Inode(Ino::ROOT)]);
        assert!(!view.wait_settled(Instant::now()));
        view.close();
        view.owe([Invalidation::Inode(Ino::ROOT)]);
        assert!(view.wait_settled(Instant::now()));
    }
}
