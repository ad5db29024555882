//! What is told of decisions when the disk fails under them.

use mojavefs::id::{Ino, SpecId};
use mojavefs::protocol::fault::FaultKind;
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{
    Caller, ConnectionExt, FsOp, JobInfo, Notice, NoticeSink, SpecOp, SpecState, ViewKind, ViewOp,
};
use mojavefs_faulty::{Call, Fault, Faulty};
use mojavefs_server::Server;
use mojavefs_server::store::StoreOptions;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const CAPACITY_BYTES: u64 = 64 << 20;

/// What a client was told of decisions without having asked.
#[derive(Default)]
struct Told(Mutex<Vec<(SpecId, SpecState)>>);

impl NoticeSink for Told {
    fn deliver(&self, notice: Notice) {
        if let Notice::Decided { spec, state, .. } = notice {
            self.0.lock().push((spec, state));
        }
    }
}

#[test]
fn a_process_whose_vote_may_be_committed_is_not_told_that_it_is_undone() {
    let place = Faulty::of(CAPACITY_BYTES);
    let server = Server::open(&place, OPTIONS).expect("the store opens");
    let (session, told) = (server.connect(false), Arc::new(Told::default()));
    session.set_notice_sink(told.clone());
    let trunk = session.view(ViewOp::Open(ViewKind::Trunk)).expect("trunk").view;
    let view = session.view(ViewOp::Open(ViewKind::Process { parent: trunk, uid: 0, pid: 1 })).expect("a view").view;
    let entered = session.view(ViewOp::Enter { view, info: JobInfo::default(), own: None }).expect("a level");
    let spec = entered.spec.expect("its speculation");
    let (parent, name, kind, target): (_, &[u8], _, &[u8]) = (Ino::ROOT, b"file", FileKind::Regular, b"");
    let (mode, umask, uid, gid, rdev) = (0o644, 0, 0, 0, 0);
    let create = FsOp::Create { parent, name, kind, mode, umask, rdev, target }.of(view, Caller { pid: 0, uid, gid });
    session.attr(create).expect("a file");
    // The record of the commit fails, and so does reading the store again.
    let reading = place.clone();
    place.before_each(move |call| {
        if call == Call::OpenRecords {
            reading.plan_next(Fault::Fail, |call| call == Call::OpenRecords, 0);
        }
    });
    // What is written before anybody is kept waiting is on disk; then comes the record.
    let is_recorded = AtomicBool::new(false);
    let is_its_sync = move |call| match call {
        Call::Apply { .. } => {
            is_recorded.store(true, Ordering::SeqCst);
            false
        }
        call => call == Call::SyncRecords && is_recorded.load(Ordering::SeqCst),
    };
    place.plan_next(Fault::FailSync, is_its_sync, 0);
    let vote = session.outcome(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0));
    assert_eq!(vote.expect_err("its record failed").kind, FaultKind::InDoubt);
    assert!(!told.0.lock().contains(&(spec, SpecState::Aborted)), "{:?}", told.0.lock());
}
