//! A context of a client, and what must be so of it.

use crate::history::{History, Knowledge, Object, WriteId};
use mojavefs::id::{ContextId, IntervalId, Seq, SpecId};
use mojavefs_cluster::Request;
use mojavefs_cluster::message::FromClient;
use std::collections::{BTreeMap, BTreeSet};

pub(crate) struct Job {
    pub(crate) spec: SpecId,
    pub(crate) context: ContextId,
    pub(crate) version: u64,
    pub(crate) cut: Option<Seq>,
    pub(crate) around: Around,
    /// What was known when it began.
    pub(crate) before: Knowledge,
    /// What it has looked at or changed.
    pub(crate) used: BTreeSet<Object>,
    pub(crate) found: BTreeMap<Object, WriteId>,
    /// What it has written last.
    pub(crate) own: BTreeMap<Object, WriteId>,
    /// What was made at once with undecided changes that it has found.
    pub(crate) beside: BTreeMap<Object, WriteId>,
    /// The undecided changes that it has seen.
    pub(crate) sees: BTreeSet<IntervalId>,
    /// Others have been begun inside of it.
    pub(crate) had_inner: bool,
    /// What has become part of it and stayed with a snapshot.
    pub(crate) parts: Vec<Isolated>,
    /// The request to commit it, or to hold it.
    pub(crate) vote: Option<Request>,
    pub(crate) is_left: bool,
}

/// What a context was begun in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around {
    pub(crate) inside: Option<ContextId>,
    /// It stays with what is there when it begins.
    pub(crate) is_isolated: bool,
    /// How many writes there had been when it had begun.
    pub(crate) turn: usize,
    /// What the one around it had written by then.
    pub(crate) inherited: BTreeMap<Object, WriteId>,
    /// What was known when the snapshot was taken that it shares with the one around it.
    pub(crate) before: Option<Knowledge>,
}

/// What a context has used that stayed with a snapshot, for who looks at all of it.
#[derive(Clone, Debug)]
pub(crate) struct Isolated {
    pub(crate) spec: SpecId,
    pub(crate) cut: Seq,
    pub(crate) used: BTreeSet<Object>,
    pub(crate) sees: BTreeSet<IntervalId>,
}

impl Job {
    pub(crate) fn new(spec: SpecId, context: ContextId, cut: Option<Seq>, around: Around, before: Knowledge) -> Job {
        Job {
            spec,
            context,
            version: 1,
            cut,
            around,
            before,
            used: BTreeSet::new(),
            found: BTreeMap::new(),
            own: BTreeMap::new(),
            beside: BTreeMap::new(),
            sees: BTreeSet::new(),
            had_inner: false,
            parts: Vec::new(),
            vote: None,
            is_left: false,
        }
    }

    pub(crate) fn said(&self, request: Request) -> FromClient {
        let spec = self.spec;
        if self.is_left { FromClient::Hold { request, spec } } else { FromClient::Vote { request, spec } }
    }

    /// For one that begins inside of this.
    pub(crate) fn around(&self) -> Around {
        let mut inherited = self.around.inherited.clone();
        inherited.extend(&self.own);
        let before = self.cut.map(|_| self.before.clone());
        Around { inside: Some(self.context), inherited, before, ..Around::default() }
    }

    /// It, and what has become part of it, as far as they stayed with a snapshot.
    pub(crate) fn snapshots(self) -> impl Iterator<Item = Isolated> {
        let Job { spec, used, sees, .. } = self;
        self.parts.into_iter().chain(self.cut.map(|cut| Isolated { spec, cut, used, sees }))
    }

    /// What it finds is what it has written, or was written over that by who has seen it.
    pub(crate) fn check_found(
        &self,
        (object, write): (Object, WriteId),
        is_final: bool,
        own: Option<WriteId>,
        all: &[Job],
        history: &History,
    ) {
        let outer = all.iter().find(|outer| Some(outer.context) == self.around.inside);
        if let Some(own) = own {
            let spec = self.spec;
            assert!(!is_final || self.vote.is_some(), "{spec} has written {own}, and finds {write}, which is final");
            let is_alone = self.cut.is_some() && !self.had_inner && (self.around.is_isolated || outer.is_none());
            match is_alone {
                true => history.check_over(write, own, false),
                false => history.check_known(object, own, (write, is_final)),
            }
        } else if let Some(inherited) = self.around.inherited.get(&object) {
            history.check_known(object, *inherited, (write, is_final));
        }
        let is_late = |outer: &Job| {
            outer.own.get(&object).is_some_and(|late| *late == write && history.turn_of(write) >= self.around.turn)
        };
        assert!(
            !(self.around.is_isolated && outer.is_some_and(is_late)),
            "{} stays with what it found, and finds {write}, which is later",
            self.spec
        );
    }

    /// Who has found one of several changes that were made at once finds all of them.
    pub(crate) fn check_beside(&mut self, object: Object, write: WriteId, is_final: bool, history: &History) {
        if let Some(beside) = self.beside.get(&object) {
            history.check_known(object, *beside, (write, is_final));
        }
        if !is_final {
            self.beside.extend(history.made_with(write));
        }
    }

    /// Another one has become part of it: if that stayed with what it found, then nothing of that had been changed by then.
    pub(crate) fn takes_in(&mut self, inner: Job, at: usize, history: &History) {
        for object in inner.used.iter().filter(|_| inner.around.is_isolated) {
            let changed = self.own.get(object).map(|write| history.turn_of(*write));
            assert!(
                changed.is_none_or(|turn| turn < inner.around.turn || turn >= at),
                "{} is part of {}, which had changed {object:?} meanwhile",
                inner.spec,
                self.spec
            );
        }
        for (object, write) in &inner.own {
            let own = self.own.entry(*object).or_insert(*write);
            if history.turn_of(*own) < history.turn_of(*write) {
                *own = *write;
            }
        }
        self.used.extend(inner.used.iter().filter(|_| self.cut.is_some()));
        self.parts.extend(inner.snapshots());
    }
}
