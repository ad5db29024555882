//! A mount for the time of a test, and what tests do with it. Everything is cleaned up however a test ends.

pub mod digest;
pub mod disk;
pub mod host;
pub mod jobs;
mod program;
pub mod programs;
pub mod served;
mod slow_disk;
pub mod stopped;
pub mod traced;

pub use program::Program;
pub use slow_disk::SlowDisk;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long one test may take before its mount is torn down under it.
const TEST_TIME_MAX: Duration = Duration::from_secs(240);
/// The same for the long forms of tests.
const SOAK_TIME_MAX: Duration = Duration::from_secs(4 * 3600);
/// How much of the daemons' log is shown when one is dead, in lines.
const LOG_LINES: usize = 30;
/// How long a condition may take to come true.
const WAIT_TIME_MAX: Duration = Duration::from_secs(20);

/// The program `mojavefs`.
pub const MOJAVEFS: Program = Program::Mojavefs;
/// The program `specrun`.
pub const SPECRUN: Program = Program::Specrun;

/// A path in this project. Asked for at run time: clones may share a target directory, and with it a test's program.
pub fn project(path: &str) -> PathBuf {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("tests are run by cargo"));
    let root = package.ancestors().find(|dir| dir.join("Cargo.lock").exists());
    root.expect("the package is in the project").join(path)
}

/// What tests need that only root may do is skipped, and said so, for others.
#[macro_export]
macro_rules! require_root {
    () => {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
    };
}

/// A store, mounted.
pub struct Mount {
    root: TempDir,
    /// Kept in a place of its own so that tests may put it on another disk.
    store: PathBuf,
    /// What the daemon finds in its environment.
    environment: Vec<(&'static str, PathBuf)>,
    over: Arc<AtomicBool>,
    mortal: AtomicBool,
}

impl Default for Mount {
    fn default() -> Self {
        Self::new()
    }
}

impl Mount {
    /// A store of its own.
    pub fn new() -> Self {
        let mount = Self::beside_its_store();
        mount.mount();
        mount.watch();
        mount
    }

    /// One that is not mounted yet.
    fn beside_its_store() -> Self {
        let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
        fs::set_permissions(root.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
        let store = root.path().join("store");
        Self::unmounted(root, store)
    }

    /// One whose store lies elsewhere than in the directory of the test.
    pub fn with_store(root: TempDir, store: PathBuf) -> Self {
        let mount = Self::unmounted(root, store);
        mount.mount();
        mount.watch();
        mount
    }

    fn unmounted(root: TempDir, store: PathBuf) -> Self {
        fs::create_dir(root.path().join("mnt")).expect("a mountpoint");
        Mount { root, store, environment: Vec::new(), over: Arc::default(), mortal: AtomicBool::new(false) }
    }

    /// A client of the server at `address`.
    pub fn of(address: &str, words: &[&str]) -> Self {
        let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
        let mount = Self::unmounted(root, PathBuf::from(address));
        let output = mount.try_mount(words);
        assert!(output.status.success(), "mount {address}: {}", text(&output.stderr));
        mount.watch();
        mount
    }

    /// What mounting says when it must be refused.
    pub fn refused(address: &str, words: &[&str]) -> String {
        let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
        let output = Self::unmounted(root, PathBuf::from(address)).try_mount(words);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        text(&output.stderr)
    }

    /// Tears the mount down when the test takes too long: whatever hangs in it gets an error.
    fn watch(&self) {
        let (over, point) = (self.over.clone(), self.path());
        std::thread::spawn(move || {
            let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
            let deadline = Instant::now() + if soak { SOAK_TIME_MAX } else { TEST_TIME_MAX };
            while !over.load(Ordering::SeqCst) {
                if Instant::now() > deadline {
                    eprintln!("the test takes too long: tearing down {}", point.display());
                    tear_down(&point);
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
    }

    /// Mounts the store (again).
    pub fn mount(&self) {
        let output = self.try_mount(&[]);
        assert!(output.status.success(), "mount: {}", text(&output.stderr));
    }

    /// Mounts, or says why not.
    pub fn try_mount(&self, words: &[&str]) -> Output {
        let mut command = Command::new(MOJAVEFS);
        command.env("MOJAVEFS_CHECK", "1").envs(self.environment.iter().map(|(name, value)| (name, value)));
        let transport = std::env::var_os("MOJAVEFS_TRANSPORT");
        let transport = transport.iter().flat_map(|name| [OsStr::new("--transport"), name]);
        command.arg("mount").args(transport).args(words).arg(&self.store).arg(self.path());
        command.output().expect("mojavefs runs")
    }

    /// Unmounts, which must succeed.
    pub fn umount(&self) {
        let output = Command::new(MOJAVEFS).arg("umount").arg(self.path()).output().expect("mojavefs runs");
        assert!(output.status.success(), "umount: {}", text(&output.stderr));
    }

    /// Where it is mounted.
    pub fn path(&self) -> PathBuf {
        self.root.path().join("mnt")
    }

    /// A path on it.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }

    /// A directory beside it, on the host.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The directory of the store, or the address of its server.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Writes a file of the mount.
    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.at(name), content).unwrap_or_else(|e| panic!("write {name}: {e}"));
    }

    /// The text of a file of the mount.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.at(name)).unwrap_or_else(|e| panic!("read {name}: {e}"))
    }

    /// Whether a name is there, whatever it is of.
    pub fn exists(&self, name: &str) -> bool {
        fs::symlink_metadata(self.at(name)).is_ok()
    }

    /// `mojavefs` with these words, in the mount.
    pub fn mojavefs<S: AsRef<OsStr>>(&self, words: &[S]) -> Output {
        Command::new(MOJAVEFS).args(words).current_dir(self.path()).output().expect("mojavefs runs")
    }

    /// `specrun` with these options and a shell script, in the mount.
    pub fn specrun(&self, options: &[&str], script: &str) -> Output {
        self.specrun_command(options, script).output().expect("specrun runs")
    }

    /// The same, to be started.
    pub fn specrun_command(&self, options: &[&str], script: &str) -> Command {
        let mut command = Command::new(SPECRUN);
        command.args(options).arg("--").args(["sh", "-c", script]).current_dir(self.path()).stdin(Stdio::null());
        command
    }

    /// The speculation that a held run left behind.
    pub fn held(&self, script: &str) -> String {
        self.held_with(&["--hold", "--json"], script)
    }

    /// The same, isolated from others.
    pub fn held_apart(&self, script: &str) -> String {
        self.held_with(&["--hold", "--json", "--isolate"], script)
    }

    /// The same, of a run that makes no checkpoints.
    pub fn held_from_start(&self, script: &str) -> String {
        self.held_with(&["--hold", "--json", "--from-start"], script)
    }

    fn held_with(&self, options: &[&str], script: &str) -> String {
        let output = self.specrun(options, script);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let json: serde_json::Value = serde_json::from_slice(&output.stderr).expect("--json says JSON");
        assert_eq!(json["state"], "held");
        json["id"].to_string()
    }

    /// What is undecided.
    pub fn status(&self) -> Vec<serde_json::Value> {
        let output = self.mojavefs(&["status", "--json"]);
        assert!(output.status.success(), "status: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("status says JSON")
    }

    /// The process behind the mount.
    pub fn daemon(&self) -> Pid {
        let value = getxattr(&self.path(), "system.mojavefs").expect("the mount answers");
        let value = String::from_utf8(value).expect("the value is text");
        let socket = value.lines().nth(1).expect("a socket");
        let pid = Path::new(socket).file_stem().and_then(OsStr::to_str).and_then(|pid| pid.parse().ok());
        Pid::from_raw(pid.expect("the socket is called after the daemon"))
    }

    /// `strace` with these words, which has taken hold of the daemon.
    pub fn strace<S: AsRef<OsStr>>(&self, words: &[S]) -> Child {
        let daemon = self.daemon().to_string();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null"]).args(words).args(["-p", &daemon]).stderr(Stdio::null());
        let strace = strace.spawn().expect("strace runs");
        let traced = format!("/proc/{daemon}/status");
        let is_traced = |status: String| !status.contains("TracerPid:\t0");
        until("the daemon is traced", || fs::read_to_string(&traced).is_ok_and(is_traced));
        strace
    }

    /// The end of the daemon is no surprise: the test has brought it about.
    pub fn may_be_dead(&self) {
        self.mortal.store(true, Ordering::SeqCst);
    }

    /// Kills the daemon as a crash would, and clears its mount.
    pub fn crash(&self) {
        let daemon = self.daemon();
        kill(daemon, Signal::SIGKILL).expect("kill the daemon");
        self.clear(daemon);
    }

    /// Clears the mount of a daemon that dies.
    pub fn clear(&self, daemon: Pid) {
        until("the daemon is gone", || !is_running(daemon));
        let output = Command::new(MOJAVEFS).args(["umount", "--force"]).arg(self.path()).output().expect("runs");
        assert!(output.status.success(), "umount --force: {}", text(&output.stderr));
    }

    /// Checks the store, which must not be mounted.
    pub fn fsck(&self) {
        let output = Command::new(MOJAVEFS).arg("fsck").arg(&self.store).output().expect("mojavefs runs");
        assert!(output.status.success(), "fsck: {}{}", text(&output.stdout), text(&output.stderr));
    }

    /// What is left in the store after everything was removed and decided, in words; nothing if it is as it was when it was
    /// new, and nothing had to be searched for: what is found so would have stayed for good. Mounts it again.
    pub fn left_in_store(&self) -> Result<(), String> {
        for _ in ["before", "after the kernel has forgotten everything"] {
            let said = text(&self.mojavefs(&["gc"]).stdout);
            if said.contains("nothing named") {
                return Err(format!("mojavefs gc: {said}"));
            }
            self.umount();
            self.mount();
        }
        self.umount();
        let output = Command::new(MOJAVEFS).arg("fsck").arg(&self.store).output().expect("mojavefs runs");
        let files: Vec<_> = fs::read_dir(self.store.join("content")).expect("list").flatten().collect();
        self.mount();
        let said = text(&output.stdout) + &text(&output.stderr);
        let empty = "1 inodes, 0 names, 0 blocks, 0 held speculations, 0 unreachable versions\nthe store is sound\n";
        match said.ends_with(empty) && files.is_empty() {
            true => Ok(()),
            false => Err(format!("{said}{} content files: {files:?}", files.len())),
        }
    }

    /// Fails unless the store is as it was when it was new. Everything in it was removed, and everything was decided.
    pub fn assert_store_is_empty(&self) {
        self.left_in_store().unwrap_or_else(|left| panic!("something is left in the store: {left}"));
    }

    /// Unmounts, checks, mounts again.
    pub fn check(&self) {
        self.umount();
        self.fsck();
        self.mount();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if is_mounted(&self.path()) {
            let dead = fs::metadata(self.path()).is_err_and(|e| e.raw_os_error() == Some(nix::libc::ENOTCONN));
            let clean = Command::new(MOJAVEFS).arg("umount").arg(self.path()).output();
            if !clean.is_ok_and(|output| output.status.success()) {
                tear_down(&self.path());
            }
            if dead {
                let log = fs::read_to_string("/run/mojavefs/daemon.log").unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(LOG_LINES).collect();
                eprintln!("the last lines of all daemons' log:");
                last.iter().rev().for_each(|line| eprintln!("  {line}"));
            }
            // As it is when the graph and its model differ.
            let expected = !dead || self.mortal.load(Ordering::SeqCst) || std::thread::panicking();
            assert!(expected, "the daemon behind the mount is dead; its log or the kernel's says why");
        }
    }
}

/// Is this process there, and not a zombie? One whose first thread has ended may have others.
pub fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    threads > 1 || !stat.is_empty() && !stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

fn is_mounted(point: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = point.to_string_lossy();
    mounts.lines().any(|line| line.split(' ').nth(4) == Some(&*point))
}

/// Takes a mount away by force.
fn tear_down(point: &Path) {
    let _ = Command::new(MOJAVEFS).args(["umount", "--force"]).arg(point).output();
    if is_mounted(point) {
        let _ = Command::new("umount").arg("-l").arg(point).output();
    }
}

/// Waits until something is so; fails the test if that takes too long.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT_TIME_MAX;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a program to its end, which must be a success.
pub fn run(dir: &Path, program: &str, words: &[&str]) -> String {
    let output = Command::new(program).args(words).current_dir(dir).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {words:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs a shell script to its end, which must be a success.
pub fn sh(dir: &Path, script: &str) -> String {
    run(dir, "sh", &["-ec", script])
}

fn getxattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let script = "import os,sys; sys.stdout.buffer.write(os.getxattr(sys.argv[1], sys.argv[2]))";
    let output = Command::new("python3").args(["-c", script]).arg(path).arg(name).output().ok()?;
    output.status.success().then_some(output.stdout)
}
