//! What shards say.

use super::{Coordinator, Effect, Later, Phase};
use crate::message::{ContextSight, Fate, FromShard, Outcome, Stamped, ToShard};
use crate::{Incarnation, ShardId};
use mojavefs::graph::{Event, GraphError, Resume};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs::planted::{Planted, is_planted};

impl Coordinator {
    /// A shard is connected.
    pub fn reached(&mut self, shard: ShardId) {
        self.effects.push(Effect::Greet(shard, self.term));
    }

    /// A shard has said something.
    pub fn from_shard(&mut self, shard: ShardId, message: Stamped<FromShard>) {
        let Stamped { term, incarnation, body } = message;
        if term != self.term {
            return;
        }
        if let FromShard::Up { undecided } = body {
            return self.up(shard, incarnation, undecided);
        }
        if self.shards.get(&shard).and_then(super::Peer::serving) == Some(incarnation) {
            self.heard(shard, body);
        }
    }

    pub(super) fn heard(&mut self, shard: ShardId, message: FromShard) {
        match message {
            FromShard::Up { .. } => {}
            FromShard::Fetch { context, for_change } => self.fetch(shard, context, for_change),
            FromShard::Met { context, of, changes } => self.met(shard, context, of, changes),
            FromShard::Gathered { attempt } => self.gathered(shard, attempt),
            FromShard::Verdict { attempt, verdict } => self.verdict(shard, attempt, verdict),
            FromShard::Kept { attempt } => self.kept_at(shard, attempt),
            FromShard::Ask { round } => self.asked(shard, round),
            FromShard::Applied { seq } => self.applied(shard, seq),
            FromShard::Durable { seq } => self.durable(shard, seq),
            FromShard::Taken { seq } => self.taken(shard, seq),
        }
    }

    /// A shard has started, or hears of this term for the first time. What had enrolled in an older incarnation of it falls.
    fn up(&mut self, shard: ShardId, incarnation: Incarnation, undecided: Vec<IntervalId>) {
        let Some(peer) = self.shards.get_mut(&shard) else { return };
        if peer.incarnation.is_some_and(|known| known >= incarnation) {
            return;
        }
        peer.incarnation = Some(incarnation);
        peer.asks = Some(undecided);
        // Nobody waits there any more for what was put off.
        self.later.retain(|later| !matches!(later, Later::Shard(other, _) if *other == shard));
        let is_kept = |context: &super::Context| context.is_held() && !is_planted(Planted::HeldWithItsShard);
        let falls = |context: &&super::Context| !is_kept(context) && context.enrolled.contains(&shard);
        let enrolled = self.contexts.values().filter(falls);
        let lost: Vec<SpecId> = enrolled.map(|context| context.spec).collect();
        lost.into_iter().for_each(|spec| self.abort(spec, Outcome::Aborted));
        self.ask_again(shard);
        self.welcome_those_who_wait();
    }

    /// A shard whose word is in a round that is with the log hears how that ends before it does anything.
    pub(super) fn welcome_those_who_wait(&mut self) {
        let logging: Vec<ShardId> = self.rounds.values().flat_map(logged_at).collect();
        let ready = self.shards.iter().filter(|(shard, peer)| peer.asks.is_some() && !logging.contains(shard));
        for shard in ready.map(|(shard, _)| *shard).collect::<Vec<_>>() {
            self.welcome(shard);
        }
    }

    fn welcome(&mut self, shard: ShardId) {
        let peer = self.shards.get_mut(&shard).expect("it was found");
        let undecided = peer.asks.take().unwrap_or_default();
        let fate = |number: &IntervalId| (*number, self.fate(*number));
        let fates: Vec<(IntervalId, Fate)> = undecided.iter().map(fate).collect();
        let told: Vec<Seq> = fates
            .iter()
            .filter_map(|(_, fate)| match fate {
                Fate::Final(seq) => Some(*seq),
                Fate::Dead | Fate::Held => None,
            })
            .collect();
        let sessions = self.sessions.iter().copied().collect();
        let (seq, cuts, last_session) = (self.logged, self.pending_cuts(), self.last_session);
        self.send(shard, ToShard::Welcome { fates, seq, cuts, sessions, last_session });
        // What it does not ask about is durable there.
        let known: Vec<Seq> = self.kept.keys().copied().filter(|seq| !told.contains(seq)).collect();
        for seq in known {
            self.applied(shard, seq);
            self.durable(shard, seq);
        }
        self.cuts_for(shard);
        // What was begun since it came up was not said to it.
        self.ask_again(shard);
        self.hold_again(shard);
        self.go_on();
    }

    /// What a shard was asked about what goes on without it is forgotten, or was not said to it: these rounds begin anew.
    fn ask_again(&mut self, shard: ShardId) {
        let asks = |round: &&super::Round| {
            round.participants.contains(&shard) && !matches!(round.phase, Phase::Logging(_) | Phase::Waiting(_))
        };
        let rounds: Vec<u64> = self.rounds.values().filter(asks).map(|round| round.attempt.round).collect();
        rounds.into_iter().for_each(|number| self.cancel(number));
    }

    fn fetch(&mut self, shard: ShardId, context: ContextId, for_change: bool) {
        if for_change && self.graph.is_sealed(context) && !is_planted(Planted::EnrolledAfterTheSeal) {
            return self.put_off(Later::Shard(shard, FromShard::Fetch { context, for_change }));
        }
        match self.contexts.get_mut(&context).filter(|_| for_change) {
            // What is held stays as it is.
            Some(held) if held.is_held() => {
                return self.send(shard, ToShard::Sight { context, sight: None, for_change });
            }
            Some(context) => drop(context.enrolled.insert(shard)),
            None => {}
        }
        self.show(shard, context, for_change);
    }

    /// Tells a shard what a context sees.
    pub(super) fn show(&mut self, shard: ShardId, context: ContextId, for_change: bool) {
        let sight = self.sight_of(context);
        self.send(shard, ToShard::Sight { context, sight, for_change });
    }

    pub(super) fn sight_of(&self, context: ContextId) -> Option<ContextSight> {
        let seen = self.graph.seen_by(context);
        self.contexts.get(&context).zip(seen).map(|(context, seen)| ContextSight {
            version: context.version,
            numbers: seen.numbers.into_iter().chain(context.finals.iter().copied()).collect(),
            writer: seen.writer,
            cut: context.cut,
        })
    }

    /// A context has met something.
    fn met(&mut self, shard: ShardId, context: ContextId, of: IntervalId, changes: bool) {
        if self.contexts.get(&context).is_some_and(|context| context.is_held()) {
            return self.send(shard, ToShard::Sight { context, sight: None, for_change: false });
        }
        if self.comes_upon(context, of, changes).is_err() {
            return self.put_off(Later::Shard(shard, FromShard::Met { context, of, changes }));
        }
        let for_change = self.contexts.get(&context).is_some_and(|context| context.enrolled.contains(&shard));
        self.show(shard, context, for_change);
    }

    /// A context becomes dependent on what it has met, if that is undecided still; what it changes lies above that. An error if this has to
    /// wait for what is sealed.
    pub(super) fn comes_upon(&mut self, context: ContextId, of: IntervalId, changes: bool) -> Result<(), SpecId> {
        let on = self.graph.writer_of(of).and_then(|other| self.graph.current(other));
        let Some(on) = on.filter(|_| self.contexts.contains_key(&context)) else { return Ok(()) };
        let interval = IntervalId(self.number());
        // What has a snapshot depends on nobody.
        let read = match self.contexts[&context].cut {
            Some(_) => Ok(Vec::new()),
            None => self.graph.apply(&Event::Read { context, of: on, interval, resume: Resume::Start }),
        };
        let is_below = changes
            && !is_planted(Planted::ChangedBelow)
            && self.graph.writer(context).is_some_and(|writer| writer < of);
        let number = IntervalId(self.number());
        let done = match read {
            Ok(_) if is_below => self.graph.apply(&Event::Number { context, number }),
            done => done,
        };
        match done {
            Ok(_) => self.contexts.get_mut(&context).expect("it is there").version += 1,
            Err(GraphError::Sealed(spec)) => return Err(spec),
            Err(_) => {}
        }
        Ok(())
    }

    /// One that waits for a round knows of decisions that this may be among.
    fn asked(&mut self, shard: ShardId, round: u64) {
        match self.rounds.get(&round).map(|round| &round.phase) {
            // It is told when that has ended.
            Some(Phase::Logging(_)) | None => {}
            Some(_) => self.send(shard, ToShard::StillOpen { round, seq: self.logged }),
        }
    }
}

fn logged_at(round: &super::Round) -> Vec<ShardId> {
    match &round.phase {
        Phase::Logging(decision) => decision.participants.iter().copied().collect(),
        _ => Vec::new(),
    }
}
