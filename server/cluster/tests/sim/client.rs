//! A client: a program that reads and writes, on trunk and in contexts, and whose kernel believes what it is told.

use crate::does::{Does, What};
use crate::history::{History, Knowledge, Object, WriteId};
use crate::job::{Around, Isolated, Job};
use crate::node::{Answer, Ask, Place, Result};
use crate::random::Random;
use crate::store::Work;
use crate::world::{End, Message, Network, SHARDS};
use mojavefs::id::{ContextId, Seq, SpecId};
use mojavefs_cluster::message::{FromClient, Outcome, ToClient};
use mojavefs_cluster::{Asker, Request, SessionId, ShardId, Term};
use std::collections::BTreeMap;

const JOBS_MAX: usize = 3;

enum Waiting {
    /// `own` is what the context had written of the object last.
    Ask {
        ask: Ask,
        spec: Option<SpecId>,
        before: Knowledge,
        own: Option<WriteId>,
    },
    Begin {
        request: Request,
        before: Knowledge,
        around: Around,
    },
    Step {
        request: Request,
        spec: Option<SpecId>,
        context: Option<ContextId>,
        works: Vec<Work>,
    },
}

pub(crate) struct Client {
    pub(crate) session: SessionId,
    does: Does,
    pub(crate) term: Term,
    /// The coordinator knows its session.
    is_known: bool,
    pub(crate) knowledge: Knowledge,
    cache: BTreeMap<Object, WriteId>,
    seq: Seq,
    cuts: Vec<Seq>,
    last: u64,
    waiting: Option<Waiting>,
    pub(crate) jobs: Vec<Job>,
    /// What others have left, and it decides: whether it commits it.
    deciding: BTreeMap<Request, (SpecId, bool)>,
}

impl Client {
    pub(crate) fn new(session: SessionId, does: Does) -> Client {
        Client {
            session,
            does,
            term: Term(0),
            is_known: false,
            knowledge: Knowledge::new(),
            cache: BTreeMap::new(),
            seq: Seq(0),
            cuts: Vec::new(),
            last: 0,
            waiting: None,
            jobs: Vec::new(),
            deciding: BTreeMap::new(),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_none() && self.jobs.is_empty() && self.deciding.is_empty()
    }

    /// Which of its jobs becomes part of which.
    pub(crate) fn folds(&self, request: Request, into: ContextId) -> Option<(SpecId, SpecId)> {
        let inner = self.jobs.iter().find(|job| job.vote == Some(request))?;
        let outer = self.jobs.iter().find(|job| job.context == into)?;
        Some((inner.spec, outer.spec))
    }

    pub(crate) fn describe(&self) -> String {
        let waiting = match &self.waiting {
            Some(Waiting::Ask { ask, spec, .. }) => format!("{ask:?} of {spec:?}"),
            Some(Waiting::Begin { request, .. }) => format!("begin {request}"),
            Some(Waiting::Step { request, spec, .. }) => format!("step {request} of {spec:?}"),
            None => "nothing".into(),
        };
        let jobs: Vec<String> = self.jobs.iter().map(|job| format!("{} voted {:?}", job.spec, job.vote)).collect();
        format!("session {} waits for {waiting}; jobs {jobs:?}; decides {:?}", self.session, self.deciding)
    }

    fn request(&mut self) -> Request {
        self.last += 1;
        Request(self.last)
    }

    fn tell(&self, message: FromClient, network: &mut Network) {
        network.send(End::Client(self.session), End::Coordinator(self.term), Message::FromClient(message));
    }

    /// Does something, if it waits for nothing; once it is to end only what ends what it has begun.
    pub(crate) fn act(
        &mut self,
        is_ending: bool,
        held: &[SpecId],
        random: &mut Random,
        network: &mut Network,
        history: &mut History,
    ) {
        if self.waiting.is_some() || !self.is_known {
            return;
        }
        if !held.is_empty() && self.deciding.is_empty() && random.below(if is_ending { 2 } else { 12 }) == 0 {
            let spec = held[random.below(held.len() as u64) as usize];
            return self.decide(spec, random, network, history);
        }
        let open: Vec<usize> = (0..self.jobs.len()).filter(|at| self.jobs[*at].vote.is_none()).collect();
        let some = open.get(random.below(open.len().max(1) as u64) as usize);
        if let Some(at) = some {
            // Who reads a snapshot looks at much of it.
            let votes = if self.jobs[*at].cut.is_some() { 1 } else { 2 };
            match random.below(10) {
                die if die < votes => {
                    let at = self.innermost(*at, random);
                    let is_left = self.does.leaves().is_some_and(|of| random.below(of) == 0);
                    self.vote(at, is_left, network);
                    return self.vote_around(at, random, network);
                }
                9 => {
                    let job = self.jobs.remove(*at);
                    self.tell(FromClient::Abort { spec: job.spec }, network);
                    return self.close(&job, network);
                }
                _ if is_ending => return self.vote(self.innermost(*at, random), false, network),
                2 if self.does.what == What::Nested => {}
                3 if self.does.has_steps() => return self.step(Some(*at), random, network, history),
                3..=8 => return self.ask(Some(*at), random, network, history),
                _ => {}
            }
        }
        if is_ending {
            return;
        }
        let reads_snapshots = self.does.what == What::Snapshots && self.session.0 % 2 == 1;
        if reads_snapshots && !self.jobs.is_empty() && random.below(3) > 0 {
            return;
        }
        // Another process of a job that has voted may go on.
        if let Some(at) = self.jobs.iter().position(|job| job.vote.is_some()).filter(|_| random.below(3) == 0) {
            return self.ask(Some(at), random, network, history);
        }
        let begins = if self.does.what == What::Nested { 1 } else { 3 };
        if self.jobs.len() < JOBS_MAX && random.below(begins) == 0 {
            let is_nested = match self.does.what {
                What::Nested => true,
                What::All => random.coin(),
                What::Snapshots | What::Commits | What::Held => false,
            };
            let outer = some.filter(|_| is_nested).map(|at| &self.jobs[*at]);
            let around = outer.map(Job::around).unwrap_or_default();
            self.begin(around, random, network, history);
        } else if self.does.has_steps() && random.below(4) == 0 {
            self.step(None, random, network, history);
        } else {
            self.ask(None, random, network, history);
        }
    }

    fn begin(&mut self, mut around: Around, random: &mut Random, network: &mut Network, history: &History) {
        let request = self.request();
        around.is_isolated = around.before.is_some() || self.does.isolates(self.session, random);
        let Around { inside, is_isolated: isolated, .. } = around;
        self.tell(FromClient::Begin { request, isolated, inside }, network);
        let mut before = self.knowledge.clone();
        history.learn(&mut before, &history.public);
        self.waiting = Some(Waiting::Begin { request, before, around });
    }

    /// Most often what is inside of something is voted for first.
    fn innermost(&self, at: usize, random: &mut Random) -> usize {
        let is_inside = |job: &Job| job.vote.is_none() && job.around.inside == Some(self.jobs[at].context);
        match self.jobs.iter().position(is_inside).filter(|_| random.below(4) > 0) {
            Some(inner) => self.innermost(inner, random),
            None => at,
        }
    }

    /// What is around a job that has voted may vote before anybody has heard what became of that.
    fn vote_around(&mut self, at: usize, random: &mut Random, network: &mut Network) {
        let is_around = |job: &Job| job.vote.is_none() && Some(job.context) == self.jobs[at].around.inside;
        if let Some(outer) = self.jobs.iter().position(is_around).filter(|_| random.coin()) {
            self.vote(outer, false, network);
        }
    }

    /// Commits a job, or leaves that to others.
    fn vote(&mut self, at: usize, is_left: bool, network: &mut Network) {
        let request = self.request();
        let job = &mut self.jobs[at];
        (job.vote, job.is_left) = (Some(request), is_left);
        let message = job.said(request);
        self.tell(message, network);
    }

    /// Decides what others have left.
    fn decide(&mut self, spec: SpecId, random: &mut Random, network: &mut Network, history: &mut History) {
        let request = self.request();
        let commit = !history.in_conflict.contains(&spec) && random.below(4) > 0;
        if !commit {
            history.given_up.insert(spec);
        }
        self.deciding.insert(request, (spec, commit));
        self.tell(FromClient::Decide { request, spec, commit }, network);
    }

    /// It hears what became of what it has decided.
    fn has_decided(&mut self, request: Request, outcome: Outcome, network: &mut Network, history: &mut History) {
        let Some((spec, commit)) = self.deciding.remove(&request) else { return };
        self.tell(FromClient::Heard { request }, network);
        match outcome {
            Outcome::Committed(seq) => {
                self.seq = self.seq.max(seq);
                history.acknowledged(spec, seq);
            }
            Outcome::Conflict => drop(history.in_conflict.insert(spec)),
            Outcome::Aborted | Outcome::Unknown if commit => history.is_gone(spec),
            Outcome::Aborted if !commit => history.refused(spec),
            _ => {}
        }
    }

    fn close(&self, job: &Job, network: &mut Network) {
        for shard in 0..SHARDS {
            network.send(End::Client(self.session), End::Shard(shard), Message::Closed(job.context));
        }
    }

    /// Its contexts see more from these sights on.
    fn sees(&mut self, sights: Vec<(ContextId, u64)>) {
        for (context, version) in sights {
            let jobs = self.jobs.iter_mut().filter(|job| job.context == context);
            jobs.for_each(|job| job.version = job.version.max(version));
        }
    }

    /// Changes something on two shards at once.
    fn step(&mut self, job: Option<usize>, random: &mut Random, network: &mut Network, history: &mut History) {
        let mut before = self.knowledge.clone();
        history.learn(&mut before, &history.public);
        let first = random.below(SHARDS.into()) as u16;
        let mut work = |shard: u16| Work {
            object: (shard % SHARDS, random.below(self.does.objects.into()) as u8),
            write: history.write(before.clone()),
            is_refused: random.below(10) == 0,
        };
        let works = vec![work(first), work(first + 1)];
        let request = self.request();
        let job = job.map(|at| &self.jobs[at]);
        let (spec, context) = (job.map(|job| job.spec), job.map(|job| job.context));
        self.tell(said_of_step(request, context, &works), network);
        self.waiting = Some(Waiting::Step { request, spec, context, works });
    }

    /// A step was answered.
    fn stepped(&mut self, request: Request, outcome: Outcome, network: &mut Network, history: &mut History) -> bool {
        let is_it = |waiting: &mut Waiting| matches!(waiting, Waiting::Step { request: of, .. } if *of == request);
        let Some(Waiting::Step { spec, works, .. }) = self.waiting.take_if(is_it) else { return false };
        self.tell(FromClient::Heard { request }, network);
        match outcome {
            Outcome::Committed(seq) => {
                self.seq = self.seq.max(seq);
                for Work { object, write, .. } in works {
                    history.publish(object, write);
                    history.learn_of(&mut self.knowledge, object, write);
                }
            }
            Outcome::Made => {
                if let Some(job) = self.jobs.iter_mut().find(|job| Some(job.spec) == spec) {
                    for Work { object, write, .. } in works {
                        job.used.insert(object);
                        job.own.insert(object, write);
                    }
                }
            }
            _ => {}
        }
        true
    }

    fn ask(&mut self, job: Option<usize>, random: &mut Random, network: &mut Network, history: &mut History) {
        let mut object = (random.below(SHARDS.into()) as u16, random.below(self.does.objects.into()) as u8);
        if job.is_some_and(|at| self.jobs[at].found.contains_key(&object)) {
            // Rather something that it has not found yet.
            object.0 = (object.0 + 1) % SHARDS;
        }
        let mut before = self.knowledge.clone();
        history.learn(&mut before, &history.public);
        let writes = self.does.writes(job.map(|at| self.jobs[at].cut.is_some()), random);
        if let (None, false, Some(write)) = (job, writes, self.cache.get(&object).copied()) {
            // Its kernel asks nobody.
            history.check_found(&before, object, write, "a kernel");
            return history.learn_of(&mut self.knowledge, object, write);
        }
        let write = writes.then(|| history.write(before.clone()));
        let place = match job.map(|at| &self.jobs[at]) {
            None => Place::Trunk,
            Some(job) => Place::Context { context: job.context, version: job.version, cut: job.cut },
        };
        self.last += 1;
        let (id, session, seq, cuts) = (self.last, self.session, self.seq, self.cuts.clone());
        let ask = Ask { session, id, place, object, write, seq, cuts };
        let spec = job.map(|at| self.jobs[at].spec);
        let own = job.and_then(|at| self.jobs[at].own.get(&object).copied());
        self.waiting = Some(Waiting::Ask { ask: ask.clone(), spec, before, own });
        network.send(End::Client(session), End::Shard(object.0), Message::Ask(ask));
    }

    /// `is_live` says what is undecided.
    pub(crate) fn answered(&mut self, answer: Answer, is_live: impl Fn(SpecId) -> bool, history: &mut History) {
        let Some(Waiting::Ask { ask, spec, before, own }) = self.waiting.take_if(|waiting| waiting.is(answer.id))
        else {
            return;
        };
        self.seq = self.seq.max(answer.seq);
        self.cuts = answer.cuts;
        let object = ask.object;
        let Some(at) = spec.and_then(|spec| self.jobs.iter().position(|job| job.spec == spec)) else {
            return self.answered_on_trunk(object, ask.write, answer.result, &before, history);
        };
        if let Result::Found { write, is_final, .. } = answer.result {
            self.jobs[at].check_found((object, write), is_final, own, &self.jobs, history);
            if is_live(self.jobs[at].spec) {
                self.jobs[at].check_beside(object, write, is_final, history);
            }
        }
        let job = &mut self.jobs[at];
        job.version = job.version.max(answer.version);
        job.sees.extend(answer.sees);
        match (answer.result, ask.write) {
            (Result::Found { write, is_final, .. }, _) => {
                if job.cut.is_some() {
                    if is_final {
                        history.check_found(&job.before, object, write, "who reads a snapshot");
                        job.found.insert(object, write);
                        history.check_snapshot(&job.found);
                    }
                    if job.vote.is_none() {
                        job.used.insert(object);
                    }
                } else if is_final {
                    history.check_found(&before, object, write, "a context");
                    history.learn_of(&mut self.knowledge, object, write);
                }
            }
            (Result::Done, write) => {
                job.used.insert(object);
                job.own.extend(write.map(|write| (object, write)));
            }
            (Result::Gone, _) => {}
        }
    }

    fn answered_on_trunk(
        &mut self,
        object: Object,
        write: Option<WriteId>,
        result: Result,
        before: &Knowledge,
        history: &mut History,
    ) {
        match (result, write) {
            (Result::Found { write, lasts, .. }, _) => {
                history.check_found(before, object, write, "who looks on trunk");
                history.learn_of(&mut self.knowledge, object, write);
                if lasts {
                    self.cache.insert(object, write);
                }
            }
            (Result::Done, Some(write)) => {
                history.publish(object, write);
                history.learn_of(&mut self.knowledge, object, write);
            }
            _ => {}
        }
    }

    pub(crate) fn forget(&mut self, object: Object, network: &mut Network) {
        self.cache.remove(&object);
        network.send(End::Client(self.session), End::Shard(object.0), Message::Forgotten(object, self.session));
    }

    /// A shard has started again: what it had said counts no more. What was asked is asked again, but for changes of trunk, of which
    /// nobody knows whether they were made.
    pub(crate) fn shard_is_back(&mut self, shard: u16, network: &mut Network) {
        self.cache.retain(|object, _| object.0 != shard);
        network.send(End::Client(self.session), End::Shard(shard), Message::Back(self.session));
        match &self.waiting {
            Some(Waiting::Ask { ask, .. }) if ask.object.0 == shard => {
                if ask.write.is_some() && matches!(ask.place, Place::Trunk) {
                    self.waiting = None;
                } else {
                    let message = Message::Ask(ask.clone());
                    network.send(End::Client(self.session), End::Shard(shard), message);
                }
            }
            _ => {}
        }
    }

    /// A coordinator has said something. What it says of contexts that stay with a snapshot is returned.
    pub(crate) fn heard(
        &mut self,
        message: ToClient,
        network: &mut Network,
        history: &mut History,
    ) -> Option<(Seq, Vec<Isolated>)> {
        match message {
            ToClient::Known { term } => self.known(term, network),
            ToClient::Unknown => self.is_known = false,
            ToClient::Begun { request, spec, context, cut, around: sights } => {
                let is_it =
                    |waiting: &mut Waiting| matches!(waiting, Waiting::Begin { request: of, .. } if *of == request);
                if let Some(Waiting::Begin { before, mut around, .. }) = self.waiting.take_if(is_it) {
                    self.seq = self.seq.max(cut.unwrap_or(Seq(0)));
                    around.turn = history.turn();
                    let outer = self.jobs.iter_mut().filter(|outer| Some(outer.context) == around.inside);
                    outer.for_each(|outer| outer.had_inner = true);
                    self.sees(sights);
                    let before = around.before.take().unwrap_or(before);
                    self.jobs.push(Job::new(spec, context, cut, around, before));
                }
            }
            ToClient::Refused { request, .. } => {
                let is_it =
                    |waiting: &mut Waiting| matches!(waiting, Waiting::Begin { request: of, .. } if *of == request);
                self.waiting.take_if(is_it);
            }
            ToClient::Fell { spec } => self.ended(spec, network).map_or((), |_| history.refused(spec)),
            ToClient::Decided { request, outcome, cuts, sights } => {
                self.sees(sights);
                if self.stepped(request, outcome, network, history) {
                    self.cuts.extend(cuts);
                    return None;
                }
                let spec = self.jobs.iter().find(|job| job.vote == Some(request)).map(|job| job.spec);
                let Some(spec) = spec else {
                    self.has_decided(request, outcome, network, history);
                    self.cuts.extend(cuts);
                    return None;
                };
                let job = self.ended(spec, network)?;
                self.tell(FromClient::Heard { request }, network);
                match outcome {
                    Outcome::Aborted | Outcome::Conflict | Outcome::Unknown => history.refused(spec),
                    Outcome::Held => drop(history.left.insert(spec)),
                    Outcome::Waits | Outcome::Made | Outcome::Unable(_) => {}
                    Outcome::Folded { into } => {
                        if let Some(outer) = self.jobs.iter_mut().find(|outer| outer.context == into) {
                            let asker = Asker { session: self.session, request };
                            outer.takes_in(job, history.folded_at(asker), history);
                        }
                    }
                    Outcome::Committed(seq) => {
                        self.seq = self.seq.max(seq);
                        self.cuts.extend(cuts);
                        history.acknowledged(spec, seq);
                        return Some((seq, job.snapshots().collect()));
                    }
                }
            }
        }
        None
    }

    fn known(&mut self, term: Term, network: &mut Network) {
        if term <= self.term {
            return;
        }
        self.is_known = true;
        self.term = term;
        self.waiting.take_if(|waiting| matches!(waiting, Waiting::Begin { .. }));
        let fallen: Vec<SpecId> = self.jobs.iter().filter(|job| job.vote.is_none()).map(|job| job.spec).collect();
        fallen.into_iter().for_each(|spec| drop(self.ended(spec, network)));
        let step = match &self.waiting {
            Some(Waiting::Step { request, context, works, .. }) => Some((*request, *context, works.clone())),
            _ => None,
        };
        let requests = self.jobs.iter().filter_map(|job| job.vote).chain(self.deciding.keys().copied());
        let requests = requests.chain(step.iter().map(|(request, ..)| *request));
        self.tell(FromClient::WaitsFor { requests: requests.collect() }, network);
        for job in &self.jobs {
            if let Some(request) = job.vote {
                self.tell(job.said(request), network);
            }
        }
        if let Some((request, context, works)) = step {
            self.tell(said_of_step(request, context, &works), network);
        }
        for (request, (spec, commit)) in &self.deciding {
            self.tell(FromClient::Decide { request: *request, spec: *spec, commit: *commit }, network);
        }
    }

    fn ended(&mut self, spec: SpecId, network: &mut Network) -> Option<Job> {
        let at = self.jobs.iter().position(|job| job.spec == spec)?;
        let job = self.jobs.remove(at);
        self.waiting.take_if(
            |waiting| matches!(waiting, Waiting::Ask { spec: of, .. } | Waiting::Step { spec: of, .. } if *of == Some(spec)),
        );
        self.close(&job, network);
        Some(job)
    }
}

fn said_of_step(request: Request, context: Option<ContextId>, works: &[Work]) -> FromClient {
    let works = works.iter().map(|work| (ShardId(work.object.0), work.encode())).collect();
    FromClient::Step { request, context, works }
}

impl Waiting {
    fn is(&self, id: u64) -> bool {
        matches!(self, Waiting::Ask { ask, .. } if ask.id == id)
    }
}
