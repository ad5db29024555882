//! Every call that moves bytes, or asks for sizes and holes, against the same on the host; also where memory is short.

use mojavefs_harness::{Mount, require_root};
use mojavefs_nets::empty::Standing;
use mojavefs_nets::generate::Generator;
use mojavefs_nets::memory::{Memory, Reclaimed};
use mojavefs_nets::net::{Failure, Net, PROGRAM, SEED};
use mojavefs_nets::scene::{self, program};
use mojavefs_nets::{beside, empty, falls, generate};
use std::sync::Mutex;

/// Runs a program of either kind on a mount whose workers have this much memory.
type RunOn<L> = fn(&Mount, &Memory, &[L]) -> Result<(), Failure>;

fn run<L>(program: &[L], on: RunOn<L>) -> Result<(), Failure> {
    let mount = Mount::new();
    let before = Standing::of(&mount);
    on(&mount, &Memory::Ample, program)?;
    empty::left_nothing(&mount, &before)
}

/// What was taken from those that worked, in all programs of a test together; nothing where there is no memory cgroup.
static RECLAIMED: Mutex<Option<Reclaimed>> = Mutex::new(None);

fn run_short<L>(program: &[L], on: RunOn<L>) -> Result<(), Failure> {
    let mount = Mount::new();
    let before = Standing::of(&mount);
    let memory = Memory::short(&mount);
    let ran = on(&mount, &memory, program);
    if let Some(reclaimed) = memory.reclaimed() {
        *RECLAIMED.lock().expect("no other thread").get_or_insert_default() += reclaimed;
    }
    drop(memory);
    ran?;
    empty::left_nothing(&mount, &before)
}

/// Fails if the kernel took nothing although it could. Not for one program: a short one may read nothing again.
fn memory_was_short() {
    let reclaimed = *RECLAIMED.lock().expect("no other thread");
    let Some(Reclaimed { at_the_limit, read_again }) = reclaimed else { return };
    println!("at the limit of memory {at_the_limit} times; {read_again} pages taken and read again");
    let is_one = [SEED, PROGRAM].iter().any(|variable| std::env::var_os(variable).is_some());
    assert!(is_one || at_the_limit > 0 && read_again > 0, "memory was not short: {reclaimed:?}");
}

fn bytes(name: &'static str, seeds: u64, run: fn(&[scene::Line]) -> Result<(), Failure>) {
    Net { name, program: |seed| program(Generator::of_few_files(seed), generate::BYTES), run, seeds }.cast();
}

fn going_back(name: &'static str, seeds: u64, run: fn(&[falls::Line]) -> Result<(), Failure>) {
    Net { name, program: falls::program, run, seeds }.cast();
}

#[test]
fn bytes_are_as_on_the_host() {
    bytes("bytes_are_as_on_the_host", 12, |program| {
        run(program, |mount, memory, program| beside::run_on(mount, memory, program))
    });
}

#[test]
fn bytes_are_as_on_the_host_when_memory_is_short() {
    bytes("bytes_are_as_on_the_host_when_memory_is_short", 6, |program| {
        run_short(program, |mount, memory, program| beside::run_on(mount, memory, program))
    });
    memory_was_short();
}

#[test]
fn a_job_that_goes_back_sees_what_it_would_have_seen() {
    require_root!();
    going_back("a_job_that_goes_back_sees_what_it_would_have_seen", 12, |program| run(program, falls::run_on));
}

#[test]
fn a_job_that_goes_back_sees_what_it_would_have_seen_when_memory_is_short() {
    require_root!();
    let name = "a_job_that_goes_back_sees_what_it_would_have_seen_when_memory_is_short";
    going_back(name, 6, |program| run_short(program, falls::run_on));
    memory_was_short();
}
