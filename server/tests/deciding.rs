//! What becomes of held and conflicting work, spoken to as a client does.

mod common;

use common::Client;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{ConnectionExt, FsOp, Resolution, SpecState, XattrMode};

const CAPABILITY: &[u8] = b"security.capability";

fn write(client: &Client, view: ViewId, ino: Ino) {
    let request =
        FsOp::Write { ino, offset: 0, data: b"data", append: false, clear_set_id: false, mapped: false }.on(view);
    client.ask().changed(request).expect("a write");
}

#[test]
fn what_is_committed_in_spite_of_conflicts_keeps_its_capabilities() {
    let client = Client::new();
    let file = client.create(client.trunk, Ino::ROOT, b"file", FileKind::Regular).expect("a file").ino;
    let (view, spec) = client.begin(client.trunk);
    let tool = client.create(view, Ino::ROOT, b"tool", FileKind::Regular).expect("a file").ino;
    let set = SetAttr { uid: Some(1000), gid: Some(1000), ..SetAttr::default() };
    client.ask().attr(FsOp::SetAttr { ino: tool, set }.on(view)).expect("another owner");
    let value: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set =
        FsOp::SetXattr { ino: tool, name: CAPABILITY, value, mode: XattrMode::Set, clear_set_gid: false }.on(view);
    client.ask().done(set).expect("a capability");
    write(&client, view, file);
    write(&client, client.trunk, file);
    let outcome = client.commit(spec, vec![Resolution::Ours(Vec::new())]);
    assert_eq!(outcome.state, SpecState::Committed, "{:?}", outcome.conflicts);
    let found = client.ask().attr(FsOp::Lookup { parent: Ino::ROOT, name: b"tool" }.on(client.trunk));
    let found = found.expect("it is there");
    assert_eq!((found.uid, found.gid), (1000, 1000));
    let kept = client.ask().data(FsOp::GetXattr { ino: found.ino, name: CAPABILITY }.on(client.trunk));
    assert_eq!(kept.expect("the capability"), value);
    client.check();
}
