//! Changes of several shards at once: a name here of a file there. On trunk one is a decision; in a context all of its parts are shown
//! at once, under a number of their own.

use super::{Coordinator, Phase, Round};
use crate::message::{Outcome, ToShard};
use crate::{Asker, Attempt, ShardId};
use mojavefs::graph::Event;
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::planted::{Planted, is_planted};
use std::collections::{BTreeMap, BTreeSet};

/// One of them.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) asker: Asker,
    /// In which context; nothing on trunk.
    pub(super) inside: Option<ContextId>,
    works: BTreeMap<ShardId, Vec<u8>>,
}

impl Coordinator {
    /// Somebody wants to change something on several shards. What was asked for before is not done twice; what no shard is to do, or one
    /// that there is not, is not done.
    pub(super) fn step(&mut self, asker: Asker, inside: Option<ContextId>, works: Vec<(ShardId, Vec<u8>)>) {
        let mut made = self.kept.values().flat_map(|kept| &kept.decision.owners);
        let is_it = |(_, other): &&(SpecId, Asker)| *other == asker && !is_planted(Planted::StepMadeTwice);
        if let Some((spec, _)) = made.find(is_it).copied() {
            self.waits(asker, spec);
            return self.answer();
        }
        let goes_on = |id: &ContextId| {
            self.contexts.get(id).is_some_and(|context| {
                context.session == Some(asker.session) && !context.voted && !self.holds.contains_key(&context.spec)
            })
        };
        let is_known = |(shard, _): &(ShardId, Vec<u8>)| self.shards.contains_key(shard);
        if !inside.as_ref().is_none_or(goes_on) || works.is_empty() || !works.iter().all(is_known) {
            return self.tell_decided(asker, Outcome::Aborted);
        }
        self.rounds_begun += 1;
        let attempt = Attempt { round: self.rounds_begun, number: 0 };
        let spec = SpecId(self.number());
        let works: BTreeMap<ShardId, Vec<u8>> = works.into_iter().collect();
        let participants: BTreeSet<ShardId> = works.keys().copied().collect();
        let step = Some(Step { asker, inside, works });
        let phase = Phase::Waiting(None);
        let round = Round { spec, step, attempt, phase, numbers: Vec::new(), participants, turns: 0 };
        self.rounds.insert(attempt.round, round);
        self.waits(asker, spec);
        self.gather(attempt.round);
    }

    /// Whether a change of several shards is under way in a context.
    pub(super) fn has_step(&self, context: ContextId) -> bool {
        let is_its = |round: &Round| round.step.as_ref().is_some_and(|step| step.inside == Some(context));
        self.rounds.values().any(is_its)
    }

    /// On trunk what was told of what is about to change is taken back. What is done in a context is told to nobody else.
    pub(super) fn gather_step(&mut self, number: u64) {
        let round = self.rounds.get_mut(&number).expect("it was found");
        let step = round.step.as_ref().expect("it is a step");
        let attempt = round.attempt;
        let Some(context) = step.inside else {
            round.phase = Phase::Gathering(round.participants.clone());
            let works = step.works.clone();
            for (shard, work) in works {
                self.send(shard, ToShard::GatherStep { attempt, work });
            }
            return;
        };
        if self.graph.is_sealed(context) {
            round.phase = Phase::Waiting(None);
            return;
        }
        let participants = round.participants.clone();
        self.contexts.get_mut(&context).expect("a step ends with its context").enrolled.extend(participants);
        self.prepare_step(number);
    }

    pub(super) fn prepare_step(&mut self, number: u64) {
        let carried = IntervalId(self.number());
        let inside = self.rounds[&number].step.as_ref().and_then(|step| step.inside);
        let inside = inside.and_then(|context| Some((context, self.sight_of(context)?)));
        let round = self.rounds.get_mut(&number).expect("it is there");
        round.phase = Phase::Preparing(round.participants.clone());
        round.numbers = vec![carried];
        let attempt = round.attempt;
        let works = round.step.as_ref().expect("it is a step").works.clone();
        for (shard, work) in works {
            let inside = inside.clone();
            self.send(shard, ToShard::PrepareStep { attempt, number: carried, inside, work });
        }
    }

    /// All parts of a step in a context are made: they are seen from now on.
    pub(super) fn show_step(&mut self, number: u64) {
        let round = self.rounds.remove(&number).expect("it was found");
        let context = round.step.and_then(|step| step.inside).expect("it is one of a context");
        self.graph.apply(&Event::Number { context, number: round.numbers[0] }).expect("it is not sealed");
        let sight = self.shown_anew(context);
        self.send_to(&round.participants, &ToShard::Cancel { attempt: round.attempt });
        self.tell_all_with(round.spec, Outcome::Made, &[sight]);
        self.go_on();
    }

    /// A shard can't do its part.
    pub(super) fn unable(&mut self, number: u64, why: u32) {
        let spec = self.rounds[&number].spec;
        self.cancel(number);
        self.rounds.remove(&number);
        self.tell_all(spec, Outcome::Unable(why));
        self.go_on();
    }

    /// A step has come upon what its context does not see: it is tried again once it does.
    pub(super) fn step_met(&mut self, number: u64, of: IntervalId) {
        let context = self.rounds[&number].step.as_ref().and_then(|step| step.inside);
        self.cancel(number);
        if let Some(context) = context
            && self.comes_upon(context, of, false).is_ok()
        {
            self.gather(number);
        }
        self.go_on();
    }

    /// A context is over: so are its steps.
    pub(super) fn end_steps(&mut self, context: ContextId) {
        let is_its = |round: &Round| round.step.as_ref().is_some_and(|step| step.inside == Some(context));
        let numbers = self.rounds.iter().filter(|(_, round)| is_its(round)).map(|(number, _)| *number);
        for number in numbers.collect::<Vec<_>>() {
            self.cancel(number);
            let round = self.rounds.remove(&number).expect("it was found");
            self.tell_all(round.spec, Outcome::Aborted);
        }
    }
}
