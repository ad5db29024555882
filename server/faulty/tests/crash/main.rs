//! Whatever goes wrong below a store, and wherever in its life: what was acknowledged is there, what was undone is not, what is
//! unknown is there as a whole or not at all, and the store is sound and can be gone on with.
//!
//! A history ([`history`]) is played on a store over a faulty engine, which cuts the power, fails or is full at one call of the
//! doors, and then the store is opened again and looked at. That is done for the calls of each history: in `make test` for some
//! of them, in `make soak` for all, with many seeds. A case that fails is printed, and is repeated by `MOJAVEFS_CASE`.

mod history;
mod look;
mod model;
mod world;

use history::Step;
use mojavefs_faulty::{Fault, Faulty, Random};
use std::fmt::Write;
use world::{Ended, World};

const CAPACITY_BYTES: u64 = 64 << 20;
/// How many calls of a history are hit by each fault, where not all are.
const CALLS_TRIED: u64 = 60;
/// How many histories come from seeds.
const RANDOM_HISTORIES: u64 = 12;

/// One thing that goes wrong, once.
#[derive(Clone, Copy, Debug)]
struct Case {
    fault: Fault,
    at: u64,
    seed: u64,
}

fn is_soak() -> bool {
    std::env::var_os("MOJAVEFS_SOAK").is_some()
}

/// Plays a history while this goes wrong, and looks at what is left.
fn run(history: &[Step], case: Case) -> Result<(), String> {
    let place = Faulty::of(CAPACITY_BYTES);
    place.plan(case.fault, case.at, case.seed);
    if std::env::var_os("MOJAVEFS_CASE").is_some() {
        let traced = place.clone();
        place.before_each(move |call| println!("{:?} after {:?}", call, traced.counts()));
    }
    let mut world = World::new(place.clone());
    let mut ended = world.play(history);
    let mut random = Random::new(case.seed ^ 0x5eed);
    // What the background has not written may be lost though nothing went wrong with it.
    let is_cut = match case.fault {
        Fault::Cut => true,
        Fault::FailSync => random.below(4) > 0,
        Fault::Fail | Fault::Full => random.coin(),
    };
    if ended == Ended::Done && world.has_stopped() {
        ended = Ended::Stopped;
    }
    if ended == Ended::Done {
        place.mend();
        world.compare(false).map_err(|why| format!("before it was closed: {why}"))?;
    }
    let place = if is_cut {
        let found = place.crash(case.seed);
        world.close();
        found
    } else {
        if !world.close() {
            ended = Ended::Cut;
        }
        if ended == Ended::Cut { place.crash(case.seed) } else { place }
    };
    if !world.has_opened {
        // Without a reserve it needs space to begin with.
        place.grow(CAPACITY_BYTES);
    }
    // A store that has stopped says that something was lost.
    world.examine(&place, is_cut || ended == Ended::Stopped)
}

/// How many calls of a history could be hit.
fn calls(history: &[Step], fault: Fault) -> u64 {
    let place = Faulty::of(CAPACITY_BYTES);
    place.plan(fault, u64::MAX, 0);
    let mut world = World::new(place.clone());
    assert_eq!(world.play(history), Ended::Done, "nothing goes wrong");
    world.compare(false).expect("nothing went wrong");
    let calls = place.counts().hit_by(fault);
    assert!(world.close());
    world.examine(&place, false).expect("nothing went wrong");
    calls
}

/// Tries a fault at calls of a history.
fn try_each(name: &str, history: &[Step], fault: Fault) -> (u64, Vec<String>) {
    let calls = calls(history, fault);
    let seeds = if is_soak() { 20 } else { 1 };
    let stride = if is_soak() { 1 } else { calls.div_ceil(CALLS_TRIED) };
    let (mut tried, mut failures) = (0, Vec::new());
    for at in (1..=calls).filter(|at| at % stride == 0 || *at < 20) {
        for seed in 0..seeds {
            // Different calls have different luck.
            let case = Case { fault, at, seed: seed * 1000 + at };
            tried += 1;
            if let Err(why) = run(history, case) {
                let failure = format!("MOJAVEFS_CASE=\"{name}:{fault:?}:{at}:{}\"\n{why}\n", case.seed);
                println!("{failure}");
                failures.push(failure);
            }
        }
    }
    (tried, failures)
}

fn histories() -> Vec<(String, Vec<Step>)> {
    let written = history::written_down().into_iter().map(|(name, steps)| (name.to_owned(), steps));
    let count = if is_soak() { 20 * RANDOM_HISTORIES } else { RANDOM_HISTORIES };
    written.chain((0..count).map(|seed| (seed.to_string(), history::random(seed)))).collect()
}

/// Tries a fault on every history, or only the case that is to be repeated.
fn all(fault: Fault) {
    let histories = histories();
    if let Ok(case) = std::env::var("MOJAVEFS_CASE") {
        return repeat(&histories, &case, fault);
    }
    let (mut tried, mut failures) = (0, Vec::new());
    for (name, history) in &histories {
        let (cases, failed) = try_each(name, history, fault);
        tried += cases;
        failures.extend(failed);
    }
    println!("{tried} cases");
    assert!(failures.is_empty(), "{} of {tried} cases fail, the first of them:\n{}", failures.len(), first(&failures));
}

fn first(failures: &[String]) -> String {
    let mut text = String::new();
    failures.iter().take(5).for_each(|failure| writeln!(text, "{failure}").expect("a string takes all"));
    text
}

fn repeat(histories: &[(String, Vec<Step>)], case: &str, fault: Fault) {
    let parts: Vec<&str> = case.split(':').collect();
    let [name, named, at, seed] = parts[..] else { panic!("MOJAVEFS_CASE is HISTORY:FAULT:CALL:SEED") };
    if named != format!("{fault:?}") {
        return;
    }
    let (_, history) = histories.iter().find(|(known, _)| known == name).expect("there is such a history");
    history.iter().enumerate().for_each(|(at, step)| println!("{at}: {step:?}"));
    let number = |text: &str| text.parse().expect("a number");
    run(history, Case { fault, at: number(at), seed: number(seed) }).unwrap_or_else(|why| panic!("{why}"));
}

#[test]
fn whenever_the_power_is_cut_what_was_acknowledged_is_there_and_nothing_else() {
    all(Fault::Cut);
}

#[test]
fn whichever_call_fails_what_was_acknowledged_is_there_and_nothing_else() {
    all(Fault::Fail);
}

#[test]
fn whenever_the_disk_is_full_what_was_acknowledged_is_there_and_nothing_else() {
    all(Fault::Full);
}

#[test]
fn a_sync_that_fails_and_then_is_silent_loses_nothing_that_was_acknowledged() {
    all(Fault::FailSync);
}
