//! Locks on files (`flock`, `fcntl`; rule 15 of the interval graph): one table for all views of a server.
//!
//! A lock belongs to a view: it is let go when its owner closes the file, when what the view shows is undone, and when the view ends. It
//! never waits for a decision; what is decided has no process any more that could have locked something.

#[cfg(test)]
mod histories;
#[cfg(test)]
mod naive;
mod table;

pub(crate) use table::{Asked, Taken};

use mojavefs::id::{ContextId, Ino, SpecId, ViewId};
use mojavefs::protocol::{LockAsked, Unlocked};
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use table::Table;

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
    /// What the processes of a view had locked when they entered a speculation.
    saved: HashMap<(ViewId, SpecId), Vec<(Ino, LockAsked)>>,
}

impl State {
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

    /// Asks for a lock, or lets go of one.
    pub(crate) fn ask(&self, view: ViewId, ino: Ino, asked: &LockAsked, waits: bool) -> Asked {
        let mut state = self.state.lock();
        let (outcome, offered_to) = state.table.ask(view, ino, asked, waits);
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
    pub(crate) fn fold(&self, inner: ContextId, outer: ContextId) {
        let mut state = self.state.lock();
        let inner = state.changes.remove(&inner).unwrap_or_default();
        if !inner.is_empty() {
            let outer = state.changes.entry(outer).or_default();
            outer.extend(inner);
        }
    }

    /// A context, with its speculation, is decided.
    pub(crate) fn forget(&self, context: ContextId, spec: SpecId) {
        let mut state = self.state.lock();
        state.changes.remove(&context);
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
