//! Jobs over a directory of the host.

mod asked;
mod changed;
mod commands;
mod ended;
mod late;
mod outside;
mod places;
mod settings;

use crate::harness::digest::content;
use crate::harness::host::OverHost;
use crate::harness::{sh, text, until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every kind of file, and of name.
const TREE: &str = "echo one > one; mkdir -p d/e/f sub gone/x; echo two > d/two; echo three > d/e/three; echo four > d/e/f/four;
    ln one second; ln -s one link; ln -s nowhere dangling; mkfifo fifo; dd if=/dev/urandom of=big bs=70000 count=9 status=none;
    truncate -s 3M sparse; printf x | dd of=sparse bs=1 seek=2000000 conv=notrunc status=none; echo g > gone/x/y; echo h > gone/h;
    chmod 750 d; chmod 4755 d/two; setfattr -n user.a -v b d/two; echo moved > from; touch -d '2001-02-03 04:05:06.789' d/e/three;
    : > empty; mkdir swap; echo a > swap/a; echo b > swap/b";

/// Every kind of change.
const CHANGES: &str = "echo more >> one; rm -r gone; mv from d/e/to; mv d/e moved; mkdir -p new/deep; echo n > new/deep/n; mv moved/f new/f;
    printf Y | dd of=big bs=1 seek=100000 conv=notrunc status=none; truncate -s 5 d/two; ln -sf big link; rm dangling fifo; mkfifo new/fifo;
    chmod 600 moved/three; setfattr -n user.c -v d moved/three; ln one new/third; mv swap/a swap/t; mv swap/b swap/a; mv swap/t swap/b;
    rm empty; mkdir empty; echo inside > empty/inside; rm -r sub; echo file > sub; touch -d '1999-01-01 00:00:00' big; : > new/nothing;
    truncate -s 200000 new/hole; mv sparse new/sparse; printf z | dd of=new/sparse bs=1 seek=10 conv=notrunc status=none; ln -s ../one new/up";

/// All that can be seen of a directory without touching it.
fn exact(dir: &Path) -> String {
    sh(
        dir,
        "find . -printf '%p %i %y %m %n %s %U %G %T@ %C@ %l\n' | sort; find . -type f | sort | xargs -d '\n' md5sum; getfattr -hdR . ",
    )
}

#[test]
fn a_commit_leaves_what_a_run_without_it_leaves() {
    let (host, native) = (OverHost::new(), tempfile::tempdir().expect("a directory"));
    sh(&host.path(), TREE);
    sh(native.path(), &format!("cp -a {}/. .", host.path().display()));
    sh(native.path(), CHANGES);
    let output = host.specrun(&[], CHANGES);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(content(&host.path()), content(native.path()));
    // What it has left is what the next one finds.
    assert_eq!(host.run("find . | sort"), sh(native.path(), "find . | sort"));
    let more = "echo again >> one; mv new d/new; rm d/new/third; echo x >> moved/to";
    host.run(more);
    sh(native.path(), more);
    assert_eq!(content(&host.path()), content(native.path()));
}

#[test]
fn what_fails_has_changed_nothing() {
    let host = OverHost::new();
    sh(&host.path(), TREE);
    let before = exact(&host.path());
    let output = host.specrun(&[], &format!("{CHANGES}; find . -type f | xargs cat > /dev/null 2>&1 || true; exit 3"));
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert_eq!(exact(&host.path()), before);
}

#[test]
fn a_job_sees_what_the_host_has() {
    let host = OverHost::new();
    sh(&host.path(), TREE);
    let looks = "find . -printf '%p %i %y %m %n %s %U %G %T@ %l\n' | grep -v '^[.] ' | sort; cat one link d/e/f/four; md5sum big sparse; getfattr -d d/two";
    let native = sh(&host.path(), looks);
    assert_eq!(host.run(looks), native);
}

#[test]
fn nobody_outside_sees_what_is_undecided() {
    let host = OverHost::new();
    host.write("a", "old");
    let script = "echo new > a; echo x > b; touch ../written; until [ -e ../go ]; do sleep 0.01; done";
    let mut job = host.job(&[], script).spawn().expect("a job");
    until("it has written", || host.aside("written").exists());
    assert_eq!(host.read("a"), "old");
    assert!(!host.at("b").exists());
    // What it has written lies in it, and so that is inside of no job.
    let other = host.specrun(&["--no-wait"], "cat a");
    assert_eq!(text(&other.stdout), "new\n", "another job becomes part of it: {other:?}");
    fs::write(host.aside("go"), "").expect("go");
    assert!(job.wait().expect("the job ends").success());
    assert_eq!((host.read("a"), host.read("b")), ("new\n".into(), "x\n".into()));
}

#[test]
fn what_is_held_is_reviewed_and_then_committed_or_aborted() {
    let host = OverHost::new();
    sh(&host.path(), TREE);
    let before = exact(&host.path());
    let held = host.specrun(&["--hold"], "echo held >> one; rm -r gone; echo n > n");
    assert!(held.status.success() && text(&held.stderr).starts_with("held as 1 "), "{held:?}");
    assert_eq!(exact(&host.path()), before);
    let diff = text(&host.mojavefs(&["diff", "1"]).stdout);
    assert!(diff.contains("project/gone/x/y") && diff.contains("project/n"), "{diff}");
    let inside = host.mojavefs(&["shell", "1", "--", "cat", "n"]);
    assert_eq!(text(&inside.stdout), "n\n", "{inside:?}");
    let committed = host.mojavefs(&["commit", "1"]);
    assert!(committed.status.success(), "{committed:?}");
    assert_eq!((host.read("one"), host.read("n")), ("one\nheld\n".into(), "n\n".into()));
    assert!(!host.at("gone").exists());
    let before = exact(&host.path());
    host.specrun(&["--hold"], "rm -r *");
    assert!(host.mojavefs(&["abort", "2"]).status.success());
    assert_eq!(exact(&host.path()), before);
}

#[test]
fn a_job_inside_of_a_job_becomes_part_of_it() {
    let host = OverHost::new();
    host.write("a", "a\n");
    let inner = crate::harness::SPECRUN;
    host.run(&format!("{inner} -- sh -c 'echo b >> a'; {inner} -- sh -c 'echo no >> a; exit 1' || echo c >> a"));
    assert_eq!(host.read("a"), "a\nb\nc\n");
}

#[test]
fn what_is_written_elsewhere_is_not_undone() {
    let host = OverHost::new();
    let output = host.specrun(&[], "echo x > ../aside; echo y > here; exit 1");
    assert_eq!(output.status.code(), Some(1));
    assert!(host.aside("aside").exists() && !host.at("here").exists());
}

#[test]
fn a_file_of_which_nothing_is_changed_stays_the_same_file() {
    let host = OverHost::new();
    sh(&host.path(), TREE);
    let number = |path: &str| fs::metadata(host.at(path)).expect("it is there").ino();
    let (big, two) = (number("big"), number("d/two"));
    host.run("cat big > /dev/null; chmod 700 d/two; mv big d/big; echo x > new");
    assert_eq!((number("d/big"), number("d/two")), (big, two));
}

#[test]
fn its_own_state_is_shown_to_no_job() {
    let host = OverHost::new();
    host.write("a", "a");
    let state = host.at("state");
    let script = "ls -A state; touch state/x && exit 9; rmdir state && exit 9; mv state t && exit 9; echo changed > a";
    let output = host.job(&[], script).env("MOJAVEFS_STATE", &state).output().expect("specrun runs");
    let pid = fs::read_to_string(state.join("lock")).expect("the daemon's number");
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().expect("a number"));
    let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
    until("the daemon has ended", || !crate::harness::is_running(pid));
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(state.join("lock").exists() && host.read("a") == "changed\n", "{output:?}");
}

/// As editors and git save.
#[test]
fn a_new_file_takes_the_place_of_one_that_nobody_has_looked_at() {
    let host = OverHost::new();
    sh(&host.path(), "echo 1 > a; mkdir d; echo 2 > d/b");
    host.run("echo x > n; mv n a; echo y > d/n; mv d/n d/b");
    assert_eq!((host.read("a"), host.read("d/b")), ("x\n".into(), "y\n".into()));
    host.run("sed -i s/x/z/ a");
    assert_eq!(host.read("a"), "z\n");
}

#[test]
fn a_file_that_is_changed_and_gets_another_name_is_one_file() {
    let cases =
        ["echo q >> b; ln b h2", "ln b h2; echo q >> b", "ln b h2; echo q >> h2", "mv b h2; ln h2 b; echo q >> b"];
    for script in cases {
        let host = OverHost::new();
        host.write("b", "1\n");
        host.run(script);
        let stat = |path: &str| fs::metadata(host.at(path)).expect("it is there");
        assert_eq!((stat("b").ino(), stat("b").nlink()), (stat("h2").ino(), 2), "{script}");
        assert_eq!(host.read("b"), "1\nq\n", "{script}");
    }
}

/// The host gives numbers of what was removed to what is made next.
#[test]
fn a_file_that_has_the_number_of_another_one_is_not_that() {
    let host = OverHost::new();
    for round in 0..6 {
        sh(&host.path(), &format!("rm -rf b; mkdir b; echo {round} > b/f"));
        let inside = host.job(&[], "cat f; echo job >> f").current_dir(host.at("b")).output().expect("a job");
        assert_eq!((inside.status.code(), text(&inside.stdout)), (Some(0), format!("{round}\n")), "{inside:?}");
        assert_eq!(host.read("b/f"), format!("{round}\njob\n"));
        sh(&host.path(), &format!("rm b/f; echo {round} > b/g; echo n > .n; mv .n b/f"));
        assert_eq!(host.run("cat b/f b/g"), format!("n\n{round}\n"));
    }
}
