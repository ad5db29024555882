//! What follows from decisions, and who has yet to know of them.

use super::{Context, Coordinator, Kept, Later, Phase, Round};
use crate::log::{Decision, Record};
use crate::message::{Fate, Outcome, ToClient, ToShard};
use crate::{Asker, Request, SessionId, ShardId};
use mojavefs::graph::{Effect as Follows, Event, GraphError};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs::planted::{Planted, is_planted};
use std::collections::BTreeSet;

/// What was undone, and who is to hear of it.
#[derive(Debug)]
pub(super) struct Fallen {
    numbers: Vec<IntervalId>,
    shards: BTreeSet<ShardId>,
    /// Whose it was, and who waited for it.
    answers: Vec<(Asker, Outcome)>,
    fell: Vec<(SessionId, SpecId)>,
}

impl Coordinator {
    /// A decision is in the log.
    pub(super) fn keep(&mut self, decision: Decision) {
        self.seq = self.seq.max(decision.seq);
        let (unapplied, undurable) = (decision.participants.clone(), decision.participants.clone());
        let goes_on = |(_, asker): &&(SpecId, Asker)| self.sessions.contains(&asker.session);
        let unheard = decision.owners.iter().filter(goes_on).copied().collect();
        self.kept.insert(decision.seq, Kept { decision, unapplied, undurable, unheard });
    }

    pub(super) fn decided(&mut self, decision: &Decision) {
        let seq = decision.seq;
        self.logged = self.logged.max(seq);
        let is_it = |phase: &Phase| matches!(phase, Phase::Logging(logging) if logging.seq == seq);
        let number = self.rounds.iter().find(|(_, round)| is_it(&round.phase)).map(|(number, _)| *number);
        let round = number.and_then(|number| self.rounds.remove(&number)).expect("only this ends it");
        self.keep(decision.clone());
        if round.step.is_none() {
            self.confirmed(round.spec, decision);
        }
        self.send_to(&decision.participants, &ToShard::Final { seq, numbers: decision.numbers.clone() });
        self.answer();
        self.welcome_those_who_wait();
        self.go_on();
        self.trim();
    }

    /// What a vote has sealed is final.
    fn confirmed(&mut self, spec: SpecId, decision: &Decision) {
        self.stays_seen(decision);
        let built = self.graph.built_on(&decision.numbers);
        self.graph.apply(&Event::Confirm { spec }).expect("it is sealed");
        let decided: Vec<ContextId> = decision.specs.iter().filter_map(|spec| self.jobs.remove(spec)).collect();
        let ended: Vec<Context> = decided.into_iter().filter_map(|context| self.end_context(context)).collect();
        // Since it was handed to the log some owners may have heard that theirs had become part of another.
        let unheard: BTreeSet<_> = ended.into_iter().flat_map(|context| context.owners).collect();
        self.kept.entry(decision.seq).and_modify(|kept| kept.unheard.retain(|owner| unheard.contains(owner)));
        decision.specs.iter().for_each(|spec| self.not_held(*spec));
        if !is_planted(Planted::HeldNotRewritten) {
            self.write_down(&built);
        }
    }

    /// Who stays with a snapshot, and saw some of it before it was decided, goes on seeing that.
    fn stays_seen(&mut self, decision: &Decision) {
        for (id, context) in self.contexts.iter_mut().filter(|(_, context)| context.cut.is_some()) {
            let seen = self.graph.seen_by(*id).map(|seen| seen.numbers).unwrap_or_default();
            context.finals.extend(seen.into_iter().filter(|number| decision.numbers.contains(number)));
        }
    }

    /// Nothing of a context is undecided any more.
    pub(super) fn end_context(&mut self, context: ContextId) -> Option<Context> {
        let ended = self.contexts.remove(&context);
        self.graph.apply(&Event::Close { context }).expect("nothing of it is sealed");
        ended
    }

    pub(super) fn applied(&mut self, shard: ShardId, seq: Seq) {
        if let Some(kept) = self.kept.get_mut(&seq) {
            kept.unapplied.remove(&shard);
            self.answer();
        }
    }

    pub(super) fn durable(&mut self, shard: ShardId, seq: Seq) {
        if let Some(kept) = self.kept.get_mut(&seq) {
            kept.undurable.remove(&shard);
            self.trim();
        }
    }

    /// The owners of decisions that everybody sees are answered: what follows from the answer is not in any cut that comes before it.
    pub(super) fn answer(&mut self) {
        let first_cut = self.cuts.keys().next().copied().filter(|_| !is_planted(Planted::AnsweredBeforeTheCut));
        let is_seen = |kept: &Kept| kept.unapplied.is_empty() || is_planted(Planted::AnsweredBeforeApplied);
        let before = |seq: &Seq| first_cut.is_none_or(|cut| *seq < cut);
        let seen = self.kept.iter().filter(|(seq, kept)| before(seq) && is_seen(kept));
        let specs = seen.flat_map(|(seq, kept)| kept.decision.owners.iter().map(|(spec, _)| (*seq, *spec)));
        for (seq, spec) in specs.collect::<Vec<_>>() {
            self.tell_all(spec, Outcome::Committed(seq));
        }
    }

    /// A session knows what became of what it asked about, or does not ask any more.
    pub(super) fn has_heard(&mut self, session: SessionId, of: impl Fn(Request) -> bool) {
        let is_open = |(_, asker): &(SpecId, Asker)| !(asker.session == session && of(asker.request));
        self.kept.values_mut().for_each(|kept| kept.unheard.retain(is_open));
        self.contexts.values_mut().for_each(|context| context.owners.retain(is_open));
    }

    /// What nobody needs any more leaves the log.
    pub(super) fn trim(&mut self) {
        let is_done = |kept: &Kept| {
            let heard = kept.unheard.is_empty() || is_planted(Planted::TrimmedBeforeHeard);
            kept.unapplied.is_empty() && kept.undurable.is_empty() && heard
        };
        let done: Vec<Seq> = self.kept.iter().filter(|(_, kept)| is_done(kept)).map(|(seq, _)| *seq).collect();
        for seq in done {
            self.kept.remove(&seq);
            self.append(Record::Trimmed(seq));
        }
    }

    /// Undoes a speculation, with all that depends on it, unless it is decided. What is sealed is withdrawn for it; what is with the log is
    /// waited for.
    pub(super) fn abort(&mut self, spec: SpecId, outcome: Outcome) {
        let Some(owner) = self.owner(spec) else { return };
        let bottom = self.graph.stack(owner.context()).first().copied();
        let sealed = bottom.and_then(|bottom| self.graph.sealed_with(bottom));
        if let Some(voter) = sealed {
            let number = self.rounds.iter().find(|(_, round)| round.spec == voter).map(|(number, _)| *number);
            let number = number.expect("what is sealed has a round");
            if matches!(self.rounds[&number].phase, Phase::Logging(_)) {
                return self.put_off(Later::Abort(spec, outcome));
            }
            self.cancel(number);
        }
        match self.graph.apply(&Event::Abort { owner, spec, code: 1, retry: false }) {
            Ok(follows) => self.fall(spec, outcome, &follows),
            Err(GraphError::Sealed(_)) => self.put_off(Later::Abort(spec, outcome)),
            Err(error) => unreachable!("{spec} is undecided, and its owner's to abort: {error}"),
        }
        self.go_on();
    }

    fn fall(&mut self, first: SpecId, outcome: Outcome, follows: &[Follows]) {
        for effect in follows {
            let Follows::Dead { numbers, specs, .. } = effect else { continue };
            let fallen = self.leave(first, outcome, (numbers, specs));
            let held: Vec<SpecId> = specs.iter().copied().filter(|spec| self.held.contains_key(spec)).collect();
            held.iter().for_each(|spec| self.not_held(*spec));
            if held.is_empty() || is_planted(Planted::DroppedBeforeTheRecord) {
                self.tell_fallen(fallen);
            } else {
                // It is there again in the next term, until that is in the log.
                self.falls.push_back(fallen);
                self.append(Record::Dropped(held));
            }
            // A round that would have decided some of it decides less.
            let is_about = |round: &Round| round.numbers.iter().any(|number| numbers.contains(number));
            let rounds = self.rounds.iter().filter(|(_, round)| is_about(round)).map(|(number, _)| *number);
            for number in rounds.collect::<Vec<_>>() {
                self.cancel(number);
                self.gather(number);
            }
        }
    }

    /// The first of what was held, and is undone, is in the log.
    pub(super) fn fallen(&mut self) {
        if let Some(fallen) = self.falls.pop_front() {
            self.tell_fallen(fallen);
        }
    }

    /// Shards and owners hear what was undone.
    fn tell_fallen(&mut self, fallen: Fallen) {
        let Fallen { numbers, shards, answers, fell } = fallen;
        self.send_to(&shards, &ToShard::Dead { numbers });
        answers.into_iter().for_each(|(asker, outcome)| self.tell_decided(asker, outcome));
        fell.into_iter().for_each(|(session, spec)| self.tell(session, ToClient::Fell { spec }));
    }

    /// These are undone: their rounds end. Returns who is to hear of it.
    fn leave(&mut self, first: SpecId, outcome: Outcome, (numbers, specs): (&[IntervalId], &[SpecId])) -> Fallen {
        let numbers = numbers.to_vec();
        let mut fallen = Fallen { numbers, shards: BTreeSet::new(), answers: Vec::new(), fell: Vec::new() };
        for spec in specs {
            self.end_hold(*spec);
            self.jobs.get(spec).copied().into_iter().for_each(|context| self.end_steps(context));
            let rounds = self.rounds.iter().filter(|(_, round)| round.spec == *spec);
            for number in rounds.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.end_unsealed(number);
            }
            let Some(context) = self.jobs.remove(spec).and_then(|context| self.end_context(context)) else {
                continue;
            };
            fallen.shards.extend(context.enrolled);
            let outcome = if *spec == first { outcome } else { Outcome::Aborted };
            let waiting = self.votes.remove(spec).unwrap_or_default();
            let session = context.session.filter(|_| waiting.is_empty());
            fallen.answers.extend(waiting.into_iter().map(|asker| (asker, outcome)));
            fallen.fell.extend(session.map(|session| (session, *spec)));
        }
        fallen
    }

    /// A round ends that is not sealed, or not any more.
    pub(super) fn end_unsealed(&mut self, number: u64) {
        if let Some(round) = self.rounds.remove(&number) {
            self.send_to(&round.participants, &ToShard::Cancel { attempt: round.attempt });
        }
    }

    /// How a number was decided, if it was, or that it is held.
    pub(super) fn fate(&self, number: IntervalId) -> Fate {
        let decided = self.kept.values().find(|kept| kept.decision.numbers.contains(&number));
        let writer = self.graph.writer_of(number).and_then(|context| self.contexts.get(&context));
        match decided {
            Some(kept) => Fate::Final(kept.decision.seq),
            None if writer.is_some_and(|context| context.is_held()) => Fate::Held,
            None if self.falls.iter().any(|fallen| fallen.numbers.contains(&number)) => Fate::Held,
            None => Fate::Dead,
        }
    }
}
