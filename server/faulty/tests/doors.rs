//! What the doors below the store promise, held against every engine that there is.

use mojavefs_faulty::{Faulty, Random};
use mojavefs_server::store::engine::memory::Memory;
use mojavefs_server::store::engine::{
    Access, BlobId, Blobs, Directory, Engine, EngineError, Family, InPlace, Records, Taken, WriteBatch,
};
use std::collections::BTreeMap;
use std::sync::Arc;

const MEMORY_BYTES: usize = 32 << 20;
const CAPACITY_BYTES: u64 = 64 << 20;

/// Runs a test on each engine.
fn on_each(test: impl Fn(&dyn Engine)) {
    let dir = tempfile::TempDir::new().expect("a directory");
    let engines: [(&str, Box<dyn Engine>); 3] = [
        ("a directory", Box::new(Directory::at(&dir.path().join("store")))),
        ("memory", Box::new(Memory::of(CAPACITY_BYTES))),
        ("a faulty disk", Box::new(Faulty::of(CAPACITY_BYTES))),
    ];
    for (name, engine) in engines {
        println!("on {name}");
        test(&*engine);
    }
}

fn take(engine: &dyn Engine) -> Arc<dyn Taken> {
    engine.take(Access::Change).expect("nobody has it")
}

fn records(taken: &dyn Taken) -> Arc<dyn Records> {
    taken.records(MEMORY_BYTES).expect("the records open")
}

fn put(records: &dyn Records, family: Family, key: &[u8], value: &[u8]) {
    let mut batch = WriteBatch::default();
    batch.put(family, key, value);
    records.apply(&batch, false).expect("a batch");
}

/// All records with a prefix, from a key on.
fn scanned(records: &dyn Records, prefix: &[u8], from: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    let mut scan = records.scan(Family::Data, prefix, from);
    while let Some((key, value)) = scan.item().expect("a look") {
        all.push((key.to_vec(), value.to_vec()));
        scan.next();
    }
    all
}

#[test]
fn one_process_has_a_store_at_a_time_and_who_only_looks_makes_none() {
    on_each(|engine| {
        assert!(matches!(engine.take(Access::Look), Err(EngineError::NoStore(_))));
        let taken = take(engine);
        assert!(taken.is_new());
        assert!(matches!(engine.take(Access::Change), Err(EngineError::InUse(_))));
        drop(records(&*taken));
        drop(taken);
        assert!(!take(engine).is_new());
        assert!(!engine.take(Access::Look).expect("it is there").is_new());
    });
}

#[test]
fn a_discarded_store_was_never_there_and_only_a_new_one_can_be_discarded() {
    on_each(|engine| {
        let taken = take(engine);
        put(&*records(&*taken), Family::Data, b"key", b"value");
        taken.blobs().expect("blobs").create(BlobId(1)).expect("a blob");
        taken.discard();
        drop(taken);
        assert!(matches!(engine.take(Access::Look), Err(EngineError::NoStore(_))));
        let taken = take(engine);
        put(&*records(&*taken), Family::Data, b"other", b"value");
        assert_eq!(taken.blobs().expect("blobs").list().expect("a list"), []);
        drop(taken);
        let taken = take(engine);
        taken.discard();
        assert_eq!(scanned(&*records(&*taken), b"", b"").len(), 1);
    });
}

#[test]
fn records_are_a_map_in_the_order_of_their_keys() {
    on_each(|engine| {
        let taken = take(engine);
        let opened = records(&*taken);
        let (mut model, mut random) = (BTreeMap::new(), Random::new(7));
        let key = |random: &mut Random| {
            let len = 1 + random.below(3);
            (0..len).map(|_| [0, 1, 254, 255][random.below(4) as usize]).collect::<Vec<u8>>()
        };
        for _ in 0..200 {
            let mut batch = WriteBatch::default();
            for _ in 0..random.below(4) {
                let key = key(&mut random);
                let value = random.number().to_be_bytes()[..random.below(9) as usize].to_vec();
                if random.coin() {
                    batch.put(Family::Data, &key, &value);
                    model.insert(key, value);
                } else {
                    batch.delete(Family::Data, &key);
                    model.remove(&key);
                }
            }
            opened.apply(&batch, random.below(8) == 0).expect("a batch");
            let (prefix, from) = (key(&mut random), key(&mut random));
            let within = |key: &[u8], from: &[u8]| key.starts_with(&prefix) && key >= from;
            let expected = |from: &[u8]| {
                let found = model.iter().filter(|(key, _)| within(key, from));
                found.map(|(key, value)| (key.clone(), value.clone())).collect::<Vec<_>>()
            };
            let start = from.clone().max(prefix.clone());
            assert_eq!(scanned(&*opened, &prefix, &start), expected(&start));
            let mut newest = Vec::new();
            opened
                .newest(Family::Data, &prefix, &mut |key, value| {
                    newest.push((key.to_vec(), value.to_vec()));
                    newest.len() < 2
                })
                .expect("a look");
            assert_eq!(newest[..], expected(&[])[..newest.len()]);
            assert_eq!(newest.len(), expected(&[]).len().min(2));
            assert_eq!(opened.get(Family::Data, &from).expect("a look"), model.get(&from).cloned());
            assert_eq!(opened.contains(Family::Data, &from).expect("a look"), model.contains_key(&from));
            assert_eq!(opened.get(Family::Changes, &from).expect("a look"), None, "families are apart");
        }
        opened.sync().expect("a sync");
        opened.flush().expect("a flush");
        let reached = opened.reached();
        drop(opened);
        let opened = records(&*taken);
        assert_eq!(scanned(&*opened, b"", b""), model.into_iter().collect::<Vec<_>>());
        assert!(opened.reached() >= reached, "nothing was lost");
    });
}

#[test]
fn of_two_changes_of_a_key_in_one_batch_the_last_holds() {
    on_each(|engine| {
        let opened = records(&*take(engine));
        let mut batch = WriteBatch::default();
        batch.put(Family::Meta, b"a", b"1");
        batch.delete(Family::Meta, b"a");
        batch.delete(Family::Meta, b"b");
        batch.put(Family::Meta, b"b", b"2");
        opened.apply(&batch, true).expect("a batch");
        assert_eq!(opened.get(Family::Meta, b"a").expect("a look"), None);
        assert_eq!(opened.get(Family::Meta, b"b").expect("a look").as_deref(), Some(&b"2"[..]));
    });
}

#[test]
fn a_walk_goes_on_over_what_was_there_when_it_began() {
    on_each(|engine| {
        let opened = records(&*take(engine));
        for key in [b"a1", b"a3", b"a5"] {
            put(&*opened, Family::Data, key, b"old");
        }
        let mut scan = opened.scan(Family::Data, b"a", b"a");
        for key in [b"a2", b"a3", b"a4"] {
            put(&*opened, Family::Data, key, b"new");
        }
        let mut batch = WriteBatch::default();
        batch.delete(Family::Data, b"a5");
        opened.apply(&batch, false).expect("a batch");
        let mut seen = Vec::new();
        while let Some((key, value)) = scan.item().expect("a look") {
            seen.push((key.to_vec(), value.to_vec()));
            scan.next();
        }
        let expected = [b"a1", b"a3", b"a5"].map(|key| (key.to_vec(), b"old".to_vec()));
        assert_eq!(seen, expected);
        scan.seek(b"a2");
        assert_eq!(scan.item().expect("a look"), Some((&b"a3"[..], &b"old"[..])));
        scan.seek(b"b");
        assert_eq!(scan.item().expect("a look"), None);
    });
}

fn in_place(blobs: &dyn Blobs) -> &dyn InPlace {
    blobs.in_place().expect("every engine so far changes blobs in place")
}

#[test]
fn blobs_are_bytes_with_holes() {
    on_each(|engine| {
        let taken = take(engine);
        // Without records there is no store.
        drop(records(&*taken));
        let blobs = taken.blobs().expect("blobs");
        let (blob, mut model, mut random) = (BlobId(3), Vec::new(), Random::new(11));
        blobs.create(blob).expect("a blob");
        for _ in 0..200 {
            let (offset, len) = (random.below(60_000), 1 + random.below(20_000));
            let end = (offset + len) as usize;
            match random.below(5) {
                0 => {
                    in_place(&*blobs).extend(blob, end as u64).expect("it is longer");
                    model.resize(model.len().max(end), 0);
                }
                1 => {
                    in_place(&*blobs).punch(blob, offset, len).expect("a hole");
                    let end = end.min(model.len());
                    model[(offset as usize).min(end)..end].fill(0);
                }
                2 => {
                    let (at, end) = (offset as usize, end.min(model.len()));
                    if at < end {
                        in_place(&*blobs).allocate(blob, offset, (end - at) as u64).expect("there is space");
                    }
                    let next = blobs.next_data(blob, offset).expect("a look").map_or(model.len(), |at| at as usize);
                    assert!(model.get(at..next).is_none_or(|bytes| bytes.iter().all(|byte| *byte == 0)));
                }
                3 => blobs.sync(blob).and_then(|()| blobs.sync_names()).expect("a sync"),
                _ => {
                    let data = vec![1 + random.below(255) as u8; len as usize];
                    in_place(&*blobs).write(blob, offset, &data).expect("a write");
                    in_place(&*blobs).start_write_out(blob).expect("it begins");
                    model.resize(model.len().max(end), 0);
                    model[offset as usize..end].copy_from_slice(&data);
                }
            }
            assert_eq!(blobs.len(blob).expect("a look"), model.len() as u64);
            let offset = random.below(80_000);
            let mut buffer = vec![7; 30_000];
            let count = blobs.read(blob, offset, &mut buffer).expect("a look");
            let expected = model.get(offset as usize..).unwrap_or_default();
            assert_eq!(buffer[..count], expected[..expected.len().min(30_000)]);
        }
        blobs.sync_all().expect("a sync");
        drop(blobs);
        drop(taken);
        let blobs = take(engine).blobs().expect("blobs");
        let mut buffer = vec![0; model.len()];
        assert_eq!(blobs.read(blob, 0, &mut buffer).expect("a look"), model.len());
        assert!(buffer == model);
    });
}

#[test]
fn blobs_come_and_go_and_one_that_is_missing_is_said_to_be() {
    on_each(|engine| {
        let taken = take(engine);
        let blobs = taken.blobs().expect("blobs");
        for blob in [1, 2, u64::MAX].map(BlobId) {
            blobs.create(blob).expect("a blob");
        }
        blobs.remove(BlobId(2)).expect("it goes");
        blobs.remove(BlobId(2)).expect("it is gone");
        blobs.sync_names().expect("a sync");
        let mut list = blobs.list().expect("a list");
        list.sort_unstable();
        assert_eq!(list, [BlobId(1), BlobId(u64::MAX)]);
        let missing = BlobId(2);
        let errors = [
            blobs.len(missing).map(drop),
            blobs.read(missing, 0, &mut [0]).map(drop),
            blobs.sync(missing),
            in_place(&*blobs).extend(missing, 1),
            in_place(&*blobs).write(missing, 0, b"x"),
            in_place(&*blobs).punch(missing, 0, 1),
        ];
        for (at, error) in errors.into_iter().enumerate() {
            let error = error.expect_err("it is missing");
            assert!(matches!(&error, EngineError::Missing(name) if *name == blobs.name(missing)), "{at}: {error:?}");
        }
    });
}

#[test]
fn what_is_reserved_is_nobody_elses_until_it_is_released() {
    const RESERVED: u64 = 8 << 20;
    on_each(|engine| {
        let taken = take(engine);
        let space = taken.space();
        assert_eq!(space.reserved().expect("a look"), 0);
        assert!(!space.release().expect("nothing is released"));
        let before = space.info().expect("a look");
        assert!(before.available_bytes <= before.total_bytes);
        space.reserve(RESERVED).expect("there is that much");
        assert_eq!(space.reserved().expect("a look"), RESERVED);
        space.reserve(RESERVED / 2).expect("instead of the other");
        assert_eq!(space.reserved().expect("a look"), RESERVED / 2);
        let too_much = space.reserve(1 << 60).expect_err("nobody has that");
        assert!(matches!(too_much, EngineError::Full(_) | EngineError::Io { .. }), "{too_much:?}");
        assert_eq!(space.reserved().expect("a look"), 0, "all or nothing");
        space.reserve(RESERVED).expect("there is that much");
        assert!(space.release().expect("it is released"));
        assert_eq!(space.reserved().expect("a look"), 0);
    });
}
