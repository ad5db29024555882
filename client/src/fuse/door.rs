//! The door between a kernel and its view: what can be answered at once is, and what must wait for others waits on a thread of its
//! own. So those which answer the kernel never do.

use super::KERNEL;
use crate::limits::PARKED_MAX;
use crate::view::{Asking, Patience, View};
use mojavefs::protocol::fault::{Fault, FaultKind};
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
    one_has_ended: Condvar,
    /// Nobody waits for their answers any more.
    gone: Arc<AtomicBool>,
}

/// The place of one of them.
struct Place(Arc<Parked>);

impl Parked {
    fn place(self: &Arc<Self>) -> Option<Place> {
        let mut count = self.count.lock();
        (*count < PARKED_MAX).then(|| {
            *count += 1;
            Place(self.clone())
        })
    }

    /// The kernel is gone: what waits is not done any more, once it has stopped waiting, which this waits for.
    pub(super) fn end(&self) {
        self.gone.store(true, Ordering::SeqCst);
        self.one_has_ended.wait_while(&mut self.count.lock(), |count| *count > 0);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.count.lock() -= 1;
        self.0.one_has_ended.notify_all();
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

    /// Answers a request of a process: `work` finds the answer, which `end` gives. Both may run on another thread, later, `work`
    /// more than once.
    pub(super) fn answer<R: Send + 'static, T>(
        &self,
        pid: u32,
        mut reply: R,
        work: impl Fn(&View, &mut R) -> Result<T, Fault> + Send + 'static,
        end: impl FnOnce(R, Result<T, Fault>) + Send + 'static,
    ) {
        let since = self.view.interrupts();
        match self.at_once(pid, |view| work(view, &mut reply)) {
            Some(result) => end(reply, result),
            None => match self.parked.place() {
                Some(place) => self.park(Some(place), (pid, since), reply, work, end),
                None => end(reply, Err(too_many())),
            },
        }
    }

    /// The same for a write: it comes with more than is copied without need, so `copied` is what must be asked again. What the kernel
    /// itself writes out (by nobody: `pid` 0) would be lost if it were refused.
    pub(super) fn answer_write<R: Send + 'static, T, W>(
        &self,
        pid: u32,
        reply: R,
        work: impl FnOnce(&View) -> Result<T, Fault>,
        copied: impl FnOnce() -> W,
        end: impl FnOnce(R, Result<T, Fault>) + Send + 'static,
    ) where
        W: Fn(&View, &mut R) -> Result<T, Fault> + Send + 'static,
    {
        let since = self.view.interrupts();
        match self.at_once(pid, work) {
            Some(result) => end(reply, result),
            None => match self.parked.place() {
                None if pid != KERNEL => end(reply, Err(too_many())),
                place => self.park(place, (pid, since), reply, copied(), end),
            },
        }
    }

    /// What can be found without waiting for others; nothing if it can't.
    pub(super) fn at_once<T>(
        &self,
        pid: u32,
        work: impl FnOnce(&View) -> Result<T, Fault>,
    ) -> Option<Result<T, Fault>> {
        let _asking = Asking::for_process(pid, Patience::Never);
        let result = work(&self.view);
        let waits =
            |fault: &Fault| matches!(fault.kind, FaultKind::Sealed | FaultKind::Undecided | FaultKind::Checkpoint);
        (!result.as_ref().is_err_and(waits)).then_some(result)
    }

    /// Goes on with a request on a thread of its own.
    fn park<R: Send + 'static, T>(
        &self,
        place: Option<Place>,
        (pid, since): (u32, u64),
        mut reply: R,
        work: impl Fn(&View, &mut R) -> Result<T, Fault> + Send + 'static,
        end: impl FnOnce(R, Result<T, Fault>) + Send + 'static,
    ) {
        let (view, gone) = (self.view.clone(), self.parked.gone.clone());
        let wait = move || {
            let _place = place;
            let _asking = Asking::unless_gone(pid, Patience::Since(since), gone);
            let result = work(&view, &mut reply);
            end(reply, result);
        };
        run_aside(wait);
    }
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
    if let Err(error) = std::thread::Builder::new().name("mojavefs-parked".into()).spawn(run) {
        tracing::error!("a thread for a request that waits: {error}");
        let work = work.lock().take();
        work.into_iter().for_each(|work| work());
    }
}
