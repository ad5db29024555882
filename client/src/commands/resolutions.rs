//! Whose version stands of paths in conflict: which paths `--ours` and `--theirs` mean.

use super::shown;
use crate::control::{self, unexpected};
use crate::job::find::Filesystem;
use mojavefs::id::SpecId;
use mojavefs::limits::CONFLICTS_MAX;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Conflict, Reply, Resolution, SpecOp};
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// How many paths in conflict an error names.
const NAMED_MAX: usize = 5;

/// Both versions of one path can't stand.
pub(super) fn refuse_both(resolutions: &[Resolution]) -> Result<(), Fault> {
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
pub(super) fn standing(stream: &UnixStream, spec: SpecId) -> Result<Option<Vec<Conflict>>, Fault> {
    match control::ask(stream, &Ask::Speculation(SpecOp::Status), None)?.0 {
        Answer::Reply(Reply::Status(all)) => {
            Ok(all.into_iter().find(|status| status.id == spec).map(|status| status.conflicts))
        }
        other => Err(unexpected(&other)),
    }
}

/// What the paths on the command line are told apart by.
pub(super) struct Told<'a> {
    pub(super) spec: SpecId,
    pub(super) filesystem: &'a Filesystem,
    pub(super) standing: Option<Vec<Conflict>>,
}

impl Told<'_> {
    /// The path that is meant, as the filesystem has it: it is one in conflict, or above one.
    pub(super) fn meant(&self, path: &OsStr) -> Result<Vec<u8>, Fault> {
        let from_root = from_root(path);
        if from_root.is_empty() {
            return Ok(from_root);
        }
        let through = through_the_mount(self.filesystem, Path::new(path)).filter(|through| *through != from_root);
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
        let [first, second] = both
            .each_ref()
            .map(|path| shown(self.filesystem.mountpoint.join(OsStr::from_bytes(path)).as_os_str().as_bytes()));
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

/// A path that leads into the filesystem through a place where it is mounted, or from the working directory, as the filesystem has it.
fn through_the_mount(filesystem: &Filesystem, path: &Path) -> Option<Vec<u8>> {
    let path = real(&std::path::absolute(path).ok()?)?;
    Some(filesystem.path_of(&path)?.into_os_string().into_vec())
}

/// A path without links on the way. Its end may be a link, and may be missing: it is what a speculation has there.
fn real(path: &Path) -> Option<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return path.canonicalize().ok() };
    let parent = parent.canonicalize().ok().or_else(|| real(parent))?;
    Some(parent.join(name))
}
