//! `mojavefs apply`

use super::{EXIT_UNAPPLIED, host, unapplied};
use crate::output::{err, out};
use clap::Args;
use mojavefs::protocol::fault::Fault;
use std::path::Path;
use std::process::ExitCode;

/// What was committed over a directory of the host is there when `specrun` or `mojavefs commit` returns, unless that could not be done
/// (exit status 73) or was interrupted. Every later `specrun` and `mojavefs` of this user finishes it, and so does this.
#[derive(Args)]
#[command(after_help = "\
Exit status:
   0  the host has everything that this user has committed
   1  it could not be tried: the reason is said
  73  something still waits, for the reasons that are said")]
pub(super) struct Apply {}

impl Apply {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let Some(host) = host::known_at(Path::new("/")) else {
            out!("nothing waits to be applied");
            return Ok(ExitCode::SUCCESS);
        };
        let waiting = unapplied::ask(&host?, true)?;
        waiting.iter().for_each(|one| unapplied::lines(one).iter().for_each(|line| err!("{line}")));
        if waiting.is_empty() {
            out!("nothing waits to be applied");
            return Ok(ExitCode::SUCCESS);
        }
        Ok(ExitCode::from(EXIT_UNAPPLIED))
    }
}
