//! Records in RocksDB: three column families, and a log that is synced on demand.

use super::log_sync::LogSync;
use super::{Change, Cursor, EngineError, Family, Item, Records, Result, Uncached, WriteBatch, is_cached_only, refuse};
use crate::limits::{BLOCK_CACHE_SHARE, LOG_BYTES_MAX, OPEN_TABLES_MAX, WALKED_MAX, WRITE_BUFFER_SHARE};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBPinnableSlice, DBRawIterator, DBRecoveryMode,
    ErrorKind, Options, ReadOptions, ReadTier,
};
use std::path::Path;

/// The name of a group of records.
fn name(family: Family) -> &'static str {
    match family {
        Family::Data => "data",
        Family::Changes => "changes",
        Family::Meta => "meta",
    }
}

/// What a batch of a few changes takes in RocksDB beside its keys and values.
const BATCH_BYTES: usize = 128;

/// How many records behind those that were refused are brought into memory with them.
const FETCH_AHEAD: usize = 64;

/// A database that is open.
pub(super) struct RocksDb {
    db: DB,
    log: LogSync,
    /// How a key is looked for that must be in memory.
    cached: ReadOptions,
}

impl RocksDb {
    /// Opens the database, or makes it if it is to be `fresh`; `memory_bytes` bounds its buffers and cache.
    pub(super) fn open(path: &Path, memory_bytes: usize, fresh: bool) -> Result<Self> {
        let options = options(memory_bytes, fresh).map_err(of_reading)?;
        let families = families(memory_bytes).map_err(of_reading)?;
        DB::open_cf_descriptors(&options, path, families).map(RocksDb::of).map_err(of_reading)
    }

    /// Opens the database to look at it: nothing is written, whatever state it is in.
    pub(super) fn open_read_only(path: &Path, memory_bytes: usize) -> Result<Self> {
        let options = options(memory_bytes, false).map_err(of_reading)?;
        let families = families(memory_bytes).map_err(of_reading)?;
        DB::open_cf_descriptors_read_only(&options, path, families, false).map(RocksDb::of).map_err(of_reading)
    }

    fn of(db: DB) -> Self {
        let mut cached = ReadOptions::default();
        cached.set_read_tier(ReadTier::BlockCache);
        RocksDb { db, log: LogSync::default(), cached }
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(name(family)).expect("every family is created when the database is opened")
    }

    fn iterator(&self, family: Family, prefix: &[u8], from: &[u8]) -> DBRawIterator<'_> {
        let mut options = ReadOptions::default();
        options.set_total_order_seek(true);
        // Without a bound an iterator that finds nothing goes on through everything deleted behind the prefix.
        if let Some(end) = successor(prefix) {
            options.set_iterate_upper_bound(end);
        }
        if is_cached_only() {
            options.set_read_tier(ReadTier::BlockCache);
        }
        let mut at = self.db.raw_iterator_cf_opt(self.family(family), options);
        at.seek(from);
        at
    }

    fn walk<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Walk<'a> {
        let at = self.iterator(family, prefix, from);
        Walk { at, family, prefix, from: from.to_vec(), read: 0 }
    }

    fn pinned(&self, family: Family, key: &[u8]) -> Result<Option<DBPinnableSlice<'_>>> {
        let found = match is_cached_only() {
            true => self.db.get_pinned_cf_opt(self.family(family), key, &self.cached),
            false => self.db.get_pinned_cf(self.family(family), key),
        };
        found.map_err(|error| of_looking(error, || Uncached::Record(family, key.to_vec())))
    }
}

impl Records for RocksDb {
    fn fetch(&self, what: &Uncached) -> Result<()> {
        match what {
            Uncached::Record(family, key) => self.contains(*family, key).map(drop),
            Uncached::Records { family, prefix, from, read } => {
                let mut walk = self.walk(*family, prefix, from);
                while walk.read < read + FETCH_AHEAD && walk.item()?.is_some() {
                    walk.next();
                }
                Ok(())
            }
            Uncached::Bytes { .. } | Uncached::OfHost { .. } => Ok(()),
        }
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.pinned(family, key)?.map(|value| value.to_vec()))
    }

    fn contains(&self, family: Family, key: &[u8]) -> Result<bool> {
        Ok(self.pinned(family, key)?.is_some())
    }

    fn newest(&self, family: Family, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()> {
        let mut walk = self.walk(family, prefix, prefix);
        while let Some((key, value)) = walk.item()? {
            if !visit(key, value) {
                break;
            }
            walk.next();
        }
        Ok(())
    }

    fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Box<dyn Cursor + 'a> {
        Box::new(self.walk(family, prefix, from))
    }

    fn apply(&self, batch: &WriteBatch, synced: bool) -> Result<()> {
        let mut writes = rocksdb::WriteBatch::with_capacity_bytes(batch.bytes() + BATCH_BYTES);
        for change in batch.changes() {
            match change {
                Change::Put(family, key, value) => writes.put_cf(self.family(family), key, value),
                Change::Delete(family, key) => writes.delete_cf(self.family(family), key),
            }
        }
        // A write that syncs would have all later ones wait for it.
        self.db.write(writes).map_err(of_writing)?;
        if synced { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<()> {
        self.log.sync(|| self.db.flush_wal(true).map_err(of_writing))
    }

    fn flush(&self) -> Result<()> {
        Family::ALL.into_iter().try_for_each(|family| self.db.flush_cf(self.family(family))).map_err(of_writing)
    }

    fn reached(&self) -> u64 {
        self.db.latest_sequence_number()
    }
}

struct Walk<'a> {
    at: DBRawIterator<'a>,
    family: Family,
    prefix: &'a [u8],
    /// Where it has begun, and how many records it has left behind since.
    from: Vec<u8>,
    read: usize,
}

impl Cursor for Walk<'_> {
    fn item(&self) -> Result<Option<Item<'_>>> {
        let refused = || {
            let (prefix, from) = (self.prefix.to_vec(), self.from.clone());
            Uncached::Records { family: self.family, prefix, from, read: self.read }
        };
        match self.at.item() {
            Some((key, value)) if key.starts_with(self.prefix) => Ok(Some((key, value))),
            Some(_) => Ok(None),
            None => self.at.status().map(|()| None).map_err(|error| of_looking(error, refused)),
        }
    }

    fn next(&mut self) {
        self.read += 1;
        self.at.next();
    }

    fn seek(&mut self, key: &[u8]) {
        (self.from, self.read) = (key.to_vec(), 0);
        self.at.seek(key);
    }
}

/// What an error of reading says where what is not in memory may have been refused.
fn of_looking(error: rocksdb::Error, what: impl FnOnce() -> Uncached) -> EngineError {
    match error.kind() {
        ErrorKind::Incomplete => refuse(what()),
        _ => of_reading(error),
    }
}

/// What an error of opening or reading says. Records that contradict themselves, or name what is not there, are damaged.
fn of_reading(error: rocksdb::Error) -> EngineError {
    let is_io = error.kind() == ErrorKind::IOError;
    match of_writing(error) {
        EngineError::Failed(text) if !is_io || text.contains("No such file") => EngineError::Corrupt(text),
        other => other,
    }
}

/// What an error of changing or syncing says: RocksDB tells most of it in its text only.
fn of_writing(error: rocksdb::Error) -> EngineError {
    let kind = error.kind();
    let text = error.into_string();
    if text.contains("No space left") {
        EngineError::Full(text)
    } else if kind == ErrorKind::Corruption {
        EngineError::Corrupt(text)
    } else if ["Writer has previous error", "Seen error. Skip writing buffer"].iter().any(|word| text.contains(word)) {
        EngineError::Refused(text)
    } else {
        EngineError::Failed(text)
    }
}

/// The first key after all that begin with `prefix`; nothing if there is none.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

type Made<T> = std::result::Result<T, rocksdb::Error>;

fn options(memory_bytes: usize, fresh: bool) -> Made<Options> {
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

fn families(memory_bytes: usize) -> Made<Vec<ColumnFamilyDescriptor>> {
    let cache = Cache::new_lru_cache(memory_bytes / BLOCK_CACHE_SHARE);
    let described = |family: Family| {
        family_options(&cache, memory_bytes).map(|options| ColumnFamilyDescriptor::new(name(family), options))
    };
    Family::ALL.into_iter().map(described).collect()
}

fn family_options(cache: &Cache, memory_bytes: usize) -> Made<Options> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::cached_only;
    use rocksdb::PerfStatsLevel;
    use rocksdb::perf::{PerfContext, PerfMetric, set_perf_stats};
    use std::time::{Duration, Instant};

    const LIMIT: Duration = Duration::from_secs(60);

    /// Looks for records by a prefix, and says how many removed ones it walked through.
    fn walked(db: &RocksDb, prefix: &[u8]) -> u64 {
        let mut context = PerfContext::default();
        context.reset();
        assert!(db.scan(Family::Data, prefix, prefix).item().expect("a look").is_none());
        context.metric(PerfMetric::InternalDeleteSkippedCount)
    }

    #[test]
    fn what_is_not_in_memory_is_refused_until_it_was_fetched() {
        let dir = tempfile::TempDir::new().expect("a directory");
        let key = |number: u64| [&b"file"[..], &number.to_be_bytes()].concat();
        let (family, prefix) = (Family::Data, &b"file"[..]);
        {
            let db = RocksDb::open(dir.path(), 32 << 20, true).expect("a database");
            let mut writes = WriteBatch::default();
            (0..1000).for_each(|number| writes.put(family, &key(number), &[number as u8; 1000]));
            db.apply(&writes, true).expect("a write");
            db.flush().expect("a table");
        }
        let db = RocksDb::open(dir.path(), 32 << 20, false).expect("a database");
        let (found, refused) = cached_only(|| db.get(family, &key(500)));
        assert!(matches!(found, Err(EngineError::Uncached)));
        assert_eq!(refused, Some(Uncached::Record(family, key(500))));
        db.fetch(&refused.expect("it was refused")).expect("it is there");
        let (found, refused) = cached_only(|| db.get(family, &key(500)));
        assert_eq!((found.expect("it is in memory"), refused), (Some(vec![500u64 as u8; 1000]), None));
        // A walk stops where it must be read from the disk, and gets through if it begins again often enough.
        let count = || {
            let (mut count, mut walk) = (0, db.scan(family, prefix, prefix));
            while walk.item()?.is_some() {
                count += 1;
                walk.next();
            }
            Ok::<u64, EngineError>(count)
        };
        let mut tries = 0;
        while let (result, Some(refused)) = cached_only(count) {
            assert!(matches!(result, Err(EngineError::Uncached)) && tries < 1000, "{tries} tries");
            db.fetch(&refused).expect("they are there");
            tries += 1;
        }
        assert!(tries > 1, "nothing was read from the disk");
        assert_eq!(cached_only(count).0.expect("all is in memory"), 1000);
    }

    #[test]
    fn what_was_removed_in_one_place_by_the_thousand_is_not_walked_through_for_ever() {
        set_perf_stats(PerfStatsLevel::EnableCount);
        let dir = tempfile::TempDir::new().expect("a directory");
        let db = RocksDb::open(dir.path(), 32 << 20, true).expect("a database");
        let mut most = 0;
        for number in 0..8 * WALKED_MAX as u64 {
            let key = [&b"file"[..], &number.to_be_bytes()].concat();
            let mut writes = WriteBatch::default();
            writes.put(Family::Data, &key, b"undone");
            db.apply(&writes, false).expect("a write");
            let mut writes = WriteBatch::default();
            writes.delete(Family::Data, &key);
            db.apply(&writes, false).expect("a write");
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
