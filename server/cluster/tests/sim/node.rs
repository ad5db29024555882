//! A shard with its store, and what its clients have been told.

use crate::history::{History, Object, WriteId};
use crate::store::{Store, User, Work};
use crate::world::{End, Message, Network};
use mojavefs::id::{ContextId, IntervalId, Seq};
use mojavefs_cluster::message::ContextSight;
use mojavefs_cluster::shard::{Admission, Admitted, Effect, Mark, Performed, Shard, Wanted};
use mojavefs_cluster::{Attempt, Incarnation, SessionId};
use std::collections::{BTreeMap, BTreeSet};

/// What a client asks a shard for.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) session: SessionId,
    pub(crate) id: u64,
    pub(crate) place: Place,
    pub(crate) object: Object,
    /// What is written; else it is read.
    pub(crate) write: Option<WriteId>,
    pub(crate) seq: Seq,
    pub(crate) cuts: Vec<Seq>,
}

/// Where something is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    Trunk,
    Context { context: ContextId, version: u64, cut: Option<Seq> },
}

#[derive(Clone, Debug)]
pub(crate) enum Result {
    Found { write: WriteId, lasts: bool, is_final: bool },
    Done,
    Gone,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) result: Result,
    pub(crate) seq: Seq,
    pub(crate) cuts: Vec<Seq>,
    pub(crate) version: u64,
    /// What a context saw.
    pub(crate) sees: Vec<IntervalId>,
}

pub(crate) struct Node {
    id: u16,
    pub(crate) store: Store,
    /// None while it is dead.
    pub(crate) shard: Option<Shard<Store>>,
    incarnation: Incarnation,
    parked: Vec<Ask>,
    told: BTreeMap<Object, BTreeSet<SessionId>>,
    /// What they have been told to forget, and have not confirmed.
    forgetting: BTreeSet<(Object, SessionId)>,
    gathers: Vec<(Attempt, BTreeSet<Object>)>,
    syncs: Vec<(Mark, usize)>,
    unacknowledged: Vec<(SessionId, Answer)>,
}

impl Node {
    pub(crate) fn new(id: u16) -> Node {
        let mut node = Node {
            id,
            store: Store::default(),
            shard: None,
            incarnation: Incarnation(0),
            parked: Vec::new(),
            told: BTreeMap::new(),
            forgetting: BTreeSet::new(),
            gathers: Vec::new(),
            syncs: Vec::new(),
            unacknowledged: Vec::new(),
        };
        node.start();
        node
    }

    pub(crate) fn start(&mut self) {
        self.incarnation = Incarnation(self.incarnation.0 + 1);
        self.shard = Some(Shard::new(self.incarnation, self.store.term(), self.store.seq()));
    }

    /// All that is not in its store is gone.
    pub(crate) fn die(&mut self) {
        self.shard = None;
        self.parked.clear();
        self.told.clear();
        self.forgetting.clear();
        self.gathers.clear();
        self.syncs.clear();
        self.unacknowledged.clear();
    }

    pub(crate) fn ask(&mut self, ask: Ask) {
        self.parked.push(ask);
    }

    pub(crate) fn forgotten(&mut self, object: Object, session: SessionId) {
        self.forgetting.remove(&(object, session));
    }

    pub(crate) fn has_syncs(&self) -> bool {
        !self.syncs.is_empty()
    }

    pub(crate) fn sync(&mut self) {
        let (mark, written) = self.syncs.remove(0);
        self.store.sync(written);
        if let Some(shard) = &mut self.shard {
            shard.synced(mark, &self.store);
        }
    }

    /// Carries out what follows from what it has heard, until nothing follows any more.
    pub(crate) fn go_on(&mut self, network: &mut Network, history: &mut History) {
        while self.shard.is_some() {
            let before = self.parked.len() + self.gathers.len() + self.unacknowledged.len();
            self.carry_out(network, history);
            for ask in std::mem::take(&mut self.parked) {
                if !self.answer(&ask, network, history) {
                    self.parked.push(ask);
                }
            }
            self.confirm_gathers();
            self.acknowledge(network);
            let follows = self.carry_out(network, history);
            if !follows && before == self.parked.len() + self.gathers.len() + self.unacknowledged.len() {
                break;
            }
        }
    }

    fn carry_out(&mut self, network: &mut Network, history: &mut History) -> bool {
        let effects = self.shard.as_mut().map(Shard::effects).unwrap_or_default();
        let some = !effects.is_empty();
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    network.send(End::Shard(self.id), End::Coordinator(message.term), Message::FromShard(message));
                }
                Effect::Forget(attempt, objects) => {
                    objects.iter().for_each(|object| self.take_back(*object, network));
                    self.gathers.push((attempt, objects));
                }
                Effect::Sync(mark) => self.syncs.push((mark, self.store.written())),
                Effect::Perform { attempt, number, sight, work } => {
                    let performed = self.perform(number, sight.as_ref(), Work::of(&work), history);
                    if let Some(shard) = &mut self.shard {
                        shard.performed(attempt, performed);
                    }
                }
                Effect::Keep(numbers) => self.store.keep(&numbers),
                Effect::Heard(term) => self.store.hear(term),
                Effect::Switch(seq, numbers) => {
                    history.shown(seq, &numbers);
                    self.store.switch(seq, numbers);
                }
                Effect::Drop(numbers) => {
                    history.dropped(&numbers);
                    self.store.drop_numbers(numbers);
                }
                Effect::Lost(session) => self.lose(|other| other == session),
                Effect::Known(sessions, last) => self.lose(|other| other <= last && !sessions.contains(&other)),
            }
        }
        some
    }

    /// Its part of a change of several shards.
    fn perform(
        &mut self,
        number: IntervalId,
        sight: Option<&ContextSight>,
        work: Work,
        history: &mut History,
    ) -> Performed {
        let Work { object, write, is_refused } = work;
        if is_refused {
            return Performed::Unable(1);
        }
        let newest = self.store.newest(object).map(|(number, _)| number);
        let (_, label) = self.store.find(object, sight.and_then(|sight| sight.cut));
        let user = match sight {
            None => User::on_trunk(label),
            Some(sight) => {
                let is_met = |number: &IntervalId| sight.cut.is_none() && !sight.numbers.contains(number);
                if let Some(met) = newest.filter(is_met) {
                    return Performed::Met(met);
                }
                if let Some(cut) = sight.cut {
                    self.store.look(sight, cut, object);
                }
                User::of(sight, label)
            }
        };
        self.store.write_under(number, object, write, user);
        if let Some(shard) = &mut self.shard {
            shard.changed(number);
        }
        history.under(number, object, write);
        history.step(number, write, sight.map_or(&[], |sight| &sight.numbers));
        Performed::Made
    }

    fn lose(&mut self, is_lost: impl Fn(SessionId) -> bool) {
        self.parked.retain(|ask| !is_lost(ask.session));
        self.forgetting.retain(|(_, session)| !is_lost(*session));
        self.told.values_mut().for_each(|told| told.retain(|session| !is_lost(*session)));
    }

    fn take_back(&mut self, object: Object, network: &mut Network) {
        for session in self.told.remove(&object).unwrap_or_default() {
            self.forgetting.insert((object, session));
            network.send(End::Shard(self.id), End::Client(session), Message::Forget(object));
        }
    }

    fn is_believed(&self, object: Object) -> bool {
        let is_told = self.told.get(&object).is_some_and(|told| !told.is_empty());
        is_told || self.forgetting.iter().any(|(other, _)| *other == object)
    }

    fn confirm_gathers(&mut self) {
        for (attempt, objects) in std::mem::take(&mut self.gathers) {
            if objects.iter().any(|object| self.is_believed(*object)) {
                self.gathers.push((attempt, objects));
            } else if let Some(shard) = &mut self.shard {
                shard.forgotten(attempt);
            }
        }
    }

    /// Those who change something on trunk are answered when they may know that it is there.
    fn acknowledge(&mut self, network: &mut Network) {
        let Some(shard) = &self.shard else { return };
        for (session, answer) in std::mem::take(&mut self.unacknowledged) {
            if shard.may_acknowledge(&answer.cuts) {
                network.send(End::Shard(self.id), End::Client(session), Message::Answer(answer));
            } else {
                self.unacknowledged.push((session, answer));
            }
        }
    }

    /// Does what is asked for, if that is possible now.
    fn answer(&mut self, ask: &Ask, network: &mut Network, history: &mut History) -> bool {
        let (context, version, is_isolated) = match ask.place {
            Place::Trunk => (None, 0, false),
            Place::Context { context, version, cut } => (Some(context), version, cut.is_some()),
        };
        let wanted = Wanted {
            context,
            version,
            is_isolated,
            objects: BTreeSet::from([ask.object]),
            changes: ask.write.is_some(),
            seq: ask.seq,
            cuts: ask.cuts.clone(),
        };
        let shard = self.shard.as_mut().expect("it is alive");
        let admitted = match shard.admit(&wanted) {
            Admission::Wait => return false,
            Admission::Go(admitted) => admitted,
            Admission::Gone => {
                let (seq, cuts) = (ask.seq, shard.cuts());
                let answer = Answer { id: ask.id, result: Result::Gone, seq, cuts, version, sees: Vec::new() };
                network.send(End::Shard(self.id), End::Client(ask.session), Message::Answer(answer));
                return true;
            }
        };
        let result = match (context, admitted.sight.clone(), ask.write) {
            (Some(context), Some(sight), write) => self.in_context(context, &sight, (ask.object, write), history),
            (_, _, None) => Some(self.on_trunk(ask, admitted.lasts)),
            (_, _, Some(write)) => self.write(ask.object, write, &admitted, network, history),
        };
        let Some(result) = result else { return false };
        let Admitted { sight, seq, cuts, .. } = admitted;
        let (version, sees) = sight.map_or((0, Vec::new()), |sight| (sight.version, sight.numbers));
        let answer = Answer { id: ask.id, result, seq, cuts, version, sees };
        if ask.write.is_some() && context.is_none() {
            self.unacknowledged.push((ask.session, answer));
        } else {
            network.send(End::Shard(self.id), End::Client(ask.session), Message::Answer(answer));
        }
        true
    }

    fn on_trunk(&mut self, ask: &Ask, lasts: bool) -> Result {
        let is_about_to_change = |other: &Ask| matches!(other.place, Place::Trunk) && other.write.is_some();
        let lasts = lasts && !self.parked.iter().any(|other| other.object == ask.object && is_about_to_change(other));
        if lasts {
            self.told.entry(ask.object).or_default().insert(ask.session);
        }
        let (write, _) = self.store.find(ask.object, None);
        Result::Found { write, lasts, is_final: true }
    }

    fn write(
        &mut self,
        object: Object,
        write: WriteId,
        admitted: &Admitted,
        network: &mut Network,
        history: &mut History,
    ) -> Option<Result> {
        self.take_back(object, network);
        if self.is_believed(object) {
            return None;
        }
        let label = 2 * admitted.seq.0 + 1;
        self.store.write_trunk(object, label, write);
        history.becomes_final(write, label);
        Some(Result::Done)
    }

    fn in_context(
        &mut self,
        context: ContextId,
        sight: &ContextSight,
        (object, write): (Object, Option<WriteId>),
        history: &mut History,
    ) -> Option<Result> {
        let shard = self.shard.as_mut().expect("it is alive");
        let newest = self.store.newest(object);
        let is_met = |number: &IntervalId| sight.cut.is_none() && !sight.numbers.contains(number);
        if let Some((number, _)) = newest.filter(|(number, _)| is_met(number)) {
            shard.met(context, number, write.is_some());
            return None;
        }
        let below = newest.filter(|(number, _)| write.is_some() && *number > sight.writer);
        if let Some((number, _)) = below {
            shard.met(context, number, true);
            return None;
        }
        let (found, label) = self.store.find(object, sight.cut);
        if let Some(cut) = sight.cut {
            self.store.look(sight, cut, object);
        }
        let Some(write) = write else {
            let seen = self.store.seen(object, &sight.numbers);
            let seen = seen.or_else(|| self.store.seen_final(object, sight.cut?, &sight.numbers));
            return Some(Result::Found { write: seen.unwrap_or(found), lasts: false, is_final: seen.is_none() });
        };
        self.store.write_under(sight.writer, object, write, User::of(sight, label));
        shard.changed(sight.writer);
        history.under(sight.writer, object, write);
        Some(Result::Done)
    }
}
