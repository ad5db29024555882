//! RocksDB as the store uses it: three column families, batches, prefix scans, a log that is synced on demand.

use super::StoreError;
use crate::limits::{BLOCK_CACHE_SHARE, LOG_BYTES_MAX, OPEN_TABLES_MAX, WALKED_MAX, WRITE_BUFFER_SHARE};
use parking_lot::Mutex;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, DBRecoveryMode, Options,
    ReadOptions, WriteBatch, WriteOptions,
};
use std::collections::HashMap;
use std::path::Path;

/// A group of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Versions of objects.
    Data,
    /// Which objects an undecided interval changed.
    Changes,
    /// Decisions, held speculations, counters, what is to be reclaimed.
    Meta,
}

impl Family {
    const ALL: [Family; 3] = [Family::Data, Family::Changes, Family::Meta];

    fn name(self) -> &'static str {
        match self {
            Family::Data => "data",
            Family::Changes => "changes",
            Family::Meta => "meta",
        }
    }
}

pub(super) struct Db {
    db: DB,
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
    /// Opens the database, or makes it if it is to be `fresh`; `memory_bytes` bounds its buffers and cache.
    pub(super) fn open(path: &Path, memory_bytes: usize, fresh: bool) -> Result<Self, StoreError> {
        let options = options(memory_bytes, fresh)?;
        let db = DB::open_cf_descriptors(&options, path, families(memory_bytes)?)?;
        Ok(Db { db, waiting: Mutex::default() })
    }

    /// Opens the database to look at it: nothing is written, whatever state it is in.
    pub(super) fn open_read_only(path: &Path, memory_bytes: usize) -> Result<Self, StoreError> {
        let options = options(memory_bytes, false)?;
        let db = DB::open_cf_descriptors_read_only(&options, path, families(memory_bytes)?, false)?;
        Ok(Db { db, waiting: Mutex::default() })
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("every family is created when the database is opened")
    }

    pub(super) fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.db.get_cf(self.family(family), key)?)
    }

    pub(super) fn contains(&self, family: Family, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.db.get_pinned_cf(self.family(family), key)?.is_some())
    }

    /// Goes through the keys that begin with `prefix`, from `from` on.
    pub(super) fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Scan<'a> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        // Without a bound an iterator that finds nothing goes on through everything deleted behind the prefix.
        if let Some(end) = successor(prefix) {
            options.set_iterate_upper_bound(end);
        }
        let mut at = self.db.raw_iterator_cf_opt(self.family(family), options);
        at.seek(from);
        Scan { at, prefix }
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

    pub(super) fn writes(&self) -> Writes<'_> {
        Writes { db: self, batch: WriteBatch::default(), waiting: Vec::new() }
    }

    /// Writes everything in the log to disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        Ok(self.db.flush_wal(true)?)
    }

    /// Writes all buffers out, so that the next opening has nothing to replay.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        for family in Family::ALL {
            self.db.flush_cf(self.family(family))?;
        }
        Ok(())
    }
}

/// The first key after all that begin with `prefix`; nothing if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn options(memory_bytes: usize, fresh: bool) -> Result<Options, StoreError> {
    // A log that takes as much ahead as it may ever need does not fit on a small disk.
    let mut options = Options::default().get_options_from_string("allow_fallocate=false")?;
    options.create_if_missing(fresh);
    options.create_missing_column_families(fresh);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_max_open_files(OPEN_TABLES_MAX);
    options.set_db_write_buffer_size(memory_bytes / WRITE_BUFFER_SHARE);
    options.set_keep_log_file_num(2);
    options.increase_parallelism(2);
    Ok(options)
}

fn families(memory_bytes: usize) -> Result<Vec<ColumnFamilyDescriptor>, StoreError> {
    let cache = Cache::new_lru_cache(memory_bytes / BLOCK_CACHE_SHARE);
    let described = |family: Family| {
        family_options(&cache, memory_bytes).map(|options| ColumnFamilyDescriptor::new(family.name(), options))
    };
    Family::ALL.into_iter().map(described).collect()
}

fn family_options(cache: &Cache, memory_bytes: usize) -> Result<Options, StoreError> {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    // What is undone again and again in one place leaves removals there, which each reading has to walk through: once they
    // are many they are written out, and merged away.
    let flush = format!("memtable_op_scan_flush_trigger={WALKED_MAX}");
    let mut options = Options::default().get_options_from_string(flush)?;
    options.add_compact_on_deletion_collector_factory(2 * WALKED_MAX, WALKED_MAX, 0.5);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_size((memory_bytes / WRITE_BUFFER_SHARE / 2).max(1 << 20));
    options.set_level_compaction_dynamic_level_bytes(true);
    Ok(options)
}

impl Writes<'_> {
    pub(super) fn put(&mut self, family: Family, key: &[u8], value: &[u8]) {
        self.batch.put_cf(self.db.family(family), key, value);
    }

    pub(super) fn delete(&mut self, family: Family, key: &[u8]) {
        self.batch.delete_cf(self.db.family(family), key);
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
        let mut options = WriteOptions::default();
        options.set_sync(synced);
        self.db.db.write_opt(self.batch, &options)?;
        self.waiting.into_iter().for_each(|key| self.db.now_waits(key));
        Ok(())
    }
}

/// A key and its value.
pub(super) type Item<'a> = (&'a [u8], &'a [u8]);

/// A walk over the keys with one prefix.
pub(super) struct Scan<'a> {
    at: DBRawIterator<'a>,
    prefix: &'a [u8],
}

impl Scan<'_> {
    /// The key and value it stands at, or nothing at the end.
    pub(super) fn item(&self) -> Result<Option<Item<'_>>, StoreError> {
        match self.at.item() {
            Some((key, value)) if key.starts_with(self.prefix) => Ok(Some((key, value))),
            Some(_) => Ok(None),
            None => {
                self.at.status()?;
                Ok(None)
            }
        }
    }

    pub(super) fn next(&mut self) {
        self.at.next();
    }

    /// Goes on at the first key that is not below `key`.
    pub(super) fn seek(&mut self, key: &[u8]) {
        self.at.seek(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::WALKED_MAX;
    use rocksdb::PerfStatsLevel;
    use rocksdb::perf::{PerfContext, PerfMetric, set_perf_stats};
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(60);

    /// Looks for records by a prefix, and says how many removed ones it walked through.
    fn walked(db: &Db, prefix: &[u8]) -> u64 {
        let mut context = PerfContext::default();
        context.reset();
        assert!(db.scan(Family::Data, prefix, prefix).item().expect("a look").is_none());
        context.metric(PerfMetric::InternalDeleteSkippedCount)
    }

    #[test]
    fn what_was_removed_in_one_place_by_the_thousand_is_not_walked_through_for_ever() {
        set_perf_stats(PerfStatsLevel::EnableCount);
        let dir = tempfile::TempDir::new().expect("a directory");
        let db = Db::open(dir.path(), 32 << 20, true).expect("a database");
        let mut most = 0;
        for number in 0..8 * WALKED_MAX as u64 {
            let key = [&b"file"[..], &number.to_be_bytes()].concat();
            let mut writes = db.writes();
            writes.put(Family::Data, &key, b"undone");
            writes.apply(false).expect("a write");
            let mut writes = db.writes();
            writes.delete(Family::Data, &key);
            writes.apply(false).expect("a write");
            most = most.max(walked(&db, b"file"));
        }
        assert!(most > 0, "nothing is counted");
        let deadline = Instant::now() + LIMIT;
        // What is cleared away is cleared away in the background.
        while walked(&db, b"file") > 2 * WALKED_MAX as u64 {
            assert!(Instant::now() < deadline, "{most} removed records are walked through");
        }
    }
}
