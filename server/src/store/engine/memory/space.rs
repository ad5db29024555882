//! The bound on what a store in memory takes.

use crate::store::engine::{EngineError, Result, Space, SpaceInfo};
use parking_lot::Mutex;

/// A number of bytes that all parts of a store share.
pub struct MemorySpace(Mutex<Bytes>);

struct Bytes {
    capacity: u64,
    used: u64,
    reserved: u64,
}

impl MemorySpace {
    /// So many, all free.
    pub fn of(capacity_bytes: u64) -> Self {
        MemorySpace(Mutex::new(Bytes { capacity: capacity_bytes, used: 0, reserved: 0 }))
    }

    /// Uses so many of them.
    ///
    /// # Errors
    /// [`EngineError::Full`] if fewer are free; then none is used.
    pub fn take(&self, bytes: u64) -> Result<()> {
        let mut all = self.0.lock();
        if all.capacity - all.used - all.reserved < bytes {
            return Err(EngineError::Full(format!("{bytes} bytes are more than what is left of {}", all.capacity)));
        }
        all.used += bytes;
        Ok(())
    }

    /// So many are used no more.
    pub fn give(&self, bytes: u64) {
        self.0.lock().used -= bytes;
    }

    /// Somebody else has taken everything that was free.
    pub fn fill(&self) {
        let mut all = self.0.lock();
        all.capacity = all.used + all.reserved;
    }

    /// There is so much more, all free.
    pub fn grow(&self, bytes: u64) {
        self.0.lock().capacity += bytes;
    }

    pub(super) fn clear(&self) {
        let mut all = self.0.lock();
        (all.used, all.reserved) = (0, 0);
    }
}

impl Space for MemorySpace {
    fn info(&self) -> Result<SpaceInfo> {
        let all = self.0.lock();
        let free = all.capacity - all.used - all.reserved;
        let (files, files_free) = (0, u64::MAX);
        Ok(SpaceInfo { total_bytes: all.capacity, free_bytes: free, available_bytes: free, files, files_free })
    }

    fn reserved(&self) -> Result<u64> {
        Ok(self.0.lock().reserved)
    }

    fn reserve(&self, bytes: u64) -> Result<()> {
        let mut all = self.0.lock();
        all.reserved = 0;
        if all.capacity - all.used < bytes {
            return Err(EngineError::Full(format!("{bytes} bytes can't be kept back")));
        }
        all.reserved = bytes;
        Ok(())
    }

    fn release(&self) -> Result<bool> {
        let mut all = self.0.lock();
        Ok(std::mem::take(&mut all.reserved) > 0)
    }
}
