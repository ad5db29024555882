//! What a job over directories of the host covers, and what of theirs it does not: said before it starts.

use super::super::json::with_paths;
use super::super::{host_fault, shown};
use crate::job::find::Filesystem;
use crate::mount;
use crate::output::err;
use mojavefs::protocol::fault::Fault;
use mojavefs_attach::places::Table;
use serde_json::{Value, json};
use std::fs;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The most that is read of a file that names others, in bytes.
const NAMES_BYTES_MAX: u64 = 64 << 10;

/// The directories, and what is not covered though it lies in them, or belongs to them.
pub(super) struct Covered {
    dirs: Vec<PathBuf>,
    /// Mounted below: what is changed there is final at once.
    native: Vec<PathBuf>,
    /// What of a repository lies elsewhere: the file that says so, and where.
    outside: Vec<(PathBuf, PathBuf)>,
}

impl Covered {
    /// Nothing if the filesystem is a mount, of which all is covered.
    pub(super) fn of(filesystem: &Filesystem) -> Result<Option<Covered>, Fault> {
        if !filesystem.is_host() {
            return Ok(None);
        }
        let dirs: Vec<PathBuf> = filesystem.host_dirs().map(Path::to_owned).collect();
        let mounts = mount::mounts().map_err(host_fault("read the mounts"))?;
        let table = Table::of(filesystem)?;
        let is_covered = |point: &PathBuf| table.own().any(|mount| mount.point == *point);
        let is_below = |point: &PathBuf| dirs.iter().any(|dir| point.starts_with(dir)) && !is_covered(point);
        let mut native: Vec<PathBuf> = mounts.into_iter().map(|mount| mount.point).filter(is_below).collect();
        native.sort();
        native.dedup();
        let mut outside: Vec<(PathBuf, PathBuf)> = dirs.iter().flat_map(|dir| places_of_repository(dir)).collect();
        outside.retain(|(_, place)| !dirs.iter().any(|dir| place.starts_with(dir)));
        // What lies in another one goes with that.
        let all = outside.clone();
        outside.retain(|(_, place)| !all.iter().any(|(_, other)| other != place && place.starts_with(other)));
        Ok(Some(Covered { dirs, native, outside }))
    }

    /// For people: which directories, only where one reads along; what is not covered in any case. All that is read-only or can be
    /// changed, and is not undone then.
    pub(super) fn tell(&self, is_read_only: bool) {
        let fate = if is_read_only { "the job can't change it" } else { "what is changed there is not undone" };
        if std::io::stderr().is_terminal() {
            let dirs: Vec<String> = self.dirs.iter().map(|dir| path(dir)).collect();
            let rest = if is_read_only { "all else is read-only" } else { "what is changed elsewhere is not undone" };
            err!("specrun: over {}; {rest}", dirs.join(", "));
        }
        for point in &self.native {
            err!("specrun: {} is mounted by itself: {fate}", path(point));
        }
        let with: String = self.dirs.iter().map(|dir| format!("--dir {} ", path(dir))).collect();
        for (file, place) in &self.outside {
            let (file, place) = (path(file), path(place));
            err!("specrun: {file} leads to {place}: {fate}, but for {with}--dir {place}");
        }
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let bytes = |paths: &mut dyn Iterator<Item = &PathBuf>| -> Vec<Vec<u8>> {
            paths.map(|path| path.as_os_str().as_bytes().to_vec()).collect()
        };
        let lists = [
            ("covers", bytes(&mut self.dirs.iter())),
            ("native", bytes(&mut self.native.iter())),
            ("outside", bytes(&mut self.outside.iter().map(|(_, place)| place))),
        ];
        lists.iter().fold(json!({"state": "started"}), |object, (key, paths)| {
            with_paths(object, key, &paths.iter().map(Vec::as_slice).collect::<Vec<_>>())
        })
    }
}

fn path(path: &Path) -> String {
    shown(path.as_os_str().as_bytes())
}

/// Where the repository whose work tree begins at a directory has its files, as far as that is said in files: each with the file. One
/// that can't be read says nothing.
fn places_of_repository(dir: &Path) -> Vec<(PathBuf, PathBuf)> {
    let mut places = Vec::new();
    let dot_git = dir.join(".git");
    let git = match lines(&dot_git).first().and_then(|line| line.strip_prefix("gitdir: ")) {
        // Of a worktree or a submodule.
        Some(place) => real(dir, place),
        None => fs::canonicalize(&dot_git).ok(),
    };
    let Some(git) = git else { return places };
    places.push((dot_git, git.clone()));
    let said = git.join("commondir");
    let common = lines(&said).first().and_then(|place| real(&git, place));
    places.extend(common.clone().map(|common| (said, common)));
    let objects = common.unwrap_or(git).join("objects");
    let said = objects.join("info/alternates");
    let alternates = lines(&said).into_iter().filter(|line| !line.starts_with('#'));
    places.extend(alternates.filter_map(|place| Some((said.clone(), real(&objects, &place)?))));
    places
}

fn real(from: &Path, place: &str) -> Option<PathBuf> {
    fs::canonicalize(from.join(place)).ok()
}

fn lines(file: &Path) -> Vec<String> {
    let is_small = fs::metadata(file).is_ok_and(|found| found.is_file() && found.len() <= NAMES_BYTES_MAX);
    let text = if is_small { fs::read_to_string(file).unwrap_or_default() } else { String::new() };
    text.lines().map(str::to_owned).filter(|line| !line.is_empty()).collect()
}
