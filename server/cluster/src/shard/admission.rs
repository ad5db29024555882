//! Who may look at something, or change it, and who waits.

use super::{Part, Shard};
use crate::message::{ContextSight, FromShard};
use mojavefs::id::{ContextId, IntervalId, Seq};
use mojavefs::planted::{Planted, is_planted};
use std::collections::BTreeSet;

/// What somebody is about to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted<O> {
    /// In which context; nothing on trunk.
    pub context: Option<ContextId>,
    /// The sight that is known to belong to it, or an older one.
    pub version: u64,
    /// It stays with a snapshot.
    pub is_isolated: bool,
    /// What it is about.
    pub objects: BTreeSet<O>,
    /// It changes them.
    pub changes: bool,
    /// The newest decision or cut that the client knows of.
    pub seq: Seq,
    /// Cuts that the client knows not all shards to have taken.
    pub cuts: Vec<Seq>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be done.
    Go(Admitted),
    /// Something has to happen first: it is asked for again after whatever this shard hears next.
    Wait,
    /// The context is gone, or has nothing undecided any more.
    Gone,
}

/// How it is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// What the context sees; nothing on trunk.
    pub sight: Option<ContextSight>,
    /// Whether the client may go on believing what it is told, until that is taken back.
    pub lasts: bool,
    /// The newest decision or cut that is known here: what is final and was made later belongs after it.
    pub seq: Seq,
    /// Cuts that not all shards have taken: a change is acknowledged [when they have](Shard::may_acknowledge).
    pub cuts: Vec<Seq>,
}

impl<P: Part> Shard<P> {
    /// Whether something may be done now. Nothing is waited for.
    pub fn admit(&mut self, wanted: &Wanted<P::Object>) -> Admission {
        if !self.is_welcome || !self.missing.is_empty() {
            return Admission::Wait;
        }
        if !is_planted(Planted::CutsNotCarried) {
            wanted.cuts.iter().for_each(|cut| self.take(*cut));
        }
        // A snapshot is read as it was; who reads it takes part, since others may change what was read.
        let for_change = wanted.changes || wanted.is_isolated;
        let sight = match wanted.context {
            None => None,
            Some(context) if self.gone.remove(&context) => return Admission::Gone,
            Some(context) => match self.sight_of(context, wanted.version, for_change) {
                None => return Admission::Wait,
                sight => sight,
            },
        };
        if self.is_in_the_way(wanted, sight.as_ref()) {
            return Admission::Wait;
        }
        // What is sealed has a place of its own: it is known by `Round::after` that it is not among these.
        self.seq = self.seq.max(wanted.seq);
        let is_provisional = |round: &super::Round<P::Object>| {
            !round.objects.is_disjoint(&wanted.objects)
                && (round.is_sealed || !is_planted(Planted::ProvisionalFromTheSeal))
        };
        let lasts = !self.rounds.values().any(is_provisional) || is_planted(Planted::ToldToLast);
        Admission::Go(Admitted { sight, lasts, seq: self.seq, cuts: self.cuts() })
    }

    fn sight_of(&mut self, context: ContextId, version: u64, for_change: bool) -> Option<ContextSight> {
        let known = self.known.get(&context);
        let fits = |known: &&super::Known| known.sight.version >= version && (known.for_change || !for_change);
        if let Some(known) = known.filter(fits) {
            return Some(known.sight.clone());
        }
        if self.fetching.insert((context, for_change)) {
            self.say(FromShard::Fetch { context, for_change });
        }
        None
    }

    /// A context is over, and its client asks for nothing in it any more.
    pub fn closed(&mut self, context: ContextId) {
        self.known.remove(&context);
        self.gone.remove(&context);
    }

    /// A context that does not see a number has come upon a change that carries it; or, if it is about to change that, its own
    /// changes carry a lesser one. It is asked for again.
    pub fn met(&mut self, context: ContextId, of: IntervalId, changes: bool) {
        if self.met.insert((context, of)) {
            self.say(FromShard::Met { context, of, changes });
        }
    }

    fn is_in_the_way(&mut self, wanted: &Wanted<P::Object>, sight: Option<&ContextSight>) -> bool {
        let own = sight.map(|sight| sight.writer);
        let knows = sight.and_then(|sight| sight.cut).map_or(wanted.seq, |cut| cut.max(wanted.seq));
        let mut asks = Vec::new();
        let folds = |fold: &super::Fold<P::Object>| !fold.objects.is_disjoint(&wanted.objects);
        let mut waits = wanted.changes && sight.is_some() && self.folds.values().any(folds);
        // Half of a step is not to be seen; trunk sees nothing of it.
        waits |= sight.is_some() && self.steps.values().any(|objects| !objects.is_disjoint(&wanted.objects));
        let is_kept = |own| self.kept.values().any(|kept| kept.contains(&own));
        waits |= (wanted.changes || wanted.is_isolated) && own.is_some_and(is_kept);
        for round in self.rounds.values_mut() {
            let is_own = own.is_some_and(|own| round.numbers.contains(&own));
            if wanted.changes && is_own && (round.is_stopped || round.is_sealed) {
                waits = true;
            }
            if !round.is_sealed || round.objects.is_disjoint(&wanted.objects) {
                continue;
            }
            if wanted.changes && sight.is_none() {
                waits |= !is_planted(Planted::SealIgnored);
            } else if knows > round.after && !is_planted(Planted::KnownIgnored) {
                waits = true;
                if !std::mem::replace(&mut round.is_asked, true) {
                    asks.push(round.attempt.round);
                }
            }
        }
        asks.into_iter().for_each(|round| self.say(FromShard::Ask { round }));
        waits
    }
}
