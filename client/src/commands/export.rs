//! `mojavefs export`

use super::import::below;
use super::tree::{Copy, refuse_overlap};
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
    /// The directory on the host: an empty one, or a missing one, which is made with the mode and owner of the subtree
    dir: PathBuf,
    #[command(flatten)]
    filesystem: Where,
}

impl Export {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = self.filesystem.find()?;
        let from = below(&filesystem.mountpoint, &self.subtree)?;
        if !from.is_dir() {
            let text = format!("there is no directory {} in the filesystem", self.subtree.display());
            return Err(Fault::new(FaultKind::NotDirectory, text));
        }
        let shown = self.dir.display();
        let to = std::path::absolute(&self.dir).map_err(host_fault(&shown))?;
        match std::fs::read_dir(&to) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Fault::new(FaultKind::NotEmpty, format!("{shown} is not empty; name a new directory")));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(host_fault(&shown)(e)),
        }
        refuse_overlap(&from, &to)?;
        let mut copy = Copy::new("exported");
        copy.tree(&from, &to)?;
        out!("exported {}", count(copy.end(), "file"));
        Ok(ExitCode::SUCCESS)
    }
}
