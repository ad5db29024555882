//! What a commit replaces, and others have locked.

use super::{Locker, child_of, waiting};
use crate::harness::{MOJAVEFS, Mount, SPECRUN, SlowDisk, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn a_commit_waits_for_who_has_locked_what_it_changes_and_is_refused_after_a_while() {
    let mount = Mount::new();
    mount.write("file", "old");
    let mut outside = Locker::outside_with_file(&mount);
    let held = mount.held("printf new > file");
    outside.does("posix f r 0 1");
    let refused = mount.mojavefs(&["commit", &held]);
    assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
    let said = text(&refused.stderr);
    assert!(
        said.contains("file") && said.contains(&format!("process {} on trunk has locked", outside.say("pid"))),
        "{said}"
    );
    assert!(said.contains("commit it again when that is over"), "{said}");
    assert_eq!(mount.read("file"), "old");
    // One that is let go of in time is waited for.
    let mut commit = Command::new(MOJAVEFS);
    let commit =
        commit.args(["commit", &held]).current_dir(mount.path()).stderr(Stdio::piped()).spawn().expect("it runs");
    outside.does("posix f u 0 0");
    let output = commit.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mount.read("file"), "new");
    drop(outside);
    mount.check();
}

#[test]
fn a_commit_does_not_wait_for_who_had_locked_something_before_it_was_changed() {
    let mount = Mount::new();
    mount.write("file", "old");
    let mut outside = Locker::outside_with_file(&mount);
    outside.does("posix f r 0 1");
    let output = mount.specrun(&[], "printf new > file");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(outside.say("read f"), "new");
    drop(outside);
    mount.check();
}

#[test]
fn who_is_waited_for_looks_at_what_it_has_locked() {
    let mount = Mount::new();
    mount.write("file", "old");
    let mut outside = Locker::outside_with_file(&mount);
    let held = mount.held("printf new > file");
    for lock in ["posix f w 0 1", "flock f x"] {
        outside.does(lock);
        let mut commit = Command::new(MOJAVEFS);
        commit.args(["commit", &held]).current_dir(mount.path());
        let commit = child_of(&mut commit);
        // One that waited for the commit would be answered once that is refused.
        assert_eq!(outside.say("read f"), "old");
        let refused = commit.wait_with_output().expect("it ends");
        assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
        outside.does(if lock.starts_with("posix") { "posix f u 0 0" } else { "flock f u" });
    }
    drop(outside);
    mount.check();
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A lock file beside what it protects: the job's lock ends with its command, before its changes are to be seen.
#[test]
fn nothing_is_lost_that_is_changed_under_a_lock_on_another_file() {
    for options in [&[][..], &["--isolate"]] {
        let mount = Mount::new();
        mount.write("file", "0");
        mount.write("lock", "");
        let mut outside = Locker::outside_with_file(&mount);
        outside.does("open l lock rw");
        let [changed, go_on] = ["changed", "go-on"].map(|name| mount.beside(name));
        let script = format!(
            "flock lock sh -c 'n=$(cat file); printf $((n+1)) > file'; echo $$ > {}; while [ ! -e {} ]; do sleep 0.01; done",
            changed.display(),
            go_on.display()
        );
        let mut job = Command::new(SPECRUN);
        job.args(options).args(["--", "sh", "-c", &script]).current_dir(mount.path());
        let job = child_of(&mut job);
        until("it has changed it", || read(&changed).ends_with('\n'));
        outside.does("flock l x");
        assert_eq!(outside.say("read f"), "0");
        fs::write(go_on, "").expect("go on");
        let command = format!("/proc/{}", read(&changed).trim());
        until("its command is over", || !Path::new(&command).exists());
        // A commit that did not wait would be seen soon.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(200) {
            assert_eq!(outside.say("read f"), "0");
        }
        outside.does("write f 1");
        outside.does("flock l u");
        let output = job.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{options:?}: {}", text(&output.stderr));
        assert_eq!(mount.read("file"), "2", "{options:?}: {}", text(&output.stderr));
        drop(outside);
        mount.check();
    }
}

#[test]
fn a_lock_on_what_is_being_committed_is_granted_after_that() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    mount.write("file", "old");
    mount.write("another", "");
    let mut outside = Locker::outside_with_file(mount);
    outside.does("open a another rw");
    let job = disk.committing("printf new > file");
    outside.does("flock a x");
    outside.tell("flock f x");
    until("it waits", || waiting(mount) == 1);
    disk.goes_on();
    assert_eq!(outside.answer(), "ok");
    assert_eq!(outside.say("read f"), "new");
    assert!(job.wait().status.success());
    drop(outside);
    mount.check();
}

/// The one waits for a decision with a lock for which the one that would decide waits.
#[test]
fn who_waits_for_a_decision_joins_where_that_waits_for_its_lock() {
    let mount = Mount::new();
    mount.write("file", "0");
    mount.write("lock", "");
    let [changed, held] = ["changed", "held"].map(|name| mount.beside(name));
    let script = format!(
        "flock lock sh -c 'printf 1 > file'; touch {}; while [ ! -e {} ]; do sleep 0.01; done; flock lock true",
        changed.display(),
        held.display()
    );
    let job = |options: &[&str], script: &str| {
        let mut job = Command::new("timeout");
        job.args(["-k", "5", "40", SPECRUN]).args(options).args(["--", "sh", "-c", script]);
        job.current_dir(mount.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        job.spawn().expect("specrun runs")
    };
    let first = job(&[], &script);
    until("it has changed it", || changed.exists());
    let waits = job(&["--on-read", "wait"], &format!("flock lock sh -c 'touch {}; cat file'", held.display()));
    for (job, says) in [(waits, "1"), (first, "")] {
        let output = job.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), says);
    }
    mount.check();
}

#[test]
fn who_is_told_to_end_while_its_commit_waits_for_a_lock_does_not_run_again() {
    let mount = Mount::new();
    mount.write("file", "old");
    let mut outside = Locker::outside_with_file(&mount);
    let changed = mount.beside("changed");
    let script = format!("printf new > file; echo $$ > {0}; while [ -e {0} ]; do sleep 0.01; done", changed.display());
    let mut job = Command::new(SPECRUN);
    job.args(["--", "sh", "-c", &script]).current_dir(mount.path());
    let job = child_of(&mut job);
    until("it has changed it", || read(&changed).ends_with('\n'));
    let command = format!("/proc/{}", read(&changed).trim());
    outside.does("flock f x");
    fs::remove_file(&changed).expect("go on");
    until("its command is over", || !Path::new(&command).exists());
    kill(Pid::from_raw(job.id().cast_signed()), Signal::SIGTERM).expect("it waits");
    let output = job.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(128 + Signal::SIGTERM as i32), "{said}");
    assert!(!said.contains("running again") && said.contains("has locked it"), "{said}");
    assert_eq!(outside.say("read f"), "old");
    drop(outside);
    mount.check();
}
