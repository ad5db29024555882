//! The records as the store uses them: batches that remember what waits to be done, and where to look for it.

use super::StoreError;
use super::engine::{Cursor, Item, Records, Uncached, WriteBatch};
use crate::order::waits_for_the_disk;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

pub(super) use super::engine::Family;

pub(super) struct Db {
    records: Arc<dyn Records>,
    /// By the first byte of their keys: where the records begin that wait for something to be done; nothing if there are
    /// none. Only of kinds that have been asked for.
    waiting: Mutex<HashMap<u8, Option<Vec<u8>>>>,
}

/// Changes that are applied together.
pub(super) struct Writes<'a> {
    db: &'a Db,
    batch: WriteBatch,
    waiting: Vec<Vec<u8>>,
}

impl Db {
    pub(super) fn on(records: Arc<dyn Records>) -> Self {
        Db { records, waiting: Mutex::default() }
    }

    /// Brings into memory what was refused.
    pub(super) fn fetch(&self, what: &Uncached) -> Result<(), StoreError> {
        Ok(self.records.fetch(what)?)
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.records.get(family, key)?)
    }

    pub(super) fn contains(&self, family: Family, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.records.contains(family, key)?)
    }

    /// Shows the versions of one object, newest first, for as long as `visit` returns true.
    pub(super) fn newest(&self, prefix: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> bool) -> Result<(), StoreError> {
        Ok(self.records.newest(Family::Data, prefix, &mut visit)?)
    }

    /// Goes through the keys that begin with `prefix`, from `from` on.
    pub(super) fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Scan<'a> {
        Scan(self.records.scan(family, prefix, from))
    }

    /// The keys of the first records of this kind that wait (see [`Writes::wait`]). Those that were there before leave
    /// something behind in the buffers that a scan has to walk through; so it begins at the first that may be left.
    pub(super) fn waiting(&self, kind: u8, limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut waiting = self.waiting.lock();
        let from = match waiting.get(&kind) {
            None => vec![kind],
            Some(Some(first)) => first.clone(),
            Some(None) => return Ok(Vec::new()),
        };
        let found = self.keys(kind, &from, limit)?;
        waiting.insert(kind, found.first().cloned());
        Ok(found)
    }

    /// The same for those behind the key `after`.
    pub(super) fn waiting_after(&self, after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        self.keys(after[0], &[after, &[0]].concat(), limit)
    }

    fn keys(&self, kind: u8, from: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, StoreError> {
        let mut found = Vec::new();
        let prefix = [kind];
        let mut scan = self.scan(Family::Meta, &prefix, from);
        while let (Some((key, _)), true) = (scan.item()?, found.len() < limit) {
            found.push(key.to_vec());
            scan.next();
        }
        Ok(found)
    }

    fn now_waits(&self, key: Vec<u8>) {
        if let Some(first) = self.waiting.lock().get_mut(&key[0])
            && first.as_ref().is_none_or(|first| key < *first)
        {
            *first = Some(key);
        }
    }

    /// How far the sequence of batches has come.
    pub(super) fn reached(&self) -> u64 {
        self.records.reached()
    }

    pub(super) fn writes(&self) -> Writes<'_> {
        Writes { db: self, batch: WriteBatch::default(), waiting: Vec::new() }
    }

    /// Writes everything in the log to disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        waits_for_the_disk();
        Ok(self.records.sync()?)
    }

    /// Writes all buffers out, so that the next opening has nothing to replay.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        Ok(self.records.flush()?)
    }
}

impl Writes<'_> {
    pub(super) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.batch.put(family, key, value);
    }

    pub(super) fn delete(&mut self, family: Family, key: &[u8]) {
        self.batch.delete(family, key);
    }

    /// Adds a record that waits for something to be done, and says nothing but that.
    pub(super) fn wait(&mut self, key: Vec<u8>) {
        self.put(Family::Meta, &key, &[]);
        self.waiting.push(key);
    }

    /// Applies them at once. They survive the death of the process; with `synced` also that of the machine.
    pub(super) fn apply(self, synced: bool) -> Result<(), StoreError> {
        if self.batch.is_empty() && !synced {
            return Ok(());
        }
        self.db.records.apply(&self.batch, synced)?;
        self.waiting.into_iter().for_each(|key| self.db.now_waits(key));
        Ok(())
    }
}

/// A walk over the keys with one prefix.
pub(super) struct Scan<'a>(Box<dyn Cursor + 'a>);

impl Scan<'_> {
    /// The key and value it stands at, or nothing at the end.
    pub(super) fn item(&self) -> Result<Option<Item<'_>>, StoreError> {
        Ok(self.0.item()?)
    }

    pub(super) fn next(&mut self) {
        self.0.next();
    }

    /// Goes on at the first key that is not below `key`.
    pub(super) fn seek(&mut self, key: &[u8]) {
        self.0.seek(key);
    }
}
