//! `mojavefs abort`

use super::{Where, parse_spec, tell};
use crate::control::unexpected;
use clap::Args;
use mojavefs::error::Fault;
use mojavefs::id::SpecId;
use mojavefs::wire::control::{Answer, Ask};
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Abort {
    /// The speculation, as `mojavefs status` numbers it
    #[arg(value_parser = parse_spec)]
    id: SpecId,
    #[command(flatten)]
    filesystem: Where,
}

impl Abort {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        match self.filesystem.ask(&Ask::Abort { spec: self.id })? {
            Answer::Outcome(outcome) => Ok(tell(&outcome)),
            other => Err(unexpected(&other)),
        }
    }
}
