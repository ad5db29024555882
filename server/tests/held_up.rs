//! A kernel of this machine that forgets nothing keeps a commit from being made, and not for ever.

mod common;

use common::OPTIONS;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::fault::FaultKind;
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{
    Caller, Connection, ConnectionExt, FsOp, JobInfo, Notice, NoticeSink, OnRead, SpecOp, SpecState, ViewKind, ViewOp,
};
use mojavefs_server::Server;
use mojavefs_server::store::engine::memory::Memory;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// Takes no notice that something is to be forgotten until it is let go on.
#[derive(Default)]
struct HeldUp {
    goes_on: Mutex<bool>,
    changed: Condvar,
}

impl NoticeSink for HeldUp {
    fn deliver(&self, notice: Notice) {
        if matches!(notice, Notice::Forget { .. }) {
            self.changed.wait_while(&mut self.goes_on.lock(), |goes_on| !*goes_on);
        }
    }
}

impl HeldUp {
    fn go_on(&self) {
        *self.goes_on.lock() = true;
        self.changed.notify_all();
    }
}

fn mkdir(session: &dyn Connection, view: ViewId, parent: Ino, name: &[u8]) -> Ino {
    let caller = Caller { pid: 0, uid: 0, gid: 0 };
    let (kind, target): (_, &[u8]) = (FileKind::Directory, b"");
    let create = FsOp::Create { parent, name, kind, mode: 0o700, umask: 0, rdev: 0, target };
    session.attr(create.of(view, caller)).expect("a directory").ino
}

#[test]
fn a_commit_is_refused_for_a_kernel_that_forgets_nothing_and_can_be_made_later() {
    let server = Server::open(&Memory::of(64 << 20), OPTIONS).expect("the store opens");
    let session = server.connect(true);
    let kernel = Arc::new(HeldUp::default());
    session.set_notice_sink(kernel.clone());
    let trunk = session.view(ViewOp::Open(ViewKind::Trunk)).expect("a view of trunk").view;
    let parent = mkdir(&*session, trunk, Ino::ROOT, b"outer");
    session.attr(FsOp::Lookup { parent, name: b"inner" }.on(trunk)).expect_err("it is not there, which is remembered");
    let (info, on_read, restarts) = (JobInfo::default(), OnRead::Isolate, Some(String::new()));
    let kind = ViewKind::Job { parent: trunk, info, on_read, own: None, restarts };
    let job = session.view(ViewOp::Open(kind)).expect("a job begins");
    mkdir(&*session, job.view, parent, b"inner");
    let spec = job.spec.expect("a job has a speculation");
    let commit = || session.outcome(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }.by(0));
    let refused = commit().expect_err("it is refused");
    assert_eq!(refused.kind, FaultKind::TimedOut, "{refused}");
    assert!(refused.message.contains("/outer") && refused.message.contains(&format!("view {trunk}")), "{refused}");
    session.attr(FsOp::Lookup { parent, name: b"inner" }.on(trunk)).expect_err("nothing is decided");
    kernel.go_on();
    assert_eq!(commit().expect("it is committed").state, SpecState::Committed);
    session.attr(FsOp::Lookup { parent, name: b"inner" }.on(trunk)).expect("it is there");
}
