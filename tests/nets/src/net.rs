//! Running a net: programs from seeds, until one fails; that one made smaller, and told.

use crate::shrink::{SHRINK_TIME_MAX, shrink};
use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Repeats one seed.
pub const SEED: &str = "MOJAVEFS_SEED";
/// Runs seeds 1 to this one.
pub const SEEDS: &str = "MOJAVEFS_SEEDS";
/// Runs the program in this file.
pub const PROGRAM: &str = "MOJAVEFS_PROGRAM";

/// How long the long form of each net takes.
pub const SOAK_TIME: Duration = Duration::from_secs(3600);

/// Why a program failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What kind of failure it is: a smaller program must fail in the same way.
    pub kind: String,
    /// All of it.
    pub what: String,
}

impl Failure {
    /// Of this kind.
    pub fn new(kind: impl Into<String>, what: impl Into<String>) -> Self {
        Failure { kind: kind.into(), what: what.into() }
    }
}

/// A net, whose programs are lines of type `L`.
pub struct Net<L> {
    /// The name of its test, for telling how to repeat it.
    pub name: &'static str,
    /// The program of a seed.
    pub program: fn(u64) -> Vec<L>,
    /// Runs one, on a mount of its own.
    pub run: fn(&[L]) -> Result<(), Failure>,
    /// How many seeds `make test` runs; `make soak` runs on for [`SOAK_TIME`].
    pub seeds: u64,
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable} is `{text}`: {e}")))
}

impl<L: Clone + Display + FromStr<Err = String>> Net<L> {
    /// Runs it as the environment says.
    pub fn cast(&self) {
        if let Some(file) = std::env::var_os(PROGRAM) {
            let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let program: Vec<L> = lines.map(|line| line.parse().unwrap_or_else(|e| panic!("{e}"))).collect();
            return self.attempt(&program).unwrap_or_else(|failure| panic!("{}", failure.what));
        }
        let end = std::env::var_os("MOJAVEFS_SOAK").map(|_| Instant::now() + SOAK_TIME);
        let last = number(SEEDS).unwrap_or(if end.is_some() { u64::MAX } else { self.seeds });
        let seeds = number(SEED).map_or(1..=last, |seed| seed..=seed);
        for seed in seeds.take_while(|_| end.is_none_or(|end| Instant::now() < end)) {
            println!("{SEED}={seed}");
            let program = (self.program)(seed);
            if let Err(failure) = self.attempt(&program) {
                self.tell(seed, &program, &failure);
            }
        }
    }

    fn attempt(&self, program: &[L]) -> Result<(), Failure> {
        match catch_unwind(AssertUnwindSafe(|| (self.run)(program))) {
            Ok(result) => result,
            Err(panic) => Err(Failure::new("panic", said(&*panic))),
        }
    }

    fn tell(&self, seed: u64, program: &[L], failure: &Failure) -> ! {
        println!("seed {seed} fails ({} lines): {}", program.len(), failure.what);
        // Who looks whether a planted fault is found needs no small program.
        if std::env::var_os(mojavefs::planted::VARIABLE).is_none() {
            let still = |lines: &[L]| self.attempt(lines).is_err_and(|other| other.kind == failure.kind);
            let small = shrink(program, Instant::now() + SHRINK_TIME_MAX, still);
            let why = self.attempt(&small).map_or_else(|failure| failure.what, |()| "not every time".to_owned());
            println!("the smallest that was found ({} lines; write it to a file and set {PROGRAM}):", small.len());
            small.iter().for_each(|line| println!("{line}"));
            println!("it fails: {why}");
        }
        panic!("repeat with {SEED}={seed} cargo nextest run --release -E 'test({})': {}", self.name, failure.what);
    }
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
