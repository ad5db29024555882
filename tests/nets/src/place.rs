//! Where a program is run beside its native run: on a mount, or over a directory of the host.

use mojavefs_harness::Mount;
use mojavefs_harness::host::OverHost;
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::process::Output;

/// Where it is run.
pub trait Place {
    /// The directory.
    fn path(&self) -> PathBuf;

    /// A path beside it.
    fn beside(&self, path: &str) -> PathBuf;

    /// A command of `mojavefs` about it.
    fn mojavefs(&self, words: &[&str]) -> Output;

    /// The daemon behind it ends, and another one begins.
    fn again(&self);

    /// What jobs there find in their environment.
    fn environment(&self) -> Vec<(&'static str, PathBuf)>;

    /// What a job has changed is the same file to who has had it open outside.
    fn keeps_files(&self) -> bool;
}

impl Place for Mount {
    fn path(&self) -> PathBuf {
        self.path()
    }

    fn beside(&self, path: &str) -> PathBuf {
        self.beside(path)
    }

    fn mojavefs(&self, words: &[&str]) -> Output {
        self.mojavefs(words)
    }

    fn again(&self) {
        self.umount();
        self.mount();
    }

    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        Vec::new()
    }

    fn keeps_files(&self) -> bool {
        true
    }
}

impl Place for OverHost {
    fn path(&self) -> PathBuf {
        self.path()
    }

    fn beside(&self, path: &str) -> PathBuf {
        self.aside(path)
    }

    fn mojavefs(&self, words: &[&str]) -> Output {
        self.mojavefs(words)
    }

    fn again(&self) {
        self.end(Signal::SIGKILL);
    }

    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![("MOJAVEFS_STATE", self.state())]
    }

    fn keeps_files(&self) -> bool {
        false
    }
}
