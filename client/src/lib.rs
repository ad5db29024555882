//! The MojaveFS client: the FUSE side of a view, the jobs of `specrun`, the daemon behind a mount, the command line.

mod control;
mod errno;
mod fuse;
pub mod limits;
mod mount;
mod notify;
mod sys;
mod view;
