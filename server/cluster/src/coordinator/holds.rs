//! Speculations that outlive their clients, every term, and every start of a shard: others decide them, or their votes wait for others.

use super::{Context, Coordinator, Later};
use crate::log::{Decision, Held, Record};
use crate::message::{Outcome, ToShard};
use crate::{Asker, Attempt, ShardId};
use mojavefs::graph::{Event, GraphError, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::BTreeSet;

/// Something that is about to be held.
#[derive(Debug)]
pub(super) struct Hold {
    attempt: Attempt,
    numbers: Vec<IntervalId>,
    participants: BTreeSet<ShardId>,
    /// Where it is not durable yet.
    left: BTreeSet<ShardId>,
}

impl Coordinator {
    /// Whether a speculation is undecided.
    pub fn is_undecided(&self, spec: SpecId) -> bool {
        self.jobs.contains_key(&spec)
    }

    /// The speculations that somebody has to decide: those that are held, and have no vote, or are in conflict.
    pub fn held(&self) -> Vec<SpecId> {
        let is_open =
            |context: &&Context| context.is_held() && (!context.voted || self.graph.is_in_conflict(context.spec));
        self.contexts.values().filter(is_open).map(|context| context.spec).collect()
    }

    pub(super) fn hold_for(&mut self, asker: Asker, spec: SpecId) {
        if self.is_owner(asker.session, spec) && !self.has_voted(spec) {
            self.waits(asker, spec);
            return self.hold(spec);
        }
        match self.context_of(spec) {
            Some(_) => self.tell_decided(asker, Outcome::Held),
            None => self.tell_kept(asker, spec, Outcome::Aborted),
        }
    }

    /// Begins to hold something: its shards make durable what they have of it. What is held already is written down anew.
    pub(super) fn hold(&mut self, spec: SpecId) {
        let Some(context) = self.context_of(spec) else { return };
        if context.is_held() {
            return self.write_down(&BTreeSet::from([self.jobs[&spec]]));
        }
        if self.holds.contains_key(&spec) {
            return;
        }
        if self.has_step(self.jobs[&spec]) {
            return self.put_off(Later::Hold(spec));
        }
        let participants = context.enrolled.clone();
        self.rounds_begun += 1;
        let attempt = Attempt { round: self.rounds_begun, number: 1 };
        let numbers = self.own_numbers(self.jobs[&spec]);
        let left = participants.clone();
        self.send_to(&participants, &ToShard::Keep { attempt, numbers: numbers.clone() });
        self.holds.insert(spec, Hold { attempt, numbers, participants, left });
        self.if_kept(spec);
    }

    pub(super) fn kept_at(&mut self, shard: ShardId, attempt: Attempt) {
        let Some((spec, hold)) = self.holds.iter_mut().find(|(_, hold)| hold.attempt == attempt) else { return };
        hold.left.remove(&shard);
        let spec = *spec;
        self.if_kept(spec);
    }

    /// Once it is durable at all shards, it is held with its record.
    fn if_kept(&mut self, spec: SpecId) {
        let Some(hold) = self.holds.get(&spec).filter(|hold| hold.left.is_empty()) else { return };
        let id = self.jobs[&spec];
        let context = &self.contexts[&id];
        if hold.participants != context.enrolled || hold.numbers != self.own_numbers(id) {
            self.end_hold(spec);
            return self.hold(spec);
        }
        match self.graph.apply(&Event::Hold { context: id, spec }) {
            Ok(_) => {}
            Err(GraphError::Sealed(_)) => {
                self.end_hold(spec);
                return self.put_off(Later::Hold(spec));
            }
            Err(error) => unreachable!("{spec} is undecided, and its owner's: {error}"),
        }
        self.contexts.get_mut(&id).expect("it was found").session = None;
        self.write_down(&BTreeSet::from([id]));
    }

    /// A shard has come up that was to make something durable.
    pub(super) fn hold_again(&mut self, shard: ShardId) {
        let waiting = self.holds.iter().filter(|(_, hold)| hold.participants.contains(&shard));
        for spec in waiting.map(|(spec, _)| *spec).collect::<Vec<_>>() {
            self.end_hold(spec);
            self.hold(spec);
        }
    }

    /// It is not about to be held any more: its context may go on, if it is there.
    pub(super) fn end_hold(&mut self, spec: SpecId) {
        if let Some(hold) = self.holds.remove(&spec) {
            self.send_to(&hold.participants, &ToShard::Cancel { attempt: hold.attempt });
        }
    }

    /// Something that is held is decided.
    pub(super) fn not_held(&mut self, spec: SpecId) {
        self.held.remove(&spec);
        self.end_hold(spec);
    }

    /// What these contexts' changes carry, without what is inside of them.
    pub(super) fn own_numbers(&self, context: ContextId) -> Vec<IntervalId> {
        let is_own = |number: &IntervalId| self.graph.writer_of(*number) == Some(context);
        self.graph.carried_by(context).into_iter().filter(is_own).collect()
    }

    /// What the log says of those of these contexts that are held is made true.
    pub(super) fn write_down(&mut self, contexts: &BTreeSet<ContextId>) {
        let held = contexts.iter().filter_map(|id| Some((*id, self.contexts.get(id)?)));
        let held = held.filter(|(_, context)| context.is_held());
        let records = held.map(|(id, context)| self.record(id, context));
        let news = records.filter(|record| self.held.get(&record.spec) != Some(record));
        for record in news.collect::<Vec<Held>>() {
            self.held.insert(record.spec, record.clone());
            self.append(Record::Held(record));
        }
    }

    fn record(&self, id: ContextId, context: &Context) -> Held {
        let around: BTreeSet<ContextId> = self.graph.around(id).collect();
        let under = self.graph.current(id).map(|current| self.graph.contexts_under(current)).unwrap_or_default();
        let under = under.into_iter().filter(|other| !around.contains(other));
        Held {
            spec: context.spec,
            context: id,
            inside: self.graph.outer(id).and_then(|outer| self.contexts.get(&outer)).map(|outer| outer.spec),
            is_isolated: context.is_isolated,
            found: if context.is_isolated { self.graph.found_by(id) } else { Vec::new() },
            finals: context.finals.iter().copied().collect(),
            cut: context.cut,
            numbers: self.own_numbers(id),
            depends: under.filter_map(|other| self.contexts.get(&other)).map(|other| other.spec).collect(),
            participants: context.enrolled.clone(),
            voted: context.voted,
            owners: context.owners.iter().copied().collect(),
        }
    }

    /// A record of something that is held is in the log.
    pub(super) fn is_held(&mut self, held: &Held) {
        let Some(context) = self.contexts.get(&held.context).filter(|_| self.held.contains_key(&held.spec)) else {
            return;
        };
        if let Some(hold) = self.holds.remove(&held.spec) {
            // Its context is over: nothing is changed in it any more.
            for shard in context.enrolled.clone() {
                self.send(shard, ToShard::Sight { context: held.context, sight: None, for_change: true });
            }
            self.send_to(&hold.participants, &ToShard::Cancel { attempt: hold.attempt });
        }
        match (held.voted, self.has_voted(held.spec)) {
            (false, false) => self.tell_all(held.spec, Outcome::Held),
            (true, _) if !self.is_decided_now(held.spec) => self.tell_all(held.spec, Outcome::Waits),
            // Somebody decides it, and hears what becomes of that.
            _ => {}
        }
    }

    /// Somebody decides what is held.
    pub(super) fn decide_held(&mut self, asker: Asker, spec: SpecId, commit: bool) {
        if self.is_of_a_later_term(spec) {
            // Whoever asks hears from that one.
            return;
        }
        if self.context_of(spec).is_none() || !self.held.contains_key(&spec) {
            return self.tell_kept(asker, spec, Outcome::Unknown);
        }
        let is_in_conflict = self.graph.is_in_conflict(spec);
        if commit && is_in_conflict {
            return self.tell_decided(asker, Outcome::Conflict);
        }
        if commit && self.has_voted(spec) && !self.votes.contains_key(&spec) && !self.is_decided_now(spec) {
            return self.tell_decided(asker, Outcome::Waits);
        }
        self.waits(asker, spec);
        if !commit {
            self.abort(spec, Outcome::Aborted);
        } else if self.count_vote(spec) {
            self.decide(spec);
        }
    }

    /// A round of its own vote is under way.
    fn is_decided_now(&self, spec: SpecId) -> bool {
        self.rounds.values().any(|round| round.spec == spec)
    }

    /// A shard says that something is in conflict: it is undone, unless it is held. Then somebody has to give it up.
    pub(super) fn in_conflict(&mut self, spec: SpecId) {
        if self.context_of(spec).is_none_or(|context| !context.is_held()) {
            return self.abort(spec, Outcome::Conflict);
        }
        let own: Vec<u64> =
            self.rounds.iter().filter(|(_, round)| round.spec == spec).map(|(number, _)| *number).collect();
        own.into_iter().for_each(|number| self.end_unsealed(number));
        match self.graph.apply(&Event::Conflict { spec }) {
            Ok(_) => self.tell_all(spec, Outcome::Conflict),
            // It is met again when that is over.
            Err(GraphError::Sealed(_)) => {}
            Err(error) => unreachable!("{spec} is undecided: {error}"),
        }
    }

    /// What is held is taken up again, those that others are inside of first. What depended on something that is gone falls.
    pub(super) fn restore(&mut self, outdated: &BTreeSet<SpecId>) {
        let mut all: Vec<Held> = self.held.values().cloned().collect();
        all.sort_by_key(|held| held.context);
        for held in &all {
            self.take_up(held).expect("the log holds what the graph has taken before");
        }
        let mut fallen = Vec::new();
        for held in &all {
            let mut needs = held.depends.iter().chain(&held.inside);
            if needs.any(|other| !self.jobs.contains_key(other)) {
                fallen.push(held.spec);
                continue;
            }
            for other in &held.depends {
                let of = self.graph.current(self.jobs[other]).expect("it was taken up");
                let interval = IntervalId(self.number());
                let read = Event::Read { context: held.context, of, interval, resume: Resume::Start };
                self.graph.apply(&read).expect("both are there");
            }
        }
        fallen.into_iter().for_each(|spec| self.abort(spec, Outcome::Aborted));
        self.held.retain(|spec, _| !outdated.contains(spec) || !self.jobs.contains_key(spec));
        let written: BTreeSet<ContextId> = outdated.iter().filter_map(|spec| self.jobs.get(spec).copied()).collect();
        self.write_down(&written);
        for held in all.iter().filter(|held| held.voted) {
            self.decide(held.spec);
        }
    }

    fn take_up(&mut self, held: &Held) -> Result<(), GraphError> {
        let Held { spec, context, .. } = *held;
        let outer = held.inside.and_then(|outer| self.jobs.get(&outer));
        let from = outer.and_then(|outer| self.graph.current(*outer));
        let sees = if held.is_isolated { Sees::Had(held.found.clone()) } else { Sees::Follows };
        let first = IntervalId(self.number());
        self.graph.apply(&Event::Open { context, interval: first, from, sees })?;
        let entry = held.numbers[0];
        self.graph.apply(&Event::Speculate { context, interval: entry, spec })?;
        for number in &held.numbers[1..] {
            self.graph.apply(&Event::Number { context, number: *number })?;
        }
        self.graph.apply(&Event::Hold { context, spec })?;
        let restored = Context {
            spec,
            session: None,
            voted: held.voted,
            cut: held.cut,
            is_isolated: held.is_isolated,
            version: 1,
            enrolled: held.participants.clone(),
            finals: held.finals.iter().copied().collect(),
            owners: held.owners.iter().copied().collect(),
        };
        self.contexts.insert(context, restored);
        self.jobs.insert(spec, context);
        Ok(())
    }
}

impl Held {
    /// Whether something that it depended on, or saw, or was inside of, is final.
    pub(super) fn has_to_do_with(&self, decision: &Decision) -> bool {
        let mut needs = self.depends.iter().chain(&self.inside);
        let mut seen = self.found.iter().chain(&self.numbers);
        needs.any(|spec| decision.specs.contains(spec)) || seen.any(|number| decision.numbers.contains(number))
    }

    /// All that is left once this is final.
    pub(super) fn without(&mut self, decision: &Decision) {
        self.depends.retain(|spec| !decision.specs.contains(spec));
        self.inside = self.inside.filter(|outer| !decision.specs.contains(outer));
        let is_final = |number: &IntervalId| decision.numbers.contains(number);
        if self.cut.is_some() {
            self.finals.extend(self.found.iter().copied().filter(is_final));
        }
        self.found.retain(|number| !is_final(number));
        // What it had begun with is final with what it was begun in.
        self.numbers.retain(|number| !is_final(number));
    }
}
