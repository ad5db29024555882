//! Making the host what is wanted. New files are made beside their names first; once they are on disk, each is put at its name in one
//! step, and whatever comes out is compared with what was expected before it goes. What was not expected is put aside, never removed.

use super::super::{Applied, HostFile, HostPath, OWN_PREFIX, Plan, Signature, Wanted, below};
use super::durable::Unsynced;
use super::{Host, build, look};
use crate::limits::NAME_TRIES_MAX;
use mojavefs::id::Ino;
use mojavefs::protocol::file::{FileKind, Name};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
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

    pub(super) fn look(&self) -> io::Result<Option<HostFile>> {
        self.open()?.map_or(Ok(None), |found| look(&found))
    }

    pub(super) fn rename(&self, to: &At, flags: RenameFlags) -> nix::Result<()> {
        renameat2(&self.dir, self.name(), &to.dir, to.name(), flags)
    }

    /// The names in the directory that is there.
    pub(super) fn names(&self) -> io::Result<(Rc<OwnedFd>, Vec<Name>)> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let open = openat(&self.dir, self.name(), flags, Mode::empty())?;
        let inside = Rc::new(open.try_clone()?);
        Ok((inside, names_in(open)?))
    }

    pub(super) fn unlink(&self, how: UnlinkatFlags) -> nix::Result<()> {
        unlinkat(&self.dir, self.name(), how)
    }
}

fn names_in(open: OwnedFd) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in nix::dir::Dir::from_fd(open)?.iter() {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// A name that is to be something else.
pub(super) struct Change {
    pub(super) at: At,
    /// For people, and where it is put if it is in the way.
    pub(super) path: HostPath,
    pub(super) dir: Ino,
    pub(super) old: Option<Ino>,
    pub(super) wanted: Option<Ino>,
}

pub(super) struct Switch<'a> {
    pub(super) host: &'a Host,
    pub(super) plan: &'a Plan,
    pub(super) wanted: &'a dyn Wanted,
    /// Directories that the host has, open since before anything was moved.
    pub(super) dirs: HashMap<Ino, (Rc<OwnedFd>, HostPath)>,
    /// Files whose attributes or bytes change, the same.
    files: HashMap<Ino, OwnedFd>,
    /// What was taken out and not put in again.
    pub(super) taken: HashMap<Ino, (At, HostPath)>,
    /// Where what is there already, or was put there, has a name.
    placed: HashMap<Ino, At>,
    /// Files of the host's in whose place a new one is put, for its bytes.
    rebuilt: HashSet<Ino>,
    /// What was made by this apply, also before it was interrupted, and what the host calls it.
    built: HashMap<Ino, Ino>,
    /// What was made and has no name yet but one that is ours.
    staged: HashMap<Ino, At>,
    /// Directories in which nothing of an earlier try is left.
    swept: HashSet<Ino>,
    next: u64,
    pub(super) unsynced: Unsynced,
    pub(super) applied: Applied,
}

impl<'a> Switch<'a> {
    pub(super) fn new(host: &'a Host, plan: &'a Plan, wanted: &'a dyn Wanted) -> Self {
        let (dirs, files, taken, placed) = (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
        let (rebuilt, built, staged, swept) = (HashSet::new(), HashMap::new(), HashMap::new(), HashSet::new());
        let (next, unsynced, applied) = (0, Unsynced::default(), Applied::default());
        Switch {
            host,
            plan,
            wanted,
            dirs,
            files,
            taken,
            placed,
            rebuilt,
            built,
            staged,
            swept,
            next,
            unsynced,
            applied,
        }
    }

    pub(super) fn run(mut self) -> io::Result<Applied> {
        self.built = self.host.numbers.built_by(self.plan.number);
        let mut changes = self.open_all()?;
        self.forget_what_is_gone(&changes)?;
        self.find_moved(&changes)?;
        if let Err(error) = self.stage_all(&changes) {
            // Nothing was changed yet.
            for at in std::mem::take(&mut self.staged).into_values() {
                self.dismantle(&at, (&at.dir, &[]))?;
            }
            return Err(error);
        }
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
        for (ino, (at, path)) in std::mem::take(&mut self.taken) {
            self.remove(ino, &at, &path)?;
        }
        self.set_times()?;
        self.sync_all()?;
        Ok(self.applied)
    }

    pub(super) fn numbered(&self, found: Option<HostFile>) -> io::Result<Option<(Ino, HostFile)>> {
        found.map(|found| Ok((self.wanted.number_of(&found)?, found))).transpose()
    }

    /// The name of what was made and is not noted yet.
    fn new_name(&self) -> Name {
        [OWN_PREFIX, format!("new-{}-{}", self.plan.number, nix::unistd::geteuid()).as_bytes()].concat()
    }

    /// A name for what is nobody's yet, in a directory.
    pub(super) fn aside(&mut self, dir: &Rc<OwnedFd>) -> io::Result<At> {
        loop {
            self.next += 1;
            let name = format!("{}-{}", self.plan.number, self.next);
            let at = At { dir: dir.clone(), name: [OWN_PREFIX, name.as_bytes()].concat() };
            // An earlier try may have left something.
            if at.open()?.is_none() {
                return Ok(at);
            }
        }
    }

    /// A file whose bytes change, and that has no other names, is replaced; if its name is not to change anyway, that is a change
    /// of its own.
    pub(super) fn open_file(&mut self, ino: Ino, changed: &HashSet<HostPath>) -> io::Result<Option<Change>> {
        let Some(path) = self.wanted.path_of(ino)? else { return Ok(None) };
        let is_wanted = self.wanted.inode(ino)?.is_some_and(|inode| inode.nlink > 0);
        let has_new_content = is_wanted && self.wanted.has_new_content(ino)?;
        let is_changed_by_name = changed.contains(&path);
        let Some((found, is, place)) = self.find_or_other(ino, &path)? else {
            if has_new_content && !is_changed_by_name {
                self.put_aside(ino, &path)?;
            }
            return Ok(None);
        };
        let number = self.wanted.number_of(&is)?;
        if number == ino && !(has_new_content && is.inode.kind == FileKind::Regular && is.inode.nlink == 1) {
            self.files.insert(ino, found);
            return Ok(None);
        }
        if !has_new_content {
            // Another is there by now, and of this one nothing is to be kept.
            return Ok(None);
        }
        self.rebuilt.insert(ino);
        if is_changed_by_name {
            return Ok(None);
        }
        let Some((name, above)) = place.split_last() else { return Ok(None) };
        let Some(dir) = self.host.reach(above, OFlag::O_PATH)?.map(Rc::new) else { return Ok(None) };
        let number = self.numbered(look(&dir)?)?.map_or(Ino::ROOT, |(number, _)| number);
        self.dirs.entry(number).or_insert_with(|| (dir.clone(), above.to_vec()));
        let at = At { dir, name: name.clone() };
        Ok(Some(Change { at, path, dir: number, old: Some(ino), wanted: Some(ino) }))
    }

    /// What an earlier try has left: what it had made goes, what it had taken out is taken out.
    pub(super) fn sweep(&mut self) -> io::Result<()> {
        let prefix = [OWN_PREFIX, format!("{}-", self.plan.number).as_bytes()].concat();
        for (number, (dir, path)) in self.dirs.clone() {
            if !self.swept.insert(number) {
                continue;
            }
            let open = openat(&dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            let names = names_in(open)?;
            let new = self.new_name();
            for name in names.into_iter().filter(|name| name.starts_with(&prefix) || *name == new) {
                let path = below(&path, &name);
                self.take_up(At { dir: dir.clone(), name }, path)?;
            }
        }
        Ok(())
    }

    /// Of what an earlier try had made only that counts which has its name.
    fn forget_what_is_gone(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.built.is_empty() {
            return Ok(());
        }
        let found = changes.iter().map(|change| Ok(change.at.look()?.map(|is| is.ino)));
        let found = found.collect::<io::Result<HashSet<_>>>()?;
        self.built.retain(|_, host| found.contains(&Some(*host)));
        Ok(())
    }

    /// Files whose attributes or bytes change, and that an earlier try had taken from where they were.
    fn find_moved(&mut self, changes: &[Change]) -> io::Result<()> {
        let mut places = HashMap::<Ino, Vec<&At>>::new();
        for change in changes {
            change.wanted.into_iter().for_each(|wanted| places.entry(wanted).or_default().push(&change.at));
        }
        for ino in &self.plan.files {
            let is_wanted = self.wanted.inode(*ino)?.is_some_and(|inode| inode.nlink > 0);
            let is_made = self.rebuilt.contains(ino) || self.built.contains_key(ino);
            if !is_wanted || self.files.contains_key(ino) || is_made {
                continue;
            }
            let mut at = self.taken.get(ino).map(|(at, _)| at.clone());
            for place in places.remove(ino).unwrap_or_default() {
                if at.is_none() && self.numbered(place.look()?)?.is_some_and(|(number, _)| number == *ino) {
                    at = Some(place.clone());
                }
            }
            let Some(at) = at else { continue };
            let is_alone = at.look()?.is_some_and(|is| is.inode.kind == FileKind::Regular && is.inode.nlink == 1);
            if is_alone && self.wanted.has_new_content(*ino)? {
                self.rebuilt.insert(*ino);
            } else if let Some(open) = at.open()? {
                self.files.insert(*ino, open);
            }
        }
        Ok(())
    }

    /// Something that lies under a name of ours.
    fn take_up(&mut self, at: At, path: HostPath) -> io::Result<()> {
        let Some((number, is)) = self.numbered(at.look()?)? else { return Ok(()) };
        if self.is_own(&at, &is) {
            let above = path.split_last().map_or(&[][..], |(_, above)| above);
            return self.dismantle(&at, (&at.dir, above));
        }
        match self.is_as_expected(number, &is)? {
            true => self.is_taken(number, at, path, &is),
            false => self.displace(&at, &path),
        }
    }

    /// Whether something was made by this apply.
    fn is_own(&self, at: &At, is: &HostFile) -> bool {
        at.name == self.new_name() || self.host.numbers.knows(self.plan.number, is)
    }

    /// Takes apart what was made. What was put into it and was there before is taken out again, to `top`.
    fn dismantle(&mut self, at: &At, top: (&Rc<OwnedFd>, &[Name])) -> io::Result<()> {
        let Some(is) = at.look()? else { return Ok(()) };
        if is.inode.kind == FileKind::Directory || is.inode.nlink == 1 {
            self.built.retain(|_, host| *host != is.ino);
        }
        if is.inode.kind != FileKind::Directory {
            return Ok(at.unlink(UnlinkatFlags::NoRemoveDir)?);
        }
        let (inside, names) = at.names()?;
        for name in names {
            let inner = At { dir: inside.clone(), name };
            let Some(found) = inner.look()? else { continue };
            match self.is_own(&inner, &found) {
                true => self.dismantle(&inner, top)?,
                false => {
                    let out = self.aside(top.0)?;
                    inner.rename(&out, RenameFlags::RENAME_NOREPLACE)?;
                    let path = below(top.1, &out.name);
                    self.take_up(out, path)?;
                }
            }
        }
        Ok(at.unlink(UnlinkatFlags::RemoveDir)?)
    }

    /// Makes everything that is new, so that all of it is there before anything is changed.
    fn stage_all(&mut self, changes: &[Change]) -> io::Result<()> {
        for change in changes {
            let Some(wanted) = change.wanted else { continue };
            if self.is_new(wanted)? && !self.is_there(change)? {
                let at = self.aside(&change.at.dir)?;
                self.stage(wanted, &at).map_err(|error| failed(&change.path, error))?;
                self.unsynced.add_dir(&at.dir);
            }
        }
        if self.staged.is_empty() {
            return Ok(());
        }
        self.host.numbers.sync()?;
        self.sync_made()
    }

    /// Whether a file is to be made: the host does not have it, or not with these bytes.
    fn is_new(&self, ino: Ino) -> io::Result<bool> {
        let is_made = self.built.contains_key(&ino) || self.staged.contains_key(&ino);
        Ok(!is_made && (self.rebuilt.contains(&ino) || self.wanted.path_of(ino)?.is_none()))
    }

    fn stage(&mut self, ino: Ino, at: &At) -> io::Result<()> {
        let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { return Ok(()) };
        self.staged.insert(ino, at.clone());
        // Before it is noted, it has a name that nothing else ever has.
        let new = At { dir: at.dir.clone(), name: self.new_name() };
        build::make(&new, &inode)?;
        if let Some(made) = new.look()? {
            self.host.numbers.made(self.plan.number, ino, &made)?;
        }
        new.rename(at, RenameFlags::RENAME_NOREPLACE)?;
        build::write(at, &inode, self.wanted)?;
        if inode.kind == FileKind::Directory {
            let open = Rc::new(openat(&at.dir, at.name(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?);
            for (name, child) in self.wanted.names(ino)? {
                if self.is_new(child)? {
                    self.stage(child, &At { dir: open.clone(), name })?;
                }
            }
        }
        let made = at.open()?.ok_or_else(|| io::Error::other("what was just made is gone"))?;
        build::set_attributes(&made, &inode, &self.wanted.xattrs(ino)?)?;
        if let Some(made) = look(&made)? {
            self.built.insert(ino, made.ino);
        }
        // One that is no file or directory is on disk with the name that leads to it.
        if matches!(inode.kind, FileKind::Regular | FileKind::Directory) {
            self.unsynced.add(&made, inode.kind);
        }
        Ok(())
    }

    /// Whether a name leads to what it is to lead to.
    fn is_there(&self, change: &Change) -> io::Result<bool> {
        let Some(wanted) = change.wanted else { return Ok(false) };
        Ok(self.numbered(change.at.look()?)?.is_some_and(|(number, is)| match self.built.get(&wanted) {
            Some(built) => is.ino == *built,
            None => number == wanted && !self.rebuilt.contains(&wanted),
        }))
    }

    /// Takes out what is to be elsewhere, or nowhere.
    fn take_out(&mut self, change: &Change, asked_for: &HashSet<Ino>) -> io::Result<()> {
        if self.is_there(change)? {
            self.placed.extend(change.wanted.map(|wanted| (wanted, change.at.clone())));
            return Ok(());
        }
        let Some((now, _)) = self.numbered(change.at.look()?)? else { return Ok(()) };
        let moves = asked_for.contains(&now) && !self.rebuilt.contains(&now);
        // With a directory that goes goes what is in it.
        let stays_in = !moves && self.wanted.inode(change.dir)?.is_none_or(|dir| dir.nlink == 0);
        if stays_in || (!moves && change.wanted.is_some()) {
            return Ok(());
        }
        let aside = self.aside(&change.at.dir)?;
        match change.at.rename(&aside, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::ENOENT) => Ok(()),
            done => {
                done.map_err(|errno| failed(&change.path, errno.into()))?;
                self.came_out(aside, change)
            }
        }
    }

    /// Whether a file is what was looked at, or what this apply has made of it already.
    pub(super) fn is_as_expected(&self, number: Ino, is: &HostFile) -> io::Result<bool> {
        let is = Signature::of(&is.inode);
        if self.wanted.signature(number)?.is_some_and(|expected| expected.is_same_but_moved(&is)) {
            return Ok(true);
        }
        let wanted = self.wanted.inode(number)?.filter(|inode| inode.nlink > 0);
        Ok(wanted.is_some_and(|wanted| Signature::of(&wanted).is_same_but_moved(&is)))
    }

    /// What was taken from a name is compared with what it led to.
    fn came_out(&mut self, aside: At, change: &Change) -> io::Result<()> {
        let Some((number, is)) = self.numbered(aside.look()?)? else { return Ok(()) };
        match change.old == Some(number) && self.is_as_expected(number, &is)? {
            true => self.is_taken(number, aside, change.path.clone(), &is),
            false => self.displace(&aside, &change.path),
        }
    }

    fn is_taken(&mut self, number: Ino, at: At, path: HostPath, is: &HostFile) -> io::Result<()> {
        let has_more = is.inode.kind != FileKind::Directory && is.inode.nlink > 1;
        match self.taken.contains_key(&number) && has_more {
            // One more of its names: nothing goes with this one.
            true => Ok(at.unlink(UnlinkatFlags::NoRemoveDir)?),
            false => {
                self.taken.insert(number, (at, path));
                Ok(())
            }
        }
    }

    /// Puts what is wanted at a name.
    fn put_in(&mut self, change: &Change) -> io::Result<()> {
        let Some(wanted) = change.wanted else { return Ok(()) };
        if self.is_there(change)? {
            return Ok(());
        }
        let Some(new) = self.bring(wanted, &change.at.dir)? else {
            // Somebody has removed it, or moved it elsewhere, after this was decided.
            if self.wanted.path_of(wanted)?.is_some() && !self.wanted.has_new_content(wanted)? {
                return Ok(());
            }
            let text = "what is to be there is neither on the host nor made";
            return Err(failed(&change.path, io::Error::other(text)));
        };
        if exchange(&new, &change.at).map_err(|error| failed(&change.path, error))? {
            self.came_out(new, change)?;
        }
        // Its name is new, which the host counts as a change of it.
        self.is_placed(wanted, change.at.clone())
    }

    fn is_placed(&mut self, ino: Ino, at: At) -> io::Result<()> {
        if let Some(is) = at.look()? {
            self.applied.numbers.push((ino, is));
        }
        self.placed.insert(ino, at);
        Ok(())
    }

    /// A name of ours, in this directory, for what is to have another one: what was made, or taken out, or one more of what is there.
    fn bring(&mut self, ino: Ino, dir: &Rc<OwnedFd>) -> io::Result<Option<At>> {
        if let Some(at) = self.staged.remove(&ino) {
            self.fill(ino, &at)?;
            return Ok(Some(at));
        }
        let is_made = self.rebuilt.contains(&ino) || self.built.contains_key(&ino);
        if !is_made && let Some((at, _)) = self.taken.remove(&ino) {
            // As it is to be before it has its name: nobody finds it there to go on with.
            if let Some(found) = self.files.remove(&ino) {
                self.set_file(ino, &found)?;
            }
            return Ok(Some(at));
        }
        let there = match self.placed.get(&ino) {
            Some(at) => at.open()?,
            None => self.files.get(&ino).map(OwnedFd::try_clone).transpose()?,
        };
        let Some(there) = there else { return Ok(None) };
        let to = self.aside(dir)?;
        let path = PathBuf::from(format!("/proc/self/fd/{}", there.as_raw_fd()));
        match linkat(nix::fcntl::AT_FDCWD, &path, &to.dir, to.name(), AtFlags::AT_SYMLINK_FOLLOW) {
            // Somebody has removed all its names.
            Err(Errno::ENOENT) => Ok(None),
            done => Ok(done.map(|()| Some(to))?),
        }
    }

    /// A new directory is whole before it has its name: what was there before is put into it.
    fn fill(&mut self, ino: Ino, at: &At) -> io::Result<()> {
        let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.kind == FileKind::Directory) else {
            return Ok(());
        };
        let open = Rc::new(openat(&at.dir, at.name(), OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty())?);
        for (name, child) in self.wanted.names(ino)? {
            let to = At { dir: open.clone(), name };
            match self.staged.remove(&child) {
                Some(staged) if staged.name == to.name => self.fill(child, &staged)?,
                Some(staged) => {
                    // It has several names.
                    self.staged.insert(child, staged);
                }
                None => {}
            }
            if to.open()?.is_none()
                && let Some(from) = self.bring(child, &open)?
            {
                from.rename(&to, RenameFlags::RENAME_NOREPLACE)?;
            }
            self.is_placed(child, to)?;
        }
        self.unsynced.add_dir(&open);
        build::set_times(&open, &inode)
    }

    /// Attributes, and bytes of files that have further names, are changed where they are.
    fn set_files(&mut self) -> io::Result<()> {
        for (ino, found) in std::mem::take(&mut self.files) {
            self.set_file(ino, &found)?;
        }
        Ok(())
    }

    fn set_file(&mut self, ino: Ino, found: &OwnedFd) -> io::Result<()> {
        let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { return Ok(()) };
        let inode = if inode.kind == FileKind::Regular && self.wanted.has_new_content(ino)? {
            self.keep_unexpected(ino, found)?;
            build::overwrite(found, &inode, self.wanted)?;
            inode
        } else {
            self.keep_times(found, inode)?
        };
        build::set_attributes(found, &inode, &self.wanted.xattrs(ino)?)?;
        if let Some(is) = look(found)? {
            self.applied.numbers.push((ino, is));
        }
        self.unsynced.add(found, inode.kind);
        Ok(())
    }

    /// Directories that were there have the times that they are to have.
    fn set_times(&mut self) -> io::Result<()> {
        for (ino, (dir, _)) in self.dirs.clone() {
            let Some(inode) = self.wanted.inode(ino)?.filter(|inode| inode.nlink > 0) else { continue };
            if self.plan.dirs.contains_key(&ino) {
                build::set_times(&dir, &inode)?;
            }
        }
        Ok(())
    }
}

/// Puts what is at `new` at `at`, in one step. Whether something was there, which is at `new` now.
fn exchange(new: &At, at: &At) -> io::Result<bool> {
    for _ in 0..NAME_TRIES_MAX {
        match new.rename(at, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EEXIST) => {}
            done => return Ok(done.map(|()| false)?),
        }
        match new.rename(at, RenameFlags::RENAME_EXCHANGE) {
            Err(Errno::ENOENT) => {}
            done => return Ok(done.map(|()| true)?),
        }
    }
    Err(io::Error::other("somebody makes and removes it all the time"))
}

/// A path from the host's root, as people write it.
pub(super) fn shown(path: &[Name]) -> Vec<u8> {
    path.iter().flat_map(|name| [b"/".as_slice(), name]).flatten().copied().collect()
}

pub(super) fn failed(path: &[Name], error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", shown(path).escape_ascii()))
}
