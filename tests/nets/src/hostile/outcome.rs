//! Whether what has come of a program is what may come of it.

use super::judge::{Found, History, Late, Whose};
use super::meeting::{Meeting, meeting};
use super::model::What;
use super::run::{Played, Program};
use super::{Decision, Mode, real};
use mojavefs_harness::host::OverHost;
use mojavefs_harness::text;

/// Exit statuses: done; committed, and not on the host; in conflict, and held.
const DONE: Option<i32> = Some(0);
const WAITS: Option<i32> = Some(73);
const HELD: Option<i32> = Some(75);

fn found(host: &OverHost) -> Found {
    Found { tree: real::read(&host.path(), false), displaced: real::read(&host.state().join("displaced"), true) }
}

/// What is held, by its number.
pub(super) fn held(host: &OverHost) -> Option<String> {
    let status = text(&host.mojavefs(&["status"]).stdout);
    let held = status.lines().find(|line| line.contains("held"));
    held.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
}

/// Compares what is there with what may be there.
pub(super) fn judge(host: &OverHost, program: &Program, played: &Played) -> Result<(), String> {
    let Played { code, ref seen, .. } = *played;
    let meeting = meeting(&program.old, &program.job, &played.host);
    let undone = History { host: played.host.clone(), wanted: program.job.clone(), late: seen.late.clone() };
    if let Some(id) = held(host) {
        let is_conflict = meeting != Meeting::Apart || program.mode == Mode::Apart || !seen.late.is_empty();
        if !seen.is_struck && (code != HELD || !is_conflict) {
            return Err("it is held, and should not be".to_owned());
        }
        undone.judge_undone(&found(host))?;
        return decide(host, &id, program, (played, &undone));
    }
    let committed = || committed(host, program, played, meeting);
    match code {
        DONE | WAITS if meeting == Meeting::Conflict => Err("it is committed in spite of a conflict".to_owned()),
        DONE | WAITS if seen.is_struck => committed(),
        DONE | WAITS => committed().and_then(|()| is_named(host, played)),
        _ if !seen.is_struck => Err("it is neither committed nor held".to_owned()),
        _ if seen.is_recorded => committed(),
        _ => undone.judge_undone(&found(host)).or_else(|undone| {
            committed().map_err(|committed| format!("not undone: {undone}\nand not committed: {committed}"))
        }),
    }
}

/// What was changed before the decision by others is what the job is committed over, as far as they have nothing to do with each other.
fn committed(host: &OverHost, program: &Program, played: &Played, meeting: Meeting) -> Result<(), String> {
    let mut wanted = played.host.clone();
    let is_over = meeting == Meeting::Apart && program.changes.iter().all(|change| wanted.change(change));
    let history = match is_over {
        true => History { host: played.host.clone(), wanted, late: played.seen.late.clone() },
        false => all_late(program, played),
    };
    history.judge_committed(&found(host))
}

fn all_late(program: &Program, played: &Played) -> History {
    let late: Vec<Late> = played.early.iter().chain(&played.seen.late).cloned().collect();
    History { host: program.old.clone(), wanted: program.job.clone(), late }
}

/// What is put aside is said.
fn is_named(host: &OverHost, played: &Played) -> Result<(), String> {
    let displaced = host.state().join("displaced");
    let Found { displaced: tree, .. } = found(host);
    let is_said = |path: &String| {
        let mut said = played.said.lines().filter_map(|line| line.rsplit_once(' ').map(|(_, path)| path));
        said.any(|said| displaced.join(path).starts_with(said))
    };
    let is_file = |path: &&String| tree.at(path).is_some_and(|object| object.what != What::Directory);
    match tree.names.keys().filter(is_file).find(|path| !is_said(path)) {
        None => Ok(()),
        Some(path) => Err(format!("{path} is put aside, and nobody is told")),
    }
}

/// What is in conflict is decided.
fn decide(host: &OverHost, id: &str, program: &Program, (played, undone): (&Played, &History)) -> Result<(), String> {
    let (words, whose): (&[&str], _) = match program.decision {
        Decision::Abort => (&["abort", id], None),
        Decision::Ours => (&["commit", id, "--ours", "."], Some(Whose::Jobs)),
        Decision::Theirs => (&["commit", id, "--theirs", "."], Some(Whose::Hosts)),
    };
    let output = host.mojavefs(words);
    if !output.status.success() {
        return Err(format!("{words:?}: {output:?}"));
    }
    match whose {
        None => undone.judge_undone(&found(host)),
        Some(whose) => all_late(program, played).judge_resolved(&found(host), whose),
    }
    .map_err(|what| format!("after {words:?}, which says {:?}: {what}", text(&output.stderr)))
}
