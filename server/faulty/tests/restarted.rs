//! What a server knows after it was killed.

use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{
    Caller, Connection, ConnectionExt, FsOp, JobInfo, OnRead, SpecOp, SpecState, ViewKind, ViewOp,
};
use mojavefs_faulty::{Call, Fault, Faulty};
use mojavefs_server::Server;
use mojavefs_server::store::StoreOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

struct Job {
    spec: SpecId,
    view: ViewId,
}

fn begin(ask: &Arc<dyn Connection>, parent: ViewId) -> Job {
    let (info, on_read, own, restarts) = (JobInfo::default(), OnRead::Join, None, Some(String::new()));
    let opened = ask.view(ViewOp::Open(ViewKind::Job { parent, info, on_read, own, restarts })).expect("a job");
    Job { spec: opened.spec.expect("it has a speculation"), view: opened.view }
}

fn make(ask: &Arc<dyn Connection>, view: ViewId, name: &[u8]) {
    let (mode, umask, uid, gid, rdev, target) = (0o644, 0, 0, 0, 0, &b""[..]);
    let (parent, kind) = (Ino::ROOT, FileKind::Regular);
    let create = FsOp::Create { parent, name, kind, mode, umask, rdev, target }.of(view, Caller { pid: 0, uid, gid });
    ask.attr(create).expect("a file");
}

/// The next so many batches of records are refused; whether they are there when the records are opened again is chosen by the seed.
fn fails_to_apply(place: &Faulty, times: usize, seed: u64) {
    let (faulty, left, is_batch) = (place.clone(), AtomicUsize::new(times), |call| matches!(call, Call::Apply { .. }));
    place.before_each(move |call| {
        let is_left = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if is_batch(call) && is_left() {
            faulty.plan_next(Fault::Fail, is_batch, seed);
        }
    });
}

fn hold(ask: &Arc<dyn Connection>, job: &Job) {
    ask.outcome(SpecOp::Hold { spec: job.spec }.by(0)).expect("it is held");
    ask.done(ViewOp::Close(job.view)).expect("its view closes");
}

/// What is on record of one that has fallen, and which the disk refused to forget, names what it had depended on.
#[test]
fn what_was_committed_is_committed_though_who_depended_on_it_has_fallen() {
    (0..16).for_each(committed_before_one_that_depended_on_it);
}

fn committed_before_one_that_depended_on_it(seed: u64) {
    let place = Faulty::of(64 << 20);
    let server = Server::open(&place, OPTIONS).expect("the store opens");
    let ask = server.connect(true);
    let trunk = ask.view(ViewOp::Open(ViewKind::Trunk)).expect("trunk").view;
    let [first, other, both] = std::array::from_fn(|_| begin(&ask, trunk));
    make(&ask, first.view, b"first");
    make(&ask, other.view, b"other");
    for name in [b"first", b"other"] {
        ask.attr(FsOp::Lookup { parent: Ino::ROOT, name }.on(both.view)).expect("it joins");
    }
    hold(&ask, &first);
    hold(&ask, &both);
    fails_to_apply(&place, 2, seed);
    drop(ask.outcome(SpecOp::Abort { spec: other.spec }.by(0)));
    place.before_each(|_| ());
    let (spec, resolutions) = (first.spec, Vec::new());
    let committed = ask.outcome(SpecOp::Commit { spec, resolutions, touch: false }.by(0)).expect("a commit");
    assert_eq!(committed.state, SpecState::Committed);
    std::mem::forget((ask, server));
    let server = Server::open(&place.kill(), OPTIONS).expect("the store opens");
    let ask = server.connect(true);
    let state = |spec| ask.outcome(SpecOp::Outcome { spec }.by(0)).map(|outcome| outcome.state);
    assert_eq!(state(first.spec), Ok(SpecState::Committed));
    assert_eq!(state(both.spec), Ok(SpecState::Aborted));
}
