//! `mojavefs gc`

use super::progress::Progress;
use super::status::to_merge;
use super::{Where, count};
use crate::control::{ask, unexpected};
use crate::speech::out;
use clap::Args;
use mojavefs::error::Fault;
use mojavefs::wire::control::{Answer, Ask};
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Gc {
    #[command(flatten)]
    filesystem: Where,
}

impl Gc {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let stream = self.filesystem.connect()?;
        let progress = Progress::new("reclaimed", "records");
        let mut total = 0;
        loop {
            match ask(&stream, &Ask::Reclaim, None)?.0 {
                Answer::Reclaimed { removed, more, unmerged } => {
                    total += removed;
                    progress.at(total);
                    progress.left(to_merge(unmerged).unwrap_or_default());
                    if !more {
                        break;
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
        progress.end();
        out!("reclaimed {}", count(total, "record"));
        Ok(ExitCode::SUCCESS)
    }
}
