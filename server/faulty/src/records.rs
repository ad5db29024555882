//! Records of which those that were not synced may be lost.

use crate::plan::{Call, Verdict};
use crate::{Machine, failed};
use mojavefs_server::store::engine::memory::MemoryRecords;
use mojavefs_server::store::engine::{
    Access, Cursor, EngineError, Family, Item, Records, Result, Uncached, WriteBatch,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a batch takes in the log beside its bytes.
const BATCH_BYTES: u64 = 32;
/// What must be free for the records to be opened.
const OPEN_BYTES: u64 = 64 << 10;

/// Records that are open.
pub(crate) struct FaultyRecords {
    machine: Arc<Machine>,
    /// What is read.
    seen: MemoryRecords,
    /// Something failed: all changes are refused.
    is_broken: AtomicBool,
}

impl FaultyRecords {
    pub(crate) fn open(machine: Arc<Machine>, access: Access) -> Result<Self> {
        let verdict = machine.steps.take_or_fill(Call::OpenRecords, || machine.space.fill());
        if verdict == Verdict::Fail {
            return Err(EngineError::Failed("the records can't be opened, as planned".into()));
        }
        if verdict == Verdict::Cut {
            return machine.steps.power_off();
        }
        if access == Access::Look {
            let seen = machine.disk.lock().log.look();
            return Ok(FaultyRecords { machine, seen, is_broken: AtomicBool::new(true) });
        }
        machine.space.take(OPEN_BYTES)?;
        machine.space.give(OPEN_BYTES);
        let mut disk = machine.disk.lock();
        disk.make();
        let before = disk.log.bytes;
        let seen = disk.log.open(|| machine.steps.coin());
        machine.account(before, disk.log.bytes);
        drop(disk);
        Ok(FaultyRecords { machine, seen, is_broken: AtomicBool::new(false) })
    }

    /// Counts a call that reads.
    fn look(&self, call: Call) -> Result<()> {
        if self.machine.take(call)? == Verdict::Fail { Err(failed("reading records")) } else { Ok(()) }
    }

    fn break_with(&self, error: EngineError) -> Result<()> {
        self.is_broken.store(true, Ordering::SeqCst);
        Err(error)
    }

    fn require_whole(&self) -> Result<()> {
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(EngineError::Refused("something failed before".into()));
        }
        Ok(())
    }

    fn make_durable(&self, call: Call) -> Result<()> {
        let verdict = self.machine.take(call)?;
        self.require_whole()?;
        if verdict == Verdict::Fail {
            self.machine.disk.lock().log.has_failed = true;
            return self.break_with(EngineError::Failed("the log could not be synced, as planned".into()));
        }
        self.machine.disk.lock().log.sync();
        Ok(())
    }
}

impl Records for FaultyRecords {
    fn fetch(&self, _what: &Uncached) -> Result<()> {
        // All of it always is in memory, and nothing is refused.
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.look(Call::Get)?;
        self.seen.get(family, key)
    }

    fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        self.look(Call::Contains)?;
        self.seen.contains(family, key)
    }

    fn newest(&self, family: Family, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        self.look(Call::Newest)?;
        self.seen.newest(family, prefix, visit)
    }

    fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Box<dyn Cursor + 'a> {
        let refused = self.look(Call::Scan).err();
        Box::new(Walk { refused: refused.map(|error| error.to_string()), at: self.seen.scan(family, prefix, from) })
    }

    fn apply(&self, batch: &WriteBatch, synced: bool) -> Result<()> {
        let machine = &self.machine;
        let verdict = machine.steps.take_or_fill(Call::Apply { synced }, || machine.space.fill());
        if verdict != Verdict::Cut {
            self.require_whole()?;
        }
        let bytes = batch.bytes() as u64 + BATCH_BYTES;
        if verdict == Verdict::Go
            && let Err(error) = machine.space.take(bytes)
        {
            return self.break_with(error);
        }
        let mut disk = machine.disk.lock();
        if verdict != Verdict::Go {
            if !self.is_broken.load(Ordering::SeqCst) {
                disk.log.doubtful = Some(batch.clone());
                disk.log.has_failed = synced;
            }
            drop(disk);
            if verdict == Verdict::Cut {
                return machine.steps.power_off();
            }
            return self.break_with(EngineError::Failed("the log could not be written, as planned".into()));
        }
        disk.log.bytes += bytes;
        self.seen.apply(batch, synced)?;
        disk.log.pending.push(batch.clone());
        if synced {
            disk.log.sync();
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.make_durable(Call::SyncRecords)
    }

    fn flush(&self) -> Result<()> {
        self.make_durable(Call::Flush)
    }

    fn reached(&self) -> u64 {
        self.seen.reached()
    }
}

struct Walk<'a> {
    refused: Option<String>,
    at: Box<dyn Cursor + 'a>,
}

impl Cursor for Walk<'_> {
    fn item(&self) -> Result<Option<Item<'_>>> {
        match &self.refused {
            Some(why) => Err(EngineError::Failed(why.clone())),
            None => self.at.item(),
        }
    }

    fn next(&mut self) {
        self.at.next();
    }

    fn seek(&mut self, key: &[u8]) {
        self.at.seek(key);
    }
}
