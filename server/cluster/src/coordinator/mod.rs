//! The coordinator: it drives the interval graph, numbers what is decided, and keeps the decision log.
//!
//! All that it knows but the log is gone when it ends: what has no record there is undone then.

mod clients;
mod cuts;
mod decisions;
mod folds;
mod holds;
mod peers;
mod rounds;
mod steps;

use crate::log::{Decision, Held, Record};
use crate::message::{FromShard, Outcome, Stamped, ToClient, ToShard};
use crate::{Asker, Attempt, Incarnation, Request, SessionId, ShardId, Term};
use mojavefs::graph::Graph;
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tells a shard which term it is; the shard answers [`FromShard::Up`].
    Greet(ShardId, Term),
    /// Sends this to a shard.
    ToShard(ShardId, Stamped<ToShard>),
    /// Sends this to a client.
    ToClient(SessionId, ToClient),
    /// Appends this to the log. Once it is durable, [`Coordinator::appended`] is called, in the same order.
    Append(Record),
}

/// A shard, as it is known in this term.
#[derive(Debug, Default)]
struct Peer {
    /// The incarnation that has said [`FromShard::Up`] in this term.
    incarnation: Option<Incarnation>,
    /// What it has asked about at its start, as long as that can't be answered.
    asks: Option<Vec<IntervalId>>,
}

impl Peer {
    /// Which incarnation of it serves: one whose questions were answered.
    fn serving(&self) -> Option<Incarnation> {
        self.incarnation.filter(|_| self.asks.is_none())
    }
}

/// A context, as long as it has something undecided.
#[derive(Debug)]
struct Context {
    spec: SpecId,
    /// Whose it is; nobody's once it is held.
    session: Option<SessionId>,
    /// Somebody has voted for it.
    voted: bool,
    cut: Option<Seq>,
    /// It stays with what it has found of what is around it.
    is_isolated: bool,
    /// Of its sight.
    version: u64,
    /// The shards that take part in it.
    enrolled: BTreeSet<ShardId>,
    /// What it sees besides its snapshot, and is final by now.
    finals: BTreeSet<IntervalId>,
    /// Who may not know what becomes of it, or of what has become part of it.
    owners: BTreeSet<(SpecId, Asker)>,
}

impl Context {
    fn is_held(&self) -> bool {
        self.session.is_none()
    }
}

/// A context that is to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Start {
    session: SessionId,
    request: Request,
    is_isolated: bool,
    inside: Option<ContextId>,
    /// What it stays with of what is around it, once that is told apart from what comes later.
    found: Option<folds::Found>,
}

/// A decision on its way.
#[derive(Debug)]
struct Round {
    /// Whose vote it was. A step has an id of the same sort.
    spec: SpecId,
    /// It is no vote, but a change of several shards at once.
    step: Option<steps::Step>,
    attempt: Attempt,
    phase: Phase,
    numbers: Vec<IntervalId>,
    participants: BTreeSet<ShardId>,
    /// How often it was gathered anew because more had been changed.
    turns: u32,
}

#[derive(Debug)]
enum Phase {
    /// These have not taken back yet what was told.
    Gathering(BTreeSet<ShardId>),
    /// It is sealed, and these have not said what they say to it.
    Preparing(BTreeSet<ShardId>),
    /// It has been handed to the log.
    Logging(Decision),
    /// It makes nothing final: the first have not said what they say to its becoming part of what is around it, though it has not seen
    /// the second.
    Folding(BTreeSet<ShardId>, Vec<IntervalId>),
    /// Something is in its way: this round, or whatever is sealed. It is gathered anew when that has ended.
    Waiting(Option<u64>),
}

impl Round {
    fn is_sealed(&self) -> bool {
        matches!(self.phase, Phase::Preparing(_) | Phase::Logging(_))
    }

    /// Shards may wait for it.
    fn is_in_the_way(&self) -> bool {
        self.is_sealed() || matches!(self.phase, Phase::Folding(..))
    }
}

/// A decision that somebody needs to know of yet.
#[derive(Debug)]
struct Kept {
    decision: Decision,
    /// The shards that do not show it yet.
    unapplied: BTreeSet<ShardId>,
    /// Those where it is not durable.
    undurable: BTreeSet<ShardId>,
    /// The owners that have not confirmed the answer.
    unheard: BTreeSet<(SpecId, Asker)>,
}

/// Something that was refused because what it is about is sealed: it is done when a round has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Later {
    Start(Start),
    Vote(SpecId),
    Hold(SpecId),
    Abort(SpecId, Outcome),
    Shard(ShardId, FromShard),
}

/// The state machine; see the [module](self).
pub struct Coordinator {
    term: Term,
    /// The last number given, of those of this term.
    numbered: u32,
    /// The last place given to a decision or cut.
    seq: Seq,
    /// The last one that is in the log.
    logged: Seq,
    graph: Graph,
    shards: BTreeMap<ShardId, Peer>,
    sessions: BTreeSet<SessionId>,
    last_session: SessionId,
    contexts: BTreeMap<ContextId, Context>,
    jobs: BTreeMap<SpecId, ContextId>,
    /// Who waits for what becomes of what.
    votes: BTreeMap<SpecId, Vec<Asker>>,
    holds: BTreeMap<SpecId, holds::Hold>,
    /// What stands in the log of what is held.
    held: BTreeMap<SpecId, Held>,
    /// What is undone, and is to be told once it is in the log that something of it is not held any more.
    falls: VecDeque<decisions::Fallen>,
    rounds: BTreeMap<u64, Round>,
    rounds_begun: u64,
    kept: BTreeMap<Seq, Kept>,
    cuts: BTreeMap<Seq, cuts::Cut>,
    /// Starts that wait for a cut which all shards can take.
    starts: Vec<Start>,
    appending: VecDeque<Record>,
    later: Vec<Later>,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// Begins a term. Its record is in the log already, and `records` is what the log holds: whoever had an older term can't append any more.
    pub fn new(term: Term, shards: impl IntoIterator<Item = ShardId>, records: &[Record]) -> Self {
        let mut coordinator = Coordinator {
            term,
            numbered: 0,
            seq: Seq(0),
            logged: Seq(0),
            graph: Graph::new(),
            shards: shards.into_iter().map(|shard| (shard, Peer::default())).collect(),
            sessions: BTreeSet::new(),
            last_session: SessionId(0),
            contexts: BTreeMap::new(),
            jobs: BTreeMap::new(),
            votes: BTreeMap::new(),
            holds: BTreeMap::new(),
            held: BTreeMap::new(),
            falls: VecDeque::new(),
            rounds: BTreeMap::new(),
            // What a shard has under way for an older term is no round of this one.
            rounds_begun: u64::from(term.0) << 32,
            kept: BTreeMap::new(),
            cuts: BTreeMap::new(),
            starts: Vec::new(),
            appending: VecDeque::new(),
            later: Vec::new(),
            effects: Vec::new(),
        };
        coordinator.read(records);
        coordinator
    }

    /// Its term.
    pub fn term(&self) -> Term {
        self.term
    }

    /// What is to be done since this was asked last.
    pub fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Whether nothing is undecided, and nobody needs to know of any decision.
    pub fn is_idle(&self) -> bool {
        self.contexts.is_empty() && self.kept.is_empty() && self.cuts.is_empty() && self.appending.is_empty()
    }

    /// What is undecided, and who needs to know of what: for who looks for a fault.
    pub fn describe(&self) -> String {
        let Coordinator { contexts, rounds, holds, kept, cuts, starts, appending, later, votes, .. } = self;
        format!(
            "contexts {contexts:?}, rounds {rounds:?}, holds {holds:?}, votes {votes:?}, decisions {kept:?}, cuts {cuts:?}, \
             starts {starts:?}, appending {appending:?}, later {later:?}"
        )
    }

    fn read(&mut self, records: &[Record]) {
        // What the log says of these rests on decisions that leave it.
        let mut outdated = BTreeSet::new();
        for record in records {
            match record {
                Record::Term(_) => {}
                Record::Session(session) => self.count(*session),
                Record::Ended(session) => self.uncount(*session),
                Record::Decision(decision) => {
                    decision.specs.iter().for_each(|spec| drop(self.held.remove(spec)));
                    let held = self.held.iter_mut().filter(|(_, held)| held.has_to_do_with(decision));
                    for (spec, held) in held {
                        held.without(decision);
                        outdated.insert(*spec);
                    }
                    self.keep(decision.clone());
                }
                // Nobody waits for a cut of an older term.
                Record::Cut(seq) => self.seq = self.seq.max(*seq),
                Record::Trimmed(seq) => drop(self.kept.remove(seq)),
                Record::Held(held) => drop(self.held.insert(held.spec, held.clone())),
                Record::Dropped(specs) => specs.iter().for_each(|spec| drop(self.held.remove(spec))),
            }
        }
        self.logged = self.seq;
        self.restore(&outdated);
    }

    /// A number that is greater than all before, those of older terms too. The next term has numbers again.
    fn number(&mut self) -> u64 {
        self.numbered = self.numbered.checked_add(1).expect("a term has 2^32 numbers");
        u64::from(self.term.0) << 32 | u64::from(self.numbered)
    }

    /// Whether it began under a coordinator that has superseded this one.
    fn is_of_a_later_term(&self, spec: SpecId) -> bool {
        spec.0 >> 32 > u64::from(self.term.0)
    }

    fn append(&mut self, record: Record) {
        self.appending.push_back(record.clone());
        self.effects.push(Effect::Append(record));
    }

    /// The first record that was to be appended, and had not been, is durable.
    pub fn appended(&mut self) {
        match self.appending.pop_front() {
            Some(Record::Decision(decision)) => self.decided(&decision),
            Some(Record::Cut(seq)) => self.cut_made(seq),
            Some(Record::Session(session)) => self.session_begun(session),
            Some(Record::Held(held)) => self.is_held(&held),
            Some(Record::Dropped(_)) => self.fallen(),
            Some(Record::Term(_) | Record::Ended(_) | Record::Trimmed(_)) | None => {}
        }
    }

    fn tell(&mut self, session: SessionId, message: ToClient) {
        if self.sessions.contains(&session) {
            self.effects.push(Effect::ToClient(session, message));
        }
    }

    fn send(&mut self, shard: ShardId, body: ToShard) {
        // One that does not serve is told at its welcome how things stand.
        if let Some(incarnation) = self.shards[&shard].serving() {
            let stamped = Stamped { term: self.term, incarnation, body };
            self.effects.push(Effect::ToShard(shard, stamped));
        }
    }

    fn send_to(&mut self, shards: &BTreeSet<ShardId>, body: &ToShard) {
        shards.iter().for_each(|shard| self.send(*shard, body.clone()));
    }

    /// A round has ended, or is not sealed any more: what was in its way is tried again.
    fn go_on(&mut self) {
        let is_over = |number: &u64| !self.rounds.get(number).is_some_and(Round::is_in_the_way);
        let may_go_on = |round: &&Round| match &round.phase {
            Phase::Waiting(first) => first.as_ref().is_none_or(is_over),
            _ => false,
        };
        let numbers: Vec<u64> = self.rounds.values().filter(may_go_on).map(|round| round.attempt.round).collect();
        numbers.into_iter().for_each(|number| self.gather(number));
        for later in std::mem::take(&mut self.later) {
            match later {
                Later::Start(start) => self.start(start),
                Later::Vote(spec) => self.decide(spec),
                Later::Hold(spec) => self.hold(spec),
                Later::Abort(spec, outcome) => self.abort(spec, outcome),
                Later::Shard(shard, message) => self.heard(shard, message),
            }
        }
    }

    fn put_off(&mut self, later: Later) {
        if !self.later.contains(&later) {
            self.later.push(later);
        }
    }
}
