//! The nets; see the crate's documentation.

mod bytes;
mod empty;
mod levels;
mod planted;
mod same;
