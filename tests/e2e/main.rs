//! End to end: real mounts, real processes, the two programs as users run them.

#[macro_use]
extern crate mojavefs_harness;

mod allocating;
mod at_once;
mod binds;
mod checkpoint;
mod conflicts;
mod copying;
mod crash;
mod daemon;
mod damage;
mod decided;
mod direct;
mod disk;
mod doubt;
mod filesystem;
mod holes;
mod host;
mod inherited;
mod interrupts;
mod jobs;
mod locks;
mod mounting;
mod mounts;
mod opening;
mod output;
mod outsiders;
mod posix;
mod private;
mod process;
mod serving;
mod set_ids;
mod slow;
mod spreading;
mod tidy;
mod who;
mod workloads;

/// What tests through the kernel have in common, and where cargo has built the programs.
mod harness {
    pub(crate) use mojavefs_harness::*;

    pub(crate) const MOJAVEFS: &str = env!("CARGO_BIN_EXE_mojavefs");
    pub(crate) const SPECRUN: &str = env!("CARGO_BIN_EXE_specrun");
}
