//! The MojaveFS server: sessions, the coordinator that drives the interval graph, POSIX operations on a view, the
//! versioned store.

mod announce;
mod coordinator;
pub mod limits;
mod names;
pub mod net;
pub mod ops;
mod pile;
mod server;
mod session;
pub mod store;
pub mod touch;
mod urgent;
mod view;

pub use server::Server;
