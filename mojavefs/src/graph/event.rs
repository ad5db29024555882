//! What the graph is told and what it says.

use crate::id::{ContextId, IntervalId, SpecId};
use serde::{Deserialize, Serialize};

/// Who decides a speculation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// A context that entered it.
    Context(ContextId),
    /// The store, for a context whose speculation is held: it survives every process.
    Store(ContextId),
}

impl Owner {
    /// The context that entered the speculation.
    pub fn context(self) -> ContextId {
        match self {
            Owner::Context(context) | Owner::Store(context) => context,
        }
    }
}

/// Where a context that joins can go back to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Resume {
    /// To this very point: there is a checkpoint.
    Here,
    /// Only to its start.
    Start,
}

/// Something that happened. Ids in events are new and never used before, where they name something that begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A context begins with its first interval, based on another context's interval or on nothing.
    Open {
        /// The new context.
        context: ContextId,
        /// Its first interval.
        interval: IntervalId,
        /// What it is started from: an outer job's interval, or a forking parent's.
        from: Option<IntervalId>,
    },
    /// A context enters a new speculation as its owner (rule 1).
    Speculate {
        /// The context.
        context: ContextId,
        /// The interval that it enters with.
        interval: IntervalId,
        /// The new speculation.
        spec: SpecId,
    },
    /// A context becomes a further owner.
    CoOwn {
        /// The context.
        context: ContextId,
        /// The interval that it enters with.
        interval: IntervalId,
        /// The undecided speculation.
        spec: SpecId,
    },
    /// A context has read something of an interval (rule 2).
    Read {
        /// The reader.
        context: ContextId,
        /// The interval whose version it read.
        of: IntervalId,
        /// The interval that begins if the reader joins.
        interval: IntervalId,
        /// Where it can resume.
        resume: Resume,
    },
    /// An owner's vote to commit (rule 3).
    Vote {
        /// The owner.
        owner: Owner,
        /// The speculation.
        spec: SpecId,
    },
    /// An owner's abort (rule 4), or with `retry` the re-entry of the same level (rule 8).
    Abort {
        /// The owner.
        owner: Owner,
        /// The speculation.
        spec: SpecId,
        /// What the abort branch is told; not 0.
        code: i32,
        /// Enter again instead of taking the abort branch.
        retry: bool,
    },
    /// The store becomes the owner in a context's place (rule 7).
    Hold {
        /// The context.
        context: ContextId,
        /// The speculation.
        spec: SpecId,
    },
    /// A context is gone (rule 7): what it owns and has not voted for is aborted.
    Close {
        /// The context.
        context: ContextId,
    },
    /// The speculation conflicts with what became final meanwhile: it can't become final as it is (rule 11).
    Conflict {
        /// The speculation.
        spec: SpecId,
    },
    /// Its owner has said whose version stands.
    Resolve {
        /// The speculation.
        spec: SpecId,
    },
}

/// Why something died.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// An owner aborted this speculation with this code.
    Aborted {
        /// The speculation.
        spec: SpecId,
        /// The code.
        code: i32,
        /// The owner enters it again.
        retry: bool,
    },
    /// An owner of this speculation went without deciding.
    OwnerGone {
        /// The speculation.
        spec: SpecId,
    },
}

/// What follows from an event; to be carried out in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// These became final, in one step.
    Final {
        /// The intervals, oldest first.
        intervals: Vec<IntervalId>,
        /// The speculations whose assumptions hold by it.
        specs: Vec<SpecId>,
    },
    /// These are undone.
    Dead {
        /// The intervals, oldest first.
        intervals: Vec<IntervalId>,
        /// The speculations that are aborted by it.
        specs: Vec<SpecId>,
        /// Why.
        cause: Cause,
    },
    /// A context goes back to the start of an interval of its own.
    Rollback {
        /// The context.
        context: ContextId,
        /// The earliest of its intervals that died.
        to: IntervalId,
        /// Why.
        cause: Cause,
    },
}

/// An event that makes no sense; the graph is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GraphError {
    /// The id of something that begins is in use.
    #[error("id {0} is in use already")]
    InUse(u64),
    /// No such context, or it is gone.
    #[error("there is no context {0}")]
    NoContext(ContextId),
    /// No such interval, or it is final or dead: what is said of it comes too late and is dropped (rule 10).
    #[error("interval {0} is decided or was never there")]
    NoInterval(IntervalId),
    /// No such speculation among the undecided and those decided lately.
    #[error("there is no undecided speculation {0}")]
    NoSpec(SpecId),
    /// It is committed; abort comes too late (rule 10).
    #[error("speculation {0} is committed already")]
    Committed(SpecId),
    /// It is aborted; commit comes too late (rule 10).
    #[error("speculation {0} is aborted already")]
    Aborted(SpecId),
    /// Only owners decide.
    #[error("speculation {0} is not owned by who decides it")]
    NotOwner(SpecId),
}
