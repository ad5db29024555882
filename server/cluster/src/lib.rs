//! How several servers decide as one.
//!
//! A *shard* keeps a part of the files, the *coordinator* drives the interval graph and keeps the decision log. Each is a state machine
//! without socket, clock, disk or thread: a message goes in, effects come out, to be carried out in their order. So all of it runs in a
//! simulator (`tests/`), which kills each of them at every moment.
//!
//! What is assumed of who drives them: messages between two of them arrive in the order in which they were sent, each once, for as long as
//! both are what they are ([`link`] makes that out of connections that end); the decision log appends in order and refuses an older
//! [`Term`] once a newer one is in it; what a shard has synced is there when it starts again, and of the rest a prefix.
//!
//! The rules are those of `docs/cluster.md`.

pub mod coordinator;
mod id;
pub mod link;
pub mod log;
pub mod message;
pub mod shard;

pub use id::{Asker, Attempt, Incarnation, Request, SessionId, ShardId, Term};
