//! The faulty engine really loses what it may lose, and nothing else.

use mojavefs::id::Ino;
use mojavefs_faulty::{Call, Fault, Faulty};
use mojavefs_server::store::engine::{
    Access, BlobId, Blobs, Engine, EngineError, Family, InPlace, Records, Taken, WriteBatch,
};
use mojavefs_server::store::{Batch, Sight, Store, StoreOptions};
use std::collections::BTreeSet;
use std::sync::{Arc, Barrier};

const CAPACITY_BYTES: u64 = 64 << 20;
const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const PAGE: u64 = 4096;
const SEEDS: u64 = 64;

/// A place that is settled, and its records, which are empty.
fn place() -> (Faulty, Arc<dyn Taken>, Arc<dyn Records>) {
    let place = Faulty::of(CAPACITY_BYTES);
    let taken = place.take(Access::Change).expect("nobody has it");
    let records = taken.records(OPTIONS.memory_bytes).expect("the records open");
    taken.settle().expect("it is there");
    (place, taken, records)
}

fn put(records: &dyn Records, key: u8, synced: bool) -> Result<(), EngineError> {
    let mut batch = WriteBatch::default();
    // Both or neither.
    batch.put(Family::Data, &[key], b"");
    batch.put(Family::Meta, &[key], b"");
    records.apply(&batch, synced)
}

/// The keys that are found, which are the same in both families.
fn keys(records: &dyn Records) -> Vec<u8> {
    let found = |family| {
        let mut keys = Vec::new();
        let shown = records.newest(family, b"", &mut |key, _| {
            keys.push(key[0]);
            true
        });
        shown.map(|()| keys).expect("a look")
    };
    assert_eq!(found(Family::Data), found(Family::Meta), "a batch is there as a whole");
    found(Family::Data)
}

fn opened(place: &Faulty) -> (Arc<dyn Taken>, Arc<dyn Records>) {
    let taken = place.take(Access::Change).expect("nobody has it");
    let records = taken.records(OPTIONS.memory_bytes).expect("the records open");
    (taken, records)
}

fn in_place(blobs: &dyn Blobs) -> &dyn InPlace {
    blobs.in_place().expect("it changes them in place")
}

#[test]
fn of_records_any_prefix_survives_that_has_what_was_synced() {
    let mut lengths = BTreeSet::new();
    for seed in 0..SEEDS {
        let (place, _taken, records) = place();
        for key in 0..6 {
            put(&*records, key, key == 2).expect("a batch");
        }
        let left = keys(&*opened(&place.crash(seed)).1);
        assert_eq!(left, (0..left.len() as u8).collect::<Vec<_>>(), "seed {seed}");
        lengths.insert(left.len());
    }
    assert_eq!(lengths, BTreeSet::from([3, 4, 5, 6]));
}

#[test]
fn of_blobs_any_pages_lengths_and_names_survive_and_all_that_were_synced() {
    let (mut pages, mut names, mut lengths) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for seed in 0..SEEDS {
        let (place, taken, _records) = place();
        let blobs = taken.blobs().expect("blobs");
        for blob in [1, 2].map(BlobId) {
            blobs.create(blob).expect("a blob");
            in_place(&*blobs).write(blob, 0, &[1; 3 * PAGE as usize]).expect("a write");
            blobs.sync(blob).expect("a sync");
        }
        blobs.sync_names().expect("a sync");
        in_place(&*blobs).write(BlobId(1), 0, &[2; 2 * PAGE as usize]).expect("a write");
        in_place(&*blobs).extend(BlobId(1), 8 * PAGE).expect("it is longer");
        blobs.remove(BlobId(2)).expect("it goes");
        blobs.create(BlobId(3)).expect("a blob");
        let found = place.crash(seed);
        let blobs = opened(&found).0.blobs().expect("blobs");
        names.insert(blobs.list().expect("a list"));
        lengths.insert(blobs.len(BlobId(1)).expect("it was synced"));
        let mut bytes = [0; 3 * PAGE as usize];
        blobs.read(BlobId(1), 0, &mut bytes).expect("a look");
        let page = |number: usize| bytes[number * PAGE as usize];
        assert!(bytes.chunks(PAGE as usize).all(|page| page.iter().all(|byte| *byte == page[0])), "pages are whole");
        assert_eq!(page(2), 1, "it was synced");
        pages.insert((page(0), page(1)));
    }
    assert_eq!(pages, BTreeSet::from([(1, 1), (1, 2), (2, 1), (2, 2)]));
    assert_eq!(lengths, BTreeSet::from([3 * PAGE, 8 * PAGE]));
    let all = [vec![1], vec![1, 2], vec![1, 3], vec![1, 2, 3]];
    assert_eq!(names, all.map(|names| names.into_iter().map(BlobId).collect()).into());
}

#[test]
fn a_sync_fails_once_and_then_succeeds_without_the_data() {
    let mut left = BTreeSet::new();
    for seed in 0..SEEDS {
        let (place, taken, _records) = place();
        let blobs = taken.blobs().expect("blobs");
        blobs.create(BlobId(1)).expect("a blob");
        blobs.sync_names().expect("a sync");
        in_place(&*blobs).write(BlobId(1), 0, &[1; PAGE as usize]).expect("a write");
        place.plan_next(Fault::FailSync, |call| call == Call::SyncBlob, seed);
        blobs.sync(BlobId(1)).expect_err("it fails");
        blobs.sync(BlobId(1)).expect("it says nothing");
        let mut byte = [0];
        assert_eq!(blobs.read(BlobId(1), 0, &mut byte).expect("a look"), 1);
        assert_eq!(byte, [1], "it can be read still");
        let found = place.crash(seed);
        let count = opened(&found).0.blobs().expect("blobs").read(BlobId(1), 0, &mut byte).expect("a look");
        left.insert((count, byte));
    }
    assert!(left.contains(&(0, [1])) && left.contains(&(1, [1])), "{left:?}");
}

#[test]
fn records_that_failed_refuse_changes_until_they_are_opened_again() {
    let mut found = BTreeSet::new();
    for seed in 0..SEEDS {
        let (place, taken, records) = place();
        put(&*records, 0, false).expect("a batch");
        place.plan_next(Fault::Fail, |call| call == Call::Apply { synced: false }, seed);
        assert!(matches!(put(&*records, 1, false), Err(EngineError::Failed(_))));
        assert!(matches!(put(&*records, 2, false), Err(EngineError::Refused(_))));
        assert!(matches!(records.sync(), Err(EngineError::Refused(_))));
        assert_eq!(keys(&*records), [0]);
        drop(records);
        let records = taken.records(OPTIONS.memory_bytes).expect("the records open");
        put(&*records, 3, true).expect("a batch");
        found.insert(keys(&*records));
    }
    assert_eq!(found, BTreeSet::from([vec![0, 3], vec![0, 1, 3]]));
}

#[test]
fn a_full_disk_refuses_what_grows_and_has_what_is_released() {
    let (place, taken, records) = place();
    let (blobs, space) = (taken.blobs().expect("blobs"), taken.space());
    blobs.create(BlobId(1)).expect("a blob");
    space.reserve(1 << 20).expect("there is that much");
    place.plan_next(Fault::Full, |call| call == Call::Write, 0);
    let write = |len: usize| in_place(&*blobs).write(BlobId(1), 0, &vec![1; len]);
    assert!(matches!(write(1), Err(EngineError::Full(_))));
    assert!(matches!(put(&*records, 0, false), Err(EngineError::Full(_))));
    assert_eq!(space.info().expect("a look").available_bytes, 0);
    assert!(space.release().expect("it is released"));
    write(1 << 19).expect("there is space");
    assert!(matches!(write(1 << 21), Err(EngineError::Full(_))));
    in_place(&*blobs).punch(BlobId(1), 0, 1 << 19).expect("a hole");
    assert_eq!(space.info().expect("a look").available_bytes, 1 << 20);
}

#[test]
fn a_sync_of_the_log_that_takes_long_holds_up_neither_readers_nor_writers() {
    let place = Faulty::of(CAPACITY_BYTES);
    let store = Store::open(&place, OPTIONS).expect("the store opens");
    let (begins, ends) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let meet = (begins.clone(), ends.clone());
    place.before_each(move |call| {
        if call == Call::SyncRecords {
            meet.0.wait();
            meet.1.wait();
        }
    });
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| store.sync_log());
        begins.wait();
        let mut batch = Batch::new(&store, &Sight::trunk());
        batch.put_xattr(Ino::ROOT, b"user.key", b"value").expect("a record");
        store.apply(batch).expect("a write");
        assert!(store.xattr(&Sight::trunk(), Ino::ROOT, b"user.key").expect("a read").found.is_some());
        ends.wait();
        syncing.join().expect("it ends").expect("a sync");
    });
    place.before_each(|_| ());
}
