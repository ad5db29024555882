//! What the kernel of trunk's mount keeps of what it is told: bytes always, everything else as long as it may, until it is told to forget
//! it.

use crate::WORLD;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, Invalidation, Notice, NoticeSink, Reads, Request};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};

/// How many bytes are read of a file.
const SIZE: u32 = 100;

#[derive(Default)]
pub(crate) struct Kernel(Mutex<Cache>);

/// How often there was what is to be tried.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// What was looked for had been kept.
    pub(crate) kept: u64,
    /// What was told was not to be kept.
    pub(crate) provisional: u64,
    /// Something that was kept had to be forgotten before it changed.
    pub(crate) forgotten: u64,
}

#[derive(Default)]
struct Cache {
    view: Option<ViewId>,
    counts: Counts,
    /// What it was ever given.
    known: HashSet<Ino>,
    bytes: HashMap<Ino, Vec<u8>>,
    sizes: HashMap<Ino, u64>,
    /// Below the root; nothing for one that is not there.
    names: HashMap<Vec<u8>, Option<Ino>>,
}

impl NoticeSink for Kernel {
    fn deliver(&self, notice: Notice) {
        let is_about_to_change = matches!(notice, Notice::Forget { .. });
        let (Notice::Forget { view, what, all_names } | Notice::Invalidate { view, what, all_names }) = notice else {
            return;
        };
        // Until it is told others go on. Where several kernels are told side by side, that is done by threads which have no world.
        if let Some(world) = WORLD.with_borrow(Clone::clone).filter(|_| is_about_to_change) {
            world.waits();
        }
        let mut cache = self.0.lock();
        if cache.view != Some(view) {
            return;
        }
        for what in what {
            let had = match what {
                Invalidation::Inode(ino) => cache.bytes.remove(&ino).is_some() | cache.sizes.remove(&ino).is_some(),
                Invalidation::Attributes(ino) => cache.sizes.remove(&ino).is_some(),
                Invalidation::Entry { name, .. } => cache.names.remove(&name).is_some(),
            };
            cache.counts.forgotten += u64::from(had && is_about_to_change);
        }
        if all_names {
            cache.names.clear();
        }
    }
}

impl Kernel {
    /// A new mount, which knows nothing.
    pub(crate) fn is_of(&self, view: ViewId) {
        let mut cache = self.0.lock();
        *cache = Cache { view: Some(view), counts: cache.counts, ..Cache::default() };
    }

    /// How often there was what is to be tried.
    pub(crate) fn counts(&self) -> Counts {
        self.0.lock().counts
    }

    fn view(&self) -> ViewId {
        self.0.lock().view.expect("it is mounted")
    }

    /// What a program reads of a file, which may be what the kernel has kept.
    pub(crate) fn read(&self, ask: &dyn Connection, ino: Ino) -> Result<Vec<u8>, Fault> {
        let kept = self.0.lock().bytes.get(&ino).cloned();
        if let Some(kept) = kept {
            self.0.lock().counts.kept += 1;
            return Ok(kept);
        }
        let bytes = read(ask, self.view(), ino, Reads::Kept)?;
        self.0.lock().bytes.insert(ino, bytes.clone());
        Ok(bytes)
    }

    /// How long it takes a file to be.
    pub(crate) fn size(&self, ask: &dyn Connection, ino: Ino) -> Result<u64, Fault> {
        if let Some(kept) = self.0.lock().sizes.get(&ino) {
            return Ok(*kept);
        }
        let (attr, lasts) = ask.given(Request::GetAttr { view: self.view(), ino })?;
        let mut cache = self.0.lock();
        if lasts {
            cache.sizes.insert(ino, attr.size);
        } else {
            cache.counts.provisional += 1;
        }
        Ok(attr.size)
    }

    /// What a name leads to.
    pub(crate) fn look_up(&self, ask: &dyn Connection, name: &[u8]) -> Result<Option<Ino>, Fault> {
        if let Some(kept) = self.0.lock().names.get(name) {
            return Ok(*kept);
        }
        let (found, lasts) = look_up(ask, self.view(), name)?;
        let mut cache = self.0.lock();
        cache.known.extend(found);
        if lasts {
            cache.names.insert(name.to_vec(), found);
        } else {
            cache.counts.provisional += 1;
        }
        Ok(found)
    }

    /// A program has written all of a file: the kernel has what it has written, if it knows the file.
    pub(crate) fn is_written(&self, ino: Ino, bytes: &[u8]) {
        let mut cache = self.0.lock();
        cache.sizes.remove(&ino);
        if cache.known.contains(&ino) {
            cache.bytes.insert(ino, bytes.to_vec());
        }
    }
}

/// The bytes of a file as the server says.
pub(crate) fn read(ask: &dyn Connection, view: ViewId, ino: Ino, reads: Reads) -> Result<Vec<u8>, Fault> {
    ask.data(Request::Read { view, ino, offset: 0, size: SIZE, reads })
}

/// What a name below the root leads to, as the server says, and whether a kernel may keep that.
pub(crate) fn look_up(ask: &dyn Connection, view: ViewId, name: &[u8]) -> Result<(Option<Ino>, bool), Fault> {
    match ask.given(Request::Lookup { view, parent: Ino::ROOT, name }) {
        Ok((attr, lasts)) => Ok((Some(attr.ino), lasts)),
        Err(fault) if fault.kind == FaultKind::NotFound => Ok((None, true)),
        Err(fault) if fault.kind == FaultKind::NotFoundNow => Ok((None, false)),
        Err(fault) => Err(fault),
    }
}
