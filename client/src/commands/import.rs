//! `mojavefs import`

use super::tree::{Copy, Source, refuse_overlap};
use super::{EXIT_TRY_AGAIN, EXIT_UNKNOWN, Where, conflict_lines, count, host_fault, not_known};
use crate::control::unexpected;
use crate::job::find::Filesystem;
use crate::job::{JobView, Place};
use crate::output::{err, out};
use clap::Args;
use mojavefs::protocol::control::{Answer, Ask, Start};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{OnRead, Reply, SpecOp, SpecState};
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Exit status:
   0  all of it is there
   1  it failed, and nothing of it is there
  75  it is in conflict with what changed meanwhile, and nothing of it is there
  76  not known: the daemon has gone before it answered; `mojavefs commit` says after mounting")]
pub(super) struct Import {
    /// The directory on the host
    dir: PathBuf,
    /// Where in the filesystem its contents go: a path from the filesystem's root. If it is missing it is made, with the
    /// mode and owner of the directory on the host
    subtree: PathBuf,
    #[command(flatten)]
    filesystem: Where,
}

impl Import {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let from = std::path::absolute(&self.dir).map_err(host_fault(self.dir.display()))?;
        if !from.is_dir() {
            return Err(Fault::new(FaultKind::NotDirectory, format!("{} is no directory", self.dir.display())));
        }
        let filesystem = self.filesystem.find()?;
        refuse_overlap(&filesystem, &from, &below(&filesystem, &self.subtree)?)?;
        let command = format!("mojavefs import {} {}", self.dir.display(), self.subtree.display());
        let place = Place::enter(&filesystem)?;
        let restarts = Some("it is an import".to_owned());
        let start = Start::Job {
            parent: filesystem.view,
            command,
            dirs: Vec::new(),
            on_read: OnRead::Isolate,
            own: None,
            restarts,
        };
        let view = JobView::enter(&place, start)?;
        let to = below(&filesystem, &self.subtree)?;
        let mut copy = Copy::new("imported");
        let source = Source::directory(&from).map_err(host_fault(self.dir.display()))?;
        copy.tree(&source, &to)?;
        let files = copy.end();
        view.drain()?;
        let answer = match view.ask(&Ask::Speculation(SpecOp::Commit {
            spec: view.spec,
            resolutions: Vec::new(),
            touch: false,
        })) {
            Err(fault) if fault.kind == FaultKind::InDoubt => {
                let mountpoint = filesystem.mountpoint.display().to_string();
                err!("mojavefs: {}", not_known(view.spec, "was committed", &fault.message, &mountpoint));
                return Ok(ExitCode::from(EXIT_UNKNOWN));
            }
            answer => answer?,
        };
        match answer {
            Answer::Reply(Reply::Outcome(outcome))
                if matches!(outcome.state, SpecState::Committed | SpecState::Voted) =>
            {
                out!("imported {}", count(files, "file"));
                Ok(ExitCode::SUCCESS)
            }
            Answer::Reply(Reply::Outcome(outcome)) => {
                err!("mojavefs: the import conflicts with what changed meanwhile; nothing was imported:");
                conflict_lines(&outcome.conflicts, outcome.conflicts_more).iter().for_each(|line| err!("{line}"));
                Ok(ExitCode::from(EXIT_TRY_AGAIN))
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// A path from the filesystem's root, below its mountpoint. Errors: it leads out of the filesystem, or is not to be seen there.
pub(super) fn below(filesystem: &Filesystem, path: &Path) -> Result<PathBuf, Fault> {
    let mountpoint = &filesystem.mountpoint;
    let Some(below) = filesystem.below(path) else {
        let (path, root, mountpoint) = (path.display(), filesystem.root.display(), mountpoint.display());
        let text = format!("{path} is not to be seen here: only {root} of the filesystem is, on {mountpoint}");
        return Err(Fault::new(FaultKind::NotFound, text));
    };
    let whole = mountpoint.join(below);
    let goes_up = path.components().any(|part| part == Component::ParentDir);
    let there = whole.ancestors().find_map(|part| part.canonicalize().ok());
    match goes_up || !there.is_some_and(|there| there.starts_with(mountpoint)) {
        true => {
            let text = format!("{} leads out of the filesystem; name a path from its root", path.display());
            Err(Fault::new(FaultKind::Invalid, text))
        }
        false => Ok(whole),
    }
}
