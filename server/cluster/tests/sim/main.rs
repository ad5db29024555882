//! The simulator of a cluster: coordinators, shards and clients in one thread, killed at any moment, as a seed chooses.
//!
//! `MOJAVEFS_SEED` repeats one run, and prints all that was said in it.

mod client;
mod does;
mod history;
mod job;
mod node;
mod random;
mod store;
mod world;

use mojavefs::planted::{Planted, VARIABLE};
use std::process::Command;
use world::{Counts, World};

/// How many runs there are, and how many steps each has until it ends.
const RUNS: u64 = 1_000;
const RUNS_OF_SOAK: u64 = 25_000;
const STEPS: usize = 20_000;

fn run(seed: u64, trace: bool) -> Counts {
    let mut world = World::new(seed, trace);
    for _ in 0..STEPS {
        world.step(false);
    }
    world.end();
    world.counts
}

#[test]
fn all_servers_decide_as_one_whoever_is_killed_when() {
    let given = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let is_soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let runs = given.map_or(1..=if is_soak { RUNS_OF_SOAK } else { RUNS }, |seed: u64| seed..=seed);
    let mut all = Counts::default();
    for seed in runs {
        println!("MOJAVEFS_SEED={seed}");
        let counts = run(seed, given.is_some());
        all.add(&counts);
    }
    println!("{all:?}");
    assert!(given.is_some() || all.is_enough(), "{all:?}");
}

/// Takes a build with faults in it (`make planted`), each of which the runs must find.
#[test]
#[ignore = "takes a build with planted faults: make planted"]
fn planted_faults_of_clusters_are_found() {
    let runs = "all_servers_decide_as_one_whoever_is_killed_when";
    for fault in Planted::OF_CLUSTERS {
        let mut command = Command::new(std::env::current_exe().expect("a test knows its program"));
        command.args(["--exact", runs, "--nocapture"]).env_remove("MOJAVEFS_SEED").env_remove("MOJAVEFS_SOAK");
        let output = command.env(VARIABLE, fault.name()).output().expect("it runs");
        assert!(!output.status.success(), "the fault `{}` is not found", fault.name());
        let said = String::from_utf8_lossy(&output.stdout);
        let seed = said.lines().filter_map(|line| line.strip_prefix("MOJAVEFS_SEED=")).next_back();
        println!("{}: found with seed {}", fault.name(), seed.unwrap_or("unknown"));
    }
}
