//! A process that speculates as a test tells it to.

use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{Mount, SPECRUN, until};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A process that speculates when it is told to.
pub(crate) struct Waiter {
    specrun: Child,
    pub(crate) pid: Pid,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Waiter {
    pub(crate) fn start(mount: &Mount) -> Self {
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

    pub(crate) fn order(&mut self, order: &str) {
        self.orders.write_all(order.as_bytes()).expect("it takes orders");
    }

    pub(crate) fn answer(&mut self) -> String {
        line(&mut self.answers)
    }

    /// What it says to one order.
    pub(crate) fn does(&mut self, order: &str) -> String {
        self.order(order);
        self.answer()
    }

    /// Until it waits for a message on a socket.
    pub(crate) fn waits(&self) {
        let call = format!("{} ", nix::libc::SYS_recvmsg);
        let path = format!("/proc/{}/syscall", self.pid);
        until("it waits for the daemon", || fs::read_to_string(&path).is_ok_and(|now| now.starts_with(&call)));
    }

    pub(crate) fn code(mut self) -> Option<i32> {
        drop(self.orders);
        self.specrun.wait().expect("it ends").code()
    }
}

fn line(from: &mut impl BufRead) -> String {
    let mut text = String::new();
    from.read_line(&mut text).expect("text");
    text.trim_end().to_owned()
}
