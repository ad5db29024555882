//! Where jobs over the host run for the time of a benchmark, by whom, and the daemon's state.

use crate::{Outcome, sibling};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The directory of a run in which its job works.
pub(super) const PROJECT: &str = "project";
/// What takes longer hangs.
const COMMAND_SECONDS_MAX: &str = "900";
/// The same of the daemon's end.
const END_TIME_MAX: Duration = Duration::from_secs(60);
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

pub(super) struct Place {
    root: TempDir,
    /// Whose jobs they are, if not this process's user's.
    user: Option<User>,
    runs: Cell<usize>,
}

impl Place {
    /// A directory for everything, with this user for all that is measured.
    pub(super) fn new(user: Option<&str>) -> Outcome<Self> {
        let found = |name: &str| -> Outcome<User> {
            Ok(User::from_name(name)?.ok_or_else(|| format!("--user {name}: there is no such user"))?)
        };
        let user = user.map(found).transpose()?;
        if user.is_some() && !geteuid().is_root() {
            return Err("--user takes root: run it as that user instead".into());
        }
        let root = tempfile::Builder::new().prefix("mojavefs-bench.").tempdir()?;
        fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let place = Place { root, user, runs: Cell::new(0) };
        for dir in [place.home(), place.sockets(), place.state(), place.empty()] {
            place.make(&dir)?;
        }
        Ok(place)
    }

    pub(super) fn root(&self) -> &Path {
        self.root.path()
    }

    fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    fn sockets(&self) -> PathBuf {
        self.root().join("run")
    }

    fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// A directory with nothing in it, for jobs that do nothing.
    pub(super) fn empty(&self) -> PathBuf {
        self.root().join("empty")
    }

    /// A directory of the user's.
    pub(super) fn make(&self, dir: &Path) -> Outcome<()> {
        fs::DirBuilder::new().mode(0o700).create(dir)?;
        if let Some(user) = &self.user {
            chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        Ok(())
    }

    /// A directory for one run, with an empty one in it for its job.
    pub(super) fn fresh(&self) -> Outcome<PathBuf> {
        self.runs.set(self.runs.get() + 1);
        let dir = self.root().join(self.runs.get().to_string());
        self.make(&dir)?;
        self.make(&dir.join(PROJECT))?;
        Ok(dir)
    }

    /// What stands above a table.
    pub(super) fn title(&self) -> String {
        let of_user = |user: &User| format!("over the host, of {}", user.name);
        self.user.as_ref().map_or_else(|| "over the host".to_owned(), of_user)
    }

    /// Whether the jobs are root's.
    pub(super) fn is_roots(&self) -> bool {
        self.user.as_ref().map_or_else(geteuid, |user| user.uid).is_root()
    }

    pub(super) fn can_drop_caches(&self) -> bool {
        geteuid().is_root()
    }

    /// A command of the user's in a directory, which is ended when it hangs.
    pub(super) fn command(&self, program: impl AsRef<OsStr>, dir: &Path) -> Command {
        let mut command = Command::new("timeout");
        command.arg(COMMAND_SECONDS_MAX).arg(program).current_dir(dir).stdin(Stdio::null());
        command.env("MOJAVEFS_STATE", self.state()).env("XDG_RUNTIME_DIR", self.sockets()).env("HOME", self.home());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// `specrun` with these words.
    pub(super) fn specrun(&self, words: &[&str], dir: &Path) -> Outcome<Command> {
        let mut command = self.command(sibling("specrun")?, dir);
        command.args(words);
        Ok(command)
    }

    /// Runs a command to its end, which must be a good one.
    pub(super) fn finish(&self, command: &mut Command) -> Outcome<Output> {
        let output = command.output()?;
        match output.status.success() {
            true => Ok(output),
            false => {
                let (said, name) = (String::from_utf8_lossy(&output.stderr), command.get_args().nth(1));
                Err(format!("{}: {}: {said}", name.unwrap_or_default().display(), output.status).into())
            }
        }
    }

    /// Runs a script that must succeed.
    pub(super) fn sh(&self, dir: &Path, script: &str) -> Outcome<()> {
        self.finish(self.command("sh", dir).args(["-ec", script])).map(drop)
    }

    /// Starts the daemon over the host, unless it runs.
    pub(super) fn begin_daemon(&self) -> Outcome<()> {
        self.finish(&mut self.specrun(&["--quiet", "--", "true"], &self.empty())?).map(drop)
    }

    fn daemon(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.state().join("lock")).ok()?.trim().parse().ok()?;
        Some(Pid::from_raw(pid)).filter(|pid| is_running(*pid))
    }

    /// Ends the daemon over the host, if there is one.
    pub(super) fn end_daemon(&self) -> Outcome<()> {
        let Some(pid) = self.daemon() else { return Ok(()) };
        kill(pid, Signal::SIGTERM)?;
        let deadline = Instant::now() + END_TIME_MAX;
        while is_running(pid) {
            if Instant::now() > deadline {
                return Err(format!("the daemon over the host, {pid}, does not end").into());
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        Ok(())
    }

    pub(super) fn close(self) -> Outcome<()> {
        self.end_daemon()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = self.end_daemon() {
            eprintln!("mojavefs-bench: {error}");
        }
    }
}

/// Whether a process is there, and no zombie.
fn is_running(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

/// Waits until all of the filesystem is on disk, as somebody does who wants to be sure.
pub(super) fn sync(dir: &Path) -> Outcome<()> {
    let status = Command::new("sync").arg("-f").arg(dir).status()?;
    match status.success() {
        true => Ok(()),
        false => Err(format!("sync -f {}: {status}", dir.display()).into()),
    }
}

/// The kernel forgets what it has of all files.
pub(super) fn drop_caches() -> Outcome<()> {
    Ok(fs::write("/proc/sys/vm/drop_caches", "3")?)
}
