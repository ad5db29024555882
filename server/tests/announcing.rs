//! What a view is told of others' work: what its kernel has asked for and they have changed, and nothing else.

mod common;

use common::Client;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{ConnectionExt, FsOp, Invalidation, Notice, NoticeSink};
use parking_lot::Mutex;
use std::sync::Arc;

/// Keeps what it is told.
#[derive(Default)]
struct Heard(Mutex<Vec<(ViewId, Vec<Invalidation>, bool)>>);

impl NoticeSink for Heard {
    fn deliver(&self, notice: Notice) {
        if let Notice::Invalidate { view, what, all_names } | Notice::Forget { view, what, all_names } = notice {
            self.0.lock().push((view, what, all_names));
        }
    }
}

impl Heard {
    /// The names that trunk was told of since the last time, as text, and how many inodes.
    fn by_trunk(&self, client: &Client) -> (Vec<String>, usize) {
        let mut names = Vec::new();
        let mut inodes = Vec::new();
        for (view, what, all_names) in std::mem::take(&mut *self.0.lock()) {
            assert!(!all_names, "all names of view {view}");
            for what in what.into_iter().filter(|_| view == client.trunk) {
                match what {
                    Invalidation::Entry { name, .. } => names.push(String::from_utf8(name).expect("text")),
                    Invalidation::Inode(ino) | Invalidation::Attributes(ino) => inodes.push(ino),
                }
            }
        }
        inodes.sort_unstable();
        inodes.dedup();
        names.sort_unstable();
        (names, inodes.len())
    }
}

fn look(client: &Client, parent: Ino, name: &[u8]) -> Option<Ino> {
    client.ask().attr(FsOp::Lookup { parent, name }.on(client.trunk)).map(|attr| attr.ino).ok()
}

fn listening() -> (Client, Arc<Heard>) {
    let (client, heard) = (Client::new(), Arc::new(Heard::default()));
    client.ask().set_notice_sink(heard.clone());
    (client, heard)
}

#[test]
fn a_commit_of_nothing_is_not_announced() {
    let (client, heard) = listening();
    look(&client, Ino::ROOT, b"absent");
    let (view, spec) = client.begin(client.trunk);
    client.ask().attr(FsOp::Lookup { parent: Ino::ROOT, name: b"absent" }.on(view)).expect_err("it is not there");
    client.commit(spec, Vec::new());
    assert!(heard.0.lock().is_empty());
    client.check();
}

#[test]
fn a_view_is_told_of_the_names_that_it_has_asked_for() {
    let (client, heard) = listening();
    for name in [b"removed".as_slice(), b"kept", b"moved"] {
        client.create(client.trunk, Ino::ROOT, name, FileKind::Regular).expect("a file");
    }
    assert_eq!(look(&client, Ino::ROOT, b"absent"), None);
    assert_eq!(look(&client, Ino::ROOT, b"never there"), None);
    let (view, spec) = client.begin(client.trunk);
    client.ask().done(FsOp::Unlink { parent: Ino::ROOT, name: b"removed" }.on(view)).expect("remove");
    client.create(view, Ino::ROOT, b"absent", FileKind::Directory).expect("a directory");
    client.create(view, Ino::ROOT, b"unheard of", FileKind::Regular).expect("a file");
    let (parent, new_parent, mode) = (Ino::ROOT, Ino::ROOT, mojavefs::protocol::RenameMode::Replace);
    let rename = FsOp::Rename { parent, name: b"moved", new_parent, new_name: b"elsewhere", mode }.on(view);
    client.ask().done(rename).expect("rename");
    heard.by_trunk(&client);
    client.commit(spec, Vec::new());
    let (names, inodes) = heard.by_trunk(&client);
    assert_eq!(names, ["absent", "moved", "removed"]);
    // The root and two files.
    assert_eq!(inodes, 3);
    client.check();
}

#[test]
fn of_much_that_was_changed_a_view_is_told_what_it_knows() {
    let (client, heard) = listening();
    let dir = client.create(client.trunk, Ino::ROOT, b"dir", FileKind::Directory).expect("a directory").ino;
    let other = client.create(client.trunk, Ino::ROOT, b"other", FileKind::Directory).expect("a directory").ino;
    // Few names are looked for among those changed; for many it is the other way round.
    for number in [7, 1999, 5000] {
        look(&client, dir, number.to_string().as_bytes());
    }
    for number in 1000..4000 {
        look(&client, other, number.to_string().as_bytes());
    }
    let (view, spec) = client.begin(client.trunk);
    for number in 0..2000 {
        client.create(view, dir, number.to_string().as_bytes(), FileKind::Regular).expect("a file");
    }
    for number in 0..1010 {
        client.create(view, other, number.to_string().as_bytes(), FileKind::Regular).expect("a file");
    }
    client.create(view, Ino::ROOT, b"new", FileKind::Regular).expect("a file");
    heard.by_trunk(&client);
    client.commit(spec, Vec::new());
    let (names, inodes) = heard.by_trunk(&client);
    let expected: Vec<String> = (1000..1010).map(|number| number.to_string()).collect();
    assert_eq!(names, [&expected[..], &["1999".to_owned(), "7".to_owned()]].concat());
    // The two directories and the root.
    assert_eq!(inodes, 3);
    client.check();
}
