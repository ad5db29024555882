//! A server: one store, any number of sessions, and the work in the background.

use crate::coordinator::{Aftermath, Coordinator};
use crate::limits::{KEEPER_IDLE, LOG_SYNC_INTERVAL, TELL_TIME_MAX, WRITE_OUT_INTERVAL};
use crate::locks::Locks;
use crate::ops::{Ops, SystemClock, fault};
use crate::origin::{Bottom, Origin};
use crate::session::Session;
use crate::store::engine::Engine;
use crate::store::{Reclaimed, Search, Store, StoreError, StoreOptions};
use crate::telling::{Effects, Telling};
use crate::views::upcoming::Upcomings;
use crate::views::urgent::Waiters;
use crate::views::{View, Views};
use mojavefs::id::{ContextId, Ino, SpecId, ViewId};
use mojavefs::limits::NOTICE_TIME_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, Notice, Outcome, Reply, SpecState, ViewOwner};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

/// A server on a store, which closes with it: what sessions ask for after that is refused.
pub struct Server {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What sessions share.
pub(crate) struct Shared {
    pub(crate) store: Arc<Store>,
    pub(crate) ops: Arc<Ops>,
    pub(crate) coordinator: Coordinator,
    pub(crate) views: Views,
    pub(crate) locks: Locks,
    /// Who waits until others were told of names.
    pub(crate) waiters: Waiters,
    next_view: AtomicU64,
    /// How often something changed for views other than the one that changed it.
    changes: AtomicU64,
    keeper: Bell,
    announcer: Bell,
    /// Wakes who syncs the log only at the end.
    log: Bell,
    stopping: AtomicBool,
    /// What views are being told of.
    pub(crate) effects: Effects,
    /// What is about to be decided, as far as views are to be told before.
    pub(crate) upcomings: Upcomings,
    /// Views are told one after the other, on the thread that has something to tell.
    tells_in_turn: AtomicBool,
    /// A search through the store that is under way.
    search: Mutex<Option<Search>>,
    /// Chosen at random: clients tell servers apart by it.
    pub(crate) identity: u64,
    /// The host on which the store stands, if it does.
    pub(crate) origin: Option<Arc<Origin>>,
}

/// Wakes a thread that has work.
#[derive(Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_one();
    }

    /// Waits for a ring, for `limit` at most.
    fn wait(&self, limit: Duration) {
        let mut rung = self.rung.lock();
        if !*rung {
            self.changed.wait_for(&mut rung, limit);
        }
        *rung = false;
    }
}

impl Server {
    /// Opens the store that lies in `engine` and serves it. Blocks while the store recovers.
    pub fn open(engine: &dyn Engine, options: StoreOptions) -> Result<Self, StoreError> {
        Self::open_over(engine, options, None)
    }

    /// The same of a store that stands on a host: what that has is shown where the store has no other word, and what is committed is
    /// applied to it.
    pub fn open_over(
        engine: &dyn Engine,
        options: StoreOptions,
        bottom: Option<Arc<dyn Bottom>>,
    ) -> Result<Self, StoreError> {
        let failed = |source| StoreError::Io { context: "look at the host".into(), source };
        let store = Arc::new(Store::open(engine, options)?);
        let origin = bottom.map(|bottom| Origin::over(bottom, &store)).transpose().map_err(failed)?.map(Arc::new);
        if let Some(origin) = &origin {
            store.stands_on(origin.clone());
            store.number_from(Ino::FIRST_OVER_HOST)?;
            origin.has_all(store.applied()?);
        }
        let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
        let coordinator = Coordinator::open(store.clone(), ops.clone())?;
        let shared = Arc::new(Shared {
            store,
            ops,
            coordinator,
            views: Views::default(),
            locks: Locks::default(),
            waiters: Waiters::default(),
            next_view: AtomicU64::new(1),
            changes: AtomicU64::new(0),
            keeper: Bell::default(),
            announcer: Bell::default(),
            log: Bell::default(),
            stopping: AtomicBool::new(false),
            effects: Effects::default(),
            upcomings: Upcomings::default(),
            tells_in_turn: AtomicBool::new(false),
            search: Mutex::default(),
            identity: RandomState::new().hash_one(()),
            origin,
        });
        let threads = [
            spawn("mojavefs-keeper", &shared, Shared::keep),
            spawn("mojavefs-notices", &shared, Shared::announce),
            spawn("mojavefs-log", &shared, Shared::sync_log),
        ];
        Ok(Server { shared, threads: Mutex::new(threads.into_iter().flatten().collect()) })
    }

    /// What opening the store has to tell users, in words.
    pub fn notes(&self) -> &[String] {
        self.shared.store.notes()
    }

    /// It is about to be dropped: who wants to open the store waits for that.
    pub fn ends(&self) {
        self.shared.store.ends();
    }

    /// Over a host: the number of the next speculation, if nothing is undecided and the host has all that was committed.
    pub fn rests(&self) -> Option<u64> {
        let shared = &self.shared;
        let is_idle = shared.coordinator.is_idle() && shared.unapplied().is_empty();
        (shared.origin.is_some() && is_idle).then(|| shared.store.next_number_of_specs())
    }

    /// Speculations have no lesser number from now on.
    pub fn go_on_from(&self, first: SpecId) -> Result<(), StoreError> {
        self.shared.store.number_specs_from(first)
    }

    /// A store that was made when it was opened goes again when it closes: nobody has used it.
    pub fn discard_if_new(&self) {
        self.shared.store.discard_if_new();
    }

    /// From now on views are told one after the other, as far as possible on the thread that has something to tell. For simulations, which
    /// are the same each time by that.
    pub fn tell_in_turn(&self) {
        self.shared.tells_in_turn.store(true, Ordering::SeqCst);
    }

    /// A session. `embedded`: the client lives in this process and is the only one.
    pub fn connect(&self, embedded: bool) -> Arc<dyn Connection> {
        Arc::new(Session::new(self.shared.clone(), embedded))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.keeper.ring();
        self.shared.announcer.ring();
        self.shared.log.ring();
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a background thread of the server panicked");
            }
        }
        self.shared.store.close();
    }
}

fn spawn(name: &str, shared: &Arc<Shared>, work: fn(&Shared)) -> Option<JoinHandle<()>> {
    let shared = shared.clone();
    let thread = Builder::new().name(name.into()).spawn(move || work(&shared));
    thread.inspect_err(|error| tracing::error!("cannot start the thread {name}: {error}")).ok()
}

impl Shared {
    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(crate) fn tells_in_turn(&self) -> bool {
        self.tells_in_turn.load(Ordering::SeqCst)
    }

    /// Tells views. One client that is slow to take its notices holds up no other.
    pub(crate) fn side_by_side(&self, views: &[Arc<View>], tell: impl Fn(&Arc<View>) + Sync) {
        let [first, others @ ..] = views else { return };
        if self.tells_in_turn() {
            return views.iter().for_each(tell);
        }
        std::thread::scope(|scope| {
            let tell = &tell;
            let start = |view| Builder::new().name("mojavefs-tell".into()).spawn_scoped(scope, move || tell(view));
            let started: Vec<_> = others.iter().map(|view| start(view).map_err(|_| view)).collect();
            tell(first);
            for thread in started {
                match thread {
                    // Not detached: `mojavefs_threads` says why.
                    Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                    Err(view) => tell(view),
                }
            }
        });
    }

    pub(crate) fn next_view(&self) -> ViewId {
        ViewId(self.next_view.fetch_add(1, Ordering::SeqCst))
    }

    pub(crate) fn nudge_keeper(&self) {
        self.keeper.ring();
    }

    pub(crate) fn nudge_announcer(&self) {
        self.announcer.ring();
    }

    /// Background work: half of the time at most on the store, a tenth on what was accessed.
    fn keep(&self) {
        let mut next_sweep = Instant::now();
        while !self.is_stopping() {
            let began = Instant::now();
            match self.reclaim_step() {
                Ok(step) if step.more => std::thread::sleep(began.elapsed()),
                Ok(_) => {
                    if Instant::now() >= next_sweep {
                        let began = Instant::now();
                        self.coordinator.sweep();
                        next_sweep = Instant::now() + 9 * began.elapsed();
                    }
                    self.keeper.wait(KEEPER_IDLE);
                }
                Err(error) => {
                    tracing::error!("reclaiming space: {error}");
                    self.keeper.wait(KEEPER_IDLE);
                }
            }
        }
    }

    /// Tells views what others have changed.
    fn announce(&self) {
        while !self.is_stopping() {
            if !self.tells_in_turn() {
                self.tell_queued();
            }
            self.announcer.wait(KEEPER_IDLE);
        }
    }

    /// Tells views what is queued for them. Called by one thread only.
    pub(crate) fn tell_queued(&self) {
        self.side_by_side(&self.views.queued(), |view| view.flush());
    }

    /// Waits until these views were told what is queued for them by now, for [`NOTICE_TIME_MAX`] at most.
    pub(crate) fn wait_told<'v>(&self, views: impl IntoIterator<Item = &'v Arc<View>>) {
        let deadline = Instant::now() + NOTICE_TIME_MAX;
        for view in views {
            if !view.wait_settled(deadline) {
                tracing::warn!("view {} does not take its notices", view.id);
            }
        }
    }

    /// Writes to disk what is written outside jobs, and the log as jobs go, so that a commit has little left to write.
    fn sync_log(&self) {
        let mut next_write_out = Instant::now() + WRITE_OUT_INTERVAL;
        while !self.is_stopping() {
            self.log.wait(LOG_SYNC_INTERVAL);
            if !self.coordinator.is_idle() {
                if let Err(error) = self.store.sync_log() {
                    tracing::error!("writing the log: {error}");
                }
            } else if Instant::now() >= next_write_out {
                self.store.write_out();
                next_write_out = Instant::now() + WRITE_OUT_INTERVAL;
            }
        }
    }

    fn reclaim_step(&self) -> Result<Reclaimed, StoreError> {
        // This waits for the disk, and no decision waits for it.
        let given_back = self.store.reclaim_space()?;
        // Of what is decided later views may not have been told, which takes the index of changes.
        let decided = self.store.decided();
        if !self.effects.wait(Some(TELL_TIME_MAX)) {
            return Ok(Reclaimed { removed: given_back, more: true });
        }
        // What the host does not have yet stays as it is.
        let waiting = self.unapplied();
        let of = |interval| decided.contains(&interval) && !waiting.contains(&interval);
        let step = self.store.reclaim_of(&|ino| self.views.holds(ino), &of)?;
        // Another thread may have done a step in between, which has left something to give back.
        let more = step.more || given_back > 0 || self.store.has_unused()?;
        Ok(Reclaimed { removed: step.removed + given_back, more })
    }

    pub(crate) fn reclaim(&self) -> Result<Reply, Fault> {
        let step = self.reclaim_step().map_err(fault::store)?;
        let unmerged = self.store.unmerged().map_err(fault::store)?;
        Ok(Reply::Reclaimed { removed: step.removed, more: step.more, unmerged })
    }

    /// One step of a search for what no view can reach and nothing names.
    pub(crate) fn search(&self, anew: bool) -> Result<Reply, Fault> {
        let mut under_way = self.search.lock();
        let search = under_way.take().filter(|_| !anew).unwrap_or_default();
        let (found, next) = self.store.search(search).map_err(fault::store)?;
        *under_way = next;
        Ok(Reply::Reclaimed { removed: found, more: under_way.is_some(), unmerged: 0 })
    }

    pub(crate) fn unmerged(&self) -> Result<Reply, Fault> {
        self.store.unmerged().map(Reply::Offset).map_err(fault::store)
    }

    pub(crate) fn sync(&self) -> Result<Reply, Fault> {
        self.store.sync().map_err(fault::store)?;
        Ok(Reply::Done)
    }

    pub(crate) fn close_view(&self, view: &View) {
        self.views.remove(view.id);
        view.close();
        self.locks.drop_view(view.id);
        view.kernel.release_all();
        self.nudge_keeper();
    }

    /// For one who decides something.
    pub(crate) fn telling(&self) -> Telling<'_> {
        Telling::of(&self.effects, self)
    }

    /// Something changed for views other than the one that changed it; told before these are.
    pub(crate) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// How often something changed for others.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// Carries out what a decision asks of views. No lock is held.
    pub(crate) fn follow(&self, aftermath: Aftermath) {
        let seen = self.seen(&aftermath);
        for (context, spec, why) in &aftermath.undone {
            // The view of a process waits for it to come back from what it has entered.
            let lost = |view: &Arc<View>| view.owner == ViewOwner::Job || view.entered().is_empty();
            for view in self.views.based_on(*context).into_iter().filter(lost) {
                view.kill();
                self.locks.drop_view(view.id);
                // One whose conflicts were settled is committed, though not as it was.
                let state = self.state_of_undone(*spec, |outcome| outcome.state);
                view.deliver(Notice::Decided { view: view.id, spec: *spec, state, why: why.clone() });
            }
        }
        let led_out = self.lead_out(&aftermath);
        let committed = aftermath.committed.iter().map(|(context, spec)| (context, spec, SpecState::Committed));
        let clashing = aftermath.clashing.iter().map(|(context, spec)| (context, spec, SpecState::Held));
        for (context, spec, state) in committed.chain(clashing) {
            // A process may be in something inside of it by now.
            for view in self.views.all().into_iter().filter(|view| view.shows_from_inside(*context)) {
                view.deliver(Notice::Decided { view: view.id, spec: *spec, state, why: None });
            }
        }
        let folded = aftermath.folded.as_ref().map(|(_, context, _)| *context);
        for context in aftermath.rescoped.iter().copied().chain(folded) {
            if let Ok(scope) = self.coordinator.scope_of(context) {
                let scope = Arc::new(scope);
                self.views.of(Some(context)).iter().for_each(|view| view.set_scope(scope.clone()));
            }
        }
        if !aftermath.on_trunk.is_empty() {
            // Who saw nothing of it was told before it took effect.
            let theirs: HashSet<ContextId> = aftermath.committed.iter().map(|(context, _)| *context).collect();
            let has_seen = |view: &Arc<View>| {
                seen.get(&view.id).is_some_and(|seen| aftermath.on_trunk.iter().any(|i| seen.binary_search(i).is_ok()))
            };
            let is_told = |view: &Arc<View>| {
                let is_others = view.context().is_some_and(|context| !theirs.contains(&context));
                is_others && view.follows() && has_seen(view) && !led_out.contains(&view.id)
            };
            let views: Vec<Arc<View>> = self.views.all().into_iter().filter(is_told).collect();
            self.invalidate(&views, (&aftermath.on_trunk, &[]), &seen);
        }
        if let Some((_, context, intervals)) = &aftermath.folded {
            // What the job sees from now on is seen inside of it, too, by those that would not have met it before.
            let around = self.views.of(Some(*context));
            let inside = aftermath.rescoped.iter().filter(|inside| *inside != context);
            let inside = inside.flat_map(|inside| self.views.of(Some(*inside)));
            let inside =
                inside.filter(|view| view.owner == ViewOwner::Job && view.follows() && !view.scope().sight.meets);
            let views = around.into_iter().chain(inside).filter(|view| !led_out.contains(&view.id));
            self.invalidate(&views.collect::<Vec<_>>(), (intervals, &aftermath.reassigned), &seen);
        }
        if let Some((inner, outer, _)) = &aftermath.folded {
            self.locks.fold(*inner, *outer);
        }
        let undone: HashSet<SpecId> = aftermath.undone.iter().map(|(_, spec, _)| *spec).collect();
        let decided = aftermath.jobs.iter().filter(|job| !undone.contains(&job.spec));
        decided.for_each(|job| self.locks.forget(job.context, job.spec));
        drop(aftermath);
        self.nudge_keeper();
    }

    /// The same for what came of decisions whose callers got an error instead.
    pub(crate) fn follow_outstanding(&self) {
        self.coordinator.outstanding().into_iter().for_each(|aftermath| self.follow(aftermath));
    }

    /// Views of processes leave the contexts that are no more, for the ones that they came from. Returns those that now show
    /// by themselves what they showed from inside.
    fn lead_out(&self, aftermath: &Aftermath) -> Vec<ViewId> {
        let mut led_out = Vec::new();
        let committed = aftermath.committed.iter().map(|(context, _)| (*context, None));
        let folded = aftermath.folded.iter().map(|(from, into, _)| (*from, Some(*into)));
        let dropped = aftermath.dropped.map(|(from, into)| (from, Some(into)));
        let done: HashMap<ContextId, Option<ContextId>> = committed.chain(folded).chain(dropped).collect();
        // A job's view ends with its job.
        let goes_on = |view: &View| {
            let ends = view.owner == ViewOwner::Job && view.base().is_some_and(|base| done.contains_key(&base));
            view.moves() && !view.is_dead() && !ends
        };
        let views: Vec<Arc<View>> = self.views.all().into_iter().filter(|view| goes_on(view)).collect();
        let mut fallen = Vec::new();
        for view in views {
            let fell = has_fallen(&view, aftermath);
            let left = view.leave_done(&done);
            if fell {
                view.note_fallen(self.changed_for(&view, &self.out_of_sight(&view, aftermath)));
                fallen.push(view);
            } else if left {
                self.refresh_scope(&view);
                led_out.push(view.id);
            }
        }
        self.send_back(&fallen, aftermath);
        led_out
    }

    /// Tells everybody who has to go back; the one that has said that it is back is led out at once, and last, since a kernel
    /// can hold that up. Whoever is told may be back before this returns, so what it is to forget was noted before.
    fn send_back(&self, fallen: &[Arc<View>], aftermath: &Aftermath) {
        let back = |view: &View| aftermath.back.filter(|(id, ..)| *id == view.id);
        fallen.iter().filter(|view| back(view).is_none()).for_each(|view| self.tell_what_fell(view, aftermath));
        for (view, (_, spec, drained)) in fallen.iter().filter_map(|view| Some((view, back(view)?))) {
            if drained {
                self.come_out(view, spec, true);
            }
            if !drained || view.owner != ViewOwner::Job {
                self.tell_what_fell(view, aftermath);
            }
        }
    }

    /// Tells a process of what it is in and was undone, for it to go back.
    fn tell_what_fell(&self, view: &View, aftermath: &Aftermath) {
        let fallen = |context: &ContextId| aftermath.undone.iter().find(|(undone, ..)| undone == context);
        // A job goes back to the first of its segments at once.
        let told = if view.owner == ViewOwner::Job { 1 } else { usize::MAX };
        for (_, spec, why) in view.entered().iter().filter_map(fallen).take(told) {
            let (state, why) = (self.state_of_undone(*spec, |_| SpecState::Aborted), why.clone());
            view.deliver(Notice::Decided { view: view.id, spec: *spec, state, why });
        }
    }

    /// What is told of a speculation that is undone here, of which `known` says more if its outcome is known. A commit that
    /// failed may have happened all the same: then whoever has voted asks, and is told that nobody knows.
    fn state_of_undone(&self, spec: SpecId, known: impl FnOnce(Outcome) -> SpecState) -> SpecState {
        match self.coordinator.outcome(spec) {
            Ok(outcome) => known(outcome),
            Err(fault) if fault.kind == FaultKind::InDoubt => SpecState::Voted,
            Err(_) => SpecState::Aborted,
        }
    }

    /// Asks whether the processes live whose levels somebody is about to depend on. A client elsewhere can't be asked: it
    /// takes its notices when it can.
    pub(crate) fn probe(&self) {
        for (spec, context) in self.coordinator.to_probe() {
            for view in self
                .views
                .of(Some(context))
                .into_iter()
                .filter(|view| view.owner == ViewOwner::Process && view.embedded)
            {
                view.deliver(Notice::Probe { view: view.id });
            }
            self.coordinator.probed(spec);
        }
    }

    /// What a process is in was undone: it must be told before its request is answered, so that it goes back and never sees
    /// the answer. Not waited for any longer than needed: who tells may be held up by that very request.
    pub(crate) fn let_it_be_told(&self) {
        self.effects.wait(Some(TELL_TIME_MAX));
    }

    /// Whether a view shows something else by now, because what it showed was committed.
    pub(crate) fn is_led_out(&self, view: &View, from: Option<ContextId>) -> bool {
        self.let_it_be_told();
        !view.is_dead() && view.context() != from
    }

    pub(crate) fn refresh_scope(&self, view: &View) {
        match self.coordinator.shown_by(view.context()) {
            Ok(scope) => view.set_scope(Arc::new(scope)),
            // What is around it was undone, too: it is told of that and goes back further. Until then its scope is over.
            Err(_) if view.owner == ViewOwner::Process && !view.entered().is_empty() => {}
            Err(_) => view.kill(),
        }
    }
}

/// Whether something that the view's process has entered was undone.
fn has_fallen(view: &View, aftermath: &Aftermath) -> bool {
    let entered = view.entered();
    aftermath.undone.iter().any(|(context, ..)| entered.contains(context))
}
