//! What clients ask for.

use super::{Context, Coordinator, Effect, Later, Start};
use crate::log::Record;
use crate::message::{FromClient, Outcome, Refusal, ToClient, ToShard};
use crate::{Asker, SessionId};
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
                self.start(Start { session, request, is_isolated, inside, found: None });
            }
            FromClient::Vote { request, spec } => self.vote(Asker { session, request }, spec),
            FromClient::Step { request, context, works } => self.step(Asker { session, request }, context, works),
            FromClient::Hold { request, spec } => self.hold_for(Asker { session, request }, spec),
            FromClient::Decide { request, spec, commit } => {
                self.decide_held(Asker { session, request }, spec, commit);
            }
            FromClient::Abort { spec } => {
                if self.is_owner(session, spec) && !self.has_voted(spec) && !self.holds.contains_key(&spec) {
                    self.abort(spec, Outcome::Aborted);
                }
            }
            FromClient::Heard { request } => {
                self.has_heard(session, |of| of == request);
                self.trim();
            }
            FromClient::WaitsFor { requests } => {
                self.has_heard(session, |of| !requests.contains(&of));
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
        let owned = self.contexts.values().filter(|context| context.session == Some(session) && !context.voted);
        let owned = owned.map(|context| context.spec);
        // What was left to others stays.
        let open: Vec<SpecId> = owned.filter(|spec| !self.holds.contains_key(spec)).collect();
        open.into_iter().for_each(|spec| self.abort(spec, Outcome::Aborted));
        self.trim();
    }

    pub(super) fn is_owner(&self, session: SessionId, spec: SpecId) -> bool {
        self.context_of(spec).is_some_and(|context| context.session == Some(session))
    }

    pub(super) fn context_of(&self, spec: SpecId) -> Option<&Context> {
        self.jobs.get(&spec).and_then(|context| self.contexts.get(context))
    }

    pub(super) fn has_voted(&self, spec: SpecId) -> bool {
        self.context_of(spec).is_some_and(|context| context.voted)
    }

    /// The vote counts from now on; false if it did before.
    pub(super) fn count_vote(&mut self, spec: SpecId) -> bool {
        let context = self.jobs.get(&spec).and_then(|context| self.contexts.get_mut(context));
        context.is_some_and(|context| !std::mem::replace(&mut context.voted, true))
    }

    /// A context is to begin. What is inside of one that has a snapshot stays with that, too; what else there is around it, it finds now, before
    /// anything that comes after its snapshot.
    pub(super) fn start(&mut self, mut start: Start) {
        let cut = start.inside.and_then(|outer| self.contexts.get(&outer)).and_then(|outer| outer.cut);
        start.is_isolated |= cut.is_some();
        if let Some(outer) = start.inside.filter(|_| start.is_isolated) {
            match self.find(outer, start.session) {
                Ok(found) => start.found = Some(found),
                Err(GraphError::Sealed(_)) => return self.put_off(Later::Start(start)),
                Err(error) => return self.refuse(&start, error),
            }
        }
        match start.is_isolated && cut.is_none() {
            true => self.cut_for(start),
            false => self.begin(&start, cut),
        }
    }

    /// A context begins, at a snapshot or following.
    pub(super) fn begin(&mut self, start: &Start, cut: Option<Seq>) {
        match self.enter(start, cut) {
            Ok(begun) => self.tell(start.session, begun),
            Err(error) => self.refuse(start, error),
        }
    }

    fn refuse(&mut self, start: &Start, error: GraphError) {
        let full = matches!(error, GraphError::Full(_));
        let why = if full { Refusal::Full } else { Refusal::Gone };
        self.tell(start.session, ToClient::Refused { request: start.request, why });
    }

    fn enter(&mut self, start: &Start, cut: Option<Seq>) -> Result<ToClient, GraphError> {
        let Start { session, request, is_isolated, inside, ref found } = *start;
        let (context, first) = (ContextId(self.number()), IntervalId(self.number()));
        let (spec, entry) = (SpecId(self.number()), IntervalId(self.number()));
        let from = inside.map(|outer| self.begins_in(outer, session)).transpose()?;
        let (numbers, around) = found.clone().map(|found| (found.numbers, found.sights)).unwrap_or_default();
        let sees = if is_isolated { Sees::Had(numbers.clone()) } else { Sees::Follows };
        self.graph.apply(&Event::Open { context, interval: first, from, sees })?;
        if let Err(error) = self.graph.apply(&Event::Speculate { context, interval: entry, spec }) {
            self.graph.apply(&Event::Close { context }).expect("it has just begun, and owns nothing");
            return Err(error);
        }
        // Since it was found some of it may have become final.
        let finals = numbers.into_iter().filter(|number| self.graph.writer_of(*number).is_none());
        let outer = inside.and_then(|outer| self.contexts.get(&outer));
        let new = Context {
            spec,
            session: Some(session),
            voted: false,
            cut,
            is_isolated,
            version: 1,
            enrolled: BTreeSet::new(),
            finals: outer.map(|outer| outer.finals.clone()).unwrap_or_default().into_iter().chain(finals).collect(),
            owners: BTreeSet::new(),
        };
        self.contexts.insert(context, new);
        self.jobs.insert(spec, context);
        Ok(ToClient::Begun { request, spec, context, cut, around })
    }

    fn vote(&mut self, asker: Asker, spec: SpecId) {
        if self.is_owner(asker.session, spec) {
            self.waits(asker, spec);
            if self.count_vote(spec) {
                self.decide(spec);
            }
            return;
        }
        match self.context_of(spec) {
            // That is in the log.
            Some(_) => self.tell_decided(asker, Outcome::Waits),
            None => self.tell_kept(asker, spec, Outcome::Aborted),
        }
    }

    /// Somebody waits for what becomes of something.
    pub(super) fn waits(&mut self, asker: Asker, spec: SpecId) {
        let waiting = self.votes.entry(spec).or_default();
        if !waiting.contains(&asker) {
            waiting.push(asker);
        }
        if let Some(context) = self.jobs.get(&spec).and_then(|context| self.contexts.get_mut(context)) {
            context.owners.insert((spec, asker));
        }
    }

    /// A decision is kept until all who asked have the answer: what is said `or_else` is of one that was never made.
    pub(super) fn tell_kept(&mut self, asker: Asker, spec: SpecId, or_else: Outcome) {
        match self.kept.values().any(|kept| kept.decision.owners.iter().any(|(of, _)| *of == spec)) {
            true => {
                self.waits(asker, spec);
                self.answer();
            }
            false => self.tell_decided(asker, or_else),
        }
    }

    /// All who wait for what becomes of something hear this.
    pub(super) fn tell_all(&mut self, spec: SpecId, outcome: Outcome) {
        self.tell_all_with(spec, outcome, &[]);
    }

    /// The same, with what contexts see by it.
    pub(super) fn tell_all_with(&mut self, spec: SpecId, outcome: Outcome, sights: &[(ContextId, u64)]) {
        for Asker { session, request } in self.votes.remove(&spec).unwrap_or_default() {
            let (cuts, sights) = (self.pending_cuts(), sights.to_vec());
            self.tell(session, ToClient::Decided { request, outcome, cuts, sights });
        }
    }

    pub(super) fn tell_decided(&mut self, Asker { session, request }: Asker, outcome: Outcome) {
        let (cuts, sights) = (self.pending_cuts(), Vec::new());
        self.tell(session, ToClient::Decided { request, outcome, cuts, sights });
    }

    pub(super) fn owner(&self, spec: SpecId) -> Option<Owner> {
        let context = *self.jobs.get(&spec)?;
        let is_held = self.contexts[&context].is_held();
        Some(if is_held { Owner::Store(context) } else { Owner::Context(context) })
    }

    /// A vote begins a round, makes its context part of the one around it, or counts as one that waits for others.
    pub(super) fn decide(&mut self, spec: SpecId) {
        let Some(owner) = self.owner(spec) else { return };
        if self.has_step(owner.context()) {
            return self.put_off(Later::Vote(spec));
        }
        match self.graph.preview(&Event::Vote { owner, spec }) {
            Ok(finals) if !finals.is_empty() => self.begin_round(spec),
            Ok(_) if self.can_fold(owner.context()) => self.begin_fold(spec),
            Ok(_) => self.wait(spec),
            Err(GraphError::Sealed(_)) => self.put_off(Later::Vote(spec)),
            Err(error) => unreachable!("{spec} is undecided, and its owner's to vote for: {error}"),
        }
    }

    /// A vote counts, and decides nothing yet: it outlives its client, and this term.
    pub(super) fn wait(&mut self, spec: SpecId) {
        let Some(owner) = self.owner(spec) else { return };
        match self.graph.apply(&Event::Vote { owner, spec }) {
            Ok(_) => self.hold(spec),
            Err(GraphError::Sealed(_)) => self.put_off(Later::Vote(spec)),
            Err(error) => unreachable!("{spec} is undecided, and its owner's to vote for: {error}"),
        }
    }
}
