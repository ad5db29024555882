//! What rounds are about to show. Until they have taken effect, nothing lasts that kernels are told of it, and what they were told before is
//! forgotten; so nobody who has seen one thing of a decision sees an older one afterwards.
//!
//! A kernel keeps the bytes of a file, a link's target and access control lists whatever it is told of how long they last. So what is
//! read of what changes is noted, and forgotten again once the round is on record; who reads more of it then waits until it has taken
//! effect, which is at once. Where programs may write to a file through mappings, its reads wait earlier, from before the round is
//! sealed: else what they store to a page of what is replaced would be written over what replaces it.

use super::View;
use super::invalidations::InvalidationSet;
use crate::limits::{ENDED_KEPT_MAX, KERNEL_TIME_MAX, LATE_READS_TIME_MAX};
use crate::locks::Taken;
use crate::server::Shared;
use crate::store::{Key, Store};
use crate::telling::{Audience, LockedBy};
use mojavefs::id::{ContextId, Ino, IntervalId, Seq, ViewId};
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Invalidation, LockClass};
use parking_lot::{Condvar, Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// What one round is about to show.
struct Upcoming {
    number: u64,
    intervals: Vec<IntervalId>,
    /// What is changed, each thing by which intervals; nothing where that is too much to list.
    listed: Option<HashMap<Invalidation, Vec<IntervalId>>>,
    reads: Mutex<Reads>,
}

/// Which reads of what is about to change wait until it has taken effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Waits {
    #[default]
    None,
    /// Those of files that the view writes to through mappings, or may.
    OfMapped,
    All,
}

/// What kernels have read of what is about to change.
#[derive(Default)]
struct Reads {
    /// At least these, by whichever view.
    wait: Waits,
    by: HashMap<ViewId, ReadBy>,
}

#[derive(Default)]
struct ReadBy {
    wait: Waits,
    /// What was read since its kernel forgot it last; true if the view may write to it through a mapping.
    inos: HashMap<Ino, bool>,
}

impl Reads {
    /// Whether nothing was read for which others are to wait by now; then they do.
    fn let_wait(&mut self, wait: Waits) -> bool {
        let is_due = |by: &ReadBy| by.inos.values().any(|is_mapped| *is_mapped || wait == Waits::All);
        if self.by.values().any(is_due) {
            return false;
        }
        self.wait = wait;
        true
    }
}

/// What all rounds are about to show.
#[derive(Default)]
pub(crate) struct Upcomings {
    list: RwLock<Vec<Arc<Upcoming>>>,
    /// How many there are.
    count: AtomicUsize,
    last: AtomicU64,
    /// How many have ended.
    ended: AtomicU64,
    /// The last ones that have ended, with how many had by then.
    before: Mutex<VecDeque<(u64, Arc<Upcoming>)>>,
    one_has_ended: Condvar,
    /// The reads that were told to wait, and since when: the next round lets them go first.
    waiting: Mutex<HashMap<(ViewId, Ino), Instant>>,
    one_was_read: Condvar,
}

impl Upcoming {
    /// What a view does not show yet and will show. One that stays with what it found will not.
    fn is_news<'v>(&self, view: &'v View) -> Option<impl Fn(&IntervalId) -> bool + use<'v>> {
        let (context, scope) = (view.context(), view.scope());
        let follows = context.is_none() || scope.sight.snapshot == Seq::NOW;
        let live = scope.sight.live.clone();
        follows.then_some(move |interval: &IntervalId| live.binary_search(interval).is_err())
    }

    fn concerns(&self, store: &Store, view: &View, what: &Invalidation) -> bool {
        let Some(is_news) = self.is_news(view) else { return false };
        match &self.listed {
            Some(listed) => listed.get(what).is_some_and(|changed| changed.iter().any(is_news)),
            None => self.intervals.iter().filter(|interval| is_news(interval)).any(|i| has_changed(store, *i, what)),
        }
    }

    fn news_to(&self, view: &View) -> Vec<IntervalId> {
        let is_news = self.is_news(view);
        is_news.map_or(Vec::new(), |is_news| self.intervals.iter().copied().filter(is_news).collect())
    }

    /// What a kernel has read since it forgot what it had read before, as far as these are to wait; from now on they do, if that is
    /// nothing.
    fn take_read(&self, view: ViewId, wait: Waits) -> Vec<Ino> {
        let mut reads = self.reads.lock();
        let by = reads.by.entry(view).or_default();
        let taken: Vec<Ino> =
            by.inos.extract_if(|_, is_mapped| *is_mapped || wait == Waits::All).map(|(ino, _)| ino).collect();
        if taken.is_empty() {
            by.wait = wait;
        }
        taken
    }
}

/// What can't be found out counts as changed.
fn has_changed(store: &Store, interval: IntervalId, what: &Invalidation) -> bool {
    let has = |key: Key| store.has_changed(interval, &key).unwrap_or(true);
    match what {
        Invalidation::Inode(ino) | Invalidation::Attributes(ino) => has(Key::Inode(*ino)) || has(Key::DirStat(*ino)),
        Invalidation::Entry { parent, name } => has(Key::Entry(*parent, name.clone())),
    }
}

impl Upcomings {
    /// Those that have not ended. What they change may have to be looked for on the disk, for which nobody is kept waiting.
    fn all(&self) -> Vec<Arc<Upcoming>> {
        if self.count.load(Ordering::SeqCst) == 0 { Vec::new() } else { self.list.read().clone() }
    }

    fn find(&self, number: u64) -> Option<Arc<Upcoming>> {
        self.list.read().iter().find(|upcoming| upcoming.number == number).cloned()
    }

    /// How many have taken effect, or not, by now. What was looked at while this has not changed was so at one time.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    /// The last one that has changed a directory and ended, by its number among these; of those long ago any counts.
    pub(crate) fn last_change_of(&self, ino: Ino) -> u64 {
        let what = Invalidation::Inode(ino);
        let changed = |upcoming: &Upcoming| upcoming.listed.as_ref().is_none_or(|listed| listed.contains_key(&what));
        let before = self.before.lock();
        let last = before.iter().rev().find(|(_, upcoming)| changed(upcoming)).or(before.front());
        last.map_or(0, |(number, _)| *number)
    }

    /// Whether a decision has changed a file after that one, or is about to.
    pub(crate) fn change_later(&self, ino: Ino, decision: u64) -> bool {
        let what = Invalidation::Inode(ino);
        let changes =
            |upcoming: &Arc<Upcoming>| upcoming.listed.as_ref().is_none_or(|listed| listed.contains_key(&what));
        self.list.read().iter().any(changes) || self.last_change_of(ino) != decision
    }

    /// It has ended, as the last one up to now.
    fn note_ended(&self, upcoming: Arc<Upcoming>) {
        let mut before = self.before.lock();
        let ended = self.ended.fetch_add(1, Ordering::SeqCst) + 1;
        before.push_back((ended, upcoming));
        if before.len() > ENDED_KEPT_MAX {
            before.pop_front();
        }
        self.one_has_ended.notify_all();
    }

    /// Waits until one has ended, for so long at most; not at all if there is none.
    pub(crate) fn wait_for_end(&self, limit: Duration) {
        let mut before = self.before.lock();
        if self.count.load(Ordering::SeqCst) > 0 {
            self.one_has_ended.wait_for(&mut before, limit);
        }
    }

    /// Whether a view may keep what it is about to be told of any of these, which was looked at since so many had ended.
    pub(crate) fn let_last(&self, store: &Store, view: &View, what: &[Invalidation], ended: u64) -> bool {
        let concerns = |upcoming: &Arc<Upcoming>| {
            let is_planted = is_planted(Planted::ProvisionalTooLate) && upcoming.reads.lock().wait == Waits::None;
            !is_planted && what.iter().any(|what| upcoming.concerns(store, view, what))
        };
        let is_provisional = self.all().iter().any(concerns);
        !is_provisional && self.ended() == ended
    }

    /// A kernel is about to read something of a file that it keeps.
    ///
    /// # Errors
    /// [`FaultKind::Sealed`] if it has to wait.
    pub(crate) fn read(&self, store: &Store, view: &View, ino: Ino) -> Result<(), Fault> {
        let what = Invalidation::Inode(ino);
        for upcoming in self.all().iter().filter(|upcoming| upcoming.concerns(store, view, &what)) {
            let is_mapped = view.kernel.may_write_mapped(ino);
            let mut reads = upcoming.reads.lock();
            let least = reads.wait;
            let by = reads.by.entry(view.id).or_default();
            let wait = by.wait.max(least);
            if wait == Waits::All || wait == Waits::OfMapped && is_mapped {
                self.waiting.lock().entry((view.id, ino)).or_insert_with(Instant::now);
                return Err(Fault::new(FaultKind::Sealed, format!("inode {ino} is just being changed by a commit")));
            }
            *by.inos.entry(ino).or_default() |= is_mapped;
        }
        Ok(())
    }

    /// It has read it.
    pub(crate) fn was_read(&self, view: ViewId, ino: Ino) {
        let mut waiting = self.waiting.lock();
        if !waiting.is_empty() && waiting.remove(&(view, ino)).is_some() {
            self.one_was_read.notify_all();
        }
    }

    /// Lets those read of a file of this that have waited for another round, for a moment: else they would wait for one after the other.
    fn let_others_read(&self, store: &Store, view: &View, upcoming: &Upcoming) {
        let deadline = Instant::now() + LATE_READS_TIME_MAX;
        let mut late: Vec<(ViewId, Ino)> = {
            let mut waiting = self.waiting.lock();
            waiting.retain(|_, since| since.elapsed() < LATE_READS_TIME_MAX);
            waiting.keys().filter(|(of, _)| *of == view.id).copied().collect()
        };
        late.retain(|(_, ino)| upcoming.concerns(store, view, &Invalidation::Inode(*ino)));
        let is_due = |waiting: &mut HashMap<(ViewId, Ino), Instant>| late.iter().any(|read| waiting.contains_key(read));
        self.one_was_read.wait_while_until(&mut self.waiting.lock(), is_due, deadline);
    }
}

impl Shared {
    /// Whether a view may keep what it is about to be told of any of these, which was looked at since so many rounds had ended.
    pub(crate) fn lasts(&self, view: &View, what: &[Invalidation], ended: u64) -> bool {
        self.upcomings.let_last(&self.store, view, what, ended)
    }
}

impl Audience for Shared {
    fn expect(&self, intervals: &[IntervalId]) -> u64 {
        let listed = self.listed(intervals).map(|all| {
            let mut listed: HashMap<Invalidation, Vec<IntervalId>> = HashMap::new();
            all.into_iter().for_each(|(interval, what)| listed.entry(what).or_default().push(interval));
            listed
        });
        let number = self.upcomings.last.fetch_add(1, Ordering::SeqCst) + 1;
        let upcoming = Upcoming { number, intervals: intervals.to_vec(), listed, reads: Mutex::default() };
        self.upcomings.list.write().push(Arc::new(upcoming));
        self.upcomings.count.fetch_add(1, Ordering::SeqCst);
        // What was looked at before is looked at again before it is given.
        self.note_change();
        number
    }

    fn forget(&self, number: u64) -> Result<(), Fault> {
        let upcoming = self.upcomings.find(number).filter(|_| !is_planted(Planted::NothingForgotten));
        let Some(upcoming) = upcoming else { return Ok(()) };
        let held_up = Mutex::new(None);
        self.side_by_side(&self.concerned_by(&upcoming), |view| {
            let forget = |set: InvalidationSet| {
                let directory = set.directory();
                let has_forgotten = self.forget_in_time(view, set);
                if !has_forgotten {
                    *held_up.lock() = Some(self.held_up(view, directory));
                }
                has_forgotten
            };
            let mut set = InvalidationSet::default();
            set.add(self.believed_of(view, &upcoming));
            if set.is_empty() || forget(set) {
                self.forget_what_was_read(view, &upcoming, Waits::OfMapped, forget);
            }
        });
        held_up.into_inner().map_or(Ok(()), Err)
    }

    fn is_ready(&self, number: u64) -> bool {
        self.upcomings.find(number).is_some_and(|upcoming| upcoming.reads.lock().let_wait(Waits::OfMapped))
    }

    fn forget_reads(&self, number: u64, deadline: Instant) {
        let upcoming = self.upcomings.find(number).filter(|_| !is_planted(Planted::ReadKeptOverTheCommit));
        let Some(upcoming) = upcoming else { return };
        self.side_by_side(&self.concerned_by(&upcoming), |view| {
            self.forget_what_was_read(view, &upcoming, Waits::All, |set| self.forget_until(view, set, deadline));
        });
    }

    fn is_forgotten(&self, number: u64) -> bool {
        is_planted(Planted::ReadKeptOverTheCommit)
            || self.upcomings.find(number).is_none_or(|upcoming| upcoming.reads.lock().let_wait(Waits::All))
    }

    fn end(&self, number: u64) {
        let Some(upcoming) = self.upcomings.find(number) else { return };
        // Before it is gone: who finds nothing provisional any more finds that something has ended.
        self.note_change();
        self.upcomings.note_ended(upcoming);
        self.upcomings.list.write().retain(|upcoming| upcoming.number != number);
        self.upcomings.count.fetch_sub(1, Ordering::SeqCst);
    }

    fn locked(&self, contexts: &[ContextId], intervals: &[IntervalId]) -> Option<LockedBy> {
        let is_inside = |view: &Arc<View>| contexts.iter().any(|context| view.shows_from_inside(*context));
        // What can't be found out counts as changed.
        let changed = |ino: Ino| intervals.iter().any(|i| self.store.has_changed_content(*i, ino).unwrap_or(true));
        let is_outside = |taken: &Taken| {
            let view = self.views.find(taken.by.view);
            let is_program = taken.by.owner.class == LockClass::Program;
            view.is_none_or(|view| !is_inside(&view) && (is_program || view.shows_what_becomes_final()))
        };
        let of_changed = self.locks.taken_since(contexts).into_iter().filter(|(ino, _)| changed(*ino));
        let has_changed = intervals.iter().any(|interval| self.store.last_change(*interval) > 0);
        let over = if has_changed { self.locks.taken_over(contexts) } else { Vec::new() };
        let (ino, taken) = of_changed.chain(over).find(|(_, taken)| is_outside(taken))?;
        let place = match self.views.find(taken.by.view).and_then(|view| view.context()) {
            Some(_) => "in another job",
            None => "on trunk",
        };
        let what = if taken.by.owner.class == LockClass::Program { "runs it" } else { "has locked it" };
        Some(LockedBy { ino, who: format!("process {} {place} {what}", taken.pid) })
    }

    fn wait_for_unlock(&self, (contexts, intervals): (&[ContextId], &[IntervalId]), deadline: Instant) {
        self.locks.wait_for_unlock(deadline, || self.locked(contexts, intervals).is_some());
    }
}

impl Shared {
    fn concerned_by(&self, upcoming: &Upcoming) -> Vec<Arc<View>> {
        let is_concerned = |view: &Arc<View>| !view.is_dead() && !upcoming.news_to(view).is_empty();
        self.views.all().into_iter().filter(is_concerned).collect()
    }

    /// Whether a kernel has forgotten something until then; else it goes on with that. It may wait for the very decision that waits for it: what
    /// was written through a mapping just now is written out first, which waits for that.
    fn forget_until(&self, view: &Arc<View>, set: InvalidationSet, deadline: Instant) -> bool {
        let through = self.begin_to_forget(view, set);
        through.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Whether a kernel has forgotten something in [`KERNEL_TIME_MAX`]; else it goes on with that. The time does not count in which rounds are
    /// being decided: what holds it up may wait for them.
    pub(crate) fn forget_in_time(&self, view: &Arc<View>, set: InvalidationSet) -> bool {
        let through = self.begin_to_forget(view, set);
        let mut left = KERNEL_TIME_MAX;
        while left > Duration::ZERO {
            let step = left.min(KERNEL_TIME_MAX / 100);
            match through.recv_timeout(step) {
                Ok(()) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) if self.coordinator.has_rounds() => {}
                Err(RecvTimeoutError::Timeout) => left -= step,
            }
        }
        false
    }

    /// Why a decision is not made that a kernel is not prepared for.
    fn held_up(&self, view: &View, directory: Option<Ino>) -> Fault {
        let which = match view.context() {
            None => format!("the mount (view {})", view.id),
            Some(context) => format!("view {} of context {context}", view.id),
        };
        let directory = directory.map(|ino| self.coordinator.directory_for_people(&view.scope().sight, ino));
        let what = directory.map_or_else(|| "files".to_owned(), |directory| format!("names in {directory}"));
        let text = format!(
            "it is not committed: the kernel of {which} has not forgotten what changes of {what} for {} s, since a request there is not \
             answered; end what hangs there, and commit again",
            KERNEL_TIME_MAX.as_secs()
        );
        tracing::warn!("{text}");
        Fault::new(FaultKind::TimedOut, text)
    }

    /// Has a kernel forget something, on a thread of its own; says when it has.
    fn begin_to_forget(&self, view: &Arc<View>, set: InvalidationSet) -> Receiver<()> {
        let (is_through, through) = channel();
        if self.tells_in_turn() || !view.embedded {
            // One elsewhere is cut off when it takes none.
            view.forget(set);
            let _ = is_through.send(());
            return through;
        }
        let theirs = view.clone();
        let forget = move || {
            theirs.forget(set);
            // Nobody waits for it any more, perhaps.
            let _ = is_through.send(());
        };
        if let Err(error) = mojavefs_threads::detached("mojavefs-forget", forget) {
            tracing::error!("a thread that has view {} forget what is about to change: {error}", view.id);
        }
        through
    }

    /// Has a kernel forget what it has read until it has read nothing since, or does not `forget`.
    fn forget_what_was_read(
        &self,
        view: &View,
        upcoming: &Upcoming,
        wait: Waits,
        forget: impl Fn(InvalidationSet) -> bool,
    ) {
        loop {
            self.upcomings.let_others_read(&self.store, view, upcoming);
            let read = upcoming.take_read(view.id, wait);
            let mut set = InvalidationSet::default();
            set.add(read.into_iter().map(Invalidation::Inode));
            if set.what.is_empty() || !forget(set) {
                return;
            }
        }
    }

    /// What the kernel of a view may believe of what it is about to be shown.
    fn believed_of(&self, view: &View, upcoming: &Upcoming) -> Vec<Invalidation> {
        match &upcoming.listed {
            None => self.changed_for(view, &upcoming.news_to(view)),
            Some(listed) => {
                let Some(is_news) = upcoming.is_news(view) else { return Vec::new() };
                let told = listed.iter().filter(|(what, by)| by.iter().any(&is_news) && view.kernel.believes(what));
                told.map(|(what, _)| what.clone()).collect()
            }
        }
    }
}
