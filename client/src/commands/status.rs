//! `mojavefs status`

use super::displaced::{self, Displaced};
use super::json::{with_path, with_paths};
use super::silence::Silence;
use super::unapplied;
use super::why::{depends_on, word};
use super::{Where, conflict_lines, count, escaped, graph, shown};
use crate::control::{self, unexpected};
use crate::job::find::Filesystem;
use crate::output::out;
use clap::Args;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Admin, Back, Reply, SpecOp, SpecStatus};
use serde_json::json;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub(super) struct Status {
    /// As JSON: a list of objects. Over directories of the host also, with the states `unapplied` and `displaced`, what is committed and
    /// waits to be applied, and what was put aside
    #[arg(long)]
    json: bool,
    /// As a tree: below each speculation those that depend on it
    #[arg(long, conflicts_with_all = ["json", "dot", "svg"])]
    graph: bool,
    /// Who depends on whom, in the dot language of Graphviz
    #[arg(long, conflicts_with_all = ["json", "svg"])]
    dot: bool,
    /// The same as an SVG picture
    #[arg(long, conflicts_with = "json")]
    svg: bool,
    #[command(flatten)]
    filesystem: Where,
}

impl Status {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = {
            let _silence = Silence::begin();
            self.filesystem.find_if_any()?
        };
        let status = match &filesystem {
            Some(filesystem) => undecided(filesystem)?,
            None => Vec::new(),
        };
        match &filesystem {
            _ if self.dot => crate::output::say(format_args!("{}", graph::dot(&status))),
            _ if self.svg => crate::output::say(format_args!("{}", graph::svg(&status))),
            Some(mount) if !mount.is_host() => self.show_mount(mount, &status)?,
            host => self.show_host(host.as_ref(), &status)?,
        }
        Ok(ExitCode::SUCCESS)
    }

    fn show_mount(&self, mount: &Filesystem, status: &[SpecStatus]) -> Result<(), Fault> {
        if self.json {
            return show_json(&status.iter().map(as_json).collect::<Vec<_>>());
        }
        self.show_all(status);
        let Answer::Reply(Reply::Offset(unmerged)) = ask(mount, &Ask::Admin(Admin::Unmerged))? else {
            return Err(unexpected(&Answer::Done));
        };
        if let Some(left) = to_merge(unmerged) {
            out!("{left} in the background");
        }
        Ok(())
    }

    /// What is undecided over directories of the host, what waits to be applied to them, and what was displaced there. Nothing of the
    /// first two where there is no daemon's state.
    fn show_host(&self, host: Option<&Filesystem>, status: &[SpecStatus]) -> Result<(), Fault> {
        let waiting = match host {
            Some(host) => unapplied::ask(host, false)?,
            None => Vec::new(),
        };
        let (displaced, more) = displaced::all()?;
        if self.json {
            let waits = waiting.iter().map(unapplied::as_json);
            let list = status.iter().map(as_json).chain(waits).chain(displaced.iter().map(Displaced::json));
            return show_json(&list.collect::<Vec<_>>());
        }
        self.show_all(status);
        waiting.iter().for_each(|one| unapplied::lines(one).iter().for_each(|line| out!("{line}")));
        displaced.iter().for_each(|one| out!("{}", one.line()));
        if more {
            out!("and more in {}", displaced::dir()?.display());
        }
        Ok(())
    }

    fn show_all(&self, status: &[SpecStatus]) {
        match status {
            [] => out!("nothing is undecided"),
            status if self.graph => crate::output::say(format_args!("{}", graph::tree(status))),
            status => status.iter().for_each(show),
        }
    }
}

fn ask(filesystem: &Filesystem, ask: &Ask) -> Result<Answer, Fault> {
    let _silence = Silence::begin();
    Ok(control::ask(&filesystem.connect()?, ask, None)?.0)
}

fn undecided(filesystem: &Filesystem) -> Result<Vec<SpecStatus>, Fault> {
    match ask(filesystem, &Ask::Speculation(SpecOp::Status))? {
        Answer::Reply(Reply::Status(status)) => Ok(status),
        other => Err(unexpected(&other)),
    }
}

fn show_json(list: &[serde_json::Value]) -> Result<(), Fault> {
    let text = serde_json::to_string_pretty(list).map_err(|e| Fault::new(FaultKind::Io, e.to_string()))?;
    out!("{text}");
    Ok(())
}

/// What is left of the merging of committed work, if anything is.
pub(super) fn to_merge(unmerged: u64) -> Option<String> {
    (unmerged > 0).then(|| format!("{} of committed work to be merged", count(unmerged, "record")))
}

fn as_json(status: &SpecStatus) -> serde_json::Value {
    let conflicts: Vec<_> = status
        .conflicts
        .iter()
        .map(|c| with_path(json!({"what": c.what, "changed": c.changed}), "path", &c.path))
        .collect();
    let joined: Vec<_> = status
        .joined
        .iter()
        .map(|j| {
            let (to, why) = j.back.as_ref().map(back_to).unzip();
            let object = json!({"id": j.spec.0, "what": j.what, "back_to": to, "why_not_to_the_read": why.flatten()});
            with_path(object, "path", &j.path)
        })
        .collect();
    let dirs: Vec<&[u8]> = status.info.dirs.iter().map(Vec::as_slice).collect();
    let object = json!({
        "id": status.id.0,
        "state": word(status),
        "uid": status.info.uid,
        "pid": status.info.pid,
        "command": status.info.command,
        "since": status.since,
        "changes": status.changes,
        "bytes": status.bytes,
        "parent": status.parent.map(|parent| parent.0),
        "conflicts": conflicts,
        "depends_on": joined,
        "owns": status.owns.iter().map(|spec| spec.0).collect::<Vec<_>>(),
    });
    with_paths(object, "dirs", &dirs)
}

/// Where a rollback leads, in one word, and why not to the read.
fn back_to(back: &Back) -> (&'static str, Option<&str>) {
    match back {
        Back::Read => ("read", None),
        Back::Earlier(why) => ("earlier read", Some(why)),
        Back::Start(why) => ("start", Some(why)),
        Back::Entry => ("entry", None),
    }
}

fn show(status: &SpecStatus) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed());
    let user = nix::unistd::User::from_uid(status.info.uid.into()).ok().flatten();
    let user = user.map_or_else(|| status.info.uid.to_string(), |user| user.name);
    out!(
        "{}  {}  {user}  {} ago  {}, {}  {}",
        status.id,
        word(status),
        ago(now - status.since),
        count(status.changes, "change"),
        size(status.bytes),
        escaped(&status.info.command)
    );
    if !status.info.dirs.is_empty() {
        let dirs: Vec<String> = status.info.dirs.iter().map(|dir| shown(dir)).collect();
        out!("  over {}", dirs.join(", "));
    }
    for (on, why) in depends_on(status) {
        out!("  depends on {on}: {why}");
    }
    if !status.conflicts.is_empty() {
        out!("  conflicts:");
        conflict_lines(&status.conflicts, 0).iter().for_each(|line| out!("  {line}"));
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
