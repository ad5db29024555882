//! What coordinator, shards and clients say to each other.

use crate::{Attempt, Incarnation, Request, SessionId, ShardId, Term};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use serde::{Deserialize, Serialize};

/// Something said between coordinator and shard, of one term and one incarnation: it is dropped by who is in another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamped<T> {
    /// The coordinator's.
    pub term: Term,
    /// The shard's.
    pub incarnation: Incarnation,
    /// What is said.
    pub body: T,
}

/// How what carries a number was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fate {
    /// It is final since this decision.
    Final(Seq),
    /// It is undone.
    Dead,
    /// It is held, and not decided.
    Held,
}

/// What a context sees of undecided changes, and how its own are numbered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextSight {
    /// Sights are counted within their context: a greater number is a later one.
    pub version: u64,
    /// The numbers that it sees, its own among them. Some of them may be final by now, and lie after its snapshot: it sees these all the same.
    pub numbers: Vec<IntervalId>,
    /// The number that its next change carries.
    pub writer: IntervalId,
    /// Where its snapshot lies; nothing for one that follows.
    pub cut: Option<Seq>,
}

/// From a coordinator to a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToShard {
    /// How everything that the shard had asked about has been decided: all else that it has undecided is what it says is open. It may
    /// serve now.
    Welcome {
        /// The fates of all numbers that the shard has changes of.
        fates: Vec<(IntervalId, Fate)>,
        /// The newest decision or cut.
        seq: Seq,
        /// Cuts that not all shards have taken.
        cuts: Vec<Seq>,
        /// The sessions that go on, of those that have begun.
        sessions: Vec<SessionId>,
        /// The last one that has begun.
        last_session: SessionId,
    },
    /// The answer to [`FromShard::Fetch`] and [`FromShard::Met`].
    Sight {
        /// Whose.
        context: ContextId,
        /// Nothing if the context has nothing undecided, or is gone.
        sight: Option<ContextSight>,
        /// The shard takes part in what the context does: it may change things here.
        for_change: bool,
    },
    /// A round is about to decide these: from now on nothing that they have changed is told to stay.
    Gather {
        /// The round.
        attempt: Attempt,
        /// What would become final.
        numbers: Vec<IntervalId>,
        /// It has been gathered too often: their changes wait from now on.
        stop: bool,
    },
    /// The round decides these, unless somebody objects.
    Prepare {
        /// The round.
        attempt: Attempt,
        /// What becomes final.
        numbers: Vec<IntervalId>,
    },
    /// What a context that stays with what it found has done becomes part of the one around it, unless that has changed any of it since.
    /// Answered as [`ToShard::Prepare`] is; nothing is made durable for it.
    Fold {
        /// The round.
        attempt: Attempt,
        /// What becomes part of something else.
        numbers: Vec<IntervalId>,
        /// What was changed around it, and is not seen in it.
        missed: Vec<IntervalId>,
    },
    /// A change of several shards at once is about to be made: as [`ToShard::Gather`].
    GatherStep {
        /// The round.
        attempt: Attempt,
        /// This shard's part of it.
        work: Vec<u8>,
    },
    /// This part of a change of several shards is made, and is to be seen by nobody yet. Answered as [`ToShard::Prepare`] is.
    PrepareStep {
        /// The round.
        attempt: Attempt,
        /// What it carries.
        number: IntervalId,
        /// In which context, which has been gathered for nobody; nothing on trunk.
        inside: Option<(ContextId, ContextSight)>,
        /// This shard's part of it.
        work: Vec<u8>,
    },
    /// What these have changed, and what their contexts that stay with a snapshot have used, is made durable. Nothing is added to it until
    /// that is cancelled.
    Keep {
        /// The round.
        attempt: Attempt,
        /// What is kept.
        numbers: Vec<IntervalId>,
    },
    /// The round does not come about, not in this attempt; or it was one that makes nothing final, and has.
    Cancel {
        /// The round.
        attempt: Attempt,
    },
    /// These became final. Told in the order of `seq`.
    Final {
        /// The decision.
        seq: Seq,
        /// What became final.
        numbers: Vec<IntervalId>,
    },
    /// These were undone.
    Dead {
        /// What was undone.
        numbers: Vec<IntervalId>,
    },
    /// The answer to [`FromShard::Ask`]: the round is undecided, and will be decided after this, if at all.
    StillOpen {
        /// The round.
        round: u64,
        /// The newest decision or cut.
        seq: Seq,
    },
    /// A cut has been made.
    Cut {
        /// Its place.
        seq: Seq,
    },
    /// All shards have taken the cut, or it was withdrawn.
    CutTaken {
        /// Its place.
        seq: Seq,
    },
    /// A client was declared lost: nothing of it counts any more.
    Lost {
        /// Which.
        session: SessionId,
    },
}

/// From a shard to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromShard {
    /// The first thing that a shard says to a coordinator, on each connection.
    Up {
        /// The numbers that changes here carry, and of which it is not known here how they were decided.
        undecided: Vec<IntervalId>,
    },
    /// What a context sees is needed.
    Fetch {
        /// Whose.
        context: ContextId,
        /// To change something, or to read of a snapshot: the shard takes part from then on.
        for_change: bool,
    },
    /// A context has come upon what another has changed, and does not see it yet; or it sees it, and is about to change it under a
    /// number that lies below.
    Met {
        /// Who.
        context: ContextId,
        /// The number that the change carries.
        of: IntervalId,
        /// It is about to change that.
        changes: bool,
    },
    /// All that was told of what a round decides has been taken back.
    Gathered {
        /// The round.
        attempt: Attempt,
    },
    /// What becomes of the round, as far as this shard is concerned.
    Verdict {
        /// The round.
        attempt: Attempt,
        /// What it says.
        verdict: Verdict,
    },
    /// What was to be kept is durable.
    Kept {
        /// The round.
        attempt: Attempt,
    },
    /// Somebody waits for a round, and knows of later decisions than the shard does.
    Ask {
        /// The round.
        round: u64,
    },
    /// A decision is to be seen here.
    Applied {
        /// The decision.
        seq: Seq,
    },
    /// It is durable here: the log need not keep it for this shard.
    Durable {
        /// The decision.
        seq: Seq,
    },
    /// A cut is taken.
    Taken {
        /// The cut.
        seq: Seq,
    },
}

/// What a shard says of a round that it is asked to prepare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It is sealed, and durable: it can be decided. Never taken back.
    Ready,
    /// More has been changed since it was gathered.
    Again,
    /// It has something to do with this round, which came first here.
    Behind(u64),
    /// These are in conflict with what is final.
    Conflict(Vec<IntervalId>),
    /// A change can't be made: why, for who asked for it.
    Unable(u32),
    /// A change in a context has come upon this, which the context does not see yet.
    Met(IntervalId),
}

/// From a client to the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromClient {
    /// A context begins, with a speculation of its own.
    Begin {
        /// The request.
        request: Request,
        /// It stays with what is final now, and with what the context around it has done.
        isolated: bool,
        /// The context that it is inside of.
        inside: Option<ContextId>,
    },
    /// The owner wants to commit. Said again on a new connection as long as it has not been answered.
    Vote {
        /// The request.
        request: Request,
        /// What.
        spec: SpecId,
    },
    /// The owner leaves it to others to decide. Said again as a vote is.
    Hold {
        /// The request.
        request: Request,
        /// What.
        spec: SpecId,
    },
    /// Somebody decides what is held. Said again as a vote is.
    Decide {
        /// The request.
        request: Request,
        /// What.
        spec: SpecId,
        /// It is committed; else undone.
        commit: bool,
    },
    /// Changes something on several shards at once. Said again as a vote is.
    Step {
        /// The request.
        request: Request,
        /// In which context; nothing on trunk.
        context: Option<ContextId>,
        /// What each shard is to do.
        works: Vec<(ShardId, Vec<u8>)>,
    },
    /// The owner gives it up.
    Abort {
        /// What.
        spec: SpecId,
    },
    /// The answer to a vote, a hold, a decision or a step has arrived.
    Heard {
        /// Which was answered.
        request: Request,
    },
    /// The answer to [`ToClient::Known`]: these are the only requests of this sort whose answers it has not heard.
    WaitsFor {
        /// They are said again right after this.
        requests: Vec<Request>,
    },
    /// The client ends.
    Farewell,
}

/// From the coordinator to a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToClient {
    /// The session is known. Whatever it had begun in an earlier term, and had no answer to a vote for, is asked about again.
    Known {
        /// The coordinator's.
        term: Term,
    },
    /// The coordinator does not know the session any more: it was declared lost.
    Unknown,
    /// A context has begun.
    Begun {
        /// The request.
        request: Request,
        /// The speculation.
        spec: SpecId,
        /// The context.
        context: ContextId,
        /// Where its snapshot lies.
        cut: Option<Seq>,
        /// If it stays with what it found: the sights of the contexts around it, from which on these change nothing that it sees.
        around: Vec<(ContextId, u64)>,
    },
    /// It can't begin.
    Refused {
        /// The request.
        request: Request,
        /// Why not.
        why: Refusal,
    },
    /// The answer to a vote, a hold, a decision or a step.
    Decided {
        /// The request.
        request: Request,
        /// What became of it.
        outcome: Outcome,
        /// Cuts that not all shards have taken.
        cuts: Vec<Seq>,
        /// The sights of contexts from which on these see what has been done by it.
        sights: Vec<(ContextId, u64)>,
    },
    /// A speculation that its owner has not voted for was undone.
    Fell {
        /// Which.
        spec: SpecId,
    },
}

/// What became of a speculation that was voted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It is committed, and all shards show it.
    Committed(Seq),
    /// It is undone.
    Aborted,
    /// It is in conflict with what is final, or with what was changed around it, and was undone for it.
    Conflict,
    /// It is held: it stays until somebody decides it.
    Held,
    /// The vote is kept: it is final when what it depends on is.
    Waits,
    /// The step is made in its context.
    Made,
    /// The step can't be made: what the shard said.
    Unable(u32),
    /// There is no such speculation that is held: it is decided, or was never there.
    Unknown,
    /// It is part of the context around it, and decided with that.
    Folded {
        /// Which.
        into: ContextId,
    },
}

/// Why a context can't begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The one that it would be inside of is decided, or was undone.
    Gone,
    /// There is too much that is undecided: it is to be tried again when some of that is decided.
    Full,
}
