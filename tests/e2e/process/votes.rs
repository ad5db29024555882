//! What comes of a vote is not waited for, and when it is known.

use super::waiter::Waiter;
use super::{specrun, succeeds};
use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, SPECRUN, until};
use nix::sys::signal::{Signal, kill};
use std::{fs, thread};

/// A process that has read what a job has undecided, written, voted and gone on.
fn voted(mount: &Mount) -> Waiter {
    let mut waiter = Waiter::start(mount);
    for (order, answer) in [
        ("s", "s 0"),
        ("r", "r 0"),
        ("c", "c 0"),
        ("o", "o 0"),
        ("b", "b -1 Connection timed out"),
        // What it does meanwhile is with the vote.
        ("w", "w 0"),
        ("o", "o 0"),
    ] {
        assert_eq!(waiter.does(order), answer);
    }
    assert!(!mount.exists("copy") && !mount.exists("after"));
    waiter
}

#[test]
fn a_vote_that_waits_for_others_keeps_nobody_waiting() {
    let mount = Mount::new();
    mount.write("data", "old");
    let job = mount.start("job", &[], "echo new > data");
    let mut waiter = voted(&mount);
    succeeds(&job.exit(0));
    assert_eq!(waiter.does("B"), "B 0");
    assert_eq!(waiter.does("o"), "o 1");
    assert_eq!(waiter.code(), Some(0));
    assert_eq!((mount.read("copy"), mount.read("after")), ("new\n".into(), String::new()));
    mount.check();
}

/// How many checkpoints a process has that have not ended.
fn checkpoints(waiter: &Waiter) -> usize {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", waiter.pid)).expect("its children");
    let is_alive =
        |child: &&str| fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    children.split_whitespace().filter(is_alive).count()
}

#[test]
fn a_level_begins_inside_one_whose_vote_waits_and_is_decided_with_it() {
    let mount = Mount::new();
    mount.write("data", "old");
    let job = mount.start("job", &[], "echo new > data");
    let mut waiter = voted(&mount);
    for (order, answer) in [
        ("s", "s 0"),
        ("d", "d 1"),
        ("i", "i 0"),
        ("b", "b -1 Resource deadlock avoided"),
        ("c", "c 0"),
        ("o", "o 1"),
        ("d", "d 0"),
        ("b", "b -1 Connection timed out"),
    ] {
        assert_eq!(waiter.does(order), answer);
    }
    assert!(!mount.exists("copy") && !mount.exists("inside"));
    succeeds(&job.exit(0));
    assert_eq!(waiter.does("B"), "B 0");
    assert_eq!((mount.read("copy"), mount.read("inside")), ("new\n".into(), "new\n".into()));
    assert_eq!(waiter.code(), Some(0));
    mount.check();
}

#[test]
fn a_level_whose_vote_counts_goes_whatever_was_entered_inside_of_it() {
    let mount = Mount::new();
    mount.write("data", "0");
    let mut waiter = Waiter::start(&mount);
    let mut job = mount.start("job0", &[], "echo new 0 > data");
    assert_eq!([waiter.does("s"), waiter.does("r"), waiter.does("c")], ["s 0", "r 0", "c 0"]);
    for round in 1..=5 {
        // The one before waits; two more are inside of it.
        assert_eq!([waiter.does("s"), waiter.does("s")], ["s 0", "s 0"]);
        assert_eq!((waiter.does("d"), checkpoints(&waiter)), ("d 2".into(), 3));
        succeeds(&job.exit(0));
        until("it is final", || mount.read("copy") == format!("new {}\n", round - 1));
        assert_eq!(waiter.does("o"), "o 0");
        until("its checkpoint is gone", || checkpoints(&waiter) == 2);
        job = mount.start(&format!("job{round}"), &[], &format!("echo new {round} > data"));
        // The inner one is aborted; the outer one waits for the next.
        assert!(waiter.does("a").starts_with("s 7"));
        assert_eq!((waiter.does("e"), waiter.does("d")), (format!("e {}", round + 1), "d 1".into()));
        assert_eq!(waiter.does("r"), "r 0");
        assert_eq!(waiter.does("c"), "c 0");
    }
    succeeds(&job.exit(0));
    assert_eq!(waiter.does("B"), "B 0");
    assert_eq!((mount.read("copy"), waiter.code()), ("new 5\n".into(), Some(0)));
    mount.check();
}

#[test]
fn what_was_entered_inside_of_one_whose_vote_falls_is_undone_with_it() {
    for commit in [false, true] {
        let mount = Mount::new();
        mount.write("data", "old");
        let job = mount.start("job", &[], "echo new > data");
        let mut waiter = voted(&mount);
        assert_eq!([waiter.does("s"), waiter.does("i")], ["s 0", "i 0"]);
        if commit {
            assert_eq!(waiter.does("c"), "c 0");
        }
        assert_eq!(job.exit(1).status.code(), Some(1));
        let said = waiter.answer();
        assert!(said.starts_with("s 255 somebody else has undone it"), "{said}");
        assert!(waiter.does("d").starts_with("d 0"));
        assert!(["copy", "after", "inside"].iter().all(|name| !mount.exists(name)));
        for (order, answer) in [("s", "s 0"), ("r", "r 0"), ("c", "c 0"), ("B", "B 0")] {
            assert_eq!(waiter.does(order), answer);
        }
        assert_eq!((waiter.code(), mount.read("copy")), (Some(0), "old".into()));
        mount.check();
    }
}

#[test]
fn who_dies_in_a_level_inside_of_one_that_waits_has_voted_for_that_only() {
    let mount = Mount::new();
    mount.write("data", "old");
    let job = mount.start("job", &[], "echo new > data");
    let mut waiter = voted(&mount);
    assert_eq!([waiter.does("s"), waiter.does("i")], ["s 0", "i 0"]);
    kill(waiter.pid, Signal::SIGKILL).expect("it is there");
    assert_eq!(waiter.code(), Some(128 + 9));
    until("the level is undone", || {
        mount.status().iter().all(|status| status["state"] != "running" || status["id"] == job.spec())
    });
    succeeds(&job.exit(0));
    until("it is final", || mount.exists("copy"));
    assert_eq!((mount.read("copy"), mount.exists("inside")), ("new\n".into(), false));
    until("nothing is undecided", || mount.status().is_empty());
    mount.check();
}

#[test]
fn who_ends_in_a_level_inside_of_one_that_waits_has_aborted_that_level_and_waits_for_the_other() {
    // By a return from `main`, or as a program does that was run in the level; and where the vote waits for a job that has read
    // what the level made, so that waiting before it is undone would be for ever.
    for (program, reads) in [(false, false), (false, true), (true, false), (true, true)] {
        let mount = Mount::new();
        mount.write("data", "old");
        let wrote = mount.beside("wrote");
        let looks = if reads { "until [ -e inside ]; do sleep 0.01; done" } else { "" };
        let job = mount.start_freely("job", &[], &format!("echo new > data; touch {}; {looks}", wrote.display()));
        until("it has written", || wrote.exists());
        let mut waiter = Waiter::start(&mount);
        for order in ["s", "r", "c", "s", "i"] {
            assert_eq!(waiter.does(order), format!("{order} 0"));
        }
        if reads {
            until("it has read", || mount.beside("job.through").exists());
        }
        if program {
            assert_eq!(waiter.does("E"), "it runs");
        }
        let ended = thread::spawn(move || waiter.code());
        until("the level is undone", || mount.status().len() == 2);
        if reads {
            mount.write("inside", "trunk's");
        }
        job.let_exit(0);
        succeeds(&job.wait());
        assert_eq!((ended.join().expect("no panic"), mount.read("copy")), (Some(0), "new\n".into()));
        assert_eq!(mount.exists("inside"), reads);
        mount.check();
    }
}

#[test]
fn a_vote_that_meets_a_conflict_takes_its_process_back_from_a_level_inside() {
    let mount = Mount::new();
    mount.write("data", "old");
    let job = mount.start("job", &[], "echo new > data");
    let mut waiter = voted(&mount);
    assert_eq!([waiter.does("s"), waiter.does("i")], ["s 0", "i 0"]);
    mount.write("copy", "mine");
    succeeds(&job.exit(0));
    let said = waiter.answer();
    assert!(said.starts_with("s 254 somebody else has changed"), "{said}");
    assert_eq!((mount.read("copy"), mount.exists("inside")), ("mine".into(), false));
    assert_eq!(waiter.code(), Some(0));
    until("nothing is undecided", || mount.status().is_empty());
    mount.check();
}

#[test]
fn a_process_goes_back_from_wherever_it_is_when_its_vote_falls() {
    let mount = Mount::new();
    mount.write("data", "old");
    let job = mount.start("job", &[], "echo new > data");
    let mut waiter = voted(&mount);
    assert_eq!(job.exit(1).status.code(), Some(1));
    let said = waiter.answer();
    assert!(said.starts_with("s 255 somebody else has undone it"), "{said}");
    assert!(!mount.exists("copy") && !mount.exists("after"));
    for (order, answer) in [("s", "s 0"), ("r", "r 0"), ("c", "c 0"), ("B", "B 0")] {
        assert_eq!(waiter.does(order), answer);
    }
    assert_eq!((waiter.code(), mount.read("copy")), (Some(0), "old".into()));
    mount.check();
}

#[test]
fn a_process_goes_back_from_wherever_it_is_when_its_vote_is_in_conflict() {
    let mount = Mount::new();
    mount.write("data", "old");
    let mut waiter = Waiter::start(&mount);
    assert_eq!([waiter.does("s"), waiter.does("r")], ["s 0", "r 0"]);
    mount.write("copy", "mine");
    waiter.order("c");
    // It may be told before it can say that it has voted.
    let said = Some(waiter.answer()).filter(|said| said != "c 0").unwrap_or_else(|| waiter.answer());
    assert!(said.starts_with("s 254 somebody else has changed"), "{said}");
    assert_eq!(mount.read("copy"), "mine");
    assert_eq!(waiter.code(), Some(0));
    until("nothing is undecided", || mount.status().is_empty());
    mount.check();
}

#[test]
fn a_vote_that_meets_a_conflict_while_it_waits_takes_its_process_back() {
    let mount = Mount::new();
    mount.write("data", "old");
    let job = mount.start("job", &[], "echo new > data");
    let mut waiter = voted(&mount);
    mount.write("copy", "mine");
    succeeds(&job.exit(0));
    let said = waiter.answer();
    assert!(said.starts_with("s 254 somebody else has changed"), "{said}");
    assert_eq!((mount.read("copy"), mount.exists("after")), ("mine".into(), false));
    assert_eq!(waiter.code(), Some(0));
    until("nothing is undecided", || mount.status().is_empty());
    mount.check();
}

#[test]
fn a_process_that_falls_gets_back_what_it_had_by_way_of_files() {
    for vote in [&[][..], &["vote"]] {
        let mount = Mount::new();
        mount.write("data", "old\n");
        let program = compiled(&mount, SUBJECTS, "files");
        let job = mount.start("job", &[], "echo new > data");
        let told = mount.beside("told");
        let mut process = std::process::Command::new(SPECRUN);
        process.args(["--no-speculation", "--"]).arg(&program).arg("fall").arg(&told).args(vote);
        let mut process = process.current_dir(mount.path()).spawn().expect("specrun runs");
        until("it has read and changed all", || told.exists());
        assert_eq!(job.exit(1).status.code(), Some(1));
        assert_eq!(process.wait().expect("it ends").code(), Some(0));
        mount.check();
    }
}

#[test]
fn a_child_can_speculate_while_its_parent_votes() {
    for options in [&["--no-speculation"], &["--quiet"]] {
        let mount = Mount::new();
        let program = compiled(&mount, SUBJECTS, "files");
        succeeds(&specrun(&mount, options, &program, &["family"]));
        assert_eq!((mount.read("parent"), mount.read("child")), ("x".into(), "x".into()));
        mount.check();
    }
}

#[test]
fn a_process_that_has_voted_and_dies_has_voted() {
    let mount = Mount::new();
    let program = compiled(&mount, SUBJECTS, "files");
    assert_eq!(specrun(&mount, &["--no-speculation"], &program, &["vote"]).status.code(), Some(128 + 9));
    until("it is final", || mount.exists("inside"));
    assert_eq!(mount.read("inside"), "1");
    until("nothing is undecided", || mount.status().is_empty());
    mount.check();
}
