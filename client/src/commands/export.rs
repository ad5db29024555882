//! `mojavefs export`

use super::import::below;
use super::tree::{Copy, Source, refuse_overlap};
use super::{Where, count, host_fault};
use crate::output::out;
use clap::Args;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::io::ErrorKind;
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
        let from = below(&filesystem, &self.subtree)?;
        let there = filesystem.below(&self.subtree).unwrap_or_default();
        let source = Source::directory_below(&filesystem.mountpoint, &there).map_err(|e| {
            let subtree = self.subtree.display();
            match e.kind() {
                ErrorKind::NotFound | ErrorKind::NotADirectory => {
                    let text = format!("there is no directory {subtree} in the filesystem");
                    Fault::new(FaultKind::NotDirectory, text)
                }
                ErrorKind::CrossesDevices => {
                    let text = format!("{subtree} leads out of the filesystem by a link; name a directory in it");
                    Fault::new(FaultKind::Invalid, text)
                }
                _ => host_fault(subtree)(e),
            }
        })?;
        let shown = self.dir.display();
        let to = std::path::absolute(&self.dir).map_err(host_fault(&shown))?;
        match std::fs::read_dir(&to) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(Fault::new(FaultKind::NotEmpty, format!("{shown} is not empty; name a new directory")));
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(host_fault(&shown)(e)),
        }
        refuse_overlap(&filesystem, &from, &to)?;
        let mut copy = Copy::new("exported");
        copy.tree(&source, &to)?;
        out!("exported {}", count(copy.end(), "file"));
        Ok(ExitCode::SUCCESS)
    }
}
