//! Cuts: points between decisions that all shards have taken, at which snapshots lie.

use super::{Coordinator, Later, Record, Start};
use crate::message::ToShard;
use crate::{SessionId, ShardId};
use mojavefs::id::Seq;
use mojavefs::planted::{Planted, is_planted};
use std::collections::BTreeSet;

/// A cut that not all shards have taken.
#[derive(Debug)]
pub(super) struct Cut {
    /// It is in the log.
    is_made: bool,
    left: BTreeSet<ShardId>,
    /// Which context begins when all have.
    start: Option<Start>,
}

impl Coordinator {
    pub(super) fn cut_for(&mut self, start: Start) {
        self.seq = Seq(self.seq.0 + 1);
        let left = self.shards.keys().copied().collect();
        self.cuts.insert(self.seq, Cut { is_made: false, left, start: Some(start) });
        self.append(Record::Cut(self.seq));
    }

    pub(super) fn cut_made(&mut self, seq: Seq) {
        self.logged = self.logged.max(seq);
        if let Some(cut) = self.cuts.get_mut(&seq) {
            cut.is_made = true;
            let left = cut.left.clone();
            self.send_to(&left, &ToShard::Cut { seq });
        }
    }

    /// A shard that has come up takes the cuts that the others have taken without it.
    pub(super) fn cuts_for(&mut self, shard: ShardId) {
        let waiting = self.cuts.iter().filter(|(_, cut)| cut.is_made && cut.left.contains(&shard));
        let waiting: Vec<Seq> = waiting.map(|(seq, _)| *seq).collect();
        waiting.into_iter().for_each(|seq| self.send(shard, ToShard::Cut { seq }));
        std::mem::take(&mut self.starts).into_iter().for_each(|start| self.start(start));
    }

    pub(super) fn taken(&mut self, shard: ShardId, seq: Seq) {
        let Some(cut) = self.cuts.get_mut(&seq) else { return };
        cut.left.remove(&shard);
        if cut.left.is_empty() || is_planted(Planted::CutNotTakenByAll) {
            let cut = self.cuts.remove(&seq).expect("it was found");
            self.end_cut(seq);
            if let Some(start) = cut.start {
                self.begin(&start, Some(seq));
            }
        }
    }

    pub(super) fn pending_cuts(&self) -> Vec<Seq> {
        self.cuts.iter().filter(|(_, cut)| cut.is_made).map(|(seq, _)| *seq).collect()
    }

    fn end_cut(&mut self, seq: Seq) {
        let all = self.shards.keys().copied().collect();
        self.send_to(&all, &ToShard::CutTaken { seq });
        self.answer();
    }

    /// A cut that not all have taken in time is withdrawn: acknowledgements go on, and the start waits for who is missing.
    pub fn withdraw_cuts(&mut self) {
        let waiting = std::mem::take(&mut self.starts);
        for (seq, cut) in std::mem::take(&mut self.cuts) {
            self.starts.extend(cut.start);
            self.end_cut(seq);
        }
        waiting.into_iter().for_each(|start| self.start(start));
    }

    pub(super) fn forget_starts_of(&mut self, session: SessionId) {
        let is_of = |start: &Start| start.session == session;
        self.starts.retain(|start| !is_of(start));
        self.later.retain(|later| !matches!(later, Later::Start(start) if is_of(start)));
        self.cuts.values_mut().for_each(|cut| cut.start = cut.start.take().filter(|start| !is_of(start)));
    }
}
