//! What stands in the decision log.

use crate::{Asker, SessionId, ShardId, Term};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// A speculation that outlives its client, and every term. A later record of the same one stands for it.
    Held(Held),
    /// These were held, and are undone.
    Dropped(Vec<SpecId>),
}

/// A speculation that somebody else decides later, or one whose vote waits for others. What its shards have of it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which.
    pub spec: SpecId,
    /// Its context.
    pub context: ContextId,
    /// What it is inside of, as long as that is undecided.
    pub inside: Option<SpecId>,
    /// It stays with what it has found of what is around it.
    pub is_isolated: bool,
    /// What it had found of that.
    pub found: Vec<IntervalId>,
    /// What it sees besides its snapshot, and is final.
    pub finals: Vec<IntervalId>,
    /// Where its snapshot lies.
    pub cut: Option<Seq>,
    /// The numbers that its changes carry.
    pub numbers: Vec<IntervalId>,
    /// What it depends on, beside what is around it: it falls with these.
    pub depends: Vec<SpecId>,
    /// The shards that take part in it.
    pub participants: BTreeSet<ShardId>,
    /// Its owner has voted.
    pub voted: bool,
    /// Who may not know what became of it, or of what has become part of it.
    pub owners: Vec<(SpecId, Asker)>,
}

/// What has become final in one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Its place among decisions and cuts.
    pub seq: Seq,
    /// The numbers that the changes carry.
    pub numbers: Vec<IntervalId>,
    /// The speculations that are committed by it.
    pub specs: Vec<SpecId>,
    /// Who may not know that they are, or that what has become part of them is.
    pub owners: Vec<(SpecId, Asker)>,
    /// The shards that hold changes of it.
    pub participants: BTreeSet<ShardId>,
}

/// A log that says the same, without what nobody needs any more.
pub fn compact(records: &[Record]) -> Vec<Record> {
    let (mut term, mut last, mut newest) = (None, None, Seq(0));
    let mut sessions = BTreeSet::new();
    let mut decisions = BTreeMap::new();
    let mut held = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        match record {
            Record::Term(_) => term = Some(record.clone()),
            Record::Session(session) => {
                sessions.insert(*session);
                last = last.max(Some(*session));
            }
            Record::Ended(session) => drop(sessions.remove(session)),
            Record::Decision(decision) => {
                newest = newest.max(decision.seq);
                decisions.insert(decision.seq, at);
                decision.specs.iter().for_each(|spec| _ = held.remove(spec));
            }
            Record::Cut(seq) => newest = newest.max(*seq),
            Record::Trimmed(seq) => drop(decisions.remove(seq)),
            Record::Held(one) => drop(held.insert(one.spec, at)),
            Record::Dropped(specs) => specs.iter().for_each(|spec| _ = held.remove(spec)),
        }
    }
    // Which sessions have begun is known by the last one.
    let ended = last.filter(|last| !sessions.contains(last));
    let ended = ended.into_iter().flat_map(|last| [Record::Session(last), Record::Ended(last)]);
    let kept: BTreeSet<usize> = decisions.into_values().chain(held.into_values()).collect();
    let first = term.into_iter().chain(ended).chain(sessions.into_iter().map(Record::Session));
    first.chain([Record::Cut(newest)]).chain(kept.into_iter().map(|at| records[at].clone())).collect()
}
