//! Somebody changes the host while a decision is applied to it, before each call by which that changes something, or keeps it from that.

use crate::harness::digest::{content, copied};
use crate::harness::host::OverHost;
use crate::harness::traced::{Edge, Then, Traced};
use crate::harness::{sh, text, until};
use std::fs;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Of how many calls one is tried where not all are.
const EVERY: usize = 4;

/// Commits what is held, and runs a script before the apply's call with this number; nothing if it makes fewer.
fn commit_beside(host: &OverHost, at: usize, script: &'static str) -> Option<Output> {
    host.mojavefs(&["status"]);
    let (calls, dir) = (Arc::new(AtomicUsize::new(0)), host.path());
    let (counted, project) = (calls.clone(), dir.clone());
    let daemon = host.daemon().expect("a daemon");
    let traced = Traced::seize(daemon, &dir, move |call| {
        let is_in_it = call.paths.iter().any(|path| path.starts_with(&project));
        if is_in_it && call.edge == Edge::Before && counted.fetch_add(1, Ordering::SeqCst) + 1 == at {
            sh(&project, script);
        }
        Then::Goes
    });
    let traced = traced.expect("the daemon can be traced");
    let output = host.mojavefs(&["commit", "1"]);
    traced.end();
    (calls.load(Ordering::SeqCst) >= at).then_some(output)
}

/// Holds a job and commits it, anew for each call of the apply, before which others do something.
fn each_call(tree: &str, job: &str, others: &'static str, check: impl Fn(&OverHost, &Output, usize)) {
    let step = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 1 } else { EVERY };
    let mut tried = 0;
    for at in (1..).step_by(step) {
        let host = OverHost::new();
        sh(&host.path(), tree);
        let held = host.specrun(&["--hold"], job);
        assert!(held.status.success(), "{held:?}");
        let Some(output) = commit_beside(&host, at, others) else { break };
        check(&host, &output, at);
        tried += 1;
    }
    assert!(tried > 2, "the apply was seen at {tried} calls");
}

/// What is in the directory and in what is displaced.
fn everything(host: &OverHost) -> String {
    sh(&host.aside("."), "find project state/displaced -type f 2>/dev/null | xargs -r cat")
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_no_apply_out_of_it() {
    require_root!();
    let tree = "mkdir -p d/e ../outside/e; for f in d ../outside; do echo old > $f/x; echo old > $f/gone; echo old > $f/e/y; done";
    let job = "echo job-x > d/x; echo job-new > d/new; rm d/gone; echo job-y > d/e/y; mkdir d/e/in; echo job-z > d/e/in/z; chmod 700 d/e";
    each_call(tree, job, "mv d aside; ln -s ../outside d; touch ../swapped", |host, output, at| {
        assert!(output.status.success() && host.aside("swapped").exists(), "{at}: {output:?}");
        let fresh = OverHost::new();
        sh(&fresh.path(), tree);
        assert_eq!(content(&host.aside("outside")), content(&fresh.aside("outside")), "{at}: {output:?}");
        let all = everything(host);
        for text in ["job-x", "job-new", "job-y", "job-z"] {
            assert!(all.contains(text), "{at}: {text} is lost: {all} {output:?}");
        }
    });
}

#[test]
fn a_file_that_is_swapped_for_a_fifo_stops_no_apply() {
    require_root!();
    let tree = "echo old-f > f; echo old-g > g; echo old-h > h; echo old-i > i; ln i j";
    let job = "echo job-f > f; rm g; chmod 600 h; echo job-i > i";
    each_call(tree, job, "rm f h i; rm -f g; mkfifo f g h i", |host, output, at| {
        assert!(output.status.success(), "{at}: {output:?}");
        let fifos = sh(&host.aside("."), "find project state/displaced -type p 2>/dev/null | wc -l");
        assert_eq!(fifos.trim(), "4", "{at}: {output:?}");
        // What others have removed after it was there is theirs.
        let own = sh(&host.path(), "find . -name '.mojavefs-*'");
        assert_eq!(own, "", "{at}: {output:?}");
    });
}

/// A job that has changed permissions only takes nothing else from what others have made of a file.
#[test]
fn what_others_write_keeps_its_time() {
    require_root!();
    let host = OverHost::new();
    sh(&host.path(), "echo old > f; touch -d '2001-02-03' f; echo old > g");
    let held = host.specrun(&["--hold"], "chmod 600 f; echo job > g");
    assert!(held.status.success(), "{held:?}");
    let output = commit_beside(&host, 1, "echo host > f; stat -c %Y f > ../time").expect("it was applied");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(sh(&host.path(), "cat f; stat -c %a f; stat -c %Y f | cmp - ../time"), "host\n600\n");
}

/// What can't be changed yet keeps a decision waiting, as a whole or in part, and is changed as soon as it can be.
#[test]
fn what_is_read_only_or_immutable_waits() {
    require_root!();
    for (before, meanwhile, lets) in [
        ("mount --bind d d; mount -o remount,bind,ro d", "true", "umount d"),
        ("true", "chattr +i d/x", "chattr -i d/x"),
        ("true", "chattr +i d", "chattr -i d"),
    ] {
        let host = OverHost::new();
        sh(&host.path(), "mkdir d; echo old > d/x; echo old > f");
        let held = host.specrun(&["--hold"], "echo job > d/x; echo job > f; echo job > d/new");
        assert!(held.status.success(), "{held:?}");
        sh(&host.path(), before);
        let output = commit_beside(&host, 1, meanwhile);
        // However it ends, the directory of the test can be removed.
        let found = sh(&host.path(), &format!("cat d/x; {lets}"));
        let output = output.unwrap_or_else(|| host.mojavefs(&["commit", "1"]));
        assert_eq!((output.status.code(), found.as_str()), (Some(73), "old\n"), "{before} {meanwhile}: {output:?}");
        let is_there = |path: &str| fs::read_to_string(host.at(path)).is_ok_and(|text| text == "job\n");
        until("it is on the host", || {
            host.run("true");
            ["f", "d/x", "d/new"].iter().all(|path| is_there(path))
        });
        assert_eq!(sh(&host.path(), "find . | sort"), ".\n./d\n./d/new\n./d/x\n./f\n", "{before} {meanwhile}");
        assert!(!host.state().join("displaced").exists(), "{before} {meanwhile}: {}", text(&output.stderr));
    }
}

/// Names elsewhere of a file are the same file afterwards; nothing else outside is touched.
#[test]
fn a_file_with_a_name_outside_stays_one_file() {
    let host = OverHost::new();
    sh(
        &host.path(),
        "echo old > f; mkdir ../outside; ln f ../outside/f; echo safe > ../outside/g; ln -s ../outside/g l; ln -s ../outside up",
    );
    let outside = copied(&host.aside("outside/g"));
    host.run("echo job > f; rm l; mv up moved; ln -s ../outside/g l");
    let found = sh(&host.path(), "cat ../outside/f; readlink l moved; [ f -ef ../outside/f ] && echo same");
    assert_eq!(found, "job\n../outside/g\n../outside\nsame\n");
    assert_eq!(copied(&host.aside("outside/g")), outside);
}
