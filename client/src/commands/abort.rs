//! `mojavefs abort`

use super::silence::Silence;
use super::which::{EXIT_USAGE, Which};
use super::{EXIT_UNKNOWN, Where, not_known, tell};
use crate::control::{self, unexpected};
use crate::output::err;
use clap::Args;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, SpecOp};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Exit status:
   0  it is undone
   1  it could not be undone: the reason is said
   2  it is not said which of several
  76  not known: the daemon has gone before it answered; `mojavefs status`, or this again, says after mounting")]
pub(super) struct Abort {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    filesystem: Where,
}

impl Abort {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let (filesystem, Some(spec)) = self.filesystem.find_with(&self.which)? else {
            return Ok(ExitCode::from(EXIT_USAGE));
        };
        let answer = {
            let _silence = Silence::begin();
            control::ask(&filesystem.connect()?, &Ask::Speculation(SpecOp::Abort { spec }), None)
        };
        match answer {
            Ok((Answer::Reply(Reply::Outcome(outcome)), _)) => tell(&outcome),
            Ok((other, _)) => return Err(unexpected(&other)),
            Err(fault) if fault.kind == FaultKind::InDoubt => {
                let mountpoint = filesystem.mountpoint.display().to_string();
                err!("mojavefs: {}", not_known(spec, "was undone", &fault.message, &mountpoint));
                return Ok(ExitCode::from(EXIT_UNKNOWN));
            }
            Err(fault) => return Err(fault),
        }
        Ok(ExitCode::SUCCESS)
    }
}
