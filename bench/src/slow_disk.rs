//! What a server answers while commits wait for a disk that takes half a second for each sync, beside the same while nobody commits.
//!
//! Spoken to as a client does, without a kernel, which would add the same to both.

use crate::table::Table;
use crate::{Outcome, seconds};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{
    Caller, Connection, ConnectionExt, FsOp, JobInfo, OnRead, Request, Rounds, SpecOp, ViewKind, ViewOp,
};
use mojavefs_server::Server;
use mojavefs_server::store::StoreOptions;
use mojavefs_server::store::engine::{
    Access, Blobs, Cursor, Directory, Engine, EngineError, Family, Records, Space, Taken, Uncached, WriteBatch,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const SYNC_TIME: Duration = Duration::from_millis(500);
/// How often each is done, in one run.
const TIMES: usize = 10_000;
const RUNS: usize = 5;
/// So many commit one after the other, begun apart, so that one at least is under way at any time.
const COMMITTERS: u32 = 4;

/// What is done: by whom, and what.
const KINDS: [&str; 12] = [
    "stat on trunk",
    "read on trunk",
    "write on trunk",
    "create on trunk",
    "stat in a job",
    "read in a job",
    "write in a job",
    "create in a job",
    "begin",
    "join",
    "abort",
    "status",
];

struct World {
    ask: Arc<dyn Connection>,
    trunk: ViewId,
    /// Commits that wait for the disk.
    syncing: AtomicUsize,
    is_slow: Arc<AtomicBool>,
    _server: Server,
    /// Dropped last.
    _dir: TempDir,
}

impl Drop for World {
    /// Closing it is not measured.
    fn drop(&mut self) {
        self.is_slow.store(false, Ordering::SeqCst);
    }
}

/// The project's own engine on a disk that takes so long for each sync of the log.
struct Slow {
    on: Directory,
    is_slow: Arc<AtomicBool>,
}

struct SlowTaken(Arc<dyn Taken>, Arc<AtomicBool>);

struct SlowRecords(Arc<dyn Records>, Arc<AtomicBool>);

impl Engine for Slow {
    fn name(&self) -> String {
        self.on.name()
    }

    fn take(&self, access: Access) -> Result<Arc<dyn Taken>, EngineError> {
        Ok(Arc::new(SlowTaken(self.on.take(access)?, self.is_slow.clone())))
    }
}

impl Taken for SlowTaken {
    fn is_new(&self) -> bool {
        self.0.is_new()
    }

    fn note(&self) -> Option<String> {
        self.0.note()
    }

    fn records(&self, memory_bytes: usize) -> Result<Arc<dyn Records>, EngineError> {
        Ok(Arc::new(SlowRecords(self.0.records(memory_bytes)?, self.1.clone())))
    }

    fn blobs(&self) -> Result<Arc<dyn Blobs>, EngineError> {
        self.0.blobs()
    }

    fn space(&self) -> Arc<dyn Space> {
        self.0.space()
    }

    fn settle(&self) -> Result<(), EngineError> {
        self.0.settle()
    }

    fn discard(&self) {
        self.0.discard();
    }
}

impl Records for SlowRecords {
    fn fetch(&self, what: &Uncached) -> Result<(), EngineError> {
        self.0.fetch(what)
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, EngineError> {
        self.0.get(family, key)
    }

    fn contains(&self, family: Family, key: &[u8]) -> Result<bool, EngineError> {
        self.0.contains(family, key)
    }

    fn newest(
        &self,
        family: Family,
        prefix: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), EngineError> {
        self.0.newest(family, prefix, visit)
    }

    fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Box<dyn Cursor + 'a> {
        self.0.scan(family, prefix, from)
    }

    fn apply(&self, batch: &WriteBatch, synced: bool) -> Result<(), EngineError> {
        self.0.apply(batch, false)?;
        if synced { self.sync() } else { Ok(()) }
    }

    fn sync(&self) -> Result<(), EngineError> {
        if self.1.load(Ordering::SeqCst) {
            std::thread::sleep(SYNC_TIME);
        }
        self.0.sync()
    }

    fn flush(&self) -> Result<(), EngineError> {
        self.0.flush()
    }

    fn reached(&self) -> u64 {
        self.0.reached()
    }
}

impl World {
    fn new() -> Outcome<Self> {
        let dir = tempfile::Builder::new().prefix("mojavefs-bench.").tempdir()?;
        let is_slow = Arc::new(AtomicBool::new(false));
        let place = Slow { on: Directory::at(dir.path()), is_slow: is_slow.clone() };
        let server = Server::open(&place, StoreOptions { memory_bytes: 256 << 20, owner: (0, 0) })?;
        let ask: Arc<dyn Connection> = Arc::new(Rounds::of(server.connect(false)));
        let trunk = ask.view(ViewOp::Open(ViewKind::Trunk))?.view;
        is_slow.store(true, Ordering::SeqCst);
        Ok(World { ask, trunk, syncing: AtomicUsize::new(0), is_slow, _server: server, _dir: dir })
    }

    fn begin(&self, on_read: OnRead) -> Outcome<(ViewId, SpecId)> {
        let (info, restarts) = (JobInfo::default(), Some(String::new()));
        let kind = ViewKind::Job { parent: self.trunk, info, on_read, own: None, restarts };
        let opened = self.ask.view(ViewOp::Open(kind))?;
        Ok((opened.view, opened.spec.ok_or("a job has a speculation")?))
    }

    fn create(&self, view: ViewId, name: &str) -> Outcome<Ino> {
        let (kind, target, name): (_, &[u8], _) = (FileKind::Regular, b"", name.as_bytes());
        let (mode, umask, uid, gid, rdev) = (0o644, 0, 0, 0, 0);
        let create = FsOp::Create { parent: Ino::ROOT, name, kind, mode, umask, rdev, target }
            .of(view, Caller { pid: 0, uid, gid });
        Ok(self.ask.attr(create)?.ino)
    }

    fn write(&self, view: ViewId, ino: Ino) -> Outcome<()> {
        let data = &[7; 100];
        Ok(self
            .ask
            .changed(FsOp::Write { ino, offset: 0, data, append: false, clear_set_id: false, mapped: false }.on(view))
            .map(drop)?)
    }

    fn abort(&self, view: ViewId, spec: SpecId) -> Outcome<()> {
        self.ask.outcome(SpecOp::Abort { spec }.by(0))?;
        Ok(self.ask.done(ViewOp::Close(view))?)
    }

    /// Commits one job after the other until it is told to stop.
    fn commit_on(&self, name: &str, stop: &AtomicBool) -> Outcome<()> {
        for number in 0.. {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let (view, spec) = self.begin(OnRead::Join)?;
            self.create(view, &format!("{name}.{number}"))?;
            self.syncing.fetch_add(1, Ordering::SeqCst);
            let committed = self.ask.outcome(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0));
            self.syncing.fetch_sub(1, Ordering::SeqCst);
            committed?;
            self.ask.done(ViewOp::Close(view))?;
        }
        Ok(())
    }
}

/// What is measured on.
struct Scene {
    /// Of trunk, and of a job.
    views: [(ViewId, Ino); 2],
    /// What another job has changed, for others to join.
    met: String,
    /// What held work has changed: each change on trunk is a conflict of it.
    held: Ino,
}

impl Scene {
    fn new(world: &World, name: &str) -> Outcome<Self> {
        let trunk = (world.trunk, world.create(world.trunk, &format!("{name}.trunk"))?);
        let (job, _) = world.begin(OnRead::Join)?;
        let job = (job, world.create(job, &format!("{name}.job"))?);
        let (other, _) = world.begin(OnRead::Join)?;
        let met = format!("{name}.met");
        world.create(other, &met)?;
        let held = world.create(world.trunk, &format!("{name}.held"))?;
        let (holds, spec) = world.begin(OnRead::Join)?;
        world.write(holds, held)?;
        world.ask.outcome(SpecOp::Hold { spec }.by(0))?;
        Ok(Scene { views: [trunk, job], met, held })
    }

    /// How long one of a kind takes.
    fn time(&self, world: &World, kind: usize, name: &str) -> Outcome<Duration> {
        let timed = |work: &mut dyn FnMut() -> Outcome<()>| {
            let began = Instant::now();
            work()?;
            Ok(began.elapsed())
        };
        let ask = &world.ask;
        let (view, ino) = self.views[usize::from(kind >= 4)];
        match kind {
            0 | 4 => timed(&mut || Ok(ask.attr(FsOp::GetAttr { ino }.on(view)).map(drop)?)),
            1 | 5 => timed(&mut || {
                Ok(ask
                    .data(FsOp::Read { ino, offset: 0, size: 100, reads: mojavefs::protocol::Reads::Once }.on(view))
                    .map(drop)?)
            }),
            2 => {
                world.write(world.trunk, self.held)?;
                timed(&mut || world.write(view, ino))
            }
            6 => timed(&mut || world.write(view, ino)),
            3 | 7 => timed(&mut || world.create(view, name).map(drop)),
            8 => {
                let mut begun = None;
                let time = timed(&mut || {
                    begun = Some(world.begin(OnRead::Isolate)?);
                    Ok(())
                })?;
                begun.map_or(Ok(()), |(view, spec)| world.abort(view, spec))?;
                Ok(time)
            }
            9 => {
                let (view, spec) = world.begin(OnRead::Join)?;
                let name = self.met.as_bytes();
                let time = timed(&mut || Ok(ask.attr(FsOp::Lookup { parent: Ino::ROOT, name }.on(view)).map(drop)?))?;
                world.abort(view, spec)?;
                Ok(time)
            }
            10 => {
                let (view, spec) = world.begin(OnRead::Join)?;
                timed(&mut || world.abort(view, spec))
            }
            _ => timed(&mut || Ok(ask.call(SpecOp::Status.by(0)).map(drop)?)),
        }
    }
}

/// Of one kind: what one in a thousand takes longer than, and the longest.
#[derive(Clone, Copy)]
struct Times {
    late: Duration,
    longest: Duration,
}

impl Times {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        Times { late: all[all.len() - 1 - all.len() / 1000], longest: all[all.len() - 1] }
    }
}

/// Each kind, and how often no round was under way.
fn measure(world: &World, name: &str) -> Outcome<(Vec<Times>, usize)> {
    let scene = Scene::new(world, name)?;
    let (mut all, mut alone) = (Vec::new(), 0);
    for kind in 0..KINDS.len() {
        let mut times = Vec::new();
        for number in 0..TIMES {
            alone += usize::from(world.syncing.load(Ordering::SeqCst) == 0);
            times.push(scene.time(world, kind, &format!("{name}.{kind}.{number}"))?);
        }
        all.push(Times::of(times));
    }
    Ok((all, alone))
}

fn run(world: &World, number: usize) -> Outcome<[Vec<Times>; 2]> {
    let (quiet, _) = measure(world, &format!("quiet.{number}"))?;
    let stop = AtomicBool::new(false);
    let busy = std::thread::scope(|scope| {
        let commit = |committer: u32| {
            let stop = &stop;
            move || {
                std::thread::sleep(SYNC_TIME * 2 / COMMITTERS * committer);
                world.commit_on(&format!("{number}.{committer}"), stop).map_err(|error| error.to_string())
            }
        };
        let committers: Vec<_> = (0..COMMITTERS).map(|committer| scope.spawn(commit(committer))).collect();
        while world.syncing.load(Ordering::SeqCst) < 2 {
            std::thread::yield_now();
        }
        let measured = measure(world, &format!("busy.{number}"));
        stop.store(true, Ordering::SeqCst);
        for committer in committers {
            committer.join().map_err(|_| "a committer panicked")??;
        }
        measured
    });
    let (busy, alone) = busy?;
    if alone > 0 {
        return Err(format!("no commit was under way {alone} times").into());
    }
    Ok([quiet, busy])
}

/// How long those take that wait for the disk: a commit by itself, a change on trunk of what is being committed, from when it is, and
/// the abort of held work.
fn waits(world: &World, number: usize) -> Outcome<[Duration; 3]> {
    let name = format!("waits.{number}");
    let ino = world.create(world.trunk, &name)?;
    let (view, spec) = world.begin(OnRead::Join)?;
    world.write(view, ino)?;
    let timed = |request: Request<'_>| -> Outcome<Duration> {
        let began = Instant::now();
        world.ask.outcome(request)?;
        Ok(began.elapsed())
    };
    let (commit, change) = std::thread::scope(|scope| -> Outcome<(Duration, Duration)> {
        let commit = || {
            timed(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0))
                .map_err(|error| error.to_string())
        };
        let commit = scope.spawn(commit);
        while !world.ask.status(SpecOp::Status.by(0))?.iter().any(|status| status.sealed) {
            std::thread::yield_now();
        }
        let began = Instant::now();
        world.write(world.trunk, ino)?;
        let change = began.elapsed();
        Ok((commit.join().map_err(|_| "a committer panicked")??, change))
    })?;
    let (view, spec) = world.begin(OnRead::Join)?;
    world.create(view, &format!("{name}.held"))?;
    world.ask.outcome(SpecOp::Hold { spec }.by(0))?;
    Ok([commit, change, timed(SpecOp::Abort { spec }.by(0))?])
}

pub(crate) fn bench(filter: &str) -> Outcome<()> {
    if !"commits on a slow disk".contains(filter) {
        return Ok(());
    }
    who_does_not_wait()?;
    let world = World::new()?;
    let all = (0..RUNS).map(|number| waits(&world, number)).collect::<Outcome<Vec<_>>>()?;
    let mut table = Table::new(&["who waits", "median", "the longest, in syncs"]);
    for (kind, name) in ["a commit", "a change of what is being committed", "the abort of held work"].iter().enumerate()
    {
        let mut times: Vec<Duration> = all.iter().map(|times| times[kind]).collect();
        times.sort_unstable();
        let longest = times[times.len() - 1].as_secs_f64() / SYNC_TIME.as_secs_f64();
        table.row(&[(*name).to_owned(), seconds(crate::median(times)), format!("{longest:.2}")]);
    }
    table.print();
    Ok(())
}

fn who_does_not_wait() -> Outcome<()> {
    let head = ["one in 1,000 takes longer than", "nobody commits", "somebody does", "x", "the longest"];
    let mut table = Table::new(&head);
    let mut runs = Vec::new();
    for number in 0..RUNS {
        runs.push(run(&World::new()?, number)?);
    }
    for (kind, name) in KINDS.iter().enumerate() {
        let of = |which: usize| runs.iter().map(|run| run[which][kind]).collect::<Vec<_>>();
        let late = |times: Vec<Times>| crate::median(times.into_iter().map(|times| times.late).collect());
        let (quiet, busy) = (late(of(0)), late(of(1)));
        let longest = crate::median(of(1).into_iter().map(|times| times.longest).collect());
        table.row(&[
            (*name).to_owned(),
            seconds(quiet),
            seconds(busy),
            format!("{:.2}", busy.as_secs_f64() / quiet.as_secs_f64()),
            seconds(longest),
        ]);
    }
    table.print();
    Ok(())
}
