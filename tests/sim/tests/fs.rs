//! The filesystem of a view (`client/fs`) over a server in memory: what a kernel would ask, without one.

use mojavefs::id::Ino;
use mojavefs::protocol::fault::FaultKind;
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{
    Caller, Connection, ConnectionExt, JobInfo, OnRead, Reads, RenameMode, SeekWhence, ViewKind, ViewOp, ViewOwner,
    XattrMode,
};
use mojavefs_faulty::Faulty;
use mojavefs_fs::{Call, Control, Listed, Listing, NewFile, Patience, ReadPolicy, Rename, View, Write, WritesOut};
use mojavefs_server::Server;
use mojavefs_server::store::StoreOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
const USER: Caller = Caller { pid: 7, uid: 1000, gid: 100 };
const PLAIN: NewFile = NewFile { kind: FileKind::Regular, mode: 0o666, umask: 0o022, rdev: 0, target: Vec::new() };

struct World {
    ask: Arc<dyn Connection>,
    trunk: View,
    _server: Server,
}

impl World {
    fn new() -> Self {
        let server = Server::open(&Faulty::of(64 << 20), OPTIONS).expect("the store opens");
        let ask = server.connect(true);
        let trunk = ask.view(ViewOp::Open(ViewKind::Trunk)).expect("trunk").view;
        let control = Control { name: "system.mojavefs", value: b"here".to_vec() };
        let trunk = View::new(ask.clone(), trunk, ViewOwner::Trunk, ReadPolicy::default(), control);
        World { ask, trunk, _server: server }
    }

    fn call(&self) -> Call<'_> {
        self.trunk.call(USER, Patience::Never)
    }

    fn make(&self, name: &str, content: &[u8]) -> Ino {
        let call = self.call();
        let ino = call.create(Ino::ROOT, name.as_bytes(), &PLAIN).expect("a file").0.ino;
        call.write(&write_at(ino, 0), content).expect("its content");
        ino
    }

    /// The view of a new job, which looks at others' undecided work like that.
    fn job(&self, on_read: OnRead) -> View {
        let (parent, info, own, restarts) = (self.trunk.id(), JobInfo::default(), None, Some(String::new()));
        let opened =
            self.ask.view(ViewOp::Open(ViewKind::Job { parent, info, on_read, own, restarts })).expect("a job");
        let waits = opened.spec.map(|spec| (spec, 0)).filter(|_| on_read == OnRead::Wait);
        let policy = ReadPolicy { asks: false, waits, fails: on_read == OnRead::Fail };
        let control = Control { name: "system.mojavefs", value: Vec::new() };
        View::new(self.ask.clone(), opened.view, ViewOwner::Job, policy, control)
    }
}

fn write_at(ino: Ino, offset: u64) -> Write {
    Write { ino, offset, append: false, clear_set_id: false, by_kernel: false }
}

fn read(call: &Call<'_>, ino: Ino) -> Result<Vec<u8>, FaultKind> {
    call.read((ino, 0, 1000), Reads::Kept).map_err(|fault| fault.kind)
}

#[test]
fn files_are_made_in_the_name_of_who_calls() {
    let world = World::new();
    let call = world.call();
    let (attr, _) = call.create(Ino::ROOT, b"new", &PLAIN).expect("a file");
    assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 100, 0o644));
    let link = NewFile { kind: FileKind::Symlink, target: b"new".to_vec(), ..PLAIN };
    let (link, _) = call.create(Ino::ROOT, b"link", &link).expect("a link");
    assert_eq!(call.read_link(link.ino).as_deref(), Ok(&b"new"[..]));
    assert_eq!(call.create(Ino::ROOT, b"new", &PLAIN).map_err(|fault| fault.kind), Err(FaultKind::Exists));
}

#[test]
fn set_id_bits_go_by_a_new_size_where_the_kernel_says_so() {
    let world = World::new();
    let ino = world.make("tool", b"#!/bin/sh\n");
    let mode = SetAttr { mode: Some(0o6755), ..SetAttr::default() };
    for (clear_set_id, left) in [(false, 0o6755), (true, 0o755)] {
        let call = world.call();
        call.set_attributes(ino, &mode).expect("a mode");
        let size = SetAttr { size: Some(1), clear_set_id, ..SetAttr::default() };
        assert_eq!(call.set_attributes(ino, &size).expect("a size").0.mode, left);
    }
}

#[test]
fn names_move_and_go() {
    let world = World::new();
    let (call, ino) = (world.call(), world.make("old", b"x"));
    let place = |name: &str| (Ino::ROOT, name.as_bytes().to_vec());
    let rename = |mode| call.rename(&Rename { from: place("old"), to: place("new"), mode });
    rename(RenameMode::NoReplace).expect("a rename");
    assert_eq!(call.look_up(Ino::ROOT, b"old").map_err(|fault| fault.kind).err(), Some(FaultKind::NotFound));
    assert_eq!(call.look_up(Ino::ROOT, b"new").expect("it is there").0.ino, ino);
    call.link(ino, Ino::ROOT, b"old").expect("one more name");
    assert_eq!(rename(RenameMode::NoReplace).map_err(|fault| fault.kind), Err(FaultKind::Exists));
    call.unlink(Ino::ROOT, b"old").expect("one name less");
    assert_eq!(call.attributes(ino).expect("it is there").0.nlink, 1);
}

#[test]
fn the_attribute_by_which_the_daemon_is_found_is_no_file_s_own() {
    let world = World::new();
    let (call, ino) = (world.call(), world.make("file", b""));
    assert_eq!(call.xattr(ino, b"system.mojavefs").as_deref(), Ok(&b"here"[..]));
    let set = call.set_xattr(ino, (b"system.mojavefs", b"there"), XattrMode::Set, false);
    assert_eq!(set.map_err(|fault| fault.kind), Err(FaultKind::NotPermitted));
    call.set_xattr(ino, (b"user.a", b"1"), XattrMode::Create, false).expect("one of its own");
    assert_eq!(call.xattrs(ino).as_deref(), Ok(&b"user.a\0"[..]));
}

/// Lists with attributes from a position on, so many at most: the names, and where to go on.
fn list(call: &Call<'_>, dir: u64, from: u64, room: usize) -> (Vec<String>, u64) {
    let (mut names, mut next) = (Vec::new(), from);
    let takes = |entry: Listed<'_>| {
        let has_room = names.len() < room;
        if has_room {
            let gone = if matches!(entry.given, Listing::Gone) { " (gone)" } else { "" };
            names.push(format!("{}{gone}", String::from_utf8_lossy(entry.name)));
            next = entry.next;
        }
        has_room
    };
    call.list_files(dir, from, takes).expect("a page");
    (names, next)
}

#[test]
fn a_listing_in_pieces_has_each_name_once_and_what_went_meanwhile_has_no_attributes() {
    let world = World::new();
    for name in ["a", "b", "c", "d"] {
        world.make(name, b"");
    }
    let (call, dir) = (world.call(), world.trunk.open_dir(Ino::ROOT));
    let (first, next) = list(&call, dir, 0, 3);
    assert_eq!(first, [".", "..", "a"]);
    call.unlink(Ino::ROOT, b"b").expect("it goes");
    let (second, next) = list(&call, dir, next, 2);
    assert_eq!(second, ["b (gone)", "c"]);
    assert_eq!(list(&call, dir, next, 9).0, ["d"]);
    // From the beginning it is read anew.
    assert_eq!(list(&call, dir, 0, 9).0, [".", "..", "a", "c", "d"]);
    world.trunk.close_dir(dir);
    let closed = call.list_names(dir, 0, |_| true);
    assert_eq!(closed.map_err(|fault| fault.kind), Err(FaultKind::Stale));
}

/// A kernel that has something to write out, once.
struct Kernel<'a> {
    view: &'a View,
    at: u64,
    asked: AtomicUsize,
}

impl WritesOut for Kernel<'_> {
    fn write_out(&self, ino: Ino, from: u64, to: Option<u64>) {
        let is_asked_for = from <= self.at && to.is_none_or(|to| self.at < to);
        if self.asked.fetch_add(1, Ordering::SeqCst) == 0 && is_asked_for {
            let write = Write { by_kernel: true, ..write_at(ino, self.at) };
            self.view.call(Caller::KERNEL, Patience::Own).write(&write, b"stored").expect("it is written out");
        }
    }
}

#[test]
fn what_a_kernel_has_not_written_out_is_no_hole() {
    let world = World::new();
    let (call, ino) = (world.call(), world.make("sparse", b""));
    call.set_attributes(ino, &SetAttr { size: Some(1 << 20), ..SetAttr::default() }).expect("a size");
    let kernel = || Kernel { view: &world.trunk, at: 512 << 10, asked: AtomicUsize::new(0) };
    assert!(call.seek_at_once(ino, 0, SeekWhence::Data).is_none(), "that takes the kernel");
    assert_eq!(call.seek(ino, 0, SeekWhence::Data, Some(&kernel())), Ok(512 << 10));
    // Without a kernel that may be waited for all is data.
    assert_eq!(call.seek(ino, 0, SeekWhence::Data, None), Ok(0));
    assert_eq!(call.seek(ino, 0, SeekWhence::Hole, None), Ok(1 << 20));
    let behind = call.seek(ino, 1 << 20, SeekWhence::Data, None).map_err(|fault| fault.kind);
    assert_eq!(behind, Err(FaultKind::NoData));
}

#[test]
fn others_undecided_work_is_met_as_the_view_says() {
    let world = World::new();
    let ino = world.make("file", b"old");
    let writer = world.job(OnRead::Join);
    writer.call(USER, Patience::Never).write(&write_at(ino, 0), b"new").expect("a write");
    let expected = [
        (OnRead::Join, Ok(b"new".to_vec())),
        (OnRead::Committed, Ok(b"old".to_vec())),
        (OnRead::Isolate, Ok(b"old".to_vec())),
        (OnRead::Wait, Err(FaultKind::Undecided)),
        (OnRead::Fail, Err(FaultKind::Busy)),
    ];
    for (on_read, expected) in expected {
        let job = world.job(on_read);
        let call = job.call(USER, Patience::Never);
        let looked_up = call.look_up(Ino::ROOT, b"file").map_err(|fault| fault.kind);
        assert_eq!(looked_up.and_then(|_| read(&call, ino)), expected, "{on_read:?}");
    }
    assert_eq!(read(&world.call(), ino), Ok(b"old".to_vec()));
}

#[test]
fn pages_that_are_written_out_late_change_what_was_stored_there_and_nothing_else() {
    let world = World::new();
    let ino = world.make("file", b"as it was");
    let call = world.call();
    call.write(&write_at(ino, 0), b"otherwise").expect("somebody else writes");
    let page = Write { by_kernel: true, ..write_at(ino, 0) };
    call.write_stored(&page, b"as it was", b"as IT was").expect("a page");
    assert_eq!(read(&call, ino), Ok(b"othITwise".to_vec()));
    let past = Write { by_kernel: true, ..write_at(ino, 7) };
    call.write_stored(&past, b"", b"123").expect("a page");
    assert_eq!(read(&call, ino), Ok(b"othITwi12".to_vec()), "no longer than the file is");
}
