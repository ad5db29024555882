//! The ways to run a command so that it can be undone, and the bare filesystem, where it can't.

use super::Took;
use super::overlay;
use super::place::{PROJECT, Place, sync};
use crate::Outcome;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Way {
    Bare,
    Specrun,
    Overlayfs,
    FuseOverlayfs,
    Try,
}

impl Way {
    pub(super) const ALL: [Way; 5] = [Way::Bare, Way::Specrun, Way::Overlayfs, Way::FuseOverlayfs, Way::Try];

    pub(super) fn name(self) -> &'static str {
        match self {
            Way::Bare => "bare, sync -f",
            Way::Specrun => "specrun",
            Way::Overlayfs => "overlayfs, copied",
            Way::FuseOverlayfs => "fuse-overlayfs, copied",
            Way::Try => "try",
        }
    }

    /// Without these there is nothing to compare.
    pub(super) fn is_needed(self) -> bool {
        matches!(self, Way::Bare | Way::Specrun)
    }

    /// Runs a script in the project of a run, until what it did is on disk: the times, and what it said.
    pub(super) fn run(self, place: &Place, dir: &Path, script: &str) -> Outcome<(Took, String)> {
        let project = dir.join(PROJECT);
        match self {
            Way::Bare => {
                let (job, said) = timed(place, place.command("sh", &project).args(["-ec", script]))?;
                let commit = commit(&project, || Ok(()))?;
                Ok((Took { job, commit }, said))
            }
            Way::Specrun => specrun(place, &project, script),
            Way::Overlayfs | Way::FuseOverlayfs => {
                let is_fuse = self == Way::FuseOverlayfs;
                let (job, said) = timed(place, &mut overlay::command(place, dir, is_fuse, script)?)?;
                let commit = commit(&project, || overlay::copy_back(place, dir))?;
                Ok((Took { job, commit }, said))
            }
            Way::Try => by_try(place, dir, script),
        }
    }
}

/// It says at the end in which directory for temporary files it has kept the changes. All of these go with the run.
fn by_try(place: &Place, dir: &Path, script: &str) -> Outcome<(Took, String)> {
    let (project, temporary) = (dir.join(PROJECT), dir.join("temporary"));
    place.make(&temporary)?;
    let command = |words: &[&str]| {
        let mut command = place.command("try", &project);
        command.args(words).env("TMPDIR", &temporary);
        command
    };
    // Its words are one script, which a shell reads again.
    let (job, said) = timed(place, &mut command(&["-n", &format!("set -e; {script}")]))?;
    let said = said.trim_end();
    let (said, kept) = said.rsplit_once('\n').unwrap_or(("", said));
    let copy = || place.finish(&mut command(&["-y", "commit", kept])).map(drop);
    Ok((Took { job, commit: commit(&project, copy)? }, said.to_owned()))
}

/// How long a command takes that must succeed, and what it says.
fn timed(place: &Place, command: &mut Command) -> Outcome<(Duration, String)> {
    let start = Instant::now();
    let output = place.finish(command)?;
    Ok((start.elapsed(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// How long it takes until what was done is in a directory and on disk.
fn commit(project: &Path, copy: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let start = Instant::now();
    copy()?;
    sync(project)?;
    Ok(start.elapsed())
}

/// It returns when all of it is on the host, and says how long that took since the vote. Everything else is the job's.
fn specrun(place: &Place, project: &Path, script: &str) -> Outcome<(Took, String)> {
    let mut command = place.specrun(&["--json", "--", "sh", "-ec", script], project)?;
    let start = Instant::now();
    let output = place.finish(&mut command)?;
    let sum = start.elapsed();
    let text = String::from_utf8_lossy(&output.stderr);
    let ms = text.rsplit_once("\"ms\":").and_then(|(_, rest)| rest.split([',', '}']).next()?.parse::<f64>().ok());
    let commit = Duration::from_secs_f64(ms.ok_or_else(|| format!("specrun --json says no time: {text}"))? / 1e3);
    let took = Took { job: sum.saturating_sub(commit), commit };
    Ok((took, String::from_utf8_lossy(&output.stdout).into_owned()))
}
