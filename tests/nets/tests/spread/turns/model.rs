//! What should happen, recomputed from the history: what undecided jobs changed, in the order in which they did, on top of
//! what is final.
//!
//! A job inside of another depends on that one. When it is committed it is that one from then on: what it changed, what it
//! depends on, and who depends on it. When it is undone, the one around it has still seen what it came to, and so depends on
//! what the inner one had read, as far as that is left.

use mojavefs_nets::op::{How, Op};
use mojavefs_nets::perform::{bytes_of, digest};
use nix::unistd::{getegid, geteuid};
use std::collections::{BTreeMap, BTreeSet};

/// The path of a file, in one of the directories that are there all the time.
type Name = String;
pub(super) type Job = usize;

/// What an op looks at or changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Entry(Name),
    File(usize),
}

/// Files by name; every file made has a number of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tree {
    names: BTreeMap<Name, usize>,
    contents: BTreeMap<usize, Vec<u8>>,
}

/// What one key becomes.
#[derive(Clone, Debug)]
enum Change {
    Entry(Name, Option<usize>),
    /// Nothing: its attributes only.
    File(usize, Option<Vec<u8>>),
}

/// What one op changed.
#[derive(Clone, Debug)]
struct Done {
    job: Job,
    changes: Vec<Change>,
}

/// Where a job stands.
#[derive(Clone, Debug, Default)]
struct State {
    voted: bool,
    on: BTreeSet<Job>,
    /// The job whose command waits for this one.
    around: Option<Job>,
}

#[derive(Default)]
pub(super) struct Model {
    /// What is final.
    pub(super) base: Tree,
    log: Vec<Done>,
    jobs: BTreeMap<Job, State>,
    next_file: usize,
}

impl Change {
    fn key(&self) -> Key {
        match self {
            Change::Entry(name, _) => Key::Entry(name.clone()),
            Change::File(file, _) => Key::File(*file),
        }
    }
}

impl Done {
    fn concerns(&self, key: &Key) -> bool {
        self.changes.iter().any(|change| change.key() == *key)
    }
}

impl Tree {
    fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Entry(name, Some(file)) => drop(self.names.insert(name.clone(), *file)),
                Change::Entry(name, None) => drop(self.names.remove(name)),
                Change::File(file, Some(content)) => drop(self.contents.insert(*file, content.clone())),
                Change::File(_, None) => {}
            }
        }
    }

    /// The whole content, of a file that may be new; `made` is its number then.
    fn written(&self, name: &Name, made: usize, content: Vec<u8>) -> Vec<Change> {
        match self.names.get(name) {
            Some(file) => vec![Change::File(*file, Some(content))],
            None => vec![Change::Entry(name.clone(), Some(made)), Change::File(made, Some(content))],
        }
    }

    /// What is in a file already, if there is one, and this.
    fn longer(&self, name: &Name, more: &[u8]) -> Vec<u8> {
        let before = self.names.get(name).map(|file| &self.contents[file][..]);
        [before.unwrap_or_default(), more].concat()
    }

    /// What an op would change; `made` is the number of a file it makes.
    fn changes(&self, op: &Op, made: usize) -> Vec<Change> {
        let file = |name: &Name| self.names.get(name).copied();
        match op {
            Op::Put { path, fill, length } => self.written(path, made, bytes_of(*fill, *length as usize)),
            Op::Add { path, fill, length } => {
                self.written(path, made, self.longer(path, &bytes_of(*fill, *length as usize)))
            }
            Op::AddLine { path, text } => match file(path) {
                Some(file) => vec![Change::File(file, Some(self.longer(path, format!("{text}\n").as_bytes())))],
                None => Vec::new(),
            },
            Op::Unlink { path } => match file(path) {
                Some(file) => vec![Change::Entry(path.clone(), None), Change::File(file, None)],
                None => Vec::new(),
            },
            Op::Rename { path: from, to, how: How::Plain } => match file(from) {
                Some(moved) if from != to => {
                    let changes = [
                        Change::Entry(from.clone(), None),
                        Change::Entry(to.clone(), Some(moved)),
                        Change::File(moved, None),
                    ];
                    changes.into_iter().chain(file(to).map(|file| Change::File(file, None))).collect()
                }
                _ => Vec::new(),
            },
            Op::Cat { .. } | Op::Stat { .. } | Op::List { .. } => Vec::new(),
            other => panic!("the model does not know `{other}`"),
        }
    }

    /// What the op's answer is, before it is done.
    fn answer(&self, op: &Op) -> String {
        let there = |name: &Name| self.names.get(name).map(|file| &self.contents[file]);
        let or_nothing = |answer: Option<String>| answer.unwrap_or_else(|| "ENOENT".to_owned());
        match op {
            Op::Cat { path } => or_nothing(there(path).map(|content| digest(content))),
            Op::Stat { path } => or_nothing(there(path).map(|content| {
                let (uid, gid) = (geteuid(), getegid());
                format!("100644 {uid}:{gid} links=1 size={} device=0 mtime=now", content.len())
            })),
            Op::List { path: dir } => {
                let names = self.names.keys().filter_map(|name| name.strip_prefix(dir)?.strip_prefix('/'));
                format!("[{}]", names.collect::<Vec<_>>().join(" "))
            }
            Op::Put { length, .. } | Op::Add { length, .. } => length.to_string(),
            Op::AddLine { path, .. } | Op::Unlink { path } | Op::Rename { path, .. } => {
                or_nothing(there(path).map(|_| "ok".to_owned()))
            }
            other => panic!("the model does not know `{other}`"),
        }
    }

    /// Every name with its content.
    pub(super) fn all(&self) -> BTreeMap<String, Vec<u8>> {
        self.names.iter().map(|(name, file)| (name.clone(), self.contents[file].clone())).collect()
    }

    fn file(&self, name: &Name) -> Option<Key> {
        self.names.get(name).map(|file| Key::File(*file))
    }
}

impl Model {
    /// What a job sees: all that is undecided, in the order in which it was done, on top of what is final.
    fn seen(&self) -> Tree {
        let mut tree = self.base.clone();
        self.log.iter().for_each(|done| tree.apply(&done.changes));
        tree
    }

    /// A job begins, on its own or inside of another.
    pub(super) fn begin(&mut self, job: Job, around: Option<Job>) {
        self.jobs.insert(job, State { voted: false, on: around.into_iter().collect(), around });
    }

    pub(super) fn around(&self, job: Job) -> Option<Job> {
        self.jobs[&job].around
    }

    /// The outermost job around this one, or itself.
    pub(super) fn outermost(&self, job: Job) -> Job {
        self.around(job).map_or(job, |around| self.outermost(around))
    }

    /// The innermost job that the command of this one waits for, or itself.
    pub(super) fn innermost(&self, job: Job) -> Job {
        let inside = self.jobs.iter().find(|(_, state)| state.around == Some(job));
        inside.map_or(job, |(inner, _)| self.innermost(*inner))
    }

    /// In how many jobs this one is.
    pub(super) fn depth(&self, job: Job) -> usize {
        self.around(job).map_or(0, |around| 1 + self.depth(around))
    }

    pub(super) fn undecided(&self) -> Vec<Job> {
        self.jobs.keys().copied().collect()
    }

    /// Those that still work, and wait for none inside of them.
    pub(super) fn running(&self) -> Vec<Job> {
        let works = |job: &Job| !self.jobs[job].voted && self.innermost(*job) == *job;
        self.jobs.keys().copied().filter(works).collect()
    }

    /// Who depends on whom, for people.
    pub(super) fn dependencies(&self) -> String {
        let on = self.jobs.iter().filter(|(_, state)| !state.on.is_empty());
        on.map(|(job, state)| format!("{job} on {:?}", state.on)).collect::<Vec<_>>().join("; ")
    }

    pub(super) fn has_voted(&self, job: Job) -> bool {
        self.jobs[&job].voted
    }

    pub(super) fn is_undecided(&self, job: Job) -> bool {
        self.jobs.contains_key(&job)
    }

    /// A job does something; what it is answered.
    pub(super) fn act(&mut self, job: Job, op: &Op) -> String {
        let tree = self.seen();
        let answer = tree.answer(op);
        let looks_at = self.looks_at(&tree, op);
        for key in &looks_at {
            // Who wrote it last had joined those before.
            let last = self.log.iter().rev().find(|done| done.concerns(key)).map(|done| done.job);
            if let Some(other) = last.filter(|other| *other != job) {
                self.jobs.get_mut(&job).expect("it is undecided").on.insert(other);
            }
        }
        let changes = tree.changes(op, self.next_file);
        self.next_file += 1;
        if !changes.is_empty() {
            self.log.push(Done { job, changes });
        }
        answer
    }

    fn looks_at(&self, tree: &Tree, op: &Op) -> Vec<Key> {
        let named = |name: &Name| [Some(Key::Entry(name.clone())), tree.file(name)].into_iter().flatten();
        match op {
            // Where there is nothing to rename, the kernel does not look where to.
            Op::Rename { path, .. } if !tree.names.contains_key(path) => named(path).collect(),
            Op::Rename { path, to, .. } => named(path).chain(named(to)).collect(),
            Op::List { path: dir } => {
                let keys = self.log.iter().flat_map(|done| &done.changes).map(Change::key);
                let is_in = |name: &Name| name.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
                keys.filter(|key| matches!(key, Key::Entry(name) if is_in(name))).collect()
            }
            Op::Cat { path }
            | Op::Stat { path }
            | Op::Put { path, .. }
            | Op::Add { path, .. }
            | Op::AddLine { path, .. }
            | Op::Unlink { path } => named(path).collect(),
            other => panic!("the model does not know `{other}`"),
        }
    }

    /// A process outside every job does something; what it is answered, and who is in conflict by it.
    pub(super) fn act_on_trunk(&mut self, op: &Op) -> (String, Vec<Job>) {
        let answer = self.base.answer(op);
        let changes = self.base.changes(op, self.next_file);
        self.next_file += 1;
        self.base.apply(&changes);
        let met = |done: &&Done| changes.iter().any(|change| done.concerns(&change.key()));
        let losers: BTreeSet<Job> = self.log.iter().filter(met).map(|done| done.job).collect();
        (answer, losers.into_iter().collect())
    }

    /// A job inside of another is committed: it becomes part of that one.
    pub(super) fn fold(&mut self, job: Job) {
        let inner = self.jobs.remove(&job).expect("it is undecided");
        let around = inner.around.expect("it is inside of another");
        self.log.iter_mut().filter(|done| done.job == job).for_each(|done| done.job = around);
        for (other, state) in &mut self.jobs {
            if state.on.remove(&job) && *other != around {
                state.on.insert(around);
            }
        }
        self.depend(around, &inner.on);
    }

    /// All that a job depends on, by way of others, too.
    fn all_under(&self, job: Job) -> BTreeSet<Job> {
        let mut under = BTreeSet::new();
        let mut todo = vec![job];
        while let Some(at) = todo.pop() {
            todo.extend(self.jobs[&at].on.iter().filter(|on| under.insert(**on)));
        }
        under
    }

    fn depend(&mut self, job: Job, on: &BTreeSet<Job>) {
        let on: Vec<Job> = on.iter().copied().filter(|on| *on != job && self.jobs.contains_key(on)).collect();
        self.jobs.get_mut(&job).expect("it is undecided").on.extend(on);
    }

    /// A job's owner votes. Returns who is final by it.
    pub(super) fn vote(&mut self, job: Job) -> Vec<Job> {
        self.jobs.get_mut(&job).expect("it is undecided").voted = true;
        // The greatest set of voted jobs that depends on none outside it.
        let mut set: BTreeSet<Job> = self.jobs.iter().filter(|(_, s)| s.voted).map(|(job, _)| *job).collect();
        loop {
            let open: Vec<Job> =
                set.iter().copied().filter(|job| self.jobs[job].on.iter().any(|on| self.is_open(*on, &set))).collect();
            if open.is_empty() {
                break;
            }
            set.retain(|job| !open.contains(job));
        }
        let (done, left) = std::mem::take(&mut self.log).into_iter().partition(|done| set.contains(&done.job));
        self.log = left;
        let done: Vec<Done> = done;
        done.iter().for_each(|done| self.base.apply(&done.changes));
        self.forget(&set)
    }

    fn is_open(&self, on: Job, set: &BTreeSet<Job>) -> bool {
        self.jobs.contains_key(&on) && !set.contains(&on)
    }

    /// A job's owner aborts or is gone. Returns who falls, itself included.
    pub(super) fn abort(&mut self, job: Job) -> Vec<Job> {
        let mut dead = BTreeSet::from([job]);
        loop {
            let more: Vec<Job> = self
                .jobs
                .iter()
                .filter(|(job, state)| !dead.contains(job) && state.on.iter().any(|on| dead.contains(on)))
                .map(|(job, _)| *job)
                .collect();
            if more.is_empty() {
                break;
            }
            dead.extend(more);
        }
        self.log.retain(|done| !dead.contains(&done.job));
        let inner = dead.iter().filter_map(|job| Some((self.around(*job)?, self.all_under(*job))));
        let seen: Vec<(Job, BTreeSet<Job>)> = inner.filter(|(around, _)| !dead.contains(around)).collect();
        let fallen = self.forget(&dead);
        seen.into_iter().for_each(|(around, on)| self.depend(around, &on));
        fallen
    }

    fn forget(&mut self, decided: &BTreeSet<Job>) -> Vec<Job> {
        self.jobs.retain(|job, _| !decided.contains(job));
        for state in self.jobs.values_mut() {
            state.on.retain(|on| !decided.contains(on));
        }
        decided.iter().copied().collect()
    }
}
