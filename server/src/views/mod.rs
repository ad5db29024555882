//! What one mount sees, as the server knows it, and what it must be told.

mod announce;
mod invalidations;
pub(crate) mod names;
pub(crate) mod upcoming;
pub(crate) mod urgent;

use crate::ops::Scope;
use crate::views::invalidations::InvalidationSet;
use crate::views::names::{Asked, Names};
use crate::views::urgent::{Ticket, Urgent};
use mojavefs::id::{ContextId, Ino, Seq, SpecId, ViewId};
use mojavefs::limits::INVALIDATIONS_MAX;
use mojavefs::protocol::{Invalidation, Notice, NoticeSink};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

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

/// What a view shows, or has come from.
#[derive(Clone, Copy)]
struct Shown {
    /// None is trunk.
    context: Option<ContextId>,
    /// The speculation with which it was entered; none for what the view was opened for.
    spec: Option<SpecId>,
}

/// One mount.
pub(crate) struct View {
    pub(crate) id: ViewId,
    /// What it shows, last. The view of a process goes into one context after another and back: below lie those that it came
    /// from.
    shows: RwLock<Vec<Shown>>,
    pub(crate) whose: Whose,
    /// Who opened it; everybody's if nobody is named.
    pub(crate) uid: Option<u32>,
    /// Its client lives in this process.
    pub(crate) embedded: bool,
    /// What is visible, what new versions carry; replaced when the context's interval changes.
    scope: RwLock<Arc<Scope>>,
    /// The inodes its kernel knows.
    held: Mutex<HashSet<Ino>>,
    /// Those of them that its programs may write to through mappings, as far as that is known.
    mapped: Mutex<HashSet<Ino>>,
    /// The names that it has asked for.
    names: Mutex<Names>,
    /// Its speculation was undone: nothing it asks for has a meaning any more.
    dead: AtomicBool,
    sink: Arc<SinkSlot>,
    owed: Mutex<Owed>,
    settled: Condvar,
    pub(crate) urgent: Urgent,
    /// What was undone under a process, until it is back.
    fallen: Mutex<InvalidationSet>,
    /// Rung when what it shows changes.
    turned: Condvar,
    turning: Mutex<()>,
    /// Nobody hears what its processes have asked for, until they are back.
    unheard: AtomicBool,
    /// Counts what was undone of what it showed, and the ways back.
    falls: AtomicU64,
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
            shows: RwLock::new(vec![Shown { context, spec: None }]),
            whose,
            uid,
            embedded,
            scope: RwLock::new(scope),
            held: Mutex::default(),
            mapped: Mutex::default(),
            names: Mutex::default(),
            dead: AtomicBool::new(false),
            sink,
            owed: Mutex::default(),
            settled: Condvar::new(),
            urgent: Urgent::default(),
            fallen: Mutex::default(),
            turned: Condvar::new(),
            turning: Mutex::default(),
            unheard: AtomicBool::new(false),
            falls: AtomicU64::new(0),
        }
    }

    /// The context it shows; none is trunk.
    pub(crate) fn context(&self) -> Option<ContextId> {
        self.shows.read().last().and_then(|shown| shown.context)
    }

    /// Changes when what it showed is undone, and when its process is back from there.
    pub(crate) fn falls(&self) -> u64 {
        self.falls.load(Ordering::SeqCst)
    }

    /// The context that it was opened for: a job's view shows the job's last leg.
    pub(crate) fn base(&self) -> Option<ContextId> {
        self.shows.read().first().and_then(|shown| shown.context)
    }

    /// It goes where its process goes: into new contexts, and back out of them.
    pub(crate) fn moves(&self) -> bool {
        matches!(self.whose, Whose::Job | Whose::Process)
    }

    /// The contexts that a process's view went into, the outermost first.
    pub(crate) fn entered(&self) -> Vec<ContextId> {
        self.shows.read().iter().skip(1).filter_map(|shown| shown.context).collect()
    }

    /// It shows a context, or something that its process has entered from there.
    pub(crate) fn shows_from_inside(&self, context: ContextId) -> bool {
        self.shows.read().iter().any(|shown| shown.context == Some(context))
    }

    /// A process's view goes into the new context of a speculation.
    pub(crate) fn go_into(&self, context: ContextId, spec: SpecId, scope: Arc<Scope>) {
        self.shows.write().push(Shown { context: Some(context), spec: Some(spec) });
        self.set_scope(scope);
    }

    /// The contexts that it went into with a speculation and since, the outermost first.
    pub(crate) fn entered_since(&self, spec: SpecId) -> Vec<ContextId> {
        let shows = self.shows.read();
        let first = shows.iter().position(|shown| shown.spec == Some(spec)).unwrap_or(shows.len());
        shows[first..].iter().filter_map(|shown| shown.context).collect()
    }

    /// The view leaves the contexts that were undone, and what it entered inside of them; not the one that it was opened for.
    pub(crate) fn leave_undone(&self, undone: &HashSet<ContextId>) {
        self.falls.fetch_add(1, Ordering::SeqCst);
        // Its process is there again, though it may be in something else that was undone.
        self.unheard.store(false, Ordering::SeqCst);
        let mut shows = self.shows.write();
        let is_gone = |shown: &Shown| shown.context.is_some_and(|context| undone.contains(&context));
        if let Some(first) = shows.iter().position(is_gone).filter(|first| *first > 0) {
            shows.truncate(first);
        }
    }

    /// A process's view leaves the contexts that became part of others. True if it showed one.
    pub(crate) fn leave_done(&self, into: &HashMap<ContextId, Option<ContextId>>) -> bool {
        let mut shows = self.shows.write();
        let into = |shown: &Shown| shown.context.and_then(|context| into.get(&context).copied());
        let before = shows.len();
        let bottom = shows.first().and_then(into);
        if let Some(bottom) = bottom {
            shows[0].context = bottom;
        }
        let mut first = true;
        shows.retain(|shown| std::mem::take(&mut first) || into(shown).is_none());
        bottom.is_some() || shows.len() < before
    }

    /// It shows what others outside its context do while it is open.
    pub(crate) fn follows(&self) -> bool {
        self.context().is_some() && self.scope.read().sight.snapshot == Seq::NOW
    }

    pub(crate) fn scope(&self) -> Arc<Scope> {
        self.scope.read().clone()
    }

    pub(crate) fn set_scope(&self, scope: Arc<Scope>) {
        *self.scope.write() = scope;
        self.unheard.store(false, Ordering::SeqCst);
        let _waiters = self.turning.lock();
        self.turned.notify_all();
    }

    pub(crate) fn kill(&self) {
        self.falls.fetch_add(1, Ordering::SeqCst);
        self.dead.store(true, Ordering::SeqCst);
        let _waiters = self.turning.lock();
        self.turned.notify_all();
    }

    /// A leg of this job's view was undone: waits until the process was taken back, so that it never sees an answer from
    /// there.
    pub(crate) fn wait_back(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut turning = self.turning.lock();
        let heard = || !self.is_dead() && !self.unheard.load(Ordering::SeqCst);
        while self.whose == Whose::Job && heard() && self.scope().is_over() && !self.entered().is_empty() {
            if self.turned.wait_until(&mut turning, deadline).timed_out() {
                return;
            }
        }
    }

    /// What the view of a job showed was undone as a whole: waits until its processes are being ended.
    pub(crate) fn wait_ended(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut turning = self.turning.lock();
        while self.whose == Whose::Job && !self.unheard.load(Ordering::SeqCst) {
            if self.turned.wait_until(&mut turning, deadline).timed_out() {
                return;
            }
        }
    }

    /// Its processes are being ended, which is held up by what they wait for.
    pub(crate) fn answer_at_once(&self) {
        self.unheard.store(true, Ordering::SeqCst);
        let _waiters = self.turning.lock();
        self.turned.notify_all();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Its kernel has been given this inode.
    pub(crate) fn hold(&self, ino: Ino) {
        self.held.lock().insert(ino);
    }

    pub(crate) fn release(&self, ino: Ino) {
        self.held.lock().remove(&ino);
        self.mapped.lock().remove(&ino);
        self.names.lock().drop_all(ino);
    }

    /// One of its programs may write to a file through a mapping.
    pub(crate) fn may_be_mapped(&self, ino: Ino) {
        self.mapped.lock().insert(ino);
    }

    /// Whether its programs may write to a file through a mapping, as far as is known.
    pub(crate) fn may_write_mapped(&self, ino: Ino) -> bool {
        self.mapped.lock().contains(&ino)
    }

    /// Its kernel is about to be told of a name, there or not. Said before that is looked at, so that a change is seen then,
    /// or told later.
    pub(crate) fn asks_for(&self, parent: Ino, name: &[u8]) {
        self.names.lock().note(parent, name);
    }

    /// Its kernel has taken a name away.
    pub(crate) fn took_away(&self, parent: Ino, name: &[u8]) {
        self.names.lock().drop_one(parent, name);
    }

    /// The directories in which its kernel has asked for names.
    pub(crate) fn asked_directories(&self) -> Vec<Ino> {
        self.names.lock().directories()
    }

    /// The names for which its kernel has asked in a directory.
    pub(crate) fn asked_in(&self, parent: Ino) -> Option<Asked> {
        self.names.lock().asked_in(parent)
    }

    /// Whether its kernel may believe anything about this.
    pub(crate) fn believes(&self, what: &Invalidation) -> bool {
        match what {
            Invalidation::Inode(ino) | Invalidation::Attributes(ino) => *ino == Ino::ROOT || self.holds(*ino),
            Invalidation::Entry { parent, name } => self.names.lock().has(*parent, name),
        }
    }

    pub(crate) fn holds(&self, ino: Ino) -> bool {
        self.held.lock().contains(&ino)
    }

    /// All inodes its kernel knows.
    pub(crate) fn held(&self) -> Vec<Ino> {
        self.held.lock().iter().copied().collect()
    }

    /// Takes everything its kernel knew, when it closes.
    pub(crate) fn release_all(&self) -> HashSet<Ino> {
        std::mem::take(&mut *self.held.lock())
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
        let believed: Vec<Invalidation> = what.iter().filter(|what| self.believes(what)).cloned().collect();
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
        owed.what.add(what.into_iter().filter(|what| self.believes(what)));
        owed.queued += 1;
    }

    /// Notes what was undone under its process, which is told when that is back.
    pub(crate) fn note_fallen(&self, what: Vec<Invalidation>) {
        self.falls.fetch_add(1, Ordering::SeqCst);
        self.fallen.lock().add(what);
    }

    /// What was undone under its process, once.
    pub(crate) fn take_fallen(&self) -> InvalidationSet {
        std::mem::take(&mut *self.fallen.lock())
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
        self.by_id.read().values().any(|view| view.holds(ino))
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
