//! A server in a process of its own, for the time of a test.

use super::{MOJAVEFS, Mount, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// A store, served.
pub struct Server {
    root: TempDir,
    child: Child,
    addresses: Vec<String>,
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl Server {
    /// Listens on a Unix socket and, with a key, on a port of this host.
    pub fn new() -> Self {
        let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
        let key = root.path().join("key");
        let made = Command::new(MOJAVEFS).arg("keygen").arg(&key).output().expect("mojavefs runs");
        assert!(made.status.success(), "keygen: {}", text(&made.stderr));
        let (child, addresses) = start(root.path());
        Server { root, child, addresses }
    }

    /// The address of its Unix socket.
    pub fn unix(&self) -> &str {
        &self.addresses[0]
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> &Path {
        Path::new(self.unix().strip_prefix("unix:").expect("the first address is a socket"))
    }

    /// Its address on the network.
    pub fn tcp(&self) -> &str {
        &self.addresses[1]
    }

    /// The file of its key.
    pub fn key(&self) -> PathBuf {
        self.root.path().join("key")
    }

    /// The directory of its store.
    pub fn store(&self) -> PathBuf {
        self.root.path().join("store")
    }

    /// A path beside the store.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A client on the Unix socket.
    pub fn mount(&self) -> Mount {
        Mount::of(self.unix(), &[])
    }

    /// A client over the network.
    pub fn mount_tcp(&self) -> Mount {
        Mount::of(self.tcp(), &["--key", self.key().to_str().expect("a path of text")])
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Ends it by a signal and waits.
    pub fn end(&mut self, signal: Signal) {
        kill(self.pid(), signal).expect("signal the server");
        self.child.wait().expect("wait for the server");
    }

    /// Starts it again after its end.
    pub fn start_again(&mut self) {
        (self.child, self.addresses) = start(self.root.path());
    }

    /// Checks its store; it must not run.
    pub fn fsck(&self) {
        let output = Command::new(MOJAVEFS).arg("fsck").arg(self.store()).output().expect("mojavefs runs");
        assert!(output.status.success(), "fsck: {}{}", text(&output.stdout), text(&output.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(root: &Path) -> (Child, Vec<String>) {
    let socket = format!("unix:{}", root.join("socket").display());
    let mut command = Command::new(MOJAVEFS);
    command.env("MOJAVEFS_CHECK", "1");
    command.arg("serve").args(["--listen", &socket, "--listen", "tcp:127.0.0.1:0"]);
    command.arg("--key").arg(root.join("key")).arg(root.join("store"));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("mojavefs runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("read its output");
    let addresses = line.strip_prefix("ready: ").unwrap_or_else(|| panic!("the server says {line:?}"));
    (child, addresses.split_whitespace().map(str::to_owned).collect())
}

/// Tries to serve; it must end by itself.
pub fn try_serve(words: &[&str], store: &Path) -> Output {
    Command::new(MOJAVEFS).arg("serve").args(words).arg(store).output().expect("mojavefs runs")
}
