//! Where things are by now that were at some path when it was decided: an earlier try may have moved them, or what they lie in.

use super::super::{HostFile, HostPath, PlannedDir, below};
use super::look;
use super::switch::{At, Change, Switch};
use mojavefs::id::Ino;
use mojavefs::protocol::file::Name;
use nix::fcntl::OFlag;
use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// What is at a path.
type Found = (OwnedFd, HostFile, HostPath);

impl Switch<'_> {
    /// Opens what the plan is about, takes up what an earlier try has left there, and finds out which names are to be something else.
    pub(super) fn open_all(&mut self) -> io::Result<Vec<Change>> {
        let mut changes = Vec::new();
        let planned = self.plan.dirs.iter().filter(|(_, dir)| dir.path.is_some());
        let mut dirs: Vec<(Ino, &PlannedDir)> = planned.map(|(ino, dir)| (*ino, dir)).collect();
        // Directories may lie in others that an earlier try has moved: where these are is known once what it has left is taken up.
        loop {
            let before = dirs.len();
            let mut missing = Vec::new();
            for dir in dirs {
                match self.open_dir(dir)? {
                    Some(found) => changes.extend(found),
                    None => missing.push(dir),
                }
            }
            dirs = missing;
            self.sweep()?;
            if dirs.len() == before || dirs.is_empty() {
                break;
            }
        }
        // The host has them elsewhere by now, or not at all.
        for (dir, PlannedDir { path, names }) in dirs {
            for (name, _) in names {
                if let (Some(path), Some(ino)) = (path, self.wanted.entry(dir, name)?) {
                    self.put_aside(ino, &below(path, name))?;
                }
            }
        }
        let mut changed: HashSet<HostPath> = changes.iter().map(|change| change.path.clone()).collect();
        for ino in &self.plan.files {
            let change = self.open_file(*ino, &changed)?;
            changed.extend(change.as_ref().map(|change| change.path.clone()));
            changes.extend(change);
        }
        self.sweep()?;
        Ok(changes)
    }

    /// Opens a directory. The names in it that change; nothing if it is not there.
    fn open_dir(&mut self, (dir, planned): (Ino, &PlannedDir)) -> io::Result<Option<Vec<Change>>> {
        let PlannedDir { path: Some(path), names } = planned else { return Ok(None) };
        let Some((fd, ..)) = self.find(dir, path)? else { return Ok(None) };
        let fd = Rc::new(fd);
        self.dirs.insert(dir, (fd.clone(), path.clone()));
        let change = |(name, old): &(Name, Option<Ino>)| {
            let (at, wanted) = (At { dir: fd.clone(), name: name.clone() }, self.wanted.entry(dir, name)?);
            Ok(Change { at, path: below(path, name), dir, old: *old, wanted })
        };
        names.iter().map(change).collect::<io::Result<_>>().map(Some)
    }

    /// A file that was at a path, and where it is.
    pub(super) fn find(&self, ino: Ino, path: &HostPath) -> io::Result<Option<Found>> {
        let mut places = vec![path.clone()];
        // A file that was taken out itself waits to be put in again.
        let is_dir = self.plan.dirs.contains_key(&ino);
        for (taken, (_, aside)) in self.taken.iter().filter(|(taken, _)| **taken != ino || is_dir) {
            let was = self.wanted.path_of(*taken)?;
            let rest = was.as_ref().and_then(|was| path.strip_prefix(was.as_slice()));
            places.extend(rest.map(|rest| [aside, rest].concat()));
        }
        places.extend(self.wanted.new_path_of(ino)?);
        for place in places {
            if let Some(found) = self.at(place)?
                && self.wanted.number_of(&found.1)? == ino
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The same, or what is at that path instead.
    pub(super) fn find_or_other(&self, ino: Ino, path: &HostPath) -> io::Result<Option<Found>> {
        match self.find(ino, path)? {
            None => self.at(path.clone()),
            found => Ok(found),
        }
    }

    fn at(&self, path: HostPath) -> io::Result<Option<Found>> {
        let Some(found) = self.host.reach(&path, OFlag::O_PATH)? else { return Ok(None) };
        Ok(look(&found)?.map(|is| (found, is, path)))
    }
}
