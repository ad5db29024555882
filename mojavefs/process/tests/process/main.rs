//! Real processes speculate, abort and commit.

#![allow(missing_docs, unsafe_code, clippy::unwrap_used)]

mod alone;
mod deciding;
mod kept;
mod kernel;
mod leaks;
mod memory;
mod random;
mod refusals;
mod signals;
mod whole;
