//! Versions of records: random histories of batches, snapshots and decisions, against plain maps.

mod common;

use mojavefs::id::{Ino, IntervalId};
use mojavefs_server::store::{Batch, Key, Sight, Snapshot, Specs, Store};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const KEYS: u8 = 6;
/// So many steps stand for as many as it takes.
const STEPS_MAX: u8 = 10;

#[derive(Clone, Debug)]
enum Step {
    /// One batch of `who` that sets, or removes, some keys.
    Write {
        who: u8,
        keys: Vec<(u8, Option<u8>)>,
    },
    Begin,
    Commit {
        who: u8,
        both: bool,
    },
    Abort {
        who: u8,
    },
    /// It becomes part of the one before it.
    Reassign {
        who: u8,
    },
    Reclaim {
        steps: u8,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let keys = prop::collection::vec((0..KEYS, any::<Option<u8>>()), 1..4);
    let who = any::<u8>;
    prop_oneof![
        10 => (who(), keys).prop_map(|(who, keys)| Step::Write { who, keys }),
        4 => Just(Step::Begin),
        3 => (who(), any::<bool>()).prop_map(|(who, both)| Step::Commit { who, both }),
        2 => who().prop_map(|who| Step::Abort { who }),
        2 => who().prop_map(|who| Step::Reassign { who }),
        4 => (1..=STEPS_MAX).prop_map(|steps| Step::Reclaim { steps }),
        1 => Just(Step::Reopen),
    ]
}

/// An interval that is undecided, on a snapshot of its own.
struct Writer {
    interval: IntervalId,
    snapshot: Snapshot,
    base: BTreeMap<u8, u8>,
    own: BTreeMap<u8, Option<u8>>,
    /// What became final after the snapshot.
    newer: Vec<u8>,
    /// How often something had become final when it began.
    began: usize,
}

struct World {
    place: common::Place,
    store: Option<Store>,
    last: BTreeMap<u8, u8>,
    writers: Vec<Writer>,
    /// Everything that ever became final, in order.
    history: Vec<(u8, Option<u8>)>,
}

fn name(key: u8) -> Vec<u8> {
    // Names that begin with each other lie next to each other.
    vec![b'a'; 1 + key as usize]
}

impl World {
    fn new(place: common::Place) -> Self {
        let store = Some(Store::open(&*place.engine(), common::OPTIONS).expect("the store opens"));
        World { place, store, last: BTreeMap::new(), writers: Vec::new(), history: Vec::new() }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().expect("the store is open")
    }

    fn sight(&self, at: Option<usize>) -> Sight {
        let Some(writer) = at.map(|at| &self.writers[at]) else { return Sight::trunk() };
        let live = Arc::from([writer.interval]);
        Sight { snapshot: writer.snapshot.seq(), live, writer: writer.interval, ..Sight::trunk() }
    }

    fn play(&mut self, step: &Step) {
        let count = self.writers.len();
        match step {
            Step::Write { who, keys } => self.write((*who as usize % (count + 1)).checked_sub(1), keys),
            Step::Begin if count < 4 => {
                let interval = IntervalId(self.store().next_id().expect("a number"));
                let snapshot = self.store().take_snapshot().expect("a snapshot");
                let (own, newer) = (BTreeMap::new(), Vec::new());
                let began = self.history.len();
                self.writers.push(Writer { interval, snapshot, base: self.last.clone(), own, newer, began });
            }
            Step::Commit { who, both } if count > 0 => self.commit(*who as usize % count, *both),
            Step::Abort { who } if count > 0 => {
                let writer = self.writers.remove(*who as usize % count);
                self.store().abort(&[writer.interval], &[]).expect("an abort");
            }
            Step::Reassign { who } if count > 1 => self.reassign(1 + *who as usize % (count - 1)),
            Step::Reclaim { steps: STEPS_MAX } => self.reclaim_all(),
            Step::Reclaim { steps } => self.reclaim(*steps),
            Step::Reopen => {
                self.writers.clear();
                self.store = None;
                self.store = Some(Store::open(&*self.place.engine(), common::OPTIONS).expect("the store opens"));
            }
            _ => {}
        }
        self.compare();
    }

    fn reclaim(&self, steps: u8) {
        for _ in 0..steps {
            self.store().reclaim(&|_| true).expect("a step of background work");
        }
    }

    /// Nothing is left of what nobody can see, and everything else is there.
    fn reclaim_all(&self) {
        while self.store().reclaim(&|_| true).expect("a step of background work").more {}
        (0..KEYS).for_each(|key| self.check_versions(key));
    }

    fn check_versions(&self, key: u8) {
        let stored = self.store().stored(&Key::Xattr(Ino::ROOT, name(key))).expect("versions");
        let (undecided, stored): (Vec<_>, Vec<_>) =
            stored.into_iter().partition(|(order, _)| order.interval().is_some());
        let own = self.writers.iter().rev().filter_map(|writer| Some((writer, writer.own.get(&key)?)));
        let own: Vec<_> = own.map(|(writer, value)| (Some(writer.interval), value.map(|value| vec![value]))).collect();
        let found: Vec<_> = undecided.into_iter().map(|(order, value)| (order.interval(), value)).collect();
        assert_eq!(found, own, "undecided versions of key {key}");
        // When what a view sees last became final, of everybody who looks.
        let seen_up_to = |until: usize| (0..until).rev().find(|at| self.history[*at].0 == key);
        let views = self.writers.iter().map(|writer| writer.began).chain([self.history.len()]);
        let mut seen: Vec<usize> = views.filter_map(seen_up_to).collect();
        seen.sort_unstable();
        seen.dedup();
        let values = seen.iter().rev().filter_map(|at| self.history[*at].1).map(|value| vec![value]);
        let found = stored.iter().filter_map(|(_, value)| value.clone());
        assert_eq!(found.collect::<Vec<_>>(), values.collect::<Vec<_>>(), "final versions of key {key}");
        // That it is gone must be said only where somebody sees it otherwise, or sees that.
        let hides = self.writers.iter().any(|writer| writer.own.contains_key(&key))
            || seen.last().is_some_and(|last| self.writers.iter().any(|writer| writer.began <= *last));
        let gone = seen.iter().filter(|at| self.history[**at].1.is_none()).count();
        let most = match seen.last().is_some_and(|last| self.history[*last].1.is_none()) && !hides {
            true => gone - 1,
            false => gone,
        };
        let found = stored.iter().filter(|(_, value)| value.is_none()).count();
        assert!(found <= most, "{found} versions say that key {key} is gone, {most} are of use");
    }

    fn write(&mut self, at: Option<usize>, keys: &[(u8, Option<u8>)]) {
        let mut batch = Batch::new(self.store(), &self.sight(at));
        for (key, value) in keys {
            match value {
                Some(value) => batch.put_xattr(Ino::ROOT, &name(*key), &[*value]).expect("a record"),
                None => batch.remove_xattr(Ino::ROOT, &name(*key)).expect("a record"),
            }
        }
        self.store().apply(batch).expect("a batch");
        match at {
            Some(at) => self.writers[at].own.extend(keys.iter().copied()),
            None => self.finish(keys.iter().copied()),
        }
    }

    /// These are final now.
    fn finish(&mut self, keys: impl IntoIterator<Item = (u8, Option<u8>)>) {
        for (key, value) in keys {
            self.history.push((key, value));
            match value {
                Some(value) => drop(self.last.insert(key, value)),
                None => drop(self.last.remove(&key)),
            }
            self.writers.iter_mut().for_each(|writer| writer.newer.push(key));
        }
    }

    /// One interval, or it and the next together, of which the one that began later has the last word.
    fn commit(&mut self, at: usize, both: bool) {
        let end = self.writers.len().min(if both { at + 2 } else { at + 1 });
        let done: Vec<Writer> = self.writers.drain(at..end).collect();
        let intervals: Vec<IntervalId> = done.iter().map(|writer| writer.interval).collect();
        self.store().commit(&intervals, &Specs::default(), &[], &[]).expect("a commit");
        done.into_iter().for_each(|writer| self.finish(writer.own));
    }

    /// What an interval has changed is the one's before it, which has seen none of what became final meanwhile.
    fn reassign(&mut self, at: usize) {
        let later = self.writers.remove(at);
        let earlier = &mut self.writers[at - 1];
        let (from, to) = (later.interval, earlier.interval);
        earlier.own.extend(later.own);
        let keys = self.store().changes(from, None, usize::MAX).expect("its changes");
        self.store().reassign(from, to, &keys).expect("it is the other's");
        assert_eq!(self.store().changes(from, None, 1).expect("its changes"), []);
    }

    fn compare(&self) {
        for at in std::iter::once(None).chain((0..self.writers.len()).map(Some)) {
            let sight = self.sight(at);
            let mut expected = at.map_or(&self.last, |at| &self.writers[at].base).clone();
            let own = at.map(|at| self.writers[at].own.clone()).unwrap_or_default();
            for (key, value) in &own {
                match value {
                    Some(value) => drop(expected.insert(*key, *value)),
                    None => drop(expected.remove(key)),
                }
            }
            for key in 0..KEYS {
                let reading = self.store().xattr(&sight, Ino::ROOT, &name(key)).expect("a record");
                assert_eq!(reading.found, expected.get(&key).map(|value| vec![*value]), "key {key} for {at:?}");
                if !own.contains_key(&key) {
                    let newer = at.is_some_and(|at| self.writers[at].newer.contains(&key));
                    assert_eq!(reading.newer.any(), newer, "whether key {key} has a version that {at:?} misses");
                }
            }
            let names = self.store().xattrs(&sight, Ino::ROOT).expect("names").found;
            assert_eq!(names, expected.keys().map(|key| name(*key)).collect::<Vec<_>>(), "the names for {at:?}");
        }
    }
}

proptest! {
    #![proptest_config(common::config(64))]

    #[test]
    fn every_view_sees_its_versions(history in prop::collection::vec(step(), 1..100)) {
        play(common::Place::memory(), &history);
    }

    #[test]
    fn every_view_sees_its_versions_on_disk(history in prop::collection::vec(step(), 1..100)) {
        play(common::Place::disk(), &history);
    }
}

fn play(place: common::Place, history: &[Step]) {
    let mut world = World::new(place);
    history.iter().for_each(|step| world.play(step));
    world.reclaim_all();
    while !world.writers.is_empty() {
        world.play(&Step::Abort { who: 0 });
    }
    world.reclaim_all();
    world.compare();
    let count = |key| world.store().stored(&Key::Xattr(Ino::ROOT, name(key))).expect("versions").len();
    assert_eq!((0..KEYS).map(count).sum::<usize>(), world.last.len(), "one version of each key that is there");
}
