//! The nets; see the crate's documentation.

mod bytes;
mod planted;
mod same;
