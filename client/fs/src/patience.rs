//! For whom a thread asks, and whether what it asks for may wait for others.

use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::rounds;
use mojavefs::protocol::{FsOp, Request};
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static CALLER: Cell<Option<u32>> = const { Cell::new(None) };
    static PATIENCE: Cell<Patience> = const { Cell::new(Patience::Own) };
    /// It answers a kernel.
    static FOR_KERNEL: Cell<bool> = const { Cell::new(false) };
    static GONE: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
    static WAITING: RefCell<Option<Arc<Waiting>>> = const { RefCell::new(None) };
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Something that is through, or fails, in a while, like a disk: only who is about to end is let go.
    Bounded,
    /// Others, who may take for ever: any signal ends it.
    Unbounded,
}

/// A signal to whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signal {
    /// It is to stop, or there is none any more: nothing ends by that.
    Stops,
    /// It will go on after that.
    Handled,
    /// It is about to end.
    Ends,
}

/// A request that waits for others, as far as a signal to its caller can end that. It either waits or does something: what it does is
/// finished, and the signal is met when it waits the next time.
#[derive(Default)]
pub struct Waiting(Mutex<WaitingState>);

#[derive(Default)]
struct WaitingState {
    wait: Option<Wait>,
    signal: Option<Signal>,
    is_given_up: bool,
}

impl WaitingState {
    fn is_over(&self, wait: Wait) -> bool {
        match wait {
            Wait::Bounded => self.signal == Some(Signal::Ends),
            Wait::Unbounded => self.signal >= Some(Signal::Handled),
        }
    }
}

impl Waiting {
    /// The caller got a signal. True if nothing more is done of the request, which was not done: it can be answered at once.
    pub fn interrupt(&self, signal: Signal) -> bool {
        let mut state = self.0.lock();
        state.signal = state.signal.max(Some(signal));
        let gives_up = !state.is_given_up && state.wait.is_some_and(|wait| state.is_over(wait));
        state.is_given_up |= gives_up;
        gives_up
    }

    fn begin(&self, wait: Wait) -> Result<(), Fault> {
        let mut state = self.0.lock();
        if state.is_over(wait) {
            return Err(interrupted());
        }
        state.wait = Some(wait);
        Ok(())
    }

    fn end(&self) -> Result<(), Fault> {
        let mut state = self.0.lock();
        state.wait = None;
        if state.is_given_up { Err(interrupted()) } else { Ok(()) }
    }
}

fn interrupted() -> Fault {
    Fault::new(FaultKind::Interrupted, "a signal has ended the wait")
}

/// Whether what a thread asks for may wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// It asks for itself, and waits.
    Own,
    /// It answers a kernel: what has to wait is refused.
    Never,
    /// It goes on with what was refused there, and waits. So often had those that wait been told to stop when it was asked for.
    Since(u64),
}

/// A request of a kernel, for as long as this thread is at it.
pub(crate) struct Asking(());

impl Asking {
    /// Of a process, as the kernel numbers it; 0 is the kernel itself.
    pub(crate) fn for_process(pid: u32, patience: Patience) -> Asking {
        crate::deliveries::forget();
        CALLER.set(Some(pid).filter(|pid| *pid != 0));
        PATIENCE.set(patience);
        FOR_KERNEL.set(true);
        Asking(())
    }

    /// The same for as long as the kernel has not `gone`: what waits then is not asked for any more; nor is what a signal has ended.
    pub(crate) fn unless_gone(pid: u32, patience: Patience, gone: Arc<AtomicBool>, waiting: Arc<Waiting>) -> Asking {
        GONE.set(Some(gone));
        WAITING.set(Some(waiting));
        Asking::for_process(pid, patience)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        CALLER.set(None);
        PATIENCE.set(Patience::Own);
        FOR_KERNEL.set(false);
        GONE.set(None);
        WAITING.set(None);
    }
}

/// Waits for others, unless a signal has ended that, or does.
fn wait<T>(wait: Wait, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let Some(waiting) = WAITING.with_borrow(Clone::clone) else { return work() };
    waiting.begin(wait)?;
    let result = work();
    waiting.end()?;
    result
}

/// Waits for what others decide.
pub(crate) fn wait_for_others<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    wait(Wait::Unbounded, work)
}

/// Waits for what is just being decided.
pub(crate) fn wait_for_round(work: rounds::Wait<'_>) -> Result<bool, Fault> {
    wait(Wait::Bounded, work)
}

/// Whether this thread answers a kernel.
pub(crate) fn asks_for_kernel() -> bool {
    FOR_KERNEL.get()
}

/// The process that waits in a system call for what this thread does.
pub(crate) fn caller() -> Option<u32> {
    CALLER.get()
}

/// Whether this thread may wait.
pub(crate) fn patience() -> Patience {
    PATIENCE.get()
}

/// The same in short; not any more once nobody waits for the answer.
pub(crate) fn may_wait() -> bool {
    patience() != Patience::Never
        && !GONE.with_borrow(|gone| gone.as_ref().is_some_and(|gone| gone.load(Ordering::SeqCst)))
}

/// What the kernel itself writes out would be lost if it were refused.
pub(crate) fn is_patient(request: &Request<'_>) -> bool {
    matches!(request, Request::Fs { op: FsOp::Write { .. }, .. }) && caller().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_what_waits_for_others_and_only_the_end_what_is_through_in_a_while() {
        let waiting = Waiting::default();
        waiting.begin(Wait::Bounded).expect("it waits");
        assert!(
            !waiting.interrupt(Signal::Handled) && waiting.interrupt(Signal::Ends) && !waiting.interrupt(Signal::Ends)
        );
        assert!(waiting.end().is_err());
        let waiting = Waiting::default();
        waiting.begin(Wait::Unbounded).expect("it waits");
        assert!(!waiting.interrupt(Signal::Stops) && waiting.interrupt(Signal::Handled) && waiting.end().is_err());
    }

    #[test]
    fn what_is_being_done_is_finished_and_the_signal_is_met_at_the_next_wait() {
        let waiting = Waiting::default();
        waiting.begin(Wait::Unbounded).and_then(|()| waiting.end()).expect("it has waited");
        assert!(!waiting.interrupt(Signal::Handled));
        waiting.begin(Wait::Bounded).and_then(|()| waiting.end()).expect("it is through in a while");
        assert_eq!(waiting.begin(Wait::Unbounded).map_err(|fault| fault.kind), Err(FaultKind::Interrupted));
    }
}
