//! Speculations that depend on each other: they are decided together.

use super::{Job, State};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::BTreeSet;
use std::sync::Arc;

impl State {
    /// The undecided speculations that this one depends on and that depend on it, by number, itself included.
    pub(super) fn ring(&self, spec: SpecId) -> Vec<SpecId> {
        let is_apart = |job: &&Job| self.part_of(job.spec) == job.spec;
        let mine = self.contexts_of(spec);
        let under = self.under(self.tip(spec).context);
        let on_me = |other: SpecId| !self.under(self.tip(other).context).is_disjoint(&mine);
        let on_it = |other: SpecId| !under.is_disjoint(&self.contexts_of(other));
        let others = self.jobs.values().filter(is_apart).map(|job| job.spec);
        // What is committed into the job around it is shown with that one.
        let others =
            others.filter(|other| *other != spec && self.part_of(spec) == spec && on_it(*other) && on_me(*other));
        let ring: BTreeSet<SpecId> = others.chain([spec]).collect();
        ring.into_iter().collect()
    }

    fn contexts_of(&self, spec: SpecId) -> BTreeSet<ContextId> {
        self.parts(spec).into_iter().map(|part| part.context).collect()
    }

    /// The intervals of a job and its segments.
    pub(super) fn all_intervals(&self, spec: SpecId) -> Vec<IntervalId> {
        self.parts(spec).into_iter().flat_map(|part| self.graph.carried_by(part.context)).collect()
    }

    /// What any of these sees that is undecided.
    pub(super) fn seen_together(&self, specs: &[SpecId]) -> Arc<[IntervalId]> {
        let seen = specs.iter().flat_map(|spec| self.sight(self.tip(*spec)).live.to_vec());
        let seen: BTreeSet<IntervalId> = seen.collect();
        seen.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::coordinator::{Beginning, Coordinator};
    use crate::ops::{NewFile, Ops, Scope, SetIds, SystemClock};
    use crate::store::engine::Directory;
    use crate::store::{Store, StoreOptions};
    use crate::telling::Telling;
    use mojavefs::id::{ContextId, Ino, SpecId};
    use mojavefs::protocol::fault::{Fault, FaultKind};
    use mojavefs::protocol::file::{Attr, FileKind, SetAttr};
    use mojavefs::protocol::{Change, ChangeKind, JobInfo, OnRead, RenameMode};
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use tempfile::TempDir;

    const JOBS: usize = 4;
    const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"d", b"e"];

    /// What a path shows: its inode, size, mode and the first bytes of its content.
    type Tree = BTreeMap<Vec<u8>, (Ino, u64, u32)>;

    struct World {
        coordinator: Coordinator,
        jobs: BTreeMap<SpecId, ContextId>,
        seed: u64,
        log: Vec<String>,
        _dir: TempDir,
    }

    /// Prints what was done up to a failure.
    impl Drop for World {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("{}", self.log.join("\n"));
            }
        }
    }

    impl World {
        fn new(seed: u64) -> Self {
            let dir = TempDir::new().expect("a directory for the store");
            let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
            let store = Arc::new(Store::open(&Directory::at(dir.path()), options).expect("the store opens"));
            let ops = Arc::new(Ops::new(store.clone(), Arc::new(SystemClock)));
            let coordinator = Coordinator::open(store, ops).expect("nothing is held");
            let log = vec![format!("MOJAVEFS_SEED={seed}")];
            World {
                coordinator,
                jobs: BTreeMap::new(),
                seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
                log,
                _dir: dir,
            }
        }

        fn below(&mut self, limit: usize) -> usize {
            self.seed ^= self.seed << 13;
            self.seed ^= self.seed >> 7;
            self.seed ^= self.seed << 17;
            ((self.seed >> 16) % limit as u64) as usize
        }

        fn begin(&mut self) -> SpecId {
            let beginning = Beginning::job(JobInfo::default(), OnRead::Join);
            let (spec, context, _) = self.coordinator.begin(None, beginning).expect("a job");
            self.jobs.insert(spec, context);
            spec
        }

        /// Does something in a job, as often as it has to look again.
        fn act<T>(&self, spec: SpecId, op: impl Fn(&Ops, &Scope) -> Result<T, Fault>) -> Result<T, Fault> {
            loop {
                let scope = self.coordinator.scope_of(self.jobs[&spec]).expect("it is undecided");
                match op(&self.coordinator.ops, &scope) {
                    Err(fault) if fault.kind == FaultKind::Again => {}
                    done => return done,
                }
            }
        }

        fn write(&self, spec: SpecId, name: &[u8], text: &[u8]) -> Result<(), Fault> {
            let ino = match self.act(spec, |ops, scope| ops.lookup(scope, Ino::ROOT, name)) {
                Ok(attr) => attr.ino,
                Err(fault) if fault.kind == FaultKind::NotFound => {
                    let (kind, target) = (FileKind::Regular, &b""[..]);
                    let new = || NewFile { kind, mode: 0o644, umask: 0, uid: 0, gid: 0, rdev: 0, target };
                    self.act(spec, |ops, scope| ops.create(scope, Ino::ROOT, name, new()))?.ino
                }
                Err(fault) => return Err(fault),
            };
            self.act(spec, |ops, scope| ops.write(scope, ino, (0, true), text, SetIds::Stay)).map(drop)
        }

        fn step(&mut self, spec: SpecId) {
            let (what, name, other) = (self.below(8), NAMES[self.below(5)], NAMES[self.below(5)]);
            self.log.push(format!("{spec} does {what} to {} and {}", name.escape_ascii(), other.escape_ascii()));
            let done = match what {
                0..3 => self.write(spec, name, b"some"),
                3 => self.act(spec, |ops, scope| ops.lookup(scope, Ino::ROOT, name)).map(drop),
                4 => self.act(spec, |ops, scope| ops.unlink(scope, Ino::ROOT, name)).map(drop),
                5 => {
                    let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
                    let found = self.act(spec, |ops, scope| ops.lookup(scope, Ino::ROOT, name));
                    found.and_then(|attr| self.act(spec, |ops, scope| ops.set_attr(scope, attr.ino, &set, 0))).map(drop)
                }
                _ => {
                    let (from, to) = ((Ino::ROOT, name), (Ino::ROOT, other));
                    self.act(spec, |ops, scope| ops.rename(scope, from, to, RenameMode::Replace, (0, 0))).map(drop)
                }
            };
            if let Err(fault) = done {
                assert_eq!(fault.kind, FaultKind::NotFound, "{fault:?}");
            }
        }

        fn trunk(&self) -> Tree {
            let (ops, scope) = (&self.coordinator.ops, self.coordinator.trunk());
            let (entries, _) = ops.read_dir(&scope, Ino::ROOT, None, 100).expect("a listing");
            let attr = |ino| ops.get_attr(&scope, ino).expect("its attributes");
            entries.into_iter().map(|entry| (entry.name, shown(&attr(entry.ino)))).collect()
        }

        fn diff(&self, spec: SpecId) -> (Vec<Change>, Vec<SpecId>) {
            let (mut all, mut from) = (Vec::new(), None);
            loop {
                let page = self.coordinator.diff(spec, 0, from.as_deref()).expect("a page");
                all.extend(page.changes);
                from = page.next;
                if from.is_none() {
                    return (all, page.with);
                }
            }
        }

        /// Commits one, and holds what changes by it against the diffs of all that it decides.
        fn commit(&mut self, spec: SpecId) {
            let diffs: BTreeMap<SpecId, _> = self.jobs.keys().map(|spec| (*spec, self.diff(*spec))).collect();
            let under = |spec: &SpecId| self.coordinator.state.lock().under(self.jobs[spec]).len();
            let depths: BTreeMap<SpecId, usize> = self.jobs.keys().map(|spec| (*spec, under(spec))).collect();
            let mut tree = self.trunk();
            let (_, aftermath) = self.coordinator.commit(spec, 0, &[], &mut Telling::nobody()).expect("a commit");
            let mut decided: Vec<SpecId> = aftermath.committed.iter().map(|(_, spec)| *spec).collect();
            self.log.push(format!("{spec} commits, which makes {decided:?} final"));
            // Each after those that it depends on, which depend on less; those of a ring at once.
            decided.sort_by_key(|spec| depths[spec]);
            while let Some(first) = decided.first() {
                let ring: Vec<SpecId> = diffs[first].1.iter().copied().chain([*first]).collect();
                let changes: Vec<&Change> = ring.iter().flat_map(|spec| &diffs[spec].0).collect();
                self.log.push(format!("{ring:?}: {:?}", changes.iter().map(|c| told(c)).collect::<Vec<_>>()));
                apply(&mut tree, &changes);
                decided.retain(|spec| !ring.contains(spec));
            }
            aftermath.committed.iter().for_each(|(_, spec)| assert!(self.jobs.remove(spec).is_some()));
            assert_eq!(tree, self.trunk());
        }
    }

    fn told(change: &Change) -> String {
        format!("{:?} {}", change.kind, change.path.escape_ascii())
    }

    fn shown(attr: &Attr) -> (Ino, u64, u32) {
        (attr.ino, attr.size, attr.mode)
    }

    fn apply(tree: &mut Tree, changes: &[&Change]) {
        for change in changes {
            match &change.kind {
                ChangeKind::Removed => drop(tree.remove(&change.path)),
                ChangeKind::Renamed { from, .. } => drop(tree.remove(from)),
                _ => {}
            }
        }
        for change in changes {
            if let Some(after) = &change.after {
                tree.insert(change.path.clone(), shown(after));
            }
        }
    }

    fn run(seed: u64) -> usize {
        let mut world = World::new(seed);
        let first = world.begin();
        for name in &NAMES[..3] {
            world.write(first, name, b"first").expect("a write");
        }
        world.commit(first);
        let jobs: Vec<SpecId> = (0..JOBS).map(|_| world.begin()).collect();
        for _ in 0..JOBS * 4 {
            let job = jobs[world.below(JOBS)];
            world.step(job);
        }
        let rings = jobs.iter().filter(|job| !world.diff(**job).1.is_empty()).count();
        for job in jobs {
            world.commit(job);
        }
        assert!(world.jobs.is_empty());
        rings
    }

    #[test]
    fn the_diffs_of_all_that_a_commit_decides_add_up_to_what_it_changes() {
        let given = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
        let rings: usize = given.map_or(1..=24, |seed: u64| seed..=seed).map(run).sum();
        assert!(given.is_some() || rings > 8, "only {rings} jobs were in rings");
    }
}
