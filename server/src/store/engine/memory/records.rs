//! Records in ordered maps. A walk has the map as it was when it began; who changes the map meanwhile makes a copy of it.

use super::MemorySpace;
use crate::store::engine::{Change, Cursor, Family, Item, Records, Result, Uncached, WriteBatch};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

type Table = BTreeMap<Vec<u8>, Vec<u8>>;

/// Ordered maps, one for each family.
pub struct MemoryRecords {
    tables: RwLock<[Arc<Table>; Family::ALL.len()]>,
    batches: AtomicU64,
    space: Arc<MemorySpace>,
}

impl MemoryRecords {
    /// None yet.
    pub fn new(space: Arc<MemorySpace>) -> Self {
        MemoryRecords { tables: RwLock::default(), batches: AtomicU64::new(0), space }
    }

    /// Removes all, and gives their space back.
    pub fn clear(&self) {
        self.space.give(self.bytes());
        *self.tables.write() = Default::default();
        self.batches.store(0, Ordering::SeqCst);
    }

    /// How many bytes all keys and values have.
    pub fn bytes(&self) -> u64 {
        let tables = self.tables.read();
        tables.iter().flat_map(|table| table.iter()).map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// The same records once more, which take space of their own.
    ///
    /// # Errors
    /// [`EngineError::Full`](crate::store::engine::EngineError::Full) if there is not enough.
    pub fn copy(&self, space: Arc<MemorySpace>) -> Result<Self> {
        space.take(self.bytes())?;
        let tables = RwLock::new(self.tables.read().clone());
        Ok(MemoryRecords { tables, batches: AtomicU64::new(self.reached()), space })
    }

    fn table(&self, family: Family) -> Arc<Table> {
        self.tables.read()[family as usize].clone()
    }
}

/// The records from `from` on.
fn from<'a>(table: &'a Table, from: Bound<&[u8]>) -> impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> {
    table.range::<[u8], _>((from, Bound::Unbounded))
}

impl Records for MemoryRecords {
    fn fetch(&self, _what: &Uncached) -> Result<()> {
        // All of it always is in memory, and nothing is refused.
        Ok(())
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.tables.read()[family as usize].get(key).cloned())
    }

    fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        Ok(self.tables.read()[family as usize].contains_key(key))
    }

    fn newest(&self, family: Family, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let tables = self.tables.read();
        let found = from(&tables[family as usize], Bound::Included(prefix));
        for (key, value) in found.take_while(|(key, _)| key.starts_with(prefix)) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Box<dyn Cursor + 'a> {
        let mut walk = Walk { table: self.table(family), prefix, at: None };
        walk.seek(from);
        Box::new(walk)
    }

    fn apply(&self, batch: &WriteBatch, _synced: bool) -> Result<()> {
        self.space.take(batch.bytes() as u64)?;
        let mut tables = self.tables.write();
        let mut freed = 0;
        for change in batch.changes() {
            match change {
                Change::Put(family, key, value) => {
                    let before = Arc::make_mut(&mut tables[family as usize]).insert(key.to_vec(), value.to_vec());
                    freed += before.map_or(0, |before| key.len() + before.len());
                }
                Change::Delete(family, key) => {
                    let before = Arc::make_mut(&mut tables[family as usize]).remove(key);
                    freed += key.len() + before.map_or(0, |before| key.len() + before.len());
                }
            }
        }
        self.batches.fetch_add(1, Ordering::SeqCst);
        self.space.give(freed as u64);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn reached(&self) -> u64 {
        self.batches.load(Ordering::SeqCst)
    }
}

struct Walk<'a> {
    table: Arc<Table>,
    prefix: &'a [u8],
    /// The key that it stands at.
    at: Option<Vec<u8>>,
}

impl Walk<'_> {
    fn go(&mut self, to: Bound<&[u8]>) {
        let found = from(&self.table, to).next().map(|(key, _)| key);
        self.at = found.filter(|key| key.starts_with(self.prefix)).cloned();
    }
}

impl Cursor for Walk<'_> {
    fn item(&self) -> Result<Option<Item<'_>>> {
        let found = self.at.as_ref().and_then(|at| self.table.get_key_value(at));
        Ok(found.map(|(key, value)| (&key[..], &value[..])))
    }

    fn next(&mut self) {
        if let Some(at) = self.at.take() {
            self.go(Bound::Excluded(&at));
        }
    }

    fn seek(&mut self, key: &[u8]) {
        self.go(Bound::Included(key));
    }
}
