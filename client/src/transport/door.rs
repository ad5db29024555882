//! The door between a kernel and its view: what can be answered at once is, and what must wait for others waits on a thread of its
//! own. So those which answer the kernel never do.

use super::answers::Answered;
use super::convert::error;
use super::reply::Reply;
use super::signals;
use crate::limits::PARKED_MAX;
use mojavefs::id::Ino;
use mojavefs::limits::FILE_BYTES_MAX;
use mojavefs::protocol::Caller;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_fs::{Call, Patience, Range, Signal, View, Waiting, deliveries, has_to_wait};
use mojavefs_fuse::protocol::Answer;
use nix::errno::Errno;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The door of one kernel.
#[derive(Clone)]
pub(super) struct Door {
    view: Arc<View>,
    parked: Arc<Parked>,
}

/// The requests that wait.
#[derive(Default)]
pub(super) struct Parked {
    count: Mutex<usize>,
    /// What is read by those of them that read.
    reads: Mutex<Vec<Range>>,
    one_has_ended: Condvar,
    /// Nobody waits for their answers any more.
    gone: Arc<AtomicBool>,
}

/// The place of one of them.
struct Place {
    parked: Arc<Parked>,
    read: Option<Range>,
}

impl Parked {
    fn place(self: &Arc<Self>, read: Option<Range>) -> Option<Place> {
        let mut count = self.count.lock();
        (*count < PARKED_MAX).then(|| {
            *count += 1;
            self.reads.lock().extend(read);
            Place { parked: self.clone(), read }
        })
    }

    /// The parts of a file, by their first byte and their length, of which no read waits. The kernel has nothing of the others, and has
    /// locked them.
    pub(super) fn not_being_read(&self, ino: Ino) -> Vec<(u64, u64)> {
        let theirs =
            |(read, at, length): &Range| (*read == ino && *length > 0).then_some((*at, at.saturating_add(*length)));
        let reads: Vec<(u64, u64)> = self.reads.lock().iter().filter_map(theirs).collect();
        gaps(reads)
    }

    /// The kernel is gone: what waits is not done any more, once it has stopped waiting, which this waits for.
    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.one_has_ended.wait_while(&mut self.count.lock(), |count| *count > 0);
    }
}

impl Place {
    /// It is about to be answered: it waits for nobody, and the kernel will have what it reads.
    fn waits_no_more(&mut self) {
        if let Some(read) = self.read.take() {
            let mut reads = self.parked.reads.lock();
            reads.iter().position(|other| *other == read).map(|place| reads.swap_remove(place));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waits_no_more();
        *self.parked.count.lock() -= 1;
        self.parked.one_has_ended.notify_all();
    }
}

impl Door {
    pub(super) fn new(view: Arc<View>) -> Self {
        Door { view, parked: Arc::default() }
    }

    /// The view behind it.
    pub(super) fn view(&self) -> &Arc<View> {
        &self.view
    }

    /// Those that wait.
    pub(super) fn parked(&self) -> &Arc<Parked> {
        &self.parked
    }

    /// Answers a call: `work` finds the answer, on this thread or another, later, and more than once.
    pub(super) fn answer(
        &self,
        caller: Caller,
        reply: impl Reply,
        work: impl Fn(&Call<'_>) -> Answered + Send + 'static,
    ) {
        self.answer_about((caller, caller.pid, None), reply, work);
    }

    /// The same for a read of some bytes, for which a thread waits, or the kernel itself: many are its own.
    pub(super) fn answer_read(
        &self,
        (thread, range): (u32, Range),
        reply: impl Reply,
        work: impl Fn(&Call<'_>) -> Answered + Send + 'static,
    ) {
        self.answer_about((Caller::KERNEL, thread, Some(range)), reply, work);
    }

    fn answer_about(
        &self,
        (caller, thread, read): (Caller, u32, Option<Range>),
        reply: impl Reply,
        work: impl Fn(&Call<'_>) -> Answered + Send + 'static,
    ) {
        let since = self.view.interrupts();
        match self.at_once(caller, &work) {
            Some(answered) => {
                let _under_way = deliveries::take();
                give(reply, answered);
            }
            None => match self.parked.place(read) {
                Some(place) => {
                    // A page that can't be read is a fault of memory to whoever touches it, which no handled signal may cause.
                    let least = if read.is_some() { Signal::Ends } else { Signal::Handled };
                    self.park(Some(place), (caller, Some((thread, least)), since), reply, work);
                }
                None => give(reply, Err(too_many())),
            },
        }
    }

    /// The same for a write: it comes with more than is copied without need, so `copied` is what must be asked again. What the kernel
    /// itself writes out would be lost if it were refused.
    pub(super) fn answer_write<W>(
        &self,
        caller: Caller,
        reply: impl Reply,
        work: impl FnOnce(&Call<'_>) -> Answered,
        copied: impl FnOnce() -> W,
    ) where
        W: Fn(&Call<'_>) -> Answered + Send + 'static,
    {
        let since = self.view.interrupts();
        match self.at_once(caller, work) {
            Some(answered) => give(reply, answered),
            None => match self.parked.place(None) {
                None if caller.pid != Caller::KERNEL.pid => give(reply, Err(too_many())),
                place => {
                    let thread = Some(caller.pid).filter(|pid| *pid != Caller::KERNEL.pid);
                    self.park(place, (caller, thread.map(|thread| (thread, Signal::Handled)), since), reply, copied());
                }
            },
        }
    }

    /// What can be found without waiting for others; nothing if it can't. It is under way to the kernel until the caller takes it from
    /// [`deliveries`] and has given it.
    pub(super) fn at_once<T>(
        &self,
        caller: Caller,
        work: impl FnOnce(&Call<'_>) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let result = work(&self.view.call(caller, Patience::Never));
        (!result.as_ref().is_err_and(has_to_wait)).then_some(result)
    }

    /// Goes on with a request on a thread of its own. A signal to the thread that has asked can end it while it waits, if it is as much as
    /// this at least.
    fn park<R: Reply>(
        &self,
        place: Option<Place>,
        (caller, asks, since): (Caller, Option<(u32, Signal)>, u64),
        reply: R,
        work: impl Fn(&Call<'_>) -> Answered + Send + 'static,
    ) {
        let (view, gone, waiting) = (self.view.clone(), self.parked.gone.clone(), Arc::new(Waiting::default()));
        let parked = Arc::new(ParkedReply { reply: Mutex::new(None), is_given: AtomicBool::new(false) });
        let wait = {
            let (parked, waiting) = (parked.clone(), waiting.clone());
            move || {
                let mut place = place;
                let call = view.call_unless_gone(caller, Patience::Since(since), gone, waiting);
                let answered = work(&call);
                place.iter_mut().for_each(Place::waits_no_more);
                let _under_way = deliveries::take();
                parked.give(answered.map_err(|fault| error(&fault)));
            }
        };
        if let Some(asks) = asks {
            let interrupted = parked.clone();
            reply.when_interrupted(Box::new(move || {
                let watched = interrupted.clone();
                let is_answered = move || watched.is_given.load(Ordering::SeqCst);
                signals::interrupt(asks, waiting, is_answered, move || interrupted.give(Err(Errno::EINTR)));
            }));
        }
        // Nobody gives it before there is a thread that waits.
        *parked.reply.lock() = Some(reply);
        run_aside(wait);
    }
}

/// The reply of a request that waits, which is given by its own thread, or when a signal has ended the wait.
struct ParkedReply<R> {
    reply: Mutex<Option<R>>,
    is_given: AtomicBool,
}

impl<R: Reply> ParkedReply<R> {
    fn give(&self, answer: Result<Answer, Errno>) {
        let reply = self.reply.lock().take();
        self.is_given.store(true, Ordering::SeqCst);
        if let Some(reply) = reply {
            reply.give(answer);
        }
    }
}

fn give(reply: impl Reply, answered: Answered) {
    reply.give(answered.map_err(|fault| error(&fault)));
}

/// What is in none of these ranges, of all that there can be in a file.
fn gaps(mut ranges: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    ranges.sort_unstable();
    let (mut gaps, mut from) = (Vec::new(), 0);
    for (start, end) in ranges {
        if start > from {
            gaps.push((from, start - from));
        }
        from = from.max(end);
    }
    gaps.push((from, (FILE_BYTES_MAX + 1).saturating_sub(from)));
    gaps
}

fn too_many() -> Fault {
    Fault::new(FaultKind::Busy, format!("{PARKED_MAX} requests wait already; try again later"))
}

/// Runs `work` on a thread of its own; on this one, if there can be none.
fn run_aside(work: impl FnOnce() + Send + 'static) {
    let work = Arc::new(Mutex::new(Some(work)));
    let theirs = work.clone();
    let run = move || {
        let work = theirs.lock().take();
        work.into_iter().for_each(|work| work());
    };
    if let Err(error) = mojavefs_threads::detached("mojavefs-parked", run) {
        tracing::error!("a thread for a request that waits: {error}");
        let work = work.lock().take();
        work.into_iter().for_each(|work| work());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_being_read_is_before_between_and_behind_what_is() {
        let end = FILE_BYTES_MAX + 1;
        assert_eq!(gaps(Vec::new()), [(0, end)]);
        assert_eq!(gaps(vec![(0, 10)]), [(10, end - 10)]);
        assert_eq!(gaps(vec![(30, 40), (10, 20), (15, 25)]), [(0, 10), (25, 5), (40, end - 40)]);
    }
}
