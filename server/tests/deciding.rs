//! What becomes of held and conflicting work, spoken to as a client does.

mod common;

use common::Client;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{ConnectionExt, Request, Resolution, SpecState, XattrMode};

const CAPABILITY: &[u8] = b"security.capability";

fn write(client: &Client, view: ViewId, ino: Ino) {
    let request =
        Request::Write { view, ino, offset: 0, data: b"data", append: false, clear_set_id: false, mapped: false };
    client.ask().offset(request).expect("a write");
}

#[test]
fn what_is_committed_in_spite_of_conflicts_keeps_its_capabilities() {
    let client = Client::new();
    let file = client.create(client.trunk, Ino::ROOT, b"file", FileKind::Regular).expect("a file").ino;
    let (view, spec) = client.begin(client.trunk);
    let tool = client.create(view, Ino::ROOT, b"tool", FileKind::Regular).expect("a file").ino;
    let set = SetAttr { uid: Some(1000), gid: Some(1000), ..SetAttr::default() };
    client.ask().attr(Request::SetAttr { view, ino: tool, set }).expect("another owner");
    let value: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let set = Request::SetXattr { view, ino: tool, name: CAPABILITY, value, mode: XattrMode::Set };
    client.ask().done(set).expect("a capability");
    write(&client, view, file);
    write(&client, client.trunk, file);
    let outcome = client.commit(spec, vec![Resolution::Ours(Vec::new())]);
    assert_eq!(outcome.state, SpecState::Committed, "{:?}", outcome.conflicts);
    let found = client.ask().attr(Request::Lookup { view: client.trunk, parent: Ino::ROOT, name: b"tool" });
    let found = found.expect("it is there");
    assert_eq!((found.uid, found.gid), (1000, 1000));
    let kept = client.ask().data(Request::GetXattr { view: client.trunk, ino: found.ino, name: CAPABILITY });
    assert_eq!(kept.expect("the capability"), value);
    client.check();
}
