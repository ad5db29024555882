//! Blobs of which those parts that were not synced may be lost.

use crate::plan::{Call, Verdict};
use crate::{Machine, failed};
use mojavefs_server::store::engine::memory::{PAGE_BYTES, SparseBytes};
use mojavefs_server::store::engine::{BlobId, Blobs, EngineError, InPlace, Result, Uncached, is_cached_only, refuse};
use std::ops::Range;
use std::sync::Arc;

/// Blobs on a faulty disk.
pub(crate) struct FaultyBlobs(pub(crate) Arc<Machine>);

impl FaultyBlobs {
    fn missing(&self, blob: BlobId) -> EngineError {
        EngineError::Missing(self.name(blob))
    }

    /// Counts a call; an error if it is to fail.
    fn take(&self, call: Call) -> Result<()> {
        if self.0.take(call)? == Verdict::Fail { Err(failed("a content file")) } else { Ok(()) }
    }

    fn look<T>(&self, call: Call, blob: BlobId, look: impl FnOnce(&SparseBytes) -> T) -> Result<T> {
        self.take(call)?;
        self.0.disk.lock().seen(blob).map(look).ok_or_else(|| self.missing(blob))
    }

    /// Changes a blob. Where the power is cut, that has happened, and is not durable.
    fn change(&self, call: Call, blob: BlobId, range: Range<u64>, how: impl FnOnce(&mut SparseBytes)) -> Result<()> {
        let verdict = self.0.steps.take_or_fill(call, || self.0.space.fill());
        let mut disk = self.0.disk.lock();
        let before = disk.seen(blob).ok_or_else(|| self.missing(blob))?.space();
        // As much as a call that fails can have done.
        if verdict != Verdict::Fail || self.0.steps.coin() {
            if matches!(call, Call::Write | Call::Allocate) {
                let bytes = disk.seen(blob).map_or(0, |seen| seen.missing(range.start, range.end - range.start));
                self.0.space.take(bytes * PAGE_BYTES)?;
                self.0.space.give(bytes * PAGE_BYTES);
            }
            disk.change(blob, range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES), how);
        }
        let now = disk.seen(blob).map_or(0, SparseBytes::space);
        self.0.space.give(before);
        self.0.space.take(now)?;
        drop(disk);
        match verdict {
            Verdict::Go => Ok(()),
            Verdict::Fail => Err(failed("a content file")),
            Verdict::Cut => self.0.steps.power_off(),
        }
    }

    /// Makes something durable; `work` is told whether it fails, and says whether all went well.
    fn sync_with(&self, call: Call, work: impl FnOnce(&Machine, bool) -> bool) -> Result<()> {
        let fails = self.0.take(call)? == Verdict::Fail;
        if work(&self.0, fails) { Ok(()) } else { Err(failed("syncing content files")) }
    }
}

impl Blobs for FaultyBlobs {
    fn name(&self, blob: BlobId) -> String {
        format!("the content file {}", blob.0)
    }

    fn fetch(&self, what: &Uncached) -> Result<()> {
        let Uncached::Bytes { blob, .. } = what else { return Ok(()) };
        self.take(Call::Fetch)?;
        self.0.uncached.lock().remove(blob);
        Ok(())
    }

    fn create(&self, blob: BlobId) -> Result<()> {
        let verdict = self.0.steps.take_or_fill(Call::Create, || self.0.space.fill());
        if verdict == Verdict::Fail {
            return Err(failed("making a content file"));
        }
        self.0.space.take(PAGE_BYTES)?;
        self.0.space.give(PAGE_BYTES);
        let mut disk = self.0.disk.lock();
        self.0.space.give(disk.seen(blob).map_or(0, SparseBytes::space));
        disk.create(blob);
        drop(disk);
        if verdict == Verdict::Cut { self.0.steps.power_off() } else { Ok(()) }
    }

    fn len(&self, blob: BlobId) -> Result<u64> {
        self.look(Call::Len, blob, SparseBytes::len)
    }

    fn read(&self, blob: BlobId, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        if is_cached_only() && self.0.uncached.lock().contains(&blob) {
            return Err(refuse(Uncached::Bytes { blob, offset, len: buffer.len() }));
        }
        self.look(Call::Read, blob, |bytes| bytes.read(offset, buffer))
    }

    fn sync(&self, blob: BlobId) -> Result<()> {
        self.0.disk.lock().seen(blob).map(drop).ok_or_else(|| self.missing(blob))?;
        self.sync_with(Call::SyncBlob, |machine, fails| {
            machine.disk.lock().sync(blob, fails, &mut || machine.steps.coin())
        })
    }

    fn sync_names(&self) -> Result<()> {
        self.sync_with(Call::SyncNames, |machine, fails| {
            machine.disk.lock().sync_names(fails, &mut || machine.steps.coin())
        })
    }

    fn sync_all(&self) -> Result<()> {
        self.sync_with(Call::SyncAll, |machine, fails| {
            machine.disk.lock().sync_all(fails, &mut || machine.steps.coin())
        })
    }

    fn remove(&self, blob: BlobId) -> Result<()> {
        let verdict = self.0.steps.take_or_fill(Call::Remove, || self.0.space.fill());
        if verdict == Verdict::Fail {
            return Err(failed("removing a content file"));
        }
        let mut disk = self.0.disk.lock();
        self.0.space.give(disk.seen(blob).map_or(0, SparseBytes::space));
        disk.remove(blob);
        drop(disk);
        if verdict == Verdict::Cut { self.0.steps.power_off() } else { Ok(()) }
    }

    fn list(&self) -> Result<Vec<BlobId>> {
        self.take(Call::List)?;
        Ok(self.0.disk.lock().blobs())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }
}

impl InPlace for FaultyBlobs {
    fn extend(&self, blob: BlobId, len: u64) -> Result<()> {
        self.change(Call::Extend, blob, 0..0, |bytes| bytes.resize(bytes.len().max(len)))
    }

    fn write(&self, blob: BlobId, offset: u64, data: &[u8]) -> Result<()> {
        self.change(Call::Write, blob, offset..offset + data.len() as u64, |bytes| bytes.write(offset, data))
    }

    fn allocate(&self, blob: BlobId, offset: u64, len: u64) -> Result<()> {
        self.change(Call::Allocate, blob, offset..offset + len, |bytes| bytes.allocate(offset, len))
    }

    fn start_write_out(&self, blob: BlobId) -> Result<()> {
        self.look(Call::StartWriteOut, blob, |_| ())
    }

    fn punch(&self, blob: BlobId, offset: u64, len: u64) -> Result<()> {
        self.change(Call::Punch, blob, offset..offset + len, |bytes| bytes.punch(offset, len))
    }
}
