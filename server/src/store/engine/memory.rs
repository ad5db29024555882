//! A store in memory: ordered maps of records, sparse blobs, and a bound on the space of both. It lasts as long as somebody has
//! its engine.

mod blobs;
mod records;
mod space;

pub use blobs::{MemoryBlobs, PAGE_BYTES, SparseBytes};
pub use records::MemoryRecords;
pub use space::MemorySpace;

use super::{Access, Blobs, Engine, EngineError, Records, Result, Space, Taken};
use parking_lot::Mutex;
use std::sync::Arc;

/// A place in memory in which a store lies, or may be made. Clones are the same place.
#[derive(Clone)]
pub struct Memory(Arc<Inside>);

struct Inside {
    space: Arc<MemorySpace>,
    records: Arc<MemoryRecords>,
    blobs: Arc<MemoryBlobs>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_taken: bool,
    is_made: bool,
}

impl Memory {
    /// A place that is empty, and takes so much.
    pub fn of(capacity_bytes: u64) -> Self {
        let space = Arc::new(MemorySpace::of(capacity_bytes));
        let (records, blobs) = (MemoryRecords::new(space.clone()), MemoryBlobs::new(space.clone()));
        Memory(Arc::new(Inside { space, records: Arc::new(records), blobs: Arc::new(blobs), state: Mutex::default() }))
    }

    /// The blobs, to look at them whoever has the place.
    pub fn blobs(&self) -> &MemoryBlobs {
        &self.0.blobs
    }
}

impl Engine for Memory {
    fn name(&self) -> String {
        "in memory".into()
    }

    fn take(&self, access: Access) -> Result<Arc<dyn Taken>> {
        let mut state = self.0.state.lock();
        if state.is_taken {
            return Err(EngineError::InUse(self.name()));
        }
        if access == Access::Look && !state.is_made {
            return Err(EngineError::NoStore(self.name()));
        }
        state.is_taken = true;
        Ok(Arc::new(TakenMemory { memory: self.clone(), is_new: !state.is_made }))
    }
}

struct TakenMemory {
    memory: Memory,
    is_new: bool,
}

impl Taken for TakenMemory {
    fn is_new(&self) -> bool {
        self.is_new
    }

    fn note(&self) -> Option<String> {
        None
    }

    fn records(&self, _memory_bytes: usize) -> Result<Arc<dyn Records>> {
        self.memory.0.state.lock().is_made = true;
        Ok(self.memory.0.records.clone())
    }

    fn blobs(&self) -> Result<Arc<dyn Blobs>> {
        Ok(self.memory.0.blobs.clone())
    }

    fn space(&self) -> Arc<dyn Space> {
        self.memory.0.space.clone()
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn discard(&self) {
        if self.is_new {
            self.memory.0.records.clear();
            self.memory.0.blobs.clear();
            self.memory.0.space.clear();
            self.memory.0.state.lock().is_made = false;
        }
    }
}

impl Drop for TakenMemory {
    fn drop(&mut self) {
        self.memory.0.state.lock().is_taken = false;
    }
}
