//! What depends on each other survives a crash together, or falls together.

use crate::harness::jobs::depends_on;
use crate::harness::{MOJAVEFS, Mount, SPECRUN, text, until};
use std::process::{Command, Stdio};

#[test]
fn what_depends_on_a_held_one_survives_with_it() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let held: u64 = mount.held("echo 1 > a").parse().expect("a number");
    assert_eq!(depends_on(&mount, "cat a > b"), [held]);
    assert_eq!(depends_on(&mount, "cat b > c"), [held]);
    mount.crash();
    mount.mount();
    let states: Vec<_> = mount.status().iter().map(|s| s["state"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(states, ["held", "voted", "voted"]);
    assert_eq!((mount.read("a"), mount.exists("b")), ("0\n".into(), false));
    assert!(mount.mojavefs(&["commit", &held.to_string()]).status.success());
    assert_eq!((mount.read("a"), mount.read("b"), mount.read("c")), ("1\n".into(), "1\n".into(), "1\n".into()));
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn what_depends_on_a_held_one_falls_with_it_after_a_restart() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let held: u64 = mount.held("echo 1 > a").parse().expect("a number");
    assert_eq!(depends_on(&mount, "cat a > b"), [held]);
    mount.check();
    assert!(mount.mojavefs(&["abort", &held.to_string()]).status.success());
    assert!(mount.status().is_empty());
    assert_eq!((mount.read("a"), mount.exists("b")), ("0\n".into(), false));
    mount.check();
}

#[test]
fn what_depends_on_a_running_one_falls_with_the_daemon() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    assert_eq!(depends_on(&mount, "cat a > b"), [first.spec()]);
    mount.crash();
    assert_eq!(first.wait().status.code(), Some(75));
    mount.mount();
    assert!(mount.status().is_empty());
    assert_eq!((mount.read("a"), mount.exists("b")), ("0\n".into(), false));
    mount.check();
}

/// The first is committed before the crash, so what read it and is held stands alone after it.
#[test]
fn a_held_one_is_rid_of_what_became_final() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    let held = mount.held("cat a > b");
    assert!(first.exit(0).status.success());
    mount.crash();
    mount.mount();
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    assert_eq!(mount.read("b"), "1\n");
    mount.check();
}

/// What a job within a job read is read by both.
#[test]
fn what_an_inner_job_depended_on_takes_the_outer_one_along() {
    let mount = Mount::new();
    let first = mount.start("first", &[], "mkdir d; echo hi > d/a");
    let inner = format!("{SPECRUN} --from-start -- sh -c 'echo more > d/b; cp d/a copy' 2>../said");
    let held = mount.held(&inner);
    let why = text(&mount.mojavefs(&["why", &held]).stdout);
    assert!(why.contains(&format!("{held} depends on {}", first.spec())), "{why}");
    mount.crash();
    assert_eq!(first.wait().status.code(), Some(75));
    mount.mount();
    assert!(mount.status().is_empty(), "{:?}", mount.status());
    mount.check();
}

#[test]
fn what_read_an_inner_job_s_work_is_kept_with_the_outer_one() {
    let mount = Mount::new();
    let outer: u64 =
        mount.held(&format!("{SPECRUN} --from-start -- sh -c 'echo hi > p' 2>../said")).parse().expect("a number");
    let reader: u64 = mount.held("cat p > q").parse().expect("a number");
    let depends = |what: &str| {
        let status = mount.status();
        let reader = status.iter().find(|s| s["id"] == reader);
        let reader = reader.unwrap_or_else(|| panic!("{what}: {status:?}"));
        assert_eq!((&reader["state"], &reader["depends_on"][0]["id"]), (&"held".into(), &outer.into()), "{what}");
    };
    depends("at first");
    mount.check();
    depends("after a restart");
    for id in [outer, reader] {
        assert!(mount.mojavefs(&["commit", &id.to_string()]).status.success());
    }
    assert_eq!(mount.read("q"), "hi\n");
    mount.check();
}

/// It was read before the inner job became part of the outer one.
#[test]
fn what_has_read_a_running_inner_job_s_work_is_kept_with_the_outer_one() {
    let mount = Mount::new();
    let inner = "echo hi > p; touch ../written; until [ -e ../go ]; do sleep 0.01; done";
    let outer = format!("{SPECRUN} --from-start -- sh -c '{inner}'");
    let outer = mount.specrun_command(&["--hold"], &outer).spawn().expect("specrun runs");
    until("the inner one has written", || mount.beside("written").exists());
    let reader: u64 = mount.held("cat p > q").parse().expect("a number");
    std::fs::write(mount.beside("go"), "").expect("go");
    assert!(outer.wait_with_output().expect("it ends").status.success());
    mount.crash();
    mount.mount();
    let status = mount.status();
    assert_eq!(status.len(), 2, "{status:?}");
    assert_eq!(status.iter().filter(|s| s["id"] == reader).count(), 1);
    mount.check();
}

/// Runs a script in a shell in a held speculation, and kills the daemon before the shell ends.
fn crash_in_a_shell(mount: &Mount, held: &str, script: &str) {
    let script = format!("{script}; touch {}; read _", mount.beside("done").display());
    let mut shell = Command::new(MOJAVEFS);
    shell.args(["shell", held, "--", "sh", "-c", &script]).current_dir(mount.path());
    let mut shell =
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mojavefs runs");
    until("the shell is through", || mount.beside("done").exists());
    mount.crash();
    drop(shell.stdin.take());
    shell.wait().expect("the shell ends");
}

#[test]
fn a_held_one_falls_with_what_a_shell_in_it_had_read() {
    let mount = Mount::new();
    let first = mount.start("first", &[], "echo undecided > data");
    let held = mount.held_from_start("echo mine > mine");
    crash_in_a_shell(&mount, &held, "cat data > copy");
    assert_eq!(first.wait().status.code(), Some(75));
    mount.mount();
    assert!(mount.status().is_empty(), "{:?}", mount.status());
    mount.check();
}

/// What lies below the shell's change is decided later than the held one began, so its change carries an interval of its own.
#[test]
fn what_a_shell_changes_over_later_work_survives_a_crash() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let held = mount.held_from_start("echo mine > mine");
    let later = mount.held("echo later > data");
    crash_in_a_shell(&mount, &held, "echo more >> data; sync data");
    mount.mount();
    for id in [later, held] {
        let output = mount.mojavefs(&["commit", &id]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!((mount.read("data"), mount.read("mine")), ("later\nmore\n".into(), "mine\n".into()));
    mount.check();
}
