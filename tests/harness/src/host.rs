//! A directory of the host for the time of a test, and the daemon over it.

use crate::{MOJAVEFS, SPECRUN, is_running, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How long one command may take until it is ended: it hangs.
const COMMAND_SECONDS_MAX: &str = "60";

/// A directory over which jobs run, with a state of its own.
pub struct OverHost {
    root: TempDir,
}

impl Default for OverHost {
    fn default() -> Self {
        Self::new()
    }
}

impl OverHost {
    /// An empty directory.
    pub fn new() -> Self {
        Self::beside(&std::env::temp_dir())
    }

    /// The same, in another directory than that for temporary files.
    pub fn beside(dir: &Path) -> Self {
        let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir_in(dir).expect("a directory for the test");
        fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        fs::create_dir(root.path().join("project")).expect("a directory");
        OverHost { root }
    }

    /// The directory.
    pub fn path(&self) -> PathBuf {
        self.root.path().join("project")
    }

    /// A path in it.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path().join(path)
    }

    /// A path beside it.
    pub fn aside(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    /// Where the daemon's state lies.
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Writes a file in it.
    pub fn write(&self, path: &str, content: &str) {
        fs::write(self.at(path), content).expect("write");
    }

    /// What a file in it has.
    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).expect("read")
    }

    /// A command that runs in it, or in one below, for a while at most.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("timeout");
        command.arg("-k").arg("5").arg(COMMAND_SECONDS_MAX).arg(program);
        command.current_dir(self.path()).env("MOJAVEFS_STATE", self.state());
        command.stdin(Stdio::null());
        command
    }

    /// A job that runs a script.
    pub fn job(&self, words: &[&str], script: &str) -> Command {
        let mut command = self.command(SPECRUN);
        command.args(words).args(["--", "sh", "-ec", script]);
        command
    }

    /// The same, to its end.
    pub fn specrun(&self, words: &[&str], script: &str) -> Output {
        self.job(words, script).output().expect("specrun runs")
    }

    /// The same of one that must succeed; what it says on standard output.
    pub fn run(&self, script: &str) -> String {
        let output = self.specrun(&[], script);
        assert!(output.status.success(), "{script}: {output:?}");
        text(&output.stdout)
    }

    /// A command of `mojavefs`.
    pub fn mojavefs(&self, words: &[&str]) -> Output {
        self.command(MOJAVEFS).args(words).output().expect("mojavefs runs")
    }

    /// The daemon, if there is one.
    pub fn daemon(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.state().join("lock")).ok()?.trim().parse().ok()?;
        // Written in another pid namespace, or by one that is gone, the number may be anybody's.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(Pid::from_raw(pid)).filter(|pid| name.starts_with("mojavefs") && is_running(*pid))
    }

    /// Ends the daemon.
    pub fn end(&self, how: Signal) {
        let Some(pid) = self.daemon() else { return };
        let _ = kill(pid, how);
        until("the daemon has ended", || !is_running(pid));
    }
}

impl Drop for OverHost {
    fn drop(&mut self) {
        let Some(pid) = self.daemon() else { return };
        let _ = kill(pid, Signal::SIGTERM);
        let ends = std::time::Instant::now() + Duration::from_secs(20);
        while is_running(pid) && std::time::Instant::now() < ends {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = kill(pid, Signal::SIGKILL);
    }
}
