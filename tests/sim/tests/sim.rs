//! Histories that seeds choose. `MOJAVEFS_SEED` repeats one, `MOJAVEFS_SEEDS` says how many.

use mojavefs::planted::{Planted, VARIABLE};
use mojavefs_sim::{Counts, history};
use std::process::Command;
use std::time::Instant;

const HISTORIES: u64 = 1000;
/// Each leaves threads behind, of servers that were killed.
const HISTORIES_OF_SOAK: u64 = 10_000;
/// A server that checks itself compares its graph with the naive model after each event.
const CHECKED_HISTORIES: u64 = 150;
/// Has servers check themselves.
const CHECK: &str = "MOJAVEFS_CHECK";

/// One seed, or all of them.
fn seeds() -> std::ops::Range<u64> {
    let is_soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse().ok());
    match number("MOJAVEFS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MOJAVEFS_SEEDS").unwrap_or(if is_soak { HISTORIES_OF_SOAK } else { HISTORIES }),
    }
}

fn histories(seeds: std::ops::Range<u64>, fails: bool) -> Counts {
    let (begin, mut all) = (Instant::now(), Counts::default());
    for seed in seeds.clone() {
        all.add(&history(seed, fails));
    }
    let rate = all.steps as f64 / begin.elapsed().as_secs_f64();
    println!("{} histories, {rate:.0} steps per second: {all:?}", seeds.end - seeds.start);
    all
}

#[test]
fn nothing_is_lost_and_nobody_sees_what_is_not_so_whoever_acts_while_another_waits() {
    let found = histories(seeds(), false);
    let histories = seeds().end - seeds().start;
    let tried = [
        ("steps beside others", found.beside, 10 * histories),
        ("decisions beside others", found.rounds_beside, histories / 2),
        ("what a kernel had kept", found.kept, 5 * histories),
        ("provisional answers", found.provisional, histories / 4),
        ("what was forgotten before it changed", found.forgotten, histories / 4),
        ("reads that were held", found.held_reads, histories / 100),
        ("pages written out later", found.written_later, histories / 1000),
        ("listings beside commits", found.listed_on, histories / 10),
    ];
    for (what, times, least) in tried {
        assert!(histories == 1 || times >= least, "{what}: only {times} in {histories} histories, must be {least}");
    }
}

#[test]
fn nor_where_records_of_decisions_cannot_be_written() {
    // The records are opened again each time, which takes longer.
    let seeds = seeds().start..seeds().end.div_ceil(2).max(seeds().start + 1);
    let histories = seeds.end - seeds.start;
    let found = self::histories(seeds, true);
    assert!(histories == 1 || found.unrecorded >= histories / 10, "too little was tried: {found:?}");
}

/// Runs histories in a process of its own: whether they pass, and what they said.
fn others(test: &str, (variable, value): (&str, &str), histories: Option<u64>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its program"));
    command.args(["--exact", test, "--nocapture"]).env_remove("MOJAVEFS_SEED").env(variable, value);
    command.envs(histories.map(|histories| ("MOJAVEFS_SEEDS", histories.to_string())));
    let output = command.output().expect("it runs");
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

const ALL: &str = "nothing_is_lost_and_nobody_sees_what_is_not_so_whoever_acts_while_another_waits";

#[test]
fn what_the_graph_says_meanwhile_is_what_its_naive_model_says() {
    let (passes, said) = others(ALL, (CHECK, "1"), Some(CHECKED_HISTORIES));
    assert!(passes, "{said}");
}

/// Takes a build with faults in it (`make planted`), each of which the histories must find.
#[test]
#[ignore = "takes a build with planted faults: make planted"]
fn planted_faults_of_kernels_are_found() {
    for fault in Planted::OF_KERNELS {
        let (passes, said) = others(ALL, (VARIABLE, fault.name()), None);
        assert!(!passes, "the fault `{}` is not found", fault.name());
        let seed = said.lines().find_map(|line| line.strip_prefix("seed "));
        println!("{}: found with seed {}", fault.name(), seed.unwrap_or("unknown"));
    }
}
