//! `mojavefs commit`

use super::{Where, parse_spec, shown, tell};
use crate::control::{self, unexpected};
use clap::Args;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::SpecId;
use mojavefs::limits::CONFLICTS_MAX;
use mojavefs::wire::control::{Answer, Ask};
use mojavefs::wire::{Conflict, Resolution, SpecState};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// How many paths in conflict an error names.
const NAMED_MAX: usize = 5;

#[derive(Args)]
#[command(after_help = "Exit status: 0 it is committed, 1 it could not be, 75 it is in conflict and undecided still.")]
pub(super) struct Commit {
    /// The speculation, as `mojavefs status` numbers it
    #[arg(value_parser = parse_spec)]
    id: SpecId,
    /// Where this path or one below it is in conflict, let the speculation's version stand: a path from the filesystem's
    /// root, from the working directory, or through the mountpoint; `.` means everywhere
    #[arg(long, value_name = "PATH")]
    ours: Vec<OsString>,
    /// The same for the version that became final meanwhile
    #[arg(long, value_name = "PATH")]
    theirs: Vec<OsString>,
    #[command(flatten)]
    filesystem: Where,
}

impl Commit {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = self.filesystem.find()?;
        let stream = filesystem.connect()?;
        let standing = match self.ours.is_empty() && self.theirs.is_empty() {
            true => None,
            false => standing(&stream, self.id)?,
        };
        let told = Told { spec: self.id, mountpoint: &filesystem.mountpoint, standing };
        let ours = self.ours.iter().map(|path| Ok(Resolution::Ours(told.meant(path)?)));
        let theirs = self.theirs.iter().map(|path| Ok(Resolution::Theirs(told.meant(path)?)));
        let resolutions = ours.chain(theirs).collect::<Result<Vec<_>, Fault>>()?;
        refuse_both(&resolutions)?;
        if told.standing.is_none() && !resolutions.is_empty() {
            self.refuse_decided(&stream)?;
        }
        match control::ask(&stream, &Ask::Commit { spec: self.id, resolutions }, None)?.0 {
            Answer::Outcome(outcome) => Ok(tell(&outcome)),
            other => Err(unexpected(&other)),
        }
    }

    /// Of what is decided no version can be chosen any more.
    fn refuse_decided(&self, stream: &UnixStream) -> Result<(), Fault> {
        let state = match control::ask(stream, &Ask::Outcome { spec: self.id }, None)?.0 {
            Answer::Outcome(outcome) => outcome.state,
            other => return Err(unexpected(&other)),
        };
        match state {
            SpecState::Committed | SpecState::Aborted => {
                let how = if state == SpecState::Committed { "committed" } else { "undone" };
                let text = format!("speculation {} is {how} already: --ours and --theirs come too late", self.id);
                Err(Fault::new(FaultKind::Decided, text))
            }
            _ => Ok(()),
        }
    }
}

/// Both versions of one path can't stand.
fn refuse_both(resolutions: &[Resolution]) -> Result<(), Fault> {
    let is_theirs = |path: &Vec<u8>| resolutions.contains(&Resolution::Theirs(path.clone()));
    let ours = resolutions.iter().filter_map(|side| match side {
        Resolution::Ours(path) => Some(path),
        Resolution::Theirs(_) => None,
    });
    match ours.into_iter().find(|path| is_theirs(path)) {
        Some(path) => {
            let path = if path.is_empty() { ".".to_owned() } else { shown(path) };
            Err(Fault::new(FaultKind::Invalid, format!("--ours and --theirs are both said of `{path}`: choose one")))
        }
        None => Ok(()),
    }
}

/// What a speculation is in conflict over; nothing where that is not known: it is decided, or another's.
fn standing(stream: &UnixStream, spec: SpecId) -> Result<Option<Vec<Conflict>>, Fault> {
    match control::ask(stream, &Ask::Status, None)?.0 {
        Answer::Status(all) => Ok(all.into_iter().find(|status| status.id == spec).map(|status| status.conflicts)),
        other => Err(unexpected(&other)),
    }
}

/// What the paths on the command line are told apart by.
struct Told<'a> {
    spec: SpecId,
    mountpoint: &'a Path,
    standing: Option<Vec<Conflict>>,
}

impl Told<'_> {
    /// The path that is meant, as the filesystem has it: it is one in conflict, or above one.
    fn meant(&self, path: &OsStr) -> Result<Vec<u8>, Fault> {
        let from_root = from_root(path);
        if from_root.is_empty() {
            return Ok(from_root);
        }
        let through = through_the_mount(self.mountpoint, Path::new(path)).filter(|through| *through != from_root);
        let Some(standing) = &self.standing else { return Ok(from_root) };
        let through = through.filter(|through| is_in_conflict(through, standing));
        match (is_in_conflict(&from_root, standing), through) {
            (true, None) => Ok(from_root),
            (false, Some(through)) => Ok(through),
            (true, Some(through)) => Err(self.ambiguous(path, &[from_root, through])),
            // Not all of so many are told: the server knows.
            (false, None) if standing.len() >= CONFLICTS_MAX / 2 => Ok(from_root),
            (false, None) => Err(self.unknown(path, standing)),
        }
    }

    fn ambiguous(&self, path: &OsStr, both: &[Vec<u8>; 2]) -> Fault {
        let [first, second] =
            both.each_ref().map(|path| shown(self.mountpoint.join(OsStr::from_bytes(path)).as_os_str().as_bytes()));
        let text = format!("`{}` may be {first} or {second}: write which", shown(path.as_bytes()));
        Fault::new(FaultKind::Invalid, text)
    }

    fn unknown(&self, path: &OsStr, standing: &[Conflict]) -> Fault {
        let path = shown(path.as_bytes());
        let mut named: Vec<String> = standing.iter().map(|conflict| format!("`{}`", shown(&conflict.path))).collect();
        named.dedup();
        let more = named.len().saturating_sub(NAMED_MAX);
        named.truncate(NAMED_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = match named.is_empty() {
            true => format!("speculation {} has no conflicts: commit it without `{path}`", self.spec),
            false => format!("`{path}` is in no conflict; in conflict: {}{more}", named.join(", ")),
        };
        Fault::new(FaultKind::Invalid, text)
    }
}

/// Whether something at or below a path is in conflict.
fn is_in_conflict(path: &[u8], standing: &[Conflict]) -> bool {
    let path = Path::new(OsStr::from_bytes(path));
    standing.iter().any(|conflict| Path::new(OsStr::from_bytes(&conflict.path)).starts_with(path))
}

/// A path that is meant from the filesystem's root: without slashes around it.
fn from_root(path: &OsStr) -> Vec<u8> {
    let path = path.as_bytes();
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let start = path.iter().position(|byte| *byte != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(start, |last| last + 1);
    match &path[start..end.max(start)] {
        b"." => Vec::new(),
        path => path.to_vec(),
    }
}

/// A path that leads into the filesystem through its mountpoint or from the working directory, as the filesystem has it.
fn through_the_mount(mountpoint: &Path, path: &Path) -> Option<Vec<u8>> {
    let path = real(&std::path::absolute(path).ok()?)?;
    Some(path.strip_prefix(mountpoint).ok()?.as_os_str().as_bytes().to_vec())
}

/// A path without links on the way. Its end may be a link, and may be missing: it is what a speculation has there.
fn real(path: &Path) -> Option<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return path.canonicalize().ok() };
    let parent = parent.canonicalize().ok().or_else(|| real(parent))?;
    Some(parent.join(name))
}
