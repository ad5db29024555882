//! What is changed, and every way of looking at it. Which changes a way of looking can see is found on the host.

/// A change, to what it is made, and what of that it concerns.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) name: &'static str,
    pub(super) prepare: &'static [&'static str],
    pub(super) change: &'static [&'static str],
    /// Who changes one of these, too, and is not part of it, is in conflict.
    pub(super) concerns: &'static [Key],
}

/// What conflicts are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// The file that is called `it` at first.
    File,
    /// The name `it`.
    It,
    /// The name `to`.
    To,
    /// That there is something in the directory `it`.
    Inside,
}

/// A way of looking. What it says at first, and once more, tells what it saw.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) name: &'static str,
    /// Before anything is changed: what is opened, for one.
    pub(super) before: &'static [&'static str],
    pub(super) look: &'static [&'static str],
    /// What it changes, of what others may change, if it succeeds.
    pub(super) changes: &'static [Key],
    pub(super) kind: Kind,
}

/// How a look comes to what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// By a path, in a call of a process that is alone in its job.
    Path,
    /// By a descriptor that was opened before.
    Descriptor,
    /// In another process of the same job.
    Child,
}

use Key::{File, Inside, It, To};
use Kind::{Child, Descriptor, Path};

const fn subject(
    name: &'static str,
    prepare: &'static [&'static str],
    change: &'static [&'static str],
    concerns: &'static [Key],
) -> Subject {
    Subject { name, prepare, change, concerns }
}

const fn by_path(name: &'static str, look: &'static [&'static str]) -> Look {
    Look { name, before: &[], look, changes: &[], kind: Path }
}

const fn by_child(name: &'static str, look: &'static [&'static str]) -> Look {
    Look { name, before: &[], look, changes: &[], kind: Child }
}

const fn by_descriptor(name: &'static str, before: &'static [&'static str], look: &'static [&'static str]) -> Look {
    Look { name, before, look, changes: &[], kind: Descriptor }
}

const fn changing(name: &'static str, look: &'static [&'static str], changes: &'static [Key]) -> Look {
    Look { name, before: &["put mine 9 3"], look, changes, kind: Path }
}

pub(super) const SUBJECTS: &[Subject] = &[
    subject("replaced-content", &["put it 1 4"], &["put it 2 6"], &[File]),
    subject("same-size", &["put it 1 20"], &["put it 2 20"], &[File]),
    subject("appended", &["put it 1 4", "utimens it 1000 0"], &["add it 2 5"], &[File]),
    subject("cut", &["put it 1 20"], &["truncate it 9"], &[File]),
    subject("emptied", &["put it 1 20"], &["truncate it 0"], &[File]),
    subject("large", &["put it 1 100000"], &["open 1 it rdwr 0000", "pwrite 1 70000 2 10", "close 1"], &[File]),
    subject(
        "hole",
        &["put it 1 10", "truncate it 300000"],
        &["open 1 it rdwr 0000", "pwrite 1 150000 2 4096", "close 1"],
        &[File],
    ),
    subject(
        "punched",
        &["put it 1 200000"],
        &["open 1 it rdwr 0000", "fallocate 1 punch 65536 65536", "close 1"],
        &[File],
    ),
    subject("renamed-over", &["put it 1 4"], &["put to 2 6", "rename to it plain"], &[It, File, To]),
    subject("made", &[], &["put it 1 4"], &[It]),
    subject("removed", &["put it 1 4"], &["unlink it"], &[It, File]),
    subject("made-anew", &["put it 1 4"], &["unlink it", "put it 2 6"], &[It, File]),
    subject("moved", &["put it 1 4"], &["rename it to plain"], &[It, To, File]),
    subject("linked", &["put it 1 4"], &["link it to"], &[To, File]),
    subject("unlinked", &["put it 1 4", "link it to"], &["unlink to"], &[To, File]),
    subject("link-made", &[], &["symlink to it"], &[It]),
    subject(
        "link-turned",
        &["put to 1 4", "put other 2 6", "symlink to it"],
        &["unlink it", "symlink other it"],
        &[It, File],
    ),
    subject("mode", &["put it 1 4"], &["chmod it 0711"], &[File]),
    subject("owner", &["put it 1 4"], &["chown it 1 2"], &[File]),
    subject("times", &["put it 1 4", "utimens it 1000 0"], &["utimens it 2000 5"], &[File]),
    subject("xattr", &["put it 1 4", "setxattr it user.k 1 3 any"], &["setxattr it user.k 2 4 any"], &[File]),
    subject("xattr-made", &["put it 1 4"], &["setxattr it user.k 2 4 any"], &[File]),
    subject("xattr-removed", &["put it 1 4", "setxattr it user.k 1 3 any"], &["removexattr it user.k"], &[File]),
    subject("directory-made", &[], &["mkdir it 0755", "put it/one 1 4"], &[It]),
    subject("directory-removed", &["mkdir it 0755"], &["rmdir it"], &[It, File]),
    subject("directory-filled", &["mkdir it 0755", "put it/one 1 4"], &["put it/two 1 4"], &[]),
    subject("directory-emptied", &["mkdir it 0755", "put it/one 1 4"], &["unlink it/one"], &[]),
    subject("directory-moved", &["mkdir it 0755", "put it/one 1 4"], &["rename it to plain"], &[It, To, File]),
    subject("directory-mode", &["mkdir it 0755", "put it/one 1 4"], &["chmod it 0700"], &[File]),
    subject("below-changed", &["mkdir it 0755", "put it/one 1 4"], &["put it/one 2 6"], &[]),
    subject("below-replaced", &["mkdir it 0755", "put it/one 1 4"], &["put to 2 6", "rename to it/one plain"], &[To]),
    subject("directory-in-it", &["mkdir it 0755"], &["mkdir it/sub 0755"], &[Inside]),
    subject("fifo-made", &[], &["mkfifo it 0644"], &[It]),
    subject("exchanged", &["put it 1 4", "put to 2 6"], &["rename it to exchange"], &[It, To, File]),
];

pub(super) const LOOKS: &[Look] = &[
    by_path("list", &["list ."]),
    by_path("list-it", &["list it"]),
    by_path("list-in-pieces", &["list-pieces ."]),
    by_path("list-it-in-pieces", &["list-pieces it"]),
    by_path("walk", &["walk ."]),
    by_path("stat", &["stat it"]),
    by_path("lstat", &["lstat it"]),
    by_path("statx", &["statx it"]),
    by_path("exists", &["access it 0000"]),
    by_path("may-run", &["access it 0001"]),
    by_path("readlink", &["readlink it"]),
    by_path("getxattr", &["getxattr it user.k"]),
    by_path("listxattr", &["listxattr it"]),
    by_path("read", &["cat it"]),
    by_path("map", &["cat-mapped it"]),
    by_path("read-below", &["cat it/one"]),
    by_path("stat-below", &["lstat it/one"]),
    by_path("stat-to", &["lstat to"]),
    by_path("chdir", &["chdir it", "chdir {here}"]),
    by_path("chdir-and-list", &["chdir it", "list .", "chdir {here}"]),
    by_path("open-path", &["open 5 it path 0000", "fstat 5", "close 5"]),
    by_path("open-directory", &["open 5 it directory 0000", "list-slot 5", "close 5"]),
    by_path("read-directly", &["open 5 it direct 0000", "pread 5 0 200000", "close 5"]),
    by_path("read-vectors", &["open 5 it rdonly 0000", "preadv 5 3 200000", "close 5"]),
    by_path("end", &["open 5 it rdonly 0000", "seek 5 end 0", "close 5"]),
    by_path("holes", &["open 5 it rdonly 0000", "holes 5", "close 5"]),
    by_path(
        "copy",
        &[
            "open 4 it rdonly 0000",
            "open 5 mine rdwr+creat+trunc 0644",
            "copy-range 4 0 5 0 300000",
            "cat mine",
            "close 5",
            "close 4",
        ],
    ),
    by_path(
        "sendfile",
        &[
            "open 4 it rdonly 0000",
            "open 5 mine rdwr+creat+trunc 0644",
            "sendfile 4 0 5 300000",
            "cat mine",
            "close 5",
            "close 4",
        ],
    ),
    by_path(
        "splice",
        &[
            "open 4 it rdonly 0000",
            "open 5 mine rdwr+creat+trunc 0644",
            "splice 4 0 5 0 30000",
            "cat mine",
            "close 5",
            "close 4",
        ],
    ),
    by_child("list-by-a-child", &["child list ."]),
    by_child("read-by-a-child", &["child cat it"]),
    by_child("stat-by-a-child", &["child lstat it"]),
    by_child("xattr-by-a-child", &["child getxattr it user.k"]),
    by_descriptor("pread-open", &["open 1 it rdonly 0000"], &["pread 1 0 300000"]),
    by_descriptor("read-open", &["open 1 it rdonly 0000"], &["seek 1 set 0", "read 1 300000"]),
    by_descriptor("pread-open-directly", &["open 1 it direct 0000"], &["pread 1 0 300000"]),
    by_descriptor("fstat", &["open 1 it rdonly 0000"], &["fstat 1"]),
    by_descriptor("fstat-path", &["open 1 it path 0000"], &["fstat 1"]),
    by_descriptor("end-of-open", &["open 1 it rdonly 0000"], &["seek 1 end 0"]),
    by_descriptor("holes-of-open", &["open 1 it rdonly 0000"], &["holes 1"]),
    by_descriptor("fgetxattr", &["open 1 it rdonly 0000"], &["fgetxattr 1 user.k"]),
    by_descriptor("map-open", &["open 1 it rdonly 0000"], &["map 1 1 0 300000 shared", "load 1 0 300000", "unmap 1"]),
    by_descriptor("mapped", &["open 1 it rdonly 0000", "map 1 1 0 300000 shared"], &["load 1 0 300000"]),
    by_descriptor("mapped-privately", &["open 1 it rdonly 0000", "map 1 1 0 300000 private"], &["load 1 0 300000"]),
    by_descriptor(
        "mapped-and-loaded",
        &["open 1 it rdonly 0000", "map 1 1 0 300000 shared", "load 1 0 300000"],
        &["load 1 0 300000"],
    ),
    by_descriptor(
        "copy-of-open",
        &["open 1 it rdonly 0000"],
        &["open 5 mine rdwr+creat+trunc 0644", "copy-range 1 0 5 0 300000", "cat mine", "close 5"],
    ),
    by_descriptor("list-open", &["open 2 . directory 0000"], &["list-slot 2"]),
    by_descriptor("list-it-open", &["open 2 it directory 0000"], &["list-slot 2"]),
    by_descriptor("list-listed", &["open 2 it directory 0000", "list-slot 2"], &["list-slot 2"]),
    by_descriptor("stat-at", &["open 2 . directory 0000"], &["stat-at 2 it"]),
    by_descriptor("stat-at-it", &["open 2 it directory 0000"], &["stat-at 2 one"]),
    by_descriptor(
        "open-at",
        &["open 2 . directory 0000"],
        &["open-at 5 2 it rdonly 0000", "pread 5 0 300000", "close 5"],
    ),
    by_descriptor("inside-list", &["chdir it"], &["list ."]),
    by_descriptor("inside-stat", &["chdir it"], &["lstat one"]),
    by_descriptor("pread-by-a-child", &["open 1 it rdonly 0000"], &["child pread 1 0 300000"]),
    changing("make-exclusively", &["open 5 it wronly+creat+excl 0644", "close 5"], &[It]),
    changing("open-or-make", &["open 5 it rdwr+creat 0644", "fstat 5", "close 5"], &[It]),
    changing("append-and-read", &["add it 7 3", "cat it"], &[It, File]),
    changing("overwrite-and-read", &["open 5 it rdwr 0000", "pwrite 5 2 7 3", "close 5", "cat it"], &[File]),
    changing("remove", &["unlink it"], &[It, File]),
    changing("make-directory", &["mkdir it 0755"], &[It]),
    changing("remove-directory", &["rmdir it"], &[It, File, Inside]),
    changing("make-link", &["symlink mine it"], &[It]),
    changing("rename", &["rename it elsewhere plain", "lstat elsewhere"], &[It, File]),
    changing("rename-no-replace", &["rename mine it noreplace"], &[It]),
    changing("rename-from-to", &["rename to elsewhere plain", "lstat elsewhere"], &[To, File]),
    changing("link", &["link it further", "lstat further"], &[File]),
    changing("truncate-and-read", &["truncate it 15", "cat it"], &[File]),
    changing("set-new-xattr", &["setxattr it user.k 3 5 create"], &[File]),
    changing("replace-xattr", &["setxattr it user.k 3 5 replace"], &[File]),
    changing("remove-xattr", &["removexattr it user.k"], &[File]),
    changing("chmod-and-stat", &["chmod it 0644", "lstat it"], &[File]),
];
