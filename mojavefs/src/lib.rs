//! What the MojaveFS client and server share: ids, the interval graph, the wire between them and how it
//! travels, limits and errors.
//!
//! Nothing here opens a file or a socket, or starts a thread. The client and the server depend on this
//! crate and never on each other, so the messages in [`wire`] are the only door between them.

pub mod acl;
pub mod codec;
pub mod error;
pub mod file;
pub mod graph;
pub mod id;
pub mod limits;
pub mod net;
pub mod planted;
pub mod wire;
