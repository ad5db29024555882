//! What clients ask for.

use super::{Context, Coordinator, Effect, Later, Start};
use crate::log::Record;
use crate::message::{FromClient, Outcome, Refusal, ToClient, ToShard};
use crate::{Request, SessionId};
use mojavefs::graph::{Event, GraphError, Owner, Sees};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use std::collections::BTreeSet;

impl Coordinator {
    /// A client is connected: with a session that it has had, or a new one.
    pub fn connected(&mut self, session: SessionId, is_new: bool) {
        if self.sessions.contains(&session) {
            self.tell(session, ToClient::Known { term: self.term });
        } else if is_new {
            self.append(Record::Session(session));
        } else {
            self.effects.push(Effect::ToClient(session, ToClient::Unknown));
        }
    }

    pub(super) fn count(&mut self, session: SessionId) {
        self.sessions.insert(session);
        self.last_session = self.last_session.max(session);
    }

    pub(super) fn uncount(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.has_heard(session, |_| true);
    }

    pub(super) fn session_begun(&mut self, session: SessionId) {
        self.count(session);
        self.tell(session, ToClient::Known { term: self.term });
    }

    /// A client has said something.
    pub fn from_client(&mut self, session: SessionId, message: FromClient) {
        if !self.sessions.contains(&session) {
            return;
        }
        match message {
            FromClient::Begin { request, isolated: is_isolated, inside } => {
                self.start(Start { session, request, is_isolated, inside });
            }
            FromClient::Vote { request, spec } => self.vote(session, request, spec),
            FromClient::Abort { spec } if self.is_owner(session, spec) && !self.votes.contains_key(&spec) => {
                self.abort(spec, Outcome::Aborted);
            }
            FromClient::Abort { .. } => {}
            FromClient::Heard { spec } => {
                self.has_heard(session, |of| of == spec);
                self.trim();
            }
            FromClient::WaitsFor { specs } => {
                self.has_heard(session, |of| !specs.contains(&of));
                self.trim();
            }
            FromClient::Farewell => self.lost(session),
        }
    }

    /// A client has ended, or could not be reached for so long that nobody waits for it any more. What it has voted for stands.
    pub fn lost(&mut self, session: SessionId) {
        if !self.sessions.contains(&session) {
            return;
        }
        self.uncount(session);
        self.append(Record::Ended(session));
        let shards = self.shards.keys().copied().collect();
        self.send_to(&shards, &ToShard::Lost { session });
        self.forget_starts_of(session);
        let owned = self.contexts.values().filter(|context| context.session == session).map(|context| context.spec);
        let open: Vec<SpecId> = owned.filter(|spec| !self.votes.contains_key(spec)).collect();
        open.into_iter().for_each(|spec| self.abort(spec, Outcome::Aborted));
        self.trim();
    }

    fn is_owner(&self, session: SessionId, spec: SpecId) -> bool {
        self.jobs.get(&spec).is_some_and(|context| self.contexts[context].session == session)
    }

    /// A context is to begin. What is inside of one that has a snapshot has that one's.
    fn start(&mut self, start: Start) {
        let cut = start.inside.and_then(|outer| self.contexts.get(&outer)).and_then(|outer| outer.cut);
        match start.is_isolated && cut.is_none() {
            true => self.cut_for(start),
            false => self.begin(start, cut),
        }
    }

    /// A context begins, at a snapshot or following.
    pub(super) fn begin(&mut self, start: Start, cut: Option<Seq>) {
        match self.enter(&start, cut) {
            Ok(begun) => self.tell(start.session, begun),
            Err(GraphError::Sealed(_)) => self.put_off(Later::Begin(start, cut)),
            Err(error) => {
                let full = matches!(error, GraphError::Full(_));
                let why = if full { Refusal::Full } else { Refusal::Gone };
                self.tell(start.session, ToClient::Refused { request: start.request, why });
            }
        }
    }

    fn enter(&mut self, start: &Start, cut: Option<Seq>) -> Result<ToClient, GraphError> {
        let Start { session, request, is_isolated, inside } = *start;
        let (context, first) = (ContextId(self.number()), IntervalId(self.number()));
        let (spec, entry) = (SpecId(self.number()), IntervalId(self.number()));
        let from = inside.map(|outer| self.begins_in(outer, session, is_isolated)).transpose()?;
        let sees = if is_isolated { Sees::Found } else { Sees::Follows };
        self.graph.apply(&Event::Open { context, interval: first, from, sees })?;
        if let Err(error) = self.graph.apply(&Event::Speculate { context, interval: entry, spec }) {
            self.graph.apply(&Event::Close { context }).expect("it has just begun, and owns nothing");
            return Err(error);
        }
        let (enrolled, finals, folded) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let finals = inside.and_then(|outer| self.contexts.get(&outer)).map_or(finals, |outer| outer.finals.clone());
        let new = Context { spec, session, cut, is_isolated, version: 1, enrolled, finals, folded };
        self.contexts.insert(context, new);
        self.jobs.insert(spec, context);
        let around = if is_isolated { self.is_told_apart(context) } else { Vec::new() };
        Ok(ToClient::Begun { request, spec, context, cut, around })
    }

    fn vote(&mut self, session: SessionId, request: Request, spec: SpecId) {
        if self.is_owner(session, spec) {
            let is_new = self.votes.insert(spec, (session, request)).is_none();
            if is_new {
                self.decide(spec);
            }
            return;
        }
        let owned = |seq: &Seq| self.kept[seq].decision.specs.contains(&(spec, session));
        match self.kept.keys().copied().find(owned) {
            Some(_) => {
                self.votes.insert(spec, (session, request));
                self.answer();
            }
            // A decision is kept until its owner has the answer: this one was never made.
            None => self.tell_decided(session, request, Outcome::Aborted),
        }
    }

    pub(super) fn tell_decided(&mut self, session: SessionId, request: Request, outcome: Outcome) {
        let cuts = self.pending_cuts();
        self.tell(session, ToClient::Decided { request, outcome, cuts });
    }

    pub(super) fn owner(&self, spec: SpecId) -> Option<Owner> {
        self.jobs.get(&spec).map(|context| Owner::Context(*context))
    }

    /// A vote begins a round, makes its context part of the one around it, or counts as one that waits for others.
    pub(super) fn decide(&mut self, spec: SpecId) {
        let Some(owner) = self.owner(spec) else { return };
        match self.graph.preview(&Event::Vote { owner, spec }) {
            Ok(finals) if !finals.is_empty() => self.begin_round(spec),
            Ok(_) if self.graph.can_fold(owner.context()) => self.begin_fold(spec),
            Ok(_) => self.wait(spec),
            Err(GraphError::Sealed(_)) => self.put_off(Later::Vote(spec)),
            Err(error) => unreachable!("{spec} is undecided, and its owner's to vote for: {error}"),
        }
    }

    /// A vote counts, and decides nothing yet.
    pub(super) fn wait(&mut self, spec: SpecId) {
        let Some(owner) = self.owner(spec) else { return };
        match self.graph.apply(&Event::Vote { owner, spec }) {
            Ok(_) => {}
            Err(GraphError::Sealed(_)) => self.put_off(Later::Vote(spec)),
            Err(error) => unreachable!("{spec} is undecided, and its owner's to vote for: {error}"),
        }
    }
}
