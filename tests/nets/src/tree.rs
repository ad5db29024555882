//! A tree in words, one line for each file, in one order.

use crate::known;
use crate::perform::{digest, errno, io};
use crate::sys::{self, Owner};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{FileStat, lstat};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Which times are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Those that a program has set, which lie in the past; of others only that they are others.
    Set,
    /// All, to the nanosecond: equal before and after what never happened.
    All,
}

/// Type, mode, owner, links, size, device, and times of a file.
pub(crate) fn attributes(stat: &FileStat, times: Times) -> String {
    let is_dir = stat.st_mode & libc::S_IFMT == libc::S_IFDIR;
    let size = if is_dir { known::directory_size() } else { stat.st_size };
    let mut told = format!(
        "{:o} {}:{} links={} size={size} device={}",
        stat.st_mode, stat.st_uid, stat.st_gid, stat.st_nlink, stat.st_rdev
    );
    match times {
        Times::Set => told += &known::time(stat.st_mtime, stat.st_mtime_nsec),
        Times::All => {
            told += &format!(" mtime={}.{:09}", stat.st_mtime, stat.st_mtime_nsec);
            told += &format!(" ctime={}.{:09}", stat.st_ctime, stat.st_ctime_nsec);
        }
    }
    told
}

/// Everything at and below a path.
pub fn walk(root: &Path, times: Times) -> Vec<String> {
    let mut walk = Walk { times, names: BTreeMap::new(), lines: Vec::new() };
    walk.visit(root, "/");
    walk.lines
}

struct Walk {
    times: Times,
    /// The first name of each file that has several.
    names: BTreeMap<u64, String>,
    lines: Vec<String>,
}

impl Walk {
    fn visit(&mut self, path: &Path, name: &str) {
        let line = self.line(path, name).unwrap_or_else(errno);
        self.lines.push(format!("{name} {line}"));
        if line_is_dir(&line) {
            let mut children: Vec<_> = match fs::read_dir(path) {
                Ok(entries) => entries.map(|entry| entry.map(|entry| entry.file_name())).collect(),
                Err(e) => vec![Err(e)],
            };
            children.sort_by_key(|child| child.as_ref().ok().cloned());
            for child in children {
                match child {
                    Ok(child) => {
                        let below = format!("{}/{}", name.trim_end_matches('/'), child.to_string_lossy());
                        self.visit(&path.join(child), &below);
                    }
                    Err(e) => self.lines.push(format!("{name} can't be listed: {}", errno(io(&e)))),
                }
            }
        }
    }

    fn line(&mut self, path: &Path, name: &str) -> Result<String, Errno> {
        let stat = lstat(path)?;
        let kind = stat.st_mode & libc::S_IFMT;
        let mut line = attributes(&stat, self.times);
        if kind != libc::S_IFDIR && stat.st_nlink > 1 {
            line += &format!(" same-as={}", self.names.entry(stat.st_ino).or_insert_with(|| name.to_owned()));
        }
        line += &xattrs(path)?;
        match kind {
            libc::S_IFLNK => line += &format!(" -> {}", nix::fcntl::readlink(path)?.to_string_lossy()),
            libc::S_IFREG => {
                let content = fs::read(path).map_err(|e| io(&e))?;
                line += &format!(" {}", digest(&content));
            }
            _ => {}
        }
        Ok(line)
    }
}

fn line_is_dir(line: &str) -> bool {
    line.split(' ').next().is_some_and(|mode| mode.len() == 5 && mode.starts_with('4'))
}

fn xattrs(path: &Path) -> Result<String, Errno> {
    let path = std::str::from_utf8(path.as_os_str().as_bytes()).map_err(|_| Errno::EILSEQ)?;
    let names = sys::list_xattr(path)?;
    let mut names: Vec<_> = names.split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    let mut said = String::new();
    for name in names {
        let name = String::from_utf8_lossy(name);
        said += &format!(" {name}={}", digest(&sys::get_xattr(Owner::Path(path), &name)?));
    }
    Ok(said)
}
