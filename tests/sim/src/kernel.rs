//! What the kernel behind a view keeps of what it is told, as Linux does with FUSE: names and sizes as long as it may, bytes until it is
//! told to forget them, and what programs have stored to pages through mappings until it is written out.

use mojavefs::id::Ino;
use mojavefs::protocol::Invalidation;
use std::collections::{HashMap, HashSet};

/// What one kernel has.
#[derive(Default)]
pub(crate) struct Cache {
    /// Grows whenever something is forgotten: an answer that was found before that is not kept.
    pub(crate) turn: u64,
    /// What it was ever given.
    pub(crate) known: HashSet<Ino>,
    pub(crate) bytes: HashMap<Ino, Vec<u8>>,
    pub(crate) sizes: HashMap<Ino, u64>,
    /// Below the root; nothing for one that is not there.
    pub(crate) names: HashMap<Vec<u8>, Option<Ino>>,
    /// The files to whose pages somebody has stored.
    pub(crate) dirty: HashSet<Ino>,
}

impl Cache {
    /// Forgets something; whether it had it. What was stored to its pages must have been written out.
    pub(crate) fn forget(&mut self, what: &Invalidation) -> bool {
        self.turn += 1;
        match what {
            Invalidation::Inode(ino) => self.bytes.remove(ino).is_some() | self.sizes.remove(ino).is_some(),
            Invalidation::Attributes(ino) => self.sizes.remove(ino).is_some(),
            Invalidation::Entry { name, .. } => self.names.remove(name).is_some(),
        }
    }

    /// Forgets every name.
    pub(crate) fn forget_names(&mut self) {
        self.turn += 1;
        self.names.clear();
    }

    /// A program has written to a file: the kernel has that too, as far as it has the page.
    pub(crate) fn write(&mut self, ino: Ino, offset: usize, data: &[u8]) {
        self.sizes.remove(&ino);
        if let Some(bytes) = self.bytes.get_mut(&ino) {
            if bytes.len() < offset + data.len() {
                bytes.resize(offset + data.len(), 0);
            }
            bytes[offset..offset + data.len()].copy_from_slice(data);
        }
    }
}
