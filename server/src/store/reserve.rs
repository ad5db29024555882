//! A disk that is full: some of it is reserved, for removing and undoing. What grows does without.

use super::engine::{EngineError, Space};
use super::{Store, StoreError};
use crate::limits::{REMOVING_BYTES, RESERVE_BYTES_MAX, RESERVE_SHARE};
use mojavefs::protocol::SpaceInfo;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How much of the space is kept back.
pub(super) struct Reserve {
    space: Arc<dyn Space>,
    /// Known without a look at the disk, as every change asks.
    kept: AtomicBool,
    changing: Mutex<()>,
}

impl Reserve {
    /// Nothing is kept back yet, as far as is known.
    pub(super) fn of(space: Arc<dyn Space>) -> Self {
        Reserve { space, kept: AtomicBool::new(false), changing: Mutex::default() }
    }

    pub(super) fn info(&self) -> Result<SpaceInfo, StoreError> {
        Ok(self.space.info()?)
    }

    /// How much is to be kept back on such a disk, in bytes.
    fn whole(&self, disk: &SpaceInfo) -> u64 {
        RESERVE_BYTES_MAX.min(disk.total_bytes / RESERVE_SHARE)
    }

    /// Keeps space back, if the disk has that much and as much again.
    fn keep(&self) -> Result<bool, StoreError> {
        let disk = self.info()?;
        let _alone = self.changing.lock();
        if self.kept.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let bytes = self.whole(&disk);
        let already = self.space.reserved()?;
        if already < bytes && (disk.available_bytes + already < 2 * bytes || !self.reserve(bytes)?) {
            return Ok(false);
        }
        self.kept.store(true, Ordering::SeqCst);
        Ok(true)
    }

    /// False if there is not enough.
    fn reserve(&self, bytes: u64) -> Result<bool, StoreError> {
        match self.space.reserve(bytes) {
            Ok(()) => Ok(true),
            Err(EngineError::Full(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back what was kept; false if nothing was.
    pub(super) fn release(&self) -> Result<bool, StoreError> {
        let _alone = self.changing.lock();
        self.kept.store(false, Ordering::SeqCst);
        Ok(self.space.release()?)
    }

    /// Keeps back what is left of what was released, but for what removing takes next: others may fill the disk meanwhile.
    fn keep_rest(&self) -> Result<(), StoreError> {
        let disk = self.info()?;
        let _alone = self.changing.lock();
        let bytes = disk.available_bytes.saturating_sub(REMOVING_BYTES).min(disk.total_bytes / RESERVE_SHARE);
        if bytes == 0 || self.space.reserved()? > 0 {
            return Ok(());
        }
        self.reserve(bytes.min(RESERVE_BYTES_MAX)).map(drop)
    }
}

impl Store {
    /// Refuses what takes more space while none is kept back for the rest; with enough of it again, some is.
    pub(in crate::store) fn require_room(&self) -> Result<(), StoreError> {
        if self.keep_room()? {
            return Ok(());
        }
        Err(StoreError::NoSpace("what is left is for removing; remove something".into()))
    }

    /// Keeps space back if there is enough; true if it is kept.
    pub(super) fn keep_room(&self) -> Result<bool, StoreError> {
        if self.reserve.kept.load(Ordering::SeqCst) { Ok(true) } else { self.reserve.keep() }
    }

    /// Does what must work on a full disk, too: with what was kept back, if it finds none left.
    pub(in crate::store) fn with_room<T>(&self, work: impl Fn() -> Result<T, StoreError>) -> Result<T, StoreError> {
        match work() {
            Err(StoreError::NoSpace(why)) => {
                self.make_room(&why)?;
                work()
            }
            result => result,
        }
    }

    /// The record store takes up its work again, with the space kept back for it; what it leaves of that is kept back again.
    pub(super) fn make_room(&self, why: &str) -> Result<(), StoreError> {
        if self.reserve.release()? {
            tracing::warn!("the disk under {} is full; what was kept back is used for removing", self.name);
        }
        self.mend(why)?;
        self.keep_rest()
    }

    /// Keeps back what is left of what was released.
    pub(super) fn keep_rest(&self) -> Result<(), StoreError> {
        self.reserve.keep_rest()
    }

    /// Whether enough is kept back for removing that writing where there was space before may have some, for its records.
    pub(super) fn can_spare_room(&self) -> Result<bool, StoreError> {
        Ok(self.reserve.space.reserved()? >= self.reserve.whole(&self.space()?) / 2)
    }

    /// The same for what only grows, and is not worth what is kept back: once others have made space.
    pub(super) fn mend_with_space(&self, why: &str) -> Result<bool, StoreError> {
        let enough = self.space()?.available_bytes > REMOVING_BYTES;
        if enough {
            self.mend(why)?;
        }
        Ok(enough)
    }
}
