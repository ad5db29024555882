//! What lies on the disk, and what would if there were no power cut.

use crate::random::Random;
use mojavefs_server::store::engine::memory::{MemoryRecords, MemorySpace, SparseBytes};
use mojavefs_server::store::engine::{BlobId, Records, WriteBatch};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The number of a file, whatever its name.
type FileNumber = usize;

/// A disk, and what the machine has not written to it yet.
pub(crate) struct Disk {
    /// There is a store, for who looks now; and for who looks after a crash.
    is_made: bool,
    is_settled: bool,
    pub(crate) log: Log,
    files: Vec<File>,
    /// The names that there are now.
    names: BTreeMap<BlobId, FileNumber>,
    durable_names: BTreeMap<BlobId, FileNumber>,
    /// Names that were made or removed since they were synced.
    dirty_names: BTreeSet<BlobId>,
    /// Syncing everything failed, which those who sync names are told.
    names_failed: bool,
}

/// The records: those that are durable, and what was applied afterwards.
pub(crate) struct Log {
    pub(crate) durable: MemoryRecords,
    /// Applied and not synced, in order.
    pub(crate) pending: Vec<WriteBatch>,
    /// It failed: it may be found behind the others, or not.
    pub(crate) doubtful: Option<WriteBatch>,
    /// A sync failed: of what was applied and is not durable, some may not be found.
    pub(crate) has_failed: bool,
    /// The space that log and tables take, in bytes.
    pub(crate) bytes: u64,
}

/// A file: as it is read, and as it lies on the disk.
#[derive(Default)]
struct File {
    seen: SparseBytes,
    durable: SparseBytes,
    /// Pages that were written and not synced.
    dirty: BTreeSet<u64>,
    len_is_dirty: bool,
    /// Syncing everything failed, which who syncs this file is told, once.
    failed: bool,
}

/// Nobody counts what is durable: it takes what there is.
fn unbounded() -> MemoryRecords {
    MemoryRecords::new(Arc::new(MemorySpace::of(u64::MAX)))
}

impl Default for Disk {
    fn default() -> Self {
        Disk {
            is_made: false,
            is_settled: false,
            log: Log { durable: unbounded(), pending: Vec::new(), doubtful: None, has_failed: false, bytes: 0 },
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dirty_names: BTreeSet::new(),
            names_failed: false,
        }
    }
}

impl Log {
    /// Those that are found when they are opened: all that were applied, but for the last if a sync failed, and perhaps the
    /// one that failed. They are durable from then on. Returns them as they are read.
    pub(crate) fn open(&mut self, mut coin: impl FnMut() -> bool) -> MemoryRecords {
        let loses = std::mem::take(&mut self.has_failed) && coin();
        while loses && !self.pending.is_empty() && coin() {
            self.pending.pop();
            self.doubtful = None;
        }
        self.pending.extend(self.doubtful.take().filter(|_| coin()));
        self.sync();
        self.bytes = self.durable.bytes();
        self.look()
    }

    /// Those that were applied, as they are read by who changes nothing.
    pub(crate) fn look(&self) -> MemoryRecords {
        let seen = self.durable.copy(Arc::new(MemorySpace::of(u64::MAX))).expect("what is read has no bound");
        for batch in &self.pending {
            seen.apply(batch, false).expect("what is read has no bound");
        }
        seen
    }

    /// All that were applied are durable.
    pub(crate) fn sync(&mut self) {
        for batch in self.pending.drain(..) {
            self.durable.apply(&batch, true).expect("what is durable has no bound");
        }
    }

    fn after_power_cut(&mut self, random: &mut Random) {
        self.pending.extend(self.doubtful.take());
        self.has_failed = false;
        let kept = random.below(self.pending.len() as u64 + 1) as usize;
        self.pending.truncate(kept);
        self.sync();
        self.bytes = self.durable.bytes();
    }
}

impl File {
    fn write_out(&mut self, is_written: &mut dyn FnMut() -> bool) {
        let len = if self.len_is_dirty && is_written() { self.seen.len() } else { self.durable.len() };
        for page in std::mem::take(&mut self.dirty) {
            if is_written() {
                self.durable.take_page(page, &self.seen);
            }
        }
        self.durable.resize(len);
        self.len_is_dirty = false;
    }
}

impl Disk {
    pub(crate) fn is_made(&self) -> bool {
        self.is_made
    }

    /// There are records now.
    pub(crate) fn make(&mut self) {
        self.is_made = true;
    }

    /// That there is a store is durable.
    pub(crate) fn settle(&mut self) {
        self.is_settled = true;
    }

    /// The space that all of it takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.log.bytes + self.names.values().map(|file| self.files[*file].seen.space()).sum::<u64>()
    }

    pub(crate) fn seen(&self, blob: BlobId) -> Option<&SparseBytes> {
        self.names.get(&blob).map(|file| &self.files[*file].seen)
    }

    pub(crate) fn blobs(&self) -> Vec<BlobId> {
        self.names.keys().copied().collect()
    }

    pub(crate) fn create(&mut self, blob: BlobId) {
        if self.names.contains_key(&blob) {
            // As an open that cuts off.
            return self.change(blob, 0..u64::MAX, |seen| seen.resize(0));
        }
        self.files.push(File::default());
        self.names.insert(blob, self.files.len() - 1);
        self.dirty_names.insert(blob);
    }

    pub(crate) fn remove(&mut self, blob: BlobId) {
        if self.names.remove(&blob).is_some() {
            self.dirty_names.insert(blob);
        }
    }

    /// Changes the pages of a file, and its length.
    pub(crate) fn change(&mut self, blob: BlobId, pages: std::ops::Range<u64>, how: impl FnOnce(&mut SparseBytes)) {
        let Some(file) = self.names.get(&blob).map(|file| &mut self.files[*file]) else { return };
        let (len, before): (u64, Vec<u64>) = (file.seen.len(), file.seen.pages().collect());
        how(&mut file.seen);
        file.len_is_dirty |= file.seen.len() != len;
        let there = before.into_iter().chain(file.seen.pages());
        file.dirty.extend(there.filter(|page| pages.contains(page)));
    }

    /// Syncs a file. One that `fails` loses some of what it had to write, and nobody is told of that any more.
    pub(crate) fn sync(&mut self, blob: BlobId, fails: bool, coin: &mut dyn FnMut() -> bool) -> bool {
        let Some(file) = self.names.get(&blob).map(|file| &mut self.files[*file]) else { return false };
        let fails = fails | std::mem::take(&mut file.failed);
        file.write_out(&mut || !fails || coin());
        !fails
    }

    /// The same for names.
    pub(crate) fn sync_names(&mut self, fails: bool, coin: &mut dyn FnMut() -> bool) -> bool {
        let fails = fails | std::mem::take(&mut self.names_failed);
        for blob in std::mem::take(&mut self.dirty_names) {
            if !fails || coin() {
                self.write_name(blob);
            }
        }
        !fails
    }

    fn write_name(&mut self, blob: BlobId) {
        match self.names.get(&blob) {
            Some(file) => drop(self.durable_names.insert(blob, *file)),
            None => drop(self.durable_names.remove(&blob)),
        }
    }

    /// The same for all files and names. Each of those concerned says so once more.
    pub(crate) fn sync_all(&mut self, fails: bool, coin: &mut dyn FnMut() -> bool) -> bool {
        self.names_failed |= fails && !self.dirty_names.is_empty();
        for blob in std::mem::take(&mut self.dirty_names) {
            if !fails || coin() {
                self.write_name(blob);
            }
        }
        let mut all_written = !self.names_failed;
        for file in &mut self.files {
            file.failed |= fails && (file.len_is_dirty || !file.dirty.is_empty());
            file.write_out(&mut || !fails || coin());
            all_written &= !file.failed;
        }
        all_written && !fails
    }

    /// What is found when the process was killed: all that it has done.
    pub(crate) fn after_kill(mut self) -> Disk {
        self.log.sync();
        for blob in std::mem::take(&mut self.dirty_names) {
            self.write_name(blob);
        }
        self.files.iter_mut().for_each(|file| file.write_out(&mut || true));
        self
    }

    /// What is found when the machine is on again.
    pub(crate) fn after_power_cut(mut self, random: &mut Random) -> Disk {
        if !self.is_settled && random.coin() {
            return Disk::default();
        }
        self.log.after_power_cut(random);
        for blob in std::mem::take(&mut self.dirty_names) {
            if random.coin() {
                self.write_name(blob);
            }
        }
        for file in &mut self.files {
            file.write_out(&mut || random.coin());
            (file.seen, file.failed) = (file.durable.clone(), false);
        }
        let mut found = Disk { is_made: self.is_made, is_settled: self.is_settled, log: self.log, ..Disk::default() };
        for (blob, file) in self.durable_names {
            found.names.insert(blob, found.files.len());
            found.files.push(std::mem::take(&mut self.files[file]));
        }
        found.durable_names = found.names.clone();
        found
    }
}
