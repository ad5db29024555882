//! `mojavefs abort`

use super::silence::Silence;
use super::{EXIT_UNKNOWN, Where, not_known, parse_spec, tell};
use crate::control::{self, unexpected};
use crate::output::err;
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, SpecOp};
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Exit status:
   0  it is undone
   1  it could not be undone: the reason is said
  76  not known: the daemon has gone before it answered; `mojavefs status`, or this again, says after mounting")]
pub(super) struct Abort {
    /// The speculation, as `mojavefs status` numbers it
    #[arg(value_parser = parse_spec)]
    id: SpecId,
    #[command(flatten)]
    filesystem: Where,
}

impl Abort {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = self.filesystem.find()?;
        let answer = {
            let _silence = Silence::begin();
            control::ask(&filesystem.connect()?, &Ask::Speculation(SpecOp::Abort { spec: self.id }), None)
        };
        match answer {
            Ok((Answer::Reply(Reply::Outcome(outcome)), _)) => tell(&outcome),
            Ok((other, _)) => return Err(unexpected(&other)),
            Err(fault) if fault.kind == FaultKind::InDoubt => {
                let mountpoint = filesystem.mountpoint.display().to_string();
                err!("mojavefs: {}", not_known(self.id, "was undone", &fault.message, &mountpoint));
                return Ok(ExitCode::from(EXIT_UNKNOWN));
            }
            Err(fault) => return Err(fault),
        }
        Ok(ExitCode::SUCCESS)
    }
}
