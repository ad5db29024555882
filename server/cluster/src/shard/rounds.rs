//! What a shard does in rounds.

use super::{Effect, Fold, Mark, Part, Round, Shard};
use crate::Attempt;
use crate::message::{Fate, FromShard, Verdict};
use mojavefs::id::{IntervalId, Seq};
use mojavefs::planted::{Planted, is_planted};
use std::collections::BTreeMap;

impl<P: Part> Shard<P> {
    pub(super) fn welcome(&mut self, fates: Vec<(IntervalId, Fate)>, seq: Seq, cuts: Vec<Seq>) {
        // What was sealed for a coordinator that is gone is among what was asked about.
        self.rounds.clear();
        self.folds.clear();
        self.kept.clear();
        self.steps.clear();
        // One that a client knew of may be later than what is said here.
        self.cuts.retain(|cut| *cut > seq);
        self.cuts.extend(cuts);
        // What was asked before was not heard.
        self.fetching.clear();
        self.met.clear();
        let mut finals: BTreeMap<Seq, Vec<IntervalId>> = BTreeMap::new();
        let mut dead = Vec::new();
        for (number, fate) in fates {
            match fate {
                Fate::Final(seq) => finals.entry(seq).or_default().push(number),
                Fate::Dead => dead.push(number),
                Fate::Held => {}
            }
        }
        finals.into_iter().for_each(|(seq, numbers)| self.switch(seq, numbers));
        if !dead.is_empty() {
            self.dead(dead);
        }
        self.seq = self.seq.max(seq);
    }

    /// A context has changed something under this number.
    pub fn changed(&mut self, number: IntervalId) {
        *self.changes.entry(number).or_default() += 1;
    }

    fn changes_of(&self, numbers: &[IntervalId]) -> u64 {
        numbers.iter().filter_map(|number| self.changes.get(number)).sum()
    }

    pub(super) fn gather(&mut self, attempt: Attempt, numbers: Vec<IntervalId>, is_stopped: bool, part: &P) {
        let objects = part.touched(&numbers);
        let changes = self.changes_of(&numbers);
        let after = Seq(0);
        let round = Round { attempt, numbers, objects, changes, is_stopped, is_sealed: false, after, is_asked: false };
        self.effects.push(Effect::Forget(attempt, round.objects.clone()));
        self.rounds.insert(attempt.round, round);
        if is_planted(Planted::GatheredAtOnce) {
            self.forgotten(attempt);
        }
    }

    pub(super) fn of_attempt(&mut self, attempt: Attempt) -> Option<&mut Round<P::Object>> {
        self.rounds.get_mut(&attempt.round).filter(|round| round.attempt == attempt)
    }

    /// Nobody believes any more what was told before of what a round decides.
    pub fn forgotten(&mut self, attempt: Attempt) {
        if self.of_attempt(attempt).is_some() {
            self.say(FromShard::Gathered { attempt });
        }
    }

    pub(super) fn prepare(&mut self, attempt: Attempt, numbers: &[IntervalId], part: &P) {
        let changes = self.changes_of(numbers);
        let Some(round) = self.of_attempt(attempt) else { return };
        if (round.changes != changes || round.numbers != numbers) && !is_planted(Planted::MoreThanGathered) {
            return self.say(FromShard::Verdict { attempt, verdict: Verdict::Again });
        }
        let objects = part.touched(numbers);
        let in_the_way = |other: &&Round<P::Object>| {
            other.is_sealed && other.attempt.round != attempt.round && !other.objects.is_disjoint(&objects)
        };
        if let Some(other) = self.rounds.values().find(in_the_way).filter(|_| !is_planted(Planted::BothSealed)) {
            let verdict = Verdict::Behind(other.attempt.round);
            return self.say(FromShard::Verdict { attempt, verdict });
        }
        let conflicts = part.conflicts(numbers);
        if !conflicts.is_empty() {
            return self.say(FromShard::Verdict { attempt, verdict: Verdict::Conflict(conflicts) });
        }
        let after = self.seq;
        let round = self.of_attempt(attempt).expect("it was found");
        (round.is_sealed, round.objects, round.after) = (true, objects, after);
        self.effects.push(Effect::Sync(Mark::Ready(attempt)));
        if is_planted(Planted::ReadyBeforeDurable) {
            self.synced(Mark::Ready(attempt), part);
        }
    }

    /// What was applied before this mark is durable.
    pub fn synced(&mut self, mark: Mark, part: &P) {
        match mark {
            Mark::Ready(attempt) if self.of_attempt(attempt).is_some_and(|round| round.is_sealed) => {
                self.say(FromShard::Verdict { attempt, verdict: Verdict::Ready });
            }
            Mark::Ready(_) => {}
            Mark::Kept(attempt) if self.kept.contains_key(&attempt) => self.say(FromShard::Kept { attempt }),
            Mark::Kept(_) => {}
            Mark::Term(term) if term == self.term => {
                self.heard = term;
                self.up(part);
            }
            Mark::Term(_) => {}
            Mark::Final(seq) => self.say(FromShard::Durable { seq }),
        }
    }

    /// What has used what was changed around it can't become part of that. Nothing is durable for it: who is inside falls with the shard.
    pub(super) fn fold(&mut self, attempt: Attempt, numbers: Vec<IntervalId>, missed: &[IntervalId], part: &P) {
        let outdated = part.outdated(&numbers, missed);
        let verdict = if outdated.is_empty() { Verdict::Ready } else { Verdict::Conflict(outdated) };
        let objects = part.touched(&numbers);
        self.folds.insert(attempt.round, Fold { attempt, numbers, objects });
        self.say(FromShard::Verdict { attempt, verdict });
    }

    /// What is to be held is made durable.
    pub(super) fn keep(&mut self, attempt: Attempt, numbers: Vec<IntervalId>) {
        self.effects.push(Effect::Keep(numbers.clone()));
        self.effects.push(Effect::Sync(Mark::Kept(attempt)));
        self.kept.insert(attempt, numbers);
        if is_planted(Planted::KeptBeforeDurable) {
            self.say(FromShard::Kept { attempt });
        }
    }

    pub(super) fn cancel(&mut self, attempt: Attempt) {
        if self.of_attempt(attempt).is_some() {
            self.rounds.remove(&attempt.round);
        }
        self.folds.retain(|_, fold| fold.attempt != attempt);
        self.kept.remove(&attempt);
        self.steps.remove(&attempt);
    }

    pub(super) fn switch(&mut self, seq: Seq, numbers: Vec<IntervalId>) {
        self.forget_numbers(&numbers);
        self.effects.push(Effect::Switch(seq, numbers));
        self.seq = self.seq.max(seq);
        self.decided_later_than(seq);
        self.say(FromShard::Applied { seq });
        self.effects.push(Effect::Sync(Mark::Final(seq)));
    }

    /// What is told in the order of decisions tells of all that is sealed and not yet decided that it comes later.
    pub(super) fn decided_later_than(&mut self, seq: Seq) {
        self.rounds.values_mut().for_each(|round| round.after = round.after.max(seq));
    }

    pub(super) fn dead(&mut self, numbers: Vec<IntervalId>) {
        self.forget_numbers(&numbers);
        self.effects.push(Effect::Drop(numbers));
    }

    fn forget_numbers(&mut self, numbers: &[IntervalId]) {
        let is_over = |of: &[IntervalId]| of.iter().any(|number| numbers.contains(number));
        self.rounds.retain(|_, round| !is_over(&round.numbers));
        self.folds.retain(|_, fold| !is_over(&fold.numbers));
        // Of what is to be held, what it began with may be final before.
        self.kept.retain(|_, kept| kept.iter().any(|number| !numbers.contains(number)));
        self.known.retain(|_, known| !numbers.contains(&known.sight.writer));
        self.changes.retain(|number, _| !numbers.contains(number));
    }

    pub(super) fn still_open(&mut self, round: u64, seq: Seq) {
        if let Some(round) = self.rounds.get_mut(&round) {
            round.after = round.after.max(seq);
            round.is_asked = false;
        }
    }
}
