//! Plays a history on a server and on trees, and compares.
//!
//! A job that commits must have been told what trunk, as it is then, would have told it: so all that it asked for is
//! asked once more of trunk's tree, with the same answers.

use super::common::{Client, Place};
use super::op::{Answer, Op};
use super::tree::Tree;
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::file::{FileKind, Name};
use mojavefs::protocol::{ConnectionExt, FsOp, RenameMode, ViewOp, XattrMode};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt;

const JOBS_MAX: usize = 5;

/// What happens. Who does it, and to what, is chosen by number among what there is.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Do { who: u8, what: u8, dir: u8, name: u8, to: u8, new: u8 },
    Begin { parent: u8 },
    Commit { who: u8 },
    Abort { who: u8 },
    Hold { who: u8 },
    Reclaim { steps: u8 },
    Reopen,
}

/// Shown one step to a line.
#[derive(Clone)]
pub(crate) struct History(pub(crate) Vec<Step>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n{step:?}"))
    }
}

pub(crate) fn history() -> impl Strategy<Value = History> {
    let any = any::<u8>;
    let act = (any(), 0..25_u8, any(), any(), any(), any());
    let step = prop_oneof![
        30 => act.prop_map(|(who, what, dir, name, to, new)| Step::Do { who, what, dir, name, to, new }),
        4 => any().prop_map(|parent| Step::Begin { parent }),
        4 => any().prop_map(|who| Step::Commit { who }),
        1 => any().prop_map(|who| Step::Abort { who }),
        1 => any().prop_map(|who| Step::Hold { who }),
        2 => (1..40_u8).prop_map(|steps| Step::Reclaim { steps }),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..100).prop_map(History)
}

struct Job {
    view: Option<ViewId>,
    spec: SpecId,
    parent: Option<usize>,
    tree: Tree,
    /// All that it asked for, and was told.
    log: Vec<(Op, Answer)>,
    /// How often what it began on had changed then.
    base: u64,
    held: bool,
}

pub(crate) struct World {
    client: Client,
    trunk: Tree,
    jobs: BTreeMap<usize, Job>,
    begun: usize,
    /// Counts the changes of trunk and of jobs by others inside them.
    changes: u64,
}

/// The operation that the numbers stand for in this tree.
fn choose(tree: &Tree, what: u8, [dir, name, to, new]: [u8; 4]) -> Op {
    let pick = |from: &[Ino], at: u8| from[at as usize % from.len()];
    let (dirs, all) = (tree.dirs(), tree.nodes.keys().copied().collect::<Vec<_>>());
    let called = |number: u8| vec![b'a' + number % 5];
    let modes = [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange];
    let xattr = |number: u8| Name::from(if number & 1 == 0 { "user.a" } else { "user.b" });
    let (ino, dir, name) = (pick(&all, dir), pick(&dirs, dir), called(name));
    match what {
        0..=2 => Op::Create { dir, name, kind: FileKind::Regular },
        3 => Op::CreateAndName { dir, name },
        4..=6 => Op::Create { dir, name, kind: FileKind::Directory },
        7 => Op::Create { dir, name, kind: FileKind::Symlink },
        8..=9 => Op::Link { ino: pick(&all, to), dir, name },
        10..=11 => Op::Unlink { dir, name },
        12 => Op::RemoveDir { dir, name },
        13..=16 => Op::Rename { dir, name, to: pick(&dirs, to), new: called(new), mode: modes[what as usize % 3] },
        17 => Op::Chmod { ino, mode: 0o600 + u32::from(to % 8) },
        18 => Op::Resize { ino, size: u64::from(to) * 300 },
        19 => {
            let mode = [XattrMode::Set, XattrMode::Create, XattrMode::Replace][new as usize % 3];
            Op::SetXattr { ino, name: xattr(to), value: vec![new; 3], mode }
        }
        20 => Op::RemoveXattr { ino, name: xattr(to) },
        21 => Op::GetXattr { ino, name: xattr(to) },
        22 => Op::ListXattr { ino },
        23 => Op::List { dir },
        _ => match to % 3 {
            0 => Op::Lookup { dir, name },
            1 => Op::Stat { ino },
            _ => Op::ReadLink { ino },
        },
    }
}

impl World {
    pub(crate) fn new(place: Place) -> Self {
        World { client: Client::on(place), trunk: Tree::new(), jobs: BTreeMap::new(), begun: 0, changes: 0 }
    }

    pub(crate) fn play(&mut self, step: &Step) {
        match *step {
            Step::Do { who, what, dir, name, to, new } => self.act(who, what, [dir, name, to, new]),
            Step::Begin { parent } => self.begin(self.anyone(parent)),
            Step::Commit { who } => self.with_job(who, Self::commit),
            Step::Abort { who } => self.with_job(who, Self::abort),
            Step::Hold { who } => self.with_job(who, Self::hold),
            Step::Reclaim { steps } => drop(self.client.reclaim(steps)),
            Step::Reopen => self.reopen(),
        }
        self.compare(None);
    }

    pub(crate) fn end(mut self) {
        while let Some(id) = self.jobs.keys().next_back().copied() {
            self.abort(id);
        }
        while self.client.reclaim(100) {}
        self.client.reopen();
        self.compare(None);
        self.client.check();
    }

    /// Trunk, or one of the jobs.
    fn anyone(&self, number: u8) -> Option<usize> {
        let at = number as usize % (1 + self.jobs.len());
        at.checked_sub(1).and_then(|at| self.jobs.keys().nth(at).copied())
    }

    fn with_job(&mut self, number: u8, act: impl FnOnce(&mut Self, usize)) {
        let count = self.jobs.len();
        if let Some(id) = self.jobs.keys().nth(number as usize % count.max(1)).copied() {
            act(self, id);
        }
    }

    fn has_inner(&self, id: usize) -> bool {
        self.jobs.values().any(|job| job.parent == Some(id))
    }

    fn view(&mut self, who: Option<usize>) -> ViewId {
        let Some(job) = who.and_then(|id| self.jobs.get_mut(&id)) else { return self.client.trunk };
        *job.view.get_or_insert_with(|| self.client.inside(job.spec))
    }

    fn tree(&mut self, who: Option<usize>) -> &mut Tree {
        match who {
            Some(id) => &mut self.jobs.get_mut(&id).expect("the job is there").tree,
            None => &mut self.trunk,
        }
    }

    fn act(&mut self, who: u8, what: u8, numbers: [u8; 4]) {
        let who = self.anyone(who);
        // A job waits for the one inside it.
        if who.is_some_and(|id| self.has_inner(id)) {
            return;
        }
        let op = choose(self.tree(who), what, numbers);
        if let Op::GetXattr { ino, .. } | Op::ListXattr { ino } = op {
            // A kernel asks for them where it has looked at the file.
            self.ask(who, Op::Stat { ino });
        }
        self.ask(who, op);
    }

    fn ask(&mut self, who: Option<usize>, op: Op) {
        let view = self.view(who);
        let answer = op.ask(&self.client, view);
        let expected = self.tree(who).play(&op, &answer);
        assert_eq!(answer, expected, "{op:?} by {who:?}");
        match who.and_then(|id| self.jobs.get_mut(&id)) {
            Some(job) => job.log.push((op, answer)),
            None => self.changes += 1,
        }
    }

    fn begin(&mut self, parent: Option<usize>) {
        if self.jobs.len() == JOBS_MAX {
            return;
        }
        let outer = self.view(parent);
        let (view, spec) = self.client.begin(outer);
        let tree = self.tree(parent).clone();
        self.begun += 1;
        // What trunk is to an inner job is what it was when the outer one began.
        let base = parent.map_or(self.changes, |outer| self.jobs[&outer].base);
        let job = Job { view: Some(view), spec, parent, tree, log: Vec::new(), base, held: false };
        self.jobs.insert(self.begun, job);
    }

    fn commit(&mut self, id: usize) {
        if self.has_inner(id) {
            return;
        }
        let outcome = self.client.commit(self.jobs[&id].spec, Vec::new());
        if !outcome.conflicts.is_empty() {
            assert!(self.changes > self.jobs[&id].base, "nothing changed, and yet: {outcome:?}");
            return;
        }
        let job = self.jobs.remove(&id).expect("the job is there");
        self.changes += 1;
        for (op, answer) in &job.log {
            let again = self.tree(job.parent).play(op, answer);
            assert_eq!(*answer, again, "job {id} committed and relied on {op:?}");
        }
        if let Some(outer) = job.parent.and_then(|outer| self.jobs.get_mut(&outer)) {
            outer.log.extend(job.log);
        }
        self.compare(None);
    }

    /// The last look at a job is at all that it sees.
    fn abort(&mut self, id: usize) {
        let spec = self.jobs[&id].spec;
        self.compare(Some(id));
        self.client.abort(spec);
        self.drop_family(id);
    }

    fn drop_family(&mut self, id: usize) {
        self.jobs.remove(&id);
        while let Some(inner) = self.jobs.iter().find(|(_, job)| job.parent == Some(id)).map(|(inner, _)| *inner) {
            self.drop_family(inner);
        }
    }

    fn hold(&mut self, id: usize) {
        self.client.hold(self.jobs[&id].spec);
        let job = self.jobs.get_mut(&id).expect("the job is there");
        job.held = true;
        if let Some(view) = job.view.take() {
            self.client.ask().done(ViewOp::Close(view)).expect("the view closes");
        }
    }

    fn reopen(&mut self) {
        self.client.reopen();
        while let Some(id) = self.jobs.iter().find(|(_, job)| !job.held).map(|(id, _)| *id) {
            self.drop_family(id);
        }
        self.jobs.values_mut().for_each(|job| job.view = None);
    }

    /// Looks at everything that a view shows.
    fn compare(&mut self, who: Option<usize>) {
        let view = self.view(who);
        let mut tree = self.tree(who).clone();
        for (ino, node) in tree.nodes.clone() {
            let attr = self.client.ask().attr(FsOp::GetAttr { ino }.on(view)).expect("attributes");
            assert_eq!(attr.nlink, tree.links(ino), "the links of {ino} as {who:?} sees it");
            let lists = [Op::Stat { ino }, Op::ListXattr { ino }, Op::ReadLink { ino }];
            let values = [b"user.a", b"user.b"].map(|name| Op::GetXattr { ino, name: name.to_vec() });
            let listing = (attr.kind == FileKind::Directory).then_some(Op::List { dir: ino });
            let names = node.entries.keys().map(|name| Op::Lookup { dir: ino, name: name.clone() });
            for op in lists.into_iter().chain(values).chain(listing).chain(names) {
                let found = op.ask(&self.client, view);
                assert_eq!(found, tree.play(&op, &found), "{op:?} as {who:?} sees it");
            }
        }
    }
}
