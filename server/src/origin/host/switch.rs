//! Making the host what is wanted: new files are built beside their names and put there in one step, and whatever comes out is compared
//! with what was expected before it goes. What was not expected is put aside, never removed.

use super::super::{Applied, Displaced, HostFile, HostPath, OWN_PREFIX, Plan, PlannedDir, Signature, Wanted};
use super::{Host, build, look, metadata, sys};
use mojavefs::id::Ino;
use mojavefs::protocol::file::{FileKind, Name};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::rc::Rc;

/// A name in a directory that is open.
#[derive(Clone)]
pub(super) struct At {
    pub(super) dir: Rc<OwnedFd>,
    pub(super) name: Name,
}

impl At {
    pub(super) fn name(&self) -> &OsStr {
        OsStr::from_bytes(&self.name)
    }

    /// What is there.
    pub(super) fn open(&self) -> io::Result<Option<OwnedFd>> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(&self.dir, self.name(), flags, Mode::empty()) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn look(&self) -> io::Result<Option<HostFile>> {
        self.open()?.map_or(Ok(None), |found| look(&found))
    }

    fn rename(&self, to: &At, flags: RenameFlags) -> nix::Result<()> {
        renameat2(&self.dir, self.name(), &to.dir, to.name(), flags)
    }
}

/// A name that is to be something else.
struct Change {
    at: At,
    /// For people, and where it is put if it is in the way.
    path: HostPath,
    dir: Ino,
    old: Option<Ino>,
    wanted: Option<Ino>,
}

pub(super) struct Switch<'a> {
    host: &'a Host,
    plan: &'a Plan,
    pub(super) wanted: &'a dyn Wanted,
    /// Directories that the host has, open since before anything was moved.
    dirs: HashMap<Ino, (Rc<OwnedFd>, HostPath)>,
    /// Files whose attributes or bytes change, the same.
    files: HashMap<Ino, OwnedFd>,
    /// What was taken out and not put in again.
    taken: HashMap<Ino, (At, HostPath)>,
    /// Where what is there already, or was put there, has a name.
    placed: HashMap<Ino, At>,
    /// Files of the host's in whose place a new one is put, for its bytes.
    rebuilt: HashSet<Ino>,
    next: u64,
    applied: Applied,
}

impl<'a> Switch<'a> {
    pub(super) fn new(host: &'a Host, plan: &'a Plan, wanted: &'a dyn Wanted) -> Self {
        let (dirs, files, taken, placed) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let (rebuilt, applied) = (HashSet::new(), Applied::default());
        Switch { host, plan, wanted, dirs, files, taken, placed, rebuilt, next: 0, applied }
    }

    pub(super) fn run(mut self) -> io::Result<Applied> {
        let mut changes = self.open_all()?;
        self.sweep()?;
        let asked_for: HashSet<Ino> = changes.iter().filter_map(|change| change.wanted).collect();
        for change in &changes {
            self.take_out(change, &asked_for)?;
        }
        // What lies in others is put there after these are there themselves.
        changes.sort_by_key(|change| change.path.len());
        for change in &changes {
            self.put_in(change)?;
        }
        self.set_files()?;
        self.remove_taken()?;
        self.set_times()?;
        let mut synced = HashSet::new();
        for (dir, _) in self.dirs.values() {
            if synced.insert(metadata(dir)?.dev()) {
                sys::sync_filesystem(&openat(dir, ".", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)?;
            }
        }
        Ok(self.applied)
    }

    fn numbered(&self, found: Option<HostFile>) -> Option<(Ino, HostFile)> {
        found.map(|found| (self.wanted.number_of(found.ino), found))
    }

    /// A name for what is nobody's yet, in a directory.
    fn aside(&mut self, dir: &Rc<OwnedFd>) -> At {
        self.next += 1;
        let name = format!("{}-{}", self.plan.number, self.next);
        At { dir: dir.clone(), name: [OWN_PREFIX, name.as_bytes()].concat() }
    }

    /// Opens what the plan is about, and finds out which names are to be something else.
    fn open_all(&mut self) -> io::Result<Vec<Change>> {
        let plan = self.plan;
        for PlannedDir { ino, path, .. } in &plan.dirs {
            if let Some(path) = path {
                self.open_dir(*ino, path)?;
            }
        }
        let mut changes = Vec::new();
        for PlannedDir { ino: dir, names, .. } in &plan.dirs {
            let Some((fd, path)) = self.dirs.get(dir).cloned() else { continue };
            for (name, old) in names {
                let (at, wanted) = (At { dir: fd.clone(), name: name.clone() }, self.wanted.entry(*dir, name)?);
                let path = [&path[..], &[name.clone()]].concat();
                changes.push(Change { at, path, dir: *dir, old: *old, wanted });
            }
        }
        for ino in &plan.files {
            changes.extend(self.open_file(*ino, &changes)?);
        }
        Ok(changes)
    }

    fn open_dir(&mut self, ino: Ino, path: &HostPath) -> io::Result<()> {
        let found = self.host.reach(path, OFlag::O_PATH)?;
        let number = self.numbered(found.as_ref().map_or(Ok(None), look)?).map(|(number, _)| number);
        match found {
            Some(found) if number == Some(ino) => {
                self.dirs.insert(ino, (Rc::new(found), path.clone()));
                Ok(())
            }
            _ => Err(gone(path)),
        }
    }

    /// A file whose bytes change, and that has no other names, is replaced; if its name is not to change anyway, that is a change
    /// of its own.
    fn open_file(&mut self, ino: Ino, changes: &[Change]) -> io::Result<Option<Change>> {
        let Some(path) = self.wanted.path_of(ino)? else { return Ok(None) };
        let Some(found) = self.host.reach(&path, OFlag::O_PATH)? else { return Ok(None) };
        let Some((number, is)) = self.numbered(look(&found)?) else { return Ok(None) };
        if number != ino {
            // Another is there by now, which is found when the name is looked at.
            return Ok(None);
        }
        let is_alone = is.inode.kind == FileKind::Regular && is.inode.nlink == 1;
        let is_wanted = self.wanted.inode(ino)?.is_some_and(|inode| inode.nlink > 0);
        if !(is_alone && is_wanted && self.wanted.has_new_content(ino)?) {
            self.files.insert(ino, found);
            return Ok(None);
        }
        self.rebuilt.insert(ino);
        if changes.iter().any(|change| change.old == Some(ino) || change.wanted == Some(ino)) {
            return Ok(None);
        }
        let Some((name, above)) = path.split_last() else { return Ok(None) };
        let dir = Rc::new(self.host.reach(above, OFlag::O_PATH)?.ok_or_else(|| gone(&path))?);
        let number = self.numbered(look(&dir)?).map_or(Ino::ROOT, |(number, _)| number);
        self.dirs.entry(number).or_insert_with(|| (dir.clone(), above.to_vec()));
        let at = At { dir, name: name.clone() };
        Ok(Some(Change { at, path, dir: number, old: Some(ino), wanted: Some(ino) }))
    }

    /// What an earlier try has left: nobody can say any more whether it was expected.
    fn sweep(&mut self) -> io::Result<()> {
        let prefix = [OWN_PREFIX, format!("{}-", self.plan.number).as_bytes()].concat();
        for (dir, path) in self.dirs.clone().into_values() {
            let open = openat(&dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            let mut left = Vec::new();
            for entry in nix::dir::Dir::from_fd(open)?.iter() {
                let name = entry?.file_name().to_bytes().to_vec();
                if name.starts_with(&prefix) {
                    left.push(name);
                }
            }
            for name in left {
                let path = [&path[..], &[name.clone()]].concat();
                self.displace(&At { dir: dir.clone(), name }, &path)?;
            }
        }
        Ok(())
    }

    /// Takes out what is to be elsewhere, or nowhere.
    fn take_out(&mut self, change: &Change, asked_for: &HashSet<Ino>) -> io::Result<()> {
        let Some((now, _)) = self.numbered(change.at.look()?) else { return Ok(()) };
        if change.wanted == Some(now) {
            self.placed.insert(now, change.at.clone());
            return Ok(());
        }
        let moves = asked_for.contains(&now);
        // With a directory that goes goes what is in it.
        let stays_in = !moves && self.wanted.inode(change.dir)?.is_none_or(|dir| dir.nlink == 0);
        if stays_in || (!moves && change.wanted.is_some()) {
            return Ok(());
        }
        let aside = self.aside(&change.at.dir);
        match change.at.rename(&aside, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::ENOENT) => Ok(()),
            done => {
                done.map_err(|errno| failed(&change.path, errno.into()))?;
                self.came_out(aside, change)
            }
        }
    }

    /// What was taken from a name is compared with what it led to.
    fn came_out(&mut self, aside: At, change: &Change) -> io::Result<()> {
        let Some((number, is)) = self.numbered(aside.look()?) else { return Ok(()) };
        let expected = self.wanted.signature(number)?;
        let is_expected = change.old == Some(number)
            && expected.is_some_and(|expected| expected.is_same_but_moved(&Signature::of(&is.inode)));
        if !is_expected {
            return self.displace(&aside, &change.path);
        }
        let others = is.inode.kind != FileKind::Directory && is.inode.nlink > 1;
        if let Some((before, _)) = self.taken.insert(number, (aside, change.path.clone())) {
            // One more of its names: there are others, so nothing goes with this one.
            debug_assert!(others, "one name only was taken twice");
            unlinkat(&before.dir, before.name(), UnlinkatFlags::NoRemoveDir)?;
        }
        Ok(())
    }

    /// Puts what is wanted at a name.
    fn put_in(&mut self, change: &Change) -> io::Result<()> {
        let Some(wanted) = change.wanted else { return Ok(()) };
        let now = self.numbered(change.at.look()?).map(|(number, _)| number);
        if now == Some(wanted) && !self.rebuilt.contains(&wanted) {
            return Ok(());
        }
        let new = self.aside(&change.at.dir);
        if !self.bring(wanted, &new)? {
            // It has no name any more by a later decision.
            return Ok(());
        }
        self.rebuilt.remove(&wanted);
        loop {
            match new.rename(&change.at, RenameFlags::RENAME_NOREPLACE) {
                Ok(()) => break,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(failed(&change.path, errno.into())),
            }
            match new.rename(&change.at, RenameFlags::RENAME_EXCHANGE) {
                Ok(()) => {
                    self.came_out(new, change)?;
                    break;
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(failed(&change.path, errno.into())),
            }
        }
        // Its name is new, which the host counts as a change of it.
        if let Some(is) = change.at.look()? {
            self.applied.numbers.push((wanted, is));
        }
        self.placed.insert(wanted, change.at.clone());
        Ok(())
    }

    /// Makes a file be at a name that is nobody's: what was taken, another name of what is there, or a new one.
    fn bring(&mut self, ino: Ino, to: &At) -> io::Result<bool> {
        if !self.rebuilt.contains(&ino) {
            if let Some((from, _)) = self.taken.remove(&ino) {
                from.rename(to, RenameFlags::RENAME_NOREPLACE)?;
                return Ok(true);
            }
            let there = match self.placed.get(&ino) {
                Some(at) => at.open()?,
                None => self.files.get(&ino).map(OwnedFd::try_clone).transpose()?,
            };
            if let Some(there) = there {
                let path = PathBuf::from(format!("/proc/self/fd/{}", there.as_raw_fd()));
                linkat(nix::fcntl::AT_FDCWD, &path, &to.dir, to.name(), AtFlags::AT_SYMLINK_FOLLOW)?;
                return Ok(true);
            }
        }
        let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { return Ok(false) };
        build::make(to, &inode, ino, self.wanted)?;
        if inode.kind == FileKind::Directory {
            self.fill(ino, to)?;
        }
        let made = to.open()?.ok_or_else(|| io::Error::other("what was just made is gone"))?;
        build::set_attributes(&made, &inode, &self.wanted.xattrs(ino)?)?;
        if let Some(made) = look(&made)? {
            self.applied.numbers.push((ino, made));
        }
        Ok(true)
    }

    /// A new directory is made whole before it has its name.
    fn fill(&mut self, dir: Ino, at: &At) -> io::Result<()> {
        let open = openat(&at.dir, at.name(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())?;
        let open = Rc::new(open);
        for (name, ino) in self.wanted.names(dir)? {
            let to = At { dir: open.clone(), name };
            if self.bring(ino, &to)? {
                self.placed.insert(ino, to);
            }
        }
        Ok(())
    }

    /// Attributes, and bytes of files that have further names, are changed where they are.
    fn set_files(&mut self) -> io::Result<()> {
        for (ino, found) in std::mem::take(&mut self.files) {
            let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { continue };
            if inode.kind == FileKind::Regular && self.wanted.has_new_content(ino)? {
                build::overwrite(&found, &inode, self.wanted)?;
            }
            build::set_attributes(&found, &inode, &self.wanted.xattrs(ino)?)?;
            if let Some(is) = look(&found)? {
                self.applied.numbers.push((ino, is));
            }
        }
        Ok(())
    }

    /// What is nowhere any more goes, as far as it is what was looked at.
    fn remove_taken(&mut self) -> io::Result<()> {
        for (ino, (at, path)) in std::mem::take(&mut self.taken) {
            self.remove(ino, &at, &path)?;
        }
        Ok(())
    }

    fn remove(&mut self, ino: Ino, at: &At, path: &HostPath) -> io::Result<()> {
        let Some((_, is)) = self.numbered(at.look()?) else { return Ok(()) };
        if is.inode.kind != FileKind::Directory {
            return Ok(unlinkat(&at.dir, at.name(), UnlinkatFlags::NoRemoveDir)?);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = openat(&at.dir, at.name(), flags, Mode::empty())?;
        let inside = Rc::new(open.try_clone()?);
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(open)?.iter() {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        let planned = self.plan.dirs.iter().find(|dir| dir.ino == ino);
        let known: BTreeMap<&[u8], Ino> = planned
            .into_iter()
            .flat_map(|dir| &dir.names)
            .filter_map(|(name, old)| Some((name.as_slice(), (*old)?)))
            .collect();
        for name in names {
            let (old, below) = (known.get(name.as_slice()).copied(), [&path[..], &[name.clone()]].concat());
            let at = At { dir: inside.clone(), name };
            let Some((number, found)) = self.numbered(at.look()?) else { continue };
            let expected = self.wanted.signature(number)?;
            let is_known = expected.is_some_and(|expected| expected.is_same_but_moved(&Signature::of(&found.inode)));
            match old == Some(number) && is_known {
                true => self.remove(number, &at, &below)?,
                false => self.displace(&at, &below)?,
            }
        }
        match unlinkat(&at.dir, at.name(), UnlinkatFlags::RemoveDir) {
            Err(Errno::ENOTEMPTY) => self.displace(at, path),
            done => Ok(done?),
        }
    }

    /// Puts aside what nobody expected there.
    fn displace(&mut self, at: &At, path: &HostPath) -> io::Result<()> {
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
        let moved = renameat2(&at.dir, at.name(), nix::fcntl::AT_FDCWD, &free, RenameFlags::RENAME_NOREPLACE);
        let to = match moved {
            Ok(()) => free.as_os_str().as_bytes().to_vec(),
            // On another filesystem it stays beside where it was, under a name that is to be seen.
            Err(Errno::EXDEV) => {
                let name = path.last().map_or(&b"file"[..], Vec::as_slice);
                let suffix = format!(".displaced-by-mojavefs-{}-{}", self.plan.number, self.next);
                let beside = At { dir: at.dir.clone(), name: [name, suffix.as_bytes()].concat() };
                self.next += 1;
                at.rename(&beside, RenameFlags::RENAME_NOREPLACE)?;
                let above = path.split_last().map_or(&[][..], |(_, above)| above);
                shown(&[above, &[beside.name]].concat())
            }
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(path, errno.into())),
        };
        self.applied.displaced.push(Displaced { from: shown(path), to });
        Ok(())
    }

    /// Directories that were there have the times that they are to have.
    fn set_times(&mut self) -> io::Result<()> {
        for (ino, (dir, _)) in self.dirs.clone() {
            let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { continue };
            if self.plan.dirs.iter().any(|planned| planned.ino == ino) {
                build::set_times(&dir, &inode)?;
            }
        }
        Ok(())
    }
}

/// A path from the host's root, as people write it.
fn shown(path: &[Name]) -> Vec<u8> {
    path.iter().flat_map(|name| [b"/".as_slice(), name]).flatten().copied().collect()
}

fn failed(path: &[Name], error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", shown(path).escape_ascii()))
}

fn gone(path: &[Name]) -> io::Error {
    let text = format!(
        "{} is not what it was any more, so what was changed in it can't be applied",
        shown(path).escape_ascii()
    );
    io::Error::new(io::ErrorKind::NotFound, text)
}

/// Permission bits of what a descriptor stands for.
pub(super) fn set_mode(found: &OwnedFd, mode: u32) -> io::Result<()> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
    let mode = Mode::from_bits_truncate(mode);
    Ok(fchmodat(nix::fcntl::AT_FDCWD, &path, mode, FchmodatFlags::FollowSymlink)?)
}
