//! The MojaveFS client: the FUSE side of a view, the jobs of `specrun`, the daemon behind a mount, the command line.

mod commands;
mod control;
mod daemon;
mod errno;
mod fuse;
mod job;
pub mod limits;
mod mount;
mod notify;
mod remote;
mod speech;
mod sys;
mod view;

pub use commands::{Checked, Embedded, Serving, mojavefs_main, specrun_main};
pub use daemon::Backend;
