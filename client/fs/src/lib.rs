//! The filesystem of one view, without a kernel: its operations, who asks for them, what waits for others, and what the kernel that is
//! answered knows. Whoever has a kernel translates what that asks into [`Call`]s on a [`View`], and tells it what the view is told.
//!
//! An operation that has to wait for others says so ([`has_to_wait`]) to whoever must not wait ([`Patience::Never`]), and is asked for
//! again by one who may.

mod call;
mod checkpoint_before_join;
pub mod deliveries;
mod entered;
mod kernel_cache;
pub mod limits;
mod listing;
mod locks;
mod operations;
mod patience;
mod refused;
mod view;
mod wait_for_decision;

pub use call::Call;
pub use checkpoint_before_join::{CheckpointBeforeJoin, Question};
pub use kernel_cache::has_to_wait;
pub use operations::{Given, Listed, Listing, NewFile, Range, Rename, Write, WritesOut};
pub use patience::{Patience, Signal, Waiting};
pub use view::{Control, ReadPolicy, View};
pub use wait_for_decision::WaitForDecision;
