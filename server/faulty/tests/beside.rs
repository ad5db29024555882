//! A commit holds up nobody while the disk does not answer, but for those who would change what it commits; these go on when it has,
//! or could not be recorded.

use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::fault::{Fault as Refusal, FaultKind};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{
    Caller, Connection, ConnectionExt, FsOp, JobInfo, OnRead, Reply, Request, Rounds, SpecOp, SpecState, ViewKind,
    ViewOp,
};
use mojavefs_faulty::{Call, Fault, Faulty};
use mojavefs_server::Server;
use mojavefs_server::store::{StoreOptions, fsck};
use parking_lot::{Condvar, Mutex};
use std::cell::Cell;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, ScopedJoinHandle};

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;
/// Threads of this name wait for the disk.
const SLOW: &str = "slow";

thread_local! {
    /// What this thread has written down is not on disk yet.
    static IS_RECORDED: Cell<bool> = const { Cell::new(false) };
}

/// Which call of slow threads is held up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum HeldUp {
    /// The first that changes records.
    Apply,
    /// The first sync after that.
    Sync,
    /// What brings content into memory.
    Fetch,
}

#[derive(Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_open: bool,
    /// How many wait.
    waiting: usize,
    /// The names of threads that have called something.
    called: HashSet<String>,
}

impl Gate {
    fn pass(&self, held_up: HeldUp, call: Call) {
        let name = thread::current().name().unwrap_or_default().to_owned();
        let mut state = self.state.lock();
        let is_slow = name == SLOW;
        state.called.insert(name);
        self.changed.notify_all();
        let is_apply = matches!(call, Call::Apply { .. });
        let stops = match held_up {
            HeldUp::Apply => is_apply,
            HeldUp::Fetch => call == Call::Fetch,
            HeldUp::Sync => call == Call::SyncRecords && IS_RECORDED.get(),
        };
        if is_slow && is_apply {
            IS_RECORDED.set(true);
        }
        if is_slow && stops {
            state.waiting += 1;
            self.changed.notify_all();
            self.changed.wait_while(&mut state, |state| !state.is_open);
        }
    }

    fn wait_until(&self, holds: impl Fn(&State) -> bool) {
        self.changed.wait_while(&mut self.state.lock(), |state| !holds(state));
    }

    fn open(&self) {
        self.state.lock().is_open = true;
        self.changed.notify_all();
    }
}

struct World {
    /// The session, which refuses what has to wait, and one that waits.
    at_once: Arc<dyn Connection>,
    ask: Arc<dyn Connection>,
    trunk: ViewId,
    place: Faulty,
    gate: Arc<Gate>,
    /// Dropped last.
    _server: Server,
}

impl World {
    fn new(held_up: HeldUp) -> Self {
        let (place, gate) = (Faulty::of(CAPACITY_BYTES), Arc::new(Gate::default()));
        let server = Server::open(&place, OPTIONS).expect("the store opens");
        let at_once = server.connect(false);
        let ask: Arc<dyn Connection> = Arc::new(Rounds::of(at_once.clone()));
        let trunk = ask.view(ViewOp::Open(ViewKind::Trunk)).expect("trunk").view;
        let watched = gate.clone();
        place.before_each(move |call| watched.pass(held_up, call));
        World { at_once, ask, trunk, place, gate, _server: server }
    }

    fn begin(&self, on_read: OnRead) -> (ViewId, SpecId) {
        let (info, restarts) = (JobInfo::default(), Some(String::new()));
        let kind = ViewKind::Job { parent: self.trunk, info, on_read, own: None, restarts };
        let opened = self.ask.view(ViewOp::Open(kind)).expect("a job");
        (opened.view, opened.spec.expect("a job has a speculation"))
    }

    fn inside(&self, spec: SpecId) -> ViewId {
        self.ask.view(ViewOp::Open(ViewKind::Inside { spec, uid: 0 })).expect("a view of what is held").view
    }

    fn find(&self, view: ViewId, name: &[u8]) -> Result<Ino, Refusal> {
        self.ask.attr(FsOp::Lookup { parent: Ino::ROOT, name }.on(view)).map(|attr| attr.ino)
    }

    fn write(&self, view: ViewId, name: &[u8], data: &[u8]) -> Result<(), Refusal> {
        let (parent, kind, target): (_, _, &[u8]) = (Ino::ROOT, FileKind::Regular, b"");
        let (mode, umask, uid, gid, rdev) = (0o644, 0, 0, 0, 0);
        let create =
            FsOp::Create { parent, name, kind, mode, umask, rdev, target }.of(view, Caller { pid: 0, uid, gid });
        let ino = match self.find(view, name) {
            Err(fault) if fault.kind == FaultKind::NotFound => self.ask.attr(create)?.ino,
            found => found?,
        };
        self.ask
            .changed(FsOp::Write { ino, offset: 0, data, append: false, clear_set_id: false, mapped: false }.on(view))
            .map(drop)
    }

    fn read(&self, view: ViewId, name: &[u8]) -> Option<String> {
        let ino = match self.find(view, name) {
            Err(fault) if fault.kind == FaultKind::NotFound => return None,
            found => found.expect("a name"),
        };
        let bytes = self
            .ask
            .data(FsOp::Read { ino, offset: 0, size: 100, reads: mojavefs::protocol::Reads::Once }.on(view))
            .expect("bytes");
        Some(String::from_utf8(bytes).expect("text"))
    }

    fn decide(&self, request: Request<'_>) -> Result<SpecState, Refusal> {
        self.ask.outcome(request).map(|outcome| outcome.state)
    }

    fn commit(&self, spec: SpecId) -> Result<SpecState, Refusal> {
        self.decide(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0))
    }

    fn abort(&self, spec: SpecId) -> Result<SpecState, Refusal> {
        self.decide(SpecOp::Abort { spec }.by(0))
    }

    fn hold(&self, spec: SpecId) -> Result<SpecState, Refusal> {
        self.decide(SpecOp::Hold { spec }.by(0))
    }

    fn undecided(&self) -> Vec<SpecId> {
        match self.ask.call(SpecOp::Status.by(0)).expect("a status") {
            Reply::Status(all) => all.into_iter().map(|status| status.id).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// A job that has changed these files, and whose commit waits for the disk.
    fn sealed<'s, 'e>(
        &'e self,
        scope: &'s thread::Scope<'s, 'e>,
        names: &[&[u8]],
    ) -> (ViewId, SpecId, ScopedJoinHandle<'s, Result<SpecState, Refusal>>) {
        let (view, spec) = self.begin(OnRead::Join);
        names.iter().for_each(|name| self.write(view, name, b"new").expect("a write"));
        let commit = self.beside(scope, SLOW, move || self.commit(spec));
        self.gate.wait_until(|state| state.waiting == 1);
        (view, spec, commit)
    }

    /// Does something in a thread of its own.
    fn beside<'s, 'e, T: Send + 's>(
        &'e self,
        scope: &'s thread::Scope<'s, 'e>,
        name: &str,
        work: impl FnOnce() -> T + Send + 's,
    ) -> ScopedJoinHandle<'s, T> {
        thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).expect("a thread")
    }

    /// The same, for something that has to wait: returns when it has looked at the store.
    fn waits<'s, 'e, T: Send + 's>(
        &'e self,
        scope: &'s thread::Scope<'s, 'e>,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 's,
    ) -> ScopedJoinHandle<'s, T> {
        let handle = self.beside(scope, name, work);
        self.gate.wait_until(|state| state.called.contains(name));
        handle
    }

    /// The store after a restart.
    fn reopened(self) -> World {
        let World { at_once, ask, place, gate, _server: server, .. } = self;
        gate.open();
        drop((at_once, ask, server));
        let server = Server::open(&place, OPTIONS).expect("the store opens");
        let at_once = server.connect(false);
        let ask: Arc<dyn Connection> = Arc::new(Rounds::of(at_once.clone()));
        let trunk = ask.view(ViewOp::Open(ViewKind::Trunk)).expect("trunk").view;
        World { at_once, ask, trunk, place, gate, _server: server }
    }

    fn check(self) {
        let World { at_once, ask, place, _server: server, .. } = self;
        drop((at_once, ask, server));
        let problems = fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked").problems;
        assert!(problems.is_empty(), "{}", problems[0]);
    }
}

/// Whatever panics meanwhile, nobody waits for ever.
struct OpensAtEnd<'a>(&'a Gate);

impl Drop for OpensAtEnd<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

#[test]
fn while_a_commit_waits_for_the_disk_everybody_else_goes_on() {
    let world = World::new(HeldUp::Sync);
    world.write(world.trunk, b"a", b"old").expect("a write");
    world.write(world.trunk, b"b", b"old").expect("a write");
    thread::scope(|scope| {
        let world = &world;
        let _opens = OpensAtEnd(&world.gate);
        let (view, spec, commit) = world.sealed(scope, &[b"a"]);
        // On trunk: what was final is final still, and everything else can be changed.
        assert_eq!(world.read(world.trunk, b"a").as_deref(), Some("old"));
        world.write(world.trunk, b"b", b"two").expect("a write");
        world.write(world.trunk, b"c", b"new").expect("a file");
        // The job itself may look.
        assert_eq!(world.read(view, b"a").as_deref(), Some("new"));
        // Others begin, change, join, are committed, held, and aborted, and held work is.
        let (other, committed) = world.begin(OnRead::Isolate);
        world.write(other, b"d", b"new").expect("a write");
        assert_eq!(world.commit(committed), Ok(SpecState::Committed));
        assert_eq!(world.read(world.trunk, b"d").as_deref(), Some("new"));
        let (other, held) = world.begin(OnRead::Join);
        world.write(other, b"e", b"new").expect("a write");
        assert_eq!(world.hold(held), Ok(SpecState::Held));
        // A conflict of it is written down.
        world.write(world.trunk, b"e", b"trunk").expect("a write");
        assert_eq!(world.abort(held), Ok(SpecState::Aborted));
        let (joined, joins) = world.begin(OnRead::Join);
        assert_eq!(world.read(joined, b"a").as_deref(), Some("new"));
        assert_eq!(world.undecided(), [spec, joins]);
        world.gate.open();
        assert_eq!(commit.join().expect("no panic"), Ok(SpecState::Committed));
        // Who has joined what was sealed depends on nothing any more.
        assert_eq!(world.commit(joins), Ok(SpecState::Committed));
    });
    assert_eq!(world.read(world.trunk, b"a").as_deref(), Some("new"));
    world.check();
}

#[test]
fn while_content_is_read_from_the_disk_everybody_else_goes_on() {
    let world = World::new(HeldUp::Fetch);
    // More than lies in a record.
    let content = "old ".repeat(50_000);
    world.write(world.trunk, b"big", content.as_bytes()).expect("a write");
    thread::scope(|scope| {
        let world = &world;
        let _opens = OpensAtEnd(&world.gate);
        world.place.drop_cache();
        let look = world.beside(scope, SLOW, move || world.read(world.trunk, b"big"));
        world.gate.wait_until(|state| state.waiting == 1);
        let (view, spec) = world.begin(OnRead::Join);
        world.write(view, b"a", b"new").expect("a write");
        world.write(world.trunk, b"b", b"new").expect("a write");
        assert_eq!(world.commit(spec), Ok(SpecState::Committed));
        assert_eq!(world.read(world.trunk, b"a").as_deref(), Some("new"));
        let (view, spec) = world.begin(OnRead::Join);
        world.write(view, b"a", b"undone").expect("a write");
        assert_eq!(world.abort(spec), Ok(SpecState::Aborted));
        world.gate.open();
        assert_eq!(look.join().expect("no panic").as_deref(), Some(&content[..100]));
    });
    world.check();
}

#[test]
fn who_writes_on_and_on_while_its_job_is_held_waits_the_third_time() {
    let world = World::new(HeldUp::Fetch);
    let (view, spec) = world.begin(OnRead::Join);
    // More than lies in a record.
    world.write(view, b"big", "old ".repeat(50_000).as_bytes()).expect("a write");
    let ino = world.find(view, b"big").expect("it is there");
    let write = |ask: &dyn Connection, data: &[u8]| {
        ask.changed(FsOp::Write { ino, offset: 0, data, append: false, clear_set_id: false, mapped: false }.on(view))
            .map(drop)
    };
    let (begins, begun) = mpsc::channel();
    let (answer, answered) = mpsc::channel();
    let syncs = Mutex::new((begins, answered));
    world.place.before_each(move |call| {
        if call == Call::SyncBlob && thread::current().name() == Some(SLOW) {
            let syncs = syncs.lock();
            syncs.0.send(()).expect("the test runs");
            syncs.1.recv().expect("the test runs");
        }
    });
    thread::scope(|scope| {
        let world = &world;
        let hold = world.beside(scope, SLOW, move || world.hold(spec));
        for turn in ["1st ", "2nd "] {
            begun.recv().expect("it is written to disk");
            write(&*world.at_once, turn.as_bytes()).expect("a write");
            answer.send(()).expect("it waits");
        }
        begun.recv().expect("it is written to disk");
        let late = write(&*world.at_once, b"late").expect_err("it is being written down");
        assert_eq!(late.kind, FaultKind::Sealed, "{late}");
        // Whoever else it is may write.
        world.write(world.trunk, b"other", b"new").expect("a write");
        let late = world.beside(scope, "late", move || write(&*world.ask, b"late"));
        answer.send(()).expect("it waits");
        assert_eq!(hold.join().expect("no panic"), Ok(SpecState::Held));
        assert_eq!(late.join().expect("no panic"), Ok(()));
    });
    world.check();
}

#[test]
fn who_would_change_what_is_being_committed_comes_after_it() {
    let world = World::new(HeldUp::Sync);
    ["a", "b"].into_iter().for_each(|name| world.write(world.trunk, name.as_bytes(), b"old").expect("a write"));
    thread::scope(|scope| {
        let world = &world;
        let _opens = OpensAtEnd(&world.gate);
        let (view, spec, commit) = world.sealed(scope, &[b"a"]);
        let changes = world.waits(scope, "trunk", move || world.write(world.trunk, b"a", b"trunk"));
        // The job's own changes, which come too late.
        let own = world.waits(scope, "own", move || world.write(view, b"b", b"job"));
        // Its owner's abort, too.
        let abort = world.beside(scope, "abort", move || world.abort(spec));
        // What builds on it is decided once that is.
        let (joined, joins) = world.begin(OnRead::Join);
        assert_eq!(world.read(joined, b"a").as_deref(), Some("new"));
        let follows = world.beside(scope, "follows", move || world.commit(joins));
        world.gate.open();
        assert_eq!(commit.join().expect("no panic"), Ok(SpecState::Committed));
        assert_eq!(changes.join().expect("no panic"), Ok(()));
        let late = own.join().expect("no panic").expect_err("its job is over");
        assert_eq!(late.kind, FaultKind::Stale, "{late}");
        let late = abort.join().expect("no panic").expect_err("it is committed");
        assert_eq!(late.kind, FaultKind::Decided, "{late}");
        // It has read what trunk has changed meanwhile, or was faster.
        assert!(follows.join().expect("no panic").is_ok());
    });
    assert_eq!(world.read(world.trunk, b"a").as_deref(), Some("trunk"));
    assert_eq!(world.read(world.trunk, b"b").as_deref(), Some("old"));
    world.check();
}

#[test]
fn who_waits_for_a_commit_that_fails_goes_on_as_if_it_had_not_been() {
    let world = World::new(HeldUp::Apply);
    world.write(world.trunk, b"a", b"old").expect("a write");
    thread::scope(|scope| {
        let world = &world;
        let _opens = OpensAtEnd(&world.gate);
        let (_, spec, commit) = world.sealed(scope, &[b"a"]);
        let changes = world.waits(scope, "trunk", move || {
            let ino = world.find(world.trunk, b"a")?;
            let set = SetAttr { mode: Some(0o600), ..SetAttr::default() };
            world.ask.attr(FsOp::SetAttr { ino, set }.on(world.trunk)).map(|attr| attr.mode)
        });
        world.place.plan_next(Fault::Fail, |call| matches!(call, Call::Apply { .. }), 1);
        world.gate.open();
        let failed = commit.join().expect("no panic").expect_err("its record could not be written");
        assert!(failed.to_string().contains(&format!("speculation {spec} was rolled back")), "{failed}");
        assert_eq!(changes.join().expect("no panic"), Ok(0o600));
    });
    assert_eq!(world.read(world.trunk, b"a").as_deref(), Some("old"));
    assert_eq!(world.undecided(), []);
    world.check();
}

#[test]
fn who_begins_to_stay_with_what_is_final_while_a_commit_is_under_way_does_not_see_it_later() {
    let world = World::new(HeldUp::Sync);
    world.write(world.trunk, b"a", b"old").expect("a write");
    let held = thread::scope(|scope| {
        let world = &world;
        let _opens = OpensAtEnd(&world.gate);
        let (_, _, commit) = world.sealed(scope, &[b"a"]);
        let (view, stays) = world.begin(OnRead::Isolate);
        world.write(view, b"mine", b"new").expect("a write");
        let hold = world.beside(scope, "hold", move || world.hold(stays));
        world.gate.open();
        assert_eq!(commit.join().expect("no panic"), Ok(SpecState::Committed));
        assert_eq!(world.read(view, b"a").as_deref(), Some("old"));
        assert_eq!(hold.join().expect("no panic"), Ok(SpecState::Held));
        stays
    });
    let world = world.reopened();
    assert_eq!(world.read(world.trunk, b"a").as_deref(), Some("new"));
    let inside = world.inside(held);
    assert_eq!(world.read(inside, b"a").as_deref(), Some("old"));
    assert_eq!(world.read(inside, b"mine").as_deref(), Some("new"));
    world.check();
}
