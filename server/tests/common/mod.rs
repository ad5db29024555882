//! What the histories share: a server on a store of its own, spoken to as a client does, and how much of it is run.

// Each test is a program of its own and uses a part of this.
#![allow(dead_code)]

use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::{Attr, FileKind};
use mojavefs::protocol::{
    Admin, Caller, Connection, ConnectionExt, FsOp, JobInfo, OnRead, Outcome, Reply, Resolution, SpecOp, ViewKind,
    ViewOp,
};
use mojavefs_server::Server;
use mojavefs_server::store::engine::memory::Memory;
use mojavefs_server::store::engine::{Blobs, Directory, Engine};
use mojavefs_server::store::{Report, StoreOptions, fsck};
use proptest::test_runner::Config;
use std::sync::Arc;
use tempfile::TempDir;

pub(crate) const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

/// How many histories are played: with `MOJAVEFS_SOAK`, many times more.
pub(crate) fn config(cases: u32) -> Config {
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let cases = if soak { cases * 50 } else { cases };
    // Failures are printed; a history worth keeping becomes a test of its own.
    Config { cases, failure_persistence: None, max_shrink_iters: 1000, max_shrink_time: 30_000, ..Config::default() }
}

/// Where a store lies.
pub(crate) enum Place {
    Disk(TempDir),
    Memory(Memory),
}

impl Place {
    /// In a directory, with RocksDB.
    pub(crate) fn disk() -> Self {
        Place::Disk(TempDir::new().expect("a directory for the store"))
    }

    pub(crate) fn memory() -> Self {
        Place::Memory(Memory::of(1 << 30))
    }

    pub(crate) fn engine(&self) -> Box<dyn Engine> {
        match self {
            Place::Disk(dir) => Box::new(Directory::at(dir.path())),
            Place::Memory(memory) => Box::new(memory.clone()),
        }
    }
}

/// A store and a client's session with its server.
pub(crate) struct Client {
    /// Dropped in this order: the session closes its views, and the server the store.
    open: Option<(Arc<dyn Connection>, Server)>,
    pub(crate) trunk: ViewId,
    place: Place,
}

impl Client {
    /// With a store in memory.
    pub(crate) fn new() -> Self {
        Self::on(Place::memory())
    }

    pub(crate) fn on(place: Place) -> Self {
        let mut client = Client { open: None, trunk: ViewId(0), place };
        client.reopen();
        client
    }

    /// Closes the store and opens it again: what is undecided and not held is gone.
    pub(crate) fn reopen(&mut self) {
        self.open = None;
        let server = Server::open(&*self.place.engine(), OPTIONS).expect("the store opens");
        let connection = server.connect(false);
        self.trunk = connection.view(ViewOp::Open(ViewKind::Trunk)).expect("a view of trunk").view;
        self.open = Some((connection, server));
    }

    pub(crate) fn ask(&self) -> &dyn Connection {
        &*self.open.as_ref().expect("the store is open").0
    }

    /// Starts a job in the view `parent`.
    pub(crate) fn begin(&self, parent: ViewId) -> (ViewId, SpecId) {
        let (info, on_read, restarts) = (JobInfo::default(), OnRead::Isolate, Some(String::new()));
        let kind = ViewKind::Job { parent, info, on_read, own: None, restarts };
        let opened = self.ask().view(ViewOp::Open(kind)).expect("a job begins");
        (opened.view, opened.spec.expect("a job has a speculation"))
    }

    /// A view of a speculation that was held.
    pub(crate) fn inside(&self, spec: SpecId) -> ViewId {
        self.ask().view(ViewOp::Open(ViewKind::Inside { spec, uid: 0 })).expect("a view of what is held").view
    }

    pub(crate) fn commit(&self, spec: SpecId, resolutions: Vec<Resolution>) -> Outcome {
        self.ask().outcome(SpecOp::Commit { spec, resolutions, touch: false }.by(0)).expect("a vote")
    }

    pub(crate) fn abort(&self, spec: SpecId) {
        self.ask().outcome(SpecOp::Abort { spec }.by(0)).expect("an abort");
    }

    pub(crate) fn hold(&self, spec: SpecId) {
        self.ask().outcome(SpecOp::Hold { spec }.by(0)).expect("a hold");
    }

    pub(crate) fn create(&self, view: ViewId, parent: Ino, name: &[u8], kind: FileKind) -> Result<Attr, Fault> {
        let target: &[u8] = if kind == FileKind::Symlink { b"some/where" } else { b"" };
        let (mode, umask, uid, gid, rdev) = (0o666, 0o022, 0, 0, 0);
        self.ask()
            .attr(FsOp::Create { parent, name, kind, mode, umask, rdev, target }.of(view, Caller { pid: 0, uid, gid }))
    }

    /// Up to `steps` steps of background work; true if more is left.
    pub(crate) fn reclaim(&self, steps: u8) -> bool {
        (0..steps).all(|_| match self.ask().call(Admin::Reclaim.into()) {
            Ok(Reply::Reclaimed { more, .. }) => more,
            other => panic!("a step of background work gave {other:?}"),
        })
    }

    /// Closes the store for good, with nothing undecided: nothing may be wrong with it, and nothing left in it that no view
    /// can reach.
    pub(crate) fn check(self) {
        self.checked();
    }

    /// The same; returns what else was found.
    pub(crate) fn checked(mut self) -> Report {
        while self.reclaim(100) {}
        self.open = None;
        let report = fsck(&*self.place.engine(), OPTIONS, &mut |_| {}).expect("the store opens");
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert!(problems.is_empty(), "fsck: {problems:#?}");
        let unreachable = (report.unreachable, report.unreachable_blocks, report.unreachable_files);
        assert_eq!(unreachable, (0, 0, 0), "versions, blocks and content files that no view can reach: {report:?}");
        report
    }

    /// How many content files there are.
    pub(crate) fn content_files(&self) -> usize {
        match &self.place {
            Place::Disk(dir) => std::fs::read_dir(dir.path().join("content")).expect("list").count(),
            Place::Memory(memory) => memory.blobs().list().expect("list").len(),
        }
    }
}
