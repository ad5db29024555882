//! What an operation reports of the objects it read or changed, so that the coordinator can notice conflicts when they
//! arise instead of searching for them at a commit.

use crate::store::Newer;
use mojavefs::id::{Ino, IntervalId};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::Name;

/// How an object was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Access {
    /// Its state was seen.
    Read,
    /// It was changed in a way that commutes with other such changes (names added to one directory).
    Update,
    /// It was changed (a change builds on what was there, so it counts as seen too).
    Write,
}

impl Access {
    /// Two uses by independent contexts that cannot both stand if one of them becomes final under the other.
    pub fn conflicts_with(self, other: Access) -> bool {
        !matches!((self, other), (Access::Read, Access::Read) | (Access::Update, Access::Update))
    }

    /// Both uses by one context. Whoever saw what others change in a way that commutes is in their way as a writer is.
    pub fn and(self, other: Access) -> Access {
        match (self, other) {
            (Access::Read, Access::Update) | (Access::Update, Access::Read) => Access::Write,
            _ => self.max(other),
        }
    }

    /// Something was changed.
    pub fn changes(self) -> bool {
        self != Access::Read
    }
}

/// An object in the sense of conflicts: a file is one as a whole, a directory one per name and one for its listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum AccessKey {
    /// A file with its content and attributes; of a directory only mode and owner.
    Inode(Ino),
    /// A name in a directory, whether it is there or not.
    Entry(Ino, Name),
    /// Which names a directory has.
    Listing(Ino),
    /// One extended attribute.
    Xattr(Ino, Name),
    /// Which extended attributes a file has.
    XattrList(Ino),
    /// In which directory a directory lies. Moving it changes that; moving another one to below it rests on it.
    Place(Ino),
}

/// Where operations report to; one per view. Must not block, but for the disk where what is written down of a held speculation has
/// to change first.
pub trait AccessLog: Send + Sync {
    /// These are about to be changed. What has to be on disk before that is there when this returns; after an error nothing is
    /// changed.
    fn foresee(&self, _changes: &[(AccessKey, Access)]) -> Result<(), Fault> {
        Ok(())
    }

    /// `key` was used.
    fn note(&self, key: AccessKey, how: Access, newer: Newer);

    /// The newest versions of `key` are those of these undecided intervals, which the view does not see, or may not
    /// write over in its own interval. Returns the refusal of the operation: [`mojavefs::protocol::fault::FaultKind::Again`] if it can be repeated
    /// at once with the view as it is then.
    fn meet(&self, key: &AccessKey, of: &[IntervalId]) -> Fault;
}
