//! Signals to programs that wait for others in a call.

use crate::harness::programs::{SUBJECTS, compiled_on_its_own};
use crate::harness::{Mount, SPECRUN, SlowDisk, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// How many programs wait in each way.
const EACH: usize = 60;

/// How many threads of a daemon are called so.
fn threads(mount: &Mount, name: &str) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.daemon())).expect("the daemon runs");
    let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

fn pids(file: &Path) -> Vec<Pid> {
    let said = fs::read_to_string(file).unwrap_or_default();
    said.lines().map(|line| Pid::from_raw(line.parse().expect("a number"))).collect()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).expect("it runs");
}

fn ended(child: Child) -> Output {
    child.wait_with_output().expect("it ends")
}

#[test]
fn who_is_about_to_end_waits_for_no_disk_and_who_handles_a_signal_does() {
    let disk = SlowDisk::new();
    let mount = &disk.mount;
    let program = compiled_on_its_own(mount, SUBJECTS, "waits");
    let all = 3 * EACH;
    (0..all).for_each(|number| mount.write(&format!("f{number}"), "old"));
    let job = disk.committing(&format!("for n in $(seq 0 {}); do echo new > f$n; done", all - 1));
    let wait = |number: usize| {
        let mut command = Command::new(&program);
        command.args(["truncate", &format!("f{number}")]).arg(mount.beside("pids")).current_dir(mount.path());
        command.stdout(Stdio::piped()).spawn().expect("it runs")
    };
    let mut terminated: Vec<Child> = (0..all).map(wait).collect();
    let mut killed = terminated.split_off(EACH);
    let handling = killed.split_off(EACH);
    until("all wait", || threads(mount, "mojavefs-parked") == all);
    // One that it does nothing about ends a program, and one that it handles does not.
    terminated.iter().for_each(|child| send(child, Signal::SIGTERM));
    terminated.drain(..).for_each(|child| assert_eq!(ended(child).status.signal(), Some(Signal::SIGTERM as i32)));
    killed.iter().chain(&handling).for_each(|child| send(child, Signal::SIGUSR1));
    until("the kernel has said so of all", || threads(mount, "mojavefs-caller") == 2 * EACH);
    mount.write("another", "goes on");
    // Also where the kernel says nothing of it any more.
    killed.iter().for_each(|child| send(child, Signal::SIGKILL));
    killed.drain(..).for_each(|child| assert_eq!(ended(child).status.signal(), Some(Signal::SIGKILL as i32)));
    disk.goes_on();
    assert!(job.wait().status.success());
    for child in handling {
        let output = ended(child);
        assert_eq!((text(&output.stdout), output.status.code()), ("opened after 1\n".to_owned(), Some(0)));
    }
    until("all threads have ended", || threads(mount, "mojavefs-caller") == 0);
    // Nothing was done of what was ended, and all of the rest.
    for number in 0..all {
        let expected = if number < 2 * EACH { "new\n" } else { "" };
        assert_eq!(mount.read(&format!("f{number}")), expected, "f{number}");
    }
    mount.check();
}

#[test]
fn any_signal_ends_the_wait_for_what_others_decide() {
    let mount = Mount::new();
    let program = compiled_on_its_own(&mount, SUBJECTS, "waits");
    mount.write("file", "old");
    let held = mount.held("echo new > file");
    for (signal, said) in [(Signal::SIGUSR1, "Interrupted system call after 1\n"), (Signal::SIGKILL, "")] {
        let list = mount.beside(&format!("pids-{signal}"));
        let mut command = Command::new(SPECRUN);
        command.args(["--quiet", "--on-read", "wait", "--"]).arg(&program).args(["open", "file"]).arg(&list);
        let job = command.current_dir(mount.path()).stdout(Stdio::piped()).spawn().expect("specrun runs");
        until("it waits", || threads(&mount, "mojavefs-parked") == 1);
        // As the kernel of the program's namespace calls it, which is ours.
        let program = *pids(&list).first().expect("it has said so");
        // One that only stops it ends nothing, and does not hide the others.
        kill(program, Signal::SIGSTOP).expect("it runs");
        until("the kernel has said so", || threads(&mount, "mojavefs-caller") == 1);
        kill(program, Signal::SIGCONT).expect("it runs");
        kill(program, signal).expect("it runs");
        let output = ended(job);
        assert_eq!(text(&output.stdout), said);
        assert!(!output.status.success());
        until("nothing waits any more", || threads(&mount, "mojavefs-parked") == 0);
    }
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    mount.check();
}
