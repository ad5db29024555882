//! What single steps of the store cost.

use divan::{Bencher, black_box};
use mojavefs::id::{Ino, IntervalId};
use mojavefs_server::store::engine::Directory;
use mojavefs_server::store::{Batch, Sight, Specs, Store, StoreOptions};
use std::sync::Arc;
use tempfile::TempDir;

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 64 << 20, owner: (0, 0) };

fn main() {
    divan::main();
}

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().expect("a directory for the store");
    let store = Store::open(&Directory::at(dir.path()), OPTIONS).expect("the store opens");
    (dir, store)
}

fn sight(store: &Store) -> Sight {
    let interval = IntervalId(store.next_id().expect("a number"));
    Sight { live: Arc::from([interval]), writer: interval, ..Sight::trunk() }
}

fn write(store: &Store, sight: &Sight, name: &str) {
    let root = store.inode(sight, Ino::ROOT).expect("a read").found.expect("the root");
    let mut batch = Batch::new(store, sight);
    batch.put_xattr(Ino::ROOT, name.as_bytes(), b"value").expect("a record");
    batch.put_inode(Ino::ROOT, &root).expect("a record");
    store.apply(batch).expect("applied");
}

#[divan::bench]
fn two_small_records(bencher: Bencher<'_, '_>) {
    let (_dir, store) = store();
    let sight = sight(&store);
    bencher.bench_local(|| write(&store, &sight, "user.name"));
}

/// The newest version that a view sees, among those of so many others.
#[divan::bench(args = [0, 10, 100])]
fn read_beside_versions(bencher: Bencher<'_, '_>, others: usize) {
    let (_dir, store) = store();
    let mine = sight(&store);
    write(&store, &mine, "user.name");
    (0..others).for_each(|_| write(&store, &sight(&store), "user.name"));
    bencher.bench_local(|| black_box(store.xattr(&mine, Ino::ROOT, b"user.name")).expect("a read"));
}

/// A commit, synced, of so many changed names.
#[divan::bench(args = [1, 1000], sample_count = 20, sample_size = 1)]
fn commit(bencher: Bencher<'_, '_>, changes: usize) {
    let (_dir, store) = store();
    let changed = || {
        let sight = sight(&store);
        (0..changes).for_each(|number| write(&store, &sight, &format!("user.{number}")));
        store.sync_log().expect("synced");
        sight.writer
    };
    bencher
        .with_inputs(changed)
        .bench_local_values(|writer| store.commit(&[writer], &Specs::default(), &[], &[]).expect("a commit"));
}

#[divan::bench(args = [1, 1000], sample_count = 20, sample_size = 1)]
fn abort(bencher: Bencher<'_, '_>, changes: usize) {
    let (_dir, store) = store();
    let changed = || {
        let sight = sight(&store);
        (0..changes).for_each(|number| write(&store, &sight, &format!("user.{number}")));
        sight.writer
    };
    bencher.with_inputs(changed).bench_local_values(|writer| store.abort(&[writer], &[]).expect("an abort"));
}
