//! What the clients of a run do.

use crate::random::Random;
use mojavefs_cluster::SessionId;

/// What the clients of a run do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Does {
    pub(crate) what: What,
    /// How many objects there are on each shard.
    pub(crate) objects: u8,
}

/// What they mostly do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// A bit of everything.
    All,
    /// Every second one reads snapshots, the others write, on trunk and in contexts that follow.
    Snapshots,
    /// They write in contexts that follow, and read on trunk.
    Commits,
    /// They begin contexts inside of others.
    Nested,
    /// They leave much to others.
    Held,
}

impl Does {
    /// Of how many that want to commit one leaves that to others; nothing if none does.
    pub(crate) fn leaves(self) -> Option<u64> {
        match self.what {
            What::All | What::Nested => Some(4),
            What::Held => Some(2),
            What::Snapshots | What::Commits => None,
        }
    }

    /// Whether they change several shards at once.
    pub(crate) fn has_steps(self) -> bool {
        matches!(self.what, What::All | What::Nested)
    }

    pub(crate) fn isolates(self, session: SessionId, random: &mut Random) -> bool {
        match self.what {
            What::All => random.coin(),
            What::Nested => random.below(3) == 0,
            What::Snapshots => session.0 % 2 == 1,
            What::Commits | What::Held => false,
        }
    }

    /// Whether something is written, rather than read.
    pub(crate) fn writes(self, job: Option<bool>, random: &mut Random) -> bool {
        let of_ten = match (self.what, job) {
            (What::All | What::Nested | What::Held, Some(true)) => 1,
            (What::All | What::Nested | What::Held, _) => 4,
            (What::Snapshots, Some(true)) => 0,
            (What::Snapshots, _) => 6,
            (What::Commits, Some(_)) => 9,
            (What::Commits, None) => 1,
        };
        random.below(10) < of_ten
    }
}
