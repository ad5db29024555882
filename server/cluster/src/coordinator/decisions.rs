//! What follows from decisions, and who has yet to know of them.

use super::{Context, Coordinator, Kept, Later, Phase, Round, folds};
use crate::log::{Decision, Record};
use crate::message::{Outcome, ToClient, ToShard};
use crate::{SessionId, ShardId};
use mojavefs::graph::{Effect as Follows, Event, GraphError};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs::planted::{Planted, is_planted};
use std::collections::BTreeSet;

impl Coordinator {
    /// A decision is in the log.
    pub(super) fn keep(&mut self, decision: Decision) {
        self.seq = self.seq.max(decision.seq);
        let (unapplied, undurable) = (decision.participants.clone(), decision.participants.clone());
        let known = |(spec, session): &(SpecId, SessionId)| self.sessions.contains(session).then_some(*spec);
        let unheard = decision.specs.iter().filter_map(known).collect();
        self.kept.insert(decision.seq, Kept { decision, unapplied, undurable, unheard });
    }

    pub(super) fn decided(&mut self, decision: &Decision) {
        let seq = decision.seq;
        self.logged = self.logged.max(seq);
        let is_it = |phase: &Phase| matches!(phase, Phase::Logging(logging) if logging.seq == seq);
        let number = self.rounds.iter().find(|(_, round)| is_it(&round.phase)).map(|(number, _)| *number);
        let round = number.and_then(|number| self.rounds.remove(&number)).expect("only this ends it");
        self.stays_seen(decision);
        self.graph.apply(&Event::Confirm { spec: round.spec }).expect("it is sealed");
        let decided: Vec<ContextId> = decision.specs.iter().filter_map(|(spec, _)| self.jobs.remove(spec)).collect();
        let ended: Vec<Context> = decided.into_iter().filter_map(|context| self.end_context(context)).collect();
        self.keep(decision.clone());
        // Since it was handed to the log some owners may have heard that theirs had become part of another.
        let unheard: BTreeSet<SpecId> = folds::owners(&ended).into_iter().map(|(spec, _)| spec).collect();
        self.kept.entry(seq).and_modify(|kept| kept.unheard.retain(|spec| unheard.contains(spec)));
        self.send_to(&decision.participants, &ToShard::Final { seq, numbers: decision.numbers.clone() });
        self.answer();
        self.welcome_those_who_wait();
        self.go_on();
        self.trim();
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
        let specs = seen.flat_map(|(seq, kept)| kept.decision.specs.iter().map(|(spec, _)| (*seq, *spec)));
        for (seq, spec) in specs.collect::<Vec<_>>() {
            if let Some((session, request)) = self.votes.remove(&spec) {
                self.tell_decided(session, request, Outcome::Committed(seq));
            }
        }
    }

    /// A session knows what became of those of its own speculations, or does not ask any more.
    pub(super) fn has_heard(&mut self, session: SessionId, of: impl Fn(SpecId) -> bool) {
        for Kept { decision, unheard, .. } in self.kept.values_mut() {
            unheard.retain(|spec| !(of(*spec) && decision.specs.contains(&(*spec, session))));
        }
        for context in self.contexts.values_mut() {
            context.folded.retain(|(spec, other)| !(of(*spec) && *other == session));
        }
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
        if sealed.is_some() {
            self.go_on();
        }
    }

    fn fall(&mut self, first: SpecId, outcome: Outcome, follows: &[Follows]) {
        for effect in follows {
            let Follows::Dead { numbers, specs, .. } = effect else { continue };
            let shards = self.leave(first, outcome, specs);
            self.send_to(&shards, &ToShard::Dead { numbers: numbers.clone() });
            // A round that would have decided some of it decides less.
            let is_about = |round: &Round| round.numbers.iter().any(|number| numbers.contains(number));
            let rounds = self.rounds.iter().filter(|(_, round)| is_about(round)).map(|(number, _)| *number);
            for number in rounds.collect::<Vec<_>>() {
                self.cancel(number);
                self.gather(number);
            }
        }
    }

    /// These are undone: their rounds end, their owners are told. Returns who has changes of them.
    fn leave(&mut self, first: SpecId, outcome: Outcome, specs: &[SpecId]) -> BTreeSet<ShardId> {
        let mut shards = BTreeSet::new();
        for spec in specs {
            let rounds = self.rounds.iter().filter(|(_, round)| round.spec == *spec);
            for number in rounds.map(|(number, _)| *number).collect::<Vec<_>>() {
                self.end_unsealed(number);
            }
            let Some(context) = self.jobs.remove(spec).and_then(|context| self.end_context(context)) else {
                continue;
            };
            shards.extend(context.enrolled);
            match self.votes.remove(spec) {
                Some((session, request)) => {
                    let outcome = if *spec == first { outcome } else { Outcome::Aborted };
                    self.tell_decided(session, request, outcome);
                }
                None => self.tell(context.session, ToClient::Fell { spec: *spec }),
            }
        }
        shards
    }

    /// A round ends that is not sealed, or not any more.
    pub(super) fn end_unsealed(&mut self, number: u64) {
        if let Some(round) = self.rounds.remove(&number) {
            self.send_to(&round.participants, &ToShard::Cancel { attempt: round.attempt });
        }
    }

    /// How a number was decided, if it was.
    pub(super) fn fate(&self, number: IntervalId) -> Option<Seq> {
        self.kept.values().find(|kept| kept.decision.numbers.contains(&number)).map(|kept| kept.decision.seq)
    }
}
