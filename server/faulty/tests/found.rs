//! What the crash tests have found, each by itself: what was wrong once stays mended.

use mojavefs::id::{Ino, IntervalId, SpecId};
use mojavefs::protocol::file::FileKind;
use mojavefs_faulty::{Call, Fault, Faulty};
use mojavefs_server::store::engine::Access;
use mojavefs_server::store::engine::Engine;
use mojavefs_server::store::{
    Batch, Entry, Held, Inode, Remembered, Sight, Specs, Store, StoreError, StoreOptions, fsck,
};
use std::sync::Arc;

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;
const FILE: Ino = Ino(1000);
/// What is longer than a content that lies in the record store.
const LARGE: usize = 100_000;

fn open(place: &Faulty) -> Store {
    Store::open(place, OPTIONS).expect("the store opens")
}

fn job(store: &Store) -> Sight {
    let interval = IntervalId(store.next_id().expect("a number"));
    Sight { live: Arc::from([interval]), writer: interval, ..Sight::trunk() }
}

fn set(store: &Store, sight: &Sight, value: &[u8]) -> Result<(), StoreError> {
    let mut batch = Batch::new(store, sight);
    batch.put_xattr(Ino::ROOT, b"user.key", value)?;
    store.apply(batch)
}

fn get(store: &Store, sight: &Sight) -> Option<Vec<u8>> {
    store.xattr(sight, Ino::ROOT, b"user.key").expect("a read").found
}

/// Writes a file whose bytes lie in a content file.
fn write(store: &Store, sight: &Sight) -> Inode {
    let root = store.inode(sight, Ino::ROOT).expect("a read").found.expect("the root");
    let (mut inode, mut batch) = (Inode { nlink: 1, ..root }, Batch::new(store, sight));
    store.write_content(sight, &mut batch, &mut inode, 0, &[7; LARGE]).expect("a write");
    batch.put_inode(FILE, &inode).expect("a record");
    store.apply(batch).expect("a batch");
    inode
}

fn held(spec: SpecId, sight: &Sight) -> Held {
    let (intervals, snapshot) = (sight.live.to_vec(), sight.snapshot);
    Held { spec, intervals, snapshot, payload: Vec::new(), parts: Specs::default() }
}

#[test]
fn what_is_written_after_a_restart_is_not_hidden_by_what_was_written_after_a_beginning_that_failed() {
    let place = Faulty::of(CAPACITY_BYTES);
    let store = open(&place);
    place.plan_next(Fault::Fail, |call| call == Call::Apply { synced: false }, 0);
    store.take_snapshot().err().expect("its epoch could not be reserved");
    set(&store, &Sight::trunk(), b"before").expect("the records are opened again");
    drop(store);
    let store = open(&place);
    set(&store, &Sight::trunk(), b"after").expect("a write");
    assert_eq!(get(&store, &Sight::trunk()).as_deref(), Some(&b"after"[..]));
}

#[test]
fn what_could_not_be_held_is_not_held_later() {
    // Whether the record is found when the records are opened again is chosen by the seed.
    let mut refused = 0;
    for seed in 0..16 {
        let place = Faulty::of(CAPACITY_BYTES);
        let store = open(&place);
        let (spec, job) = (store.next_spec().expect("a number"), job(&store));
        set(&store, &job, b"undecided").expect("a write");
        store.sync_log().expect("a sync");
        place.plan_next(Fault::FailSync, |call| call == Call::SyncRecords, seed);
        let is_held = match store.hold(&held(spec, &job)) {
            Ok(()) => true,
            Err(error) => {
                refused += 1;
                // The log has lost it, and may have lost more: nothing goes on before the next start.
                assert!(matches!(error, StoreError::Stopped(_)), "{error}");
                store.abort(&job.live, &[]).expect("an abort in memory");
                let stopped = store.reclaim(&|_| false).err();
                assert!(matches!(stopped, Some(StoreError::Stopped(_))), "{stopped:?}");
                false
            }
        };
        drop(store);
        let store = open(&place);
        while store.reclaim(&|_| false).expect("a step").more {}
        assert_eq!(store.held().expect("what is held").len(), usize::from(is_held), "seed {seed}");
        assert_eq!(get(&store, &job).is_some(), is_held, "seed {seed}");
    }
    assert!((1..16).contains(&refused), "both happen: {refused}");
}

#[test]
fn new_content_files_that_may_not_be_there_are_told_to_whoever_syncs_them_ever_after() {
    let place = Faulty::of(CAPACITY_BYTES);
    let store = open(&place);
    let job = job(&store);
    write(&store, &job);
    place.plan_next(Fault::FailSync, |call| call == Call::SyncNames, 0);
    for _ in 0..2 {
        store.sync_early(&job.live).expect_err("it may not be there");
    }
    let refused = store.commit(&job.live, &Specs::default(), &[], &[]).err();
    assert!(matches!(refused, Some(StoreError::NotCommitted(_))), "{refused:?}");
    store.abort(&job.live, &[]).expect("an abort");
    // What others write is not concerned.
    let inode = write(&store, &Sight::trunk());
    store.sync_file(&inode).expect("a sync");
}

#[test]
fn a_disk_that_has_lost_what_was_applied_stops_the_store_before_it_is_committed_in_part() {
    let mut stopped = 0;
    for seed in 0..16 {
        let place = Faulty::of(CAPACITY_BYTES);
        let store = open(&place);
        let job = job(&store);
        set(&store, &job, b"undecided").expect("a write");
        place.plan_next(Fault::FailSync, |call| call == Call::SyncRecords, seed);
        let synced = store.sync_log();
        let committed = store.commit(&job.live, &Specs::default(), &[], &[]);
        match committed {
            Ok(_) => assert_eq!(get(&store, &Sight::trunk()).as_deref(), Some(&b"undecided"[..]), "seed {seed}"),
            Err(error) => {
                stopped += 1;
                assert!(matches!(synced, Err(StoreError::Stopped(_))), "seed {seed}: {synced:?}");
                assert!(matches!(error, StoreError::NotCommitted(_)), "seed {seed}: {error}");
            }
        }
        drop(store);
        let is_there = get(&open(&place), &Sight::trunk()).is_some();
        assert!(is_there || stopped > 0, "seed {seed}");
    }
    assert!((1..16).contains(&stopped), "both happen: {stopped}");
}

#[test]
fn a_store_that_was_being_made_when_the_power_was_cut_is_no_store_and_can_be_made() {
    let place = Faulty::of(CAPACITY_BYTES);
    // Records were opened, and nothing came to be recorded.
    drop(place.take(Access::Change).and_then(|taken| taken.records(OPTIONS.memory_bytes)).expect("records"));
    assert!(matches!(fsck(&place, OPTIONS, &mut |_| {}), Err(StoreError::NoStore(_))));
    drop(open(&place));
    assert!(fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked").problems.is_empty());
}

#[test]
fn what_is_lost_of_a_removed_file_is_not_said_to_be_of_the_one_that_has_its_name_now() {
    let place = Faulty::of(CAPACITY_BYTES);
    let store = open(&place);
    let (trunk, name, other) = (Sight::trunk(), b"name", Ino(1001));
    let mut inode = write(&store, &trunk);
    // It was called so, and another is now.
    inode.home = (Ino::ROOT, name.to_vec());
    let mut batch = Batch::new(&store, &trunk);
    batch.put_inode(FILE, &Inode { nlink: 0, ..inode.clone() }).expect("a record");
    batch.add_orphan(FILE).expect("a record");
    let entry = Entry { ino: other, kind: FileKind::Regular };
    batch.put_inode(other, &Inode { content: None, size: 0, kind: FileKind::Regular, ..inode }).expect("a record");
    batch.put_entry(Ino::ROOT, name, &entry).expect("a record");
    store.apply(batch).expect("a batch");
    drop(store);
    let taken = place.take(Access::Change).expect("nobody has it");
    let blobs = taken.blobs().expect("blobs");
    blobs.list().expect("a list").into_iter().for_each(|blob| blobs.remove(blob).expect("it goes"));
    drop((blobs, taken));
    let problems = fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked").problems;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].ends_with(" is missing; it belongs to inode 1000"), "{problems:?}");
}

#[test]
fn a_commit_of_a_write_that_failed_and_is_there_all_the_same_is_durable() {
    let mut committed = 0;
    for seed in 0..32 {
        let place = Faulty::of(CAPACITY_BYTES);
        let store = open(&place);
        let (spec, job) = (store.next_spec().expect("a number"), job(&store));
        store.sync().expect("a sync");
        place.plan_next(Fault::Fail, |call| call == Call::Apply { synced: false }, seed);
        set(&store, &job, b"undecided").expect_err("it fails");
        let is_there = get(&store, &job).is_some();
        store.sync_early(&job.live).expect("a sync");
        store.commit(&job.live, &[spec].into_iter().collect(), &[], &[]).expect("a commit");
        let found = place.crash(seed);
        drop(store);
        let store = open(&found);
        assert_eq!(get(&store, &Sight::trunk()).is_some(), is_there, "seed {seed}");
        assert_eq!(store.remembers(spec), Remembered::Committed, "seed {seed}");
        committed += usize::from(is_there);
    }
    assert!((1..32).contains(&committed), "both happen: {committed}");
}
