//! What was committed lately, so that it can be said after a restart, too. Speculations are numbered in their order, and none
//! is committed without a record; so one that is neither on record nor undecided was undone.

use super::db::{Db, Family, Writes};
use super::{Store, StoreError, meta};
use crate::limits::{OUTCOME_RANGES_MAX, OUTCOMES_RECORDED_MAX};
use mojavefs::id::SpecId;
use mojavefs::protocol::codec;
use std::collections::BTreeMap;

/// A set of speculations. Those of one job follow each other mostly, so it is kept as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Specs(BTreeMap<u64, u64>);

impl Specs {
    /// Adds one.
    pub fn insert(&mut self, spec: SpecId) {
        self.insert_range(spec.0, spec.0);
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: &Specs) {
        other.0.iter().for_each(|(first, last)| self.insert_range(*first, *last));
    }

    fn insert_range(&mut self, mut first: u64, mut last: u64) {
        // All that it touches becomes one with it.
        while let Some((from, to)) = self.0.range(..=last.saturating_add(1)).next_back().map(|(from, to)| (*from, *to))
            && to.saturating_add(1) >= first
        {
            self.0.remove(&from);
            (first, last) = (first.min(from), last.max(to));
        }
        self.0.insert(first, last);
    }

    /// Whether it has this one.
    pub fn contains(&self, spec: SpecId) -> bool {
        self.0.range(..=spec.0).next_back().is_some_and(|(_, last)| *last >= spec.0)
    }

    fn last(&self) -> Option<u64> {
        self.0.last_key_value().map(|(_, last)| *last)
    }

    /// Drops the lowest until no more than `most` ranges are left. Returns the highest number that was dropped.
    fn cut(&mut self, most: usize) -> Option<u64> {
        let mut dropped = None;
        while self.0.len() > most {
            dropped = self.0.pop_first().map(|(_, last)| last);
        }
        dropped
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let ranges: Vec<(u64, u64)> = self.0.iter().map(|(first, last)| (*first, *last)).collect();
        codec::encode(&ranges).map_err(|why| StoreError::corrupt(format!("what was committed: {why}")))
    }

    pub(super) fn decode(stored: &[u8]) -> Result<Self, StoreError> {
        let ranges: Vec<(u64, u64)> =
            codec::decode(stored).map_err(|why| StoreError::corrupt(format!("what was committed: {why}")))?;
        let mut specs = Specs::default();
        ranges.into_iter().for_each(|(first, last)| specs.insert_range(first, last));
        Ok(specs)
    }
}

impl FromIterator<SpecId> for Specs {
    fn from_iter<I: IntoIterator<Item = SpecId>>(all: I) -> Self {
        let mut specs = Specs::default();
        all.into_iter().for_each(|spec| specs.insert(spec));
        specs
    }
}

/// What the store knows of a speculation that is not undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It is committed.
    Committed,
    /// It was undone.
    Undone,
    /// It was decided too long ago.
    Forgotten,
    /// There was none of this number.
    Never,
}

/// The records of what was committed.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    /// By the last number in each: what one decision has committed.
    recorded: BTreeMap<u64, Specs>,
    /// Of those up to this number only what is recorded is known.
    forgotten: u64,
}

/// What one more decision makes of the records.
pub(super) struct Recorded {
    last: Option<(u64, Specs)>,
    removed: Vec<u64>,
    forgotten: u64,
}

impl Outcomes {
    /// Reads all records.
    pub(super) fn open(db: &Db) -> Result<Self, StoreError> {
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| StoreError::corrupt("an outcome's record is no number"))?;
            Ok::<u64, StoreError>(u64::from_be_bytes(bytes))
        };
        let forgotten = db.get(Family::Meta, meta::FORGOTTEN)?.map_or(Ok(0), |bytes| number(&bytes))?;
        let mut recorded = BTreeMap::new();
        let mut scan = db.scan(Family::Meta, &[meta::OUTCOME], &[meta::OUTCOME]);
        while let Some((key, value)) = scan.item()? {
            recorded.insert(number(&key[1..])?, Specs::decode(value)?);
            scan.next();
        }
        Ok(Outcomes { recorded, forgotten })
    }

    /// Adds to a batch that these are committed; [`Self::apply`] is to follow once the batch is applied.
    pub(super) fn record(&self, writes: &mut Writes<'_>, mut specs: Specs) -> Result<Recorded, StoreError> {
        let mut forgotten = self.forgotten.max(specs.cut(OUTCOME_RANGES_MAX).unwrap_or(0));
        let Some(last) = specs.last() else { return Ok(Recorded { last: None, removed: Vec::new(), forgotten }) };
        writes.put(Family::Meta, &meta::key(meta::OUTCOME, [last]), &specs.encode()?);
        let too_many = (self.recorded.len() + 1).saturating_sub(OUTCOMES_RECORDED_MAX);
        let removed: Vec<u64> = self.recorded.keys().copied().take(too_many).collect();
        for number in &removed {
            writes.delete(Family::Meta, &meta::key(meta::OUTCOME, [*number]));
            forgotten = forgotten.max(*number);
        }
        if forgotten != self.forgotten {
            writes.put(Family::Meta, meta::FORGOTTEN, &forgotten.to_be_bytes());
        }
        Ok(Recorded { last: Some((last, specs)), removed, forgotten })
    }

    /// What was added to a batch is on record.
    pub(super) fn apply(&mut self, recorded: Recorded) {
        recorded.removed.iter().for_each(|number| drop(self.recorded.remove(number)));
        self.recorded.extend(recorded.last);
        self.forgotten = recorded.forgotten;
    }

    fn of(&self, spec: SpecId, next: u64) -> Remembered {
        match spec.0 {
            _ if self.recorded.range(spec.0..).any(|(_, specs)| specs.contains(spec)) => Remembered::Committed,
            number if number == 0 || number >= next => Remembered::Never,
            number if number <= self.forgotten => Remembered::Forgotten,
            _ => Remembered::Undone,
        }
    }
}

/// A store of a format that recorded no outcomes: those of before are not known.
pub(super) fn begin(db: &Db, writes: &mut Writes<'_>) -> Result<(), StoreError> {
    let next = super::ids::Ids::open(db)?.spec.reached();
    writes.put(Family::Meta, meta::FORGOTTEN, &next.saturating_sub(1).to_be_bytes());
    Ok(())
}

impl Store {
    /// What has become of a speculation that is not undecided, as far as it is on record.
    pub fn remembers(&self, spec: SpecId) -> Remembered {
        self.outcomes.lock().of(spec, self.ids.spec.reached())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreOptions;
    use crate::store::engine::memory::Memory;

    const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

    fn open(place: &Memory) -> Store {
        Store::open(place, OPTIONS).expect("the store opens")
    }

    fn commit(store: &Store, specs: &[SpecId]) {
        store.commit(&[], &specs.iter().copied().collect(), &[], &[]).expect("a commit");
    }

    #[test]
    fn a_set_of_numbers_is_as_few_ranges_as_can_be() {
        let mut set: Specs = [5, 3, 4, 9, 1, 7].map(SpecId).into_iter().collect();
        assert_eq!(set.0, BTreeMap::from([(1, 1), (3, 5), (7, 7), (9, 9)]));
        set.extend(&[2, 6, 8].map(SpecId).into_iter().collect());
        assert_eq!(set.0, BTreeMap::from([(1, 9)]));
        assert!(set.contains(SpecId(1)) && set.contains(SpecId(9)));
        assert!(!set.contains(SpecId(0)) && !set.contains(SpecId(10)));
        let mut set: Specs = [1, 3, 5].map(SpecId).into_iter().collect();
        assert_eq!((set.cut(2), set.contains(SpecId(1)), set.contains(SpecId(3))), (Some(1), false, true));
    }

    #[test]
    fn what_was_committed_is_known_after_a_restart_and_everything_else_was_undone() {
        let place = Memory::of(1 << 30);
        let store = open(&place);
        let specs: Vec<SpecId> = (0..6).map(|_| store.next_spec().expect("a number")).collect();
        commit(&store, &specs[1..3]);
        commit(&store, &specs[4..5]);
        let known = |store: &Store| specs.iter().map(|spec| store.remembers(*spec)).collect::<Vec<_>>();
        let expected = {
            use Remembered::{Committed, Undone};
            vec![Undone, Committed, Committed, Undone, Committed, Undone]
        };
        assert_eq!(known(&store), expected);
        drop(store);
        let store = open(&place);
        assert_eq!(known(&store), expected);
        let never = [SpecId(0), SpecId(specs[5].0 + 1)].map(|spec| store.remembers(spec));
        assert_eq!(never, [Remembered::Never; 2]);
    }

    #[test]
    fn of_many_the_last_are_remembered_and_of_the_others_nothing_is_said() {
        let place = Memory::of(1 << 30);
        let store = open(&place);
        let undone = store.next_spec().expect("a number");
        let specs: Vec<SpecId> = (0..OUTCOMES_RECORDED_MAX + 3).map(|_| store.next_spec().expect("a number")).collect();
        specs.iter().for_each(|spec| commit(&store, &[*spec]));
        let later = store.next_spec().expect("a number");
        let check = |store: &Store| {
            assert_eq!(store.remembers(undone), Remembered::Forgotten);
            assert_eq!(store.remembers(specs[2]), Remembered::Forgotten);
            assert_eq!(store.remembers(specs[3]), Remembered::Committed);
            assert_eq!(store.remembers(later), Remembered::Undone);
        };
        check(&store);
        drop(store);
        check(&open(&place));
    }
}
