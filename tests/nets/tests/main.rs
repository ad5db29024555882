//! The nets; see the crate's documentation.

mod bytes;
mod empty;
mod planted;
mod same;
