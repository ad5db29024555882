//! What views are told of that was decided: what their kernels may believe of it, and nothing else. So what is mounted inside
//! stays, and who works there is not disturbed, unless the very name that leads there has changed.

use crate::coordinator::Aftermath;
use crate::server::Shared;
use crate::store::Key;
use crate::views::invalidations::InvalidationSet;
use crate::views::names::Asked;
use crate::views::{View, ViewOwner};
use mojavefs::id::{ContextId, Ino, IntervalId, SpecId, ViewId};
use mojavefs::limits::INVALIDATIONS_MAX;
use mojavefs::protocol::Invalidation;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The undecided intervals that views saw before a decision.
pub(crate) type Seen = HashMap<ViewId, Arc<[IntervalId]>>;

/// What was changed in some intervals: each thing with its interval; nothing where that is too much to list.
type Listed = Option<Vec<(IntervalId, Invalidation)>>;

impl Shared {
    /// What views see of what is about to be announced.
    pub(crate) fn seen(&self, aftermath: &Aftermath) -> Seen {
        if aftermath.on_trunk.is_empty() && aftermath.folded.is_none() {
            return Seen::new();
        }
        self.views.all().iter().map(|view| (view.id, view.scope().sight.live.clone())).collect()
    }

    /// Makes views look up again what these intervals changed, and these records, as far as their kernels know it, and have not
    /// seen it yet.
    pub(crate) fn invalidate(&self, views: &[Arc<View>], (intervals, keys): (&[IntervalId], &[Key]), seen: &Seen) {
        let listed = self.listed(intervals);
        if listed.as_ref().is_some_and(Vec::is_empty) && keys.is_empty() {
            return;
        }
        self.note_change();
        self.side_by_side(views, |view| {
            let seen = seen.get(&view.id).map_or(&[][..], |seen| seen);
            let mut set = InvalidationSet::default();
            set.add(self.believed(view, intervals, &listed, seen));
            set.add(keys.iter().cloned().filter_map(invalidation).filter(|what| view.kernel.believes(what)));
            view.tell_of_others(set, &news_of_content(&listed, seen));
        });
    }

    /// What the kernel of a view may believe of what these intervals changed.
    pub(crate) fn changed_for(&self, view: &View, intervals: &[IntervalId]) -> Vec<Invalidation> {
        self.believed(view, intervals, &self.listed(intervals), &[])
    }

    fn believed(
        &self,
        view: &View,
        intervals: &[IntervalId],
        listed: &Listed,
        seen: &[IntervalId],
    ) -> Vec<Invalidation> {
        // Who saw names before they were decided knows them as they are now.
        let is_news = |interval: &IntervalId, what: &Invalidation| {
            !(matches!(what, Invalidation::Entry { .. }) && seen.contains(interval))
        };
        match listed {
            Some(listed) => {
                let told =
                    listed.iter().filter(|(interval, what)| is_news(interval, what) && view.kernel.believes(what));
                told.map(|(_, what)| what.clone()).collect()
            }
            None => {
                let news: Vec<IntervalId> = intervals.iter().copied().filter(|i| !seen.contains(i)).collect();
                [self.held_and_changed(view, intervals), self.asked_and_changed(view, &news)].concat()
            }
        }
    }

    fn changes_in(&self, intervals: &[IntervalId]) -> u64 {
        intervals.iter().map(|interval| self.store.changes_count(*interval)).sum()
    }

    pub(super) fn listed(&self, intervals: &[IntervalId]) -> Listed {
        if self.changes_in(intervals) as usize > INVALIDATIONS_MAX / 4 {
            return None;
        }
        let mut listed = Vec::new();
        for interval in intervals {
            match self.store.changes(*interval, None, usize::MAX) {
                Ok(keys) => listed.extend(keys.into_iter().filter_map(invalidation).map(|what| (*interval, what))),
                Err(error) => {
                    tracing::error!("what interval {interval} changed: {error}");
                    return None;
                }
            }
        }
        Some(listed)
    }

    fn has_changed(&self, intervals: &[IntervalId], key: &Key) -> bool {
        intervals.iter().any(|interval| self.store.has_changed(*interval, key).unwrap_or(true))
    }

    /// The inodes a kernel knows among those changed: many changed, so each known one is looked for.
    fn held_and_changed(&self, view: &View, intervals: &[IntervalId]) -> Vec<Invalidation> {
        let changed = |ino: &Ino| {
            self.has_changed(intervals, &Key::Inode(*ino)) || self.has_changed(intervals, &Key::DirStat(*ino))
        };
        // Nobody gives the root to a kernel.
        let held = view.kernel.held().into_iter().chain([Ino::ROOT]);
        held.filter(changed).map(Invalidation::Inode).collect()
    }

    /// The same for names, which change with their directory.
    fn asked_and_changed(&self, view: &View, intervals: &[IntervalId]) -> Vec<Invalidation> {
        let mut what = Vec::new();
        for parent in view.kernel.asked_directories() {
            if !self.has_changed(intervals, &Key::DirStat(parent)) {
                continue;
            }
            let name = |name| Invalidation::Entry { parent, name };
            match view.kernel.asked_in(parent) {
                Some(Asked::These(names)) if (names.len() as u64) < self.changes_in(intervals) / 4 => {
                    let changed = |name: &Vec<u8>| self.has_changed(intervals, &Key::Entry(parent, name.clone()));
                    what.extend(names.into_iter().filter(changed).map(name));
                }
                Some(asked) => {
                    let changed = self.names_changed(intervals, parent).into_iter();
                    what.extend(changed.filter(|name| asked.has(name)).map(name));
                }
                None => {}
            }
        }
        what
    }

    fn names_changed(&self, intervals: &[IntervalId], parent: Ino) -> Vec<Vec<u8>> {
        let mut names = Vec::new();
        for interval in intervals {
            match self.store.names_changed(*interval, parent) {
                Ok(changed) => names.extend(changed),
                Err(error) => tracing::error!("the names that interval {interval} changed in {parent}: {error}"),
            }
        }
        names
    }

    /// The undecided intervals that a view showed and does not show where it goes back to from what was undone: that itself,
    /// and what its process had joined since, though it may live.
    pub(crate) fn out_of_sight(&self, view: &View, aftermath: &Aftermath) -> Vec<IntervalId> {
        let undone = |context: &ContextId| aftermath.undone.iter().any(|(undone, ..)| undone == context);
        let stays = view.entered().into_iter().take_while(|context| !undone(context)).last().or(view.base());
        let still = self.coordinator.shown_by(stays).map(|scope| scope.sight.live).unwrap_or_default();
        let mut gone: Vec<IntervalId> = aftermath.dead.to_vec();
        gone.extend(view.scope().sight.live.iter().filter(|interval| still.binary_search(interval).is_err()));
        gone.sort_unstable();
        gone.dedup();
        gone
    }

    /// The process of a view is back from what was undone, and nothing more comes from there: the view leaves it, and its
    /// kernel forgets what was changed. While it forgets, the view's scope is still the old one, so that what is written out
    /// by it comes too late. The process is back from `spec` only, and may have to go back further. `drained`: its kernel
    /// holds nothing back that was written there.
    pub(crate) fn come_out(&self, view: &Arc<View>, spec: SpecId, drained: bool) {
        let is_undone = |context: &ContextId| self.coordinator.spec_of(*context).is_none();
        let undone: HashSet<ContextId> = view.entered_since(spec).into_iter().filter(is_undone).collect();
        if undone.is_empty() {
            return;
        }
        let mut set = view.take_fallen();
        if !drained {
            // Any file may be mapped and written to, and the server not know it.
            set.add(view.kernel.held().into_iter().map(Invalidation::Inode));
        }
        self.note_change();
        view.tell(set);
        if !self.locks.come_back(view.id, spec) {
            tracing::error!("others have locked what view {} had locked before speculation {spec}: it ends", view.id);
            view.kill();
        }
        view.leave_undone(&undone);
        match view.base().filter(|_| view.owner == ViewOwner::Job) {
            Some(job) if !self.coordinator.is_back(job, &view.entered()) => {}
            _ => self.refresh_scope(view),
        }
    }
}

/// The files that were changed in what a view has not seen; none where that is too much to list.
fn news_of_content(listed: &Listed, seen: &[IntervalId]) -> Vec<Ino> {
    let news = listed.iter().flatten().filter(|(interval, _)| !seen.contains(interval));
    let content = news.filter_map(|(_, what)| match what {
        Invalidation::Inode(ino) => Some(*ino),
        Invalidation::Attributes(_) | Invalidation::Entry { .. } => None,
    });
    content.collect()
}

fn invalidation(key: Key) -> Option<Invalidation> {
    match key {
        Key::Inode(ino) | Key::DirStat(ino) | Key::Xattr(ino, _) => Some(Invalidation::Inode(ino)),
        Key::Entry(parent, name) => Some(Invalidation::Entry { parent, name }),
        Key::Inline(_) | Key::Block(..) => None,
    }
}
