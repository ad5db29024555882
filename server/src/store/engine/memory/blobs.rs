//! Blobs in memory: pages where something was written, and nothing where not.

use super::MemorySpace;
use crate::store::engine::{BlobId, Blobs, EngineError, InPlace, Result, Uncached};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// How many bytes a page has.
pub const PAGE_BYTES: u64 = 4096;
const PAGE: usize = PAGE_BYTES as usize;

type Page = [u8; PAGE];

/// Bytes with holes, which read as zeros. A clone shares the pages that are not written to afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SparseBytes {
    len: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// The parts of a range by page: which page, and which of its bytes.
fn by_page(range: Range<u64>) -> impl Iterator<Item = (u64, Range<usize>)> {
    let pages = if range.is_empty() { 0..0 } else { range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES) };
    pages.map(move |number| {
        let start = number * PAGE_BYTES;
        let (from, to) = (range.start.max(start) - start, range.end.min(start + PAGE_BYTES) - start);
        (number, from as usize..to as usize)
    })
}

impl SparseBytes {
    /// How long they are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pages that are there.
    pub fn pages(&self) -> impl Iterator<Item = u64> {
        self.pages.keys().copied()
    }

    /// How much space they take, in bytes.
    pub fn space(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// Fills `buffer` from `offset` on, as far as they reach. Returns how many bytes those are.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut done = 0;
        for (number, part) in by_page(offset..offset + count as u64) {
            let target = &mut buffer[done..done + part.len()];
            done += part.len();
            match self.pages.get(&number) {
                Some(page) => target.copy_from_slice(&page[part]),
                None => target.fill(0),
            }
        }
        count
    }

    /// How many pages would be new where `len` bytes would be written.
    pub fn missing(&self, offset: u64, len: u64) -> u64 {
        by_page(offset..offset + len).filter(|(number, _)| !self.pages.contains_key(number)).count() as u64
    }

    /// Writes all of `data` at `offset`.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        for (number, part) in by_page(offset..offset + data.len() as u64) {
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            let len = part.len();
            Arc::make_mut(page)[part].copy_from_slice(&data[done..done + len]);
            done += len;
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Makes pages of what is missing in a range.
    pub fn allocate(&mut self, offset: u64, len: u64) {
        for (number, _) in by_page(offset..offset + len) {
            self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
        }
    }

    /// Makes them so long; what is cut off is gone.
    pub fn resize(&mut self, len: u64) {
        if len < self.len {
            self.punch(len, self.len - len);
        }
        self.len = len;
    }

    /// Makes a range read as zeros.
    pub fn punch(&mut self, offset: u64, len: u64) {
        for (number, part) in by_page(offset..offset + len) {
            if part.len() == PAGE {
                self.pages.remove(&number);
            } else if let Some(page) = self.pages.get_mut(&number) {
                Arc::make_mut(page)[part].fill(0);
            }
        }
    }

    /// Makes one page what it is in `other`.
    pub fn take_page(&mut self, number: u64, other: &SparseBytes) {
        match other.pages.get(&number) {
            Some(page) => drop(self.pages.insert(number, page.clone())),
            None => drop(self.pages.remove(&number)),
        }
    }
}

/// Blobs in memory.
pub struct MemoryBlobs {
    blobs: RwLock<BTreeMap<BlobId, SparseBytes>>,
    space: Arc<MemorySpace>,
}

impl MemoryBlobs {
    /// None yet.
    pub fn new(space: Arc<MemorySpace>) -> Self {
        MemoryBlobs { blobs: RwLock::default(), space }
    }

    /// Removes all, and gives their space back.
    pub fn clear(&self) {
        let blobs = std::mem::take(&mut *self.blobs.write());
        self.space.give(blobs.values().map(SparseBytes::space).sum());
    }

    /// The bytes of one as they are now.
    ///
    /// # Errors
    /// [`EngineError::Missing`] if there is none.
    pub fn bytes(&self, blob: BlobId) -> Result<SparseBytes> {
        self.blobs.read().get(&blob).cloned().ok_or_else(|| self.missing(blob))
    }

    fn missing(&self, blob: BlobId) -> EngineError {
        EngineError::Missing(self.name(blob))
    }

    fn with<T>(&self, blob: BlobId, change: impl FnOnce(&mut SparseBytes) -> Result<T>) -> Result<T> {
        let mut blobs = self.blobs.write();
        change(blobs.get_mut(&blob).ok_or_else(|| self.missing(blob))?)
    }
}

impl Blobs for MemoryBlobs {
    fn fetch(&self, _what: &Uncached) -> Result<()> {
        // All of it always is in memory, and nothing is refused.
        Ok(())
    }

    fn name(&self, blob: BlobId) -> String {
        format!("the content file {}", blob.0)
    }

    fn create(&self, blob: BlobId) -> Result<()> {
        let before = self.blobs.write().insert(blob, SparseBytes::default());
        self.space.give(before.map_or(0, |before| before.space()));
        Ok(())
    }

    fn len(&self, blob: BlobId) -> Result<u64> {
        self.blobs.read().get(&blob).map(SparseBytes::len).ok_or_else(|| self.missing(blob))
    }

    fn read(&self, blob: BlobId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let blobs = self.blobs.read();
        Ok(blobs.get(&blob).ok_or_else(|| self.missing(blob))?.read(offset, buffer))
    }

    fn sync(&self, blob: BlobId) -> Result<()> {
        self.len(blob).map(drop)
    }

    fn sync_names(&self) -> Result<()> {
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        Ok(())
    }

    fn remove(&self, blob: BlobId) -> Result<()> {
        let before = self.blobs.write().remove(&blob);
        self.space.give(before.map_or(0, |before| before.space()));
        Ok(())
    }

    fn list(&self) -> Result<Vec<BlobId>> {
        Ok(self.blobs.read().keys().copied().collect())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }
}

impl InPlace for MemoryBlobs {
    fn extend(&self, blob: BlobId, len: u64) -> Result<()> {
        self.with(blob, |bytes| {
            bytes.resize(bytes.len().max(len));
            Ok(())
        })
    }

    fn write(&self, blob: BlobId, offset: u64, data: &[u8]) -> Result<()> {
        self.with(blob, |bytes| {
            self.space.take(bytes.missing(offset, data.len() as u64) * PAGE_BYTES)?;
            bytes.write(offset, data);
            Ok(())
        })
    }

    fn allocate(&self, blob: BlobId, offset: u64, len: u64) -> Result<()> {
        self.with(blob, |bytes| {
            self.space.take(bytes.missing(offset, len) * PAGE_BYTES)?;
            bytes.allocate(offset, len);
            Ok(())
        })
    }

    fn start_write_out(&self, blob: BlobId) -> Result<()> {
        self.sync(blob)
    }

    fn punch(&self, blob: BlobId, offset: u64, len: u64) -> Result<()> {
        self.with(blob, |bytes| {
            let before = bytes.space();
            let end = (offset + len).min(bytes.len());
            bytes.punch(offset, end.saturating_sub(offset));
            self.space.give(before - bytes.space());
            Ok(())
        })
    }
}
