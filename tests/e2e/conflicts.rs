//! First to commit wins, and nobody's work is overwritten unseen.

use crate::harness::{Mount, SPECRUN, text, until};
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

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
fn what_a_job_inside_has_read_counts_for_an_isolated_one_though_it_is_undone() {
    for (options, inner) in [("", "cat a; false"), ("", "cat a; echo inner > b; false"), ("--isolate", "cat a; false")]
    {
        let inner = format!("{SPECRUN} --quiet --retries 0 {options} -- sh -c '{inner}'; echo x > c");
        // Read before the others' change, or after it and old.
        for is_before in [true, false] {
            let mount = Mount::new();
            mount.write("a", "0\n");
            let go = mount.beside("go");
            let waits = format!("until [ -e {} ]; do sleep 0.01; done", go.display());
            let script = if is_before { inner.clone() } else { format!("{waits}; {inner}") };
            let job = mount.start_freely("job", &["--isolate", "--retries", "0"], &script);
            match is_before {
                true => until("it has read", || mount.beside("job.through").exists()),
                false => until("it has begun", || !mount.status().is_empty()),
            }
            mount.write("a", "1\n");
            fs::write(&go, "").expect("say so");
            let output = job.exit(0);
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(75), "{inner}: {said}");
            assert!(said.contains("a (content or attributes; read here"), "{inner}: {said}");
            assert!(!mount.exists("c"));
            mount.check();
        }
    }
}

#[test]
fn a_job_inside_one_that_is_in_conflict_is_not_run_again() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let (go, runs) = (mount.beside("go"), mount.beside("runs"));
    let inner = format!("{SPECRUN} --retries 5 -- sh -c 'echo run >> {}; cat a > b'", runs.display());
    let script = format!("until [ -e {} ]; do sleep 0.01; done; {inner}", go.display());
    let job = mount.start_freely("job", &["--isolate", "--retries", "0"], &script);
    until("it has begun", || !mount.status().is_empty());
    mount.write("a", "1\n");
    fs::write(&go, "").expect("say so");
    let output = job.exit(0);
    assert_eq!(output.status.code(), Some(75));
    assert!(text(&output.stderr).contains("not run again: the job around it"), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(runs).expect("it ran"), "run\n");
    mount.check();
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
fn a_job_that_is_undone_by_a_conflict_names_what_was_held_on_top_of_it() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let options = ["--retries", "0"];
    let mut job = mount.specrun_command(&options, "echo job > a; echo job > ../begun; read go");
    let mut job = job.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("specrun runs");
    until("it has written", || mount.beside("begun").exists());
    let held = mount.held("cp a copy");
    mount.write("a", "trunk\n");
    job.stdin.take().expect("a pipe").write_all(b"go\n").expect("a line");
    let output = job.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(75));
    let said = text(&output.stderr);
    assert!(said.contains("also undone, as depending on") && said.contains(&format!(": {held}\n")), "{said}");
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn of_one_path_one_version_is_chosen_and_in_time() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let id = mount.held_apart("echo ours > a");
    mount.write("a", "theirs\n");
    let both = mount.mojavefs(&["commit", &id, "--ours", "a", "--theirs", "./a"]);
    assert_eq!(both.status.code(), Some(1));
    assert!(text(&both.stderr).contains("both said of `a`: choose one"), "{}", text(&both.stderr));
    assert_eq!(mount.read("a"), "theirs\n");
    assert!(mount.mojavefs(&["commit", &id, "--ours", "a"]).status.success());
    let late = mount.mojavefs(&["commit", &id, "--theirs", "a"]);
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("is committed already"), "{}", text(&late.stderr));
    assert_eq!(mount.read("a"), "ours\n");
    mount.check();
}

#[test]
fn theirs_stands_only_where_there_is_a_conflict() {
    for (said, base) in [(".", ""), ("d", "d/")] {
        let mount = Mount::new();
        fs::create_dir(mount.at("d")).expect("mkdir");
        for name in ["c", "f", "moved"] {
            mount.write(&format!("{base}{name}"), "0\n");
        }
        let ours = "echo ours > c; echo ours > f; mkdir nd; echo x > nd/z; mv moved there; echo ours > made";
        let id = mount.held(&format!("cd ./{base}; {ours}"));
        mount.write(&format!("{base}c"), "theirs\n");
        mount.write(&format!("{base}made"), "theirs\n");
        let output = mount.mojavefs(&["commit", &id, "--theirs", said]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let read = |name: &str| mount.read(&format!("{base}{name}"));
        assert_eq!((read("c"), read("made")), ("theirs\n".into(), "theirs\n".into()));
        assert_eq!((read("f"), read("nd/z"), read("there")), ("ours\n".into(), "x\n".into(), "0\n".into()));
        assert!(!mount.exists(&format!("{base}moved")));
        mount.check();
    }
}

#[test]
fn a_directory_stays_for_what_others_have_in_it() {
    let mount = Mount::new();
    crate::harness::sh(&mount.path(), "mkdir -p d/sub; echo 0 > d/sub/x; echo 0 > d/sub/y");
    let id = mount.held("rm -r d; echo file > d");
    mount.write("d/sub/x", "theirs\n");
    let output = mount.mojavefs(&["commit", &id, "--theirs", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mount.read("d/sub/x"), "theirs\n");
    assert!(!mount.exists("d/sub/y"));
    mount.check();
}

#[test]
fn a_settled_conflict_counts_as_committed() {
    let mount = Mount::new();
    mount.write("c", "0\n");
    let id = mount.held("echo ours > c; echo ours > f");
    mount.write("c", "theirs\n");
    assert!(mount.mojavefs(&["commit", &id, "--ours", "c"]).status.success());
    assert!(mount.mojavefs(&["barrier", &id]).status.success());
    assert!(mount.mojavefs(&["commit", &id]).status.success(), "the same decision again is harmless");
    let late = mount.mojavefs(&["abort", &id]);
    assert!(!late.status.success() && text(&late.stderr).contains("committed already"), "{}", text(&late.stderr));
    mount.check();
}

#[test]
fn ours_may_be_another_file_of_that_name() {
    let mount = Mount::new();
    mount.write("large", &"0".repeat(20_000));
    let id = mount.held("rm large; echo new > large");
    crate::harness::sh(&mount.path(), "echo theirs >> large");
    let output = mount.mojavefs(&["commit", &id, "--ours", "."]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(mount.read("large"), "new\n");
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

#[test]
fn held_jobs_conflict_with_each_other_after_a_restart_too() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("log", "base\n");
    let apart = [mount.held_apart("echo 1 > a"), mount.held_apart("echo 2 > a")];
    let script = "echo A1 >> log; touch ../a1; until [ -e ../go ]; do sleep 0.01; done; echo A2 >> log";
    let mut first = mount.specrun_command(&["--hold", "--quiet", "--isolate"], script).spawn().expect("specrun runs");
    until("it has written", || mount.beside("a1").exists());
    let second = mount.held("echo B >> log");
    fs::write(mount.beside("go"), "").expect("go");
    assert!(first.wait().expect("it ends").success());
    let first = mount.status()[2]["id"].to_string();
    mount.umount();
    mount.mount();
    assert!(mount.mojavefs(&["commit", &apart[1]]).status.success());
    assert_eq!(mount.mojavefs(&["commit", &apart[0]]).status.code(), Some(75));
    mount.mojavefs(&["commit", &second]);
    assert!(mount.mojavefs(&["commit", &first]).status.success());
    assert_eq!(mount.mojavefs(&["commit", &second]).status.code(), Some(75));
    for id in [&apart[0], &second] {
        assert!(mount.mojavefs(&["abort", id]).status.success());
    }
    assert_eq!((mount.read("a"), mount.read("log")), ("2\n".into(), "base\nA1\nA2\n".into()));
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn two_moves_never_make_a_ring() {
    for (restart, options) in [(false, vec![]), (false, vec!["--isolate"]), (true, vec![])] {
        let mount = Mount::new();
        for dir in ["a", "b", "b/c"] {
            fs::create_dir(mount.at(dir)).expect("mkdir");
        }
        mount.write("a/x", "x");
        mount.write("b/y", "y");
        let options = [options, vec!["--quiet", "--hold"]].concat();
        assert!(mount.specrun(&options, "mv a b/c/").status.success());
        let id = mount.status()[0]["id"].to_string();
        if restart {
            mount.umount();
            mount.mount();
        }
        fs::rename(mount.at("b"), mount.at("a/b")).expect("mv");
        let refused = mount.mojavefs(&["commit", &id]);
        assert_eq!(refused.status.code(), Some(75), "{}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains("(place in the tree"), "{}", text(&refused.stderr));
        let (whose, x, y) = match options.contains(&"--isolate") {
            true => ("--ours", "b/c/a/x", "b/c/a/b/y"),
            false => ("--theirs", "a/x", "a/b/y"),
        };
        assert!(mount.mojavefs(&["commit", &id, whose, "."]).status.success());
        assert_eq!((mount.read(x), mount.read(y)), ("x".into(), "y".into()), "{whose}");
        mount.check();
    }
}

#[test]
fn a_move_and_work_below_its_target_are_no_conflict() {
    let mount = Mount::new();
    for dir in ["a", "b", "c"] {
        fs::create_dir(mount.at(dir)).expect("mkdir");
    }
    let id = mount.held_apart("mv a b/");
    fs::rename(mount.at("c"), mount.at("b/c")).expect("mv");
    mount.write("b/c/x", "x");
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    assert!(mount.exists("b/a") && mount.exists("b/c/x"));
    mount.check();
}

/// Holds a job that follows others, changes trunk, and resolves all conflicts in the job's favour.
fn ours_stands(job: &str, trunk: &str, then: impl FnOnce(&Mount)) {
    let mount = Mount::new();
    crate::harness::sh(&mount.path(), "echo old > b; echo c > c; echo d > d; mkdir dir; echo q > dir/q; sync");
    assert!(mount.specrun(&["--hold"], job).status.success());
    let id = mount.status()[0]["id"].to_string();
    crate::harness::sh(&mount.path(), trunk);
    let refused = mount.mojavefs(&["commit", &id]);
    assert_eq!(refused.status.code(), Some(75), "{job} / {trunk}: {}", text(&refused.stderr));
    let said = text(&refused.stderr);
    assert!(!said.contains("(inode"), "{job} / {trunk}: {said}");
    let output = mount.mojavefs(&["commit", &id, "--ours", "."]);
    assert!(output.status.success(), "{job} / {trunk}: {}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("(0 changes)"), "{}", text(&output.stdout));
    then(&mount);
    mount.check();
}

#[test]
fn what_the_job_made_of_names_stands_if_its_owner_says_so() {
    ours_stands("echo spec > b", "rm b", |mount| assert_eq!(mount.read("b"), "spec\n"));
    ours_stands("mv d d2", "echo x > d", |mount| assert!(!mount.exists("d") && mount.exists("d2")));
    ours_stands("ln -s foo l", "mkdir l", |mount| assert!(mount.at("l").is_symlink()));
    ours_stands("mv b b1", "mv b b2", |mount| assert_eq!(mount.read("b1"), "old\n"));
    ours_stands("mv dir/q q; rmdir dir", "rm -r dir", |mount| assert_eq!(mount.read("q"), "q\n"));
    ours_stands("mv b c", "mv c d", |mount| assert_eq!(mount.read("c"), "old\n"));
    ours_stands("mkdir nd; echo s > nd/s", "echo > nd", |mount| assert_eq!(mount.read("nd/s"), "s\n"));
    ours_stands("ln b b9", "rm b", |mount| assert_eq!(mount.read("b9"), "old\n"));
}

#[test]
fn a_file_that_trunk_removed_is_resolved_by_its_path() {
    let mount = Mount::new();
    mount.write("b", "old");
    assert!(mount.specrun(&["--hold"], "echo spec > b; echo x > new").status.success());
    let id = mount.status()[0]["id"].to_string();
    fs::remove_file(mount.at("b")).expect("rm");
    assert!(text(&mount.mojavefs(&["diff", &id]).stdout).contains("A  b"));
    assert!(mount.mojavefs(&["commit", &id, "--theirs", "b"]).status.success());
    assert!(!mount.exists("b") && mount.exists("new"));
    mount.check();
}

#[test]
fn what_went_into_a_directory_that_is_gone_cannot_be_kept() {
    let mount = Mount::new();
    fs::create_dir(mount.at("dir")).expect("mkdir");
    mount.write("e", "e");
    assert!(mount.specrun(&["--hold"], "mv e dir/e").status.success());
    let id = mount.status()[0]["id"].to_string();
    fs::remove_dir(mount.at("dir")).expect("rmdir");
    let refused = mount.mojavefs(&["commit", &id, "--ours", "."]);
    assert!(text(&refused.stderr).contains("in a directory that is gone"), "{}", text(&refused.stderr));
    let output = mount.mojavefs(&["commit", &id, "--theirs", "."]);
    assert!(text(&output.stdout).contains("(0 changes)"), "{}", text(&output.stdout));
    assert_eq!(mount.read("e"), "e");
    mount.check();
}

#[test]
fn a_path_in_conflict_may_be_named_from_anywhere() {
    let mount = Mount::new();
    let dir = mount.at("d/e");
    fs::create_dir_all(&dir).expect("mkdir");
    std::os::unix::fs::symlink(mount.path(), mount.beside("link")).expect("symlink");
    let in_full = mount.at("d/f").into_os_string().into_string().expect("a path of text");
    let linked = mount.beside("link/d/f").into_os_string().into_string().expect("a path of text");
    let missing = format!("{linked}.not/there");
    for path in ["d/f", "/d/f", "../f", "./../f", &in_full, &linked, "..", "/", "."] {
        mount.write("d/f", "0\n");
        mount.write("other", "0\n");
        let id = mount.held_apart("echo ours > d/f; echo ours > new");
        mount.write("d/f", "theirs\n");
        let commit = |options: &[&str]| {
            let mut command = std::process::Command::new(crate::harness::MOJAVEFS);
            command.args(["commit", &id]).args(options).current_dir(&dir).output().expect("mojavefs runs")
        };
        for none in ["f", "other", "/new", "d/f/g", "../../d/e", &missing] {
            let refused = commit(&["--ours", ".", "--theirs", none]);
            let said = text(&refused.stderr);
            assert_eq!(refused.status.code(), Some(1), "{none}: {said}");
            assert!(said.ends_with(&format!("`{none}` is in no conflict; in conflict: `d/f`\n")), "{said}");
        }
        let output = commit(&["--ours", path]);
        assert!(output.status.success(), "{path}: {}", text(&output.stderr));
        assert_eq!(mount.read("d/f"), "ours\n", "{path}");
    }
    mount.check();
}

#[test]
fn a_path_that_may_be_two_in_conflict_is_written_in_full() {
    let mount = Mount::new();
    fs::create_dir(mount.at("d")).expect("mkdir");
    let id = mount.held_apart("echo ours > f; echo ours > d/f");
    mount.write("f", "theirs\n");
    mount.write("d/f", "theirs\n");
    let commit = |words: [&str; 4]| {
        let mut command = std::process::Command::new(crate::harness::MOJAVEFS);
        command.args(["commit", &id]).args(words).current_dir(mount.at("d")).output().expect("mojavefs runs")
    };
    let refused = commit(["--ours", "f", "--theirs", "."]);
    let said = text(&refused.stderr);
    let (outer, inner) = (mount.at("f"), mount.at("d/f"));
    let expected = format!("`f` may be {} or {}: write which", outer.display(), inner.display());
    assert!(refused.status.code() == Some(1) && said.contains(&expected), "{said}");
    let output = commit(["--ours", inner.to_str().expect("text"), "--theirs", "/f"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("f"), mount.read("d/f")), ("theirs\n".into(), "ours\n".into()));
    let id = mount.held("echo 1 > new");
    let none = mount.mojavefs(&["commit", &id, "--ours", "new"]);
    assert!(text(&none.stderr).contains("has no conflicts"), "{}", text(&none.stderr));
    assert!(mount.mojavefs(&["commit", &id, "--ours", "."]).status.success());
    mount.check();
}

#[test]
fn what_falls_with_a_speculation_is_named() {
    let mount = Mount::new();
    for words in [&["abort"][..], &["commit", "--ours", "."], &["commit", "--theirs", "."]] {
        mount.write("a", "0\n");
        let first = mount.held("echo 1 > a");
        let second = mount.held("cat a > b");
        assert!(mount.specrun(&["--no-wait"], "cat b > c").status.success());
        let alone = mount.held("echo 1 > alone");
        let third = mount.status().iter().find(|job| job["state"] == "voted").expect("it waits")["id"].to_string();
        mount.write("a", "trunk\n");
        let output = mount.mojavefs(&[words, &[&first]].concat());
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        let expected = format!("mojavefs: also undone, as depending on {first}: {second}, {third}\n");
        assert_eq!(text(&output.stderr), expected, "{words:?}");
        let output = mount.mojavefs(&["abort", &alone]);
        assert!(output.status.success() && output.stderr.is_empty(), "{}", text(&output.stderr));
        assert!(mount.status().is_empty());
    }
    mount.check();
}

/// Has stored to a page through a mapping, which nobody has written out, when it says so; ends when it is told to.
const STORES: &str = "
import mmap, os, sys, time
pages = mmap.mmap(os.open('cells', os.O_RDWR), 96)
pages[29:30] = b'x'
open(sys.argv[1], 'w').close()
while not os.path.exists(sys.argv[2]): time.sleep(0.002)
";

/// Runs it as a job, and `change` once it has stored: how it ended, and what is in the file then.
fn stored_while_others(options: &[&str], change: impl FnOnce(&Mount)) -> (Option<i32>, String) {
    let mount = Mount::new();
    mount.write("cells", &".".repeat(96));
    let (stored, go_on) = (mount.beside("stored"), mount.beside("go on"));
    let mut specrun = Command::new(SPECRUN);
    specrun.args(options).args(["--quiet", "--", "python3", "-c", STORES]).args([&stored, &go_on]);
    let mut job = specrun.current_dir(mount.path()).stdin(Stdio::null()).spawn().expect("specrun runs");
    until("it has stored", || stored.exists());
    change(&mount);
    fs::write(go_on, "").expect("a sign");
    let code = job.wait().expect("it ends").code();
    let content = mount.read("cells");
    mount.check();
    (code, content)
}

fn write_at(mount: &Mount, byte: u64) {
    let file = fs::File::options().write(true).open(mount.at("cells")).expect("open");
    file.write_all_at(b"y", byte).expect("write");
}

#[test]
fn what_a_job_stores_through_a_mapping_takes_nothing_away_that_others_have_written_meanwhile() {
    let mut both = ".".repeat(96);
    both.replace_range(43..44, "y");
    for mode in [&["--retries", "0"][..], &["--retries", "0", "--on-read", "committed"]] {
        let (code, content) = stored_while_others(mode, |mount| write_at(mount, 43));
        assert_eq!((code, &content), (Some(75), &both), "{mode:?}: it stored to what there was before");
    }
    both.replace_range(29..30, "x");
    let (code, content) = stored_while_others(&[], |mount| write_at(mount, 43));
    assert_eq!((code, content), (Some(0), both), "it is run again, and has both");
}

#[test]
fn nor_what_another_job_has_written_and_commits() {
    let other = |mount: &Mount| {
        let other = mount.specrun(&["--quiet"], "printf y | dd of=cells bs=1 seek=43 conv=notrunc status=none");
        assert!(other.status.success(), "{}", text(&other.stderr));
    };
    for mode in ["join", "wait", "committed", "isolate"] {
        let mode = if mode == "isolate" { vec!["--isolate"] } else { vec!["--on-read", mode] };
        let (code, content) = stored_while_others(&[&mode[..], &["--retries", "0"]].concat(), other);
        assert!(content.contains('y'), "{mode:?}: {code:?}: {content}");
        assert!(code == Some(75) || code == Some(0) && content.contains('x'), "{mode:?}: {code:?}: {content}");
        let (code, content) = stored_while_others(&mode, other);
        assert!(code == Some(0) && content.contains('x') && content.contains('y'), "{mode:?}: {code:?}: {content}");
    }
}

#[test]
fn what_is_undone_is_no_conflict_of_who_does_not_see_it() {
    let (code, content) = stored_while_others(&["--retries", "0", "--on-read", "committed"], |mount| {
        let id = mount.held("printf y | dd of=cells bs=1 seek=43 conv=notrunc status=none");
        assert!(mount.mojavefs(&["abort", &id]).status.success());
    });
    assert!(code == Some(0) && content.contains('x') && !content.contains('y'), "{code:?}: {content}");
}

#[test]
fn pages_that_others_have_not_written_are_no_conflict() {
    let mount = Mount::new();
    mount.write("cells", &".".repeat(3 * 4096));
    let (stored, go_on) = (mount.beside("stored"), mount.beside("go on"));
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--retries", "0", "--quiet", "--", "python3", "-c", STORES]).args([&stored, &go_on]);
    let mut job = specrun.current_dir(mount.path()).stdin(Stdio::null()).spawn().expect("specrun runs");
    until("it has stored", || stored.exists());
    write_at(&mount, 2 * 4096);
    fs::write(go_on, "").expect("a sign");
    assert!(job.wait().expect("it ends").success());
    let content = mount.read("cells");
    assert_eq!((&content[29..30], &content[2 * 4096..2 * 4096 + 1]), ("x", "y"));
    mount.check();
}
