//! End to end: real mounts, real processes, the two programs as users run them.

#[macro_use]
mod harness;
mod checkpoint;
mod conflicts;
mod copying;
mod crash;
mod daemon;
mod damage;
mod disk;
mod filesystem;
mod inherited;
mod jobs;
mod mounting;
mod mounts;
mod output;
mod posix;
mod process;
mod serving;
mod spreading;
mod tidy;
mod who;
mod workloads;
