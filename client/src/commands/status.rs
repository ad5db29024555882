//! `mojavefs status`

use super::{Where, conflict_lines, count};
use crate::control::unexpected;
use clap::Args;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::wire::control::{Answer, Ask};
use mojavefs::wire::{SpecState, SpecStatus};
use serde_json::json;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub(super) struct Status {
    /// As JSON: a list of objects
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filesystem: Where,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let Answer::Status(status) = self.filesystem.ask(&Ask::Status)? else {
            return Err(unexpected(&Answer::Done));
        };
        match self.json {
            true => {
                let list: Vec<_> = status.iter().map(as_json).collect();
                let text = serde_json::to_string_pretty(&list).map_err(|e| Fault::new(FaultKind::Io, e.to_string()))?;
                println!("{text}");
            }
            false if status.is_empty() => println!("nothing is undecided"),
            false => status.iter().for_each(show),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn as_json(status: &SpecStatus) -> serde_json::Value {
    let conflicts: Vec<_> = status
        .conflicts
        .iter()
        .map(|c| json!({"path": String::from_utf8_lossy(&c.path), "what": c.what, "changed": c.changed}))
        .collect();
    json!({
        "id": status.id.0,
        "state": state(status.state),
        "uid": status.info.uid,
        "pid": status.info.pid,
        "command": status.info.command,
        "since": status.since,
        "changes": status.changes,
        "bytes": status.bytes,
        "parent": status.parent.map(|parent| parent.0),
        "conflicts": conflicts,
    })
}

fn state(state: SpecState) -> &'static str {
    match state {
        SpecState::Running => "running",
        SpecState::Held => "held",
        SpecState::Voted => "voted",
        SpecState::Committed => "committed",
        SpecState::Aborted => "aborted",
    }
}

fn show(status: &SpecStatus) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let user = nix::unistd::User::from_uid(status.info.uid.into()).ok().flatten();
    let user = user.map_or_else(|| status.info.uid.to_string(), |user| user.name);
    println!(
        "{}  {}  {user}  {} ago  {}, {}  {}",
        status.id,
        state(status.state),
        ago(now - status.since),
        count(status.changes, "change"),
        size(status.bytes),
        status.info.command
    );
    if let Some(parent) = status.parent {
        println!("  inside {parent}");
    }
    if !status.conflicts.is_empty() {
        println!("  conflicts:");
        conflict_lines(&status.conflicts, 0).iter().for_each(|line| println!("  {line}"));
    }
}

fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{} s", seconds.max(0)),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes >> 10),
        1_048_576..1_073_741_824 => format!("{} MiB", bytes >> 20),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}
