//! The MojaveFS server: sessions, the coordinator that drives the interval graph, POSIX operations on a view, the
//! versioned store.

pub mod access;
mod applying;
mod checks;
mod coordinator;
pub mod limits;
mod locks;
pub mod net;
pub mod ops;
mod order;
pub mod origin;
#[cfg(test)]
mod random;
mod server;
mod session;
pub mod store;
mod telling;
mod views;

pub use server::Server;
