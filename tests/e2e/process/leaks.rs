//! Nothing is left behind, however many levels there were.

use super::{specrun, succeeds};
use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{MOJAVEFS, Mount, text, until};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a store holds: the content files, and what `mojavefs fsck` counts in the records, versions that are nobody's
/// included.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    content_files: usize,
    counted: String,
}

/// Collects what can be, and counts the rest. The mount is there again afterwards.
fn held(mount: &Mount) -> Held {
    reclaimed(mount);
    mount.umount();
    let output = Command::new(MOJAVEFS).arg("fsck").arg(mount.store()).output().expect("mojavefs runs");
    succeeds(&output);
    let counted = text(&output.stdout);
    let content_files = entries(&mount.store().join("content"));
    mount.mount();
    Held { content_files, counted }
}

/// Collects until there is nothing left to collect.
fn reclaimed(mount: &Mount) {
    until("nothing is left to reclaim", || {
        let output = mount.mojavefs(&["gc"]);
        succeeds(&output);
        text(&output.stdout) == "reclaimed 0 records\n"
    });
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())).count()
}

/// What the daemon has open, but for what it may have open of its store: the files in which RocksDB happens to keep its
/// records, and content that is there, of which it keeps some open for the next use.
fn open(mount: &Mount, daemon: Pid) -> Vec<PathBuf> {
    let (records, content) = (mount.store().join("records"), mount.store().join("content"));
    let open = fs::read_dir(format!("/proc/{daemon}/fd")).expect("its descriptors").flatten();
    let open = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    // The kernel marks what is gone.
    let gone = |target: &Path| target.to_string_lossy().ends_with(" (deleted)");
    open.filter(|target| !target.starts_with(&records) && (!target.starts_with(&content) || gone(target))).collect()
}

fn children(daemon: Pid) -> String {
    fs::read_to_string(format!("/proc/{daemon}/task/{daemon}/children")).expect("its children")
}

/// Processes that run this program.
fn running(program: &Path) -> usize {
    let processes = fs::read_dir("/proc").expect("list").flatten();
    processes.filter(|process| fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == program)).count()
}

fn nothing_is_left(options: &[&str], commits: &str, aborts: &str) {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "many");
    let many = |commits, aborts| succeeds(&specrun(&mount, options, &program, &[commits, aborts]));
    many("1", "1");
    let before = held(&mount);
    many("1", "1");
    let daemon = mount.daemon();
    reclaimed(&mount);
    // A connection may be about to be closed, so that there may be fewer later, never more.
    let open_before = open(&mount, daemon);
    let children_before = children(daemon);
    many(commits, aborts);
    until("no process of it runs", || running(&program) == 0);
    assert!(mount.status().is_empty());
    reclaimed(&mount);
    until(&format!("the daemon has open no more than {open_before:?}"), || {
        open(&mount, daemon).len() <= open_before.len()
    });
    until("the daemon has the children it had", || children(daemon) == children_before);
    assert_eq!(held(&mount), before);
    mount.check();
}

fn soak() -> bool {
    std::env::var_os("MOJAVEFS_SOAK").is_some()
}

#[test]
fn after_thousands_of_levels_in_a_job_nothing_is_left() {
    let (commits, aborts) = if soak() { ("100000", "10000") } else { ("2000", "500") };
    nothing_is_left(&[], commits, aborts);
}

#[test]
fn after_hundreds_of_levels_without_a_job_nothing_is_left() {
    // Each of these is synced to the disk.
    let (commits, aborts) = if soak() { ("10000", "10000") } else { ("300", "300") };
    nothing_is_left(&["--no-speculation"], commits, aborts);
}
