//! Who asks for an operation, and whether it may wait.

use crate::patience::{Asking, Patience, Waiting};
use crate::view::View;
use mojavefs::protocol::{Caller, Connection, FsOp, Request};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// One call of somebody's: its methods are the operations of the filesystem. As long as it lives, what its thread asks for is on behalf
/// of the caller, and has that patience.
pub struct Call<'a> {
    pub(crate) view: &'a View,
    pub(crate) caller: Caller,
    _asking: Asking,
}

impl View {
    /// A call, to be answered by this thread.
    pub fn call(&self, caller: Caller, patience: Patience) -> Call<'_> {
        Call { view: self, caller, _asking: Asking::for_process(caller.pid, patience) }
    }

    /// The same for as long as the kernel has not `gone`, and no signal has ended it: what waits then is not asked for any more.
    pub fn call_unless_gone(
        &self,
        caller: Caller,
        patience: Patience,
        gone: Arc<AtomicBool>,
        waiting: Arc<Waiting>,
    ) -> Call<'_> {
        Call { view: self, caller, _asking: Asking::unless_gone(caller.pid, patience, gone, waiting) }
    }
}

impl Call<'_> {
    /// The view that is asked.
    pub fn view(&self) -> &View {
        self.view
    }

    /// What the server is asked for by it.
    pub(crate) fn asks<'o>(&self, op: FsOp<'o>) -> Request<'o> {
        op.of(self.view.id(), self.caller)
    }

    pub(crate) fn server(&self) -> &dyn Connection {
        self.view.server()
    }
}
