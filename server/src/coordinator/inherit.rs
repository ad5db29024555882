//! An inner job, level or leg that is committed becomes part of what is around it: so do its dependencies, and who depended on
//! it depends on that.

use super::job::{Job, Kind, Met};
use super::state::State;
use crate::touch::TouchKey;
use mojavefs::id::{ContextId, Ino, SpecId};
use mojavefs::wire::Back;
use std::sync::atomic::Ordering;

impl Job {
    /// It is part of what is around it.
    fn is_folded(&self) -> bool {
        self.parent.is_some() && self.over.load(Ordering::SeqCst)
    }

    /// Where it goes back to if something falls that an inner one, which is part of it now, depended on.
    fn goes_back_for(&self, inner: &Job) -> Back {
        let inside = || "a speculation inside of it read it".to_owned();
        match self.kind {
            _ if inner.is_leg() => Back::Start("its command has ended".to_owned()),
            Kind::Job => Back::Start(inside()),
            Kind::Leg { .. } => Back::Earlier(inside()),
            Kind::Level => Back::Entry,
        }
    }
}

impl State {
    /// What a speculation is part of by now, for others to depend on; mostly itself.
    pub(super) fn part_of(&self, mut spec: SpecId) -> SpecId {
        let is_part = |job: &&Job| job.is_leg() || job.is_folded();
        while let Some(outer) = self.jobs.get(&spec).filter(is_part).and_then(|job| job.parent) {
            spec = outer;
        }
        spec
    }

    /// An inner one was folded into what is around it. Returns the contexts of the others that depended on it.
    pub(super) fn inherit(&mut self, inner: SpecId) -> Vec<ContextId> {
        let Some(job) = self.jobs.get(&inner) else { return Vec::new() };
        let Some(outer) = job.parent.and_then(|outer| self.jobs.get(&outer)) else { return Vec::new() };
        let (parent, back, whole) = (outer.spec, outer.goes_back_for(job), self.part_of(inner));
        // What it owned together with others it has voted for; it falls with that.
        let owned = job.owns.iter().map(|spec| (*spec, TouchKey::Inode(Ino::ROOT)));
        let joined: Vec<_> = job.joined.iter().map(|(spec, met)| (*spec, met.key.clone())).chain(owned).collect();
        if let Some(outer) = self.jobs.get_mut(&parent) {
            for (spec, key) in joined.into_iter().filter(|(spec, _)| *spec != whole && *spec != parent) {
                outer.joined.entry(spec).or_insert_with(|| Met { key, back: back.clone() });
            }
        }
        let others: Vec<SpecId> =
            self.jobs.values().filter(|job| job.joined.contains_key(&inner)).map(|j| j.spec).collect();
        for other in &others {
            let is_itself = self.part_of(*other) == whole;
            let Some(other) = self.jobs.get_mut(other) else { continue };
            if let Some(met) = other.joined.remove(&inner).filter(|_| !is_itself) {
                other.joined.entry(whole).or_insert(met);
            }
        }
        others.iter().filter_map(|other| self.jobs.get(other)).map(|other| other.context).collect()
    }
}
