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

impl Default for Seq {
    /// Before everything.
    fn default() -> Self {
        Seq(0)
    }
}

impl Ino {
    /// The root directory of every store.
    pub const ROOT: Ino = Ino(1);
    /// How many of the lower bits are what the host calls a file of its own.
    const HOST_BITS: u32 = 48;
    /// What is made in a store over a host directory has numbers from here on: few filesystems come so far.
    pub const FIRST_OVER_HOST: Ino = Ino(1 << 47);

    /// The number of a host's file: on its `filesystem`-th filesystem, from 0, the file that is `number` there. Nothing if one of these
    /// is out of range.
    pub fn of_host(filesystem: u64, number: u64) -> Option<Ino> {
        let fits = number < 1 << Self::HOST_BITS && filesystem < 1 << 13;
        fits.then_some(Ino((filesystem + 1) << Self::HOST_BITS | number))
    }

    /// Whether it is the number of a host's file.
    pub fn is_host(self) -> bool {
        self.0 >> Self::HOST_BITS != 0
    }

    /// The number that `stat` shows: a host's file has the host's.
    pub fn shown(self) -> u64 {
        self.0 & ((1 << Self::HOST_BITS) - 1)
    }
}

impl ContentId {
    const HOST: u64 = 1 << 63;

    /// What the host has in a file of its own.
    pub fn of_host(ino: Ino) -> ContentId {
        ContentId(Self::HOST | ino.0)
    }

    /// The host's file in which it lies, if it lies there.
    pub fn host(self) -> Option<Ino> {
        (self.0 & Self::HOST != 0).then_some(Ino(self.0 & !Self::HOST))
    }
}

impl IntervalId {
    /// The writer that is no speculation: what it writes is final at once.
    pub const FINAL: IntervalId = IntervalId(0);
}

impl Seq {
    /// Later than everything: the snapshot of a view that shows what is final now.
    pub const NOW: Seq = Seq(u64::MAX);
}
