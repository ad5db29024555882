//! `mojavefs barrier`

use super::{EXIT_TRY_AGAIN, Where, job_around, shown};
use crate::control::{self, unexpected};
use crate::output::err;
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Outcome, Reply, SpecOp, SpecState};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Exit status: 0 it is final, 75 it was rolled back, 1 it can't be waited for: the barrier stands inside the job that is to \
decide.")]
pub(super) struct Barrier {
    /// A speculation's number, or a path on the filesystem: everything undecided that one sees there
    what: PathBuf,
    #[command(flatten)]
    filesystem: Where,
}

impl Barrier {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = self.filesystem.find()?;
        let stream = filesystem.connect()?;
        let number = self.what.to_str().and_then(|text| text.parse().ok()).map(SpecId);
        let specs = match number.filter(|_| !self.what.exists()) {
            Some(spec) => vec![spec],
            None => self.writers(&filesystem.mountpoint, &stream)?,
        };
        let behind = job_around(&filesystem);
        let mut open = specs.clone();
        loop {
            open = match control::ask(
                &stream,
                &Ask::Speculation(SpecOp::Await { specs: open, behind, millis: u32::MAX }),
                None,
            )?
            .0
            {
                Answer::Reply(Reply::Specs(open)) => open,
                other => return Err(unexpected(&other)),
            };
            if open.is_empty() {
                break;
            }
        }
        let mut code = ExitCode::SUCCESS;
        for spec in specs {
            if outcome(&stream, spec)? == SpecState::Aborted {
                err!("mojavefs: speculation {spec} was rolled back");
                code = ExitCode::from(EXIT_TRY_AGAIN);
            }
        }
        Ok(code)
    }

    fn writers(&self, mountpoint: &Path, stream: &UnixStream) -> Result<Vec<SpecId>, Fault> {
        let path = std::path::absolute(&self.what).map_err(super::host_fault(self.what.display()))?;
        let below = path.strip_prefix(mountpoint).map_err(|_| {
            let what = shown(self.what.as_os_str().as_bytes());
            Fault::new(FaultKind::Invalid, format!("`{what}` is neither a speculation nor a path on this filesystem"))
        })?;
        match control::ask(
            stream,
            &Ask::Speculation(SpecOp::Writers { path: below.as_os_str().as_bytes().to_vec() }),
            None,
        )?
        .0
        {
            Answer::Reply(Reply::Specs(specs)) => Ok(specs),
            other => Err(unexpected(&other)),
        }
    }
}

/// How a speculation that is not undecided any more was decided.
fn outcome(stream: &UnixStream, spec: SpecId) -> Result<SpecState, Fault> {
    match control::ask(stream, &Ask::Speculation(SpecOp::Outcome { spec }), None)?.0 {
        Answer::Reply(Reply::Outcome(Outcome { state, .. })) => Ok(state),
        other => Err(unexpected(&other)),
    }
}
