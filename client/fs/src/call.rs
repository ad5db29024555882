//! Who asks for an operation, and whether it may wait.

use crate::patience::{Asking, Patience};
use crate::view::View;
use mojavefs::protocol::Connection;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Whoever makes a system call, as the kernel says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The process; 0 where it is the kernel itself, which reads ahead or writes out.
    pub pid: u32,
    /// The user by whose rights it is made.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

impl Caller {
    /// The kernel itself, on nobody's behalf.
    pub const KERNEL: Caller = Caller { pid: 0, uid: 0, gid: 0 };
}

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

    /// The same for as long as the kernel has not `gone`: what waits then is not asked for any more.
    pub fn call_unless_gone(&self, caller: Caller, patience: Patience, gone: Arc<AtomicBool>) -> Call<'_> {
        Call { view: self, caller, _asking: Asking::unless_gone(caller.pid, patience, gone) }
    }
}

impl Call<'_> {
    /// The view that it is made on.
    pub fn view(&self) -> &View {
        self.view
    }

    pub(crate) fn server(&self) -> &dyn Connection {
        self.view.server()
    }
}
