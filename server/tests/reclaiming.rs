//! What no view can reach any more goes, whatever has kept it before, and in whatever order the reasons end.

mod common;

use common::Client;
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::file::{FileKind, SetAttr};
use mojavefs::protocol::{ConnectionExt, FsOp, RenameMode, ViewOp, XattrMode};

const LARGE: usize = 300_000;

/// What both trunk and jobs do to the file `f`, or to the directory that it lies in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Act {
    Append,
    Overwrite,
    Truncate,
    Shrink,
    Remove,
    Replace,
    Chmod,
    SetXattr,
    RemoveXattr,
    Link,
    MoveAway,
}

const ACTS: [Act; 11] = [
    Act::Append,
    Act::Overwrite,
    Act::Truncate,
    Act::Shrink,
    Act::Remove,
    Act::Replace,
    Act::Chmod,
    Act::SetXattr,
    Act::RemoveXattr,
    Act::Link,
    Act::MoveAway,
];

/// How what a job has done ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Abort,
    Commit,
    HoldAndAbort,
    HoldAndClose,
}

struct World {
    client: Client,
    dir: Ino,
    file: Ino,
    other: Ino,
}

impl World {
    fn new() -> Self {
        let client = Client::new();
        let mut world = World { client, dir: Ino::ROOT, file: Ino::ROOT, other: Ino::ROOT };
        world.fill();
        world
    }

    fn fill(&mut self) {
        let trunk = self.client.trunk;
        self.dir = self.client.create(trunk, Ino::ROOT, b"d", FileKind::Directory).expect("a directory").ino;
        let create = |name: &[u8]| self.client.create(trunk, self.dir, name, FileKind::Regular).expect("a file").ino;
        (self.file, self.other) = (create(b"f"), create(b"other"));
        self.write(trunk, self.file, 0, LARGE);
        self.write(trunk, self.other, 0, LARGE);
        self.act(trunk, Act::SetXattr);
    }

    /// No kernel knows any file.
    fn forget(&self) {
        let (view, inos) = (self.client.trunk, vec![self.dir, self.file, self.other]);
        self.client.ask().done(FsOp::Forget { inos }.on(view)).expect("they are forgotten");
    }

    fn write(&self, view: ViewId, ino: Ino, offset: u64, len: usize) {
        let data = vec![b'x'; len];
        let request =
            FsOp::Write { ino, offset, data: &data, append: false, clear_set_id: false, mapped: false }.on(view);
        self.client.ask().changed(request).expect("a write");
    }

    fn set(&self, view: ViewId, set: SetAttr) {
        self.client.ask().attr(FsOp::SetAttr { ino: self.file, set }.on(view)).expect("attributes");
    }

    /// Does it as far as that goes: the file may have no such name any more.
    fn act(&self, view: ViewId, act: Act) {
        let (ask, dir, ino) = (self.client.ask(), self.dir, self.file);
        let name = &b"user.k"[..];
        match act {
            Act::Append => self.write(view, ino, LARGE as u64, 100),
            Act::Overwrite => self.write(view, ino, 70_000, 10),
            Act::Truncate => self.set(view, SetAttr { size: Some(0), ..SetAttr::default() }),
            Act::Shrink => self.set(view, SetAttr { size: Some(100), ..SetAttr::default() }),
            Act::Remove => drop(ask.call(FsOp::Unlink { parent: dir, name: b"f" }.on(view))),
            Act::Replace => self.rename(view, (dir, b"other"), (dir, b"f")),
            Act::Chmod => self.set(view, SetAttr { mode: Some(0o600), ..SetAttr::default() }),
            Act::SetXattr => {
                let mode = XattrMode::Set;
                drop(ask.call(FsOp::SetXattr { ino, name, value: b"value", mode, clear_set_gid: false }.on(view)));
            }
            Act::RemoveXattr => drop(ask.call(FsOp::RemoveXattr { ino, name }.on(view))),
            Act::Link => drop(ask.call(FsOp::Link { ino, parent: Ino::ROOT, name: b"l" }.on(view))),
            Act::MoveAway => self.rename(view, (Ino::ROOT, b"d"), (Ino::ROOT, b"e")),
        }
    }

    fn rename(&self, view: ViewId, (parent, name): (Ino, &[u8]), (new_parent, new_name): (Ino, &[u8])) {
        let mode = RenameMode::Replace;
        drop(self.client.ask().call(FsOp::Rename { parent, name, new_parent, new_name, mode }.on(view)));
    }

    fn reclaim(&self) {
        while self.client.reclaim(100) {}
    }

    fn end(&mut self, spec: SpecId, end: End) {
        match end {
            End::Abort => self.client.abort(spec),
            End::Commit => {
                if !self.client.commit(spec, Vec::new()).conflicts.is_empty() {
                    self.client.abort(spec);
                }
            }
            End::HoldAndAbort => {
                self.client.hold(spec);
                self.client.reopen();
                self.reclaim();
                self.client.abort(spec);
            }
            // What is not held is undone with the daemon.
            End::HoldAndClose => self.client.reopen(),
        }
    }

    /// Removes everything on trunk: the content files are gone then.
    fn remove_everything(&self, what: &str) {
        remove_all(&self.client, Ino::ROOT);
        self.forget();
        self.reclaim();
        assert_eq!(self.client.content_files(), 0, "content files after {what}");
    }

    /// The store is as it was when it was new.
    fn check_empty(self) {
        let report = self.client.checked();
        assert_eq!((report.inodes, report.names, report.blocks), (1, 0, 0), "{report:?}");
    }
}

fn remove_all(client: &Client, dir: Ino) {
    let view = client.trunk;
    let list = FsOp::ReadDir { ino: dir, after: None, limit: 100 }.on(view);
    for entry in client.ask().entries(list).expect("a listing").0 {
        let name = &entry.name[..];
        if entry.kind == FileKind::Directory {
            remove_all(client, entry.ino);
            client.ask().done(FsOp::RemoveDir { parent: dir, name }.on(view)).expect("a directory goes");
        } else {
            client.ask().done(FsOp::Unlink { parent: dir, name }.on(view)).expect("a name goes");
        }
    }
}

fn play(world: &mut World, (by_job, by_trunk): (Act, Act), end: End) {
    // Whether the background is there after each step, or it is not looked after.
    for quick in [false, true] {
        let what = format!("{by_job:?} in a job, {by_trunk:?} on trunk, {end:?}, quick {quick}");
        let pause = |world: &World| {
            if quick {
                world.reclaim();
            }
        };
        let (view, spec) = world.client.begin(world.client.trunk);
        world.act(view, by_job);
        pause(world);
        world.act(world.client.trunk, by_trunk);
        pause(world);
        world.end(spec, end);
        // What its kernel has looked at is in use until then.
        drop(world.client.ask().call(ViewOp::Close(view).into()));
        pause(world);
        world.remove_everything(&what);
        world.fill();
    }
}

#[test]
fn what_trunk_and_a_job_have_both_changed_goes_with_the_job() {
    for end in [End::Abort, End::Commit] {
        let mut world = World::new();
        for by_job in ACTS {
            for by_trunk in ACTS {
                play(&mut world, (by_job, by_trunk), end);
            }
        }
        world.remove_everything("all");
        world.check_empty();
    }
}

#[test]
fn what_trunk_and_held_work_have_both_changed_goes_with_that() {
    for end in [End::HoldAndAbort, End::HoldAndClose] {
        let mut world = World::new();
        for by_job in [Act::Append, Act::Truncate, Act::Replace] {
            for by_trunk in [Act::Append, Act::Truncate, Act::Remove, Act::Replace, Act::RemoveXattr] {
                play(&mut world, (by_job, by_trunk), end);
            }
        }
        world.remove_everything("all");
        world.check_empty();
    }
}

#[test]
fn what_is_kept_for_a_snapshot_goes_when_that_ends_whichever_is_first() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let world = World::new();
        let mut jobs = Vec::new();
        for act in [Act::Overwrite, Act::Shrink, Act::Remove] {
            let (view, spec) = world.client.begin(world.client.trunk);
            jobs.push((view, spec));
            world.act(world.client.trunk, act);
            world.forget();
            world.reclaim();
        }
        for at in order {
            world.client.abort(jobs[at].1);
            world.client.ask().done(ViewOp::Close(jobs[at].0)).expect("the view closes");
            world.reclaim();
        }
        // Nothing else happens that would have it looked at again.
        let report = world.client.checked();
        assert_eq!((report.inodes, report.names), (3, 2), "{order:?}");
    }
}

#[test]
fn what_is_removed_while_nothing_else_happens_leaves_no_trace() {
    let world = World::new();
    for _ in 0..3 {
        for act in [Act::RemoveXattr, Act::SetXattr, Act::Link, Act::RemoveXattr] {
            world.act(world.client.trunk, act);
            world.reclaim();
        }
        let unlink = FsOp::Unlink { parent: Ino::ROOT, name: b"l" }.on(world.client.trunk);
        world.client.ask().done(unlink).expect("a name goes");
        world.reclaim();
    }
    world.client.check();
}
