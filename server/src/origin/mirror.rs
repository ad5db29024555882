//! What is known of the host from earlier looks.

use super::{Bottom, HostFile, HostName, HostPath, HostRead, Known, LOOK_LASTS, Origin, Signature, Waiting, below};
use crate::ops::fault;
use crate::store::{HostBytes, HostContents, Key, Sight, Store, StoreError};
use mojavefs::id::{ContentId, Ino, Seq};
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Name;
use parking_lot::Mutex;
use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// So many looks are remembered; one more, and everything counts as looked at before.
const LOOKS_MAX: usize = 1_000_000;

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
    /// The host that `bottom` shows, below a store.
    pub(crate) fn over(bottom: Arc<dyn Bottom>, store: &Arc<Store>) -> io::Result<Origin> {
        let mut known = Known::default();
        for made in bottom.made() {
            known.rename(made.ours, made.host);
            known.born.insert(made.host, made.born);
        }
        let root =
            bottom.find(&HostPath::new())?.ok_or_else(|| io::Error::other("the root directory has no number"))?;
        known.rename(Ino::ROOT, root.ino);
        known.born.insert(root.ino, root.inode.born);
        let (known, store) = (Mutex::new(known), Arc::downgrade(store));
        Ok(Origin { bottom, store, known, comparing: Mutex::default(), waiting: Waiting::default() })
    }

    /// The host has these decisions, as is on record.
    pub(crate) fn has_all(&self, applied: HashSet<Seq>) {
        self.known.lock().applied = applied;
    }

    /// Whether it is a file that the host has, under whatever number.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        ino.is_host() || self.known.lock().hosts.contains_key(&ino)
    }

    /// Our number of a file of the host's. Where the host has given a number again, that is another one with us.
    pub(crate) fn number_of(&self, found: &HostFile) -> Result<Ino, StoreError> {
        let (host, born) = (found.ino, found.inode.born);
        let store = self.store.upgrade().ok_or_else(|| StoreError::changed("the store is closed".into()))?;
        let mut known = self.known.lock();
        let ours = known.ours.get(&host).copied().unwrap_or(host);
        let was = match known.born.get(&host) {
            Some(born) => Some(*born),
            None => store.inode(&Sight::trunk(), ours)?.found.map(|inode| inode.born),
        };
        known.born.insert(host, born);
        if was.is_none_or(|was| was == born) {
            return Ok(ours);
        }
        let other = store.next_ino()?;
        known.rename(other, host);
        Ok(other)
    }

    fn hosts(&self, ours: Ino) -> Ino {
        self.known.lock().hosts.get(&ours).copied().unwrap_or(ours)
    }

    /// What a path leads to, by our numbers.
    pub(crate) fn find(&self, path: &HostPath) -> Result<Option<HostFile>, Fault> {
        let found = self.bottom.find(path).map_err(|error| host_fault(path, &error))?;
        let Some(mut found) = found else { return Ok(None) };
        found.ino = self.number_of(&found).map_err(fault::store)?;
        found.inode.content = found.inode.content.map(|_| ContentId::of_host(found.ino));
        Ok(Some(found))
    }

    /// Bytes of what a path leads to, if it is this file.
    pub(crate) fn read_at(&self, path: &HostPath, ino: Ino, bytes: HostBytes<'_>) -> Result<HostRead, StoreError> {
        let read = self.bottom.read(path, self.hosts(ino), bytes);
        read.map_err(|error| StoreError::changed(host_fault(path, &error).message))
    }

    /// The names of a directory, by our numbers.
    pub(crate) fn list(&self, path: &HostPath, dir: Ino) -> Result<Option<Vec<HostName>>, Fault> {
        let names = self.bottom.list(path, self.hosts(dir)).map_err(|error| host_fault(path, &error))?;
        let Some(mut names) = names else { return Ok(None) };
        for named in &mut names {
            // A number that was met before may be another file's by now.
            if self.has_met(named.ino)? {
                let whole = below(path, &named.name);
                if let Some(found) = self.find(&whole)? {
                    (named.ino, named.kind) = (found.ino, found.inode.kind);
                }
            }
        }
        Ok(Some(names))
    }

    fn has_met(&self, host: Ino) -> Result<bool, Fault> {
        let known = self.known.lock();
        if known.ours.contains_key(&host) || known.born.contains_key(&host) {
            return Ok(true);
        }
        let Some(store) = self.store.upgrade() else { return Ok(false) };
        Ok(!store.stored(&Key::Inode(host)).map_err(fault::store)?.is_empty())
    }

    /// Whether something has to be looked at: a name, or a file itself. From now on it counts as seen.
    pub(crate) fn has_to_look(&self, ino: Ino, name: Option<&[u8]>) -> bool {
        let mut known = self.known.lock();
        if known.seen.len() >= LOOKS_MAX {
            known.seen.clear();
            (known.has_begun, known.has_forgotten) = (false, true);
        }
        let from = known.looks_count_from;
        is_due(known.seen.entry((ino, name.map(<[u8]>::to_vec))).or_default(), from)
    }

    /// The same of the names of a directory.
    pub(crate) fn has_to_list(&self, dir: Ino) -> bool {
        let mut known = self.known.lock();
        let from = known.looks_count_from;
        is_due(known.listed.entry(dir).or_default(), from)
    }

    /// A file was looked at with one of its names.
    pub(crate) fn has_looked(&self, ino: Ino) {
        let mut known = self.known.lock();
        known.seen.insert((ino, None), Some(Instant::now()));
    }

    /// It could not be looked at after all: it is, next time.
    pub(crate) fn could_not_look(&self, ino: Ino, name: Option<&[u8]>) {
        self.known.lock().seen.insert((ino, name.map(<[u8]>::to_vec)), None);
    }

    /// The same of the names of a directory.
    pub(crate) fn could_not_list(&self, dir: Ino) {
        self.known.lock().listed.insert(dir, None);
    }

    /// Whether somebody may know whether a name is there: then it is a change if that has come.
    pub(crate) fn is_known(&self, dir: Ino, name: &[u8]) -> bool {
        self.known.lock().has_forgotten || self.is_listed(dir) || self.is_seen(dir, name)
    }

    /// Whether all names of a directory were ever looked at.
    pub(crate) fn is_listed(&self, dir: Ino) -> bool {
        self.known.lock().listed.contains_key(&dir)
    }

    /// Whether this is asked for the first time.
    pub(crate) fn begins(&self) -> bool {
        !std::mem::replace(&mut self.known.lock().has_begun, true)
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
        self.known.lock().looks_count_from = Some(Instant::now());
    }

    /// What a file was on the host when it was looked at last, if its record does not say that.
    pub(crate) fn signature(&self, ino: Ino) -> Result<Option<Signature>, StoreError> {
        let Some(store) = self.store.upgrade() else { return Ok(None) };
        let stored = store.signature(ino)?.map(|stored| codec::decode(&stored));
        stored.transpose().map_err(|why| StoreError::corrupt(format!("what file {ino} is on the host: {why}")))
    }

    /// The host has changed files: what they are is on record.
    pub(crate) fn has_changed(&self, files: &[Ino]) -> Result<(), StoreError> {
        match self.store.upgrade().filter(|_| !files.is_empty()) {
            Some(store) => store.forget_signatures(files),
            None => Ok(()),
        }
    }

    /// Whether the host has a decision.
    pub(crate) fn has_applied(&self, seq: Seq) -> bool {
        self.known.lock().applied.contains(&seq)
    }

    /// Forgets of these decisions that the host has them: they are merged. Returns those of which it was known.
    pub(crate) fn forget_but(&self, unmerged: &HashSet<Seq>) -> Vec<Seq> {
        self.known.lock().applied.extract_if(|seq| !unmerged.contains(seq)).collect()
    }

    /// The host has a decision now, and files have these numbers there.
    pub(crate) fn applied(&self, seq: Seq, numbers: &[(Ino, HostFile)]) {
        let mut known = self.known.lock();
        known.applied.insert(seq);
        for (ours, is) in numbers {
            known.rename(*ours, is.ino);
            known.born.insert(is.ino, is.inode.born);
        }
        drop(known);
        self.forget_looks();
        self.waiting.is_applied(seq);
    }
}

impl Known {
    /// The host's number of a file of ours is this from now on.
    fn rename(&mut self, ours: Ino, host: Ino) {
        if let Some(before) = self.hosts.insert(ours, host).filter(|before| *before != host) {
            self.ours.remove(&before);
        }
        self.ours.insert(host, ours);
    }
}

/// Whether the last look was too long ago, or before looks count; from now on it was just now.
fn is_due(seen: &mut Option<Instant>, from: Option<Instant>) -> bool {
    let now = Instant::now();
    let is_due =
        seen.is_none_or(|seen| now.duration_since(seen) >= LOOK_LASTS || from.is_some_and(|from| seen <= from));
    if is_due {
        *seen = Some(now);
    }
    is_due
}

impl HostContents for Origin {
    fn read(&self, ino: Ino, bytes: HostBytes<'_>) -> Result<Option<usize>, StoreError> {
        let Some(store) = self.store.upgrade() else { return Ok(None) };
        let HostBytes { offset, buffer, is_cached_only } = bytes;
        let mut asked = None;
        for sight in self.sights(&store) {
            let Some(path) = store.host_path(&sight, ino)? else { continue };
            match self.read_at(&path, ino, HostBytes { offset, buffer: &mut *buffer, is_cached_only })? {
                HostRead::Done(count) => return Ok(Some(count)),
                HostRead::Uncached => return Ok(None),
                HostRead::Gone => asked = Some(path),
            }
        }
        if is_cached_only {
            return Ok(None);
        }
        Err(StoreError::changed(match asked {
            Some(path) => host_fault(&path, &io::Error::other("another file is there by now")).message,
            None => {
                let file = ino.shown();
                format!(
                    "file {file} has been removed on the host, and no job had changed its bytes: they are not kept here"
                )
            }
        }))
    }

    fn await_applied(&self) {
        self.waiting.wait();
    }
}

/// An error of the store's, as a fault.
pub(crate) fn store_fault(error: StoreError) -> Fault {
    fault::store(error)
}
