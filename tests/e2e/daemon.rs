//! What a daemon goes through and goes on.

use crate::harness::stopped::Stopped;
use crate::harness::{MOJAVEFS, Mount, text, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The daemon of a mount, started by a command of the test's own, with its log.
struct Foreground {
    daemon: Child,
    log: PathBuf,
}

impl Foreground {
    /// In the place of the mount's daemon: `before` are the words before the program's.
    fn start(mount: &Mount, before: &[&str]) -> Self {
        mount.umount();
        let log = mount.beside("log");
        let mut command = Command::new(before[0]);
        command.args(&before[1..]).args([MOJAVEFS, "mount", "--foreground"]).arg(mount.store()).arg(mount.path());
        let daemon = command.stderr(File::create(&log).expect("a log")).spawn().expect("it runs");
        Foreground { daemon, log }
    }

    /// Until it can be used.
    fn wait(&self, mount: &Mount) {
        until("it is mounted", || mount.mojavefs(&["status"]).status.success());
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // It takes its mount away.
        let _ = kill(Pid::from_raw(self.daemon.id().cast_signed()), Signal::SIGTERM);
        let _ = self.daemon.wait();
    }
}

#[test]
fn a_daemon_that_could_not_read_the_mounts_for_a_moment_still_sees_that_its_own_is_gone() {
    require_root!();
    let mount = Mount::new();
    // In a mount namespace of its own, where /proc can be hidden.
    let daemon = Foreground::start(&mount, &["unshare", "-m"]);
    let apart = |script: &str| {
        let mut command = Command::new("nsenter");
        command.args(["-m", "-t", &daemon.daemon.id().to_string(), "sh", "-c", script, MOJAVEFS]).arg(mount.path());
        command
    };
    let run = |script: &str| {
        let output = apart(script).output().expect("nsenter runs");
        assert!(output.status.success(), "{script}: {}", text(&output.stderr));
    };
    until("it is mounted", || apart("exec grep -q \"$1\" /proc/self/mountinfo").status().expect("runs").success());
    // A copy of the mount elsewhere: that alone keeps the kernel asking.
    let mut copy = apart("exec unshare -m sleep 1000").spawn().expect("nsenter runs");
    let tables = format!("/proc/{}/mountinfo", copy.id());
    let copied = |what: &str| fs::read_to_string(&tables).is_ok_and(|table| table.contains(what));
    let comm = format!("/proc/{}/comm", copy.id());
    until("the copy is made", || fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep"));
    assert!(copied(mount.path().to_str().expect("a path of text")));
    run("mount -t tmpfs none /proc");
    until("the mounts can't be read", || daemon.log().contains("watching the mounts"));
    run("umount /proc");
    let began = std::time::Instant::now();
    run("exec timeout 60 \"$0\" umount \"$1\"");
    let took = began.elapsed();
    copy.kill().and_then(|()| copy.wait().map(drop)).expect("end the copy");
    assert!(took < std::time::Duration::from_secs(10), "unmounting took {took:?}");
}

/// The descriptors of a daemon that has few.
const FEW: &str = "--nofile=400:400";
/// As many connections as a user may have to it, and one more.
const FULL: &str = "
import os, select, socket, sys
def call():
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    return s
calls = [call() for _ in range(50)]
over = call()
assert b'user 65534 has 50 connections' in over.makefile('rb').read(), 'one too many'
assert not select.select(calls, [], [], 0)[0], 'the others wait'
print('full', flush=True)
sys.stdin.read()
";

#[test]
fn a_daemon_that_is_ended_by_a_signal_takes_its_mount_away() {
    let mount = Mount::new();
    mount.write("a", "x");
    let daemon = mount.daemon();
    kill(daemon, Signal::SIGTERM).expect("end it");
    until("the daemon is gone", || !crate::harness::is_running(daemon));
    assert!(fs::read_dir(mount.path()).expect("no mount is left").next().is_none());
    mount.mount();
    assert_eq!(mount.read("a"), "x");
}

#[test]
fn a_store_whose_daemon_is_ending_can_be_mounted_at_once() {
    let mount = Mount::new();
    for round in 0..5 {
        mount.write("a", &round.to_string());
        kill(mount.daemon(), Signal::SIGTERM).expect("end it");
        // It may have taken the mount away itself.
        drop(Command::new(MOJAVEFS).args(["umount", "--force"]).arg(mount.path()).output().expect("it runs"));
        mount.mount();
        assert_eq!(mount.read("a"), round.to_string());
    }
}

#[test]
fn no_user_takes_all_connections_of_a_daemon() {
    require_root!();
    let mount = Mount::new();
    let daemon = Foreground::start(&mount, &["prlimit", FEW]);
    daemon.wait(&mount);
    let mojavefs = mount.beside("mojavefs");
    fs::copy(MOJAVEFS, &mojavefs).expect("copy");
    let as_nobody = |program: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", program]);
        command.current_dir(mount.path());
        command
    };
    let status = || as_nobody(mojavefs.to_str().expect("a path of text")).arg("status").output().expect("it runs");
    let socket = format!("/run/mojavefs/{}.sock", mount.daemon());
    let mut crowd = as_nobody("/usr/bin/python3");
    crowd.args(["-c", FULL, &socket]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut crowd = crowd.spawn().expect("python runs");
    let mut line = String::new();
    BufReader::new(crowd.stdout.take().expect("its output")).read_line(&mut line).expect("text");
    assert_eq!(line, "full\n");
    for _ in 0..20 {
        let refused = status();
        let said = text(&refused.stderr);
        assert!(refused.status.code() == Some(1) && said.contains("has 50 connections to the daemon"), "{said}");
    }
    assert!(mount.status().is_empty(), "root is not bound");
    drop(crowd.stdin.take());
    assert!(crowd.wait().expect("wait").success());
    until("the connections are given back", || status().status.success());
}

#[test]
fn a_daemon_without_descriptors_waits_for_some_and_says_so_once() {
    require_root!();
    let mount = Mount::new();
    let daemon = Foreground::start(&mount, &["prlimit", FEW]);
    daemon.wait(&mount);
    let address = UnixAddr::new(format!("/run/mojavefs/{}.sock", mount.daemon()).as_str()).expect("an address");
    let calls = std::cell::RefCell::new(Vec::new());
    // Callers that nobody accepts are queued; more than fit are sent away.
    let call = || {
        let caller = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).expect("a socket");
        if connect(caller.as_raw_fd(), &address).is_ok() {
            calls.borrow_mut().push(caller);
        }
    };
    let told = || daemon.log().matches("the control socket: Too many open files").count();
    until("no descriptor is left", || {
        call();
        told() > 0
    });
    let spent = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.daemon.id())).expect("stat");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("fields").split(' ').collect();
        fields[11].parse::<u64>().expect("a number") + fields[12].parse::<u64>().expect("a number")
    };
    let before = spent();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(spent() - before < 50, "it rests: {} of 200 ticks", spent() - before);
    assert_eq!(told(), 1, "{}", daemon.log());
    calls.borrow_mut().clear();
    assert!(mount.status().is_empty());
    assert_eq!(told(), 1, "{}", daemon.log());
}

/// Begins a job, and asks without reading any answer until no more questions are taken.
const DEAF: &str = "
import os, select, socket, struct, sys
def ask(*body): return struct.pack('<I', len(body)) + bytes(body)
_, path, view, *_ = os.getxattr('.', 'system.mojavefs').decode().split('\\n')
s = socket.socket(socket.AF_UNIX)
s.connect(path)
s.sendall(ask(0, 0, int(view), 1, 120, 0, 0, 0, 0, 0))
assert s.recv(64)[4] == 0, 'it is started'
s.setblocking(False)
hello = ask(5) * 100
while select.select([], [s], [], 1)[1]:
    hello = hello[s.send(hello):] or ask(5) * 100
print('full', flush=True)
sys.stdin.read()
";

#[test]
fn one_who_does_not_read_holds_up_nobody_s_decisions() {
    // An ordinary user's job comes with a mount of its own.
    require_root!();
    let mount = Mount::new();
    let mut deaf = Command::new("python3");
    deaf.args(["-c", DEAF]).current_dir(mount.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut deaf = deaf.spawn().expect("python runs");
    let mut line = String::new();
    BufReader::new(deaf.stdout.take().expect("its output")).read_line(&mut line).expect("text");
    assert_eq!(line, "full\n");
    let id = mount.status()[0]["id"].to_string();
    let began = std::time::Instant::now();
    assert!(mount.mojavefs(&["abort", &id]).status.success());
    assert!(mount.specrun(&[], "echo x > a").status.success());
    let took = began.elapsed();
    drop(deaf.stdin.take());
    assert!(deaf.wait().expect("wait").success());
    assert!(took < std::time::Duration::from_secs(5), "deciding took {took:?}");
    assert_eq!(mount.read("a"), "x\n");
}

#[test]
fn whoever_asks_a_daemon_that_hangs_is_told_so_and_answered_when_it_goes_on() {
    require_root!();
    let mount = Mount::new();
    let stopped = Stopped::new(mount.daemon());
    let mut status = Command::new(MOJAVEFS);
    status.args(["status", "-m"]).arg(mount.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut status = status.spawn().expect("it runs");
    let mut said = String::new();
    BufReader::new(status.stderr.take().expect("piped")).read_line(&mut said).expect("text");
    assert_eq!(said, "mojavefs: the daemon does not answer yet; waiting for it\n");
    drop(stopped);
    let output = status.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(0), "nothing is undecided\n".to_owned()));
}
