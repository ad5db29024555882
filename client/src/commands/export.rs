//! `mojavefs export`

use super::import::below;
use super::tree::Copy;
use super::{Where, count, host_fault};
use crate::speech::out;
use clap::Args;
use mojavefs::error::{Fault, FaultKind};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Export {
    /// What of the filesystem: a path from its root
    subtree: PathBuf,
    /// The directory on the host, which must be empty or missing
    dir: PathBuf,
    #[command(flatten)]
    filesystem: Where,
}

impl Export {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = self.filesystem.find()?;
        let from = below(&filesystem.mountpoint, &self.subtree);
        if !from.is_dir() {
            let text = format!("there is no directory {} in the filesystem", self.subtree.display());
            return Err(Fault::new(FaultKind::NotDirectory, text));
        }
        let shown = self.dir.display();
        std::fs::create_dir_all(&self.dir).map_err(host_fault(&shown))?;
        if std::fs::read_dir(&self.dir).map_err(host_fault(&shown))?.next().is_some() {
            return Err(Fault::new(FaultKind::NotEmpty, format!("{shown} is not empty; name a new directory")));
        }
        let mut copy = Copy::new("exported");
        copy.contents(&from, &self.dir)?;
        out!("exported {}", count(copy.end(), "file"));
        Ok(ExitCode::SUCCESS)
    }
}
