//! `mojavefs shell`

use super::which::{EXIT_USAGE, Which};
use super::{EXIT_TRY_AGAIN, Where, host_fault};
use crate::job::supervise::{self, Ending, Supervisor};
use crate::job::{JobView, Place};
use crate::output::err;
use clap::Args;
use mojavefs::protocol::control::Start;
use mojavefs::protocol::fault::Fault;
use std::ffi::OsString;
use std::process::ExitCode;

#[derive(Args)]
#[command(
    after_help = "Exit status: that of what ran in it, 128+N if signal N killed that; 75 the speculation was decided meanwhile, \
1 it could not be started, 2 it is not said which of several."
)]
pub(super) struct Shell {
    #[command(flatten)]
    which: Which,
    /// What to run instead of $SHELL
    #[arg(last = true)]
    command: Vec<OsString>,
    #[command(flatten)]
    filesystem: Where,
}

impl Shell {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        // A daemon that this starts is none of what it watches.
        let filesystem = self.filesystem.find_to_cover()?;
        let Some(spec) = self.which.find(&filesystem)? else { return Ok(ExitCode::from(EXIT_USAGE)) };
        let supervisor = Supervisor::new().map_err(host_fault("watch the shell"))?;
        let place = Place::enter(&filesystem)?;
        let view = JobView::enter(&place, Start::Inside { spec })?;
        let command = match self.command.is_empty() {
            true => vec![std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())],
            false => self.command.clone(),
        };
        let environment = [("MOJAVEFS_SPEC", spec.to_string())];
        let ran = supervisor.start(&command, None, &environment, None);
        let ran = ran.and_then(|running| supervisor.watch(&running, &|| view.is_over()));
        let ending = ran.map_err(host_fault(command[0].display()))?;
        supervise::end_all();
        if view.is_over() {
            let why = view.why_gone().unwrap_or_else(|| format!("speculation {spec} was decided"));
            err!("mojavefs: {why}; what ran in it was ended");
            return Ok(ExitCode::from(EXIT_TRY_AGAIN));
        }
        view.drain()?;
        Ok(match ending {
            Ending::Exited(code) => ExitCode::from(code as u8),
            Ending::Killed(signal) => ExitCode::from(128 + signal as u8),
            Ending::TimedOut => ExitCode::FAILURE,
        })
    }
}
