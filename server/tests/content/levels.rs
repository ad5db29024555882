//! The content of files that a process changes in levels, most of which become part of what is around them and leave nothing
//! behind: random histories in one job, which may be held and taken up again, against plain vectors of bytes.

use super::common::{self, Client};
use super::model::{FILES, apply, pattern};
use super::steps::{Change, change};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{ConnectionExt, FsOp, JobInfo, OnRead, SpecState, ViewKind, ViewOp};
use proptest::prelude::*;

const DEPTH_MAX: usize = 6;

#[derive(Clone, Debug)]
enum Step {
    /// By the process, or, between levels, by another process of the job.
    Change {
        other: bool,
        file: usize,
        how: Change,
    },
    Enter,
    Commit,
    Abort,
    Reclaim(u8),
    /// The job is held, and goes on after a restart. Open levels are gone by it.
    Hold,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        16 => (any::<bool>(), 0..FILES, change()).prop_map(|(other, file, how)| Step::Change { other, file, how }),
        9 => Just(Step::Enter),
        7 => Just(Step::Commit),
        2 => Just(Step::Abort),
        2 => (1..40_u8).prop_map(Step::Reclaim),
        1 => Just(Step::Hold),
    ]
}

type Files = [Vec<u8>; FILES];

struct World {
    client: Client,
    inos: [Ino; FILES],
    job: SpecId,
    /// The job's, and that of a process in it.
    views: [ViewId; 2],
    /// What is on trunk, in the job, and in each level.
    files: Vec<Files>,
    levels: Vec<SpecId>,
}

impl World {
    fn new(on_read: OnRead) -> Self {
        let client = Client::new();
        let trunk = client.trunk;
        let create = |file| client.create(trunk, Ino::ROOT, &name(file), FileKind::Regular).expect("a file").ino;
        let inos = std::array::from_fn(create);
        let (info, restarts) = (JobInfo::default(), Some(String::new()));
        let kind = ViewKind::Job { parent: trunk, info, on_read, own: None, restarts };
        let opened = client.ask().view(ViewOp::Open(kind)).expect("a job begins");
        let job = opened.spec.expect("a job has a speculation");
        let files = vec![Files::default(), Files::default()];
        let mut world = World { client, inos, job, views: [opened.view; 2], files, levels: Vec::new() };
        world.open_process();
        world
    }

    fn open_process(&mut self) {
        let kind = ViewKind::Process { parent: self.views[0], uid: 0, pid: 1 };
        self.views[1] = self.client.ask().view(ViewOp::Open(kind)).expect("a process begins").view;
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Change { other, file, how } => self.change(*other && self.levels.is_empty(), *file, how),
            Step::Enter if self.levels.len() < DEPTH_MAX => {
                let enter = ViewOp::Enter { view: self.views[1], info: JobInfo::default(), own: None };
                let opened = self.client.ask().view(enter).expect("a level");
                self.levels.push(opened.spec.expect("a level has a speculation"));
                let files = self.last().clone();
                self.files.push(files);
            }
            Step::Commit => {
                if let Some(level) = self.levels.pop() {
                    assert_eq!(self.client.commit(level, Vec::new()).state, SpecState::Voted);
                    let inner = self.files.pop().expect("its files");
                    *self.last() = inner;
                }
            }
            Step::Abort => {
                if let Some(spec) = self.levels.pop() {
                    let undo = ViewOp::Undo { view: self.views[1], spec, actor: 0, drained: true };
                    self.client.ask().outcome(undo).expect("an abort");
                    self.files.pop();
                }
            }
            Step::Reclaim(steps) => drop(self.client.reclaim(*steps)),
            Step::Hold => self.hold(),
            Step::Enter => {}
        }
        (0..FILES).for_each(|file| self.compare(file));
    }

    fn last(&mut self) -> &mut Files {
        self.files.last_mut().expect("there is a job")
    }

    fn hold(&mut self) {
        self.client.hold(self.job);
        self.levels.clear();
        self.files.truncate(2);
        self.client.reopen();
        self.views[0] = self.client.inside(self.job);
        self.open_process();
    }

    fn change(&mut self, other: bool, file: usize, how: &Change) {
        let (view, ino) = (self.views[usize::from(!other)], self.inos[file]);
        let ask = self.client.ask();
        match *how {
            Change::Write { at, len, seed } => {
                let data = pattern(at, len, seed);
                let request =
                    FsOp::Write { ino, offset: at, data: &data, append: false, clear_set_id: false, mapped: false }
                        .on(view);
                ask.changed(request).expect("a write");
            }
            Change::Resize { size } => {
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                ask.attr(FsOp::SetAttr { ino, set }.on(view)).expect("a new size");
            }
            Change::Fallocate { at, len, mode } => {
                ask.changed(FsOp::Fallocate { ino, offset: at, len, mode, clear_set_id: false }.on(view))
                    .expect("a range");
            }
            Change::Copy { .. } => return,
        }
        apply(&mut self.last()[file], how, &[]);
    }

    /// The process sees its level's files; between levels all of the job do.
    fn compare(&mut self, file: usize) {
        let views = if self.levels.is_empty() { &self.views[..] } else { &self.views[1..] };
        let expected = self.files.last().expect("there is a job");
        views.iter().for_each(|view| self.compare_one(*view, file, &expected[file]));
        self.compare_one(self.client.trunk, file, &self.files[0][file]);
    }

    fn compare_one(&self, view: ViewId, file: usize, expected: &[u8]) {
        let request = FsOp::Read {
            ino: self.inos[file],
            offset: 0,
            size: IO_BYTES_MAX as u32,
            reads: mojavefs::protocol::Reads::Once,
        }
        .on(view);
        let found = self.client.ask().data(request).expect("bytes");
        assert!(found == expected, "file {file} in view {view}: {} bytes, {} expected", found.len(), expected.len());
    }

    fn end(mut self, commit: bool) {
        while !self.levels.is_empty() {
            self.play(&Step::Commit);
        }
        match commit {
            true => {
                assert_eq!(self.client.commit(self.job, Vec::new()).state, SpecState::Committed);
                self.files.swap_remove(0);
            }
            false => self.client.abort(self.job),
        }
        while self.client.reclaim(100) {}
        self.client.reopen();
        (0..FILES).for_each(|file| self.compare_one(self.client.trunk, file, &self.files[0][file]));
        self.client.check();
    }
}

fn name(file: usize) -> [u8; 1] {
    [b'a' + file as u8]
}

proptest! {
    #![proptest_config(common::config(32))]

    #[test]
    fn what_levels_write_is_their_jobs(
        history in prop::collection::vec(step(), 1..150),
        commit in any::<bool>(),
        isolated in any::<bool>(),
    ) {
        let mut world = World::new(if isolated { OnRead::Isolate } else { OnRead::Join });
        history.iter().for_each(|step| world.play(step));
        world.end(commit);
    }
}
