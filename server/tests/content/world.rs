//! Plays a history on a server and on the model, and compares.

use super::common::{Client, Place};
use super::model::{FILES, Job, Model};
use super::steps::{Change, Step};
use mojavefs::id::{Ino, ViewId};
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs::protocol::fault::FaultKind;
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{ConnectionExt, FallocateMode, FsOp, Resolution, SeekWhence, SpecState, ViewOp};

const JOBS_MAX: usize = 5;

fn name(file: usize) -> [u8; 1] {
    [b'a' + file as u8]
}

pub(crate) struct World {
    client: Client,
    model: Model,
    inos: [Ino; FILES],
    begun: usize,
    steps: usize,
}

impl World {
    pub(crate) fn new(place: Place) -> Self {
        let client = Client::on(place);
        let create =
            |file: usize| client.create(client.trunk, Ino::ROOT, &name(file), FileKind::Regular).expect("a file").ino;
        let inos = std::array::from_fn(create);
        World { client, model: Model::default(), inos, begun: 0, steps: 0 }
    }

    pub(crate) fn play(&mut self, step: &Step) {
        match step {
            Step::Change { who, file, how } => self.change(self.anyone(*who), *file as usize % FILES, how),
            Step::Read { who, file } => {
                let (who, file) = (self.anyone(*who), *file as usize % FILES);
                self.model.touch(who, file);
                self.compare(who, file);
            }
            Step::Begin { parent } => self.begin(self.anyone(*parent)),
            Step::Reclaim { steps } => drop(self.client.reclaim(*steps)),
            Step::Reopen => {
                self.client.reopen();
                self.model.reopen();
            }
            Step::Commit { who } => self.with_job(*who, Self::commit),
            Step::Resolve { who, ours } => self.with_job(*who, |world, id| world.resolve(id, *ours)),
            Step::Abort { who } => self.with_job(*who, Self::abort),
            Step::Hold { who, close } => self.with_job(*who, |world, id| world.hold(id, *close)),
        }
        self.steps += 1;
        self.compare_trunk();
        if self.steps.is_multiple_of(4) {
            self.compare_touched();
        }
    }

    /// Looks at everything once more, ends what is undecided, and has the store checked.
    pub(crate) fn end(mut self) {
        self.compare_touched();
        while let Some(id) = self.model.jobs.keys().next().copied() {
            self.abort(id);
        }
        self.compare_trunk();
        while self.client.reclaim(100) {}
        self.compare_trunk();
        self.client.reopen();
        self.compare_trunk();
        self.client.check();
    }

    /// Trunk, or one of the jobs.
    fn anyone(&self, number: u8) -> Option<usize> {
        let at = number as usize % (1 + self.model.jobs.len());
        at.checked_sub(1).and_then(|at| self.model.jobs.keys().nth(at).copied())
    }

    fn with_job(&mut self, number: u8, act: impl FnOnce(&mut Self, usize)) {
        let count = self.model.jobs.len();
        if let Some(id) = self.model.jobs.keys().nth(number as usize % count.max(1)).copied() {
            act(self, id);
        }
    }

    fn view(&mut self, who: Option<usize>) -> ViewId {
        let Some(job) = who.and_then(|id| self.model.jobs.get_mut(&id)) else { return self.client.trunk };
        *job.view.get_or_insert_with(|| self.client.inside(job.spec))
    }

    fn job(&self, id: usize) -> &Job {
        &self.model.jobs[&id]
    }

    fn change(&mut self, who: Option<usize>, file: usize, how: &Change) {
        let (view, ino) = (self.view(who), self.inos[file]);
        let ask = self.client.ask();
        let mut source = Vec::new();
        match *how {
            Change::Write { at, len, seed } => {
                let data = super::model::pattern(at, len, seed);
                let request =
                    FsOp::Write { ino, offset: at, data: &data, append: false, clear_set_id: false, mapped: false }
                        .on(view);
                ask.changed(request).expect("a write");
            }
            Change::Resize { size } => {
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                assert_eq!(ask.attr(FsOp::SetAttr { ino, set }.on(view)).expect("a new size").size, size);
            }
            Change::Fallocate { at, len, mode } => {
                ask.changed(FsOp::Fallocate { ino, offset: at, len, mode, clear_set_id: false }.on(view))
                    .expect("a range");
                let blocks = ask.attr(FsOp::GetAttr { ino }.on(view)).expect("attributes").blocks;
                // Where two histories are mixed the blocks of one are shown, and those of the other may be there already.
                let is_torn = who.is_some_and(|id| self.job(id).files[file].torn);
                let allocates = matches!(mode, FallocateMode::Allocate { .. }) && !is_torn;
                assert!(!allocates || blocks * 512 >= len, "{blocks} blocks are shown of {len} bytes allocated");
            }
            Change::Copy { from, at, to, len } => {
                let from = from as usize % FILES;
                let source_len = self.model.bytes(who, from).len() as u64;
                let expected = source_len.saturating_sub(at).min(len);
                let overlap = from == file && at < to + expected && to < at + expected;
                let request = FsOp::CopyRange {
                    ino: self.inos[from],
                    offset: at,
                    to: ino,
                    to_offset: to,
                    len,
                    clear_set_id: false,
                }
                .on(view);
                let copied = ask.changed(request).map(|copied| copied.at);
                if overlap {
                    self.model.touch(who, from);
                    return assert_eq!(copied.expect_err("an overlap").kind, FaultKind::Invalid);
                }
                self.model.touch(who, from);
                source = self.model.bytes(who, from).clone();
                assert_eq!(copied.expect("a copy"), expected);
                if expected == 0 {
                    return;
                }
                self.model.mix(who, from, file);
            }
        }
        self.model.change(who, file, how, &source);
        self.compare(who, file);
    }

    fn begin(&mut self, parent: Option<usize>) {
        if self.model.jobs.len() < JOBS_MAX {
            let view = self.view(parent);
            let (view, spec) = self.client.begin(view);
            self.begun += 1;
            self.model.begin(self.begun, parent, view, spec);
        }
    }

    fn commit(&mut self, id: usize) {
        // A job is over when its processes are, those of inner jobs too.
        if self.job(id).parent.is_some() && !self.model.children(id).is_empty() {
            return;
        }
        let (spec, conflict, doubtful) = (self.job(id).spec, self.job(id).in_conflict(), self.job(id).may_conflict());
        let outcome = self.client.commit(spec, Vec::new());
        if conflict {
            assert!(!outcome.conflicts.is_empty(), "job {id} is in conflict and was committed: {outcome:?}");
            return;
        }
        if doubtful && !outcome.conflicts.is_empty() {
            return;
        }
        assert!(outcome.conflicts.is_empty(), "job {id} has no conflict and was refused: {outcome:?}");
        if self.job(id).parent.is_some() {
            assert_eq!(outcome.state, SpecState::Voted);
            self.model.fold(id);
        } else {
            assert_eq!(outcome.state, SpecState::Committed);
            self.model.finish(id, |_| true);
            self.model.release(id);
        }
    }

    fn resolve(&mut self, id: usize, ours: bool) {
        let alone = self.job(id).parent.is_none() && self.model.children(id).is_empty();
        if !alone || !self.job(id).in_conflict() || self.job(id).files.iter().any(|file| file.torn) {
            return;
        }
        let side = if ours { Resolution::Ours } else { Resolution::Theirs };
        let concerned = (0..FILES).filter(|file| self.job(id).files[*file].conflict);
        let resolutions = concerned.map(|file| side(name(file).to_vec())).collect();
        let outcome = self.client.commit(self.job(id).spec, resolutions);
        assert_eq!(outcome.state, SpecState::Committed, "{outcome:?}");
        self.model.finish(id, |file| ours || !file.conflict);
    }

    /// The last look at a job is at all that it sees.
    fn abort(&mut self, id: usize) {
        for id in self.model.family(id) {
            for file in 0..FILES {
                self.model.touch(Some(id), file);
                self.compare(Some(id), file);
            }
        }
        self.client.abort(self.job(id).spec);
        self.model.drop_family(id);
    }

    fn hold(&mut self, id: usize, close: bool) {
        self.client.hold(self.job(id).spec);
        let job = self.model.jobs.get_mut(&id).expect("the job is there");
        job.held = true;
        if let Some(view) = job.view.filter(|_| close) {
            self.client.ask().done(ViewOp::Close(view)).expect("the view closes");
            job.view = None;
        }
    }

    fn compare_trunk(&mut self) {
        (0..FILES).for_each(|file| self.compare(None, file));
    }

    /// What a job has touched can be looked at without another conflict.
    fn compare_touched(&mut self) {
        for id in self.model.jobs.keys().copied().collect::<Vec<_>>() {
            for file in (0..FILES).filter(|file| self.model.jobs[&id].files[*file].touched).collect::<Vec<_>>() {
                self.compare(Some(id), file);
            }
        }
    }

    fn compare(&mut self, who: Option<usize>, file: usize) {
        let view = self.view(who);
        if who.is_some_and(|id| self.job(id).files[file].torn) {
            // It has been looked at all the same.
            self.read(view, file);
            return;
        }
        let expected = self.model.bytes(who, file);
        let context = || format!("file {file} as {who:?} sees it");
        let found = self.read(view, file);
        let differ = found.iter().zip(expected).position(|(found, expected)| found != expected);
        assert_eq!(found.len(), expected.len(), "the size of {}", context());
        let values = differ.map(|at| (found[at], expected[at]));
        assert_eq!(differ, None, "the first byte that differs in {}: found and expected {values:?}", context());
        self.check_holes(view, file, expected);
    }

    fn read(&self, view: ViewId, file: usize) -> Vec<u8> {
        let ino = self.inos[file];
        let size = self.client.ask().attr(FsOp::GetAttr { ino }.on(view)).expect("attributes").size;
        let request =
            FsOp::Read { ino, offset: 0, size: IO_BYTES_MAX as u32, reads: mojavefs::protocol::Reads::Once }.on(view);
        let found = self.client.ask().data(request).expect("bytes");
        assert_eq!(found.len() as u64, size, "what is read of file {file} ends at its size");
        found
    }

    /// Data and holes take turns up to the end, and no hole has anything but zeros in it.
    fn check_holes(&self, view: ViewId, file: usize, bytes: &[u8]) {
        let size = bytes.len() as u64;
        let mut at = 0;
        while at < size {
            let data = self.seek(view, file, at, SeekWhence::Data).unwrap_or(size);
            assert!(at <= data && data <= size, "data from {at} on is said to be at {data} of {size}");
            let lost = bytes[at as usize..data as usize].iter().position(|byte| *byte != 0);
            assert_eq!(lost, None, "file {file} has data in the hole from {at} to {data}");
            if data == size {
                break;
            }
            at = self.seek(view, file, data, SeekWhence::Hole).expect("the end is a hole");
            assert!(data < at && at <= size, "the hole from {data} on is said to be at {at} of {size}");
        }
        assert_eq!(self.seek(view, file, size, SeekWhence::Data), None);
    }

    fn seek(&self, view: ViewId, file: usize, offset: u64, whence: SeekWhence) -> Option<u64> {
        match self.client.ask().offset(FsOp::Seek { ino: self.inos[file], offset, whence }.on(view)) {
            Ok(at) => Some(at),
            Err(fault) if fault.kind == FaultKind::NoData => None,
            Err(fault) => panic!("seek: {fault}"),
        }
    }
}
