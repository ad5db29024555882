//! What clients ask for.

use super::{Context, Coordinator, Effect, Later};
use crate::log::Record;
use crate::message::{FromClient, Outcome, ToClient, ToShard};
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
            FromClient::Begin { request, isolated: false } => self.begin(session, request, None),
            FromClient::Begin { request, isolated: true } => self.cut_for(session, request),
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
        self.starts.retain(|(other, _)| *other != session);
        self.forget_starts_of(session);
        let owned = self.contexts.values().filter(|context| context.session == session).map(|context| context.spec);
        let open: Vec<SpecId> = owned.filter(|spec| !self.votes.contains_key(spec)).collect();
        open.into_iter().for_each(|spec| self.abort(spec, Outcome::Aborted));
        self.trim();
    }

    fn is_owner(&self, session: SessionId, spec: SpecId) -> bool {
        self.jobs.get(&spec).is_some_and(|context| self.contexts[context].session == session)
    }

    /// A context begins, at a snapshot or following.
    pub(super) fn begin(&mut self, session: SessionId, request: Request, cut: Option<Seq>) {
        let (context, first) = (ContextId(self.number()), IntervalId(self.number()));
        let (spec, entry) = (SpecId(self.number()), IntervalId(self.number()));
        let opened = self.graph.apply(&Event::Open { context, interval: first, from: None, sees: Sees::Follows });
        let entered = opened.and_then(|_| self.graph.apply(&Event::Speculate { context, interval: entry, spec }));
        entered.expect("the numbers are new, and what begins on trunk is in nobody's way");
        let enrolled = BTreeSet::new();
        self.contexts.insert(context, Context { spec, session, cut, version: 1, enrolled });
        self.jobs.insert(spec, context);
        self.tell(session, ToClient::Begun { request, spec, context, cut });
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

    /// A vote begins a round, or counts as one that waits for others.
    pub(super) fn decide(&mut self, spec: SpecId) {
        let Some(owner) = self.owner(spec) else { return };
        let vote = Event::Vote { owner, spec };
        let is_final = self.graph.preview(&vote).map(|finals| !finals.is_empty());
        match is_final.and_then(|is_final| if is_final { Ok(true) } else { self.graph.apply(&vote).map(|_| false) }) {
            Ok(true) => self.begin_round(spec),
            Ok(false) => {}
            Err(GraphError::Sealed(_)) => self.put_off(Later::Vote(spec)),
            Err(error) => unreachable!("{spec} is undecided, and its owner's to vote for: {error}"),
        }
    }
}
