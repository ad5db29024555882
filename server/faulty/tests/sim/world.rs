//! Who acts, and what must be so.

use crate::kernel::{self, Counts, Kernel};
use crate::{BESIDE_MAX, COUNTERS, DEPTH_MAX, IS_DECIDING, JOBS_MAX};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Connection, ConnectionExt, JobInfo, OnRead, Reads, RenameMode, Request, SpecState, ViewKind};
use mojavefs_faulty::Random;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

/// A server's client, and all that it plays.
pub(crate) struct World {
    random: RefCell<Random>,
    /// The session; none while the store is opened again.
    ask: RefCell<Option<Arc<dyn Connection>>>,
    trunk: Cell<ViewId>,
    counters: [Ino; COUNTERS],
    kernel: Arc<Kernel>,
    jobs: RefCell<Vec<Job>>,
    /// How often it was counted on trunk.
    on_trunk: RefCell<[u64; COUNTERS]>,
    depth: Cell<usize>,
    /// How many names were used.
    names: Cell<u64>,
    /// What has happened, for who looks for a fault.
    history: RefCell<Vec<String>>,
    /// How often somebody acted beside another.
    beside: Cell<u64>,
    /// Records of decisions fail now and then.
    fails: bool,
    /// The store has stopped: what can't be known is found out when it is opened again.
    is_stopped: Cell<bool>,
}

#[derive(Clone)]
struct Job {
    spec: SpecId,
    view: ViewId,
    on_read: OnRead,
    counted: [u64; COUNTERS],
    /// The files that it has made, and not removed; nobody else makes one of these names.
    made: BTreeSet<String>,
    /// What it has read and not counted yet.
    read: Option<(usize, u64)>,
    /// It is at something, and nothing else is done in it.
    is_busy: bool,
    /// The one that it was started in, which waits for its end.
    outer: Option<SpecId>,
    may_write: bool,
    is_over: bool,
    /// It has become part of the one that it was started in.
    is_part: bool,
    /// What it was told last of where it stands.
    told: Option<SpecState>,
}

/// What a call that must not wait may be refused for, or because of what others have done meanwhile.
fn is_refusal(fault: &Fault) -> bool {
    use FaultKind::{Again, Busy, Conflict, Deadlock, Decided, NotFound, Sealed, Stale, Undecided};
    match fault.kind {
        Again | Busy | Conflict | Decided | Deadlock | Sealed | Stale | Undecided => true,
        NotFound => fault.message.starts_with("there is no"),
        _ => false,
    }
}

impl World {
    /// With a session of a new store; records of decisions fail now and then, if they are to.
    pub(crate) fn new(seed: u64, ask: Arc<dyn Connection>, fails: bool) -> Rc<World> {
        let trunk = ask.view(Request::OpenView(ViewKind::Trunk)).expect("trunk").view;
        let counters = std::array::from_fn(|number| {
            let ino = ask.attr(create(trunk, &format!("counter {number}"))).expect("a file").ino;
            write(&*ask, trunk, ino, 0).expect("a counter");
            ino
        });
        let kernel = Arc::new(Kernel::default());
        kernel.is_of(trunk);
        ask.set_notice_sink(kernel.clone());
        Rc::new(World {
            kernel,
            random: RefCell::new(Random::new(seed)),
            ask: RefCell::new(Some(ask)),
            trunk: Cell::new(trunk),
            counters,
            jobs: RefCell::default(),
            on_trunk: RefCell::default(),
            depth: Cell::new(0),
            names: Cell::new(0),
            history: RefCell::default(),
            beside: Cell::new(0),
            fails,
            is_stopped: Cell::new(false),
        })
    }

    /// From now on by this session: the store was opened again.
    pub(crate) fn goes_on(&self, ask: Arc<dyn Connection>) {
        self.trunk.set(ask.view(Request::OpenView(ViewKind::Trunk)).expect("trunk").view);
        self.kernel.is_of(self.trunk.get());
        ask.set_notice_sink(self.kernel.clone());
        self.ask.replace(Some(ask));
        self.is_stopped.set(false);
        // What began before and is undecided still has no view any more.
        self.jobs.borrow_mut().iter_mut().for_each(|job| job.may_write = false);
    }

    /// Lets go of the session.
    pub(crate) fn leaves(&self) -> Option<Arc<dyn Connection>> {
        self.ask.take()
    }

    /// What has happened, for people.
    pub(crate) fn told(&self) -> String {
        self.history.borrow().join("\n")
    }

    /// How often somebody acted beside another, and what trunk's kernel has seen of it.
    pub(crate) fn counts(&self) -> (u64, Counts) {
        (self.beside.get(), self.kernel.counts())
    }

    /// Others are in the way; or, where it may, the disk has failed: then the store may have stopped, and says no more.
    fn refused(&self, what: &str, fault: &Fault) {
        if !is_refusal(fault) {
            assert!(self.fails, "{what}: {fault}");
            self.look_whether_it_has_stopped();
        }
    }

    fn look_whether_it_has_stopped(&self) {
        let root = Request::GetAttr { view: self.trunk.get(), ino: Ino::ROOT };
        self.is_stopped.set(self.fails && self.ask().attr(root).is_err());
    }

    fn ask(&self) -> Arc<dyn Connection> {
        self.ask.borrow().clone().expect("the store is open")
    }

    /// A number that the seed chooses.
    pub(crate) fn below(&self, limit: u64) -> u64 {
        self.random.borrow_mut().below(limit)
    }

    /// Notes what happens.
    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        self.history.borrow_mut().push(format!("{:indent$}{}", "", what(), indent = 2 * self.depth.get()));
    }

    /// The disk is waited for: others act.
    pub(crate) fn waits(&self) {
        if self.depth.get() >= DEPTH_MAX {
            return;
        }
        let deciding = IS_DECIDING.replace(false);
        self.depth.set(self.depth.get() + 1);
        for _ in 0..self.below(BESIDE_MAX) {
            self.beside.set(self.beside.get() + 1);
            self.act();
        }
        self.depth.set(self.depth.get() - 1);
        IS_DECIDING.set(deciding);
    }

    /// Somebody does something.
    pub(crate) fn act(&self) {
        if self.is_stopped.get() {
            return;
        }
        match self.below(24) {
            20..=23 => self.look_on_trunk(),
            0 | 1 => self.begin(),
            16 | 17 => self.with_a_job(World::make),
            18 => self.with_a_job(World::rename),
            19 => self.with_a_job(World::remove),
            2..=5 => self.with_a_job(World::read),
            6..=9 => self.with_a_job(World::count),
            10 => self.count_on_trunk(),
            11..=13 => self.with_a_job(|world, job| world.decide(job, "commit")),
            14 => self.with_a_job(|world, job| world.decide(job, "hold")),
            _ => self.with_a_job(|world, job| world.decide(job, "abort")),
        }
    }

    fn begin(&self) {
        if self.jobs.borrow().iter().filter(|job| !job.is_over).count() >= JOBS_MAX {
            return;
        }
        let on_read =
            [OnRead::Join, OnRead::Join, OnRead::Isolate, OnRead::Committed, OnRead::Wait][self.below(5) as usize];
        self.look_who_is_over();
        // Some inside of another.
        let outer =
            self.free().into_iter().find(|job| self.jobs.borrow()[*job].may_write).filter(|_| self.below(4) == 0);
        let outer = outer.map(|job| self.jobs.borrow()[job].clone());
        let parent = outer.as_ref().map_or(self.trunk.get(), |outer| outer.view);
        let (info, restarts) = (JobInfo::default(), Some(String::new()));
        // Some own another, too: it is decided with them.
        let other = self.jobs.borrow().iter().find(|job| !job.is_over && !job.is_busy).map(|job| job.spec);
        let own = other.filter(|_| self.below(6) == 0);
        let kind = ViewKind::Job { parent, info, on_read, own, restarts };
        match self.ask().view(Request::OpenView(kind)) {
            Ok(opened) => {
                let spec = opened.spec.expect("a job has a speculation");
                self.say(|| format!("{spec} begins in {parent}: {on_read:?}, owns {own:?}"));
                let counted = [0; COUNTERS];
                let job = Job {
                    spec,
                    view: opened.view,
                    on_read,
                    counted,
                    made: BTreeSet::new(),
                    read: None,
                    is_busy: false,
                    outer: outer.as_ref().map(|outer| outer.spec),
                    may_write: true,
                    is_over: false,
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
    fn with_a_job(&self, work: impl FnOnce(&World, usize)) {
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

    fn look_who_is_over(&self) {
        let count = self.jobs.borrow().len();
        for job in 0..count {
            let (spec, is_over) = { (self.jobs.borrow()[job].spec, self.jobs.borrow()[job].is_over) };
            if is_over {
                continue;
            }
            let state = state(&*self.ask(), spec);
            let mut jobs = self.jobs.borrow_mut();
            jobs[job].is_over = matches!(state, SpecState::Committed | SpecState::Aborted);
            jobs[job].may_write &= state == SpecState::Running;
        }
    }

    fn read(&self, job: usize) {
        let Job { view, may_write, spec, .. } = self.jobs.borrow()[job].clone();
        let number = self.below(COUNTERS as u64) as usize;
        if !may_write {
            return;
        }
        match read(&*self.ask(), view, self.counters[number]) {
            Ok(count) => {
                self.say(|| format!("{spec} reads of {number}: {count}"));
                self.jobs.borrow_mut()[job].read = Some((number, count));
            }
            Err(fault) => self.refused("read", &fault),
        }
    }

    fn count(&self, job: usize) {
        if self.jobs.borrow()[job].on_read.follows() {
            // Those that see what others do are like programs beside each other anywhere: who reads first and writes later may write
            // over what came in between.
            self.jobs.borrow_mut()[job].read = None;
            self.read(job);
        }
        let Job { view, may_write, spec, read, .. } = self.jobs.borrow()[job].clone();
        let Some((number, count)) = read.filter(|_| may_write) else { return };
        match write(&*self.ask(), view, self.counters[number], count + 1) {
            Ok(()) => {
                self.say(|| format!("{spec} writes to {number}: {}", count + 1));
                let mut jobs = self.jobs.borrow_mut();
                jobs[job].read = None;
                jobs[job].counted[number] += 1;
            }
            Err(fault) => self.refused("count", &fault),
        }
    }

    /// A name that nobody has used.
    fn new_name(&self, spec: SpecId) -> String {
        self.names.set(self.names.get() + 1);
        format!("{spec}-{}", self.names.get())
    }

    /// One of the names of a job's files.
    fn name_of(&self, job: usize) -> Option<String> {
        let jobs = self.jobs.borrow();
        let made = &jobs[job].made;
        let which = if made.is_empty() { 0 } else { self.below(made.len() as u64) as usize };
        made.iter().nth(which).filter(|_| jobs[job].may_write).cloned()
    }

    /// Asks for a change of names in a job, and says what was done.
    fn change_names(&self, job: usize, request: Request<'_>, said: String, new: Option<String>, old: Option<String>) {
        match self.ask().call(request) {
            Ok(_) => {
                self.say(|| said);
                let made = &mut self.jobs.borrow_mut()[job].made;
                made.retain(|name| Some(name) != old.as_ref());
                made.extend(new);
            }
            Err(fault) => self.refused(&said, &fault),
        }
    }

    fn make(&self, job: usize) {
        let Job { spec, view, may_write, .. } = self.jobs.borrow()[job].clone();
        if may_write {
            let name = self.new_name(spec);
            self.change_names(job, create(view, &name), format!("{spec} makes {name}"), Some(name.clone()), None);
        }
    }

    fn rename(&self, job: usize) {
        let Some(old) = self.name_of(job) else { return };
        let Job { spec, view, .. } = self.jobs.borrow()[job].clone();
        let (new, parent, mode) = (self.new_name(spec), Ino::ROOT, RenameMode::Replace);
        let (name, new_name) = (old.as_bytes(), new.as_bytes());
        let request = Request::Rename { view, parent, name, new_parent: parent, new_name, mode };
        self.change_names(job, request, format!("{spec} renames {old} to {new}"), Some(new.clone()), Some(old.clone()));
    }

    fn remove(&self, job: usize) {
        let Some(old) = self.name_of(job) else { return };
        let Job { spec, view, .. } = self.jobs.borrow()[job].clone();
        let request = Request::Unlink { view, parent: Ino::ROOT, name: old.as_bytes() };
        self.change_names(job, request, format!("{spec} removes {old}"), None, Some(old.clone()));
    }

    fn count_on_trunk(&self) {
        let number = self.below(COUNTERS as u64) as usize;
        let count = match read(&*self.ask(), self.trunk.get(), self.counters[number]) {
            Ok(count) => count,
            Err(fault) => return self.refused("read on trunk", &fault),
        };
        match write(&*self.ask(), self.trunk.get(), self.counters[number], count + 1) {
            Ok(()) => {
                self.kernel.is_written(self.counters[number], text_of(count + 1).as_bytes());
                self.say(|| format!("trunk writes to {number}: {}", count + 1));
                self.on_trunk.borrow_mut()[number] += 1;
            }
            Err(fault) => self.refused("count on trunk", &fault),
        }
    }

    /// What a program on trunk sees, with what its kernel has kept, is what is so now: whatever else it has looked at, it sees nothing
    /// older.
    fn look_on_trunk(&self) {
        let (ask, view) = (self.ask(), self.trunk.get());
        let counter = self.below(COUNTERS as u64);
        let name = {
            let jobs = self.jobs.borrow();
            let names: Vec<&String> = jobs.iter().flat_map(|job| &job.made).collect();
            let which = if names.is_empty() { 0 } else { self.below(names.len() as u64) as usize };
            names.get(which).map_or(b"nothing".to_vec(), |name| name.as_bytes().to_vec())
        };
        let looked = (|| {
            let ino = self.kernel.look_up(&*ask, format!("counter {counter}").as_bytes())?.expect("a counter stays");
            let bytes = (self.kernel.read(&*ask, ino)?, kernel::read(&*ask, view, ino, Reads::Once)?);
            let sizes =
                (self.kernel.size(&*ask, ino)?, ask.attr(Request::GetAttr { view, ino }).map(|attr| attr.size)?);
            let names = (self.kernel.look_up(&*ask, &name)?, kernel::look_up(&*ask, view, &name)?.0);
            Ok((bytes, sizes, names))
        })();
        match looked {
            Ok((bytes, sizes, names)) => {
                self.say(|| format!("trunk looks: {bytes:?} {sizes:?} {names:?}"));
                assert_eq!(bytes.0, bytes.1, "bytes that the kernel has kept, and those that are there");
                assert_eq!(sizes.0, sizes.1, "a size that the kernel has kept, and the one that there is");
                assert_eq!(names.0, names.1, "what the kernel takes a name for, and what it leads to");
            }
            Err(fault) => self.refused("look on trunk", &fault),
        }
    }

    fn decide(&self, job: usize, how: &str) {
        let spec = self.jobs.borrow()[job].spec;
        self.say(|| format!("{how} {spec}"));
        // Records are opened again after a failure, for which those have to let go of them that wait here.
        IS_DECIDING.set(self.fails && self.depth.get() == 0);
        let request = match how {
            "commit" => Request::Commit { spec, uid: 0, resolutions: Vec::new(), touch: false },
            "abort" => Request::Abort { spec, uid: 0, back: None },
            _ => Request::Hold { spec, uid: 0 },
        };
        let decided = self.ask().outcome(request);
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
            }
            Err(fault) => self.refused(how, &fault),
        }
    }

    /// Each counter says what was counted by what is committed.
    pub(crate) fn check(&self) {
        if self.is_stopped.get() {
            return;
        }
        let mut expected = *self.on_trunk.borrow();
        let mut names: BTreeSet<String> = (0..COUNTERS).map(|number| format!("counter {number}")).collect();
        let jobs = self.jobs.borrow();
        for job in jobs.iter() {
            let mut whole = job;
            while let Some(outer) = whole.outer.filter(|_| whole.is_part) {
                whole = jobs.iter().find(|job| job.spec == outer).expect("it began before");
            }
            let state = state(&*self.ask(), whole.spec);
            if let Some(told @ (SpecState::Committed | SpecState::Aborted)) = job.told {
                assert_eq!(state, told, "speculation {} was told so", job.spec);
            }
            if state == SpecState::Committed {
                (0..COUNTERS).for_each(|number| expected[number] += job.counted[number]);
                names.extend(job.made.iter().cloned());
            }
        }
        let found = self.counters.map(|ino| read(&*self.ask(), self.trunk.get(), ino).expect("trunk waits for nobody"));
        assert_eq!(found, expected, "of what is committed");
        let list = Request::ReadDir { view: self.trunk.get(), ino: Ino::ROOT, after: None, limit: 1000, attrs: false };
        let (entries, _) = self.ask().entries(list).expect("trunk waits for nobody");
        let found: BTreeSet<String> =
            entries.into_iter().map(|entry| String::from_utf8(entry.name).expect("text")).collect();
        assert_eq!(found, names, "of what is committed");
    }

    /// Decides what is undecided, one after the other.
    pub(crate) fn end(&self) {
        for turn in 0.. {
            if self.is_stopped.get() {
                return;
            }
            self.look_who_is_over();
            let open: Vec<usize> = {
                let jobs = self.jobs.borrow();
                (0..jobs.len()).filter(|job| !jobs[*job].is_over).collect()
            };
            if open.is_empty() {
                return;
            }
            assert!(turn < 10, "{} are undecided for ever", open.len());
            // Inner ones first.
            for job in open.into_iter().rev() {
                let how = if turn < 2 && self.below(3) > 0 { "commit" } else { "abort" };
                if !self.is_stopped.get() {
                    self.decide(job, how);
                }
            }
        }
    }
}

fn state(ask: &dyn Connection, spec: SpecId) -> SpecState {
    match ask.outcome(Request::Outcome { spec }) {
        Ok(outcome) => outcome.state,
        // Whoever goes without a word was undone.
        Err(fault) if fault.kind == FaultKind::NotFound => SpecState::Aborted,
        Err(fault) => panic!("speculation {spec}: {fault}"),
    }
}

fn create(view: ViewId, name: &str) -> Request<'_> {
    let (mode, umask, uid, gid, rdev, target) = (0o644, 0, 0, 0, 0, &b""[..]);
    let (parent, name, kind) = (Ino::ROOT, name.as_bytes(), FileKind::Regular);
    Request::Create { view, parent, name, kind, mode, umask, uid, gid, rdev, target }
}

fn text_of(count: u64) -> String {
    format!("{count:8}")
}

fn write(ask: &dyn Connection, view: ViewId, ino: Ino, count: u64) -> Result<(), Fault> {
    let data = text_of(count);
    let write = Request::Write {
        view,
        ino,
        offset: 0,
        data: data.as_bytes(),
        append: false,
        clear_set_id: false,
        mapped: false,
    };
    ask.offset(write).map(drop)
}

fn read(ask: &dyn Connection, view: ViewId, ino: Ino) -> Result<u64, Fault> {
    let data = ask.data(Request::Read { view, ino, offset: 0, size: 8, reads: Reads::Once })?;
    let text = String::from_utf8(data).expect("text");
    Ok(text.trim().parse().unwrap_or_else(|why| panic!("`{text}` is no number: {why}")))
}
