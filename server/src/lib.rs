//! The MojaveFS server: sessions, the coordinator that drives the interval graph, POSIX operations on a view, the
//! versioned store.

mod checks;
mod coordinator;
pub mod limits;
pub mod net;
pub mod ops;
mod order;
mod server;
mod session;
pub mod store;
mod telling;
pub mod touch;
mod views;

pub use server::Server;
