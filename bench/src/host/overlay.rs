//! What people do with an overlay to have a command's changes apart: it is mounted, and what is in its upper directory is copied back.

use super::place::{PROJECT, Place};
use crate::Outcome;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const UPPER: &str = "upper";
const WORK: &str = "work";
const MERGED: &str = "merged";
/// What begins the name of a whiteout where devices can't be made.
const WHITEOUT: &[u8] = b".wh.";
/// In a directory that shows nothing of the one below: every new one.
const OPAQUE: [&[u8]; 2] = [b".wh..wh..opq", b".wh..opq"];

/// The command that runs a script on an overlay over the project of a run, in a mount namespace of its own.
pub(super) fn command(place: &Place, dir: &Path, is_fuse: bool, script: &str) -> Outcome<Command> {
    for name in [UPPER, WORK, MERGED] {
        place.make(&dir.join(name))?;
    }
    let options = format!("lowerdir={PROJECT},upperdir={UPPER},workdir={WORK}");
    let mount = match (is_fuse, place.is_roots()) {
        (true, _) => format!("fuse-overlayfs -o {options} {MERGED}"),
        (false, true) => format!("mount -t overlay -o {options} overlay {MERGED}"),
        (false, false) => format!("mount -t overlay -o {options},userxattr overlay {MERGED}"),
    };
    let run = format!("{mount}; code=0; (cd {MERGED} && sh -ec \"$1\") || code=$?; umount {MERGED}; exit $code");
    let mut command = place.command("unshare", dir);
    command.arg(if place.is_roots() { "-m" } else { "-Urm" }).args(["sh", "-ec", &run, "sh", script]);
    Ok(command)
}

/// Makes the project what it was to the script. No script makes a directory anew that it has removed, so that what is opaque is new.
pub(super) fn copy_back(place: &Place, dir: &Path) -> Outcome<()> {
    let (upper, project) = (dir.join(UPPER), dir.join(PROJECT));
    remove_whiteouts(&upper, &project)?;
    place.finish(place.command("cp", dir).arg("-aT").args([&upper, &project]))?;
    // The kernel leaves it closed to everybody but root.
    let work = dir.join(WORK).join("work");
    if work.exists() {
        fs::set_permissions(work, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Removes what whiteouts say is removed, and these.
fn remove_whiteouts(upper: &Path, project: &Path) -> Outcome<()> {
    for entry in fs::read_dir(upper)? {
        let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_device = kind.is_char_device() && entry.metadata()?.rdev() == 0;
        let gone = name.as_bytes().strip_prefix(WHITEOUT).or(is_device.then_some(name.as_bytes()));
        match gone {
            Some(_) if OPAQUE.contains(&name.as_bytes()) => fs::remove_file(&path)?,
            Some(gone) => {
                remove(&project.join(OsStr::from_bytes(gone)))?;
                fs::remove_file(&path)?;
            }
            None if kind.is_dir() => remove_whiteouts(&path, &project.join(name))?,
            None => {}
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Outcome<()> {
    let failed = |why: std::io::Error| format!("remove {}: {why}", path.display());
    let is_dir = fs::symlink_metadata(path).map_err(failed)?.is_dir();
    Ok(if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(failed)?)
}
