//! The MojaveFS server: sessions, the coordinator that drives the interval graph, POSIX operations on a view, the
//! versioned store.

pub mod limits;
pub mod store;
