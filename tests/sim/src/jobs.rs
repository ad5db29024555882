//! What jobs do.

use crate::IS_DECIDING;
use crate::mount::Mount;
use crate::world::{COUNTERS, Stored, World, number_in, text_of};
use mojavefs::id::SpecId;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, JobInfo, OnRead, SpecOp, SpecState, ViewKind, ViewOp};
use std::collections::BTreeSet;
use std::sync::Arc;

const JOBS_MAX: usize = 5;

#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) spec: SpecId,
    /// None once its view is closed.
    pub(crate) mount: Option<Arc<Mount>>,
    on_read: OnRead,
    pub(crate) counted: [u64; COUNTERS],
    /// The pairs of files that it has made, and not removed; nobody else makes one of these names.
    pub(crate) made: BTreeSet<String>,
    /// What it has read and not counted yet.
    read: Option<(usize, u64)>,
    /// It is at something, and nothing else is done in it.
    is_busy: bool,
    /// The one that it was started in, which waits for its end.
    pub(crate) outer: Option<SpecId>,
    may_write: bool,
    /// It has voted, and waits for what comes of it: what it stores to pages from here on may be lost.
    votes: bool,
    /// It was refused in the midst of what belongs together: it fails.
    fails: bool,
    pub(crate) is_over: bool,
    /// Its processes have ended: its view is to be closed.
    has_ended: bool,
    /// It has become part of the one that it was started in.
    pub(crate) is_part: bool,
    /// What it was told last of where it stands.
    pub(crate) told: Option<SpecState>,
}

impl Job {
    /// The server is gone, and with it the view; what was held still is.
    pub(crate) fn is_left(&mut self) {
        self.may_write = false;
        self.mount = None;
    }
}

/// What two changes that belong together have come to: nothing, all, or half.
fn both(first: Result<(), Fault>, second: impl FnOnce() -> Result<(), Fault>) -> Result<Result<(), Fault>, Fault> {
    first?;
    Ok(second())
}

impl World {
    pub(crate) fn begin(&self) {
        if self.jobs.borrow().iter().filter(|job| !job.is_over).count() >= JOBS_MAX {
            return;
        }
        let modes = [OnRead::Join, OnRead::Join, OnRead::Isolate, OnRead::Committed, OnRead::Wait, OnRead::Fail];
        let on_read = modes[self.below(modes.len() as u64) as usize];
        self.look_who_is_over();
        // Some inside of another.
        let outer = self.free().into_iter().find(|job| self.jobs.borrow()[*job].may_write);
        let outer = outer.filter(|_| self.below(4) == 0).map(|job| self.jobs.borrow()[job].clone());
        let around = outer.as_ref().and_then(|outer| outer.mount.clone()).unwrap_or_else(|| self.trunk());
        let (parent, info, restarts) = (around.view.id(), JobInfo::default(), Some(String::new()));
        // Some own another, too: it is decided with them.
        let other = self.jobs.borrow().iter().find(|job| !job.is_over && !job.is_busy).map(|job| job.spec);
        let own = other.filter(|_| self.below(6) == 0);
        let opened = self.ask().view(ViewOp::Open(ViewKind::Job { parent, info, on_read, own, restarts }));
        match opened {
            Ok(opened) => {
                let spec = opened.spec.expect("a job has a speculation");
                self.say(|| format!("{spec} begins in {parent}: {on_read:?}, owns {own:?}"));
                let mount = Mount::new(self.ask(), opened.view, Some((spec, on_read)), self.file_names.clone());
                self.mounts().add(&mount);
                let job = Job {
                    spec,
                    mount: Some(mount),
                    on_read,
                    counted: [0; COUNTERS],
                    made: BTreeSet::new(),
                    read: None,
                    is_busy: false,
                    outer: outer.map(|outer| outer.spec),
                    may_write: true,
                    votes: false,
                    fails: false,
                    is_over: false,
                    has_ended: false,
                    is_part: false,
                    told: None,
                };
                let mut jobs = self.jobs.borrow_mut();
                // What the outer one has read may be old when it goes on.
                jobs.iter_mut().filter(|other| Some(other.spec) == job.outer).for_each(|outer| outer.read = None);
                jobs.push(job);
            }
            Err(fault) => self.refused("begin", &fault),
        }
    }

    /// Does something in one of the jobs that are not over; notes first which are.
    pub(crate) fn with_a_job(&self, work: impl FnOnce(&World, usize)) {
        self.look_who_is_over();
        let able = self.free();
        if able.is_empty() {
            return;
        }
        let job = able[self.below(able.len() as u64) as usize];
        self.jobs.borrow_mut()[job].is_busy = true;
        work(self, job);
        self.jobs.borrow_mut()[job].is_busy = false;
    }

    /// Those that are not over, at nothing, and wait for nobody inside of them.
    fn free(&self) -> Vec<usize> {
        let jobs = self.jobs.borrow();
        let waits =
            |job: &Job| jobs.iter().any(|inner| inner.outer == Some(job.spec) && inner.may_write && !inner.is_over);
        let is_free = |job: &Job| !job.is_over && !job.is_busy && !waits(job);
        (0..jobs.len()).filter(|job| is_free(&jobs[*job])).collect()
    }

    pub(crate) fn look_who_is_over(&self) {
        let count = self.jobs.borrow().len();
        for job in 0..count {
            let Job { spec, is_over, .. } = self.jobs.borrow()[job].clone();
            if !is_over {
                let state = state(&*self.ask(), spec);
                let mut jobs = self.jobs.borrow_mut();
                jobs[job].is_over = matches!(state, SpecState::Committed | SpecState::Aborted);
                jobs[job].may_write &= state == SpecState::Running;
            }
            self.close_if_ended(job);
        }
    }

    /// Closes the view of a job whose processes have ended. That waits for what is being decided, which is done by this very thread.
    fn close_if_ended(&self, job: usize) {
        let Job { is_over, has_ended, is_busy, .. } = self.jobs.borrow()[job].clone();
        let may_be_closed = has_ended || is_over && !is_busy;
        if !may_be_closed || self.deciding.get() > 0 {
            return;
        }
        let Some(mount) = self.jobs.borrow_mut()[job].mount.take() else { return };
        self.count(|counts| counts.add(&mount.counts()));
        self.mounts().remove(mount.view.id());
        if let Err(fault) = self.ask().done(ViewOp::Close(mount.view.id())) {
            self.refused("close", &fault);
        }
    }

    /// A job that may write, and its mount.
    fn able(&self, job: usize) -> Option<(Job, Arc<Mount>)> {
        let job = self.jobs.borrow()[job].clone();
        let mount = job.mount.clone().filter(|_| job.may_write && !job.fails)?;
        Some((job, mount))
    }

    /// What belongs together is done, or half of it: then the job fails. Whether all of it is.
    fn is_done(&self, job: usize, what: &str, done: Result<Result<(), Fault>, Fault>) -> bool {
        match done {
            Ok(Ok(())) => {
                self.say(|| what.to_owned());
                return true;
            }
            Ok(Err(fault)) => {
                self.say(|| format!("{what}: by half"));
                self.jobs.borrow_mut()[job].fails = true;
                self.refused(what, &fault);
            }
            Err(fault) => self.refused(what, &fault),
        }
        false
    }

    pub(crate) fn read(&self, job: usize) {
        let Some((Job { spec, .. }, mount)) = self.able(job) else { return };
        let number = self.below(COUNTERS as u64) as usize;
        match mount.read(self.files.counters[number], false) {
            Ok(bytes) => {
                let count = number_in(&bytes);
                self.say(|| format!("{spec} reads of {number}: {count}"));
                self.jobs.borrow_mut()[job].read = Some((number, count));
            }
            Err(fault) => self.refused("read", &fault),
        }
    }

    pub(crate) fn count_in(&self, job: usize) {
        if self.jobs.borrow()[job].on_read.follows() {
            // Those that see what others do are like programs beside each other anywhere: who reads first and writes later may write
            // over what came in between.
            self.jobs.borrow_mut()[job].read = None;
            self.read(job);
        }
        let Some((Job { spec, read: Some((number, count)), .. }, mount)) = self.able(job) else { return };
        match mount.write(self.files.counters[number], 0, text_of(count + 1).as_bytes()) {
            Ok(()) => {
                self.say(|| format!("{spec} writes to {number}: {}", count + 1));
                let mut jobs = self.jobs.borrow_mut();
                jobs[job].read = None;
                jobs[job].counted[number] += 1;
            }
            Err(fault) => self.refused("count", &fault),
        }
    }

    /// A number that nobody has used.
    fn new_number(&self) -> u64 {
        self.names.set(self.names.get() + 1);
        self.names.get()
    }

    /// One of the pairs of a job's files.
    fn pair_of(&self, job: usize) -> Option<String> {
        let jobs = self.jobs.borrow();
        let made = &jobs[job].made;
        let which = if made.is_empty() { 0 } else { self.below(made.len() as u64) as usize };
        made.iter().nth(which).cloned()
    }

    pub(crate) fn make(&self, job: usize) {
        let Some((Job { spec, .. }, mount)) = self.able(job) else { return };
        let name = format!("{spec}-{}", self.new_number());
        let make = |which: u8| mount.make(&format!("{name}-{which}")).map(drop);
        if self.is_done(job, &format!("{spec} makes {name}"), both(make(1), || make(2))) {
            self.jobs.borrow_mut()[job].made.insert(name);
        }
    }

    pub(crate) fn rename(&self, job: usize) {
        let (Some((Job { spec, .. }, mount)), Some(old)) = (self.able(job), self.pair_of(job)) else { return };
        let new = format!("{spec}-{}", self.new_number());
        let rename = |which: u8| mount.rename(&format!("{old}-{which}"), &format!("{new}-{which}"));
        if self.is_done(job, &format!("{spec} renames {old} to {new}"), both(rename(1), || rename(2))) {
            let made = &mut self.jobs.borrow_mut()[job].made;
            made.remove(&old);
            made.insert(new);
        }
    }

    pub(crate) fn remove(&self, job: usize) {
        let (Some((Job { spec, .. }, mount)), Some(old)) = (self.able(job), self.pair_of(job)) else { return };
        let remove = |which: u8| mount.remove(&format!("{old}-{which}"));
        if self.is_done(job, &format!("{spec} removes {old}"), both(remove(1), || remove(2))) {
            self.jobs.borrow_mut()[job].made.remove(&old);
        }
    }

    /// Writes the same to both twins.
    pub(crate) fn write_twins(&self, job: usize) {
        let Some((Job { spec, .. }, mount)) = self.able(job) else { return };
        let number = self.new_number();
        self.twins_turn.set(self.twins_turn.get() + 1);
        let turn = self.twins_turn.get();
        let [one, other] = self.files.twins;
        let write = |ino| mount.write(ino, 0, text_of(number).as_bytes());
        self.is_done(job, &format!("{spec} writes {number} to both"), both(write(one), || write(other)));
        if self.twins_turn.get() != turn {
            self.twins_mixed.set(true);
        }
    }

    /// Stores a byte, by a write or through a mapping.
    pub(crate) fn store_in(&self, job: usize) {
        let (Some((Job { spec, votes, .. }, mount)), Some(cell)) = (self.able(job), self.free_cell()) else { return };
        let cells = self.files.cells;
        let stored = match self.below(2) {
            0 if votes => return,
            0 => mount.store(cells, cell, b'x'),
            _ => mount.write(cells, cell as u64, b"x"),
        };
        match stored {
            Ok(()) => {
                self.say(|| format!("{spec} stores to byte {cell}"));
                self.stored.borrow_mut().insert(cell, Stored { by: Some(job), may_be_lost: false });
            }
            Err(fault) => self.refused("store", &fault),
        }
    }

    /// The kernel of a job writes out what was stored, as far as that need not wait.
    pub(crate) fn write_out_in(&self, job: usize) {
        if let Some((_, mount)) = self.able(job) {
            mount.write_out(None);
            mount.write_out_waiting();
        }
    }

    /// What a program in a job sees, with what its kernel has kept, is what is so there now.
    pub(crate) fn look_in(&self, job: usize) {
        let Some((Job { spec, on_read, .. }, mount)) = self.able(job) else { return };
        let is_alone = self.jobs.borrow().iter().all(|other| other.outer != Some(spec));
        let whole = is_alone && matches!(on_read, OnRead::Committed | OnRead::Isolate);
        let name = self.some_name();
        self.look(&mount, &spec.to_string(), &name, whole);
    }

    pub(crate) fn decide(&self, job: usize, how: &str) {
        let Job { spec, mount, fails, .. } = self.jobs.borrow()[job].clone();
        let mut how = if fails { "abort" } else { how };
        self.jobs.borrow_mut()[job].votes = true;
        if let Some(mount) = mount.filter(|_| how != "abort") {
            // Its processes have ended, and what they stored is written out first.
            mount.write_out(None);
            if !mount.write_out_waiting() {
                self.jobs.borrow_mut()[job].votes = false;
                return;
            }
            if mount.has_lost() {
                how = "abort";
            }
        }
        self.say(|| format!("{how} {spec}"));
        // Records are opened again after a failure, for which those have to let go of them that wait here.
        IS_DECIDING.set(self.fails && self.depth.get() == 0);
        let request = match how {
            "commit" => SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0),
            "abort" => SpecOp::Abort { spec }.by(0),
            _ => SpecOp::Hold { spec }.by(0),
        };
        self.count(|counts| counts.rounds_beside += u64::from(self.deciding.get() > 0));
        self.deciding.set(self.deciding.get() + 1);
        let decided = self.ask().outcome(request);
        self.deciding.set(self.deciding.get() - 1);
        self.jobs.borrow_mut()[job].votes = false;
        self.decided.set(self.decided.get() + 1);
        IS_DECIDING.set(false);
        self.look_whether_it_has_stopped();
        self.say(|| format!("{how} {spec}: {decided:?}"));
        match decided {
            Ok(outcome) => {
                let mut jobs = self.jobs.borrow_mut();
                jobs[job].told = Some(outcome.state);
                // It is part of the one around it, and ends as that does; unless that one is final already.
                let is_part = outcome.state == SpecState::Voted && outcome.waits_for.is_empty();
                jobs[job].is_part |= is_part && jobs[job].outer.is_some();
                jobs[job].is_over |= jobs[job].is_part;
                jobs[job].may_write &= outcome.state == SpecState::Running;
                jobs[job].has_ended |= outcome.state == SpecState::Held || jobs[job].is_over;
                drop(jobs);
                if !self.is_stopped.get() {
                    self.close_if_ended(job);
                }
            }
            Err(fault) => {
                self.count(|counts| counts.unrecorded += u64::from(self.fails && fault.kind == FaultKind::Io));
                self.refused(how, &fault);
            }
        }
    }
}

/// What has become of a speculation.
pub(crate) fn state(ask: &dyn Connection, spec: SpecId) -> SpecState {
    match ask.outcome(SpecOp::Outcome { spec }.by(0)) {
        Ok(outcome) => outcome.state,
        // Whoever goes without a word was undone.
        Err(fault) if fault.kind == FaultKind::NotFound => SpecState::Aborted,
        Err(fault) => panic!("speculation {spec}: {fault}"),
    }
}
