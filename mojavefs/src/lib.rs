//! What the MojaveFS client and server share: ids, the interval graph, the protocol between them, limits.
//!
//! Nothing here opens a file or a socket, or starts a thread. The client and the server depend on this
//! crate and never on each other, so the messages in [`protocol`] are the only door between them.

pub mod acl;
pub mod graph;
pub mod id;
pub mod limits;
pub mod planted;
pub mod protocol;
