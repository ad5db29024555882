//! Who says something, and since when that is who it is.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($of:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $of);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// A shard of the cluster, counted from 0.
    ShardId(u16)
}
id! {
    /// Each start of a coordinator has a term of its own, which is in the log before the log is read. Numbers that it gives contain it.
    Term(u32)
}
id! {
    /// Each start of a shard has an incarnation of its own, which is durable before anything is said in it.
    Incarnation(u64)
}
id! {
    /// A client of the cluster, from its first handshake to its farewell, or until it is declared lost.
    SessionId(u64)
}
id! {
    /// A request of a session, by which its answer is known.
    Request(u64)
}

/// Who asked for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Asker {
    /// The client.
    pub session: SessionId,
    /// Its request.
    pub request: Request,
}

/// A round, and which attempt at it: what is said of another attempt is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attempt {
    /// Rounds are counted as votes come in: a lower number is older. Those of a later term have greater ones.
    pub round: u64,
    /// Counted within the round.
    pub number: u32,
}
