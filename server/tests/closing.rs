//! A store closes with its server, whoever still holds a session: a daemon must be able to end after that.

mod common;

use common::OPTIONS;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::FaultKind;
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{Caller, ConnectionExt, FsOp, ViewKind, ViewOp};
use mojavefs_server::Server;
use mojavefs_server::store::engine::Directory;
use std::ffi::OsStr;

#[test]
fn a_session_keeps_no_store_open() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Server::open(&Directory::at(dir.path()), OPTIONS).expect("the store opens");
    let session = server.connect(true);
    let view = session.view(ViewOp::Open(ViewKind::Trunk)).expect("a view of trunk").view;
    let create = |name: &'static [u8]| {
        let (parent, kind, target): (_, _, &[u8]) = (Ino::ROOT, FileKind::Regular, b"");
        let caller = Caller { pid: 0, uid: 0, gid: 0 };
        session.attr(FsOp::Create { parent, name, kind, mode: 0o600, umask: 0, rdev: 0, target }.of(view, caller))
    };
    create(b"before").expect("a file");
    drop(server);
    let tables =
        std::fs::read_dir(dir.path().join("records")).expect("list").map(|entry| entry.expect("an entry").path());
    assert_ne!(tables.filter(|path| path.extension() == Some(OsStr::new("sst"))).count(), 0, "nothing was written out");
    let refused = create(b"after").expect_err("the store is closed");
    assert_eq!(refused.kind, FaultKind::Io, "{refused}");
    assert!(refused.message.contains("is closed"), "{refused}");
}
