//! What was displaced on the host (`docs/origin.md`), as long as the user leaves it in the state.

use super::json::with_path;
use super::{host_fault, shown};
use crate::daemon;
use crate::limits::DISPLACED_MAX;
use mojavefs::protocol::fault::Fault;
use serde_json::json;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Something that was put aside.
pub(super) struct Displaced {
    /// By the apply of which decision.
    decision: String,
    /// Where it was.
    from: PathBuf,
    /// Where it is.
    to: PathBuf,
}

/// Where what was displaced lies.
pub(super) fn dir() -> Result<PathBuf, Fault> {
    Ok(daemon::state_path().map_err(host_fault("the directory for what is undecided"))?.join("displaced"))
}

/// All of it, up to [`DISPLACED_MAX`], and whether there is more. Directories are not named: those in which it lies are left when the user
/// has removed it.
pub(super) fn all() -> Result<(Vec<Displaced>, bool), Fault> {
    let dir = dir()?;
    let mut found = Vec::new();
    let mut open = vec![dir.clone()];
    while let Some(at) = open.pop() {
        let names = match names(&at) {
            // The user removes them just now, or none ever was.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            names => names.map_err(host_fault(at.display()))?,
        };
        for (path, is_dir) in names {
            if found.len() >= DISPLACED_MAX {
                return Ok((found, true));
            }
            match is_dir {
                true => open.push(path),
                false => found.push(displaced(&dir, path)),
            }
        }
    }
    found.sort_by(|a, b| a.to.cmp(&b.to));
    Ok((found, false))
}

fn names(dir: &Path) -> io::Result<Vec<(PathBuf, bool)>> {
    let entries =
        fs::read_dir(dir)?.map(|entry| entry.and_then(|entry| Ok((entry.path(), entry.file_type()?.is_dir()))));
    entries.collect()
}

fn displaced(dir: &Path, to: PathBuf) -> Displaced {
    let mut below = to.strip_prefix(dir).unwrap_or(&to).iter();
    let decision = below.next().unwrap_or_default().to_string_lossy().into_owned();
    let from = Path::new("/").join(below.as_path());
    Displaced { decision, from, to }
}

impl Displaced {
    /// For people.
    pub(super) fn line(&self) -> String {
        let [from, to] = [&self.from, &self.to].map(|path| shown(path.as_os_str().as_bytes()));
        format!("displaced: {from} is kept as {to}, until you remove it there")
    }

    /// For programs.
    pub(super) fn json(&self) -> serde_json::Value {
        let object = json!({"state": "displaced", "decision": self.decision.parse::<u64>().ok()});
        with_path(with_path(object, "path", self.from.as_os_str().as_bytes()), "kept", self.to.as_os_str().as_bytes())
    }
}
