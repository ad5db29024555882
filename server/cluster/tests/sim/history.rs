//! What has happened in a run, as somebody knows it who sees everything: for what must never be.

use mojavefs::id::{IntervalId, Seq, SpecId};
use mojavefs_cluster::Asker;
use mojavefs_cluster::log::Record;
use std::collections::{BTreeMap, BTreeSet};

/// Something that can be read and written: on which shard, and which of that.
pub(crate) type Object = (u16, u8);

/// A write; 0 is what was there at first.
pub(crate) type WriteId = u64;

/// The latest write of each object that somebody knows of, with all that came before these.
pub(crate) type Knowledge = BTreeMap<Object, WriteId>;

/// The label under which it is final, and its turn among those of one label.
type Place = (u64, u64);

/// One write.
#[derive(Clone, Debug, Default)]
struct Write {
    /// What was known to whoever made it.
    before: Knowledge,
    /// Where it lies among the final writes of its object, if it is final or will be.
    place: Option<Place>,
}

/// All of it.
#[derive(Default)]
pub(crate) struct History {
    writes: BTreeMap<WriteId, Write>,
    last: WriteId,
    /// They went with the power, or were undone: kernels may believe in them until they hear of it.
    lost: BTreeSet<WriteId>,
    places: u64,
    /// What carries each number: undecided, or decided.
    numbers: BTreeMap<IntervalId, Vec<(Object, WriteId)>>,
    /// The number of changes of several shards at once.
    steps: BTreeMap<WriteId, IntervalId>,
    sees: BTreeMap<IntervalId, Vec<IntervalId>>,
    /// The order of writes in contexts.
    turns: BTreeMap<WriteId, usize>,
    last_turn: usize,
    /// How many there had been when a vote made its context part of another.
    folded: BTreeMap<Asker, usize>,
    /// What has become part of what: the outer one first.
    parts: BTreeSet<(SpecId, SpecId)>,
    /// How shards have decided.
    fates: BTreeMap<IntervalId, Option<Seq>>,
    /// The decisions that are in the log.
    decided: BTreeMap<Seq, Vec<IntervalId>>,
    /// The speculations that are committed by the log.
    committed: BTreeSet<SpecId>,
    /// What the log says is held.
    held: BTreeMap<SpecId, Vec<IntervalId>>,
    /// What was left to others: it can be committed, unless somebody gives it up, or it depends on what is not.
    pub(crate) left: BTreeSet<SpecId>,
    depends: BTreeMap<SpecId, BTreeSet<SpecId>>,
    pub(crate) given_up: BTreeSet<SpecId>,
    /// What was found to be in conflict.
    pub(crate) in_conflict: BTreeSet<SpecId>,
    /// Commits that were acknowledged.
    acknowledged: BTreeMap<SpecId, Seq>,
    /// What everybody who begins to look now must find, or something later.
    pub(crate) public: Knowledge,
}

impl History {
    /// A write begins.
    pub(crate) fn write(&mut self, before: Knowledge) -> WriteId {
        self.last += 1;
        self.writes.insert(self.last, Write { before, place: None });
        self.last
    }

    /// A context has written something.
    pub(crate) fn under(&mut self, number: IntervalId, object: Object, write: WriteId) {
        assert!(!self.is_decided(number), "number {number} is decided, and write {write} of {object:?} comes to it");
        // Who does not know whether it was done asks for it again.
        let written = self.numbers.entry(number).or_default();
        if !written.contains(&(object, write)) {
            written.push((object, write));
        }
        self.last_turn += 1;
        self.turns.insert(write, self.last_turn);
    }

    /// It can be lost, or a context's that was undone: nobody need find it any more.
    pub(crate) fn forget(&mut self, write: WriteId) {
        if let Some(write) = self.writes.get_mut(&write) {
            write.place = None;
        }
        self.lost.insert(write);
        let gone = |known: &mut Knowledge| known.retain(|_, known| *known != write);
        gone(&mut self.public);
    }

    /// It is the newest final one of its object.
    pub(crate) fn becomes_final(&mut self, write: WriteId, label: u64) {
        self.places += 1;
        if let Some(write) = self.writes.get_mut(&write) {
            write.place = Some((label, self.places));
        }
    }

    /// Whether it is final, or will be.
    pub(crate) fn is_final(&self, write: WriteId) -> bool {
        self.place(write) != Place::default()
    }

    fn place(&self, write: WriteId) -> Place {
        self.writes.get(&write).and_then(|write| write.place).unwrap_or_default()
    }

    /// Of each object the later one.
    pub(crate) fn learn(&self, knowledge: &mut Knowledge, other: &Knowledge) {
        for (object, write) in other {
            let known = knowledge.entry(*object).or_default();
            if self.place(*write) > self.place(*known) {
                *known = *write;
            }
        }
    }

    /// Somebody finds a write, and so knows all that came before it.
    pub(crate) fn learn_of(&self, knowledge: &mut Knowledge, object: Object, write: WriteId) {
        if let Some(known) = self.writes.get(&write) {
            let before = known.before.clone();
            self.learn(knowledge, &before);
        }
        self.learn(knowledge, &Knowledge::from([(object, write)]));
    }

    /// Whoever knows this must not find something older.
    pub(crate) fn check_found(&self, knowledge: &Knowledge, object: Object, found: WriteId, who: &str) {
        let known = knowledge.get(&object).copied().unwrap_or(0);
        assert!(
            self.lost.contains(&found) || self.place(found) >= self.place(known),
            "{who} finds write {found} of {object:?}, and knows of the later {known}"
        );
    }

    /// What was found at one snapshot is of one moment.
    pub(crate) fn check_snapshot(&self, found: &BTreeMap<Object, WriteId>) {
        for (object, write) in found {
            let Some(known) = self.writes.get(write) else { continue };
            for (other, before) in &known.before {
                let shown = found.get(other);
                assert!(
                    shown.is_none_or(|shown| self.lost.contains(shown) || self.place(*shown) >= self.place(*before)),
                    "a snapshot shows write {write} of {object:?}, and {shown:?} of {other:?}, which is older than {before}"
                );
            }
        }
    }

    /// How many writes there have been in contexts.
    pub(crate) fn turn(&self) -> usize {
        self.last_turn + 1
    }

    pub(crate) fn turn_of(&self, write: WriteId) -> usize {
        self.turns.get(&write).copied().unwrap_or(0)
    }

    /// A coordinator has said that a context is part of another.
    pub(crate) fn folded(&mut self, asker: Asker, folded: Option<(SpecId, SpecId)>) {
        self.folded.insert(asker, self.turn());
        self.parts.extend(folded.map(|(inner, outer)| (outer, inner)));
    }

    pub(crate) fn folded_at(&self, asker: Asker) -> usize {
        self.folded[&asker]
    }

    /// What has become part of something, and so on.
    fn parts_of(&self, spec: SpecId) -> Vec<SpecId> {
        let parts = self.parts.iter().filter(|(outer, _)| *outer == spec);
        parts.flat_map(|(_, inner)| self.parts_of(*inner).into_iter().chain([*inner])).collect()
    }

    /// Who has written something, or seen it, finds it, or what somebody who saw it has put over it.
    pub(crate) fn check_over(&self, found: WriteId, own: WriteId, may_be_others: bool) {
        let turn = |write: WriteId| self.turns.get(&write).copied();
        let is_over = turn(own).is_some() && turn(found) > turn(own);
        assert!(found == own || may_be_others && is_over, "who knows of write {own} finds {found}");
    }

    /// Who knows of a write, which may be undecided, finds it or something later.
    pub(crate) fn check_known(&self, object: Object, known: WriteId, (found, is_final): (WriteId, bool)) {
        match (self.is_final(known), is_final) {
            (true, true) => self.check_found(&BTreeMap::from([(object, known)]), object, found, "who saw it undecided"),
            // By somebody who has not seen it, which will be in conflict.
            (true, false) => {}
            (false, _) => self.check_over(found, known, true),
        }
    }

    /// Who has seen one of several changes that were made at once sees the others, too, or what was put over them.
    pub(crate) fn made_with(&self, write: WriteId) -> Vec<(Object, WriteId)> {
        let number = self.steps.get(&write);
        number.and_then(|number| self.numbers.get(number)).cloned().unwrap_or_default()
    }

    /// These are changes of several shards at once.
    pub(crate) fn step(&mut self, number: IntervalId, write: WriteId, sees: &[IntervalId]) {
        self.steps.insert(write, number);
        self.sees.insert(number, sees.to_vec());
    }

    /// What was seen by who made the changes that carry these.
    pub(crate) fn seen_under(&self, numbers: &[IntervalId]) -> Vec<IntervalId> {
        numbers.iter().filter_map(|number| self.sees.get(number)).flatten().copied().collect()
    }

    fn is_decided(&self, number: IntervalId) -> bool {
        self.decided.values().any(|numbers| numbers.contains(&number))
    }

    /// A record is in the log.
    pub(crate) fn logged(&mut self, record: &Record) {
        match record {
            Record::Decision(decision) => {
                self.decided(decision.seq, &decision.numbers, decision.specs.iter().copied());
                decision.specs.iter().for_each(|spec| drop(self.held.remove(spec)));
                let parts: Vec<SpecId> = decision.specs.iter().flat_map(|spec| self.parts_of(*spec)).collect();
                self.committed.extend(parts);
            }
            Record::Held(held) => {
                self.held.insert(held.spec, held.numbers.clone());
                let depends = self.depends.entry(held.spec).or_default();
                depends.extend(held.depends.iter().chain(&held.inside));
            }
            Record::Dropped(specs) => specs.iter().for_each(|spec| drop(self.held.remove(spec))),
            _ => {}
        }
    }

    /// Somebody who would commit what is held hears that it is not there.
    pub(crate) fn is_gone(&self, spec: SpecId) {
        let depends = self.depends.get(&spec).into_iter().flatten();
        let is_alone = !self.given_up.contains(&spec) && depends.copied().all(|other| self.committed.contains(&other));
        let is_left = self.left.contains(&spec) && is_alone;
        let is_lost = is_left && !self.committed.contains(&spec);
        assert!(!is_lost, "{spec} was held, and is lost");
    }

    /// A decision is in the log: who finds one thing of it knows of all the rest.
    fn decided(&mut self, seq: Seq, numbers: &[IntervalId], specs: impl IntoIterator<Item = SpecId>) {
        self.committed.extend(specs);
        assert!(self.decided.insert(seq, numbers.to_vec()).is_none(), "decision {seq} is there twice");
        let mut before = Knowledge::new();
        for (object, write) in self.written_by(numbers) {
            assert_eq!(self.place(write), Place::default(), "write {write} is made twice");
            self.becomes_final(write, 2 * seq.0);
            let of = self.writes[&write].before.clone();
            self.learn(&mut before, &of);
            self.learn(&mut before, &Knowledge::from([(object, write)]));
        }
        for (_, write) in self.written_by(numbers) {
            self.writes.get_mut(&write).expect("it was made").before = before.clone();
        }
    }

    /// What a decision has made final.
    pub(crate) fn numbers_of(&self, seq: Seq) -> Vec<IntervalId> {
        self.decided.get(&seq).cloned().unwrap_or_default()
    }

    /// In the order in which they lie over each other.
    fn written_by(&self, numbers: &[IntervalId]) -> Vec<(Object, WriteId)> {
        let mut numbers = numbers.to_vec();
        numbers.sort_unstable();
        numbers.iter().filter_map(|number| self.numbers.get(number)).flatten().copied().collect()
    }

    /// A shard shows a decision.
    pub(crate) fn shown(&mut self, seq: Seq, numbers: &[IntervalId]) {
        let decided =
            self.decided.get(&seq).unwrap_or_else(|| panic!("decision {seq} is shown, and is not in the log"));
        for number in numbers {
            assert!(decided.contains(number), "number {number} is shown with decision {seq}, which is not about it");
            let fate = self.fates.entry(*number).or_insert(Some(seq));
            assert_eq!(*fate, Some(seq), "number {number}");
        }
    }

    /// A shard drops something.
    pub(crate) fn dropped(&mut self, numbers: &[IntervalId]) {
        for number in numbers {
            let fate = self.fates.entry(*number).or_insert(None);
            assert_eq!(*fate, None, "number {number} is dropped");
            let held = self.held.iter().find(|(_, numbers)| numbers.contains(number));
            assert!(held.is_none(), "number {number} is dropped, and the log says that it is held: {held:?}");
            for (_, write) in self.numbers.get(number).cloned().unwrap_or_default() {
                self.forget(write);
            }
        }
    }

    /// An owner hears that its speculation is committed: everybody who begins to look from now on finds it.
    pub(crate) fn acknowledged(&mut self, spec: SpecId, seq: Seq) {
        let numbers = self.decided.get(&seq).cloned();
        let numbers = numbers.unwrap_or_else(|| panic!("{spec} is committed by {seq}, which is not in the log"));
        assert!(self.acknowledged.insert(spec, seq).is_none_or(|before| before == seq), "{spec} is committed twice");
        for (object, write) in self.written_by(&numbers) {
            self.publish(object, write);
        }
    }

    /// A write was acknowledged. What it rests on may not be seen everywhere yet, but by who knows of it.
    pub(crate) fn publish(&mut self, object: Object, write: WriteId) {
        let mut public = std::mem::take(&mut self.public);
        self.learn(&mut public, &Knowledge::from([(object, write)]));
        self.public = public;
    }

    /// An owner hears that its speculation was undone.
    pub(crate) fn refused(&self, spec: SpecId) {
        assert!(!self.committed.contains(&spec), "{spec} is committed, and its owner hears that it is not");
    }

    /// What must be there at the end: per object, the last of these or something later.
    pub(crate) fn check_end(&self, finals: &BTreeMap<Object, WriteId>) {
        for (object, write) in finals {
            self.check_found(&self.public, *object, *write, "who looks at the end");
        }
        self.left.iter().for_each(|spec| self.is_gone(*spec));
        let mut shown: BTreeMap<Seq, BTreeSet<IntervalId>> = BTreeMap::new();
        for (number, seq) in &self.fates {
            if let Some(seq) = seq {
                shown.entry(*seq).or_default().insert(*number);
            }
        }
        for (seq, numbers) in &self.decided {
            let has_written = |number: &&IntervalId| self.numbers.contains_key(number);
            for number in numbers.iter().filter(has_written) {
                let is_shown = shown.get(seq).is_some_and(|shown| shown.contains(number));
                assert!(is_shown, "number {number} of decision {seq} is shown nowhere");
            }
        }
    }

    /// A committed context that stayed with a snapshot: nobody has changed what it used, between that and its decision. `labels` are
    /// those of others' changes of that.
    pub(crate) fn check_isolated(spec: SpecId, cut: Seq, seq: Seq, labels: &[u64]) {
        let between = labels.iter().find(|label| **label > 2 * cut.0 && **label < 2 * seq.0);
        assert!(
            between.is_none(),
            "{spec} is committed by {seq}, and what it used at {cut} was changed at {between:?}"
        );
    }
}
