//! Speculation spreads through what is read, and what it reached falls or stands together.

mod attempts;
mod choices;
mod held;
mod lines;
mod many;
mod nested;
mod reads;
mod surviving;

use crate::harness::{Mount, text};

#[test]
fn a_reader_becomes_final_with_what_it_read() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let first = mount.start("first", &[], "echo new > data");
    let second = mount.start("second", &[], "cat data > result");
    assert_eq!((mount.read("data"), mount.exists("result")), ("old\n".into(), false));
    second.let_exit(0);
    crate::harness::until("the second has voted", || {
        mount.status().iter().any(|s| s["state"] == "voted" && s["depends_on"][0]["id"] == first.spec())
    });
    assert!(!mount.exists("result"), "nothing of it is final before the first is");
    assert!(first.exit(0).status.success());
    let output = second.wait();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("data"), mount.read("result")), ("new\n".into(), "new\n".into()));
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn a_reader_is_rolled_back_and_run_again_on_the_old_data() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let first = mount.start("first", &[], "echo new > data");
    let second = mount.start_freely("second", &[], "echo run >> ../runs; cat data > result");
    second.let_exit(0);
    crate::harness::until("the second has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
    assert_eq!(first.exit(3).status.code(), Some(3));
    let output = second.wait();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stderr);
    assert!(
        said.contains("`data`") && said.contains("first.through") && said.contains("running again (1 of 3)"),
        "{said}"
    );
    assert_eq!((mount.read("data"), mount.read("result")), ("old\n".into(), "old\n".into()));
    assert_eq!(std::fs::read_to_string(mount.beside("runs")).expect("runs"), "run\nrun\n");
    mount.check();
}

#[test]
fn one_that_is_running_is_ended_when_what_it_read_falls() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let first = mount.start("first", &[], "echo new > data");
    let script = "cat data > result; if grep -q new data; then (sleep 1000 & sleep 1000); fi; exit 7";
    let second = mount.specrun_command(&["--retries", "1"], script).spawn().expect("specrun runs");
    crate::harness::until("the second has joined", || {
        mount.status().iter().any(|s| s["depends_on"][0]["path"] == "data")
    });
    first.exit(1);
    let output = second.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(7), "the second run sees the old data");
    assert!(!mount.exists("result"));
}

#[test]
fn too_many_rollbacks_are_a_temporary_failure() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let first = mount.start("first", &[], "echo new > data");
    let second = mount.start("second", &["--retries", "0"], "cat data");
    second.let_exit(0);
    first.exit(1);
    let output = second.wait();
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("it was run 1 time in all"), "{}", text(&output.stderr));
}

#[test]
fn a_chain_falls_as_one_and_says_how() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    let second = mount.start("second", &["--retries", "0"], "cat a > b");
    let third = mount.start("third", &["--retries", "0"], "cat b > c");
    let why = text(&mount.mojavefs(&["why", &third.spec().to_string()]).stdout);
    assert!(why.contains(&format!("{} depends on {}", third.spec(), second.spec())), "{why}");
    assert!(why.contains(&format!("  {} depends on {}", second.spec(), first.spec())), "{why}");
    assert!(why.contains("read `b`") && why.contains("read `a`"), "{why}");
    let tree = text(&mount.mojavefs(&["status", "--graph"]).stdout);
    assert_eq!(tree.lines().count(), 3, "{tree}");
    assert!(tree.lines().nth(2).is_some_and(|line| line.starts_with("   └─ ")), "{tree}");
    assert!(text(&mount.mojavefs(&["status", "--dot"]).stdout).contains("->"));
    assert!(text(&mount.mojavefs(&["status", "--svg"]).stdout).starts_with("<svg"));
    first.exit(1);
    for fallen in [second.wait(), third.wait()] {
        assert_eq!(fallen.status.code(), Some(75));
    }
    assert_eq!((mount.read("a"), mount.exists("b"), mount.exists("c")), ("0\n".into(), false, false));
    assert!(mount.status().is_empty());
}

#[test]
fn a_diamond_needs_both_sides() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    let left = mount.start("left", &[], "cat a > left");
    let right = mount.start("right", &["--retries", "0"], "cat a > right");
    let last = mount.start("last", &["--retries", "0"], "cat left right > both");
    for job in [&left, &last] {
        job.let_exit(0);
    }
    assert!(first.exit(0).status.success());
    assert!(left.wait().status.success());
    assert!(!mount.exists("both"), "the right side is open");
    right.exit(1);
    assert_eq!(last.wait().status.code(), Some(75));
    assert_eq!((mount.read("left"), mount.exists("both")), ("1\n".into(), false));
}

#[test]
fn a_ring_stands_together() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let first = mount.start_freely("first", &["--retries", "0"], "echo 1 > a; until grep -q 1 b; do sleep 0.01; done");
    let second = mount.start("second", &["--retries", "0"], "until grep -q 1 a; do sleep 0.01; done; echo 1 > b");
    crate::harness::until("the first has read", || mount.beside("first.through").exists());
    first.let_exit(0);
    crate::harness::until("the first has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
    assert_eq!(mount.read("a"), "0\n");
    assert!(second.exit(0).status.success());
    assert!(first.wait().status.success());
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "1\n".into()));
    mount.check();
}

#[test]
fn a_ring_falls_together() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let first = mount.start_freely("first", &["--retries", "0"], "echo 1 > a; until grep -q 1 b; do sleep 0.01; done");
    let second = mount.start("second", &["--retries", "0"], "until grep -q 1 a; do sleep 0.01; done; echo 1 > b");
    crate::harness::until("the first has read", || mount.beside("first.through").exists());
    first.let_exit(0);
    assert_eq!(second.exit(1).status.code(), Some(1));
    assert_eq!(first.wait().status.code(), Some(75));
    assert_eq!((mount.read("a"), mount.read("b")), ("0\n".into(), "0\n".into()));
}

#[test]
fn a_job_that_has_read_what_it_leaves_behind_falls_alone() {
    let mount = Mount::new();
    mount.write("f", "0\n");
    let specrun = crate::harness::SPECRUN;
    let script = mount.beside("inner.sh");
    let behind = format!("({specrun} --quiet --retries 0 -- sh -c 'echo k > f; sleep 100' > /dev/null 2>&1 &)");
    std::fs::write(&script, format!("{behind}\nuntil grep -q k f; do sleep 0.01; done\n")).expect("a script");
    let inner = format!("{specrun} --quiet --retries 0 --from-start -- sh {}", script.display());
    let output = mount.specrun(&["--retries", "0", "--from-start"], &format!("{inner}; echo $? > said"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("said"), mount.read("f")), ("75\n".into(), "0\n".into()));
    assert!(mount.status().is_empty());
}

#[test]
fn what_is_left_behind_inside_of_a_job_is_undone_before_that_is_decided_and_has_been_read_for_it() {
    for code in [0, 1] {
        let mount = Mount::new();
        mount.write("h", "0\n");
        let other = mount.start("other", &[], "echo 1 > h");
        let specrun = crate::harness::SPECRUN;
        let read = mount.beside("read");
        let reads = format!("cat h > {}; sleep 100", read.display());
        let behind = format!("({specrun} --quiet --retries 0 -- sh -c '{reads}' > /dev/null 2>&1 &)");
        let script = format!("{behind}; until [ -s {} ]; do sleep 0.01; done; echo m > g", read.display());
        let outer = mount.start("outer", &["--retries", "0", "--from-start"], &script);
        outer.let_exit(0);
        crate::harness::until("the outer has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
        assert!(!mount.exists("g"));
        assert_eq!(other.exit(code).status.code(), Some(code));
        assert_eq!(outer.wait().status.code(), Some(if code == 0 { 0 } else { 75 }));
        assert_eq!(mount.exists("g"), code == 0);
        mount.check();
    }
}

#[test]
fn nested_jobs_carry_what_they_joined_outwards() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    let specrun = crate::harness::SPECRUN;
    let outer = mount.start("outer", &["--retries", "0"], &format!("{specrun} -- sh -c 'cat a > b'; echo done > c"));
    outer.let_exit(0);
    crate::harness::until("the outer has voted", || {
        mount.status().iter().filter(|s| s["state"] == "voted").count() == 1
    });
    assert!(!mount.exists("c"));
    first.exit(1);
    assert_eq!(outer.wait().status.code(), Some(75));
    assert!(!mount.exists("b") && !mount.exists("c"));
    assert!(mount.status().is_empty());
}
