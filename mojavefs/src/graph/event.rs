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
    /// To the start of this live interval of its own.
    At(IntervalId),
    /// Only to its start: that of its earliest interval that is not final.
    Start,
}

/// What a context sees of what contexts around it change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Sees {
    /// All of it, as it comes.
    Follows,
    /// What is there when it begins.
    Found,
    /// What was there when it began: changes with these numbers. It is taken up again after a restart.
    Had(Vec<IntervalId>),
}

/// Something that happened. Ids in events are new and never used before, where they name something that begins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Event {
    /// A context begins with its first interval, on top of another context's interval or of what is final. One that fell
    /// back to its very start begins anew in the same way.
    Open {
        /// The new context, or one that was undone.
        context: ContextId,
        /// Its first interval.
        interval: IntervalId,
        /// The live interval that it is started from: an outer job's, or a forking parent's. It becomes a dependency.
        from: Option<IntervalId>,
        /// What it sees of those around it.
        sees: Sees,
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
    /// An owner's vote to commit (rule 3), cast by the interval its context is in. Repeating it changes nothing.
    Vote {
        /// The owner.
        owner: Owner,
        /// The speculation.
        spec: SpecId,
    },
    /// An owner's vote that makes something final, of which nothing follows yet (rule 12): what it makes final is sealed. Until
    /// [`Event::Confirm`] or [`Event::Cancel`] no event is accepted that would change something of that, or which speculations
    /// confirming decides.
    Prepare {
        /// The owner.
        owner: Owner,
        /// The speculation.
        spec: SpecId,
    },
    /// What the vote for this speculation has sealed becomes final: these speculations, no others. What has come to build on them
    /// since, and assumes nothing itself, becomes final with them.
    Confirm {
        /// The speculation.
        spec: SpecId,
    },
    /// The vote that has sealed something is taken back, as if it had not been cast.
    Cancel {
        /// The speculation.
        spec: SpecId,
    },
    /// An owner's abort (rule 4), also after its vote. With `retry` its context enters the same level again (rule 8): a
    /// [`Event::Speculate`] with new ids follows, unless the context fell further back than that.
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
    /// A context is gone (rule 7): what it owns, has not voted for and the store does not hold is aborted. Its intervals are
    /// judged as before; votes of its own that are taken back later are aborts. If it owns nothing undecided, its last
    /// intervals that nothing builds on are forgotten, and never said to be final or dead.
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
    /// What a context changes from now on carries this number: a later one, where a change must sort above what it builds on.
    /// One that its current interval has already becomes the one that changes carry.
    Number {
        /// The context.
        context: ContextId,
        /// The number; no interval's and no other change's.
        number: IntervalId,
    },
    /// A context becomes part of the one around it, with all that it changed. Its speculations were never apart from that one's. It
    /// is gone with it: who built on it builds on that one, and what it depended on that one depends on from its start.
    Fold {
        /// The inner context.
        context: ContextId,
    },
    /// What carried one number carries an earlier one of the same interval now. Nobody can tell: no number that the interval's
    /// context sees lies between the two, and no context that stays with what it found has found the earlier one.
    Reassign {
        /// The number that goes.
        from: IntervalId,
        /// The number that has its changes.
        to: IntervalId,
    },
    /// Nothing that was changed carries this number, and nothing will: it goes.
    Discard {
        /// The number; neither an interval's own nor the one that its changes carry.
        number: IntervalId,
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

/// Why one interval is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Because {
    /// This assumption of its own is false.
    Assumption(SpecId),
    /// The interval before it in its context is dead.
    Base(IntervalId),
    /// It read from this dead interval.
    Dep(IntervalId),
}

/// One step of an explanation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// What died.
    pub interval: IntervalId,
    /// And why.
    pub because: Because,
}

/// What follows from an event; to be carried out in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Effect {
    /// These became final, in one step.
    Final {
        /// The intervals, by id.
        intervals: Vec<IntervalId>,
        /// The numbers that their changes carry.
        numbers: Vec<IntervalId>,
        /// The speculations whose assumptions hold by it.
        specs: Vec<SpecId>,
    },
    /// These become final, in one step, if they are confirmed; until then they stay as they are.
    Sealed {
        /// The intervals, by id.
        intervals: Vec<IntervalId>,
        /// The numbers that their changes carry.
        numbers: Vec<IntervalId>,
        /// The speculations whose assumptions hold by it.
        specs: Vec<SpecId>,
    },
    /// These are undone.
    Dead {
        /// The intervals, by id.
        intervals: Vec<IntervalId>,
        /// The numbers that their changes carry.
        numbers: Vec<IntervalId>,
        /// The speculations that are aborted by it.
        specs: Vec<SpecId>,
        /// What it began with.
        cause: Cause,
    },
    /// An owner's vote was cast by an interval that is dead, or was cancelled: it has not decided and must again (rule 3).
    Withdrawn {
        /// The speculation, undecided.
        spec: SpecId,
        /// The owner's context.
        context: ContextId,
    },
    /// A running context goes back to the start of an interval of its own (rule 5).
    Rollback {
        /// The context.
        context: ContextId,
        /// The earliest of its intervals that died.
        to: IntervalId,
        /// The speculation that it had entered with that interval; none if it had joined or begun there.
        entered: Option<SpecId>,
        /// What that `speculate` returns now, if it was that speculation that an owner aborted (rule 8).
        code: Option<i32>,
        /// What it began with.
        cause: Cause,
        /// From `to` to the speculation of `cause`. Where the owner of another speculation fell on the way, the next link is
        /// the entry or vote that it lost. At most [`crate::limits::WHY_LINKS_MAX`], the first ones.
        why: Vec<Link>,
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
    /// The context was undone back to its very start and has not begun again; what it says comes too late (rule 10).
    #[error("context {0} was undone; it must begin again")]
    Undone(ContextId),
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
    /// The context owns it already.
    #[error("context {0} owns speculation {1} already")]
    Owns(ContextId, SpecId),
    /// An abort code of 0 would read as entry.
    #[error("speculation {0} cannot be aborted with code 0; use another code")]
    ZeroCode(SpecId),
    /// The context cannot go back to where the dependency would have to lie: what it did there is final.
    #[error("context {0} cannot go back to before that; make a checkpoint, wait, or read what is final")]
    CannotResume(ContextId),
    /// All of it is final: what it changes carries no number.
    #[error("context {0} has nothing undecided")]
    NothingUndecided(ContextId),
    /// It could be told that it was apart, or something would be decided by it.
    #[error(
        "context {0} can't become part of the one around it: it shares a speculation, is in conflict or held, or is inside nothing open"
    )]
    CannotFold(ContextId),
    /// Somebody could tell the two apart.
    #[error("what carries number {0} can't carry number {1}")]
    Apart(IntervalId, IntervalId),
    /// Changes carry it, or it is an interval's own.
    #[error("number {0} is in use and can't go")]
    Needed(IntervalId),
    /// It would change what is sealed, or what confirming that makes final: once that is confirmed or cancelled, it can be done.
    #[error("this changes what is being decided with speculation {0}; try again when that is done")]
    Sealed(SpecId),
    /// The vote makes nothing final, or was cast before.
    #[error("the vote for speculation {0} seals nothing")]
    SealsNothing(SpecId),
    /// Nothing is sealed by a vote for it.
    #[error("nothing is sealed by a vote for speculation {0}")]
    NotSealed(SpecId),
    /// A limit of the graph is reached.
    #[error("more than {0} undecided intervals or contexts; decide some speculations first")]
    Full(usize),
}
