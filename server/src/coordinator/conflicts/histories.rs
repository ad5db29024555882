//! Random histories, held against the model.

use super::model::Model;
use super::{Conflicts, Looks, Nesting};
use crate::access::{Access, AccessKey};
use crate::random::Random;
use mojavefs::id::{ContextId, Ino};
use std::collections::BTreeSet;

const OBJECTS: usize = 3;
const CONTEXTS_MAX: usize = 6;
const STEPS: usize = 60;

/// How often there was what is to be tried.
#[derive(Default, Debug)]
struct Counts {
    /// Somebody's work could not become final together with that of others.
    rings: usize,
    folds: usize,
    /// Conflicts of contexts inside of others.
    inner_conflicts: usize,
}

struct World {
    real: Conflicts,
    model: Model,
    random: Random,
    is_nested: bool,
    began: u64,
    counts: Counts,
    /// For people.
    log: Vec<String>,
}

impl World {
    fn begin(&mut self) {
        self.began += 1;
        let context = ContextId(self.began);
        let others: Vec<ContextId> = self.model.contexts.keys().copied().collect();
        let outer =
            (self.is_nested && !others.is_empty() && self.random.below(3) > 0).then(|| self.random.one_of(&others));
        let mut looks = self.random.one_of(&[Looks::Joins, Looks::Joins, Looks::Follows, Looks::Stays]);
        if outer.is_some_and(|outer| self.model.contexts[&outer].looks == Looks::Stays) {
            looks = Looks::Stays;
        }
        self.log.push(format!("{context} begins inside {outer:?}: {looks:?}"));
        self.real.open(context, looks);
        self.model.begin(context, looks, outer);
    }

    fn note(&mut self, context: ContextId) {
        let (object, changes) = (self.random.below(OBJECTS) as u64, self.random.below(3) > 0);
        self.log.push(format!("{context} {} {object}", if changes { "changes" } else { "reads" }));
        let stays = self.model.contexts[&context].looks == Looks::Stays;
        let newer_final = stays && self.model.finds_newer(context, object);
        self.model.note(Some(context), object, changes);
        if changes || stays {
            let how = if changes { Access::Write } else { Access::Read };
            self.real.accessed(context, AccessKey::Inode(Ino(object)), how, newer_final, || &self.model);
        }
        // Who is around sees how it ends, and so what it has seen.
        for outer in Nesting::around(&self.model, context).into_iter().rev() {
            if self.model.contexts[&outer].looks == Looks::Stays {
                let newer_final = self.model.finds_newer(outer, object);
                self.model.note(Some(outer), object, false);
                self.real.accessed(outer, AccessKey::Inode(Ino(object)), Access::Read, newer_final, || &self.model);
            }
        }
    }

    fn access_on_trunk(&mut self) {
        let object = self.random.below(OBJECTS) as u64;
        self.log.push(format!("trunk changes {object}"));
        self.model.note(None, object, true);
        self.real.accessed_on_trunk(&AccessKey::Inode(Ino(object)), Access::Write);
    }

    /// A context comes to need another in a way that is no look at an object.
    fn need(&mut self, context: ContextId, other: ContextId) {
        self.log.push(format!("{context} needs {other}"));
        self.model.need(context, other);
        if self.model.contexts[&context].looks == Looks::Stays {
            // It joins nobody, so it owns the other's speculation: that waits for it in turn.
            self.model.need(other, context);
        }
    }

    fn stands(&self, set: &BTreeSet<ContextId>) -> bool {
        self.model.standing().iter().any(|(loser, _)| set.contains(loser))
    }

    fn commit(&mut self, context: ContextId) {
        if self.model.contexts[&context].outer.is_some() {
            return match self.stands(&BTreeSet::from([context])) {
                true => self.abort(context),
                false => self.fold(context),
            };
        }
        // Whoever is needed, and is inside of another, is committed before.
        loop {
            let set = self.model.all_needed(context);
            if self.stands(&set) {
                return self.abort(context);
            }
            // The one that began last is the innermost.
            match set.iter().rev().find(|needed| self.model.contexts[needed].outer.is_some()) {
                Some(inner) => self.fold(*inner),
                None => return self.commit_all(context, &set),
            }
        }
    }

    fn commit_all(&mut self, voter: ContextId, set: &BTreeSet<ContextId>) {
        self.log.push(format!("{voter} votes, which makes {set:?} final"));
        let rings = self.model.in_rings(set);
        let all: Vec<ContextId> = set.iter().copied().collect();
        match self.real.stand_together(&all, voter) {
            None => {
                assert!(rings.is_empty(), "not noticed: {rings:?}");
                all.iter().for_each(|context| self.real.decided(*context, false));
                self.model.finish(set);
            }
            Some(loser) => {
                assert!(rings.contains(&loser) && loser != voter, "{loser} is not in {rings:?}");
                assert!(!self.real.of(loser).is_empty());
                self.counts.rings += 1;
                self.abort(loser);
            }
        }
    }

    fn fold(&mut self, inner: ContextId) {
        let outer = self.model.contexts[&inner].outer.expect("it is inside of another");
        self.log.push(format!("{inner} becomes part of {outer}"));
        self.counts.folds += 1;
        self.real.fold(inner, outer, &self.model);
        let with_new_number = self.random.below(2) == 0;
        self.model.fold(inner, with_new_number);
    }

    fn abort(&mut self, context: ContextId) {
        self.log.push(format!("{context} aborts"));
        self.model.undo(context).into_iter().for_each(|dead| self.real.decided(dead, true));
    }

    fn step(&mut self) {
        let contexts: Vec<ContextId> = self.model.contexts.keys().copied().collect();
        if contexts.is_empty() || contexts.len() < CONTEXTS_MAX && self.random.below(6) == 0 {
            return self.begin();
        }
        let context = self.random.one_of(&contexts);
        match self.random.below(22) {
            0..14 => self.note(context),
            14 => self.access_on_trunk(),
            15 => {
                let other = self.random.one_of(&contexts);
                self.need(context, other);
            }
            16..19 => self.commit(context),
            19 => self.restart(),
            20 => self.sweep(),
            _ => self.abort(context),
        }
    }

    fn sweep(&mut self) {
        self.log.push("sweep".to_owned());
        self.real.sweep(|| ());
        self.model.sweep();
    }

    /// All that is undecided is held, and taken up again.
    fn restart(&mut self) {
        self.log.push("restart".to_owned());
        let before = std::mem::replace(&mut self.real, Conflicts::new());
        let mut looming = Vec::new();
        for (context, known) in &self.model.contexts {
            self.real.open(*context, known.looks);
            let changed = self.model.changed(*context).into_iter();
            let changed = changed.map(|object| (AccessKey::Inode(Ino(object)), Access::Write));
            self.real.restore(*context, before.of(*context), &before.reads_of(*context), changed);
            looming.extend(before.looming(*context));
        }
        self.real.restore_looming(looming);
    }

    fn compare(&mut self) {
        let mut real = BTreeSet::new();
        for (context, known) in &self.model.contexts {
            for key in self.real.of(*context).clashes.into_keys() {
                let AccessKey::Inode(ino) = key else { panic!("nobody used {key:?}") };
                real.insert((*context, ino.0));
                self.counts.inner_conflicts += usize::from(known.outer.is_some());
            }
        }
        assert_eq!(real, self.model.standing());
    }
}

/// Prints what was done up to a failure.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log.join("\n"));
        }
    }
}

/// Runs histories, all of one kind; what there was in them.
fn run(is_nested: bool, seeds: std::ops::RangeInclusive<u64>) -> Option<Counts> {
    let given = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let mut counts = Counts::default();
    for seed in given.map_or(seeds, |seed: u64| seed..=seed) {
        let random = Random::of(seed);
        let log = vec![format!("MOJAVEFS_SEED={seed}")];
        let (real, model) = (Conflicts::new(), Model::default());
        let mut world = World { real, model, random, is_nested, began: 0, counts, log };
        for _ in 0..STEPS {
            world.step();
            world.compare();
        }
        counts = std::mem::take(&mut world.counts);
    }
    given.is_none().then_some(counts)
}

#[test]
fn random_histories_conflict_as_the_whole_history_says() {
    if let Some(counts) = run(false, 1..=3000) {
        assert!(counts.rings > 100, "{counts:?}");
    }
}

#[test]
fn random_histories_of_contexts_inside_others_conflict_as_the_whole_history_says() {
    if let Some(counts) = run(true, 1..=6000) {
        assert!(counts.rings > 50 && counts.folds > 5000 && counts.inner_conflicts > 5000, "{counts:?}");
    }
}
