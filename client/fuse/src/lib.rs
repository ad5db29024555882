//! The FUSE protocol of Linux, and connections to kernels that speak it.
//!
//! [`protocol`] is pure: bytes of a kernel in, requests out; answers and notices in, bytes for a kernel out. [`Connection`] reads and writes
//! them. What requests mean is not known here.

mod connection;
pub mod mount_helper;
pub mod protocol;
mod sys;

pub use connection::{Connection, Handler, Notifier, Replier, Settings};
