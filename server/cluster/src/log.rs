//! What stands in the decision log.

use crate::{SessionId, ShardId, Term};
use mojavefs::id::{IntervalId, Seq, SpecId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A record of the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// A coordinator begins: from here on the log takes nothing of an older term.
    Term(Term),
    /// A session begins.
    Session(SessionId),
    /// It has ended, by its farewell or as lost.
    Ended(SessionId),
    /// A decision.
    Decision(Decision),
    /// A point between decisions, at which a snapshot is taken.
    Cut(Seq),
    /// Nobody needs the decision or cut of this number any more.
    Trimmed(Seq),
}

/// What has become final in one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its place among decisions and cuts.
    pub seq: Seq,
    /// The numbers that the changes carry.
    pub numbers: Vec<IntervalId>,
    /// The speculations that are committed by it, and whose votes they had.
    pub specs: Vec<(SpecId, SessionId)>,
    /// The shards that hold changes of it.
    pub participants: BTreeSet<ShardId>,
}
