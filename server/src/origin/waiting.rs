//! Decisions that the host does not have yet. While they wait, and while one is applied, what is committed stands for what they are about,
//! whatever the host has; the rest of the host is looked at as ever.

use super::{HostPath, LOOK_LASTS, Origin, store_fault};
use crate::store::{Sight, Store, StoreError};
use mojavefs::id::{Ino, IntervalId, Seq};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Name;
use parking_lot::{Mutex, MutexGuard};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Names and files that a decision is about.
pub(crate) type About = HashSet<(Ino, Option<Name>)>;

/// Decisions of which it is known what they are about.
#[derive(Default)]
pub(crate) struct Waiting {
    /// Held while decisions are applied. Whoever waits for it has no lock.
    applying: Mutex<()>,
    known: Mutex<HashMap<Seq, Known>>,
}

struct Known {
    about: About,
    /// When it was tried last, in vain, and why.
    failed: Option<(Instant, String)>,
}

impl Waiting {
    /// For as long as decisions are applied, which one thread does at a time.
    pub(crate) fn begin(&self) -> MutexGuard<'_, ()> {
        self.applying.lock()
    }

    /// The same, if no other thread does.
    pub(crate) fn try_begin(&self) -> Option<MutexGuard<'_, ()>> {
        self.applying.try_lock()
    }

    /// Waits until nothing is being applied.
    pub(crate) fn wait(&self) {
        drop(self.applying.lock());
    }

    /// A decision is about this, and will be applied. The caller sees to it that nobody looks at the host meanwhile.
    pub(crate) fn expect(&self, seq: Seq, about: About) {
        self.known.lock().insert(seq, Known { about, failed: None });
    }

    /// It can't be applied now, for a reason.
    pub(crate) fn failed(&self, seq: Seq, why: String) {
        if let Some(known) = self.known.lock().get_mut(&seq) {
            known.failed = Some((Instant::now(), why));
        }
    }

    /// Why it could not be applied when that was tried last.
    pub(crate) fn why(&self, seq: Seq) -> Option<String> {
        self.known.lock().get(&seq).and_then(|known| known.failed.as_ref()).map(|(_, why)| why.clone())
    }

    /// The host has it.
    pub(super) fn is_applied(&self, seq: Seq) {
        self.known.lock().remove(&seq);
    }

    /// Whether looks may go on before it is applied: it is being applied, or was tried just now.
    pub(crate) fn may_wait(&self, seq: Seq) -> bool {
        let known = self.known.lock();
        known.get(&seq).is_some_and(|known| match &known.failed {
            Some((failed, _)) => failed.elapsed() < LOOK_LASTS,
            None => self.applying.is_locked(),
        })
    }

    /// Whether any is about a name.
    pub(crate) fn is_about_name(&self, dir: Ino, name: &[u8]) -> bool {
        self.is_about([(dir, Some(name.to_vec()))].into_iter())
    }

    /// Whether any is about a file.
    pub(crate) fn is_about_file(&self, ino: Ino) -> bool {
        self.is_about([(ino, None)].into_iter())
    }

    fn is_about(&self, mut these: impl Iterator<Item = (Ino, Option<Name>)>) -> bool {
        let known = self.known.lock();
        !known.is_empty() && these.any(|one| known.values().any(|known| known.about.contains(&one)))
    }
}

impl Origin {
    /// Whether something waits to be applied that is about a file, or about a name on the way to it.
    pub(crate) fn file_waits(&self, ino: Ino) -> Result<bool, StoreError> {
        Ok(self.waiting.is_about_file(ino) || self.path_waits(ino)?)
    }

    fn path_waits(&self, ino: Ino) -> Result<bool, StoreError> {
        if self.waiting.known.lock().is_empty() {
            return Ok(false);
        }
        let Some(store) = self.store.upgrade() else { return Ok(false) };
        let names = store.host_names(ino)?.unwrap_or_default();
        Ok(self.waiting.is_about(names.into_iter().map(|(dir, name)| (dir, Some(name)))))
    }

    /// Where a directory is on the host, also while it is being moved there; nothing if it has no name any more. Errors: `Again` if it is
    /// between two places just now.
    pub(crate) fn path_now(&self, dir: Ino) -> Result<Option<HostPath>, Fault> {
        let Some(store) = self.store.upgrade() else { return Ok(None) };
        let path = store.host_path(&Sight::trunk(), dir).map_err(store_fault)?;
        if path.is_none() || !self.path_waits(dir).map_err(store_fault)? {
            return Ok(path);
        }
        for sight in self.sights(&store) {
            if let Some(path) = store.host_path(&sight, dir).map_err(store_fault)?
                && self.find(&path)?.is_some_and(|found| found.ino == dir)
            {
                return Ok(Some(path));
            }
        }
        Err(Fault::new(FaultKind::Again, format!("directory {} is being moved on the host", dir.shown())))
    }

    /// What trunk sees, and what it saw before what is not applied yet: the host has the paths of one or the other.
    pub(super) fn sights(&self, store: &Store) -> Vec<Sight> {
        let unapplied = store.committed().into_iter().filter(|(seq, _)| !self.has_applied(*seq));
        let missed: Vec<IntervalId> = unapplied.flat_map(|(_, intervals)| intervals).collect();
        if missed.is_empty() {
            return vec![Sight::trunk()];
        }
        vec![Sight::trunk(), Sight { missed: missed.as_slice().into(), ..Sight::trunk() }]
    }
}
