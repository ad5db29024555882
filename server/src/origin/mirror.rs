//! What is known of the host from earlier looks.

use super::{Bottom, HostFile, HostName, HostPath, Known, Origin, Signature};
use crate::ops::fault;
use crate::store::{HostContents, StoreError};
use mojavefs::id::{ContentId, Ino, Seq};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Name;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a look at the host counts.
const LOOK_LASTS: Duration = Duration::from_secs(1);
/// Of how many looks it is remembered when they were.
const LOOKS_MAX: usize = 100_000;

/// An error of the host's, of what path.
pub(crate) fn host_fault(path: &[Name], error: &io::Error) -> Fault {
    let shown: Vec<u8> = path.iter().flat_map(|name| [b"/".as_slice(), name]).flatten().copied().collect();
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => FaultKind::AccessDenied,
        io::ErrorKind::NotFound => FaultKind::NotFound,
        io::ErrorKind::StorageFull => FaultKind::NoSpace,
        _ => FaultKind::Io,
    };
    Fault::new(kind, format!("{} on the host: {error}", shown.escape_ascii()))
}

impl Origin {
    /// The host that `bottom` shows.
    pub(crate) fn over(bottom: Arc<dyn Bottom>) -> io::Result<Origin> {
        let mut known = Known::default();
        let root =
            bottom.find(&HostPath::new())?.ok_or_else(|| io::Error::other("the root directory has no number"))?;
        known.ours.insert(root.ino, Ino::ROOT);
        known.hosts.insert(Ino::ROOT, root.ino);
        Ok(Origin { bottom, known: Mutex::new(known), comparing: Mutex::default() })
    }

    /// Up to this decision the host has everything, as is on record.
    pub(crate) fn has_up_to(&self, seq: Seq) {
        self.known.lock().applied = seq;
    }

    /// Whether it is a file that the host has, under whatever number.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        ino.is_host() || self.known.lock().hosts.contains_key(&ino)
    }

    /// Our number of a file of the host's.
    pub(crate) fn ours(&self, host: Ino) -> Ino {
        self.known.lock().ours.get(&host).copied().unwrap_or(host)
    }

    fn hosts(&self, ours: Ino) -> Ino {
        self.known.lock().hosts.get(&ours).copied().unwrap_or(ours)
    }

    /// What a path leads to, by our numbers.
    pub(crate) fn find(&self, path: &HostPath) -> Result<Option<HostFile>, Fault> {
        let found = self.bottom.find(path).map_err(|error| host_fault(path, &error))?;
        let by_our_number = |mut found: HostFile| {
            found.ino = self.ours(found.ino);
            found.inode.content = found.inode.content.map(|_| ContentId::of_host(found.ino));
            found
        };
        Ok(found.map(by_our_number))
    }

    /// The names of a directory, by our numbers.
    pub(crate) fn list(&self, path: &HostPath, dir: Ino) -> Result<Option<Vec<HostName>>, Fault> {
        let names = self.bottom.list(path, self.hosts(dir)).map_err(|error| host_fault(path, &error))?;
        let named = |found: HostName| HostName { ino: self.ours(found.ino), ..found };
        Ok(names.map(|names| names.into_iter().map(named).collect()))
    }

    /// Whether something has to be looked at: a name, or a file itself. From now on it counts as seen.
    pub(crate) fn has_to_look(&self, ino: Ino, name: Option<&[u8]>) -> bool {
        let mut known = self.known.lock();
        if known.seen.len() >= LOOKS_MAX {
            known.seen.clear();
        }
        is_due(known.seen.entry((ino, name.map(<[u8]>::to_vec))).or_default())
    }

    /// The same of the names of a directory.
    pub(crate) fn has_to_list(&self, dir: Ino) -> bool {
        is_due(self.known.lock().listed.entry(dir).or_default())
    }

    /// Whether somebody may know whether a name is there: then it is a change if that has come.
    pub(crate) fn is_known(&self, dir: Ino, name: &[u8]) -> bool {
        self.is_listed(dir) || self.is_seen(dir, name)
    }

    /// Whether all names of a directory were ever looked at.
    pub(crate) fn is_listed(&self, dir: Ino) -> bool {
        self.known.lock().listed.contains_key(&dir)
    }

    /// Whether a name was ever looked at.
    pub(crate) fn is_seen(&self, dir: Ino, name: &[u8]) -> bool {
        self.known.lock().seen.contains_key(&(dir, Some(name.to_vec())))
    }

    /// What was ever looked at: names and files, and lists of names.
    pub(crate) fn looks(&self) -> (Vec<(Ino, Option<Name>)>, Vec<Ino>) {
        let known = self.known.lock();
        (known.seen.keys().cloned().collect(), known.listed.keys().copied().collect())
    }

    /// Whether our own state lies right in this directory.
    pub(crate) fn is_own(&self, dir: Ino) -> bool {
        self.bottom.own().first() == Some(&self.hosts(dir))
    }

    /// The same, or below it.
    pub(crate) fn holds_own(&self, dir: Ino) -> bool {
        self.bottom.own().contains(&self.hosts(dir))
    }

    /// Everything is to be looked at again.
    pub(crate) fn forget_looks(&self) {
        let mut known = self.known.lock();
        known.seen.values_mut().for_each(|seen| *seen = None);
        known.listed.values_mut().for_each(|seen| *seen = None);
    }

    /// What a file was on the host when it was looked at last, if that differs from its record.
    pub(crate) fn signature(&self, ino: Ino) -> Option<Signature> {
        self.known.lock().signatures.get(&ino).cloned()
    }

    /// The host has changed files: what was kept of what they were is of no use any more.
    pub(crate) fn has_changed(&self, files: &[Ino]) {
        let mut known = self.known.lock();
        for ino in files {
            known.signatures.remove(ino);
        }
    }

    /// Whether the host has a decision.
    pub(crate) fn has_applied(&self, seq: Seq) -> bool {
        seq <= self.known.lock().applied
    }

    /// The host has a decision now, and files have these numbers there.
    pub(crate) fn applied(&self, seq: Seq, numbers: &[(Ino, HostFile)]) {
        let mut known = self.known.lock();
        known.applied = seq;
        for (ours, is) in numbers {
            if let Some(before) = known.hosts.insert(*ours, is.ino) {
                known.ours.remove(&before);
            }
            if is.ino == *ours {
                known.hosts.remove(ours);
            } else {
                known.ours.insert(is.ino, *ours);
            }
            known.signatures.insert(*ours, Signature::of(&is.inode));
        }
        drop(known);
        self.forget_looks();
    }
}

/// Whether the last look was too long ago; from now on it was just now.
fn is_due(seen: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let is_due = seen.is_none_or(|seen| now.duration_since(seen) >= LOOK_LASTS);
    if is_due {
        *seen = Some(now);
    }
    is_due
}

impl HostContents for Origin {
    fn read(&self, path: &[Name], ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        let path = path.to_vec();
        let read = self.bottom.read(&path, self.hosts(ino), offset, buffer);
        match read.map_err(|error| StoreError::changed(host_fault(&path, &error).message))? {
            Some(count) => Ok(count),
            None => {
                let shown = host_fault(&path, &io::Error::other("another file is there by now")).message;
                Err(StoreError::changed(shown))
            }
        }
    }
}

/// An error of the store's, as a fault.
pub(crate) fn store_fault(error: StoreError) -> Fault {
    fault::store(error)
}
