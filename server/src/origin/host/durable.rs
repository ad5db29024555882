//! What an apply has done is made durable: file by file where that is little, else the whole filesystem, whose other users then wait for
//! theirs, too.

use super::switch::Switch;
use super::{metadata, sys};
use mojavefs::protocol::file::FileKind;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;

/// So many files are synced one by one.
const SYNCED_ONE_BY_ONE: usize = 32;

/// What is not known to be on disk.
#[derive(Default)]
pub(super) struct Unsynced {
    /// Files and directories, as far as they can be opened.
    files: Vec<File>,
    named: HashSet<(u64, u64)>,
    /// There is more than that.
    has_more: bool,
}

impl Unsynced {
    /// A file was made, or changed.
    pub(super) fn add(&mut self, found: &OwnedFd, kind: FileKind) {
        if self.has_more {
            return;
        }
        // Others can't be synced alone, and to open a device may have effects.
        if !matches!(kind, FileKind::Regular | FileKind::Directory) {
            return self.add_more();
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        match nix::fcntl::open(&path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
            Ok(file) => self.push(file),
            Err(_) => self.add_more(),
        }
    }

    /// Names in a directory were changed.
    pub(super) fn add_dir(&mut self, dir: &OwnedFd) {
        if !self.has_more {
            match openat(dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
                Ok(dir) => self.push(dir),
                Err(_) => self.add_more(),
            }
        }
    }

    /// More was changed than is to be named here.
    pub(super) fn add_more(&mut self) {
        self.has_more = true;
        self.files.clear();
    }

    fn push(&mut self, file: OwnedFd) {
        let file = File::from(file);
        match file.metadata() {
            Ok(is) if self.named.insert((is.dev(), is.ino())) => self.files.push(file),
            Ok(_) => {}
            Err(_) => self.add_more(),
        }
        if self.files.len() > SYNCED_ONE_BY_ONE {
            self.add_more();
        }
    }
}

impl Switch<'_> {
    /// Everything that was made so far is on disk when this returns.
    pub(super) fn sync_made(&mut self) -> io::Result<()> {
        let unsynced = std::mem::take(&mut self.unsynced);
        self.sync(unsynced)
    }

    /// Everything that was done is on disk when this returns.
    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        let mut unsynced = std::mem::take(&mut self.unsynced);
        self.dirs().for_each(|dir| unsynced.add_dir(dir));
        self.sync(unsynced)
    }

    fn sync(&self, unsynced: Unsynced) -> io::Result<()> {
        if unsynced.has_more {
            return self.sync_filesystems();
        }
        unsynced.files.iter().try_for_each(File::sync_all)
    }

    /// What was put aside is on disk when this returns.
    pub(super) fn sync_aside(&self) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        sys::sync_filesystem(&nix::fcntl::open(&self.host.displaced, flags, Mode::empty())?)
    }

    fn sync_filesystems(&self) -> io::Result<()> {
        let mut synced = HashSet::new();
        for dir in self.dirs() {
            if synced.insert(metadata(dir)?.dev()) {
                sys::sync_filesystem(&openat(dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
            }
        }
        Ok(())
    }

    fn dirs(&self) -> impl Iterator<Item = &Rc<OwnedFd>> {
        self.dirs.values().map(|(dir, _)| dir)
    }
}
