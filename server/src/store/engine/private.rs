//! A store is its owner's alone: whoever can read its files reads every file in it and all undecided work, whatever their modes
//! say.

use super::EngineError;
use std::fs::{self, DirBuilder, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;
/// The permissions of everybody but the owner.
const OTHERS: u32 = 0o077;

/// How files in a store are opened that may have to be made.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Makes a directory, and those above it, unless it is there.
pub(super) fn make_dir(dir: &Path) -> Result<(), EngineError> {
    let made = DirBuilder::new().recursive(true).mode(DIRECTORY).create(dir);
    made.map_err(|e| EngineError::io(format!("create {}", dir.display()), e))
}

/// Takes a store's directories and files away from everybody but their owner. Returns what users are told of it, if others
/// could look inside.
pub(super) fn tighten(dir: &Path) -> Result<Option<String>, EngineError> {
    let failed = |error: io::Error| EngineError::io(format!("look at the permissions in {}", dir.display()), error);
    let was_open = is_open(&fs::metadata(dir).map_err(failed)?);
    match tighten_all(dir) {
        Ok(()) if was_open => Ok(Some(format!(
            "other users could read the store {}: its directories and files are for their owner only now",
            dir.display()
        ))),
        Ok(()) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(Some(format!(
            "other users may be able to read the store {}, which belongs to another user: {error}; let its owner run \
             `chmod -R go-rwx` on it",
            dir.display()
        ))),
        Err(error) => Err(failed(error)),
    }
}

fn is_open(found: &Metadata) -> bool {
    found.permissions().mode() & OTHERS != 0
}

/// From the top, so that nobody gets in meanwhile. Files are looked at where their directory was open: there may be very many.
fn tighten_all(dir: &Path) -> io::Result<()> {
    take_away(dir, &fs::metadata(dir)?)?;
    for file in ["lock", "reserve"] {
        tighten_file(&dir.join(file))?;
    }
    for (part, always) in [("records", true), ("content", false)] {
        let part = dir.join(part);
        let found = match fs::metadata(&part) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            found => found?,
        };
        if is_open(&found) || always {
            take_away(&part, &found)?;
            for entry in fs::read_dir(&part)? {
                tighten_file(&entry?.path())?;
            }
        }
    }
    Ok(())
}

/// One that is missing, or is a link to elsewhere, is left alone.
fn tighten_file(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => Ok(()),
        Ok(found) => take_away(path, &found),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
    }
}

fn take_away(path: &Path, found: &Metadata) -> io::Result<()> {
    match is_open(found) {
        true => fs::set_permissions(path, Permissions::from_mode(found.permissions().mode() & 0o7777 & !OTHERS)),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::Directory;
    use crate::store::{Store, StoreOptions};
    use std::os::unix::fs::MetadataExt;

    const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

    /// The modes of the store's directories and of what is in them.
    fn modes(dir: &Path) -> Vec<u32> {
        let mut modes = Vec::new();
        let mut todo = vec![dir.to_owned()];
        while let Some(at) = todo.pop() {
            let found = fs::symlink_metadata(&at).expect("stat");
            modes.push(found.mode() & 0o7777);
            if found.is_dir() {
                todo.extend(fs::read_dir(&at).expect("list").map(|entry| entry.expect("an entry").path()));
            }
        }
        modes
    }

    #[test]
    fn a_store_that_others_can_read_is_tightened_and_that_is_said_once() {
        let root = tempfile::TempDir::new().expect("a directory");
        let dir = root.path().join("store");
        drop(Store::open(&Directory::at(&dir), OPTIONS).expect("a new store"));
        assert_eq!(fs::metadata(&dir).expect("stat").mode() & 0o7777, 0o700);
        let file = dir.join("content").join("outside");
        std::os::unix::fs::symlink(root.path(), &file).expect("a link");
        for (path, mode) in [("", 0o755), ("records", 0o755), ("content", 0o750), ("lock", 0o644)] {
            fs::set_permissions(dir.join(path), Permissions::from_mode(mode)).expect("chmod");
        }
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).expect("chmod");
        assert!(tighten(&dir).expect("it is tightened").is_some_and(|said| said.contains("could read the store")));
        fs::remove_file(file).expect("remove");
        assert!(modes(&dir).iter().all(|mode| mode & OTHERS == 0), "{:?}", modes(&dir));
        assert_eq!(
            fs::metadata(root.path()).expect("stat").mode() & 0o7777,
            0o755,
            "what lies elsewhere is left alone"
        );
        assert_eq!(Store::open(&Directory::at(&dir), OPTIONS).expect("the store opens").notes(), &[] as &[String]);
    }
}
