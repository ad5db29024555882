//! Everything in one thread: a coordinator or two, shards, clients, a log, and what is on the way between them. A seed chooses what
//! happens next.

use crate::client::Client;
use crate::does::{Does, What};
use crate::history::{History, Object};
use crate::job::Isolated;
use crate::node::{Answer, Ask, Node};
use crate::random::Random;
use mojavefs::id::{ContextId, IntervalId, Seq};
use mojavefs_cluster::coordinator::{Coordinator, Effect};
use mojavefs_cluster::link::{Frame, Link};
use mojavefs_cluster::log::{Record, compact};
use mojavefs_cluster::message::{FromClient, FromShard, Outcome, Stamped, ToClient, ToShard};
use mojavefs_cluster::{Asker, SessionId, ShardId, Term};
use std::collections::{BTreeMap, VecDeque};

pub(crate) const SHARDS: u16 = 3;
/// What clients do: in each run one of these. What goes wrong with snapshots is rare.
const MODES: [What; 7] =
    [What::All, What::Snapshots, What::Snapshots, What::Commits, What::Nested, What::Nested, What::Held];
/// How many objects a shard has at most.
const OBJECTS_MAX: u64 = 2;
const CLIENTS_MAX: u64 = 5;
/// After how many messages one is confirmed by itself, rather than with what is said.
const CONFIRMED_EACH: u64 = 8;
/// For how many steps something stays slow, and how many times as slow as all else; the same for what the disk does. One of these.
const SLOW_FOR: [u64; 3] = [30, 100, 400];
/// One of so many decisions finds its coordinator killed when it is in the log.
const KILLED_AT_THE_RECORD: u64 = 20;
/// In one of so many steps a coordinator starts, if there is none.
const STARTED_AGAIN: u64 = 15;
/// How often everything may be delivered at the end until nobody waits any more.
const TURNS_MAX: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// Of this term.
    Coordinator(Term),
    Shard(u16),
    Client(SessionId),
    Log,
}

#[derive(Clone, Debug)]
pub(crate) enum Message {
    Greet(Term),
    ToShard(Stamped<ToShard>),
    FromShard(Stamped<FromShard>),
    ToClient(ToClient),
    FromClient(FromClient),
    Ask(Ask),
    Answer(Answer),
    Forget(Object),
    Forgotten(Object, SessionId),
    Back(SessionId),
    Closed(ContextId),
    Append(Record),
    Appended,
}

/// What takes much longer than all else for now.
#[derive(Default)]
enum Slow {
    #[default]
    Nothing,
    /// What goes from one end to another.
    One(End, End),
    /// What coordinators say to shards other than this.
    OrdersBut(End),
}

impl Slow {
    fn is_about(&self, from: End, to: End) -> bool {
        match self {
            Slow::Nothing => false,
            Slow::One(one, other) => (from, to) == (*one, *other),
            Slow::OrdersBut(one) => matches!((from, to), (End::Coordinator(_), End::Shard(_))) && to != *one,
        }
    }
}

/// What is on the way: between two ends in the order in which it was sent.
#[derive(Default)]
pub(crate) struct Network {
    queues: BTreeMap<(End, End), VecDeque<Frame<Message>>>,
    /// What each end keeps of its session with another.
    links: BTreeMap<(End, End), Link<Message>>,
    slow: Slow,
    slow_for: u64,
    pub(crate) trace: bool,
}

impl Network {
    pub(crate) fn send(&mut self, from: End, to: End, message: Message) {
        let frame = self.links.entry((from, to)).or_default().say(message);
        self.queues.entry((from, to)).or_default().push_back(frame);
    }

    /// The sessions of one who is gone.
    fn cut(&mut self, end: End, is_kept: impl Fn(End) -> bool) {
        self.queues.retain(|(from, to), _| (*from != end && *to != end) || is_kept(*to));
        self.links.retain(|(from, to), _| *from != end && (*to != end || is_kept(*from)));
    }

    /// A connection ends with all that is under way, and there is a new one at once.
    fn reconnect(&mut self, random: &mut Random) {
        let at = random.below(self.queues.len().max(1) as u64) as usize;
        let Some((one, other)) = self.queues.keys().nth(at).copied() else { return };
        for (from, to) in [(one, other), (other, one)] {
            self.queues.remove(&(from, to));
            let again: VecDeque<_> = self.links.get(&(from, to)).into_iter().flat_map(Link::again).collect();
            if !again.is_empty() {
                self.queues.insert((from, to), again);
            }
        }
    }

    fn take(&mut self, random: &mut Random) -> Option<(End, End, Message)> {
        if self.queues.is_empty() {
            return None;
        }
        let at = random.below(self.queues.len() as u64) as usize;
        if random.below(self.slow_for) == 0 {
            self.slow = if random.coin() {
                self.queues.keys().nth(at).map_or(Slow::Nothing, |(from, to)| Slow::One(*from, *to))
            } else {
                Slow::OrdersBut(End::Shard(random.below(SHARDS.into()) as u16))
            };
        }
        let (&(from, to), queue) = self.queues.iter_mut().nth(at)?;
        if self.slow.is_about(from, to) && random.below(self.slow_for) > 0 {
            return None;
        }
        let frame = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&(from, to));
        }
        let link = self.links.entry((to, from)).or_default();
        let message = link.hear(frame)?;
        if random.below(CONFIRMED_EACH) == 0 {
            let frame = link.confirm();
            self.queues.entry((to, from)).or_default().push_back(frame);
        }
        if self.trace {
            println!("{from:?} -> {to:?}: {message:?}");
        }
        Some((from, to, message))
    }
}

/// What happened in how many runs, and how often.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) steps: u64,
    pub(crate) commits: u64,
    pub(crate) isolated: u64,
    pub(crate) folded: u64,
    pub(crate) held: u64,
    pub(crate) waits: u64,
    pub(crate) made: u64,
    pub(crate) shards_killed: u64,
    pub(crate) power_cuts: u64,
    pub(crate) coordinators_killed: u64,
    pub(crate) superseded: u64,
    pub(crate) clients_killed: u64,
    pub(crate) cuts_withdrawn: u64,
    pub(crate) reconnected: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Counts) {
        self.steps += other.steps;
        self.commits += other.commits;
        self.isolated += other.isolated;
        self.folded += other.folded;
        self.held += other.held;
        self.waits += other.waits;
        self.made += other.made;
        self.shards_killed += other.shards_killed;
        self.power_cuts += other.power_cuts;
        self.coordinators_killed += other.coordinators_killed;
        self.superseded += other.superseded;
        self.clients_killed += other.clients_killed;
        self.cuts_withdrawn += other.cuts_withdrawn;
        self.reconnected += other.reconnected;
    }

    /// Whatever can go wrong has, and work was done all the same.
    pub(crate) fn is_enough(&self) -> bool {
        let faults = [
            self.shards_killed,
            self.power_cuts,
            self.coordinators_killed,
            self.superseded,
            self.clients_killed,
            self.cuts_withdrawn,
            self.reconnected,
        ];
        let work = [self.isolated, self.folded, self.held, self.waits, self.made];
        self.commits > 10_000 && work.iter().all(|count| *count > 1_000) && faults.iter().all(|count| *count > 1_000)
    }
}

pub(crate) struct World {
    random: Random,
    does: Does,
    has_slow_disks: bool,
    network: Network,
    history: History,
    log: Vec<Record>,
    term: Term,
    /// The last one may be the only one; those before it do not know that they are superseded.
    coordinators: Vec<Coordinator>,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    sessions: u64,
    /// Sessions of clients that are gone.
    gone: Vec<SessionId>,
    faults: u64,
    pub(crate) counts: Counts,
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> World {
        let mut random = Random::new(seed);
        let slow_for = SLOW_FOR[random.below(3) as usize];
        let mut world = World {
            does: Does {
                what: MODES[random.below(MODES.len() as u64) as usize],
                objects: 1 + random.below(OBJECTS_MAX) as u8,
            },
            has_slow_disks: random.below(3) == 0,
            random,
            network: Network { trace, slow_for, ..Network::default() },
            history: History::default(),
            log: Vec::new(),
            term: Term(0),
            coordinators: Vec::new(),
            nodes: (0..SHARDS).map(Node::new).collect(),
            clients: Vec::new(),
            sessions: 0,
            gone: Vec::new(),
            faults: 0,
            counts: Counts::default(),
        };
        // Some runs have no faults at all, and some have many.
        world.faults = [0, 600, 200, 60][world.random.below(4) as usize];
        world.begin_term();
        for _ in 0..2 + world.random.below(CLIENTS_MAX - 1) {
            let client = world.new_client();
            world.clients.push(client);
        }
        world
    }

    fn new_client(&mut self) -> Client {
        self.sessions += 1;
        let session = SessionId(self.sessions);
        if let Some(coordinator) = self.coordinators.last_mut() {
            coordinator.connected(session, true);
        }
        self.carry_out();
        for shard in 0..SHARDS {
            self.network.send(End::Client(session), End::Shard(shard), Message::Back(session));
        }
        Client::new(session, self.does)
    }

    fn begin_term(&mut self) {
        self.term = Term(self.term.0 + 1);
        if self.random.coin() {
            self.log = compact(&self.log);
        }
        self.log.push(Record::Term(self.term));
        let mut coordinator = Coordinator::new(self.term, (0..SHARDS).map(ShardId), &self.log);
        for (shard, node) in self.nodes.iter().enumerate() {
            if node.shard.is_some() {
                coordinator.reached(ShardId(shard as u16));
            }
        }
        for client in &self.clients {
            coordinator.connected(client.session, client.term == Term(0));
        }
        self.coordinators.push(coordinator);
        self.carry_out();
    }

    /// One thing happens.
    pub(crate) fn step(&mut self, is_ending: bool) {
        self.counts.steps += 1;
        if self.coordinators.is_empty() && self.random.below(STARTED_AGAIN) == 0 {
            self.begin_term();
        }
        if !is_ending && self.faults > 0 && self.random.below(self.faults) == 0 {
            return self.fault();
        }
        match self.random.below(6) {
            0 => {
                let at = self.random.below(self.clients.len() as u64) as usize;
                let held = self.coordinators.last().map(Coordinator::held).unwrap_or_default();
                self.clients[at].act(is_ending, &held, &mut self.random, &mut self.network, &mut self.history);
            }
            1 if !self.has_slow_disks || self.random.below(self.network.slow_for) == 0 => {
                let syncs: Vec<usize> = (0..self.nodes.len()).filter(|at| self.nodes[*at].has_syncs()).collect();
                if let Some(at) = syncs.get(self.random.below(syncs.len().max(1) as u64) as usize) {
                    self.nodes[*at].sync();
                    self.nodes[*at].go_on(&mut self.network, &mut self.history);
                }
            }
            _ => {
                if let Some((from, to, message)) = self.network.take(&mut self.random) {
                    self.deliver(from, to, message);
                }
            }
        }
    }

    fn deliver(&mut self, from: End, to: End, message: Message) {
        match to {
            End::Shard(shard) => self.deliver_to_shard(shard, message),
            End::Client(session) => self.deliver_to_client(from, session, message),
            End::Log => self.deliver_to_log(from, message),
            End::Coordinator(term) => {
                let at = self.coordinators.iter().position(|coordinator| coordinator.term() == term);
                let Some(coordinator) = at.map(|at| &mut self.coordinators[at]) else { return };
                match (from, message) {
                    (End::Shard(shard), Message::FromShard(message)) => coordinator.from_shard(ShardId(shard), message),
                    (End::Client(session), Message::FromClient(message)) => coordinator.from_client(session, message),
                    (_, Message::Appended) => coordinator.appended(),
                    (_, message) => unreachable!("{message:?} to a coordinator"),
                }
                self.carry_out();
            }
        }
    }

    fn deliver_to_shard(&mut self, shard: u16, message: Message) {
        let node = &mut self.nodes[usize::from(shard)];
        let Some(state) = &mut node.shard else { return };
        match message {
            Message::Greet(term) => state.greeted(term, &node.store),
            Message::ToShard(message) => state.heard(message, &node.store),
            Message::Back(session) => state.client_back(session),
            Message::Closed(context) => state.closed(context),
            Message::Ask(ask) => node.ask(ask),
            Message::Forgotten(object, session) => node.forgotten(object, session),
            message => unreachable!("{message:?} to a shard"),
        }
        node.go_on(&mut self.network, &mut self.history);
    }

    fn deliver_to_client(&mut self, from: End, session: SessionId, message: Message) {
        let Some(client) = self.clients.iter_mut().find(|client| client.session == session) else { return };
        match message {
            Message::ToClient(message) => {
                if let ToClient::Decided { outcome, .. } = &message {
                    self.counts.commits += u64::from(matches!(outcome, Outcome::Committed(_)));
                    self.counts.folded += u64::from(matches!(outcome, Outcome::Folded { .. }));
                    self.counts.held += u64::from(matches!(outcome, Outcome::Held));
                    self.counts.made += u64::from(matches!(outcome, Outcome::Made));
                    self.counts.waits += u64::from(matches!(outcome, Outcome::Waits));
                }
                let is_known = matches!(message, ToClient::Known { .. } | ToClient::Unknown);
                if from != End::Coordinator(client.term) && !is_known {
                    return;
                }
                let heard = client.heard(message, &mut self.network, &mut self.history);
                if let Some((seq, isolated)) = heard {
                    self.counts.isolated += isolated.len() as u64;
                    isolated.iter().for_each(|isolated| self.check_isolated(seq, isolated));
                }
            }
            Message::Answer(answer) => {
                let coordinator = self.coordinators.last();
                let is_live = |spec| coordinator.is_some_and(|coordinator| coordinator.is_undecided(spec));
                client.answered(answer, is_live, &mut self.history);
            }
            Message::Forget(object) => client.forget(object, &mut self.network),
            message => unreachable!("{message:?} to a client"),
        }
    }

    fn check_isolated(&self, seq: Seq, isolated: &Isolated) {
        let Isolated { spec, cut, used, sees } = isolated;
        let own = self.history.numbers_of(seq);
        let under = self.history.seen_under(&own);
        let seen: Vec<IntervalId> = own.into_iter().chain(under).chain(sees.iter().copied()).collect();
        for object in used {
            let labels = self.nodes[usize::from(object.0)].store.changes_of(*object, &seen);
            History::check_isolated(*spec, *cut, seq, &labels);
        }
    }

    fn deliver_to_log(&mut self, from: End, message: Message) {
        let (End::Coordinator(term), Message::Append(record)) = (from, message) else { return };
        // Once a newer term is in it, the log takes nothing of an older one.
        if term < self.term {
            return;
        }
        let is_decision = matches!(record, Record::Decision(_));
        self.history.logged(&record);
        self.log.push(record);
        self.network.send(End::Log, from, Message::Appended);
        // The moment at which most hangs on what the log says.
        if is_decision && self.faults > 0 && self.random.below(KILLED_AT_THE_RECORD) == 0 {
            self.kill_coordinators();
        }
    }

    fn carry_out(&mut self) {
        for coordinator in &mut self.coordinators {
            let from = End::Coordinator(coordinator.term());
            for effect in coordinator.effects() {
                match effect {
                    Effect::Greet(shard, term) => self.network.send(from, End::Shard(shard.0), Message::Greet(term)),
                    Effect::ToShard(shard, message) => {
                        self.network.send(from, End::Shard(shard.0), Message::ToShard(message));
                    }
                    Effect::ToClient(session, message) => {
                        if let ToClient::Decided { request, outcome: Outcome::Folded { into, .. }, .. } = message {
                            let client = self.clients.iter().find(|client| client.session == session);
                            let folded = client.and_then(|client| client.folds(request, into));
                            self.history.folded(Asker { session, request }, folded);
                        }
                        self.network.send(from, End::Client(session), Message::ToClient(message));
                    }
                    Effect::Append(record) => self.network.send(from, End::Log, Message::Append(record)),
                }
            }
        }
    }

    fn fault(&mut self) {
        match self.random.below(10) {
            8 | 9 => {
                self.counts.reconnected += 1;
                self.network.reconnect(&mut self.random);
            }
            0 | 1 => {
                let shard = self.random.below(SHARDS.into()) as usize;
                let is_cut = self.random.coin();
                self.kill_shard(shard, is_cut);
            }
            2 => self.start_dead_shards(),
            3 => {
                self.kill_coordinators();
            }
            4 => {
                self.counts.superseded += 1;
                self.begin_term();
            }
            5 => {
                let at = self.random.below(self.clients.len() as u64) as usize;
                self.kill_client(at);
            }
            6 => self.declare_lost(),
            _ => {
                self.counts.cuts_withdrawn += 1;
                self.withdraw_cuts();
            }
        }
    }

    /// What they have handed to the log may arrive there.
    fn kill_coordinators(&mut self) {
        self.counts.coordinators_killed += 1;
        let all: Vec<End> = self.coordinators.iter().map(|dead| End::Coordinator(dead.term())).collect();
        all.into_iter().for_each(|end| self.network.cut(end, |to| to == End::Log));
        self.coordinators.clear();
    }

    fn withdraw_cuts(&mut self) {
        if let Some(coordinator) = self.coordinators.last_mut() {
            coordinator.withdraw_cuts();
        }
        self.carry_out();
    }

    fn kill_shard(&mut self, shard: usize, is_cut: bool) {
        if self.nodes[shard].shard.is_none() {
            return;
        }
        self.nodes[shard].die();
        self.network.cut(End::Shard(shard as u16), |_| false);
        if is_cut {
            self.counts.power_cuts += 1;
            let lost = self.nodes[shard].store.cut(|left| self.random.below(left as u64 + 1) as usize);
            lost.into_iter().for_each(|write| self.history.forget(write));
        } else {
            self.counts.shards_killed += 1;
            self.nodes[shard].store.restart();
        }
        if self.random.coin() {
            self.start_dead_shards();
        }
    }

    fn start_dead_shards(&mut self) {
        for shard in 0..self.nodes.len() {
            if self.nodes[shard].shard.is_some() {
                continue;
            }
            self.nodes[shard].start();
            for coordinator in &mut self.coordinators {
                coordinator.reached(ShardId(shard as u16));
            }
            for client in &mut self.clients {
                client.shard_is_back(shard as u16, &mut self.network);
            }
            self.carry_out();
        }
    }

    fn kill_client(&mut self, at: usize) {
        let session = self.clients[at].session;
        self.counts.clients_killed += 1;
        self.network.cut(End::Client(session), |_| false);
        self.gone.push(session);
        self.clients[at] = self.new_client();
    }

    fn declare_lost(&mut self) {
        for session in &self.gone {
            self.coordinators.iter_mut().for_each(|coordinator| coordinator.lost(*session));
        }
        self.carry_out();
    }

    /// Failures stop: then everything that was begun ends.
    pub(crate) fn end(&mut self) {
        if self.coordinators.is_empty() {
            self.begin_term();
        }
        self.start_dead_shards();
        self.network.slow_for = 1;
        let last = self.coordinators.pop();
        for superseded in std::mem::replace(&mut self.coordinators, last.into_iter().collect()) {
            self.network.cut(End::Coordinator(superseded.term()), |_| false);
        }
        self.declare_lost();
        for _ in 0..TURNS_MAX {
            for _ in 0..500 {
                self.step(true);
            }
            if self.is_over() {
                break;
            }
            self.withdraw_cuts();
            self.declare_lost();
        }
        self.check_end();
    }

    fn is_over(&self) -> bool {
        let idle = self.coordinators.iter().all(Coordinator::is_idle) && self.clients.iter().all(Client::is_idle);
        idle && self.network.queues.is_empty() && !self.nodes.iter().any(Node::has_syncs)
    }

    fn check_end(&self) {
        use mojavefs_cluster::shard::Part;
        let clients: Vec<String> = self.clients.iter().map(Client::describe).collect();
        assert!(
            self.is_over(),
            "somebody waits for ever: {clients:#?}; on the way: {:?}; coordinators idle: {:?}",
            self.network.queues.keys().collect::<Vec<_>>(),
            self.coordinators.iter().map(Coordinator::describe).collect::<Vec<_>>()
        );
        for (shard, node) in self.nodes.iter().enumerate() {
            let left = node.store.undecided();
            assert!(left.is_empty(), "shard {shard} does not know what became of {left:?}");
        }
        let finals = self.nodes.iter().flat_map(|node| node.store.finals()).collect();
        self.history.check_end(&finals);
    }
}
