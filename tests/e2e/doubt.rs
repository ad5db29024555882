//! A daemon or server ends while it decides: what was asked before is answered, and where no answer comes nobody claims to know.

use crate::harness::served::Server;
use crate::harness::{MOJAVEFS, Mount, is_running, text, until};
use crate::process::waiter::Waiter;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// How much longer each sync takes, in microseconds.
const DELAY: u32 = 400_000;

/// A process whose syncs return late, after they are done.
struct Slow {
    strace: Child,
    process: Pid,
    trace: PathBuf,
    /// The beginning of the names of its threads that decide.
    threads: &'static str,
}

impl Slow {
    fn new(mount: &Mount, process: Pid, threads: &'static str) -> Self {
        let (trace, inject) = (mount.beside("trace"), format!("inject=fsync,fdatasync:delay_exit={DELAY}"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-e", &inject, "-p", &process.to_string(), "-o"]);
        let strace = strace.arg(&trace).stderr(Stdio::null()).spawn().expect("strace runs");
        let status = format!("/proc/{process}/status");
        let is_traced = |status: String| !status.contains("TracerPid:\t0");
        until("it is traced", || fs::read_to_string(&status).is_ok_and(is_traced));
        Slow { strace, process, trace, threads }
    }

    fn of_daemon(mount: &Mount) -> Self {
        Self::new(mount, mount.daemon(), "mojavefs-contro")
    }

    fn of_server(mount: &Mount, server: &Server) -> Self {
        Self::new(mount, server.pid(), "mojavefs-net")
    }

    /// Until a thread that decides is in its sync of this number.
    fn wait_for_sync(&self, number: usize) {
        let decides = |line: &&str| {
            let thread = line.split_whitespace().next().unwrap_or_default();
            let name = fs::read_to_string(format!("/proc/{}/task/{thread}/comm", self.process)).unwrap_or_default();
            line.contains("sync(") && name.starts_with(self.threads)
        };
        let seen = || fs::read_to_string(&self.trace).unwrap_or_default().lines().filter(decides).count();
        until("it syncs what it decides", || seen() >= number);
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        // Asked to end, it may wait for ever for a process that was killed while its call was held back.
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// Each run of the job leaves a line beside the mount.
const JOB: &str = "echo mine >> log; echo run >> ../runs";

fn said(output: &Output) -> serde_json::Value {
    let text = text(&output.stderr);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn check_committed(output: &Output, job: &Mount, now: &Mount) {
    assert_eq!((output.status.code(), &said(output)["outcome"]), (Some(0), &"committed".into()));
    assert_eq!(fs::read_to_string(job.beside("runs")).expect("it ran"), "run\n");
    assert_eq!(now.read("log"), "start\nmine\n");
    assert!(now.status().is_empty());
}

#[test]
fn a_daemon_that_is_told_to_end_says_first_what_came_of_a_vote() {
    require_root!();
    for force in [false, true] {
        let mount = Mount::new();
        mount.write("log", "start\n");
        let job = mount.start("job", &["--json"], JOB);
        let (daemon, slow) = (mount.daemon(), Slow::of_daemon(&mount));
        job.let_exit(0);
        slow.wait_for_sync(1);
        match force {
            true => {
                let mut umount = Command::new(MOJAVEFS);
                umount.args(["umount", "--force"]).arg(mount.path());
                assert!(umount.status().expect("mojavefs runs").success());
            }
            false => kill(daemon, Signal::SIGTERM).expect("signal the daemon"),
        }
        let output = job.wait();
        until("the daemon is gone", || !is_running(daemon));
        drop(slow);
        mount.mount();
        check_committed(&output, &mount, &mount);
        mount.check();
    }
}

#[test]
fn a_server_that_is_told_to_end_says_first_what_came_of_a_vote() {
    require_root!();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = Server::new();
        let mount = server.mount();
        mount.may_be_dead();
        mount.write("log", "start\n");
        let job = mount.start("job", &["--json"], JOB);
        let slow = Slow::of_server(&mount, &server);
        job.let_exit(0);
        slow.wait_for_sync(1);
        server.end(signal);
        let output = job.wait();
        drop(slow);
        server.start_again();
        check_committed(&output, &mount, &server.mount());
    }
}

#[test]
fn a_client_of_a_server_that_is_unmounted_by_force_says_first_what_came_of_a_vote() {
    require_root!();
    let server = Server::new();
    let (mount, other) = (server.mount(), server.mount());
    mount.write("log", "start\n");
    let job = mount.start("job", &["--json"], JOB);
    let slow = Slow::of_server(&mount, &server);
    job.let_exit(0);
    slow.wait_for_sync(1);
    let umount = Command::new(MOJAVEFS).args(["umount", "--force"]).arg(mount.path()).status();
    assert!(umount.expect("mojavefs runs").success());
    check_committed(&job.wait(), &mount, &other);
}

#[test]
fn a_vote_that_was_not_answered_is_not_cast_again_and_later_it_is_known_what_came_of_it() {
    require_root!();
    for number in [1, 2] {
        let mount = Mount::new();
        mount.write("log", "start\n");
        let job = mount.start("job", &["--json"], JOB);
        let (daemon, slow) = (mount.daemon(), Slow::of_daemon(&mount));
        job.let_exit(0);
        slow.wait_for_sync(number);
        kill(daemon, Signal::SIGKILL).expect("kill the daemon");
        let output = job.wait();
        drop(slow);
        let json = said(&output);
        assert_eq!((output.status.code(), &json["outcome"], &json["exit"]), (Some(76), &"unknown".into(), &76.into()));
        assert_eq!(json["mountpoint"], mount.path().to_str().expect("a path of text"));
        assert_eq!(fs::read_to_string(mount.beside("runs")).expect("it ran"), "run\n");
        mount.clear(daemon);
        mount.fsck();
        mount.mount();
        let committed = mount.read("log") == "start\nmine\n";
        // The record of the decision is written by the second sync, which had happened.
        assert!(committed || number == 1, "{}", mount.read("log"));
        assert!(mount.status().is_empty());
        let told = mount.mojavefs(&["commit", &json["id"].to_string()]);
        assert_eq!(told.status.code(), Some(if committed { 0 } else { 75 }), "{}", text(&told.stderr));
        assert_eq!(text(&told.stderr).contains("it was undone"), !committed);
    }
}

#[test]
fn a_process_whose_vote_the_server_has_not_answered_does_not_go_back() {
    require_root!();
    let mut server = Server::new();
    let mount = server.mount();
    mount.may_be_dead();
    let mut waiter = Waiter::start(&mount);
    assert_eq!(["s", "w"].map(|order| waiter.does(order)), ["s 0", "w 0"]);
    let slow = Slow::of_server(&mount, &server);
    assert_eq!(waiter.does("c"), "c 0");
    slow.wait_for_sync(1);
    server.end(Signal::SIGKILL);
    drop(slow);
    for order in ["B", "o"] {
        assert_eq!(waiter.does(order), format!("{order} -1 Input/output error"));
    }
    assert_eq!(waiter.code(), Some(0));
    server.start_again();
    assert!(server.mount().status().is_empty());
}

#[test]
fn people_are_told_what_is_not_known_and_where_it_is_known_later() {
    require_root!();
    let mount = Mount::new();
    let job = mount.start("job", &[], "echo x > x");
    let (id, daemon, slow) = (job.spec(), mount.daemon(), Slow::of_daemon(&mount));
    job.let_exit(0);
    slow.wait_for_sync(1);
    kill(daemon, Signal::SIGKILL).expect("kill the daemon");
    let output = job.wait();
    drop(slow);
    let expected = format!(
        "not known whether speculation {id} was committed; see `mojavefs status` after mounting {} again\n",
        mount.path().display()
    );
    assert_eq!(output.status.code(), Some(76));
    assert!(text(&output.stderr).ends_with(&expected), "{}", text(&output.stderr));
    mount.clear(daemon);
    mount.mount();
}

#[test]
fn of_held_work_whose_commit_was_not_answered_nobody_claims_to_know_what_became() {
    require_root!();
    for (words, what) in
        [(&["commit"][..], "was committed"), (&["commit", "--json"], "unknown"), (&["abort"], "was undone")]
    {
        let mount = Mount::new();
        let id = mount.held("echo x > x");
        let (daemon, slow) = (mount.daemon(), Slow::of_daemon(&mount));
        let mut command = Command::new(MOJAVEFS);
        command.args(words).arg(&id).current_dir(mount.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let command = command.spawn().expect("mojavefs runs");
        slow.wait_for_sync(1);
        kill(daemon, Signal::SIGKILL).expect("kill the daemon");
        let output = command.wait_with_output().expect("it ends");
        drop(slow);
        let said = [text(&output.stdout), text(&output.stderr)].concat();
        assert_eq!(output.status.code(), Some(76), "{words:?}: {said}");
        assert!(said.contains(what) && said.contains(&mount.path().display().to_string()), "{words:?}: {said}");
        mount.clear(daemon);
        mount.mount();
        // Whatever it came to, it is one of the two, and can be made what was asked for.
        let again = mount.mojavefs(&[words[0], &id]);
        assert_eq!(again.status.code(), Some(0), "{words:?}: {}", text(&again.stderr));
        assert_eq!((mount.exists("x"), mount.status().len()), (words[0] == "commit", 0));
        mount.check();
    }
}

#[test]
fn a_job_that_waits_for_others_when_the_daemon_dies_was_not_undone() {
    let mount = Mount::new();
    let held = mount.held("echo held > f");
    let mut job = mount.specrun_command(&["--json"], "cat f > /dev/null; echo mine > log; echo run >> ../runs");
    let job = job.stderr(Stdio::piped()).spawn().expect("specrun runs");
    until("it waits", || mount.status().iter().any(|status| status["state"] == "voted"));
    mount.crash();
    let output = job.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), &said(&output)["outcome"]), (Some(76), &"unknown".into()));
    mount.mount();
    assert_eq!(fs::read_to_string(mount.beside("runs")).expect("it ran"), "run\n");
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    assert_eq!(mount.read("log"), "mine\n");
    let told = mount.mojavefs(&["commit", &said(&output)["id"].to_string()]);
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    mount.check();
}

#[test]
fn a_job_that_had_not_voted_when_the_daemon_died_was_undone() {
    let mount = Mount::new();
    let job = mount.start("job", &["--json"], "echo x > x");
    mount.crash();
    let output = job.wait();
    assert_eq!((output.status.code(), &said(&output)["outcome"]), (Some(75), &"undone".into()));
    mount.mount();
    assert!(!mount.exists("x"));
    let told = mount.mojavefs(&["commit", &said(&output)["id"].to_string()]);
    assert_eq!(told.status.code(), Some(75), "{}", text(&told.stderr));
}
