//! What goes from the host, and what is put aside since nobody expected it.

use super::super::{Displaced, HostFile, HostPath, below};
use super::switch::{At, Switch, failed, shown};
use super::{build, look, sys};
use crate::store::Inode;
use mojavefs::id::Ino;
use mojavefs::protocol::file::{FileKind, Name};
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::UnlinkatFlags;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

impl Switch<'_> {
    /// Removes what is nowhere any more, as far as it is what was looked at, and nobody writes to it.
    pub(super) fn remove(&mut self, ino: Ino, at: &At, path: &HostPath) -> io::Result<()> {
        let Some((_, is)) = self.numbered(at.look()?)? else { return Ok(()) };
        if is.inode.kind != FileKind::Directory {
            return self.remove_file(ino, &is, at, path);
        }
        let (inside, names) = at.names()?;
        let planned = self.plan.dirs.get(&ino);
        let known: BTreeMap<Name, Ino> = planned
            .into_iter()
            .flat_map(|dir| &dir.names)
            .filter_map(|(name, old)| Some((name.clone(), (*old)?)))
            .collect();
        for name in names {
            let (old, inner) = (known.get(&name).copied(), below(path, &name));
            let at = At { dir: inside.clone(), name };
            let Some((number, found)) = self.numbered(at.look()?)? else { continue };
            match old == Some(number) && self.is_as_expected(number, &found)? {
                true => self.remove(number, &at, &inner)?,
                false => self.displace(&at, &inner)?,
            }
        }
        match at.unlink(UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY | Errno::EEXIST) => self.displace(at, path),
            done => Ok(done?),
        }
    }

    fn remove_file(&mut self, ino: Ino, is: &HostFile, at: &At, path: &HostPath) -> io::Result<()> {
        if is.inode.kind == FileKind::Regular && is.inode.nlink == 1 {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            // Who writes to it goes on, and finds it there. One that can't be asked about counts as nobody's.
            let is_written =
                openat(&at.dir, at.name(), flags, Mode::empty()).is_ok_and(|open| sys::is_being_written(&open));
            let has_changed = || {
                Ok::<_, io::Error>(match self.numbered(at.look()?)? {
                    Some((number, now)) => number != ino || !self.is_as_expected(number, &now)?,
                    None => false,
                })
            };
            if is_written || has_changed()? {
                return self.displace(at, path);
            }
        }
        Ok(at.unlink(UnlinkatFlags::NoRemoveDir)?)
    }

    /// A free path for what is put aside from this one.
    fn place_aside(&self, path: &[Name]) -> io::Result<PathBuf> {
        let mut to = self.host.displaced.join(self.plan.number.to_string());
        path.iter().for_each(|name| to.push(OsStr::from_bytes(name)));
        if let Some(above) = to.parent() {
            fs::DirBuilder::new().recursive(true).create(above)?;
        }
        let mut free = to.clone();
        let mut tries = 1;
        while free.symlink_metadata().is_ok() {
            free = PathBuf::from(format!("{}.{tries}", to.display()));
            tries += 1;
        }
        Ok(free)
    }

    /// Puts aside what nobody expected there.
    pub(super) fn displace(&mut self, at: &At, path: &HostPath) -> io::Result<()> {
        let free = self.place_aside(path)?;
        self.unsynced.add_more();
        let to = match renameat2(&at.dir, at.name(), nix::fcntl::AT_FDCWD, &free, RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => free.as_os_str().as_bytes().to_vec(),
            // On another filesystem it stays beside where it was, under a name that is to be seen.
            Err(Errno::EXDEV) => {
                let beside = self.beside(at, path)?;
                at.rename(&beside, RenameFlags::RENAME_NOREPLACE)?;
                let above = path.split_last().map_or(&[][..], |(_, above)| above);
                shown(&[above, &[beside.name]].concat())
            }
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(path, errno.into())),
        };
        self.applied.displaced.push(Displaced { from: shown(path), to, is_ours: false });
        Ok(())
    }

    /// A file is about to be written where it is. If it is not what was expected, what is in it is put aside as a copy; but for one that was
    /// being written when this apply was interrupted.
    pub(super) fn keep_unexpected(&mut self, ino: Ino, found: &OwnedFd) -> io::Result<()> {
        let Some((number, is)) = self.numbered(look(found)?)? else { return Ok(()) };
        if self.host.numbers.knows(self.plan.number, &is) {
            return Ok(());
        }
        if !self.is_as_expected(number, &is)?
            && let Some(path) = self.wanted.path_of(ino)?
        {
            let to = self.place_aside(&path)?;
            fs::copy(format!("/proc/self/fd/{}", found.as_raw_fd()), &to)?;
            self.sync_aside()?;
            let to = to.as_os_str().as_bytes().to_vec();
            self.applied.displaced.push(Displaced { from: shown(&path), to, is_ours: false });
        }
        self.host.numbers.made(self.plan.number, ino, &is)?;
        self.host.numbers.sync()
    }

    /// Of a file of which only attributes change: what others have written meanwhile keeps its times.
    pub(super) fn keep_times(&self, found: &OwnedFd, inode: Inode) -> io::Result<Inode> {
        let Some((number, HostFile { inode: is, .. })) = self.numbered(look(found)?)? else { return Ok(inode) };
        // They may have been set before this apply was interrupted.
        let is_set = (is.size, is.mtime) == (inode.size, inode.mtime);
        match is_set || self.wanted.signature(number)?.is_some_and(|was| was.is_of_bytes(&is)) {
            true => Ok(inode),
            false => Ok(Inode { atime: is.atime, mtime: is.mtime, ..inode }),
        }
    }

    /// A free name beside something, which is to be seen.
    fn beside(&self, at: &At, path: &[Name]) -> io::Result<At> {
        let name = path.last().map_or(&b"file"[..], Vec::as_slice);
        for count in 0_u64.. {
            let suffix = match count {
                0 => format!(".displaced-by-mojavefs-{}", self.plan.number),
                count => format!(".displaced-by-mojavefs-{}-{count}", self.plan.number),
            };
            let keep = name.len().min(255 - suffix.len());
            let beside = At { dir: at.dir.clone(), name: [&name[..keep], suffix.as_bytes()].concat() };
            if beside.open()?.is_none() {
                return Ok(beside);
            }
        }
        Err(io::Error::other("no name is free"))
    }

    /// What was committed and has no place on the host any more is put aside, too.
    pub(super) fn put_aside(&mut self, ino: Ino, path: &[Name]) -> io::Result<()> {
        let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { return Ok(()) };
        // One that only has moved is where the host has it.
        if self.wanted.path_of(ino)?.is_some() && !self.wanted.has_new_content(ino)? {
            return Ok(());
        }
        let to = self.place_aside(path)?;
        let (Some(above), Some(name)) = (to.parent(), to.file_name()) else { return Ok(()) };
        let dir = nix::fcntl::open(above, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let at = At { dir: Rc::new(dir), name: name.as_bytes().to_vec() };
        build::make(&at, &inode)?;
        build::write(&at, &inode, self.wanted)?;
        if inode.kind == FileKind::Directory {
            for (name, child) in self.wanted.names(ino)? {
                self.put_aside(child, &below(path, &name))?;
            }
        }
        self.sync_aside()?;
        self.note_aside(path, &to);
        Ok(())
    }

    fn note_aside(&mut self, path: &[Name], to: &Path) {
        let to = to.as_os_str().as_bytes().to_vec();
        self.applied.displaced.push(Displaced { from: shown(path), to, is_ours: true });
    }
}
