//! A store and a mount of it for the time of a run.

use crate::{Outcome, sibling};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) struct Mount {
    point: PathBuf,
    programs: PathBuf,
    mounted: bool,
}

impl Mount {
    /// Mounts a new store, both below `root`.
    pub(crate) fn new(root: &Path) -> Outcome<Self> {
        let mojavefs = sibling("mojavefs")?;
        let point = root.join("mnt");
        std::fs::create_dir(&point)?;
        let status = Command::new(&mojavefs).arg("mount").arg(root.join("store")).arg(&point).status()?;
        if !status.success() {
            return Err(format!("mojavefs mount failed: {status}").into());
        }
        let programs = mojavefs.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Mount { point, programs, mounted: true })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    /// `specrun` with these words, to be started on the mount.
    pub(crate) fn specrun<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = Command::new(self.programs.join("specrun"));
        command.args(words).current_dir(&self.point);
        command
    }

    /// `mojavefs` with these words, on the mount.
    pub(crate) fn mojavefs<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = Command::new(self.programs.join("mojavefs"));
        command.args(words).current_dir(&self.point);
        command
    }

    pub(crate) fn close(mut self) -> Outcome<()> {
        self.mounted = false;
        match self.umount()? {
            true => Ok(()),
            false => Err(format!("cannot unmount {}", self.point.display()).into()),
        }
    }

    fn umount(&self) -> Outcome<bool> {
        Ok(Command::new(self.programs.join("mojavefs")).arg("umount").arg(&self.point).status()?.success())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if self.mounted && !matches!(self.umount(), Ok(true)) {
            eprintln!("mojavefs-bench: {} is still mounted", self.point.display());
        }
    }
}
