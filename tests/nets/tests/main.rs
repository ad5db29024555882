//! The nets; see the crate's documentation.

#[macro_use]
extern crate mojavefs_harness;

mod apart;
mod bytes;
mod empty;
mod host;
mod hostile;
mod kills;
mod levels;
mod planted;
mod same;
mod spread;
mod ways;
