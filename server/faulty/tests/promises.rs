//! Space that was promised is there, however full the disk becomes: random histories of one file, held against the pages that
//! were promised, said as plainly as can be.

use mojavefs::id::{Ino, IntervalId};
use mojavefs::limits::BLOCK_BYTES;
use mojavefs::protocol::FallocateMode;
use mojavefs::protocol::fault::{Fault as Refusal, FaultKind};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs_faulty::{Call, Fault, Faulty, Random};
use mojavefs_server::limits::INLINE_BYTES_MAX;
use mojavefs_server::ops::{NewFile, Ops, Scope, SetIds, SystemClock};
use mojavefs_server::store::{Sight, Store, StoreOptions, fsck};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;
const PAGE: u64 = 4096;
const PAGES: u64 = 5 * BLOCK_BYTES / PAGE;

struct File {
    place: Faulty,
    ops: Ops,
    scope: Scope,
    ino: Ino,
    bytes: Vec<u8>,
    /// The numbers of the pages that were promised.
    promised: BTreeSet<u64>,
}

fn ops_on(place: &Faulty) -> Ops {
    Ops::new(Arc::new(Store::open(place, OPTIONS).expect("the store opens")), Arc::new(SystemClock))
}

fn scope_of(sight: Sight) -> Scope {
    Scope { sight, accesses: None, over: Arc::default() }
}

/// Takes the space for a range, in as many steps as it needs; what was taken for nothing is given back.
fn allocate(ops: &Ops, scope: &Scope, ino: Ino, range: Range<u64>, keep_size: bool) -> Result<(), Refusal> {
    let (mut at, mut new) = (range.start, Vec::new());
    let mut take = || {
        while at < range.end {
            let step = ops.allocate(scope, ino, at..range.end)?;
            new.extend(step.new);
            at = step.until;
            step.refused.map_or(Ok(()), Err)?;
        }
        let len = range.end - range.start;
        ops.fallocate(scope, ino, (range.start, len), FallocateMode::Allocate { keep_size }, SetIds::Stay).map(drop)
    };
    let taken = take();
    if taken.is_err() {
        new.iter().for_each(|blocks| ops.unallocate(scope, ino, blocks).expect("it is given back"));
    }
    taken
}

impl File {
    fn new() -> Self {
        let place = Faulty::of(CAPACITY_BYTES);
        let (ops, scope) = (ops_on(&place), scope_of(Sight::trunk()));
        let new = NewFile { kind: FileKind::Regular, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target: b"" };
        let ino = ops.create(&scope, Ino::ROOT, b"file", new).expect("a file").ino;
        File { place, ops, scope, ino, bytes: Vec::new(), promised: BTreeSet::new() }
    }

    fn allocate(&mut self, range: Range<u64>, keep_size: bool) {
        allocate(&self.ops, &self.scope, self.ino, range.clone(), keep_size).expect("there is space");
        self.promised.extend(range.start.div_ceil(PAGE)..range.end / PAGE);
        if !keep_size {
            self.bytes.resize(self.bytes.len().max(range.end as usize), 0);
        }
    }

    fn write(&mut self, at: u64, len: u64, byte: u8) -> Result<(), Refusal> {
        let data = vec![byte; len as usize];
        self.ops.write(&self.scope, self.ino, (at, false), &data, SetIds::Stay)?;
        let end = (at + len) as usize;
        self.bytes.resize(self.bytes.len().max(end), 0);
        self.bytes[at as usize..end].fill(byte);
        Ok(())
    }

    fn resize(&mut self, size: u64) {
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        self.ops.set_attr(&self.scope, self.ino, &set, 0).expect("a size");
        if size <= self.bytes.len() as u64 {
            self.promised.retain(|page| size > INLINE_BYTES_MAX && (page + 1) * PAGE <= size);
        }
        self.bytes.resize(size as usize, 0);
    }

    fn punch(&mut self, at: u64, len: u64) {
        let mode = FallocateMode::PunchHole;
        self.ops.fallocate(&self.scope, self.ino, (at, len), mode, SetIds::Stay).expect("a hole");
        let (size, mut end) = (self.bytes.len() as u64, at + len);
        self.bytes[at.min(size) as usize..end.min(size) as usize].fill(0);
        if at < size && end >= size {
            // With the last byte of a file goes the rest of its block.
            end = end.max(size.next_multiple_of(BLOCK_BYTES));
        }
        self.promised.retain(|page| (page + 1) * PAGE <= at || page * PAGE >= end);
    }

    fn any_change(&mut self, random: &mut Random) {
        let (at, len) = (random.below(PAGES * PAGE), 1 + random.below(2 * BLOCK_BYTES));
        match random.below(12) {
            0..=2 => self.allocate(at..at + len, random.coin()),
            3 => self.allocate(0..1 + random.below(3 * PAGE), random.coin()),
            4 | 5 => self.write(at, len, 1 + random.below(255) as u8).expect("there is space"),
            6 => self.write(random.below(100), 1 + random.below(200), 7).expect("there is space"),
            7 => self.resize([0, 100, INLINE_BYTES_MAX, at][random.below(4) as usize]),
            8 => self.resize(self.bytes.len() as u64 + random.below(2 * BLOCK_BYTES)),
            9 => self.punch(at, len),
            10 => self.punch(at / BLOCK_BYTES * BLOCK_BYTES, BLOCK_BYTES),
            _ => self.reclaim(),
        }
    }

    fn reclaim(&self) {
        let store = self.ops.store();
        while store.reclaim_space().expect("a step") > 0 || store.reclaim(&|_| true).expect("a step").more {}
    }

    fn read(&self, scope: &Scope) -> Vec<u8> {
        let mut read = Vec::new();
        loop {
            let piece = self.ops.read(scope, self.ino, read.len() as u64, 1 << 20).expect("bytes");
            if piece.is_empty() {
                return read;
            }
            read.extend(piece);
        }
    }

    fn check(&self) {
        let attr = self.ops.get_attr(&self.scope, self.ino).expect("attributes");
        assert_eq!(attr.size, self.bytes.len() as u64);
        let promised = self.promised.len() as u64 * PAGE;
        assert!(attr.blocks * 512 >= promised, "{} blocks are shown of {promised} bytes", attr.blocks);
        let read = self.read(&self.scope);
        let differ = read.iter().zip(&self.bytes).position(|(found, expected)| found != expected);
        assert!(differ.is_none() && read.len() == self.bytes.len(), "byte {differ:?} is another one");
    }

    /// Others take all that is left on the disk, before anything is done next.
    fn fill_disk(&self) {
        self.place.plan_next(Fault::Full, Call::changes, 1);
    }
}

#[test]
fn what_was_promised_can_be_written_on_a_full_disk() {
    let seeds = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 3000 } else { 150 };
    for seed in 0..seeds {
        let (mut file, mut random) = (File::new(), Random::new(seed));
        for _ in 0..15 {
            file.any_change(&mut random);
            file.check();
        }
        file.fill_disk();
        for page in file.promised.clone() {
            let written = file.write(page * PAGE, PAGE, page as u8 | 1);
            assert!(written.is_ok(), "page {page}, seed {seed}: {written:?}");
        }
        file.check();
        file.place.mend();
        let File { place, ops, .. } = file;
        drop(ops);
        let report = fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked");
        assert!(report.problems.is_empty(), "seed {seed}: {:?}", report.problems);
    }
}

#[test]
fn more_than_there_is_is_refused_and_nothing_of_it_is_kept() {
    let mut file = File::new();
    file.write(0, 3 * BLOCK_BYTES, 5).expect("there is space");
    let used = |file: &File| {
        file.reclaim();
        file.ops.store().space().expect("a look").available_bytes / BLOCK_BYTES
    };
    let (before, available) = (file.ops.get_attr(&file.scope, file.ino).expect("attributes").blocks, used(&file));
    for len in [CAPACITY_BYTES, 10 << 40, available * BLOCK_BYTES] {
        let refused = allocate(&file.ops, &file.scope, file.ino, 0..len, false).expect_err("so much is not there");
        assert_eq!(refused.kind, FaultKind::NoSpace);
    }
    // Somebody takes it while it is being promised.
    file.place.plan_next(Fault::Full, |call| call == Call::Allocate, 1);
    let refused = allocate(&file.ops, &file.scope, file.ino, 0..20 << 20, false).expect_err("it is gone");
    assert_eq!(refused.kind, FaultKind::NoSpace);
    file.place.mend();
    file.place.grow(CAPACITY_BYTES);
    file.check();
    assert_eq!(file.ops.get_attr(&file.scope, file.ino).expect("attributes").blocks, before);
}

#[test]
fn a_job_that_allocates_what_was_there_before_it_can_write_all_of_it() {
    let mut file = File::new();
    file.write(0, 40 * BLOCK_BYTES, 5).expect("there is space");
    let interval = IntervalId(file.ops.store().next_id().expect("a number"));
    let sight = Sight { live: Arc::from([interval]), writer: interval, ..Sight::trunk() };
    let trunk = std::mem::replace(&mut file.scope, scope_of(sight));
    file.allocate(BLOCK_BYTES..41 * BLOCK_BYTES, false);
    file.fill_disk();
    for block in 1..41 {
        file.write(block * BLOCK_BYTES, BLOCK_BYTES, block as u8).expect("it was promised");
    }
    file.check();
    assert!(file.read(&trunk) == vec![5; 40 * BLOCK_BYTES as usize], "trunk sees nothing of it");
}
