//! A mount, its server if there is one, and what can happen to them.

use super::Blow;
use super::runner::Now;
use mojavefs_harness::served::Server;
use mojavefs_harness::stopped::Stopped;
use mojavefs_harness::{MOJAVEFS, Mount, is_running, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long what is stopped, or fails, does so.
const A_WHILE: Duration = Duration::from_millis(150);

/// Where it all happens. The mount goes before its server.
pub(super) struct Site {
    pub(super) mount: Mount,
    server: Option<Server>,
    daemon: Pid,
}

impl Site {
    pub(super) fn new(served: bool) -> Site {
        let server = served.then(Server::new);
        let mount = server.as_ref().map_or_else(Mount::new, Server::mount);
        mount.may_be_dead();
        let daemon = mount.daemon();
        Site { mount, server, daemon }
    }

    fn server(&self) -> Pid {
        self.server.as_ref().map_or(self.daemon, Server::pid)
    }

    /// What the store's own process does to its disk.
    fn strace(&self, words: &[&str]) -> Option<Child> {
        let keeper = self.server().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null"]).args(words).args(["-p", &keeper]);
        strace.stderr(std::process::Stdio::null()).spawn().ok()
    }

    /// Deals a blow, and waits until it is over. `now`: what the runners do.
    pub(super) fn strike(&mut self, blow: Blow, now: &[Now]) {
        let busy = |now: &Now| *now.lock().expect("nobody panics with it");
        let specrun = now.iter().find_map(busy);
        let send = |pid: Pid, signal: Signal| {
            // It may be over by now.
            let _ = kill(pid, signal);
        };
        match blow {
            Blow::Nothing => {}
            Blow::KillDaemon => send(self.daemon, Signal::SIGKILL),
            Blow::EndDaemon => send(self.daemon, Signal::SIGTERM),
            Blow::StopDaemon => for_a_while(|| Stopped::new(self.daemon)),
            Blow::StopServer => for_a_while(|| Stopped::new(self.server())),
            Blow::KillServer | Blow::EndServer => {
                let signal = if blow == Blow::KillServer { Signal::SIGKILL } else { Signal::SIGTERM };
                match &mut self.server {
                    Some(server) => server.end(signal),
                    None => send(self.daemon, signal),
                }
            }
            Blow::KillSpecrun => specrun.into_iter().for_each(|pid| send(pid, Signal::SIGKILL)),
            Blow::EndSpecrun => specrun.into_iter().for_each(|pid| send(pid, Signal::SIGTERM)),
            Blow::KillCommand => specrun.and_then(child_of).into_iter().for_each(|pid| send(pid, Signal::SIGKILL)),
            Blow::Umount => self.umount(&[]),
            Blow::UmountForce => self.umount(&["--force"]),
            Blow::SyncFails => self.disk(&["-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"]),
            Blow::DiskFull => self.disk(&["-e", "trace=pwrite64,write", "-e", "inject=pwrite64:error=ENOSPC"]),
        }
    }

    fn umount(&self, options: &[&str]) {
        // Whether it is refused is not the question.
        let _ = Command::new(MOJAVEFS).arg("umount").args(options).arg(self.mount.path()).output();
    }

    fn disk(&self, words: &[&str]) {
        let Some(mut strace) = self.strace(words) else { return };
        for_a_while(|| ());
        let _ = kill(Pid::from_raw(strace.id().cast_signed()), Signal::SIGTERM);
        let _ = strace.wait();
    }

    /// All is there again: what was ended is started, in order.
    pub(super) fn recover(&mut self, blow: Blow) -> Result<(), String> {
        match blow {
            Blow::Nothing | Blow::StopDaemon | Blow::StopServer => return Ok(()),
            Blow::KillSpecrun | Blow::EndSpecrun | Blow::KillCommand => {
                until("what the job left is undone", || self.mount.status().iter().all(|spec| spec["state"] == "held"));
                return Ok(());
            }
            Blow::KillServer | Blow::EndServer | Blow::SyncFails | Blow::DiskFull => {}
            Blow::KillDaemon | Blow::EndDaemon | Blow::Umount | Blow::UmountForce => {}
        }
        self.umount(&[]);
        self.umount(&["--force"]);
        until("the daemon is gone", || !is_running(self.daemon));
        if let Some(server) = &mut self.server {
            if !matches!(blow, Blow::KillServer | Blow::EndServer) {
                server.end(Signal::SIGTERM);
            }
            server.start_again();
        }
        let output = self.mount.try_mount(&[]);
        self.daemon = self.mount.daemon();
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("it can't be mounted again: {}", text(&output.stderr))),
        }
    }

    /// Unmounts, checks the store, mounts again.
    pub(super) fn check(&mut self) -> Result<(), String> {
        self.mount.umount();
        if let Some(server) = &mut self.server {
            server.end(Signal::SIGTERM);
        }
        let store = self.server.as_ref().map_or_else(|| self.mount.store().to_owned(), Server::store);
        let output = Command::new(MOJAVEFS).arg("fsck").arg(store).output().expect("mojavefs runs");
        if !output.status.success() {
            return Err(format!("fsck: {}{}", text(&output.stdout), text(&output.stderr)));
        }
        if let Some(server) = &mut self.server {
            server.start_again();
        }
        self.mount.mount();
        Ok(())
    }
}

/// Keeps something for a while.
fn for_a_while<T>(something: impl FnOnce() -> T) {
    let (kept, over) = (something(), Instant::now() + A_WHILE);
    until("a while has passed", || Instant::now() >= over);
    drop(kept);
}

fn child_of(pid: Pid) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok().map(Pid::from_raw)
}
