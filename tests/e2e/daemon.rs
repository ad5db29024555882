//! What a daemon goes through and goes on.

use crate::harness::{MOJAVEFS, Mount, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command};

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
