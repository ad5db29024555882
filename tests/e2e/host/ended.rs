//! The daemon over the host ends, well or not.

use super::exact;
use crate::harness::host::OverHost;
use crate::harness::{sh, text, until};
use nix::sys::signal::Signal;

#[test]
fn what_is_held_outlives_the_daemon() {
    for how in [Signal::SIGTERM, Signal::SIGKILL] {
        let host = OverHost::new();
        sh(&host.path(), "echo old > f; mkdir d; echo x > d/x");
        let held = host.specrun(&["--hold"], "echo held >> f; mv d e; echo n > e/n");
        assert!(held.status.success(), "{held:?}");
        host.end(how);
        let status = host.mojavefs(&["status"]);
        assert!(text(&status.stdout).starts_with("1  held"), "{how:?}: {status:?}");
        let committed = host.mojavefs(&["commit", "1"]);
        assert!(committed.status.success(), "{how:?}: {committed:?}");
        assert_eq!(
            (host.read("f"), host.read("e/n"), host.read("e/x")),
            ("old\nheld\n".into(), "n\n".into(), "x\n".into())
        );
        assert!(!host.at("d").exists());
    }
}

#[test]
fn a_job_whose_daemon_is_killed_has_changed_nothing() {
    let host = OverHost::new();
    sh(&host.path(), "echo old > f; mkdir d");
    let before = exact(&host.path());
    let script = "echo job >> f; rm -r d; touch ../halfway; sleep 1000";
    let job = host.job(&["--retries", "0"], script).spawn().expect("a job");
    until("it is halfway", || host.aside("halfway").exists());
    host.end(Signal::SIGKILL);
    let output = job.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(75));
    assert_eq!(exact(&host.path()), before);
    // And the next one begins anew.
    host.run("cat f; echo again > f");
    assert_eq!(host.read("f"), "again\n");
}

/// At whatever moment of a commit the daemon is killed, the next one finds all of it or nothing, and nothing that was there is lost.
#[test]
fn a_daemon_that_is_killed_while_it_commits_leaves_all_or_nothing() {
    let tree = "for i in 0 1 2 3 4 5 6 7 8 9; do echo old $i > f$i; done; mkdir -p gone/x moved; echo g > gone/x/g; echo m > moved/m; ln f0 second";
    let work = "for i in 1 2 3 4 5 6 7 8 9; do echo new $i > f$i; echo n > n$i; done; rm -r gone; mkdir -p new/deep; mv moved new/deep/moved; \
        mv f9 new/f9; head -c 300000 /dev/zero > new/big; echo more >> f0";
    let native = |done: bool| {
        let dir = tempfile::tempdir().expect("a directory");
        sh(dir.path(), tree);
        if done {
            sh(dir.path(), work);
        }
        crate::harness::digest::content(dir.path())
    };
    let (before, after) = (native(false), native(true));
    let (mut all, mut none) = (0, 0);
    for round in 0..24_u64 {
        let host = OverHost::new();
        sh(&host.path(), tree);
        host.run("true");
        let daemon = host.daemon().expect("a daemon");
        let mut job = host.job(&["--retries", "0"], &format!("{work}; touch ../done"));
        let job = job.stderr(std::process::Stdio::piped()).spawn().expect("a job");
        until("its command is done", || host.aside("done").exists());
        // A different moment each time: there is no condition to wait for in the midst of it.
        std::thread::sleep(std::time::Duration::from_micros(round * 1_500));
        let _ = nix::sys::signal::kill(daemon, Signal::SIGKILL);
        let output = job.wait_with_output().expect("it ends");
        until("the daemon has ended", || !crate::harness::is_running(daemon));
        let looked = host.specrun(&[], "true");
        assert!(looked.status.success(), "round {round}: {looked:?}");
        let found = crate::harness::digest::content(&host.path());
        let lacks = after.lines().filter(|line| !found.lines().any(|found| found == *line)).collect::<Vec<_>>();
        assert!(found == before || found == after, "round {round}: {}\n{found}\nlacks {lacks:?}", text(&output.stderr));
        assert!(output.status.code() != Some(0) || found == after, "round {round}: it was committed: {output:?}");
        match found == after {
            true => all += 1,
            false => none += 1,
        }
        // What it had made or moved itself counts for nobody else's.
        let displaced = host.state().join("displaced");
        assert!(!displaced.exists(), "round {round}: {}", sh(&displaced, "find ."));
    }
    println!("committed {all}, undone {none}");
}

/// When nothing is undecided, nothing is kept of what was done, and its numbers are not given again.
#[test]
fn a_daemon_with_nothing_to_do_leaves_nothing_behind() {
    let host = OverHost::new();
    sh(&host.path(), "head -c 300000 /dev/urandom > big");
    host.run("echo x >> big; head -c 500000 /dev/urandom > new");
    let failed = host.specrun(&[], "echo y >> big; exit 1");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let found = exact(&host.path());
    host.end(Signal::SIGTERM);
    let left = sh(&host.state(), "ls");
    assert_eq!(left, "lock\nnext\n");
    assert_eq!(exact(&host.path()), found);
    let held = host.specrun(&["--hold"], "rm new");
    assert!(text(&held.stderr).starts_with("held as 3 "), "{held:?}");
    host.end(Signal::SIGTERM);
    assert!(host.mojavefs(&["commit", "3"]).status.success());
    assert!(!host.at("new").exists());
}

/// What root's daemon does it does as root: it listens to nobody else.
#[test]
fn nobody_else_asks_a_daemon_over_the_host() {
    let host = OverHost::new();
    host.run("true");
    let socket = std::fs::canonicalize(host.state().join("socket")).expect("a socket");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(socket).expect("it is there"));
    assert_eq!(mode & 0o777, 0o600);
}

/// A file with several names is written where it is; one that was half written is written anew.
#[test]
fn a_file_with_several_names_is_whole_after_a_daemon_is_killed() {
    for round in 0..8_u64 {
        let host = OverHost::new();
        sh(&host.path(), "head -c 8000000 /dev/zero > f; ln f g");
        host.run("true");
        let daemon = host.daemon().expect("a daemon");
        let mut job = host.job(&["--retries", "0"], "yes new | head -c 8000000 > f; touch ../done");
        let job = job.stderr(std::process::Stdio::piped()).spawn().expect("a job");
        until("its command is done", || host.aside("done").exists());
        std::thread::sleep(std::time::Duration::from_millis(2 + 4 * round));
        let _ = nix::sys::signal::kill(daemon, Signal::SIGKILL);
        let output = job.wait_with_output().expect("it ends");
        until("the daemon has ended", || !crate::harness::is_running(daemon));
        assert!(host.specrun(&[], "true").status.success());
        let content = host.read("f");
        let is_whole = |of: &str| content.as_bytes().chunks(of.len()).all(|chunk| chunk == of.as_bytes());
        assert!(is_whole("new\n") || is_whole("\0\0\0\0"), "round {round}: {output:?}");
        assert!(content == host.read("g") && !host.state().join("displaced").exists(), "round {round}: {output:?}");
    }
}

/// The version that a daemon has recorded is one that a program of this version can't talk to.
fn pretend(host: &OverHost, version: &str) -> Option<nix::unistd::Pid> {
    std::fs::write(host.state().join("version"), version).expect("write");
    host.daemon()
}

#[test]
fn a_daemon_of_an_older_version_makes_way_when_nothing_is_undecided() {
    let host = OverHost::new();
    host.run("echo one > a");
    let older = pretend(&host, "0.0.1 1\n");
    host.run("echo two >> a");
    assert!(older.is_some() && host.daemon() != older, "another one is there now");
    assert_eq!(host.read("a"), "one\ntwo\n");
    // Its number of the next speculation was handed over.
    let held = host.specrun(&["--hold"], "echo three >> a");
    assert!(text(&held.stderr).starts_with("held as 3 "), "{held:?}");
}

#[test]
fn a_daemon_of_another_version_stays_while_something_is_undecided_and_is_named() {
    let host = OverHost::new();
    let held = host.specrun(&["--hold"], "echo held > a");
    assert!(held.status.success(), "{held:?}");
    let older = pretend(&host, "0.0.1 1\n");
    for words in [&["status"][..], &["commit", "1"]] {
        let refused = host.mojavefs(words);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains("0.0.1 (1)") && said.contains("is undecided"), "{said}");
    }
    let refused = host.specrun(&[], "echo no > b");
    assert_eq!((refused.status.code(), host.at("b").exists()), (Some(125), false), "{refused:?}");
    assert_eq!(host.daemon(), older);
    // It is newer, and is asked for nothing.
    pretend(&host, "99.0.0 1\n");
    let refused = text(&host.specrun(&[], "true").stderr);
    assert!(refused.contains("99.0.0 (1)") && refused.contains("use the programs that fit it"), "{refused}");
    // As is said: what is held is kept.
    host.end(Signal::SIGTERM);
    assert!(host.mojavefs(&["commit", "1"]).status.success());
    assert_eq!(host.read("a"), "held\n");
}
