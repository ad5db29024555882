//! What every file is in every view, naively: whole copies, and which of them are in conflict.

use super::steps::Change;
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::FallocateMode;
use std::collections::BTreeMap;

pub(crate) const FILES: usize = 3;

/// The bytes that a write of `seed` puts at `at`; those of seed 0 are zeros.
pub(crate) fn pattern(at: u64, len: u64, seed: u8) -> Vec<u8> {
    let byte = |at: u64| ((at / 7) as u8 ^ (at >> 11) as u8).wrapping_mul(3).wrapping_add(seed * 31);
    (at..at + len).map(|at| if seed == 0 { 0 } else { byte(at) }).collect()
}

/// One file as one view has it.
#[derive(Clone, Default)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    /// The view's job has read or changed it.
    pub(crate) touched: bool,
    pub(crate) changed: bool,
    /// It was changed on trunk and the job does not see it: it must not touch it any more.
    pub(crate) stale: bool,
    /// The same, of a change by this job around it.
    pub(crate) missed: Option<usize>,
    /// The job touched it, and others changed it.
    pub(crate) conflict: bool,
    /// The job may be told of a conflict that is one of a job around it.
    pub(crate) doubtful: bool,
    /// Two histories are mixed in it, which a conflict keeps from being committed.
    pub(crate) torn: bool,
}

pub(crate) struct Job {
    /// None while nobody looks at it.
    pub(crate) view: Option<ViewId>,
    pub(crate) spec: SpecId,
    pub(crate) parent: Option<usize>,
    pub(crate) files: [File; FILES],
    /// It sees what the job around it goes on changing, where it has not touched it.
    pub(crate) follows: bool,
    pub(crate) held: bool,
}

impl Job {
    pub(crate) fn in_conflict(&self) -> bool {
        self.files.iter().any(|file| file.conflict)
    }

    pub(crate) fn may_conflict(&self) -> bool {
        self.files.iter().any(|file| file.conflict || file.doubtful)
    }
}

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) trunk: [Vec<u8>; FILES],
    pub(crate) jobs: BTreeMap<usize, Job>,
}

pub(crate) fn apply(bytes: &mut Vec<u8>, change: &Change, source: &[u8]) {
    let mut put = |at: u64, data: &[u8]| {
        let (at, end) = (at as usize, at as usize + data.len());
        if !data.is_empty() {
            bytes.resize(bytes.len().max(end), 0);
            bytes[at..end].copy_from_slice(data);
        }
    };
    match *change {
        Change::Write { at, len, seed } => put(at, &pattern(at, len, seed)),
        Change::Resize { size } => bytes.resize(size as usize, 0),
        Change::Copy { at, to, len, .. } => {
            let at = source.len().min(at as usize);
            put(to, &source[at..source.len().min(at + len as usize)]);
        }
        Change::Fallocate { at, len, mode } => {
            let (at, end) = (at as usize, (at + len) as usize);
            if !matches!(mode, FallocateMode::Allocate { .. }) {
                let size = bytes.len();
                bytes[at.min(size)..end.min(size)].fill(0);
            }
            use FallocateMode::{Allocate, ZeroRange};
            if matches!(mode, Allocate { keep_size: false } | ZeroRange { keep_size: false }) {
                bytes.resize(bytes.len().max(end), 0);
            }
        }
    }
}

impl Model {
    pub(crate) fn bytes(&self, who: Option<usize>, file: usize) -> &Vec<u8> {
        match who {
            Some(job) => &self.jobs[&job].files[file].bytes,
            None => &self.trunk[file],
        }
    }

    pub(crate) fn children(&self, of: usize) -> Vec<usize> {
        self.jobs.iter().filter(|(_, job)| job.parent == Some(of)).map(|(at, _)| *at).collect()
    }

    /// `of` and all that runs inside it, outer ones first.
    pub(crate) fn family(&self, of: usize) -> Vec<usize> {
        let mut all = vec![of];
        let mut at = 0;
        while at < all.len() {
            all.extend(self.children(all[at]));
            at += 1;
        }
        all
    }

    pub(crate) fn begin(&mut self, id: usize, parent: Option<usize>, view: ViewId, spec: SpecId) {
        let inherited = |file: usize| match parent {
            Some(parent) => {
                let outer = &self.jobs[&parent].files[file];
                File { touched: false, changed: false, conflict: false, doubtful: false, ..outer.clone() }
            }
            None => File { bytes: self.trunk[file].clone(), ..File::default() },
        };
        let files = std::array::from_fn(inherited);
        self.jobs.insert(id, Job { view: Some(view), spec, parent, files, follows: true, held: false });
    }

    pub(crate) fn touch(&mut self, who: Option<usize>, file: usize) {
        let Some(id) = who else { return };
        // What a job around this one changed stands in front of what it would miss.
        let job = &self.jobs[&id].files[file];
        let (stale, missed) = (job.stale, job.missed);
        let in_front = |until| self.job_around(id, until, |outer| outer.files[file].changed);
        let conflict = (stale && !in_front(None)) || (missed.is_some() && !in_front(missed));
        self.note_touch(id, file, conflict);
        // The jobs around it answer for what it has seen, whatever becomes of it.
        let mut at = self.jobs[&id].parent;
        while let Some(outer) = at {
            self.note_touch(outer, file, conflict && missed.is_none());
            at = self.jobs[&outer].parent;
        }
    }

    fn note_touch(&mut self, id: usize, file: usize, conflict: bool) {
        let file = &mut self.jobs.get_mut(&id).expect("the job is there").files[file];
        file.touched = true;
        file.conflict |= conflict;
        file.doubtful |= file.stale || file.missed.is_some();
    }

    /// What is copied from two histories mixed is as mixed.
    pub(crate) fn mix(&mut self, who: Option<usize>, from: usize, to: usize) {
        if let Some(job) = who.and_then(|id| self.jobs.get_mut(&id)) {
            job.files[to].torn |= job.files[from].torn;
        }
    }

    /// Whether one of the jobs around it, `until` left out, is such.
    fn job_around(&self, id: usize, until: Option<usize>, is: impl Fn(&Job) -> bool) -> bool {
        let mut at = self.jobs[&id].parent;
        while let Some(outer) = at.filter(|_| at != until) {
            if is(&self.jobs[&outer]) {
                return true;
            }
            at = self.jobs[&outer].parent;
        }
        false
    }

    pub(crate) fn change(&mut self, who: Option<usize>, file: usize, change: &Change, source: &[u8]) {
        let Some(id) = who else {
            apply(&mut self.trunk[file], change, source);
            return self.final_changed(file, None);
        };
        self.touch(who, file);
        let job = self.jobs.get_mut(&id).expect("the job is there");
        job.files[file].changed = true;
        apply(&mut job.files[file].bytes, change, source);
        self.outer_changed(id, file);
    }

    /// Trunk's `file` is another one now: by a process outside all jobs, or by the commit of `by`.
    pub(crate) fn final_changed(&mut self, file: usize, by: Option<usize>) {
        let family = by.map(|by| self.family(by)).unwrap_or_default();
        for (_, job) in self.jobs.iter_mut().filter(|(id, _)| !family.contains(id)) {
            job.files[file].stale = true;
            job.files[file].conflict |= job.files[file].touched;
        }
    }

    /// The jobs inside `outer` see what it changed if they follow it and have none of their own.
    fn outer_changed(&mut self, outer: usize, file: usize) {
        let now = self.jobs[&outer].files[file].clone();
        for child in self.children(outer) {
            let follows = self.jobs[&child].follows;
            for id in self.family(child) {
                let hidden = self.hidden(id, child, file);
                let job = &mut self.jobs.get_mut(&id).expect("the job is there").files[file];
                job.conflict |= job.touched;
                match (follows, hidden) {
                    (true, false) => (job.bytes, job.torn) = (now.bytes.clone(), now.torn),
                    (true, true) => job.torn = true,
                    (false, _) => job.missed = Some(outer),
                }
            }
        }
    }

    /// Whether `id`, or a job between it and `top`, has changed the file itself.
    fn hidden(&self, id: usize, top: usize, file: usize) -> bool {
        let mut at = id;
        loop {
            let job = &self.jobs[&at];
            if job.files[file].changed {
                return true;
            }
            match job.parent.filter(|_| at != top) {
                Some(parent) => at = parent,
                None => return false,
            }
        }
    }

    /// An inner job has no conflict: what it did is done by the job around it.
    pub(crate) fn fold(&mut self, id: usize) {
        let inner = self.jobs.remove(&id).expect("the job is there");
        let outer = inner.parent.expect("it runs inside another");
        for child in self.children(outer) {
            self.jobs.get_mut(&child).expect("the job is there").follows = false;
        }
        for (file, done) in inner.files.into_iter().enumerate() {
            let job = self.jobs.get_mut(&outer).expect("the outer job is there");
            job.files[file].touched |= done.touched;
            if done.changed {
                job.files[file].changed = true;
                job.files[file].bytes = done.bytes;
                self.outer_changed(outer, file);
            }
        }
    }

    /// A job outside all others becomes final, but for the files not in `stand`.
    pub(crate) fn finish(&mut self, id: usize, stand: impl Fn(&File) -> bool) {
        for file in 0..FILES {
            let done = &self.jobs[&id].files[file];
            if done.changed && stand(done) {
                self.trunk[file] = done.bytes.clone();
                self.final_changed(file, Some(id));
            }
        }
        let family = self.family(id);
        for inner in &family[1..] {
            self.rebase(*inner, id);
        }
        self.jobs.remove(&id);
    }

    /// A job inside one that became final is based on what is final now.
    fn rebase(&mut self, id: usize, finished: usize) {
        for file in 0..FILES {
            let mut top = id;
            while self.jobs[&top].parent != Some(finished) && self.jobs[&top].parent.is_some() {
                top = self.jobs[&top].parent.expect("just looked");
            }
            let hidden = self.hidden(id, top, file);
            let last = &self.trunk[file];
            let file = &mut self.jobs.get_mut(&id).expect("the job is there").files[file];
            match hidden {
                // Of what the job around it had changed out of its sight the bytes are there now.
                true => file.torn |= file.stale || file.missed.is_some(),
                false => (file.bytes, file.torn) = (last.clone(), false),
            }
            (file.stale, file.missed) = (false, None);
        }
    }

    /// What was inside a job that became final stands on its own.
    pub(crate) fn release(&mut self, finished: usize) {
        for job in self.jobs.values_mut().filter(|job| job.parent == Some(finished)) {
            job.parent = None;
        }
    }

    pub(crate) fn drop_family(&mut self, id: usize) {
        for gone in self.family(id) {
            self.jobs.remove(&gone);
        }
    }

    /// What is left after the store was closed: what is held, inside nothing that is not.
    pub(crate) fn reopen(&mut self) {
        while let Some(id) = self.jobs.iter().find(|(_, job)| !job.held).map(|(id, _)| *id) {
            self.drop_family(id);
        }
        self.jobs.values_mut().for_each(|job| job.view = None);
    }
}
