//! Everybody in one thread: whenever something waits for the disk, others act, as a seed chooses, and what they do ends before the disk
//! answers. Sessions, views, the graph, the access index, the store, and a disk that fails.
//!
//! What they do is to make, rename and remove files, each its own, and to count: each reads a counter and writes one more, those that
//! see nothing of others perhaps after others have acted. Whatever is committed, each counter says how often it was counted by that and
//! on trunk, and the files are there that it has made: nothing is lost, nothing undone is left.

mod kernel;
mod world;

use kernel::Counts;
use mojavefs::planted::{Planted, VARIABLE};
use mojavefs_faulty::{Call, Fault, Faulty, Random};
use mojavefs_server::Server;
use mojavefs_server::store::{StoreOptions, fsck};
use parking_lot::Mutex;
use std::cell::{Cell, RefCell};
use std::process::Command;
use std::rc::Rc;
use world::World;

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;
const COUNTERS: usize = 4;
const JOBS_MAX: usize = 5;
/// In each life of a server.
const ACTIONS: u64 = 40;
const LIVES: usize = 2;
/// How many may wait for the disk at a time.
const DEPTH_MAX: usize = 4;
/// How many act while one waits.
const BESIDE_MAX: u64 = 6;
const HISTORIES: u64 = 200;
/// Each leaves threads behind, of servers that were killed.
const HISTORIES_OF_SOAK: u64 = 2000;

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    /// Its record is being written: here the disk may fail.
    static IS_DECIDING: Cell<bool> = const { Cell::new(false) };
}

/// Ends the world however a history ends, and shows what led to a failure.
struct Ends(u64);

impl Drop for Ends {
    fn drop(&mut self) {
        IS_DECIDING.set(false);
        let world = WORLD.take();
        if std::thread::panicking()
            && let Some(world) = world
        {
            eprintln!("seed {}:\n{}", self.0, world.told());
        }
    }
}

/// From now on whoever waits for this disk lets others act; and records of decisions fail, if they are to.
fn watch(place: &Faulty, seed: u64, fails: bool) {
    let (failing, faulty) = (fails.then(|| Mutex::new(Random::new(seed ^ 0xfa11))), place.clone());
    place.before_each(move |call| {
        // The server's own threads have no world.
        let Some(world) = WORLD.with_borrow(Clone::clone) else { return };
        let is_record = |call: Call| IS_DECIDING.get() && matches!(call, Call::Apply { .. });
        if call == Call::SyncRecords {
            world.waits();
        }
        if is_record(call) && failing.as_ref().is_some_and(|failing| failing.lock().below(8) == 0) {
            faulty.plan_next(Fault::Fail, is_record, seed);
        }
    });
}

/// Ends the server, in order or as if it were killed, and opens the store again where it lies now.
fn open_again(world: &World, place: Faulty, server: Server) -> (Faulty, Server) {
    place.before_each(|_| ());
    let opened = (world.leaves(), server);
    let is_killed = world.below(2) == 0;
    let place = match is_killed {
        // It ends nothing in order. Its threads stay until the test ends.
        true => {
            std::mem::forget(opened);
            place.kill()
        }
        false => {
            drop(opened);
            place
        }
    };
    world.say(|| format!("{}; the store is opened again", if is_killed { "killed" } else { "ended" }));
    let problems = fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked").problems;
    assert!(problems.is_empty(), "{}", problems[0]);
    let server = Server::open(&place, OPTIONS).expect("the store opens");
    world.goes_on(server.connect(false));
    (place, server)
}

/// How often somebody has acted while another waited, and what trunk's kernel has seen.
fn history(seed: u64, fails: bool) -> (u64, Counts) {
    let mut place = Faulty::of(CAPACITY_BYTES);
    let mut server = Server::open(&place, OPTIONS).expect("the store opens");
    let world = World::new(seed, server.connect(false), fails);
    WORLD.set(Some(world.clone()));
    let _ends = Ends(seed);
    for _ in 0..LIVES {
        watch(&place, seed, fails);
        for _ in 0..ACTIONS {
            world.act();
        }
        if world.below(2) == 0 {
            world.end();
            world.check();
        }
        (place, server) = open_again(&world, place, server);
    }
    world.end();
    world.check();
    drop((world.leaves(), server));
    world.counts()
}

/// One seed, or all of them.
fn seeds() -> std::ops::Range<u64> {
    let is_soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("MOJAVEFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MOJAVEFS_SEEDS").unwrap_or(if is_soak { HISTORIES_OF_SOAK } else { HISTORIES }),
    }
}

/// Takes a build with faults in it (`make planted`), each of which the histories must find.
#[test]
#[ignore = "takes a build with planted faults: make planted"]
fn planted_faults_of_kernels_are_found() {
    for fault in Planted::OF_KERNELS {
        let mut command = Command::new(std::env::current_exe().expect("a test knows its program"));
        let net = "nothing_that_is_counted_is_lost_whoever_acts_while_another_waits_for_the_disk";
        command.args(["--exact", net, "--nocapture"]).env_remove("MOJAVEFS_SEED").env(VARIABLE, fault.name());
        let output = command.output().expect("it runs");
        assert!(!output.status.success(), "the fault `{}` is not found", fault.name());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let seed = said.lines().find_map(|line| line.strip_prefix("seed "));
        println!("{}: found with seed {}", fault.name(), seed.unwrap_or("unknown"));
    }
}

#[test]
fn nothing_that_is_counted_is_lost_whoever_acts_while_another_waits_for_the_disk() {
    let (mut beside, mut kernel) = (0, Counts::default());
    for seed in seeds() {
        let (more, Counts { kept, provisional, forgotten }) = history(seed, false);
        beside += more;
        kernel.kept += kept;
        kernel.provisional += provisional;
        kernel.forgotten += forgotten;
    }
    let histories = seeds().end - seeds().start;
    let is_enough = beside > histories
        && kernel.kept > histories
        && kernel.provisional > histories / 10
        && kernel.forgotten > histories / 10;
    assert!(histories == 1 || is_enough, "too little was tried: {beside} acts beside others, {kernel:?}");
    println!("{histories} histories: {beside} acts beside others, {kernel:?}");
}

#[test]
fn nor_where_records_of_decisions_cannot_be_written() {
    for seed in seeds() {
        history(seed, true);
    }
}
