//! What a decision costs: messages, records and syncs, by the number of shards that take part, whatever was changed.

use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs_cluster::coordinator::{self, Coordinator};
use mojavefs_cluster::log::Record;
use mojavefs_cluster::message::{FromClient, Outcome, ToClient};
use mojavefs_cluster::shard::{self, Admission, Mark, Part, Shard, Wanted};
use mojavefs_cluster::{Incarnation, Request, SessionId, ShardId, Term};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const CLIENT: SessionId = SessionId(1);

/// What was changed under which number.
#[derive(Default)]
struct Changes(BTreeMap<IntervalId, BTreeSet<u64>>);

impl Part for Changes {
    type Object = u64;

    fn touched(&self, numbers: &[IntervalId]) -> BTreeSet<u64> {
        numbers.iter().filter_map(|number| self.0.get(number)).flatten().copied().collect()
    }

    fn conflicts(&self, _numbers: &[IntervalId]) -> Vec<IntervalId> {
        Vec::new()
    }

    fn outdated(&self, _numbers: &[IntervalId], _missed: &[IntervalId]) -> Vec<IntervalId> {
        Vec::new()
    }

    fn objects_of(&self, work: &[u8]) -> BTreeSet<u64> {
        work.iter().map(|object| (*object).into()).collect()
    }

    fn undecided(&self) -> Vec<IntervalId> {
        self.0.keys().copied().collect()
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    to_shards: usize,
    from_shards: usize,
    records: usize,
    syncs: usize,
}

/// Nothing is lost, and everything arrives at once.
struct Cluster {
    coordinator: Coordinator,
    shards: Vec<(Shard<Changes>, Changes)>,
    heard: VecDeque<ToClient>,
    cost: Cost,
}

impl Cluster {
    fn new(shards: u16) -> Cluster {
        let ids = (0..shards).map(ShardId);
        let mut coordinator = Coordinator::new(Term(1), ids.clone(), &[]);
        ids.for_each(|shard| coordinator.reached(shard));
        let shard = |_| (Shard::new(Incarnation(1), Term(0), Seq(0)), Changes::default());
        let shards = (0..shards).map(shard).collect();
        let mut cluster = Cluster { coordinator, shards, heard: VecDeque::new(), cost: Cost::default() };
        cluster.coordinator.connected(CLIENT, true);
        cluster.go_on();
        cluster.shards.iter_mut().for_each(|(shard, _)| shard.client_back(CLIENT));
        cluster
    }

    /// Until nothing follows any more, or the client has heard something.
    fn go_on(&mut self) {
        loop {
            let effects = self.coordinator.effects();
            let mut is_over = effects.is_empty();
            effects.into_iter().for_each(|effect| self.carry_out(effect));
            for at in 0..self.shards.len() {
                let effects = self.shards[at].0.effects();
                is_over &= effects.is_empty();
                effects.into_iter().for_each(|effect| self.carry_out_at(at, effect));
            }
            if is_over {
                return;
            }
        }
    }

    fn carry_out(&mut self, effect: coordinator::Effect) {
        match effect {
            coordinator::Effect::Greet(shard, term) => {
                let (shard, changes) = &mut self.shards[usize::from(shard.0)];
                shard.greeted(term, changes);
            }
            coordinator::Effect::ToShard(shard, message) => {
                self.cost.to_shards += 1;
                let (shard, changes) = &mut self.shards[usize::from(shard.0)];
                shard.heard(message, changes);
            }
            coordinator::Effect::ToClient(_, message) => self.heard.push_back(message),
            coordinator::Effect::Append(record) => {
                let is_counted = matches!(record, Record::Decision(_) | Record::Cut(_) | Record::Held(_));
                self.cost.records += usize::from(is_counted);
                self.coordinator.appended();
            }
        }
    }

    fn carry_out_at(&mut self, at: usize, effect: shard::Effect<u64>) {
        let (shard, changes) = &mut self.shards[at];
        match effect {
            shard::Effect::Send(message) => {
                self.cost.from_shards += 1;
                self.coordinator.from_shard(ShardId(at as u16), message);
            }
            shard::Effect::Forget(attempt, _) => shard.forgotten(attempt),
            shard::Effect::Perform { attempt, number, work, .. } => {
                changes.0.entry(number).or_default().extend(work.iter().map(|object| u64::from(*object)));
                shard.performed(attempt, shard::Performed::Made);
            }
            shard::Effect::Sync(mark) => {
                self.cost.syncs += usize::from(matches!(mark, Mark::Ready(_) | Mark::Kept(_)));
                shard.synced(mark, changes);
            }
            shard::Effect::Switch(_, numbers) | shard::Effect::Drop(numbers) => {
                changes.0.retain(|number, _| !numbers.contains(number));
            }
            shard::Effect::Keep(_) | shard::Effect::Heard(_) | shard::Effect::Lost(_) | shard::Effect::Known(..) => {}
        }
    }

    fn begin(&mut self, inside: Option<ContextId>) -> (SpecId, ContextId) {
        self.coordinator.from_client(CLIENT, FromClient::Begin { request: Request(1), isolated: false, inside });
        self.go_on();
        loop {
            match self.heard.pop_front().expect("it begins") {
                ToClient::Begun { spec, context, .. } => return (spec, context),
                _ => continue,
            }
        }
    }

    fn change(&mut self, at: usize, context: ContextId, object: u64) {
        let objects = BTreeSet::from([object]);
        let (seq, cuts) = (Seq(0), Vec::new());
        let wanted =
            Wanted { context: Some(context), version: 1, is_isolated: false, objects, changes: true, seq, cuts };
        let admitted = loop {
            match self.shards[at].0.admit(&wanted) {
                Admission::Go(admitted) => break admitted,
                Admission::Wait => {
                    let before = self.cost;
                    self.go_on();
                    assert_ne!(self.cost, before, "it would wait for ever");
                }
                Admission::Gone => panic!("it has only begun"),
            }
        };
        let writer = admitted.sight.expect("it is in a context").writer;
        let (shard, changes) = &mut self.shards[at];
        changes.0.entry(writer).or_default().insert(object);
        shard.changed(writer);
    }
}

/// One in which a context has changed so many objects on each of so many shards, of three.
fn changed(participants: u16, objects: u64) -> (Cluster, SpecId, ContextId) {
    let mut cluster = Cluster::new(3);
    let (spec, context) = cluster.begin(None);
    for at in 0..participants {
        (0..objects).for_each(|object| cluster.change(at.into(), context, object));
    }
    (cluster, spec, context)
}

/// What it costs to be answered so.
fn asked(cluster: &mut Cluster, message: FromClient, is_answer: impl Fn(&Outcome) -> bool) -> Cost {
    (cluster.cost, cluster.heard) = Default::default();
    cluster.coordinator.from_client(CLIENT, message);
    cluster.go_on();
    let is_it = |message: &ToClient| matches!(message, ToClient::Decided { outcome, .. } if is_answer(outcome));
    assert!(cluster.heard.iter().any(is_it), "{:?}", cluster.heard);
    cluster.cost
}

/// What it costs to commit a context that has changed so many objects on each of so many shards, of three.
fn commit(participants: u16, objects: u64) -> Cost {
    let (mut cluster, spec, _) = changed(participants, objects);
    let vote = FromClient::Vote { request: Request(2), spec };
    let cost = asked(&mut cluster, vote, |outcome| matches!(outcome, Outcome::Committed(_)));
    cluster.coordinator.from_client(CLIENT, FromClient::Heard { request: Request(2) });
    cluster.go_on();
    assert!(cluster.coordinator.is_idle(), "{}", cluster.coordinator.describe());
    cost
}

#[test]
fn a_decision_costs_three_round_trips_to_each_participant_a_record_and_a_sync_whatever_was_changed() {
    for participants in 0..=3 {
        let shards = usize::from(participants);
        // Afterwards each says once more that it is durable; nobody waits for that.
        let cost = Cost { to_shards: 3 * shards, from_shards: 4 * shards, records: 1, syncs: shards };
        for objects in [1, 10, 1000] {
            assert_eq!(commit(participants, objects), cost, "{objects} objects on {participants} shards");
        }
    }
}

#[test]
fn to_hold_something_costs_a_sync_at_each_participant_and_a_record() {
    for (participants, objects) in [(0, 0), (1, 1), (3, 1), (3, 1000)] {
        let (mut cluster, spec, _) = changed(participants, objects);
        let hold = FromClient::Hold { request: Request(2), spec };
        let cost = asked(&mut cluster, hold, |outcome| *outcome == Outcome::Held);
        let shards = usize::from(participants);
        // Each hears besides that the context is over, and that others may go on; nobody waits for that.
        assert_eq!(cost, Cost { to_shards: 3 * shards, from_shards: shards, records: 1, syncs: shards });
    }
}

#[test]
fn to_become_part_of_what_is_around_it_costs_no_record_and_nobody_is_waited_for() {
    let (mut cluster, _, outer) = changed(3, 1);
    let (spec, inner) = cluster.begin(Some(outer));
    (0..3).for_each(|at| cluster.change(at, inner, 7));
    let vote = FromClient::Vote { request: Request(2), spec };
    let cost = asked(&mut cluster, vote, |outcome| matches!(outcome, Outcome::Folded { .. }));
    assert_eq!(cost, Cost { to_shards: 3, ..Cost::default() }, "each hears what the outer one sees");
}

#[test]
fn a_change_of_two_shards_at_once_costs_what_a_decision_does_and_no_record_in_a_context() {
    let works = || vec![(ShardId(0), vec![1]), (ShardId(2), vec![2])];
    let step = |context| FromClient::Step { request: Request(2), context, works: works() };
    let mut cluster = Cluster::new(3);
    let cost = asked(&mut cluster, step(None), |outcome| matches!(outcome, Outcome::Committed(_)));
    assert_eq!(cost, Cost { to_shards: 6, from_shards: 8, records: 1, syncs: 2 });
    let (mut cluster, _, context) = changed(1, 1);
    let cost = asked(&mut cluster, step(Some(context)), |outcome| *outcome == Outcome::Made);
    // It is made, and shown: a sight for each shard that takes part, and no one waits for that.
    assert_eq!(cost, Cost { to_shards: 6, from_shards: 2, ..Cost::default() });
}
