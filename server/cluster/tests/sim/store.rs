//! What a shard keeps: every change in a journal, of which a power cut takes what was not synced.

use crate::history::{Object, WriteId};
use mojavefs::id::{IntervalId, Seq};
use mojavefs::protocol::codec;
use mojavefs_cluster::Term;
use mojavefs_cluster::message::ContextSight;
use mojavefs_cluster::shard::Part;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A change of what is kept.
#[derive(Clone, Debug)]
enum Entry {
    Trunk { object: Object, label: u64, write: WriteId },
    Under { number: IntervalId, object: Object, write: WriteId, user: User },
    Final { seq: Seq, numbers: Vec<IntervalId> },
    Dead { numbers: Vec<IntervalId> },
    Looked { number: IntervalId, looked: Looked },
    Term(Term),
}

/// What the context saw in which something was done.
#[derive(Clone, Debug)]
pub(crate) struct User {
    cut: Option<Seq>,
    sees: Vec<IntervalId>,
    /// The label of what was final of the object then.
    over: u64,
}

impl User {
    pub(crate) fn on_trunk(over: u64) -> User {
        User { cut: None, sees: Vec::new(), over }
    }

    pub(crate) fn of(sight: &ContextSight, over: u64) -> User {
        User { cut: sight.cut, sees: sight.numbers.clone(), over }
    }
}

/// What a context has looked at that stays with a snapshot.
#[derive(Clone, Debug)]
struct Looked {
    cut: Seq,
    sees: BTreeSet<IntervalId>,
    objects: BTreeSet<Object>,
}

/// A shard's part of a change of several.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) object: Object,
    pub(crate) write: WriteId,
    /// This shard will say that it can't.
    pub(crate) is_refused: bool,
}

impl Work {
    pub(crate) fn of(bytes: &[u8]) -> Work {
        codec::decode(bytes).expect("a client has encoded it")
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        codec::encode(self).expect("it is small")
    }
}

/// A final version.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) label: u64,
    pub(crate) write: WriteId,
    by: Option<IntervalId>,
}

#[derive(Default)]
pub(crate) struct Store {
    journal: Vec<Entry>,
    synced: usize,
    term: Term,
    finals: BTreeMap<Object, Vec<Version>>,
    undecided: BTreeMap<IntervalId, BTreeMap<Object, (WriteId, User)>>,
    /// What contexts that stay with a snapshot have looked at, by the number of their changes. Not kept, but for what is
    /// held: with the shard they fall.
    looked: BTreeMap<IntervalId, Looked>,
}

impl Store {
    fn put(&mut self, entry: Entry) {
        self.journal.push(entry.clone());
        self.carry_out(entry);
    }

    fn carry_out(&mut self, entry: Entry) {
        match entry {
            Entry::Trunk { object, label, write } => self.finish(object, Version { label, write, by: None }),
            Entry::Under { number, object, write, user } => {
                let versions = self.undecided.entry(number).or_default();
                let user = versions.get(&object).map_or(user, |(_, first)| first.clone());
                versions.insert(object, (write, user));
            }
            Entry::Final { seq, mut numbers } => {
                numbers.sort_unstable();
                for number in numbers {
                    for (object, (write, _)) in self.undecided.remove(&number).unwrap_or_default() {
                        self.finish(object, Version { label: 2 * seq.0, write, by: Some(number) });
                    }
                }
            }
            Entry::Looked { number, looked } => drop(self.looked.insert(number, looked)),
            Entry::Term(term) => self.term = term,
            Entry::Dead { numbers } => numbers.iter().for_each(|number| drop(self.undecided.remove(number))),
        }
    }

    fn finish(&mut self, object: Object, version: Version) {
        let versions = self.finals.entry(object).or_default();
        let last = versions.last().map_or(0, |version| version.label);
        assert!(last <= version.label, "{object:?}: {version:?} comes after one of label {last}");
        versions.push(version);
    }

    pub(crate) fn write_trunk(&mut self, object: Object, label: u64, write: WriteId) {
        self.put(Entry::Trunk { object, label, write });
    }

    pub(crate) fn write_under(&mut self, number: IntervalId, object: Object, write: WriteId, user: User) {
        self.put(Entry::Under { number, object, write, user });
    }

    pub(crate) fn switch(&mut self, seq: Seq, numbers: Vec<IntervalId>) {
        self.put(Entry::Final { seq, numbers });
    }

    pub(crate) fn drop_numbers(&mut self, numbers: Vec<IntervalId>) {
        self.put(Entry::Dead { numbers });
    }

    pub(crate) fn hear(&mut self, term: Term) {
        self.put(Entry::Term(term));
    }

    /// The newest that has been heard of.
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    pub(crate) fn look(&mut self, sight: &ContextSight, cut: Seq, object: Object) {
        let new = || Looked { cut, sees: BTreeSet::new(), objects: BTreeSet::new() };
        let looked = self.looked.entry(sight.writer).or_insert_with(new);
        looked.sees.extend(&sight.numbers);
        looked.objects.insert(object);
    }

    /// What these have looked at outlives this start.
    pub(crate) fn keep(&mut self, numbers: &[IntervalId]) {
        for number in numbers {
            if let Some(looked) = self.looked.get(number).cloned() {
                self.put(Entry::Looked { number: *number, looked });
            }
        }
    }

    /// How far the journal goes.
    pub(crate) fn written(&self) -> usize {
        self.journal.len()
    }

    pub(crate) fn sync(&mut self, to: usize) {
        self.synced = self.synced.max(to);
    }

    /// The power is cut: of what was not synced a part is left. Returns the writes of trunk that are lost.
    pub(crate) fn cut(&mut self, keep: impl FnOnce(usize) -> usize) -> Vec<WriteId> {
        let left = self.synced + keep(self.journal.len() - self.synced);
        let lost = self.journal.split_off(left);
        self.restart();
        let written = lost.into_iter().filter_map(|entry| match entry {
            Entry::Trunk { write, .. } => Some(write),
            _ => None,
        });
        written.collect()
    }

    /// The process is gone; what it had written is there.
    pub(crate) fn restart(&mut self) {
        let journal = std::mem::take(&mut self.journal);
        *self = Store { synced: journal.len(), ..Store::default() };
        journal.into_iter().for_each(|entry| self.put(entry));
        self.synced = self.journal.len();
    }

    /// The newest decision that is final here, or label of trunk.
    pub(crate) fn seq(&self) -> Seq {
        let labels = self.finals.values().flatten().map(|version| version.label / 2);
        Seq(labels.max().unwrap_or(0))
    }

    /// What is final of an object; up to a cut, if one is given.
    pub(crate) fn find(&self, object: Object, cut: Option<Seq>) -> (WriteId, u64) {
        let versions = self.finals.get(&object).into_iter().flatten().rev();
        let mut seen = versions.filter(|version| cut.is_none_or(|cut| version.label <= 2 * cut.0));
        seen.next().map_or((0, 0), |version| (version.write, version.label))
    }

    /// What one sees that has a snapshot, and is final, and was not when it was seen first.
    pub(crate) fn seen_final(&self, object: Object, cut: Seq, numbers: &[IntervalId]) -> Option<WriteId> {
        let versions = self.finals.get(&object).into_iter().flatten().rev();
        let mut seen = versions.take_while(|version| version.label > 2 * cut.0);
        seen.find(|version| version.by.is_some_and(|by| numbers.contains(&by))).map(|version| version.write)
    }

    /// The last undecided version of an object.
    pub(crate) fn newest(&self, object: Object) -> Option<(IntervalId, WriteId)> {
        let of = |(number, versions): (&IntervalId, &BTreeMap<Object, (WriteId, User)>)| {
            versions.get(&object).map(|(write, _)| (*number, *write))
        };
        self.undecided.iter().rev().find_map(of)
    }

    /// The last of those that a sight shows.
    pub(crate) fn seen(&self, object: Object, numbers: &[IntervalId]) -> Option<WriteId> {
        let shown = self.undecided.iter().rev().filter(|(number, _)| numbers.contains(number));
        shown.filter_map(|(_, versions)| versions.get(&object)).next().map(|(write, _)| *write)
    }

    pub(crate) fn finals(&self) -> impl Iterator<Item = (Object, WriteId)> + '_ {
        self.finals.iter().filter_map(|(object, versions)| Some((*object, versions.last()?.write)))
    }

    /// The labels under which others have changed an object.
    pub(crate) fn changes_of(&self, object: Object, others_than: &[IntervalId]) -> Vec<u64> {
        let by_others = |version: &&Version| version.by.is_none_or(|by| !others_than.contains(&by));
        self.finals.get(&object).into_iter().flatten().filter(by_others).map(|version| version.label).collect()
    }

    fn users(&self, numbers: &[IntervalId]) -> impl Iterator<Item = (IntervalId, Object, &User)> {
        let numbers = numbers.to_vec();
        let all = self.undecided.iter().filter(move |(number, _)| numbers.contains(number));
        all.flat_map(|(number, versions)| versions.iter().map(|(object, (_, user))| (*number, *object, user)))
    }
}

impl Part for Store {
    type Object = Object;

    fn touched(&self, numbers: &[IntervalId]) -> BTreeSet<Object> {
        let looked = numbers.iter().filter_map(|number| self.looked.get(number)).flat_map(|looked| &looked.objects);
        self.users(numbers).map(|(_, object, _)| object).chain(looked.copied()).collect()
    }

    fn conflicts(&self, numbers: &[IntervalId]) -> Vec<IntervalId> {
        let is_changed = |object: Object, since: u64, sees: &[IntervalId]| {
            self.finals.get(&object).into_iter().flatten().any(|version| {
                let by_others = |by: IntervalId| !sees.contains(&by) && !numbers.contains(&by);
                version.label > since && version.by.is_none_or(by_others)
            })
        };
        let changed = self
            .users(numbers)
            .filter(|(_, object, user)| is_changed(*object, user.cut.map_or(user.over, |cut| 2 * cut.0), &user.sees));
        let looked = numbers.iter().filter_map(|number| Some((*number, self.looked.get(number)?)));
        let looked = looked.filter(|(_, looked)| {
            let sees: Vec<IntervalId> = looked.sees.iter().copied().collect();
            looked.objects.iter().any(|object| is_changed(*object, 2 * looked.cut.0, &sees))
        });
        let found: BTreeSet<IntervalId> =
            changed.map(|(number, ..)| number).chain(looked.map(|(number, _)| number)).collect();
        found.into_iter().collect()
    }

    fn outdated(&self, numbers: &[IntervalId], missed: &[IntervalId]) -> Vec<IntervalId> {
        let used = |number: &&IntervalId| {
            let changed = missed.iter().filter_map(|missed| self.undecided.get(missed)).flat_map(BTreeMap::keys);
            let used = self.touched(&[**number]);
            changed.into_iter().any(|object| used.contains(object))
        };
        numbers.iter().filter(used).copied().collect()
    }

    fn objects_of(&self, work: &[u8]) -> BTreeSet<Object> {
        BTreeSet::from([Work::of(work).object])
    }

    fn undecided(&self) -> Vec<IntervalId> {
        self.undecided.keys().copied().collect()
    }
}
