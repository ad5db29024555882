//! `mojavefs why`

use super::silence::Silence;
use super::which::{EXIT_USAGE, Which};
use super::{Where, escaped, shown};
use crate::control::{self, unexpected};
use crate::output::out;
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Back, Reply, SpecOp, SpecState, SpecStatus};
use std::collections::BTreeSet;
use std::process::ExitCode;

#[derive(Args)]
pub(super) struct Why {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    filesystem: Where,
}

impl Why {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let (filesystem, Some(spec)) = self.filesystem.find_with(&self.which)? else {
            return Ok(ExitCode::from(EXIT_USAGE));
        };
        let ask = |ask: &Ask| {
            let _silence = Silence::begin();
            Ok::<_, Fault>(control::ask(&filesystem.connect()?, ask, None)?.0)
        };
        let Answer::Reply(Reply::Status(all)) = ask(&Ask::Speculation(SpecOp::Status))? else {
            return Err(unexpected(&Answer::Done));
        };
        let Some(job) = all.iter().find(|status| status.id == spec) else {
            // Why it is not among those that this user is shown.
            return Err(match ask(&Ask::Speculation(SpecOp::Diff { spec, from: None })) {
                Err(fault) => fault,
                // It is a part of another, which has no number of its own there.
                Ok(_) => Fault::new(FaultKind::NotFound, format!("there is no undecided speculation {spec}")),
            });
        };
        let mut told = BTreeSet::new();
        tell(&all, job, 0, &mut told);
        if told.len() == 1 && depends_on(job).is_empty() {
            out!("{spec} depends on nothing that is undecided");
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
            Some(other) => (word(other), format!(" `{}`", escaped(&other.info.command))),
            None => ("undecided, of another user", String::new()),
        };
        let back = back_from(status, spec).map(|back| format!(", and would go back to {back}")).unwrap_or_default();
        out!("{:indent$}{} depends on {spec}{command} ({state}): it {why}{back}", "", status.id, indent = depth * 2);
        if let Some(other) = whose {
            tell(all, other, depth + 1, told);
        }
    }
}

/// Where a speculation goes back to if this other one is undone.
fn back_from(status: &SpecStatus, other: SpecId) -> Option<String> {
    let joined = status.joined.iter().find(|joined| joined.spec == other)?;
    Some(match joined.back.as_ref()? {
        Back::Read => "this read".to_owned(),
        Back::Earlier(why_not) => format!("an earlier read ({why_not})"),
        Back::Start(why_not) => format!("its start ({why_not})"),
        Back::Entry => "where its process entered it".to_owned(),
    })
}

/// Where a speculation stands, in one word.
pub(super) fn word(status: &SpecStatus) -> &'static str {
    if status.sealed {
        return "committing";
    }
    match status.state {
        SpecState::Running if status.ended => "done",
        SpecState::Running => "running",
        SpecState::Held => "held",
        SpecState::Voted => "voted",
        SpecState::Committed => "committed",
        SpecState::Aborted => "aborted",
    }
}
