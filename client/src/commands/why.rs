//! `mojavefs why`

use super::{Where, escaped, parse_spec, shown};
use crate::control::unexpected;
use crate::speech::out;
use clap::Args;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::wire::control::{Answer, Ask};
use mojavefs::wire::{SpecState, SpecStatus};
use std::collections::BTreeSet;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Why {
    /// The speculation, as `mojavefs status` numbers it
    #[arg(value_parser = parse_spec)]
    id: SpecId,
    #[command(flatten)]
    filesystem: Where,
}

impl Why {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let Answer::Status(all) = self.filesystem.ask(&Ask::Status)? else {
            return Err(unexpected(&Answer::Done));
        };
        let missing = || Fault::new(FaultKind::NotFound, format!("there is no undecided speculation {}", self.id));
        let job = all.iter().find(|status| status.id == self.id).ok_or_else(missing)?;
        let mut told = BTreeSet::new();
        tell(&all, job, 0, &mut told);
        if told.len() == 1 && depends_on(job).is_empty() {
            out!("{} depends on nothing that is undecided", self.id);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What a speculation depends on directly, and by what.
pub(super) fn depends_on(status: &SpecStatus) -> Vec<(SpecId, String)> {
    let joined = status.joined.iter().map(|joined| {
        let what = if joined.what.is_empty() { String::new() } else { format!(" ({})", joined.what) };
        (joined.spec, format!("read `{}`{what}", shown(&joined.path)))
    });
    let owns = status.owns.iter().map(|spec| (*spec, "owns it too".to_owned()));
    let parent = status.parent.iter().map(|spec| (*spec, "runs inside it".to_owned()));
    joined.chain(owns).chain(parent).collect()
}

fn tell(all: &[SpecStatus], status: &SpecStatus, depth: usize, told: &mut BTreeSet<SpecId>) {
    if !told.insert(status.id) {
        return;
    }
    for (spec, why) in depends_on(status) {
        let whose = all.iter().find(|other| other.id == spec);
        let (state, command) = match whose {
            Some(other) => (word(other.state), format!(" `{}`", escaped(&other.info.command))),
            None => ("undecided, of another user", String::new()),
        };
        out!("{:indent$}{} depends on {spec}{command} ({state}): it {why}", "", status.id, indent = depth * 2);
        if let Some(other) = whose {
            tell(all, other, depth + 1, told);
        }
    }
}

/// A state in one word.
pub(super) fn word(state: SpecState) -> &'static str {
    match state {
        SpecState::Running => "running",
        SpecState::Held => "held",
        SpecState::Voted => "voted",
        SpecState::Committed => "committed",
        SpecState::Aborted => "aborted",
    }
}
