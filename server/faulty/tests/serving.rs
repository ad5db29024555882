//! The same for a whole server, spoken to as a client does: what it has acknowledged is there after the power was cut or a call
//! failed, and what it has refused is not. Its background work is done in threads of its own, so a case is another each time.

use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::fault::{Fault as Refusal, FaultKind};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{
    Caller, Connection, ConnectionExt, FsOp, JobInfo, OnRead, Rounds, SpecOp, SpecState, ViewKind, ViewOp,
};
use mojavefs_faulty::{Fault, Faulty, PowerCut};
use mojavefs_server::Server;
use mojavefs_server::store::{StoreOptions, fsck};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;
/// How long each file is: longer than a content that lies in the record store.
const LEN: usize = 100_000;
/// At so many calls something goes wrong, in `make soak` at all.
const CALLS_TRIED: u64 = 30;

/// What is known of one thing that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Told {
    /// It was not asked for.
    #[default]
    Nothing,
    /// It was, and there was no answer, or one that leaves it open.
    Unknown,
    Done,
    /// It is as if it had not been asked for.
    Refused,
}

#[derive(Debug, Default)]
struct History {
    synced: Told,
    committed: Told,
    held: Told,
    held_spec: Option<SpecId>,
    aborted: Told,
}

struct Client {
    ask: Arc<dyn Connection>,
    trunk: ViewId,
    /// Dropped last.
    _server: Server,
}

impl Client {
    fn open(place: &Faulty) -> Result<Self, Refusal> {
        let server = Server::open(place, OPTIONS).map_err(|why| Refusal::new(FaultKind::Io, why.to_string()))?;
        let ask: Arc<dyn Connection> = Arc::new(Rounds::of(server.connect(false)));
        let trunk = ask.view(ViewOp::Open(ViewKind::Trunk))?.view;
        Ok(Client { ask, trunk, _server: server })
    }

    fn begin(&self) -> Result<(ViewId, SpecId), Refusal> {
        let (info, on_read, restarts) = (JobInfo::default(), OnRead::Isolate, Some(String::new()));
        let kind = ViewKind::Job { parent: self.trunk, info, on_read, own: None, restarts };
        let opened = self.ask.view(ViewOp::Open(kind))?;
        Ok((opened.view, opened.spec.expect("a job has a speculation")))
    }

    fn write(&self, view: ViewId, name: &[u8], byte: u8) -> Result<Ino, Refusal> {
        let (parent, kind, target): (_, _, &[u8]) = (Ino::ROOT, FileKind::Regular, b"");
        let (mode, umask, uid, gid, rdev) = (0o644, 0, 0, 0, 0);
        let create =
            FsOp::Create { parent, name, kind, mode, umask, rdev, target }.of(view, Caller { pid: 0, uid, gid });
        let ino = match self.ask.attr(FsOp::Lookup { parent, name }.on(view)) {
            Err(fault) if fault.kind == FaultKind::NotFound => self.ask.attr(create)?.ino,
            found => found?.ino,
        };
        let data = &[byte; LEN];
        self.ask.changed(
            FsOp::Write { ino, offset: 0, data, append: false, clear_set_id: false, mapped: false }.on(view),
        )?;
        Ok(ino)
    }

    /// The byte that a file consists of; nothing if there is none.
    fn read(&self, view: ViewId, name: &[u8]) -> Option<u8> {
        let found = match self.ask.attr(FsOp::Lookup { parent: Ino::ROOT, name }.on(view)) {
            Err(fault) if fault.kind == FaultKind::NotFound => return None,
            found => found.expect("a name"),
        };
        let bytes = self.ask.data(
            FsOp::Read { ino: found.ino, offset: 0, size: found.size as u32, reads: mojavefs::protocol::Reads::Once }
                .on(view),
        );
        let bytes = bytes.expect("bytes");
        assert!(bytes.len() == LEN && bytes.iter().all(|byte| *byte == bytes[0]), "it is whole");
        Some(bytes[0])
    }

    fn commit(&self, spec: SpecId) -> Result<SpecState, Refusal> {
        self.ask
            .outcome(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0))
            .map(|outcome| outcome.state)
    }

    /// Asks for things, and notes in `told` what comes of it.
    fn play(&self, told: &mut History) -> Result<(), Refusal> {
        let file = self.write(self.trunk, b"synced", 1)?;
        self.ask.done(FsOp::Fsync { ino: file }.on(self.trunk))?;
        told.synced = Told::Done;

        let (view, spec) = self.begin()?;
        self.write(view, b"committed", 2)?;
        self.write(view, b"synced", 2)?;
        told.committed = Told::Unknown;
        told.committed = heard(self.commit(spec), SpecState::Committed);

        let (view, spec) = self.begin()?;
        self.write(view, b"held", 3)?;
        (told.held, told.held_spec) = (Told::Unknown, Some(spec));
        let held = self.ask.outcome(SpecOp::Hold { spec }.by(0)).map(|outcome| outcome.state);
        told.held = heard(held, SpecState::Held);

        let (view, spec) = self.begin()?;
        self.write(view, b"aborted", 4)?;
        self.ask.outcome(SpecOp::Abort { spec }.by(0))?;
        told.aborted = Told::Done;
        Ok(())
    }
}

/// What an answer says.
fn heard(answer: Result<SpecState, Refusal>, wanted: SpecState) -> Told {
    match answer {
        Ok(state) if state == wanted => Told::Done,
        Err(fault) if fault.kind == FaultKind::InDoubt => Told::Unknown,
        _ => Told::Refused,
    }
}

/// Whether what was told allows that a thing is there.
fn allows(told: Told, is_there: bool) -> bool {
    match told {
        Told::Unknown => true,
        Told::Done => is_there,
        Told::Nothing | Told::Refused => !is_there,
    }
}

/// Looks at what is left of it.
fn examine(place: &Faulty, told: &History) {
    let client = Client::open(place).expect("the store opens");
    let synced = if told.synced == Told::Done { client.read(client.trunk, b"synced") } else { None };
    let committed = client.read(client.trunk, b"committed");
    assert!(allows(told.committed, committed.is_some()), "{committed:?}, {told:?}");
    if told.synced == Told::Done {
        assert_eq!(synced, Some(if committed.is_some() { 2 } else { 1 }), "all of a commit or nothing of it, {told:?}");
    }
    assert_eq!(client.read(client.trunk, b"held"), None, "{told:?}");
    assert_eq!(client.read(client.trunk, b"aborted"), None, "{told:?}");
    if let Some(spec) = told.held_spec {
        let inside = client.ask.view(ViewOp::Open(ViewKind::Inside { spec, uid: 0 }));
        assert!(allows(told.held, inside.is_ok()), "{inside:?}, {told:?}");
        if let Ok(inside) = inside {
            assert_eq!(client.read(inside.view, b"held"), Some(3), "{told:?}");
            assert_eq!(client.commit(spec).expect("it is committed"), SpecState::Committed);
            assert_eq!(client.read(client.trunk, b"held"), Some(3), "{told:?}");
        }
    }
    drop(client);
    let problems = fsck(place, OPTIONS, &mut |_| {}).expect("it is checked").problems;
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    // What was not synced may be lost.
    let is_serious = |problem: &&String| told.synced == Told::Done || !problem.contains("content file");
    assert_eq!(problems.iter().find(is_serious), None, "{told:?}");
}

/// How many calls it takes.
fn calls(fault: Fault) -> u64 {
    let place = Faulty::of(CAPACITY_BYTES);
    let client = Client::open(&place).expect("the store opens");
    place.plan(fault, u64::MAX, 0);
    let mut told = History::default();
    client.play(&mut told).expect("nothing goes wrong");
    let calls = place.counts().hit_by(fault);
    assert_eq!([told.synced, told.committed, told.held, told.aborted], [Told::Done; 4]);
    drop(client);
    examine(&place, &told);
    calls
}

fn run(fault: Fault, at: u64, seed: u64) {
    println!("{fault:?} at call {at}, seed {seed}");
    let place = Faulty::of(CAPACITY_BYTES);
    let mut told = History::default();
    let opened = Client::open(&place).expect("the store opens");
    place.plan(fault, at, seed);
    let played = catch_unwind(AssertUnwindSafe(|| opened.play(&mut told)));
    if let Err(thrown) = played
        && !thrown.is::<PowerCut>()
    {
        resume_unwind(thrown);
    }
    place.mend();
    // It may have been cut in the background, when nothing was left to ask for.
    if fault == Fault::Cut && place.has_struck() {
        // The machine is off: nothing of it goes on, nor ends in order. Its threads stay until the test ends.
        let found = place.crash(seed);
        std::mem::forget(opened);
        examine(&found, &told);
    } else {
        // Whoever was refused something gives up.
        drop(opened);
        examine(&place, &told);
    }
}

fn all(fault: Fault) {
    // Those of opening are another test's.
    let calls = calls(fault);
    let is_soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    let (stride, seeds) = if is_soak { (1, 10) } else { (calls.div_ceil(CALLS_TRIED), 3) };
    for at in (1..=calls).step_by(stride as usize) {
        // Different calls have different luck.
        (0..seeds).for_each(|seed| run(fault, at, 1000 * seed + at));
    }
}

#[test]
fn what_a_server_has_acknowledged_is_there_whenever_the_power_is_cut() {
    all(Fault::Cut);
}

#[test]
fn what_a_server_has_acknowledged_is_there_whichever_call_fails() {
    all(Fault::Fail);
}

#[test]
fn what_a_server_has_acknowledged_is_there_whichever_sync_fails() {
    all(Fault::FailSync);
}
