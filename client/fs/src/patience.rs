//! For whom a thread asks, and whether what it asks for may wait for others.

use mojavefs::protocol::{FsOp, Request};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

thread_local! {
    static CALLER: Cell<Option<u32>> = const { Cell::new(None) };
    static PATIENCE: Cell<Patience> = const { Cell::new(Patience::Own) };
    /// It answers a kernel.
    static FOR_KERNEL: Cell<bool> = const { Cell::new(false) };
    static GONE: RefCell<Option<Arc<AtomicBool>>> = const { RefCell::new(None) };
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

    /// The same for as long as the kernel has not `gone`: what waits then is not asked for any more.
    pub(crate) fn unless_gone(pid: u32, patience: Patience, gone: Arc<AtomicBool>) -> Asking {
        GONE.set(Some(gone));
        Asking::for_process(pid, patience)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        CALLER.set(None);
        PATIENCE.set(Patience::Own);
        FOR_KERNEL.set(false);
        GONE.set(None);
    }
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
