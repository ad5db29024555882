//! What depends on each other survives a crash together, or falls together.

use crate::harness::Mount;
use crate::harness::jobs::depends_on;

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
