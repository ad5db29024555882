//! The MojaveFS client: the FUSE side of a view, the jobs of `specrun`, the daemon behind a mount, the command line.

mod commands;
mod daemon;
mod errno;

mod job;
pub mod limits;
mod notify;
mod output;
mod remote;
mod transport;

pub(crate) use mojavefs_attach::{control, mount, sys};

pub use commands::{Checked, Embedded, Serving, mojavefs_main, specrun_main};
pub use daemon::{Backend, Keep, next_speculation};
