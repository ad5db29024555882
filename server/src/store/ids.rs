//! Numbers that are never used twice: handed out from memory, reserved on disk in runs.

use super::StoreError;
use super::db::{Db, Family};
use super::meta;
use crate::limits::{EPOCH_RUN, ID_RUN};
use mojavefs::id::Ino;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) struct Ids {
    pub(super) ino: Counter,
    pub(super) id: Counter,
    /// What users see: no gaps.
    pub(super) spec: Counter,
    epoch: Counter,
}

pub(super) struct Counter {
    name: &'static str,
    next: AtomicU64,
    reserved: AtomicU64,
    reserving: Mutex<()>,
    run: u64,
}

impl Counter {
    fn open(db: &Db, name: &'static str, first: u64, run: u64) -> Result<Self, StoreError> {
        let reserved = match db.get(Family::Meta, &key(name))? {
            Some(bytes) => u64::from_be_bytes(
                bytes.try_into().map_err(|_| StoreError::corrupt(format!("counter {name} is no number")))?,
            ),
            None => first,
        };
        Ok(Counter {
            name,
            next: AtomicU64::new(reserved),
            reserved: AtomicU64::new(reserved),
            reserving: Mutex::default(),
            run,
        })
    }

    /// No number from this on was handed out.
    pub(super) fn reached(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// A number that was never returned before, not even before a crash.
    pub(super) fn next(&self, db: &Db) -> Result<u64, StoreError> {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        self.reserve(db, number + 1)?;
        Ok(number)
    }

    /// No lesser number is handed out from now on.
    pub(super) fn go_on_from(&self, db: &Db, first: u64) -> Result<(), StoreError> {
        self.next.fetch_max(first, Ordering::SeqCst);
        self.reserve(db, self.reached())
    }

    /// Makes sure that a restart begins at `limit` or above. The record is not synced: what a power cut forgets of it,
    /// it forgets of everything that used the numbers, too (they are in the same log, later).
    fn reserve(&self, db: &Db, limit: u64) -> Result<(), StoreError> {
        if limit <= self.reserved.load(Ordering::SeqCst) {
            return Ok(());
        }
        let _guard = self.reserving.lock();
        let reserved = self.reserved.load(Ordering::SeqCst);
        if limit <= reserved {
            return Ok(());
        }
        let reserve = limit + self.run;
        let mut writes = db.writes();
        writes.put(Family::Meta, &key(self.name), &reserve.to_be_bytes());
        writes.apply(false)?;
        self.reserved.store(reserve, Ordering::SeqCst);
        Ok(())
    }
}

fn key(name: &str) -> Vec<u8> {
    let mut key = vec![meta::COUNTER];
    key.extend_from_slice(name.as_bytes());
    key
}

impl Ids {
    pub(super) fn open(db: &Db) -> Result<Self, StoreError> {
        Ok(Ids {
            ino: Counter::open(db, "ino", Ino::ROOT.0 + 1, ID_RUN)?,
            id: Counter::open(db, "id", 1, ID_RUN)?,
            spec: Counter::open(db, "spec", 1, 0)?,
            epoch: Counter::open(db, "epoch", 1, EPOCH_RUN)?,
        })
    }

    /// An epoch later than every one before.
    pub(super) fn first_epoch(&self) -> u64 {
        self.epoch.next.load(Ordering::SeqCst) + 1
    }

    /// Makes sure that a restart begins after `epoch`.
    pub(super) fn reserve_epoch(&self, db: &Db, epoch: u64) -> Result<(), StoreError> {
        self.epoch.reserve(db, epoch + 1)
    }
}
