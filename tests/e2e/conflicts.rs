//! First to commit wins, and nobody's work is overwritten unseen.

use crate::harness::{Mount, text};
use std::fs;

#[test]
fn the_second_of_two_jobs_is_refused() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.held_apart("echo 1 > a");
    let second = mount.held_apart("echo 2 > a; echo 2 > b");
    assert!(mount.mojavefs(&["commit", &first]).status.success());
    let refused = mount.mojavefs(&["commit", &second]);
    assert_eq!(refused.status.code(), Some(75));
    assert!(text(&refused.stderr).contains("  a (content"), "{}", text(&refused.stderr));
    assert_eq!(mount.read("a"), "1\n");
    assert!(!mount.exists("b"));
    assert!(mount.mojavefs(&["abort", &second]).status.success());
    mount.check();
}

#[test]
fn trunk_wins_at_once_and_reading_counts() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let id = mount.held_apart("cat a > b");
    mount.write("a", "trunk\n");
    let refused = mount.mojavefs(&["commit", &id]);
    assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
    assert!(text(&refused.stderr).contains("a (content or attributes; read here"), "{}", text(&refused.stderr));
}

#[test]
fn unrelated_names_of_one_directory_do_not_meet() {
    let mount = Mount::new();
    fs::create_dir(mount.at("d")).expect("mkdir");
    let first = mount.held_apart("echo 1 > d/one");
    let second = mount.held_apart("echo 2 > d/two; mkdir d/sub");
    mount.write("d/three", "3\n");
    for id in [first, second] {
        let output = mount.mojavefs(&["commit", &id]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(fs::read_dir(mount.at("d")).expect("list").count(), 4);
    mount.check();
}

#[test]
fn a_listing_sees_a_new_name() {
    let mount = Mount::new();
    fs::create_dir(mount.at("d")).expect("mkdir");
    let id = mount.held_apart("ls d > listed");
    mount.write("d/new", "");
    assert_eq!(mount.mojavefs(&["commit", &id]).status.code(), Some(75));
}

#[test]
fn a_refused_run_is_rolled_back_and_says_why() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let script = "echo job > a; touch ../written; while [ ! -e ../go ]; do sleep 0.01; done";
    let job = mount
        .specrun_command(&["--isolate", "--retries", "0"], script)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("specrun runs");
    crate::harness::until("the job has written", || mount.beside("written").exists());
    mount.write("a", "trunk\n");
    fs::write(mount.beside("go"), "").expect("go");
    let output = job.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(75));
    assert!(text(&output.stderr).contains("rolled back 1 change: conflicts"), "{}", text(&output.stderr));
    assert_eq!(mount.read("a"), "trunk\n");
    assert!(mount.status().is_empty());
}

#[test]
fn ours_and_theirs_settle_a_conflict_path_by_path() {
    let mount = Mount::new();
    for name in ["a", "b"] {
        mount.write(name, "0\n");
    }
    let id = mount.held_apart("echo ours > a; echo ours > b; echo new > c; mkdir d; echo x > d/x");
    mount.write("a", "theirs\n");
    mount.write("b", "theirs\n");
    let half = mount.mojavefs(&["commit", &id, "--ours", "a"]);
    assert_eq!(half.status.code(), Some(75), "b is not settled");
    let output = mount.mojavefs(&["commit", &id, "--ours", "a", "--theirs", "b"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("a"), mount.read("b")), ("ours\n".into(), "theirs\n".into()));
    assert_eq!((mount.read("c"), mount.read("d/x")), ("new\n".into(), "x\n".into()));
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn ours_stands_where_both_made_or_removed_a_name() {
    let mount = Mount::new();
    mount.write("gone", "0\n");
    let id = mount.held_apart("echo ours > made; rm gone");
    mount.write("made", "theirs\n");
    mount.write("gone", "changed\n");
    let output = mount.mojavefs(&["commit", &id, "--ours", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mount.read("made"), "ours\n");
    assert!(!mount.exists("gone"));
    mount.check();
}

#[test]
fn two_histories_are_never_mixed_in_one_file() {
    let mount = Mount::new();
    let block = 64 * 1024;
    fs::write(mount.at("big"), vec![b'0'; 4 * block]).expect("write");
    let id = mount.held_apart("printf ours | dd of=big conv=notrunc bs=1 seek=0 2>/dev/null");
    let theirs = "printf theirs | dd of=big conv=notrunc bs=1 seek=200000 2>/dev/null";
    crate::harness::sh(&mount.path(), theirs);
    assert!(mount.mojavefs(&["commit", &id, "--ours", "big"]).status.success());
    let content = fs::read(mount.at("big")).expect("read");
    assert!(content.starts_with(b"ours0") && !content.windows(6).any(|w| w == b"theirs"));
    mount.check();
}
