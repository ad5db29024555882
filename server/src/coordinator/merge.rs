//! Committing in spite of conflicts, once the owner has said whose version stands.
//!
//! What the speculation changed is done again, path by path, on what is final now, as a new speculation that is then
//! committed: where the other version shall stand, it is left out. So names, links and counts are right by construction,
//! and no file mixes two histories. Takes time in proportion to what was changed.

use super::abort::Records;
use super::conflicts::Standing;
use super::decide::list;
use super::paths::{NAME, is_lost};
use super::{Aftermath, Beginning, Coordinator, fault};
use crate::access::AccessKey;
use crate::ops::{NewFile, Ops, Scope, SetIds};
use crate::store::Sight;
use crate::telling::Telling;
use mojavefs::graph::{self, Event};
use mojavefs::id::{Ino, Seq, SpecId};
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind, SetAttr, SetTime};
use mojavefs::protocol::{
    Change, ChangeKind, Conflict, OnRead, Outcome, RenameMode, Resolution, SeekWhence, SpecState, XattrMode,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Where moved things wait until all names are free, below the root.
const WAITING: &str = ".mojavefs-moving-";

/// What the owner said of paths.
struct Choice<'a>(&'a [Resolution]);

impl Choice<'_> {
    /// Whether the speculation's version stands; nothing if the owner did not say. The longest path decides.
    fn ours(&self, path: &[u8]) -> Option<bool> {
        let said = self.0.iter().filter_map(|resolution| {
            let (above, ours) = match resolution {
                Resolution::Ours(above) => (above, true),
                Resolution::Theirs(above) => (above, false),
            };
            is_below(path, above).then_some((above.len(), ours))
        });
        said.max_by_key(|(length, _)| *length).map(|(_, ours)| ours)
    }
}

/// What the owner left to others.
struct Left<'a> {
    choice: &'a Choice<'a>,
    /// Not every conflict is known: what was said of a path counts for all of it.
    blindly: bool,
    /// Names whose other version stands, and with it all that is below.
    names: Vec<&'a [u8]>,
    /// Things of which the other version stands.
    things: Vec<&'a [u8]>,
}

impl<'a> Left<'a> {
    fn new(choice: &'a Choice<'a>, conflicts: &'a [Conflict], blindly: bool) -> Self {
        let left = |conflict: &&Conflict| conflict.changed && choice.ours(&conflict.path) == Some(false);
        let (names, things): (Vec<_>, Vec<_>) =
            conflicts.iter().filter(left).partition(|conflict| conflict.what == NAME);
        let paths = |of: Vec<&'a Conflict>| of.into_iter().map(|conflict| &conflict.path[..]).collect();
        Left { choice, blindly, names: paths(names), things: paths(things) }
    }

    /// Whether a change is done again.
    fn keeps(&self, change: &Change) -> bool {
        // What lies in a directory that is gone has no path of its own to be in conflict by.
        if self.blindly || is_lost(&change.path) {
            return self.choice.ours(&change.path) != Some(false);
        }
        let from = match &change.kind {
            ChangeKind::Renamed { from, .. } => &from[..],
            _ => &change.path[..],
        };
        let is_left = |path: &[u8]| self.names.iter().any(|name| is_below(path, name)) || self.things.contains(&path);
        let is_directory = change.after.as_ref().is_some_and(|after| after.kind == FileKind::Directory);
        // Without the directory there would be no place for what others have there.
        let is_around = |left: &&[u8]| *left != change.path && is_below(left, &change.path);
        let in_the_way = !is_directory && self.names.iter().chain(&self.things).any(is_around);
        !is_left(&change.path) && !is_left(from) && !in_the_way
    }
}

/// Whether `path` is `above` or lies below it; everything lies below the root.
fn is_below(path: &[u8], above: &[u8]) -> bool {
    match path.strip_prefix(above) {
        Some(rest) => above.is_empty() || rest.is_empty() || rest[0] == b'/',
        None => false,
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn missing(fault: &Fault) -> bool {
    matches!(fault.kind, FaultKind::NotFound | FaultKind::NotDirectory)
}

impl Coordinator {
    /// Commits with the owner's word on every conflict; refused while one is left without.
    pub(super) fn commit_resolved(
        &self,
        (spec, uid): (SpecId, u32),
        resolutions: &[Resolution],
        telling: &mut Telling<'_>,
    ) -> Result<(Outcome, Aftermath), Fault> {
        let choice = Choice(resolutions);
        let changes = self.changes_of(spec, uid)?;
        let (info, parent, count, conflicts, state, waits, parts, marks_modified) = {
            let state = self.state.lock();
            let job = state.job(spec, uid)?;
            let standing = self.conflicts.of(job.context);
            let waits = state.open_under(job);
            let (info, parts) = (job.info.clone(), job.parts.clone());
            let outer = state.taken_in_by(spec).map(|outer| state.jobs[&outer].context);
            (info, outer, state.changes(job, &self.store), standing, job.state, waits, parts, job.marks_modified)
        };
        if parent.is_none() && !waits.is_empty() {
            let text = format!("speculation {spec} depends on {}: decide that first", list(&waits));
            return Err(Fault::new(FaultKind::Busy, text));
        }
        let ring = changes.ring.clone();
        let changes = changes.of_the_ring();
        let named = self.named(&changes.after, &conflicts);
        let open: Vec<Conflict> = named.iter().filter(|c| choice.ours(&c.path).is_none()).cloned().collect();
        if !open.is_empty() || conflicts.more > 0 && choice.ours(b"").is_none() {
            let outcome =
                Outcome { conflicts: open, conflicts_more: conflicts.more, ..Outcome::of(spec, state, count) };
            return Ok((outcome, Aftermath::default()));
        }
        let left = Left::new(&choice, &named, conflicts.more > 0);
        let mut all = changes.all(&self.store).map_err(fault::store)?;
        all.retain(|change| left.keeps(change));
        if let Some(change) = all.iter().find(|change| is_lost(&change.path)) {
            let path = String::from_utf8_lossy(&change.path);
            let text = format!("`{path}` is in a directory that is gone: keep theirs, or run the job again");
            return Err(Fault::new(FaultKind::Conflict, text));
        }
        self.refuse_mixed(&changes.after, &conflicts, &choice)?;
        let (again, _, scope) = self.begin(parent, Beginning::job(info, OnRead::Isolate))?;
        if let Some(again) = self.state.lock().jobs.get_mut(&again) {
            // Whoever asks for the one finds that the other is committed.
            again.parts.insert(spec);
            again.parts.extend(&parts);
            again.replaces = Some(spec);
            again.marks_modified = marks_modified;
        }
        // Nothing that is done again conflicts with itself; what others do meanwhile is noticed as ever.
        let replay = Replay { ops: &self.ops, from: &changes.after, to: &scope, links: HashMap::new() };
        let committed = replay.run(all).and_then(|()| self.commit(again, 0, &[], telling));
        let (outcome, mut aftermath) = committed.inspect_err(|_| self.give_up(again, telling))?;
        if !matches!(outcome.state, SpecState::Committed | SpecState::Voted) {
            self.give_up(again, telling);
            return Ok((Outcome { spec, state, ..outcome }, Aftermath::default()));
        }
        let undone = self.replace(spec, &ring, again, telling)?;
        let fallen = undone.fallen_with(spec).into_iter().filter(|fallen| !ring.contains(fallen)).collect();
        aftermath.jobs.extend(undone.jobs);
        aftermath.undone.extend(undone.undone);
        Ok((Outcome { spec, undone: fallen, ..outcome }, aftermath))
    }
}

impl Coordinator {
    /// Undoes what was to be committed in the place of another. Somebody may have joined it meanwhile.
    fn give_up(&self, again: SpecId, telling: &mut Telling<'_>) {
        match self.abort(again, None, telling) {
            Ok((_, aftermath)) => self.state.lock().outstanding.push(aftermath),
            Err(fault) => tracing::error!("undoing what was to settle conflicts, speculation {again}: {fault}"),
        }
    }

    /// Undoes a speculation, and the ring that falls with it, in whose place another is committed. Blocks for the disk if it is held
    /// still.
    fn replace(
        &self,
        spec: SpecId,
        ring: &[SpecId],
        again: SpecId,
        telling: &mut Telling<'_>,
    ) -> Result<Aftermath, Fault> {
        {
            let _exclusive = self.decisions.write();
            let mut state = self.state.lock();
            // Whoever hears that it is over asks how.
            ring.iter().for_each(|spec| state.note_settled(*spec, again));
            // Somebody may have undone it meanwhile; what is committed in its place is committed.
            let Some(owner) = state.jobs.get(&spec).map(|job| job.owner()) else { return Ok(Aftermath::default()) };
            if let Some(graph::Outcome::Committed) = state.graph.outcome(again) {
                // It is held no more by the same record by which the other is committed.
                let abort = Event::Abort { owner, spec, code: 1, retry: false };
                return self.carry_out(&mut state, &abort, Records::Stay);
            }
        }
        match self.beside_rounds(|| self.abort(spec, None, telling)) {
            Ok((_, aftermath)) => Ok(aftermath),
            Err(fault) if fault.kind == FaultKind::Decided => Ok(Aftermath::default()),
            Err(fault) => Err(fault),
        }
    }

    /// A job that follows what becomes final sees others' changes to a large file in the midst of its own: its version of it
    /// is no version to keep, as two histories would be mixed in one file.
    fn refuse_mixed(&self, sight: &Sight, standing: &Standing, choice: &Choice<'_>) -> Result<(), Fault> {
        if sight.snapshot != Seq::NOW {
            return Ok(());
        }
        for (key, _) in standing.clashes.iter().filter(|(_, changed)| **changed) {
            let AccessKey::Inode(ino) = key else { continue };
            let inode = self.store.inode(sight, *ino).map_err(fault::store)?.found.filter(|inode| inode.nlink > 0);
            let (path, _) = self.named_key(sight, key);
            if inode.is_some_and(|inode| !inode.is_small()) && choice.ours(&path) != Some(false) {
                let path = String::from_utf8_lossy(&path);
                let text = format!(
                    "`{path}` was changed by both in place: keep theirs, or run the job again (with --isolate ours can be kept)"
                );
                return Err(Fault::new(FaultKind::Conflict, text));
            }
        }
        Ok(())
    }
}

/// One speculation's changes on their way into another.
struct Replay<'a> {
    ops: &'a Ops,
    from: &'a Sight,
    to: &'a Scope,
    /// Files that were made anew, for their further names.
    links: HashMap<Ino, Ino>,
}

impl Replay<'_> {
    fn run(mut self, mut all: Vec<Change>) -> Result<(), Fault> {
        all.sort_by(|a, b| a.path.cmp(&b.path));
        let moved = self.set_aside(&all)?;
        // Contents before the directories that hold them.
        for change in all.iter().rev().filter(|change| change.kind == ChangeKind::Removed) {
            self.remove(&change.path)?;
        }
        for change in &all {
            match &change.kind {
                ChangeKind::Removed => {}
                ChangeKind::Renamed { modified, .. } => self.place(change, moved.get(&change.path[..]), *modified)?,
                ChangeKind::Added | ChangeKind::Modified => self.put(change)?,
                ChangeKind::Attributes => {
                    let ino = self.find(&change.path)?;
                    self.attributes(ino, change)?;
                }
            }
        }
        for change in all.iter().rev() {
            self.directory_times(change)?;
        }
        Ok(())
    }

    fn source(&self) -> Scope {
        Scope { sight: self.from.clone(), accesses: None, over: Arc::default() }
    }

    fn find_in(&self, scope: &Scope, path: &[u8]) -> Result<Ino, Fault> {
        let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        let mut at = Ino::ROOT;
        for name in names {
            at = self.ops.lookup(scope, at, name)?.ino;
        }
        Ok(at)
    }

    fn find(&self, path: &[u8]) -> Result<Ino, Fault> {
        self.find_in(self.to, path)
    }

    /// Takes what was renamed out of the way, so that names can be swapped. Returns where each waits, by its new path.
    fn set_aside<'c>(&mut self, all: &'c [Change]) -> Result<HashMap<&'c [u8], Vec<u8>>, Fault> {
        let mut moved = HashMap::new();
        for (number, change) in all.iter().enumerate().rev() {
            let ChangeKind::Renamed { from, .. } = &change.kind else { continue };
            let (dir, name) = split(from);
            let waiting = format!("{WAITING}{number}").into_bytes();
            let renamed = self.find(dir).and_then(|dir| {
                self.ops.rename(self.to, (dir, name), (Ino::ROOT, &waiting), RenameMode::NoReplace, (0, 0))
            });
            match renamed {
                Ok(_) => drop(moved.insert(&change.path[..], waiting)),
                // Somebody removed it meanwhile: it is made anew.
                Err(fault) if missing(&fault) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(moved)
    }

    /// Removes whatever is at a path.
    fn remove(&self, path: &[u8]) -> Result<(), Fault> {
        let (dir, name) = split(path);
        let found = self.find(dir).and_then(|dir| Ok((dir, self.ops.lookup(self.to, dir, name)?)));
        let (dir, attr) = match found {
            Err(fault) if missing(&fault) => return Ok(()),
            found => found?,
        };
        if attr.kind != FileKind::Directory {
            return self.ops.unlink(self.to, dir, name).map(drop);
        }
        loop {
            let (entries, _) = self.ops.read_dir(self.to, attr.ino, None, 1)?;
            match entries.first() {
                Some(entry) => self.remove(&super::paths::join(path, &entry.name))?,
                None => return self.ops.remove_dir(self.to, dir, name).map(drop),
            }
        }
    }

    /// Puts something renamed where it belongs.
    fn place(&mut self, change: &Change, waiting: Option<&Vec<u8>>, modified: bool) -> Result<(), Fault> {
        let Some(waiting) = waiting else { return self.put(change) };
        self.clear(&change.path, change.after.as_ref())?;
        let (dir, name) = split(&change.path);
        let dir = self.make_dirs(dir)?;
        self.ops.rename(self.to, (Ino::ROOT, waiting), (dir, name), RenameMode::Replace, (0, 0))?;
        let ino = self.find(&change.path)?;
        if modified {
            self.content(change, ino)?;
        }
        self.attributes(ino, change)
    }

    /// Makes room: whatever is there and can't become the new version goes.
    fn clear(&self, path: &[u8], after: Option<&Attr>) -> Result<(), Fault> {
        let there = match self.find(path) {
            Err(fault) if missing(&fault) => return Ok(()),
            there => self.ops.get_attr(self.to, there?)?,
        };
        match after.is_some_and(|after| after.kind == FileKind::Directory && there.kind == after.kind) {
            true => Ok(()),
            false => self.remove(path),
        }
    }

    /// Makes the speculation's version of a path anew.
    fn put(&mut self, change: &Change) -> Result<(), Fault> {
        let Some(after) = &change.after else { return Ok(()) };
        let (dir, name) = split(&change.path);
        let dir = self.make_dirs(dir)?;
        let there = match self.ops.lookup(self.to, dir, name) {
            Err(fault) if missing(&fault) => None,
            there => Some(there?),
        };
        let same = there.filter(|there| there.ino == after.ino || (there.kind, after.kind) == BOTH_DIRECTORIES);
        let ino = match same {
            Some(there) => there.ino,
            None => {
                self.clear(&change.path, None)?;
                if let Some(made) = self.links.get(&after.ino) {
                    self.ops.link(self.to, *made, dir, name)?;
                    return Ok(());
                }
                self.make(dir, name, after)?
            }
        };
        self.links.insert(after.ino, ino);
        self.content(change, ino)?;
        self.attributes(ino, change)
    }

    fn make(&self, dir: Ino, name: &[u8], after: &Attr) -> Result<Ino, Fault> {
        let target = match after.kind {
            FileKind::Symlink => self.ops.read_link(&self.source(), after.ino)?,
            _ => Vec::new(),
        };
        let new = NewFile {
            kind: after.kind,
            mode: after.mode,
            umask: 0,
            uid: after.uid,
            gid: after.gid,
            rdev: after.rdev,
            target: &target,
        };
        Ok(self.ops.create(self.to, dir, name, new)?.ino)
    }

    /// A directory, made as the speculation has it where it is missing.
    fn make_dirs(&self, path: &[u8]) -> Result<Ino, Fault> {
        match self.find(path) {
            Err(fault) if missing(&fault) => {}
            found => return found,
        }
        let (dir, name) = split(path);
        let dir = self.make_dirs(dir)?;
        let like = self.ops.get_attr(&self.source(), self.find_in(&self.source(), path)?)?;
        self.make(dir, name, &like)
    }

    /// Makes a regular file's content that of the speculation, holes and all.
    fn content(&self, change: &Change, ino: Ino) -> Result<(), Fault> {
        let Some(after) = &change.after else { return Ok(()) };
        let source = self.source();
        let attr = self.ops.get_attr(&source, after.ino)?;
        if attr.kind != FileKind::Regular {
            return Ok(());
        }
        for size in [0, attr.size] {
            self.ops.set_attr(self.to, ino, &SetAttr { size: Some(size), ..SetAttr::default() }, 0)?;
        }
        let mut at = 0;
        loop {
            at = match self.ops.seek(&source, attr.ino, at, SeekWhence::Data) {
                Err(fault) if fault.kind == FaultKind::NoData => return Ok(()),
                found => found?,
            };
            let data = self.ops.read(&source, attr.ino, at, IO_BYTES_MAX as u32)?;
            if data.is_empty() {
                return Ok(());
            }
            self.ops.write(self.to, ino, (at, false), &data, SetIds::Stay)?;
            at += data.len() as u64;
        }
    }

    fn attributes(&self, ino: Ino, change: &Change) -> Result<(), Fault> {
        let Some(after) = &change.after else { return Ok(()) };
        let owner = SetAttr { uid: Some(after.uid), gid: Some(after.gid), ..SetAttr::default() };
        self.ops.set_attr(self.to, ino, &owner, 0)?;
        if after.kind != FileKind::Symlink {
            self.ops.set_attr(self.to, ino, &SetAttr { mode: Some(after.mode), ..SetAttr::default() }, 0)?;
        }
        // Last: a new owner takes away what the file was capable of.
        let source = self.source();
        let wanted = self.ops.list_xattr(&source, after.ino)?;
        for name in self.ops.list_xattr(self.to, ino)? {
            if !wanted.contains(&name) {
                self.ops.remove_xattr(self.to, ino, &name)?;
            }
        }
        for name in wanted {
            let value = self.ops.get_xattr(&source, after.ino, &name)?;
            self.ops.set_xattr(self.to, ino, (&name, &value), XattrMode::Set, false)?;
        }
        self.times(ino, after)
    }

    fn times(&self, ino: Ino, like: &Attr) -> Result<(), Fault> {
        let shown = self.ops.get_attr(&self.source(), like.ino)?;
        let times = SetAttr {
            atime: Some(SetTime::At(shown.atime)),
            mtime: Some(SetTime::At(shown.mtime)),
            ..SetAttr::default()
        };
        self.ops.set_attr(self.to, ino, &times, 0).map(drop)
    }

    /// A new directory's times come last: filling it changed them.
    fn directory_times(&self, change: &Change) -> Result<(), Fault> {
        match &change.after {
            Some(after) if after.kind == FileKind::Directory && change.kind == ChangeKind::Added => {
                self.times(self.find(&change.path)?, after)
            }
            _ => Ok(()),
        }
    }
}

const BOTH_DIRECTORIES: (FileKind, FileKind) = (FileKind::Directory, FileKind::Directory);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_path_decides() {
        let said =
            [Resolution::Ours(b"".to_vec()), Resolution::Theirs(b"a".to_vec()), Resolution::Ours(b"a/b".to_vec())];
        let choice = Choice(&said);
        assert_eq!(choice.ours(b"x"), Some(true));
        assert_eq!(choice.ours(b"a"), Some(false));
        assert_eq!(choice.ours(b"a/c"), Some(false));
        assert_eq!(choice.ours(b"a/b/c"), Some(true));
        assert_eq!(choice.ours(b"ab"), Some(true));
        assert_eq!(Choice(&[]).ours(b"x"), None);
    }
}
