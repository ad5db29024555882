//! Contexts inside of others: how they begin, and how they become part of what is around them.

use super::{Context, Coordinator, Later, Phase, Round};
use crate::message::{Outcome, ToShard};
use crate::{Attempt, SessionId, ShardId};
use mojavefs::graph::{Event, GraphError};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::planted::{Planted, is_planted};

/// What a context stays with that is inside of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) numbers: Vec<IntervalId>,
    /// From these sights on nothing of that is changed any more.
    pub(super) sights: Vec<(ContextId, u64)>,
}

impl Coordinator {
    /// The interval that a context begins in that is inside of another.
    pub(super) fn begins_in(&self, outer: ContextId, session: SessionId) -> Result<IntervalId, GraphError> {
        let is_known = self.contexts.get(&outer).is_some_and(|outer| outer.session == Some(session));
        self.graph.current(outer).filter(|_| is_known).ok_or(GraphError::NoContext(outer))
    }

    /// What there is around one that is to begin inside of another, and stays with that: all that changes it later carries new numbers.
    pub(super) fn find(&mut self, outer: ContextId, session: SessionId) -> Result<Found, GraphError> {
        self.begins_in(outer, session)?;
        let around: Vec<ContextId> = self.graph.around(outer).collect();
        let mut current = around.iter().filter_map(|context| self.graph.current(*context));
        if let Some(spec) = current.find_map(|current| self.graph.sealed_with(current)) {
            return Err(GraphError::Sealed(spec));
        }
        let numbers = self.graph.seen_by(outer).map(|seen| seen.numbers).unwrap_or_default();
        let around = around.into_iter().filter(|_| !is_planted(Planted::FoundNotToldApart));
        let sights = around.map(|outer| self.number_anew(outer).expect("it is not sealed")).collect();
        Ok(Found { numbers, sights })
    }

    /// What a context changes from now on carries a new number, on each shard from the moment on at which that hears of it.
    fn number_anew(&mut self, context: ContextId) -> Result<(ContextId, u64), GraphError> {
        let number = IntervalId(self.number());
        self.graph.apply(&Event::Number { context, number })?;
        Ok(self.shown_anew(context))
    }

    /// Its shards hear what a context sees by now. Returns the number of that sight.
    pub(super) fn shown_anew(&mut self, context: ContextId) -> (ContextId, u64) {
        let state = self.contexts.get_mut(&context).expect("it was found");
        state.version += 1;
        let version = state.version;
        for shard in state.enrolled.clone() {
            self.show(shard, context, true);
        }
        (context, version)
    }

    /// Whether a context can become part of the one around it: nothing is added to what is held.
    pub(super) fn can_fold(&self, context: ContextId) -> bool {
        let outer = self.graph.outer(context).and_then(|outer| self.contexts.get(&outer));
        outer.is_some_and(|outer| !outer.is_held()) && self.graph.can_fold(context)
    }

    /// A context that has voted becomes part of the one around it. One that stays with what it found does if its shards say that
    /// nothing of that has been changed since.
    pub(super) fn begin_fold(&mut self, spec: SpecId) {
        let context = self.jobs[&spec];
        if self.graph.around(context).any(|around| self.graph.is_sealed(around)) {
            return self.put_off(Later::Vote(spec));
        }
        if !self.contexts[&context].is_isolated || is_planted(Planted::FoldNotJudged) {
            return self.fold(spec);
        }
        self.rounds_begun += 1;
        let attempt = Attempt { round: self.rounds_begun, number: 1 };
        let participants = self.contexts[&context].enrolled.clone();
        let (missed, numbers) = (self.missed(context), self.graph.carried_by(context));
        let (phase, turns) = (Phase::Folding(participants.clone(), missed.clone()), 0);
        let all = (numbers.clone(), participants.clone());
        let round = Round { spec, step: None, attempt, phase, numbers: all.0, participants: all.1, turns };
        self.rounds.insert(attempt.round, round);
        self.send_to(&participants, &ToShard::Fold { attempt, numbers, missed });
        if participants.is_empty() {
            self.end_fold(attempt.round);
        }
    }

    /// What the context around one sees, and it does not.
    fn missed(&self, context: ContextId) -> Vec<IntervalId> {
        let seen = |context| self.graph.seen_by(context).map(|seen| seen.numbers).unwrap_or_default();
        let (own, around) = (seen(context), self.graph.outer(context).map(seen).unwrap_or_default());
        around.into_iter().filter(|number| !own.contains(number)).collect()
    }

    /// All have said that it can become part of what is around it.
    pub(super) fn end_fold(&mut self, number: u64) {
        let round = &self.rounds[&number];
        let spec = round.spec;
        let context = self.jobs[&spec];
        // Since then it may have changed something elsewhere, more may be inside of it, or something else around it.
        let is_as_it_was = round.participants == self.contexts[&context].enrolled
            && round.numbers == self.graph.carried_by(context)
            && matches!(&round.phase, Phase::Folding(_, missed) if *missed == self.missed(context));
        if is_as_it_was && self.can_fold(context) {
            self.fold(spec);
            self.end_unsealed(number);
        } else {
            self.end_unsealed(number);
            self.decide(spec);
        }
        self.go_on();
    }

    fn fold(&mut self, spec: SpecId) {
        let context = self.jobs[&spec];
        let outer = self.graph.outer(context).expect("it can become part of something");
        let built = self.graph.built_on(&self.own_numbers(context));
        match self.graph.apply(&Event::Fold { context }) {
            Ok(_) => {}
            Err(GraphError::Sealed(_)) => return self.put_off(Later::Vote(spec)),
            Err(error) => unreachable!("{spec} can become part of what is around it: {error}"),
        }
        self.jobs.remove(&spec);
        let inner = self.contexts.remove(&context).expect("it was found");
        let state = self.contexts.get_mut(&outer).expect("what is around something is known");
        state.takes_in(inner);
        let sight = self.number_anew(outer).expect("it is not sealed");
        self.tell_all_with(spec, Outcome::Folded { into: outer }, &[sight]);
        self.write_down(&built);
    }

    /// What shards say to a context's becoming part of the one around it.
    pub(super) fn may_fold(&mut self, shard: ShardId, number: u64) {
        let Some(Phase::Folding(left, _)) = self.rounds.get_mut(&number).map(|round| &mut round.phase) else { return };
        left.remove(&shard);
        if left.is_empty() {
            self.end_fold(number);
        }
    }
}

impl Context {
    fn takes_in(&mut self, inner: Context) {
        if !is_planted(Planted::ShardsLostAtFold) {
            self.enrolled.extend(inner.enrolled);
        }
        if !is_planted(Planted::FoldedNotNamed) {
            self.owners.extend(inner.owners);
        }
    }
}
