//! A shard: what takes part in rounds, and says who may look and change meanwhile.
//!
//! It knows no file and no version. What has been changed where is asked of its [`Part`], the store below; who is about to look or change
//! something asks it for [admission](Shard::admit).

mod admission;
mod rounds;
mod steps;

use crate::message::{ContextSight, FromShard, Stamped, ToShard};
use crate::{Attempt, Incarnation, SessionId, Term};
use mojavefs::id::{ContextId, IntervalId, Seq};
use mojavefs::planted::{Planted, is_planted};
use std::collections::{BTreeMap, BTreeSet};

pub use admission::{Admission, Admitted, Wanted};
pub use steps::Performed;

/// What a shard needs to know of its store.
pub trait Part {
    /// Whatever two can be in each other's way about.
    type Object: Ord + Clone;

    /// What these numbers have changed here, and what those of their contexts that stay with a snapshot have looked at.
    fn touched(&self, numbers: &[IntervalId]) -> BTreeSet<Self::Object>;

    /// Those of these numbers that are in conflict with what is final here.
    fn conflicts(&self, numbers: &[IntervalId]) -> Vec<IntervalId>;

    /// Those of these numbers whose contexts have used something here that was changed under one of `missed`.
    fn outdated(&self, numbers: &[IntervalId], missed: &[IntervalId]) -> Vec<IntervalId>;

    /// What this part of a change of several shards is about.
    fn objects_of(&self, work: &[u8]) -> BTreeSet<Self::Object>;

    /// The numbers that changes carry of which it is not known how they were decided.
    fn undecided(&self) -> Vec<IntervalId>;
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<O> {
    /// Sends this to the coordinator.
    Send(Stamped<FromShard>),
    /// What clients were told of these objects is taken back. Once all have confirmed it, or were declared lost,
    /// [`Shard::forgotten`] is called. From now on nothing is told of them that [stays](Admitted::lasts).
    Forget(Attempt, BTreeSet<O>),
    /// All that was applied up to here is made durable. Then [`Shard::synced`] is called.
    Sync(Mark),
    /// Makes this part of a change of several shards, under this number; in a context with this sight, or on trunk. Then
    /// [`Shard::performed`] is called.
    Perform {
        /// The round.
        attempt: Attempt,
        /// What it carries.
        number: IntervalId,
        /// What its context sees; nothing on trunk.
        sight: Option<ContextSight>,
        /// What it is.
        work: Vec<u8>,
    },
    /// What these have changed, and what their contexts that stay with a snapshot have used, outlives this shard from the next
    /// [`Effect::Sync`] on.
    Keep(Vec<IntervalId>),
    /// The store remembers that this term has been heard of: no older one is listened to again, whatever happens.
    Heard(Term),
    /// What carries these numbers is final from now on, at this place, for everybody.
    Switch(Seq, Vec<IntervalId>),
    /// What carries these numbers is gone.
    Drop(Vec<IntervalId>),
    /// A client is gone: whatever it was told, or has to confirm, counts no more.
    Lost(SessionId),
    /// So are all up to this one that are not among these.
    Known(Vec<SessionId>, SessionId),
}

/// What was waiting to be durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Everything that a round decides here.
    Ready(Attempt),
    /// A decision.
    Final(Seq),
    /// What is to be held.
    Kept(Attempt),
    /// That a term has been heard of.
    Term(Term),
}

/// A round, as far as this shard is concerned.
struct Round<O> {
    attempt: Attempt,
    numbers: Vec<IntervalId>,
    objects: BTreeSet<O>,
    /// How often its numbers had changed something when it was gathered.
    changes: u64,
    /// From now on they change nothing.
    is_stopped: bool,
    is_sealed: bool,
    /// If it is decided, then after this.
    after: Seq,
    /// The coordinator was asked, and has not answered.
    is_asked: bool,
}

/// Something that is about to become part of what is around it: meanwhile no context changes what it has used.
struct Fold<O> {
    attempt: Attempt,
    numbers: Vec<IntervalId>,
    objects: BTreeSet<O>,
}

/// What a context may do here.
struct Known {
    sight: ContextSight,
    for_change: bool,
}

/// The state machine; see the [module](self).
pub struct Shard<P: Part> {
    incarnation: Incarnation,
    term: Term,
    /// The newest term of which it is durable that it has been heard of.
    heard: Term,
    /// It has heard how everything was decided that it had not known at its start.
    is_welcome: bool,
    /// Clients that may believe what they were told before the start, and have not come back.
    missing: BTreeSet<SessionId>,
    /// Clients that came back before it was known who is missing.
    back: BTreeSet<SessionId>,
    /// The newest decision or cut that is known here.
    seq: Seq,
    known: BTreeMap<ContextId, Known>,
    /// Contexts that turned out to be gone, until whoever asked is told.
    gone: BTreeSet<ContextId>,
    fetching: BTreeSet<(ContextId, bool)>,
    met: BTreeSet<(ContextId, IntervalId)>,
    rounds: BTreeMap<u64, Round<P::Object>>,
    folds: BTreeMap<u64, Fold<P::Object>>,
    /// Changes of several shards in contexts, until all of each is shown: what these are about, no context looks at.
    steps: BTreeMap<Attempt, BTreeSet<P::Object>>,
    /// What is about to be held: nothing is added to it.
    kept: BTreeMap<Attempt, Vec<IntervalId>>,
    /// How often each number has changed something, for as long as it is undecided.
    changes: BTreeMap<IntervalId, u64>,
    /// Cuts that are taken here, and maybe not everywhere.
    cuts: BTreeSet<Seq>,
    effects: Vec<Effect<P::Object>>,
}

impl<P: Part> Shard<P> {
    /// Starts. The incarnation is greater than all before, and durable. `term` is the newest that has been [heard of](Effect::Heard), `seq`
    /// at least the place of the newest decision that is final here.
    pub fn new(incarnation: Incarnation, term: Term, seq: Seq) -> Self {
        Shard {
            incarnation,
            term,
            heard: term,
            is_welcome: false,
            missing: BTreeSet::new(),
            back: BTreeSet::new(),
            seq,
            known: BTreeMap::new(),
            gone: BTreeSet::new(),
            fetching: BTreeSet::new(),
            met: BTreeSet::new(),
            rounds: BTreeMap::new(),
            folds: BTreeMap::new(),
            kept: BTreeMap::new(),
            steps: BTreeMap::new(),
            changes: BTreeMap::new(),
            cuts: BTreeSet::new(),
            effects: Vec::new(),
        }
    }

    /// What is to be done since this was asked last.
    pub fn effects(&mut self) -> Vec<Effect<P::Object>> {
        std::mem::take(&mut self.effects)
    }

    /// Cuts that not all shards have taken: they are told with every answer, and asked with every request.
    pub fn cuts(&self) -> Vec<Seq> {
        self.cuts.iter().copied().collect()
    }

    fn say(&mut self, body: FromShard) {
        let stamped = Stamped { term: self.term, incarnation: self.incarnation, body };
        self.effects.push(Effect::Send(stamped));
    }

    /// A coordinator has greeted it. What was under way with an older one stays as it is until the new one has said what became of it.
    pub fn greeted(&mut self, term: Term, part: &P) {
        if term < self.term && !is_planted(Planted::TermForgotten) {
            return;
        }
        self.term = term;
        self.known.clear();
        self.gone.clear();
        self.rounds.values_mut().for_each(|round| round.is_asked = false);
        if self.heard == term {
            self.up(part);
        } else {
            self.effects.push(Effect::Heard(term));
            self.effects.push(Effect::Sync(Mark::Term(term)));
        }
    }

    /// Says what is not known here. In its term nothing has been said before.
    fn up(&mut self, part: &P) {
        self.say(FromShard::Up { undecided: part.undecided() });
    }

    /// A client is there that knows which incarnation this is, and believes nothing that it was told before.
    pub fn client_back(&mut self, session: SessionId) {
        self.missing.remove(&session);
        if !self.is_welcome {
            self.back.insert(session);
        }
    }

    /// The coordinator has said something.
    pub fn heard(&mut self, message: Stamped<ToShard>, part: &P) {
        let is_stale = message.term != self.term && !is_planted(Planted::StaleTermAccepted);
        if is_stale || message.incarnation != self.incarnation {
            return;
        }
        match message.body {
            ToShard::Welcome { fates, seq, cuts, sessions, last_session } => {
                self.welcome(fates, seq, cuts);
                self.sessions(sessions, last_session);
            }
            ToShard::Sight { context, sight, for_change } => self.sight(context, sight, for_change),
            ToShard::Gather { attempt, numbers, stop } => self.gather(attempt, numbers, stop, part),
            ToShard::Prepare { attempt, numbers } => self.prepare(attempt, &numbers, part),
            ToShard::GatherStep { attempt, work } => self.gather_step(attempt, &work, part),
            ToShard::PrepareStep { attempt, number, inside, work } => {
                self.prepare_step(attempt, number, inside, work, part);
            }
            ToShard::Keep { attempt, numbers } => self.keep(attempt, numbers),
            ToShard::Fold { attempt, numbers, missed } => self.fold(attempt, numbers, &missed, part),
            ToShard::Cancel { attempt } => self.cancel(attempt),
            ToShard::Final { seq, numbers } => self.switch(seq, numbers),
            ToShard::Dead { numbers } => self.dead(numbers),
            ToShard::StillOpen { round, seq } => self.still_open(round, seq),
            ToShard::Cut { seq } => {
                // Not all have taken it as long as this one has not said so.
                self.cuts.insert(seq);
                self.seq = self.seq.max(seq);
                self.decided_later_than(seq);
                self.say(FromShard::Taken { seq });
            }
            ToShard::CutTaken { seq } => drop(self.cuts.remove(&seq)),
            ToShard::Lost { session } => {
                self.missing.remove(&session);
                self.effects.push(Effect::Lost(session));
            }
        }
    }

    /// All clients that go on are to come back to a shard that has started.
    fn sessions(&mut self, sessions: Vec<SessionId>, last: SessionId) {
        if self.is_welcome {
            self.missing.retain(|session| sessions.contains(session));
        } else {
            self.is_welcome = true;
            let back = std::mem::take(&mut self.back);
            self.missing = sessions.iter().copied().filter(|session| !back.contains(session)).collect();
        }
        self.effects.push(Effect::Known(sessions, last));
    }

    fn sight(&mut self, context: ContextId, sight: Option<ContextSight>, for_change: bool) {
        self.fetching.remove(&(context, for_change));
        self.fetching.remove(&(context, false));
        self.met.retain(|(met, _)| *met != context);
        match sight {
            Some(sight) => drop(self.known.insert(context, Known { sight, for_change })),
            None => {
                self.known.remove(&context);
                self.gone.insert(context);
            }
        }
    }

    /// Who changes something after a cut is answered once all shards have taken it. One that a client knows of is news here, or has been
    /// told before.
    fn take(&mut self, cut: Seq) {
        if cut > self.seq {
            self.seq = cut;
            self.cuts.insert(cut);
        }
    }

    /// Whether a change that was made while these cuts were pending may be acknowledged.
    pub fn may_acknowledge(&self, cuts: &[Seq]) -> bool {
        cuts.iter().all(|cut| !self.cuts.contains(cut))
    }
}
