//! A disk that is full: a file in the store keeps some of it back, for removing and undoing. What grows does without.

use super::{Store, StoreError};
use crate::limits::{REMOVING_BYTES, RESERVE_BYTES_MAX, RESERVE_SHARE};
use mojavefs::protocol::SpaceInfo;
use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// The file that keeps space back.
pub(super) struct Room {
    path: PathBuf,
    /// Known without a look at the disk, as every change asks.
    kept: AtomicBool,
    changing: Mutex<()>,
}

impl Room {
    /// Nothing is kept back yet.
    pub(super) fn at(dir: &Path) -> Self {
        Room { path: dir.join("reserve"), kept: AtomicBool::new(false), changing: Mutex::default() }
    }

    /// Keeps space back, if the disk has that much and as much again.
    fn keep(&self, disk: SpaceInfo) -> Result<bool, StoreError> {
        let _alone = self.changing.lock();
        if self.kept.load(Ordering::SeqCst) {
            return Ok(true);
        }
        let bytes = RESERVE_BYTES_MAX.min(disk.total_bytes / RESERVE_SHARE);
        let already = fs::metadata(&self.path).map_or(0, |found| found.len());
        if already < bytes {
            if disk.available_bytes + already < 2 * bytes {
                return Ok(false);
            }
            if let Err(error) = self.fill(bytes) {
                self.remove()?;
                return match error {
                    StoreError::NoSpace(_) => Ok(false),
                    error => Err(error),
                };
            }
        }
        self.kept.store(true, Ordering::SeqCst);
        Ok(true)
    }

    fn fill(&self, bytes: u64) -> Result<(), StoreError> {
        let named = |error: io::Error| StoreError::io(format!("keep space back in {}", self.path.display()), error);
        let file = super::private::options().create(true).write(true).truncate(true).open(&self.path).map_err(named)?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes as i64) {
            // Such a disk can't promise space, so nothing is kept back.
            Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(bytes).map_err(named),
            result => result.map_err(|errno| named(errno.into())),
        }
    }

    /// Gives back what was kept; false if nothing was.
    pub(super) fn release(&self) -> Result<bool, StoreError> {
        let _alone = self.changing.lock();
        self.kept.store(false, Ordering::SeqCst);
        self.remove()
    }

    /// Keeps back what is left of what was released, but for what removing takes next: others may fill the disk meanwhile.
    fn keep_rest(&self, disk: SpaceInfo) -> Result<(), StoreError> {
        let _alone = self.changing.lock();
        let bytes = disk.available_bytes.saturating_sub(REMOVING_BYTES).min(disk.total_bytes / RESERVE_SHARE);
        if bytes == 0 || self.path.exists() {
            return Ok(());
        }
        match self.fill(bytes.min(RESERVE_BYTES_MAX)) {
            Err(StoreError::NoSpace(_)) => self.remove().map(drop),
            result => result,
        }
    }

    fn remove(&self) -> Result<bool, StoreError> {
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(StoreError::io(format!("remove {}", self.path.display()), e)),
        }
    }
}

impl Store {
    /// Refuses what takes more space while none is kept back for the rest; with enough of it again, some is.
    pub(in crate::store) fn require_room(&self) -> Result<(), StoreError> {
        match self.room.kept.load(Ordering::SeqCst) || self.keep_room()? {
            true => Ok(()),
            false => Err(StoreError::NoSpace("what is left is for removing; remove something".into())),
        }
    }

    /// Keeps space back if there is enough; true if it is kept.
    pub(super) fn keep_room(&self) -> Result<bool, StoreError> {
        match self.room.kept.load(Ordering::SeqCst) {
            true => Ok(true),
            false => self.room.keep(self.space()?),
        }
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
        if self.room.release()? {
            tracing::warn!("the disk under {} is full; what was kept back is used for removing", self.dir.display());
        }
        self.mend(why)?;
        self.keep_rest()
    }

    /// Keeps back what is left of what was released.
    pub(super) fn keep_rest(&self) -> Result<(), StoreError> {
        self.room.keep_rest(self.space()?)
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
