//! Where a view is: what it shows, and whether it answers.

use super::invalidations::InvalidationSet;
use super::{View, ViewOwner};
use crate::ops::Scope;
use mojavefs::id::{ContextId, Seq, SpecId};
use mojavefs::protocol::Invalidation;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether a view answers.
enum Phase {
    /// It does.
    Live,
    /// Something that its process has entered was undone: it answers nothing until the process is back, when its kernel is told
    /// of this.
    RollingBack(InvalidationSet),
    /// What it was opened for was undone: nothing that it is asked for has a meaning any more.
    Dead,
}

/// What a view shows, or has come from.
#[derive(Clone, Copy)]
struct Shown {
    /// None is trunk.
    context: Option<ContextId>,
    /// The speculation with which it was entered; none for what the view was opened for.
    spec: Option<SpecId>,
}

/// Where a view is.
pub(super) struct State {
    phase: Phase,
    /// What it shows, last. The view of a process goes into one context after another and back: below lie those that it came
    /// from. Never empty.
    shows: Vec<Shown>,
    /// The answers to what its processes have asked for are discarded, until these have finished rolling back.
    discards: bool,
    /// Counts what was undone of what it showed, and the ways back.
    falls: u64,
}

impl State {
    /// Of a new view.
    pub(super) fn of(context: Option<ContextId>) -> Self {
        State { phase: Phase::Live, shows: vec![Shown { context, spec: None }], discards: false, falls: 0 }
    }

    fn context(&self) -> Option<ContextId> {
        self.shows.last().and_then(|shown| shown.context)
    }

    fn entered(&self) -> impl Iterator<Item = ContextId> {
        self.shows.iter().skip(1).filter_map(|shown| shown.context)
    }

    fn is_dead(&self) -> bool {
        matches!(self.phase, Phase::Dead)
    }
}

impl View {
    /// The context it shows; none is trunk.
    pub(crate) fn context(&self) -> Option<ContextId> {
        self.state.lock().context()
    }

    /// Changes when what it showed is undone, and when its process is back from there.
    pub(crate) fn falls(&self) -> u64 {
        self.state.lock().falls
    }

    /// The context that it was opened for: a job's view shows the job's last segment.
    pub(crate) fn base(&self) -> Option<ContextId> {
        self.state.lock().shows.first().and_then(|shown| shown.context)
    }

    /// It goes where its process goes: into new contexts, and back out of them.
    pub(crate) fn moves(&self) -> bool {
        matches!(self.owner, ViewOwner::Job | ViewOwner::Process)
    }

    /// The contexts that a process's view went into, the outermost first.
    pub(crate) fn entered(&self) -> Vec<ContextId> {
        self.state.lock().entered().collect()
    }

    /// It shows a context, or something that its process has entered from there.
    pub(crate) fn shows_from_inside(&self, context: ContextId) -> bool {
        self.state.lock().shows.iter().any(|shown| shown.context == Some(context))
    }

    /// It shows what others outside its context do while it is open.
    pub(crate) fn follows(&self) -> bool {
        self.context().is_some() && self.scope().sight.snapshot == Seq::NOW
    }

    /// It shows a commit of others when that is decided, and before that what was so until then.
    pub(crate) fn shows_what_becomes_final(&self) -> bool {
        self.context().is_none() || self.follows() && !self.scope().sight.meets
    }

    /// Its speculation was undone.
    pub(crate) fn is_dead(&self) -> bool {
        self.state.lock().is_dead()
    }

    /// A process's view goes into the new context of a speculation.
    pub(crate) fn go_into(&self, context: ContextId, spec: SpecId, scope: Arc<Scope>) {
        self.state.lock().shows.push(Shown { context: Some(context), spec: Some(spec) });
        self.set_scope(scope);
    }

    /// The contexts that it went into with a speculation and since, the outermost first.
    pub(crate) fn entered_since(&self, spec: SpecId) -> Vec<ContextId> {
        let state = self.state.lock();
        let first = state.shows.iter().position(|shown| shown.spec == Some(spec)).unwrap_or(state.shows.len());
        state.shows[first..].iter().filter_map(|shown| shown.context).collect()
    }

    /// Notes what was undone under its process, which is told when that is back.
    pub(crate) fn note_fallen(&self, what: Vec<Invalidation>) {
        let mut state = self.state.lock();
        state.falls += 1;
        match &mut state.phase {
            Phase::Live => {
                let mut fallen = InvalidationSet::default();
                fallen.add(what);
                state.phase = Phase::RollingBack(fallen);
            }
            Phase::RollingBack(fallen) => fallen.add(what),
            Phase::Dead => {}
        }
    }

    /// What was undone under its process, once.
    pub(crate) fn take_fallen(&self) -> InvalidationSet {
        match &mut self.state.lock().phase {
            Phase::RollingBack(fallen) => std::mem::take(fallen),
            Phase::Live | Phase::Dead => InvalidationSet::default(),
        }
    }

    /// The view leaves the contexts that were undone, and what it entered inside of them; not the one that it was opened for.
    pub(crate) fn leave_undone(&self, undone: &HashSet<ContextId>) {
        let mut state = self.state.lock();
        state.falls += 1;
        // Its process is there again, though it may be in something else that was undone.
        state.discards = false;
        if let Phase::RollingBack(fallen) = &state.phase
            && fallen.what.is_empty()
            && !fallen.all_names
        {
            state.phase = Phase::Live;
        }
        let is_gone = |shown: &Shown| shown.context.is_some_and(|context| undone.contains(&context));
        if let Some(first) = state.shows.iter().position(is_gone).filter(|first| *first > 0) {
            state.shows.truncate(first);
        }
    }

    /// A process's view leaves the contexts that became part of others. True if it showed one.
    pub(crate) fn leave_done(&self, into: &HashMap<ContextId, Option<ContextId>>) -> bool {
        let shows = &mut self.state.lock().shows;
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

    pub(crate) fn scope(&self) -> Arc<Scope> {
        self.scope.read().clone()
    }

    pub(crate) fn set_scope(&self, scope: Arc<Scope>) {
        *self.scope.write() = scope;
        self.state.lock().discards = false;
        self.turned.notify_all();
    }

    /// What it was opened for was undone.
    pub(crate) fn kill(&self) {
        let mut state = self.state.lock();
        state.falls += 1;
        state.phase = Phase::Dead;
        self.turned.notify_all();
    }

    /// Its processes are being ended, which is held up by what they wait for.
    pub(crate) fn answer_at_once(&self) {
        self.state.lock().discards = true;
        self.turned.notify_all();
    }

    /// A segment of this job's view was undone: waits until the process was taken back, so that it never sees an answer from
    /// there.
    pub(crate) fn wait_back(&self, limit: Duration) {
        let is_undone = |state: &mut State| {
            !state.is_dead() && !state.discards && state.entered().next().is_some() && self.scope().is_over()
        };
        self.wait_while(is_undone, limit);
    }

    /// What the view of a job showed was undone as a whole: waits until its processes are being ended.
    pub(crate) fn wait_ended(&self, limit: Duration) {
        self.wait_while(|state| !state.discards, limit);
    }

    fn wait_while(&self, is_so: impl FnMut(&mut State) -> bool, limit: Duration) {
        if self.owner == ViewOwner::Job {
            self.turned.wait_while_until(&mut self.state.lock(), is_so, Instant::now() + limit);
        }
    }
}
