//! The daemon hangs, or is gone, while a process speculates.

use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, SPECRUN, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A process that speculates when it is told to.
struct Waiter {
    specrun: Child,
    pid: Pid,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Waiter {
    fn start(mount: &Mount) -> Self {
        let program = compiled(mount, SUBJECTS, "waiter");
        let mut specrun = Command::new(SPECRUN);
        specrun.args(["--no-speculation", "--"]).arg(&program).current_dir(mount.path());
        let mut specrun = specrun.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("specrun runs");
        let children = format!("/proc/{0}/task/{0}/children", specrun.id());
        let orders = specrun.stdin.take().expect("its input");
        let mut answers = BufReader::new(specrun.stdout.take().expect("its output"));
        assert_eq!(line(&mut answers), "ready");
        let pid = fs::read_to_string(children).expect("its children").trim().parse().expect("one child");
        Waiter { specrun, pid: Pid::from_raw(pid), orders, answers }
    }

    fn order(&mut self, order: &str) {
        self.orders.write_all(order.as_bytes()).expect("it takes orders");
    }

    fn answer(&mut self) -> String {
        line(&mut self.answers)
    }

    /// Until it waits for a message on a socket.
    fn waits(&self) {
        let call = format!("{} ", nix::libc::SYS_recvmsg);
        let path = format!("/proc/{}/syscall", self.pid);
        until("it waits for the daemon", || fs::read_to_string(&path).is_ok_and(|now| now.starts_with(&call)));
    }

    fn code(mut self) -> Option<i32> {
        drop(self.orders);
        self.specrun.wait().expect("it ends").code()
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut text = String::new();
    from.read_line(&mut text).expect("text");
    text.trim_end().to_owned()
}

/// A daemon that is stopped; it goes on when this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn new(daemon: Pid) -> Self {
        kill(daemon, Signal::SIGSTOP).expect("stop the daemon");
        // One thread is told, and tells the others: until then they go on.
        let stopped = |thread: fs::DirEntry| {
            let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
        };
        let threads = || fs::read_dir(format!("/proc/{daemon}/task")).expect("its threads").flatten();
        until("the daemon is stopped", || threads().all(stopped));
        Stopped(daemon)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_daemon_that_hangs_is_waited_for() {
    require_root!();
    let mount = Mount::new();
    let mut waiter = Waiter::start(&mount);
    for (order, answer) in [("s", "s 0"), ("c", "c 0")] {
        let stopped = Stopped::new(mount.daemon());
        // Nothing is asked, nothing is waited for.
        waiter.order("b");
        assert_eq!(waiter.answer(), if order == "s" { "b 0" } else { "b -1" });
        waiter.order(order);
        waiter.waits();
        drop(stopped);
        assert_eq!(waiter.answer(), answer);
    }
    assert_eq!(waiter.code(), Some(0));
    mount.check();
}

#[test]
fn a_process_that_waits_for_a_daemon_that_hangs_can_be_ended() {
    require_root!();
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mount = Mount::new();
        let mut waiter = Waiter::start(&mount);
        let stopped = Stopped::new(mount.daemon());
        waiter.order("s");
        waiter.waits();
        kill(waiter.pid, signal).expect("signal it");
        assert_eq!(waiter.code(), Some(128 + signal as i32));
        drop(stopped);
        until("what it had open is undone", || mount.status().is_empty());
        mount.check();
    }
}

#[test]
fn without_its_daemon_no_process_speculates_and_what_is_open_can_not_be_committed() {
    let mount = Mount::new();
    let (mut outside, mut inside) = (Waiter::start(&mount), Waiter::start(&mount));
    inside.order("s");
    assert_eq!(inside.answer(), "s 0");
    mount.crash();
    outside.order("s");
    let said = outside.answer();
    assert!(said.starts_with("s -1 ") && said.contains("daemon"), "{said}");
    assert_eq!(outside.code(), Some(0));
    inside.order("c");
    assert_eq!(inside.answer(), "");
    assert_eq!(inside.code(), Some(128 + Signal::SIGABRT as i32));
    mount.fsck();
    mount.mount();
}
