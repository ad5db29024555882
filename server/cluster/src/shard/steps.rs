//! A shard's parts of changes of several shards.

use super::{Effect, Mark, Part, Round, Shard};
use crate::Attempt;
use crate::message::{ContextSight, FromShard, Verdict};
use mojavefs::id::{ContextId, IntervalId, Seq};
use std::collections::BTreeSet;

/// What became of this part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performed {
    /// It is made.
    Made,
    /// It can't be made: why, for who asked for it.
    Unable(u32),
    /// Its context has come upon a change with this number, which it does not see.
    Met(IntervalId),
}

impl<P: Part> Shard<P> {
    pub(super) fn gather_step(&mut self, attempt: Attempt, work: &[u8], part: &P) {
        let objects = part.objects_of(work);
        self.effects.push(Effect::Forget(attempt, objects.clone()));
        let round = Round {
            attempt,
            numbers: Vec::new(),
            objects,
            changes: 0,
            is_stopped: false,
            is_sealed: false,
            after: Seq(0),
            is_asked: false,
        };
        self.rounds.insert(attempt.round, round);
    }

    pub(super) fn prepare_step(
        &mut self,
        attempt: Attempt,
        number: IntervalId,
        inside: Option<(ContextId, ContextSight)>,
        work: Vec<u8>,
        part: &P,
    ) {
        let objects = part.objects_of(&work);
        let sight = inside.map(|(_, sight)| sight);
        if let Some(first) = self.is_behind(attempt, &objects, sight.is_some()) {
            return self.say(FromShard::Verdict { attempt, verdict: Verdict::Behind(first) });
        }
        if sight.is_some() {
            self.steps.insert(attempt, objects);
        } else {
            let after = self.seq;
            let Some(round) = self.of_attempt(attempt) else { return };
            (round.is_sealed, round.numbers, round.after) = (true, vec![number], after);
        }
        self.effects.push(Effect::Perform { attempt, number, sight, work });
    }

    /// The round that came first.
    fn is_behind(&self, attempt: Attempt, objects: &BTreeSet<P::Object>, is_inside: bool) -> Option<u64> {
        let is_about = |other: &BTreeSet<P::Object>| !other.is_disjoint(objects);
        let sealed = |round: &&Round<P::Object>| {
            round.is_sealed && round.attempt.round != attempt.round && is_about(&round.objects)
        };
        let sealed = self.rounds.values().find(sealed).map(|round| round.attempt.round);
        let fold = self.folds.values().find(|fold| is_about(&fold.objects)).map(|fold| fold.attempt.round);
        let step = self.steps.iter().find(|(_, step)| is_about(step)).map(|(other, _)| other.round);
        sealed.or(fold.or(step).filter(|_| is_inside))
    }

    /// This part of a change is made, or can't be.
    pub fn performed(&mut self, attempt: Attempt, performed: Performed) {
        let is_inside = self.steps.contains_key(&attempt);
        let verdict = match performed {
            Performed::Made if is_inside => Verdict::Ready,
            Performed::Made => return self.effects.push(Effect::Sync(Mark::Ready(attempt))),
            Performed::Unable(why) => Verdict::Unable(why),
            Performed::Met(of) => Verdict::Met(of),
        };
        self.say(FromShard::Verdict { attempt, verdict });
    }
}
