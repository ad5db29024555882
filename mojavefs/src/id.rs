//! Newtype ids. Inodes, speculations, and what else a store remembers are numbered there, each from its own row, and no number is
//! used again; views are numbered by their server while it runs.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id! {
    /// An inode number, the same in every view.
    Ino
}
id! {
    /// What one context did between two points where its dependencies changed.
    IntervalId
}
id! {
    /// An assumption that is checked later: the number users see.
    SpecId
}
id! {
    /// What rolls back as one: a job's process tree, or one process that linked the library.
    ContextId
}
id! {
    /// What one context sees of the filesystem: one mount. Local to a session with the server.
    ViewId
}
id! {
    /// A file's content: truncating to zero or replacing a file gives it a new one.
    ContentId
}
id! {
    /// One content file: the blocks that one interval changed in one content.
    LayerId
}
id! {
    /// The number of a block within a content; blocks are [`crate::limits::BLOCK_BYTES`] long.
    BlockNo
}
id! {
    /// A point in the order in which things become final.
    Seq
}

impl Ino {
    /// The root directory of every store.
    pub const ROOT: Ino = Ino(1);
}

impl IntervalId {
    /// The writer that is no speculation: what it writes is final at once.
    pub const FINAL: IntervalId = IntervalId(0);
}

impl Seq {
    /// Later than everything: the snapshot of a view that shows what is final now.
    pub const NOW: Seq = Seq(u64::MAX);
}
