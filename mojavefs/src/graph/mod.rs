//! The interval graph: what decides files, processes, and whatever else can be undone.
//!
//! A pure state machine: an [`Event`] goes in, [`Effect`]s come out. It does no I/O, keeps no clock and starts no thread; ids
//! come with the events. The rules are those of Tapus, Smith and Hickey, *Distributed speculations* (entry, propagation,
//! commit, abort), with the membership of libDSE's recovery partitions.
//!
//! An interval *needs* its base, its dependencies and, once its assumption is voted for, the intervals that voted. It is
//! *final* when nothing it needs, however far, is an assumption still open; rings become final together, which is the
//! greatest closed set. It is *dead* when its assumption is false or something it builds on (base, dependency) is dead.
//!
//! The graph keeps live intervals only: what is final is a matter of course from then on, and what is dead has taken
//! everything on top of it along. So deciding costs what the decision reaches, and memory what is undecided.

mod check;
mod checker;
mod decide;
mod enter;
mod event;
mod fall;
mod fold;
pub mod naive;
mod query;
mod seal;
mod seen;
mod settle;
mod state;
mod waits;

pub use check::Broken;
pub use checker::{Difference, ModelChecker};
pub use event::{Because, Cause, Effect, Event, GraphError, Link, Owner, Resume, Sees};
pub use seen::Seen;
pub use state::{Graph, Outcome};
pub use waits::{Awaited, Waits};
