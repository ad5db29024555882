//! Locks on files (`flock`, `fcntl`; rule 15 of the interval graph): one table for all views of a server.
//!
//! A lock belongs to a view: it is let go when its owner closes the file, when what the view shows is undone, and when the view ends. It
//! never waits for a decision; what is decided has no process any more that could have locked something.

#[cfg(test)]
mod histories;
#[cfg(test)]
mod naive;
#[cfg(test)]
mod since;
mod table;

use table::Owner;
pub(crate) use table::{Asked, Taken};

use mojavefs::id::{ContextId, Ino, SpecId, ViewId};
use mojavefs::protocol::{LockAsked, LockClass, Span, Unlocked};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use table::Table;

/// How many locks of a kind on a file are kept apart of those that a context has had.
const SPANS_KEPT_MAX: usize = 64;

/// All locks of a server.
#[derive(Default)]
pub(crate) struct Locks {
    state: Mutex<State>,
    /// Rung when one becomes free.
    one_is_free: Condvar,
    /// There are some: else nobody need look.
    is_used: AtomicBool,
}

#[derive(Default)]
struct State {
    table: Table,
    /// How often something was offered to a view.
    offers: HashMap<ViewId, u64>,
    /// How many locks had been taken when a context last changed a file that was locked.
    changes: HashMap<ContextId, HashMap<Ino, u64>>,
    /// What contexts have locked, now or before.
    had: HashMap<ContextId, Had>,
    /// What the processes of a view had locked when they entered a speculation.
    saved: HashMap<(ViewId, SpecId), Vec<(Ino, LockAsked)>>,
}

/// Locks of a context by file, each once.
type Had = HashMap<Ino, Vec<Taken>>;

impl State {
    fn note_had(&mut self, context: ContextId, ino: Ino, taken: Taken) {
        let had = self.had.entry(context).or_default().entry(ino).or_default();
        let is_such = |other: &Taken| (other.by.owner.class, other.mode) == (taken.by.owner.class, taken.mode);
        had.retain(|other| !(is_such(other) && other.span == taken.span));
        if had.len() < SPANS_KEPT_MAX {
            return had.push(taken);
        }
        // One lock around all of them: a commit may wait where it need not, and never goes on where it must wait.
        let (such, mut others): (Vec<Taken>, Vec<Taken>) = had.drain(..).partition(is_such);
        let around = such.iter().fold(taken, |around, other| {
            let (first, last) = (around.span.first.min(other.span.first), around.span.last.max(other.span.last));
            Taken { span: Span { first, last }, number: around.number.min(other.number), ..around }
        });
        others.push(around);
        *had = others;
    }

    fn offer(&mut self, to: Vec<ViewId>) {
        to.into_iter().for_each(|view| *self.offers.entry(view).or_insert(0) += 1);
    }
}

impl Locks {
    /// Somebody has let go of something.
    fn freed(&self, mut state: MutexGuard<'_, State>, offered_to: Vec<ViewId>) {
        state.offer(offered_to);
        self.is_used.store(!state.table.is_empty(), Ordering::SeqCst);
        drop(state);
        self.one_is_free.notify_all();
    }

    /// Asks for a lock, or lets go of one, in a view of a context.
    pub(crate) fn ask(
        &self,
        (view, context): (ViewId, Option<ContextId>),
        ino: Ino,
        asked: &LockAsked,
        waits: bool,
    ) -> Asked {
        let mut state = self.state.lock();
        let (outcome, offered_to) = state.table.ask(view, ino, asked, waits);
        let mode = asked.mode.filter(|_| outcome == Asked::Done && asked.owner.class != LockClass::Program);
        if let Some((context, mode)) = context.zip(mode) {
            let LockAsked { owner, handle, pid, span, .. } = *asked;
            let number = state.table.last();
            state.note_had(context, ino, Taken { by: Owner { view, owner }, handle, pid, span, mode, number });
        }
        self.freed(state, offered_to);
        outcome
    }

    /// One who stands in the line gives up.
    pub(crate) fn leave(&self, view: ViewId, ino: Ino, asked: &LockAsked) {
        let mut state = self.state.lock();
        let (_, offered_to) = state.table.leave(view, ino, asked);
        self.freed(state, offered_to);
    }

    /// What would be in the way of a lock.
    pub(crate) fn test(&self, view: ViewId, ino: Ino, asked: &LockAsked) -> Option<Taken> {
        self.state.lock().table.test(view, ino, asked)
    }

    /// Somebody has closed a file.
    pub(crate) fn unlock(&self, view: ViewId, ino: Ino, whose: Unlocked) {
        let mut state = self.state.lock();
        let offered_to = state.table.unlock(view, ino, whose);
        self.freed(state, offered_to);
    }

    /// Nobody in a view has locks any more, or waits for one.
    pub(crate) fn drop_view(&self, view: ViewId) {
        let mut state = self.state.lock();
        let offered_to = state.table.drop_view(view);
        state.offers.remove(&view);
        state.saved.retain(|(of, _), _| *of != view);
        self.freed(state, offered_to);
    }

    /// A file on which somebody in a view has such a lock.
    pub(crate) fn of_view(&self, view: ViewId, is_such: impl Fn(&Taken) -> bool) -> Option<Ino> {
        let state = self.state.lock();
        let mut all = state.table.all();
        all.find(|(_, taken)| taken.iter().any(|taken| taken.by.view == view && is_such(taken))).map(|(ino, _)| ino)
    }

    /// The processes of a view enter a speculation with what they have locked.
    pub(crate) fn enter(&self, view: ViewId, spec: SpecId) {
        if self.is_used.load(Ordering::SeqCst) {
            let mut state = self.state.lock();
            let mine = state.table.of(view);
            if !mine.is_empty() {
                state.saved.insert((view, spec), mine);
            }
        }
    }

    /// The processes of a view are back from a speculation that was undone: they have what they had locked when they entered it, and nothing
    /// else. False if others have taken some of that meanwhile.
    pub(crate) fn come_back(&self, view: ViewId, spec: SpecId) -> bool {
        let mut state = self.state.lock();
        let saved = state.saved.remove(&(view, spec)).unwrap_or_default();
        // In one step: what was kept is nobody else's for a moment.
        let (mut offered_to, has_all) = state.table.put_back(view, &saved);
        offered_to.retain(|to| *to != view);
        self.freed(state, offered_to);
        has_all
    }

    /// The views that have what somebody in a view stands in the line for.
    pub(crate) fn in_the_way_of(&self, view: ViewId) -> BTreeSet<ViewId> {
        self.state.lock().table.in_the_way_of(view)
    }

    /// Waits until more than `after` locks were offered to a view, for so long at most. How many were.
    pub(crate) fn await_offer(&self, view: ViewId, after: u64, limit: Duration) -> u64 {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock();
        let offers = |state: &State| state.offers.get(&view).copied().unwrap_or(0);
        self.one_is_free.wait_while_until(&mut state, |state| offers(state) <= after, deadline);
        offers(&state)
    }

    /// A context has changed a file: a lock that is taken from now on is taken after that.
    pub(crate) fn note_change(&self, context: ContextId, ino: Ino) {
        if self.is_used.load(Ordering::SeqCst) {
            let mut state = self.state.lock();
            if state.table.has(ino) {
                let last = state.table.last();
                state.changes.entry(context).or_default().insert(ino, last);
            }
        }
    }

    /// What a context has changed another has, from now on.
    pub(crate) fn fold(&self, inner_context: ContextId, outer_context: ContextId) {
        let mut state = self.state.lock();
        let inner = state.changes.remove(&inner_context).unwrap_or_default();
        if !inner.is_empty() {
            let outer = state.changes.entry(outer_context).or_default();
            outer.extend(inner);
        }
        let inner = state.had.remove(&inner_context).unwrap_or_default();
        for (ino, had) in inner {
            had.into_iter().for_each(|taken| state.note_had(outer_context, ino, taken));
        }
    }

    /// A context, with its speculation, is decided.
    pub(crate) fn forget(&self, context: ContextId, spec: SpecId) {
        let mut state = self.state.lock();
        state.changes.remove(&context);
        state.had.remove(&context);
        // One that is undone is come back from later.
        let is_committed = |(_, of): &(ViewId, SpecId)| *of == spec;
        state.saved.retain(|entered, _| !is_committed(entered));
    }

    /// The locks that were taken since any of these contexts has changed the file, if they have.
    pub(crate) fn taken_since(&self, contexts: &[ContextId]) -> Vec<(Ino, Taken)> {
        if !self.is_used.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let state = self.state.lock();
        let changed = |ino: Ino| {
            let of = |context: &ContextId| state.changes.get(context).and_then(|changed| changed.get(&ino)).copied();
            contexts.iter().filter_map(of).max().unwrap_or(0)
        };
        let since = |(ino, taken): (Ino, &[Taken])| {
            let last = changed(ino);
            taken.iter().filter(|taken| taken.number > last).map(|taken| (ino, *taken)).collect::<Vec<_>>()
        };
        state.table.all().flat_map(since).collect()
    }

    /// The locks that were taken since any of these contexts had one that they exclude.
    pub(crate) fn taken_over(&self, contexts: &[ContextId]) -> Vec<(Ino, Taken)> {
        if !self.is_used.load(Ordering::SeqCst) {
            return Vec::new();
        }
        let state = self.state.lock();
        let had = contexts.iter().filter_map(|context| state.had.get(context)).flatten();
        let over = had.flat_map(|(ino, had)| {
            let taken = state.table.taken(*ino).iter();
            taken
                .filter(|taken| had.iter().any(|had| taken.excludes(had) && taken.number > had.number))
                .map(|t| (*ino, *t))
        });
        over.collect()
    }

    /// Waits until somebody has let go of something, or until then.
    pub(crate) fn wait_for_unlock(&self, deadline: Instant, is_held: impl Fn() -> bool) {
        while is_held() && Instant::now() < deadline {
            let mut state = self.state.lock();
            let step = Instant::now() + LOOK_INTERVAL;
            self.one_is_free.wait_until(&mut state, deadline.min(step));
        }
    }
}

/// How often who waits for an unlock looks by itself: between its look and its wait one may have come.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
