//! What a job may choose: whether it joins, waits, owns, says at once what it has to say.

use crate::harness::jobs::{Running, depends_on};
use crate::harness::served::Server;
use crate::harness::{MOJAVEFS, Mount, sh, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn on_read_decides_what_a_reader_gets() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let first = mount.start("first", &[], "echo new > data");
    for option in [&["--on-read", "committed"][..], &["--isolate"]] {
        let output = mount.specrun(option, "cat data");
        assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "old\n".into()), "{option:?}");
    }
    let output = mount.specrun(&["--on-read", "fail"], "cat data");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("Device or resource busy"), "{}", text(&output.stderr));
    let waiting = mount.start_freely("waiting", &["--on-read", "wait"], "cat data > result");
    until("it runs", || mount.spec_of("waiting.through").is_some());
    assert!(!mount.beside("waiting.through").exists());
    first.exit(0);
    assert!(waiting.exit(0).status.success());
    assert_eq!(mount.read("result"), "new\n");
}

#[test]
fn whoever_waits_for_what_is_held_says_that_somebody_has_to_decide_it() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let id = mount.held("echo new > data");
    let mut job = mount.specrun_command(&[], "cat data > result").stderr(Stdio::piped()).spawn().expect("specrun runs");
    let mut said = String::new();
    let mut lines = BufReader::new(job.stderr.take().expect("a pipe"));
    while !said.contains("is decided") {
        assert!(lines.read_line(&mut said).expect("a line") > 0, "{said}");
    }
    assert!(said.contains(&format!("{id} is held: `mojavefs commit {id}` or `abort {id}`")), "{said}");
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    assert!(job.wait().expect("it ends").success());
    assert_eq!(mount.read("result"), "new\n");
}

#[test]
fn a_wait_that_would_never_end_joins_instead() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let first = mount.start_freely(
        "first",
        &["--on-read", "wait"],
        "echo 1 > a; until [ -e ../go ]; do sleep 0.01; done; cat b",
    );
    until("it has written", || mount.status().iter().any(|s| s["changes"] == 1));
    let second = mount.start("second", &[], "cat a; echo 1 > b");
    fs::write(mount.beside("go"), "").expect("go");
    first.let_exit(0);
    second.let_exit(0);
    assert!(first.wait().status.success());
    assert!(second.wait().status.success());
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "1\n".into()));
}

/// Each has changed something, and then both look at what the other has changed.
fn a_ring_ends(options: [&[&str]; 2], look: [&str; 2]) {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let script = |mine: &str, look: &str| format!("echo 1 > {mine}; until [ -e ../go ]; do sleep 0.01; done; {look}");
    let first = mount.start_freely("first", options[0], &script("a", look[0]));
    let second = mount.start_freely("second", options[1], &script("b", look[1]));
    until("both have written", || mount.status().iter().filter(|s| s["changes"] == 1).count() == 2);
    fs::write(mount.beside("go"), "").expect("go");
    first.let_exit(0);
    second.let_exit(0);
    for job in [first, second] {
        let output = job.wait();
        assert!(output.status.success(), "{options:?}: {}", text(&output.stderr));
    }
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "1\n".into()));
    mount.check();
}

#[test]
fn two_that_wait_for_each_other_join() {
    let wait = ["--on-read", "wait"];
    for options in [&wait[..], &[&wait[..], &["--from-start"]].concat()] {
        a_ring_ends([options, options], ["cat b", "cat a"]);
        a_ring_ends([options, &[]], ["cat b", "cat a"]);
    }
}

/// A job that waits in a read of `x`, which another has changed, and will change once more when `again` is there. What it has
/// read it leaves in `result`.
fn one_that_reads_what_another_changes(mount: &Mount) -> (Child, Running<'_>) {
    mount.write("x", "0\n");
    let script = "import os, time
f = os.open('x', os.O_RDONLY)
open('../half', 'w').write(f'{os.getpid()} {f}')
os.rename('../half', '../opened')
while not os.path.exists('../changed'): time.sleep(0.005)
open('result', 'wb').write(os.read(f, 3))";
    let mut command = mount.specrun_command(&["--on-read", "wait"], "exec python3 -c \"$SCRIPT\"");
    let waiting = command.env("SCRIPT", script).spawn().expect("specrun runs");
    until("it has opened the file", || mount.beside("opened").exists());
    let opened = fs::read_to_string(mount.beside("opened")).expect("what it opened");
    let (pid, file) = opened.split_once(' ').expect("two numbers");
    let change = "echo 1 > x; touch ../changed; until [ -e ../again ]; do sleep 0.005; done; echo 2 > x";
    let writer = mount.start_freely("writer", &[], change);
    // `read(2)` is the system call 0.
    let reads =
        || fs::read_to_string(format!("/proc/{pid}/syscall")).is_ok_and(|s| s.starts_with(&format!("0 0x{file} ")));
    until("it reads", reads);
    (waiting, writer)
}

/// A waiting read keeps its pages locked in the kernel, which is told meanwhile that others have changed them.
#[test]
fn a_program_that_waits_holds_up_nobody_else() {
    let mount = Mount::new();
    let (mut waiting, writer) = one_that_reads_what_another_changes(&mount);
    let began = Instant::now();
    fs::write(mount.beside("again"), "").expect("go");
    until("the writer has closed it", || mount.beside("writer.through").exists());
    assert!(mount.specrun(&[], "echo 3 > other").status.success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(writer.exit(0).status.success());
    assert!(waiting.wait().expect("it ends").success());
    assert_eq!(mount.read("result"), "2\n");
}

/// Its read is under way still, and what is to be told of the file waits for that: who takes the mount away must not.
#[test]
fn a_job_that_is_killed_while_it_waits_leaves_nothing_locked() {
    let mount = Mount::new();
    let (mut waiting, writer) = one_that_reads_what_another_changes(&mount);
    fs::write(mount.beside("again"), "").expect("go");
    until("the writer has closed it", || mount.beside("writer.through").exists());
    waiting.kill().expect("kill specrun");
    waiting.wait().expect("it is gone");
    until("its view is gone", || mount.status().len() == 1);
    // Waits for every filesystem that is being taken away.
    let output = Command::new("timeout").args(["20", "sync"]).output().expect("sync runs");
    assert!(output.status.success());
    assert!(writer.exit(0).status.success());
    assert_eq!(mount.read("x"), "2\n");
    mount.umount();
    mount.mount();
    mount.check();
}

/// The kernel fills up what it reads of a file to the size that it knows.
#[test]
fn a_read_that_waits_shows_nothing_behind_the_end_of_what_has_become_shorter() {
    let mount = Mount::new();
    becomes_shorter(&mount, &mount);
    mount.check();
    let server = Server::new();
    becomes_shorter(&server.mount(), &server.mount());
}

/// `read`, `fstat`, `pread64` and `newfstatat`, as `/proc/PID/syscall` has them.
const READS: [&str; 4] = ["0", "5", "17", "262"];
/// What it has of a process that is in the kernel by no call: a page fault.
const FAULT: &str = "-1 ";

/// Whether a process is kept in the kernel where it asks for what is in an open file.
fn waits_for(file: &str, pid: &str) -> bool {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    call.starts_with(FAULT) || READS.iter().any(|number| call.starts_with(&format!("{number} 0x{file} ")))
}

fn becomes_shorter(mount: &Mount, other: &Mount) {
    for way in ["os.read(f, 100)", "open(f, 'rb').read()", "os.pread(f, 7, 2)", "mapped[:6]"] {
        mount.write("x", "much longer before\n");
        let script = format!(
            "import mmap, os, time
f = os.open('x', os.O_RDONLY)
mapped = mmap.mmap(f, 0, prot=mmap.PROT_READ)
open('../half', 'w').write(f'{{os.getpid()}} {{f}}')
os.rename('../half', '../opened')
while not os.path.exists('../changed'): time.sleep(0.005)
open('../reads', 'w').close()
seen = {way}
open('result', 'wb').write(seen)"
        );
        let mut command = mount.specrun_command(&["--on-read", "wait"], "exec python3 -c \"$SCRIPT\"");
        let mut waiting = command.env("SCRIPT", script).spawn().expect("specrun runs");
        until("it has opened the file", || mount.beside("opened").exists());
        let writer = other.start("writer", &[], "echo short > x");
        fs::write(mount.beside("changed"), "").expect("go");
        let opened = fs::read_to_string(mount.beside("opened")).expect("what it opened");
        let (pid, file) = opened.split_once(' ').expect("two numbers");
        until("it waits", || mount.beside("reads").exists() && waits_for(file, pid));
        assert!(writer.exit(0).status.success());
        assert!(waiting.wait().expect("it ends").success(), "{way}");
        let expected = if way.contains("pread") { "ort\n" } else { "short\n" };
        assert_eq!(mount.read("result"), expected, "{way}");
        for left in ["opened", "changed", "reads"] {
            fs::remove_file(mount.beside(left)).expect("remove");
        }
    }
}

#[test]
fn what_waits_is_in_the_way_of_nothing_else_in_its_job() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir f; echo 0 > f/y");
    let writer = mount.start("writer", &[], "echo 1 > f/y");
    // Each file that is removed is one that the kernel forgets.
    let script = "cat f/y > result & for i in $(seq 50); do touch a; rm a; test -e nothing$i; sleep 0.01; done; \
        touch ../free; wait";
    let job = mount.start_freely("job", &["--on-read", "wait"], script);
    until("the rest of the job is done", || mount.beside("free").exists());
    assert!(writer.exit(0).status.success());
    assert!(job.exit(0).status.success());
    assert_eq!(mount.read("result"), "1\n");
    mount.check();
}

#[test]
fn two_barriers_do_not_wait_for_each_other() {
    let barrier = |path: &str| format!("{MOJAVEFS} barrier {path}; true");
    a_ring_ends([&["--isolate"], &["--isolate"]], [&barrier("b"), &barrier("a")]);
}

#[test]
fn a_program_that_would_wait_for_ever_joins_and_can_go_back() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let script = "import os, time
open('a', 'w').write('1')
while not os.path.exists('../go'): time.sleep(0.01)
open('result', 'w').write(open('b').read())";
    let mut command = mount.specrun_command(&["--on-read", "wait"], "exec python3 -c \"$SCRIPT\"");
    let first = command.env("SCRIPT", script).stderr(Stdio::piped()).spawn().expect("specrun runs");
    until("it has written", || mount.status().iter().any(|s| s["changes"] == 1));
    let second = mount.start("second", &[], "cat a; echo 1 > b");
    fs::write(mount.beside("go"), "").expect("go");
    second.let_exit(0);
    let output = first.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(second.wait().status.success());
    assert_eq!(mount.read("result"), "1\n");
    mount.check();
}

#[test]
fn what_trunk_changed_meanwhile_stands_and_the_job_runs_again() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let job = mount.start("job", &[], "echo run >> ../runs; cat a; echo job >> a");
    mount.write("a", "trunk\n");
    let output = job.exit(0);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("`a` was changed by someone else"), "{}", text(&output.stderr));
    assert_eq!(mount.read("a"), "trunk\njob\n");
    assert_eq!(fs::read_to_string(mount.beside("runs")).expect("runs"), "run\nrun\n");
}

#[test]
fn a_conflict_of_one_that_has_voted_is_found_before_it_is_final() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    let second = mount.start("second", &["--retries", "0"], "cat a; echo second > b");
    second.let_exit(0);
    until("it has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
    mount.write("b", "trunk\n");
    assert!(first.exit(0).status.success());
    let output = second.wait();
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("  b (content"), "{}", text(&output.stderr));
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "trunk\n".into()));
}

#[test]
fn further_owners_decide_together() {
    let mount = Mount::new();
    let first = mount.start("first", &[], "echo 1 > a");
    let id = first.spec().to_string();
    let second = mount.start("second", &["--own", &id], "cat a; echo 2 > b");
    first.let_exit(0);
    until("the first has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
    assert!(!mount.exists("a"), "the other owner has not voted");
    assert!(second.exit(0).status.success());
    assert!(first.wait().status.success());
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "2\n".into()));

    let first = mount.start("first", &["--retries", "0"], "echo 3 > a");
    let id = first.spec().to_string();
    let second = mount.start("second", &["--own", &id], "echo 4 > b");
    first.let_exit(0);
    assert_eq!(second.exit(5).status.code(), Some(5));
    assert_eq!(first.wait().status.code(), Some(75));
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "2\n".into()));
    assert_eq!(mount.specrun(&["--own", "999"], "true").status.code(), Some(125));

    let first = mount.start("first", &[], "echo 5 > a");
    let id = first.spec().to_string();
    let second = mount.start("second", &["--own", &id], "echo 6 > b");
    assert_eq!(first.exit(1).status.code(), Some(1));
    assert_eq!(second.wait().status.code(), Some(75), "it can't own that one again");
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "2\n".into()));
}

#[test]
fn one_that_has_voted_falls_with_a_further_owner_that_a_crash_has_ended() {
    let mount = Mount::new();
    let first = mount.start("first", &["--retries", "0"], "echo 1 > a");
    let second = mount.start("second", &["--retries", "0", "--own", &first.spec().to_string()], "echo 2 > b");
    first.let_exit(0);
    until("the first has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
    mount.crash();
    assert_ne!(first.wait().status.code(), Some(0));
    assert_ne!(second.exit(0).status.code(), Some(0));
    mount.mount();
    assert!(mount.status().is_empty(), "it is left without its other owner");
    assert!(!mount.exists("a") && !mount.exists("b"));
    mount.check();
}

#[test]
fn output_is_held_back_until_it_happened() {
    let mount = Mount::new();
    mount.write("data", "old\n");
    let first = mount.start("first", &[], "echo new > data");
    let second =
        mount.start_freely("second", &["--output", "hold"], "cat data; cat data >&2; head -c 300000 /dev/zero");
    second.let_exit(0);
    until("it has voted", || mount.status().iter().any(|s| s["state"] == "voted"));
    first.exit(1);
    let output = second.wait();
    assert!(output.status.success());
    assert_eq!(output.stdout.len(), 4 + 300_000);
    assert!(output.stdout.starts_with(b"old\n"), "what was never so is not said");
    assert!(text(&output.stderr).contains("old\n") && !text(&output.stderr).contains("new\n"));
    let failed = mount.specrun(&["--output", "hold"], "echo why >&2; exit 4");
    assert_eq!((failed.status.code(), text(&failed.stderr).contains("why\n")), (Some(4), true));
}

#[test]
fn output_that_is_held_back_is_never_of_what_stays_undecided() {
    let mount = Mount::new();
    for option in ["--hold", "--keep-going", "--no-wait"] {
        let refused = mount.specrun(&["--output", "hold", option], "echo said; touch a");
        assert_eq!(refused.status.code(), Some(125), "{option}");
        let said = text(&refused.stderr);
        assert!(said.contains(&format!("{option} leaves the job undecided")) && refused.stdout.is_empty(), "{said}");
        assert!(mount.specrun(&["--output", "live", option], "true").status.success(), "{option}");
    }
    assert!(!mount.exists("a"));
}

#[test]
fn a_barrier_waits_for_what_was_read() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    for (code, expected) in [(0, 0), (1, 75)] {
        let first = mount.start("first", &[], "echo 1 > a");
        let (id, mojavefs) = (first.spec().to_string(), crate::harness::MOJAVEFS);
        let barrier = |what: &str| {
            let mut command = std::process::Command::new(mojavefs);
            command.args(["barrier", what]).current_dir(mount.path()).spawn().expect("mojavefs runs")
        };
        let mut waiting = [barrier(&id), barrier("a")];
        for waiting in &mut waiting {
            // It has asked, and sleeps until it is answered.
            let sleeps_in = format!("/proc/{}/wchan", waiting.id());
            until("it waits", || fs::read_to_string(&sleeps_in).is_ok_and(|place| place.contains("unix_stream")));
            assert!(waiting.try_wait().expect("wait").is_none(), "it is undecided");
        }
        first.exit(code);
        for mut waiting in waiting {
            assert_eq!(waiting.wait().expect("wait").code(), Some(expected));
        }
    }
    assert!(mount.mojavefs(&["barrier", "a"]).status.success(), "everything is final");
    assert_eq!(mount.mojavefs(&["barrier", "999"]).status.code(), Some(1));
    let inside = mount.specrun(&[], &format!("echo 1 > mine; {} barrier mine", crate::harness::MOJAVEFS));
    assert_eq!(inside.status.code(), Some(1), "it would wait for itself");
    assert!(text(&inside.stderr).contains("waits for this job's own end"), "{}", text(&inside.stderr));
}

#[test]
fn a_barrier_follows_a_job_that_goes_back_or_is_run_again() {
    require_root!();
    let mount = Mount::new();
    for (options, expected) in [(&[][..], 0), (&["--from-start"], 0), (&["--from-start", "--retries", "0"], 75)] {
        mount.write("a", "old\n");
        let first = mount.start("first", &[], "echo new > a");
        let second = mount.start_freely("second", options, "cat a > result");
        until("it has read", || {
            mount.status().iter().any(|job| !job["depends_on"].as_array().expect("a list").is_empty())
        });
        let changed = || mount.status().iter().filter(|job| job["changes"] != 0).count() == 2;
        until("it has written", changed);
        let mut barrier = Command::new(crate::harness::MOJAVEFS);
        let mut barrier = barrier.args(["barrier", "result"]).current_dir(mount.path()).spawn().expect("it runs");
        let sleeps_in = format!("/proc/{}/wchan", barrier.id());
        until("it waits", || fs::read_to_string(&sleeps_in).is_ok_and(|place| place.contains("unix_stream")));
        first.exit(1);
        let output = second.exit(0);
        assert_eq!(barrier.wait().expect("wait").code(), Some(expected), "{options:?}: {}", text(&output.stderr));
        assert_eq!(mount.exists("result"), expected == 0);
        let _ = fs::remove_file(mount.at("result"));
    }
    mount.check();
}

#[test]
fn how_long_a_job_has_waited_for_others_is_said_apart() {
    let mount = Mount::new();
    mount.write("a", "old\n");
    let first = mount.start("first", &[], "echo new > a");
    let second = mount.start_freely("second", &["--from-start"], "cat a > b");
    second.let_exit(0);
    until("it has voted", || mount.status().iter().any(|job| job["state"] == "voted"));
    assert!(first.exit(0).status.success());
    let said = text(&second.wait().stderr);
    assert!(said.trim_end().ends_with(" s of waiting for others"), "{said}");
    mount.check();
}

#[test]
fn only_the_owner_decides() {
    let mount = Mount::new();
    require_root!();
    let first = mount.start("first", &[], "echo 1 > a");
    let id = first.spec().to_string();
    for words in [["abort", &id], ["commit", &id]] {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", crate::harness::MOJAVEFS]).args(words);
        let output = command.current_dir(mount.path()).output().expect("setpriv runs");
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("belongs to user 0"), "{}", text(&output.stderr));
    }
    assert!(first.exit(0).status.success());
}

#[test]
fn a_job_that_does_not_wait_is_final_with_the_others() {
    let mount = Mount::new();
    mount.write("a", "0\n");
    let first = mount.start("first", &[], "echo 1 > a");
    assert_eq!(depends_on(&mount, "cat a > b"), [first.spec()]);
    assert!(!mount.exists("b"));
    assert!(first.exit(0).status.success());
    assert_eq!(mount.read("b"), "1\n");
}

#[test]
fn a_job_that_waits_can_be_stopped() {
    let mount = Mount::new();
    mount.write("f", "0");
    let id = mount.held("echo 1 > f");
    let timed = mount.specrun(&["--on-read", "wait", "--timeout", "0.3"], "cat f; cat f");
    assert_eq!(timed.status.code(), Some(124));
    let mut waits = mount.specrun_command(&["--on-read", "wait"], "touch ../waits; cat f").spawn().expect("specrun");
    until("the job has begun", || mount.beside("waits").exists());
    kill(Pid::from_raw(waits.id().cast_signed()), Signal::SIGTERM).expect("a signal");
    assert_eq!(waits.wait().expect("the job ends").code(), Some(128 + 15));
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    let after = mount.specrun(&["--on-read", "wait"], "cat f");
    assert_eq!(text(&after.stdout), "1\n");
}

#[test]
fn a_time_limit_does_not_count_what_is_waited_for_at_the_end() {
    let mount = Mount::new();
    let limit = Duration::from_secs(2);
    for (code, result) in [(0, "new\n"), (1, "old\n")] {
        mount.write("data", "old\n");
        let first = mount.start("first", &[], "echo new > data");
        let since = Instant::now();
        let mut job = mount.specrun_command(&["--timeout", "2"], "read line < data; echo $line > result");
        let job = job.stderr(Stdio::piped()).spawn().expect("specrun runs");
        until("it has ended", || mount.status().iter().any(|job| job["state"] == "done" || job["state"] == "voted"));
        std::thread::sleep((limit + limit / 4).saturating_sub(since.elapsed()));
        first.exit(code);
        let output = job.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), mount.read("result")), (Some(0), result.into()), "{}", text(&output.stderr));
    }
}

#[test]
fn a_decision_that_waits_for_others_says_so() {
    let mount = Mount::new();
    mount.write("f", "0");
    let first = mount.held("echo 1 > f");
    assert!(mount.specrun(&["--no-wait"], "cat f > g").status.success());
    let second = mount.status().iter().find(|job| job["state"] == "voted").expect("it waits")["id"].to_string();
    let said = mount.mojavefs(&["commit", &second]);
    let expected = format!("decided {second} (1 change): final when {first} is\n");
    assert_eq!((said.status.code(), text(&said.stdout)), (Some(77), expected));
}

#[test]
fn an_exit_status_of_0_means_that_it_happened() {
    let mount = Mount::new();
    let output = mount.specrun(&["--commit-on", "1"], "echo x > x");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(!mount.exists("x"));
}
