//! `mojavefs commit`

use super::{Where, parse_spec, tell};
use crate::control::unexpected;
use clap::Args;
use mojavefs::error::Fault;
use mojavefs::id::SpecId;
use mojavefs::wire::Resolution;
use mojavefs::wire::control::{Answer, Ask};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Commit {
    /// The speculation, as `mojavefs status` numbers it
    #[arg(value_parser = parse_spec)]
    id: SpecId,
    /// Where this path is in conflict, let the speculation's version stand; `.` means everywhere
    #[arg(long, value_name = "PATH")]
    ours: Vec<OsString>,
    /// Where this path is in conflict, let the version stand that became final meanwhile; `.` means everywhere
    #[arg(long, value_name = "PATH")]
    theirs: Vec<OsString>,
    #[command(flatten)]
    filesystem: Where,
}

impl Commit {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let ours = self.ours.iter().map(|path| Resolution::Ours(inside(path)));
        let theirs = self.theirs.iter().map(|path| Resolution::Theirs(inside(path)));
        let ask = Ask::Commit { spec: self.id, resolutions: ours.chain(theirs).collect() };
        match self.filesystem.ask(&ask)? {
            Answer::Outcome(outcome) => Ok(tell(&outcome)),
            other => Err(unexpected(&other)),
        }
    }
}

/// A path as the filesystem has it: from its root, without slashes around it.
fn inside(path: &OsString) -> Vec<u8> {
    let path = path.as_bytes();
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    match &path[start..end.max(start)] {
        b"." => Vec::new(),
        path => path.to_vec(),
    }
}
