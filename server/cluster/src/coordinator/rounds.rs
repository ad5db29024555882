//! Rounds: gathered, sealed, handed to the log.

use super::{Coordinator, Phase, Round};
use crate::log::{Decision, Record};
use crate::message::{ToShard, Verdict};
use crate::{Attempt, ShardId};
use mojavefs::graph::{Effect as Follows, Event};
use mojavefs::id::{IntervalId, Seq, SpecId};
use mojavefs::planted::{Planted, is_planted};
use std::collections::BTreeSet;

/// How often a round is gathered while those that it decides change more; then their changes wait.
const GATHER_TURNS_MAX: u32 = 2;

impl Coordinator {
    pub(super) fn begin_round(&mut self, spec: SpecId) {
        self.rounds_begun += 1;
        let number = self.rounds_begun;
        let round = Round {
            spec,
            step: None,
            attempt: Attempt { round: number, number: 0 },
            phase: Phase::Waiting(None),
            numbers: Vec::new(),
            participants: BTreeSet::new(),
            turns: 0,
        };
        self.rounds.insert(number, round);
        self.gather(number);
    }

    /// What a round's vote would make final. Nothing if something sealed is in its way: then the round waits. Nor if it has come to
    /// depend on others: then the round is over, and the vote is one that waits for these.
    fn reach(&mut self, number: u64) -> Option<(Vec<IntervalId>, Vec<SpecId>)> {
        let spec = self.rounds[&number].spec;
        let owner = self.owner(spec).expect("the round of what is undone is over");
        let Ok(finals) = self.graph.preview(&Event::Vote { owner, spec }) else {
            self.rounds.get_mut(&number).expect("it was found").phase = Phase::Waiting(None);
            return None;
        };
        let found = finals.into_iter().find_map(|effect| match effect {
            Follows::Final { numbers, specs, .. } => Some((numbers, specs)),
            _ => None,
        });
        if found.is_none() {
            self.end_unsealed(number);
            self.decide(spec);
        }
        found
    }

    /// An attempt begins: what was told of what is about to change is taken back.
    pub(super) fn gather(&mut self, number: u64) {
        let Some(round) = self.rounds.get_mut(&number) else { return };
        round.attempt.number += 1;
        if round.step.is_some() {
            return self.gather_step(number);
        }
        let Some((numbers, specs)) = self.reach(number) else { return };
        let participants = self.participants(&specs);
        let round = self.rounds.get_mut(&number).expect("it is there");
        (round.numbers, round.participants) = (numbers.clone(), participants.clone());
        round.phase = Phase::Gathering(participants.clone());
        let (attempt, stop) = (round.attempt, round.turns >= GATHER_TURNS_MAX);
        self.send_to(&participants, &ToShard::Gather { attempt, numbers, stop });
        if participants.is_empty() {
            self.seal(number);
        }
    }

    fn participants(&self, specs: &[SpecId]) -> BTreeSet<ShardId> {
        let contexts = specs.iter().filter_map(|spec| self.contexts.get(self.jobs.get(spec)?));
        let mut all: BTreeSet<ShardId> = contexts.flat_map(|context| context.enrolled.iter().copied()).collect();
        if is_planted(Planted::ParticipantForgotten) && all.len() > 1 {
            all.pop_last();
        }
        all
    }

    fn of_attempt(&mut self, attempt: Attempt) -> Option<&mut Round> {
        self.rounds.get_mut(&attempt.round).filter(|round| round.attempt == attempt)
    }

    pub(super) fn gathered(&mut self, shard: ShardId, attempt: Attempt) {
        let Some(round) = self.of_attempt(attempt) else { return };
        let Phase::Gathering(left) = &mut round.phase else { return };
        left.remove(&shard);
        match (left.is_empty(), round.step.is_some()) {
            (true, true) => self.prepare_step(attempt.round),
            (true, false) => self.seal(attempt.round),
            _ => {}
        }
    }

    fn seal(&mut self, number: u64) {
        let spec = self.rounds[&number].spec;
        // Since it was gathered more may have come to depend on it, or less.
        let Some((numbers, specs)) = self.reach(number) else { return };
        let participants = self.participants(&specs);
        let round = self.rounds.get_mut(&number).expect("it is there");
        if (&round.numbers, &round.participants) != (&numbers, &participants) {
            return self.gather(number);
        }
        round.phase = Phase::Preparing(participants.clone());
        let attempt = round.attempt;
        let owner = self.owner(spec).expect("it was found");
        self.graph.apply(&Event::Prepare { owner, spec }).expect("the graph has said what it makes final");
        self.send_to(&participants, &ToShard::Prepare { attempt, numbers });
        if participants.is_empty() {
            self.log(number);
        }
    }

    pub(super) fn verdict(&mut self, shard: ShardId, attempt: Attempt, verdict: Verdict) {
        let Some(round) = self.of_attempt(attempt) else { return };
        let number = attempt.round;
        match verdict {
            Verdict::Ready => match &mut round.phase {
                Phase::Folding(..) => self.may_fold(shard, number),
                Phase::Preparing(left) => {
                    left.remove(&shard);
                    let in_parts = round.step.is_some() && is_planted(Planted::StepSeenInParts);
                    if left.is_empty() || in_parts || is_planted(Planted::DecidedByTheFirst) {
                        self.all_ready(number);
                    }
                }
                _ => {}
            },
            Verdict::Again => {
                round.turns += 1;
                self.cancel(number);
                self.gather(number);
                self.go_on();
            }
            Verdict::Behind(first) => self.behind(number, first),
            Verdict::Unable(why) => self.unable(number, why),
            Verdict::Met(of) => self.step_met(number, of),
            Verdict::Conflict(numbers) => {
                self.cancel(number);
                let specs: BTreeSet<SpecId> = numbers.iter().filter_map(|number| self.spec_of(*number)).collect();
                specs.into_iter().for_each(|spec| self.in_conflict(spec));
                self.go_on();
            }
        }
    }

    fn spec_of(&self, number: IntervalId) -> Option<SpecId> {
        let context = self.graph.writer_of(number)?;
        self.contexts.get(&context).map(|context| context.spec)
    }

    /// Another round came first at a shard. The older of the two is decided first; one that is with the log can't be withdrawn.
    fn behind(&mut self, number: u64, first: u64) {
        self.cancel(number);
        match self.rounds.get(&first).map(|other| &other.phase) {
            Some(Phase::Preparing(_) | Phase::Folding(..)) if first > number => {
                self.cancel(first);
                self.gather(number);
                self.go_on();
            }
            Some(Phase::Preparing(_) | Phase::Folding(..) | Phase::Logging(_)) => {
                self.rounds.get_mut(&number).expect("it is there").phase = Phase::Waiting(Some(first));
                self.go_on();
            }
            _ => {
                self.gather(number);
                self.go_on();
            }
        }
    }

    /// An attempt that has not been handed to the log ends. What waits for it has to be [told](Self::go_on).
    pub(super) fn cancel(&mut self, number: u64) {
        let Some(round) = self.rounds.get_mut(&number) else { return };
        let (spec, attempt, participants) = (round.spec, round.attempt, round.participants.clone());
        let was_sealed = round.is_sealed() && round.step.is_none();
        round.phase = Phase::Waiting(None);
        round.attempt.number += 1;
        // What was made of a step is undone.
        let made = if round.step.is_some() { std::mem::take(&mut round.numbers) } else { Vec::new() };
        if was_sealed {
            self.graph.apply(&Event::Cancel { spec }).expect("it was sealed");
        }
        self.send_to(&participants, &ToShard::Cancel { attempt });
        if !made.is_empty() {
            self.send_to(&participants, &ToShard::Dead { numbers: made });
        }
    }

    fn all_ready(&mut self, number: u64) {
        match &self.rounds[&number].step {
            Some(step) if step.inside.is_some() => self.show_step(number),
            _ => self.log(number),
        }
    }

    fn log(&mut self, number: u64) {
        let round = &self.rounds[&number];
        let (specs, owners) = match &round.step {
            Some(step) => (Vec::new(), vec![(round.spec, step.asker)]),
            None => {
                let specs = self.sealed_specs(round.spec);
                let owners = specs.iter().flat_map(|spec| self.contexts[&self.jobs[spec]].owners.iter().copied());
                (specs.clone(), owners.collect())
            }
        };
        let round = &self.rounds[&number];
        let (numbers, participants) = (round.numbers.clone(), round.participants.clone());
        self.seq = Seq(self.seq.0 + 1);
        let decision = Decision { seq: self.seq, numbers, specs, owners, participants };
        self.rounds.get_mut(&number).expect("it is there").phase = Phase::Logging(decision.clone());
        if is_planted(Planted::ToldBeforeTheRecord) {
            let told = ToShard::Final { seq: decision.seq, numbers: decision.numbers.clone() };
            self.send_to(&decision.participants, &told);
        }
        self.append(Record::Decision(decision));
    }

    fn sealed_specs(&mut self, spec: SpecId) -> Vec<SpecId> {
        let finals = self.graph.preview(&Event::Confirm { spec }).expect("it is sealed");
        let specs = finals.into_iter().filter_map(|effect| match effect {
            Follows::Final { specs, .. } => Some(specs),
            _ => None,
        });
        specs.flatten().collect()
    }
}
