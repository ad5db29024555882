//! Where directories are that trunk shows, kept in memory: paths are asked for at every look at the host.

use mojavefs::id::Ino;
use mojavefs::protocol::file::Name;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Of so many directories it is known; one more, and all are found out again.
const HOMES_MAX: usize = 100_000;

/// The directory in which each directory is, and its name there.
#[derive(Default)]
pub(super) struct Homes(Mutex<Known>);

#[derive(Default)]
struct Known {
    homes: HashMap<Ino, (Ino, Name)>,
    /// How often something has changed.
    changes: u64,
}

impl Homes {
    /// Where a directory is, if that is known; else how often something had changed before it is found out.
    pub(super) fn get(&self, dir: Ino) -> Result<(Ino, Name), u64> {
        let known = self.0.lock();
        known.homes.get(&dir).cloned().ok_or(known.changes)
    }

    /// It was found out, unless something has changed since.
    pub(super) fn found(&self, dir: Ino, home: &(Ino, Name), changes: u64) {
        let mut known = self.0.lock();
        if known.homes.len() >= HOMES_MAX {
            known.homes.clear();
        }
        if known.changes == changes {
            known.homes.insert(dir, home.clone());
        }
    }

    /// The final records of these files were changed.
    pub(super) fn changed(&self, files: impl Iterator<Item = Ino>) {
        let mut known = self.0.lock();
        for file in files {
            known.homes.remove(&file);
            known.changes += 1;
        }
    }

    /// Something became final.
    pub(super) fn decided(&self) {
        let mut known = self.0.lock();
        known.homes.clear();
        known.changes += 1;
    }
}
