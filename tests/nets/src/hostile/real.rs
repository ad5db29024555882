//! The directory as it really is.

use super::model::{Object, Tree, What};
use crate::sys::{self, Owner};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// What names begin with under which an apply has what has no name yet, or none any more.
pub(super) const OWN_PREFIX: &str = ".mojavefs-";
/// How long a change may take, in seconds: it waits for somebody who waits for it.
const CHANGE_SECONDS_MAX: &str = "10";

/// What is in a directory. It may change meanwhile, and what is gone is not there.
pub(super) fn read(dir: &Path, with_own: bool) -> Tree {
    let mut tree = Tree::default();
    if dir.exists() {
        walk(&mut tree, dir, "", with_own).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    }
    tree
}

fn walk(tree: &mut Tree, dir: &Path, within: &str, with_own: bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name().to_string_lossy().into_owned()))?;
        if name.starts_with(OWN_PREFIX) && !with_own {
            continue;
        }
        let path = if within.is_empty() { name } else { format!("{within}/{name}") };
        let is = match fs::symlink_metadata(&entry) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            is => is?,
        };
        let what = match is.file_type() {
            kind if kind.is_dir() => What::Directory,
            kind if kind.is_symlink() => What::Symlink(fs::read_link(&entry)?.to_string_lossy().into_owned()),
            kind if kind.is_fifo() => What::Fifo,
            _ => What::File(String::from_utf8_lossy(&fs::read(&entry)?).into_owned()),
        };
        let mode = if is.file_type().is_symlink() { 0 } else { is.mode() & 0o7777 };
        let attribute = sys::get_xattr(Owner::Path(&entry.to_string_lossy()), "user.a").ok();
        let attribute = attribute.map(|value| String::from_utf8_lossy(&value).into_owned());
        let is_directory = what == What::Directory;
        tree.objects.insert(is.ino(), Object { what, mode, attribute });
        tree.names.insert(path.clone(), is.ino());
        if is_directory {
            walk(tree, &entry, &path, with_own)?;
        }
    }
    Ok(())
}

/// Makes a change in a directory. Whether it could be made.
pub(super) fn change(dir: &Path, script: &str) -> bool {
    let mut command = Command::new("timeout");
    command.args([CHANGE_SECONDS_MAX, "sh", "-c", &format!("umask 022; {script}")]).current_dir(dir);
    let output = command.stdin(Stdio::null()).output().expect("a shell");
    assert_ne!(output.status.code(), Some(124), "`{script}` waits for something");
    output.status.success()
}
