//! What one kernel may keep of what it was told: of changes of that it is told, and of nothing else.

use super::names::{Asked, Names};
use mojavefs::id::Ino;
use mojavefs::protocol::Invalidation;
use parking_lot::Mutex;
use std::collections::HashSet;

/// What one kernel may keep.
#[derive(Default)]
pub(crate) struct KernelCache {
    /// The inodes that it knows, but for the root, which it always does.
    inodes: Mutex<HashSet<Ino>>,
    /// Those of them that its programs may write to through mappings, as far as that is known.
    mapped: Mutex<HashSet<Ino>>,
    /// The names that it has asked for.
    names: Mutex<Names>,
}

impl KernelCache {
    /// It has been given this inode.
    pub(crate) fn hold(&self, ino: Ino) {
        self.inodes.lock().insert(ino);
    }

    /// It has forgotten this inode.
    pub(crate) fn release(&self, ino: Ino) {
        self.inodes.lock().remove(&ino);
        self.mapped.lock().remove(&ino);
        self.names.lock().drop_all(ino);
    }

    /// It is gone.
    pub(crate) fn release_all(&self) {
        self.inodes.lock().clear();
    }

    /// Whether it knows an inode.
    pub(crate) fn holds(&self, ino: Ino) -> bool {
        self.inodes.lock().contains(&ino)
    }

    /// All inodes that it was given.
    pub(crate) fn held(&self) -> Vec<Ino> {
        self.inodes.lock().iter().copied().collect()
    }

    /// One of its programs may write to a file through a mapping.
    pub(crate) fn may_be_mapped(&self, ino: Ino) {
        self.mapped.lock().insert(ino);
    }

    /// Whether its programs may write to a file through a mapping, as far as is known.
    pub(crate) fn may_write_mapped(&self, ino: Ino) -> bool {
        self.mapped.lock().contains(&ino)
    }

    /// It is about to be told of a name, there or not. Said before that is looked at, so that a change is seen then, or told later.
    pub(crate) fn asks_for(&self, parent: Ino, name: &[u8]) {
        self.names.lock().note(parent, name);
    }

    /// It has taken a name away.
    pub(crate) fn took_away(&self, parent: Ino, name: &[u8]) {
        self.names.lock().drop_one(parent, name);
    }

    /// The directories in which it has asked for names.
    pub(crate) fn asked_directories(&self) -> Vec<Ino> {
        self.names.lock().directories()
    }

    /// The names for which it has asked in a directory.
    pub(crate) fn asked_in(&self, parent: Ino) -> Option<Asked> {
        self.names.lock().asked_in(parent)
    }

    /// Whether it may believe anything about this.
    pub(crate) fn believes(&self, what: &Invalidation) -> bool {
        match what {
            Invalidation::Inode(ino) | Invalidation::Attributes(ino) => *ino == Ino::ROOT || self.holds(*ino),
            Invalidation::Entry { parent, name } => self.names.lock().has(*parent, name),
        }
    }
}
