//! Whether what was said is so.

use super::How;
use super::runner::{Done, LINES, Runner, Said};
use mojavefs_harness::{Mount, text};
use std::collections::BTreeSet;
use std::fs;

/// What is there after a blow, and what is held.
pub(super) fn judge(mount: &Mount, runners: &[Runner]) -> Result<(), String> {
    runners.iter().try_for_each(|runner| replaced(runner).and_then(|()| synced(runner)))?;
    let all = mount.status();
    if let Some(other) = all.iter().find(|spec| spec["state"] != "held") {
        return Err(format!("{other} is neither held nor decided"));
    }
    let held: BTreeSet<String> = all.iter().map(|spec| spec["id"].to_string()).collect();
    let said = |runner: &Runner| -> Vec<(String, usize)> {
        let held = |done: &Done| match &done.said {
            Said::Held(id) => Some((id.clone(), done.number)),
            _ => None,
        };
        runner.done.iter().filter_map(held).collect()
    };
    let mut unsaid = held.clone();
    for runner in runners {
        for (id, number) in said(runner) {
            if !unsaid.remove(&id) {
                return Err(format!("{number} was held as {id}, and is not"));
            }
            if runner.held.join(format!("held.{number}")).exists() {
                return Err(format!("{number} is held as {id}, and trunk shows it"));
            }
        }
    }
    let unknown = |done: &&Done| done.how == How::Hold && matches!(done.said, Said::Unknown(_));
    let unknown = runners.iter().flat_map(|runner| &runner.done).filter(unknown).count();
    match unsaid.len() <= unknown {
        true => Ok(()),
        false => Err(format!("{unsaid:?} are held, of which {unknown} were not known to be")),
    }
}

/// The same after a remount; then all that is held is committed, and is there.
pub(super) fn judge_decided(mount: &Mount, runners: &[Runner]) -> Result<(), String> {
    judge(mount, runners)?;
    for spec in mount.status() {
        let output = mount.mojavefs(&["commit", &spec["id"].to_string()]);
        if !output.status.success() {
            return Err(format!("commit of {}: {}", spec["id"], text(&output.stderr)));
        }
    }
    for (runner, done) in runners.iter().flat_map(|runner| runner.done.iter().map(move |done| (runner, done))) {
        let read = |name: &str| fs::read_to_string(runner.held.join(format!("{name}.{}", done.number))).ok();
        match (&done.said, done.how, read("held"), read("more")) {
            (Said::Held(_) | Said::Unknown(_), How::Hold, Some(held), Some(more)) => {
                if held.trim() != done.number.to_string() || !is_whole(&more, done.number) {
                    return Err(format!("{} was held and committed, and is not whole", done.number));
                }
            }
            (Said::Held(_), ..) => return Err(format!("{} was held and committed, and is not there", done.number)),
            (_, _, None, None) => {}
            (..) => return Err(format!("{done:?}, and yet there is some of it")),
        }
    }
    Ok(())
}

fn is_whole(text: &str, number: usize) -> bool {
    let mut lines = text.lines().map(str::parse);
    (number..=number + LINES).all(|expected| lines.next() == Some(Ok(expected))) && lines.next().is_none()
}

/// The last job that replaced what the runner has is there and whole, alone.
fn replaced(runner: &Runner) -> Result<(), String> {
    let replaces = |done: &&Done| !matches!(done.how, How::Hold | How::Synced);
    // What may be there: the last that is known to be, or any later one of which nothing is known.
    let mut may_be = BTreeSet::from([None]);
    for done in runner.done.iter().filter(replaces) {
        match &done.said {
            Said::Acknowledged => may_be = BTreeSet::from([Some(done.number)]),
            Said::Unknown(_) if done.how != How::Fails => drop(may_be.insert(Some(done.number))),
            Said::Unknown(_) | Said::Refused(_) | Said::Held(_) => {}
        }
    }
    let small = fs::read_to_string(runner.path("small")).ok();
    let there: Option<usize> = small.as_ref().map(|small| small.trim().parse().unwrap_or(usize::MAX));
    if !may_be.contains(&there) {
        return Err(format!("{} shows {there:?}, and should show one of {may_be:?}", runner.dir.display()));
    }
    let entries = fs::read_dir(&runner.dir).map_err(|e| e.to_string())?.flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: BTreeSet<String> = names.filter(|name| !name.starts_with("synced")).collect();
    let expected = there.map_or_else(BTreeSet::new, |number| {
        BTreeSet::from(["small".to_owned(), "large".to_owned(), format!("name.{number}")])
    });
    if names != expected {
        return Err(format!("{} has {names:?}, and should have {expected:?}", runner.dir.display()));
    }
    let Some(number) = there else { return Ok(()) };
    let large = fs::read_to_string(runner.path("large")).map_err(|e| e.to_string())?;
    let name = fs::read_to_string(runner.path(&format!("name.{number}"))).map_err(|e| e.to_string())?;
    match is_whole(&large, number) && Some(name) == small {
        true => Ok(()),
        false => Err(format!("{} shows {number}, which is not whole", runner.dir.display())),
    }
}

/// What was synced is there.
fn synced(runner: &Runner) -> Result<(), String> {
    let acknowledged = |done: &&Done| done.how == How::Synced && done.said == Said::Acknowledged;
    for Done { number, .. } in runner.done.iter().filter(acknowledged) {
        match fs::read_to_string(runner.path(&format!("synced.{number}"))) {
            Ok(content) if content == format!("{number}\n") => {}
            other => return Err(format!("{number} was synced, and there is {other:?}")),
        }
    }
    Ok(())
}
