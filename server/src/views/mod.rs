//! What one mount sees, as the server knows it, and what it must be told.

mod announce;
pub(crate) mod cache;
pub(crate) mod invalidations;
mod lane;
pub(crate) mod names;
mod old_pages;
mod state;
pub(crate) mod upcoming;
pub(crate) mod urgent;

use crate::ops::Scope;
use crate::views::cache::KernelCache;
use crate::views::invalidations::InvalidationSet;
use crate::views::lane::Lane;
use crate::views::old_pages::OldPages;
use crate::views::state::State;
use crate::views::urgent::Ticket;
use mojavefs::id::{ContextId, Ino, ViewId};
use mojavefs::limits::INVALIDATIONS_MAX;
use mojavefs::protocol::{Invalidation, Notice, NoticeSink, ViewOwner};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
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
    /// What others have changed: told one after the other by the server's own thread, which who must know of it waits for.
    queue: Lane,
    /// Of that the names that are told before the call returns that has changed them, by a thread of the view's own.
    urgent: Lane,
    old_pages: OldPages,
}

/// Somebody changes a part of a file of which kernels may have pages.
pub(crate) struct Changing(Vec<Arc<View>>, Ino);

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.iter().for_each(|view| view.old_pages.end(self.1, view.queue.last()));
    }
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
            queue: Lane::default(),
            urgent: Lane::default(),
            old_pages: OldPages::default(),
        }
    }

    /// Tells the view at once and returns when its kernel knows.
    pub(crate) fn deliver(&self, notice: Notice) {
        self.sink.deliver(notice);
    }

    /// Tells the view what its kernel must look up again, and returns when it has.
    pub(crate) fn tell(&self, set: InvalidationSet) {
        self.tell_of_others(set, &[]);
    }

    /// The same where some of it is what others have done to files, of which its kernel may have pages.
    pub(crate) fn tell_of_others(&self, set: InvalidationSet, changed: &[Ino]) {
        changed.iter().for_each(|ino| self.old_pages.begin(*ino, 0..u64::MAX));
        self.deliver_all(set, |what, all_names| Notice::Invalidate { view: self.id, what, all_names });
        changed.iter().for_each(|ino| self.old_pages.end(*ino, 0));
        self.old_pages.tidy(|number| self.queue.is_told(number));
    }

    /// What its kernel writes out of a part of a file has to wait for others.
    pub(crate) fn writes_out_later(&self, ino: Ino, range: &Range<u64>, decision: u64) {
        self.old_pages.waits(ino, range, decision);
    }

    /// Something was written to a file, by its kernel or not. Whether that had waited, and others have changed the file meanwhile.
    pub(crate) fn has_waited_to_write(&self, ino: Ino, range: &Range<u64>, is_later: impl Fn(u64) -> bool) -> bool {
        self.old_pages.has_waited(ino, range, is_later)
    }

    /// Whether what its kernel writes out of a part of a file may be old in all but what programs have stored there, since others have
    /// changed it and the kernel is not told of that yet.
    pub(crate) fn may_be_old(&self, ino: Ino, range: &Range<u64>) -> bool {
        self.old_pages.has(ino, range, |number| self.queue.is_told(number))
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
        self.queue.note(what.into_iter().filter(|what| self.kernel.believes(what)));
    }

    pub(crate) fn has_queued(&self) -> bool {
        self.queue.has_more()
    }

    /// Tells the view all that is queued. Called by one thread only.
    pub(crate) fn flush(&self) {
        self.queue.tell(|what| self.tell(what));
    }

    /// It is closed: nothing is told any more, and nobody need wait for that.
    pub(crate) fn close(&self) {
        self.queue.close();
        self.urgent.close();
    }

    /// Waits until everything queued up to now was told; false at the deadline.
    pub(crate) fn wait_settled(&self, deadline: Instant) -> bool {
        self.queue.wait(self.queue.last(), deadline)
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

    pub(crate) fn find(&self, id: ViewId) -> Option<Arc<View>> {
        self.by_id.read().get(&id).cloned()
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

    /// `view` is about to change a part of a file: until what is returned is dropped, and those of other contexts that see the change are
    /// told, what their kernels write out of it may be old. What is undecided is seen by those that meet it, but not by those `around`.
    pub(crate) fn about_to_change(
        &self,
        view: &View,
        (ino, range): (Ino, &Range<u64>),
        around: impl FnOnce(ContextId) -> BTreeSet<ContextId>,
    ) -> Changing {
        let mut followers = self.followers(view);
        followers.retain(|other| other.kernel.holds(ino));
        if let Some(context) = view.context().filter(|_| !followers.is_empty()) {
            let around = around(context);
            let sees =
                |other: &View| other.scope().sight.meets && !other.context().is_some_and(|c| around.contains(&c));
            followers.retain(|other| sees(other));
        }
        followers.iter().for_each(|other| other.old_pages.begin(ino, range.clone()));
        Changing(followers, ino)
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
