//! The lives of a server: each ends in order, or as if it were killed.

use crate::world::World;
use crate::{Counts, IS_DECIDING, WORLD};
use mojavefs_faulty::{Call, Fault, Faulty, Random};
use mojavefs_server::Server;
use mojavefs_server::store::{StoreError, StoreOptions, fsck};
use parking_lot::Mutex;
use std::rc::Rc;
use std::time::{Duration, Instant};

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;
/// In each life of a server.
const ACTIONS: u64 = 60;
const LIVES: usize = 2;
/// How long the end of a server may take.
const LET_GO_TIME_MAX: Duration = Duration::from_secs(20);

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
fn open_again(world: &Rc<World>, place: Faulty, server: Server) -> (Faulty, Server) {
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
    let problems = problems(&place);
    assert!(problems.is_empty(), "{}", problems[0]);
    let server = open(&place);
    world.goes_on(server.connect(true));
    (place, server)
}

/// What is wrong with a store. A thread that tells a kernel of names may let go of the server a moment after it has ended.
fn problems(place: &Faulty) -> Vec<String> {
    let deadline = Instant::now() + LET_GO_TIME_MAX;
    loop {
        match fsck(place, OPTIONS, &mut |_| {}) {
            Err(StoreError::InUse(_)) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
            checked => return checked.expect("it is checked").problems.iter().map(ToString::to_string).collect(),
        }
    }
}

fn open(place: &Faulty) -> Server {
    let server = Server::open(place, OPTIONS).expect("the store opens");
    server.tell_in_turn();
    server
}

/// Plays what a seed says, where records of decisions fail now and then if they are to; what there was. Panics if anything is not as it
/// must be.
pub fn history(seed: u64, fails: bool) -> Counts {
    let mut place = Faulty::of(CAPACITY_BYTES);
    let mut server = open(&place);
    let world = World::new(seed, server.connect(true), fails);
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
