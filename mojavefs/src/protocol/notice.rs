//! What the server tells views without being asked: the only messages against the flow.

use super::decision::{Fall, SpecState};
use crate::id::{Ino, SpecId, ViewId};
use crate::protocol::fault::Fault;
use crate::protocol::file::Name;
use serde::{Deserialize, Serialize};

/// Something a kernel must no longer believe.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Invalidation {
    /// Attributes and content of an inode.
    Inode(Ino),
    /// Attributes only. Unlike the others it never waits for a request under way.
    Attributes(Ino),
    /// A name, whether it was there or not.
    Entry {
        /// The directory.
        parent: Ino,
        /// The name.
        name: Name,
    },
}

/// What the server tells a view without being asked: the only messages against the flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// Drop these from the caches of a view.
    Invalidate {
        /// The view.
        view: ViewId,
        /// What.
        what: Vec<Invalidation>,
        /// All names of the view as well: too many changed to list them. Takes away what is mounted inside.
        all_names: bool,
    },
    /// Something is about to take effect that changes these: the kernel of a view forgets what it was told of them. Answers that were
    /// given before reach it first, and what it reads of a directory that changes is read to the end. Until it has taken effect
    /// nothing lasts that the kernel is told of them.
    Forget {
        /// The view.
        view: ViewId,
        /// What.
        what: Vec<Invalidation>,
        /// As for [`Notice::Invalidate`].
        all_names: bool,
    },
    /// Somebody is about to depend on what the process of this view has undecided: if it is dead by now, say so
    /// ([`super::ViewOp::Gone`]). May come from a thread that answers kernel requests.
    Probe {
        /// The process's view.
        view: ViewId,
    },
    /// A job's speculation was decided by someone else.
    Decided {
        /// The job's view.
        view: ViewId,
        /// The speculation.
        spec: SpecId,
        /// What became of it.
        state: SpecState,
        /// For one that fell with another: why.
        why: Option<Fall>,
    },
}

/// Where notices go. `deliver` returns when the kernel has applied them; it is never called with a lock held nor from a
/// thread that answers kernel requests.
pub trait NoticeSink: Send + Sync {
    /// Applies one notice.
    fn deliver(&self, notice: Notice);

    /// The server is gone, and why: nothing comes after this.
    fn lost(&self, _why: &Fault) {}
}
