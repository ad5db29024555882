//! What was decided, as a plan for the host.

use super::{Applied, HostFile, Origin, Plan, PlannedDir, Signature, Wanted};
use crate::store::{Inode, Key, Sight, Store, StoreError};
use mojavefs::id::{ContentId, Ino, IntervalId, Seq};
use mojavefs::limits::UNAPPLIED_PATHS_MAX;
use mojavefs::protocol::codec;
use mojavefs::protocol::file::{FileKind, Name};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A decision that the host does not have yet.
pub(crate) struct Decision<'a> {
    origin: &'a Origin,
    store: &'a Store,
    seq: Seq,
    changes: Vec<Key>,
    /// What was so before.
    before: Sight,
    /// What is so by it.
    after: Sight,
}

fn failed(error: StoreError) -> io::Error {
    io::Error::other(error.to_string())
}

impl<'a> Decision<'a> {
    /// The decision by which these intervals became final.
    pub(crate) fn of(
        (origin, store): (&'a Origin, &'a Store),
        seq: Seq,
        intervals: &[IntervalId],
    ) -> Result<Self, StoreError> {
        let mut changes = BTreeSet::new();
        for interval in intervals {
            changes.extend(store.changes(*interval, None, usize::MAX)?);
        }
        // What was changed outside of jobs since the decision before counts as so before.
        let after = Sight { snapshot: seq, ..Sight::trunk() };
        let before = Sight { missed: intervals.into(), ..after.clone() };
        Ok(Decision { origin, store, seq, changes: changes.into_iter().collect(), before, after })
    }

    /// Names and files that it is about.
    pub(crate) fn about(&self) -> impl Iterator<Item = (Ino, Option<Name>)> + '_ {
        self.changes.iter().filter_map(|key| match key {
            Key::Entry(dir, name) => Some((*dir, Some(name.clone()))),
            Key::Inode(ino) | Key::DirStat(ino) | Key::Xattr(ino, _) => Some((*ino, None)),
            Key::Inline(_) | Key::Block(..) => None,
        })
    }

    /// Paths that it changes, from the root, without a leading slash, and how many more there are than are told.
    pub(crate) fn paths(&self) -> Result<(Vec<Vec<u8>>, u64), StoreError> {
        let mut paths = BTreeSet::new();
        for key in &self.changes {
            let path = match key {
                Key::Entry(dir, name) => self.store.host_path(&self.after, *dir)?.map(|dir| super::below(&dir, name)),
                Key::Inode(ino) | Key::Xattr(ino, _) => self.store.host_path(&self.after, *ino)?,
                Key::DirStat(_) | Key::Inline(_) | Key::Block(..) => None,
            };
            paths.extend(path);
        }
        let more = paths.len().saturating_sub(UNAPPLIED_PATHS_MAX) as u64;
        Ok((paths.iter().take(UNAPPLIED_PATHS_MAX).map(|path| path.join(&b'/')).collect(), more))
    }

    /// Makes the host what it says. May be repeated.
    pub(crate) fn apply(&self) -> io::Result<Applied> {
        if self.changes.is_empty() {
            return self.note(Applied::default());
        }
        let plan = self.plan().map_err(failed)?;
        self.note(self.origin.bottom.apply(&plan, self)?)
    }

    /// It is on record that the host has it.
    fn note(&self, applied: Applied) -> io::Result<Applied> {
        let signature = |(ours, is): &(Ino, HostFile)| Ok((*ours, codec::encode(&Signature::of(&is.inode))?));
        let signatures = applied.numbers.iter().map(signature).collect::<Result<Vec<_>, codec::CodecError>>();
        let signatures = signatures.map_err(|why| io::Error::other(why.to_string()))?;
        let merged = self.origin.forget_but(&self.store.committed().into_keys().collect());
        self.store.has_applied(self.seq, &signatures, (&merged, !self.changes.is_empty())).map_err(failed)?;
        self.origin.applied(self.seq, &applied.numbers);
        Ok(applied)
    }

    fn plan(&self) -> Result<Plan, StoreError> {
        let mut dirs = BTreeMap::<Ino, Vec<(Name, Option<Ino>)>>::new();
        let mut files = BTreeSet::new();
        for key in &self.changes {
            match key {
                Key::Entry(dir, name) => {
                    let old = self.store.entry(&self.before, *dir, name)?.found.map(|entry| entry.ino);
                    dirs.entry(*dir).or_default().push((name.clone(), old));
                }
                Key::Inode(ino) | Key::Xattr(ino, _) => {
                    files.insert(*ino);
                }
                Key::DirStat(_) | Key::Inline(_) | Key::Block(..) => {}
            }
        }
        let planned = |(ino, names)| {
            let path = match self.origin.has(ino) {
                true => self.store.host_path(&self.before, ino)?,
                false => None,
            };
            Ok((ino, PlannedDir { path, names }))
        };
        let dirs = dirs.into_iter().map(planned).collect::<Result<_, StoreError>>()?;
        Ok(Plan { number: self.seq.0, dirs, files: files.into_iter().collect() })
    }
}

impl Wanted for Decision<'_> {
    fn entry(&self, dir: Ino, name: &[u8]) -> io::Result<Option<Ino>> {
        Ok(self.store.entry(&self.after, dir, name).map_err(failed)?.found.map(|entry| entry.ino))
    }

    fn names(&self, dir: Ino) -> io::Result<Vec<(Name, Ino)>> {
        let names = self.store.entries(&self.after, dir, None, usize::MAX).map_err(failed)?.found;
        Ok(names.into_iter().map(|(name, entry)| (name, entry.ino)).collect())
    }

    fn inode(&self, ino: Ino) -> io::Result<Option<Inode>> {
        let inode = self.store.inode(&self.after, ino).map_err(failed)?.found;
        let Some(inode) = inode else { return Ok(None) };
        if inode.kind != FileKind::Directory {
            return Ok(Some(inode));
        }
        let stat = self.store.dir_stat(&self.after, ino).map_err(failed)?;
        let (atime, mtime) = (stat.atime.unwrap_or(inode.atime), stat.mtime.unwrap_or(inode.mtime));
        Ok(Some(Inode { atime, mtime, ..inode }))
    }

    fn xattrs(&self, ino: Ino) -> io::Result<Vec<(Name, Vec<u8>)>> {
        let mut all = Vec::new();
        for name in self.store.xattrs(&self.after, ino).map_err(failed)?.found {
            let value = self.store.xattr(&self.after, ino, &name).map_err(failed)?.found;
            all.extend(value.map(|value| (name, value)));
        }
        Ok(all)
    }

    fn read(&self, inode: &Inode, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.store.read_content(&self.after, inode, offset, len).map_err(failed)
    }

    fn has_new_content(&self, ino: Ino) -> io::Result<bool> {
        if !self.changes.contains(&Key::Inode(ino)) {
            return Ok(false);
        }
        let content = |sight| Ok::<_, io::Error>(self.store.inode(sight, ino).map_err(failed)?.found);
        let (before, after) = (content(&self.before)?, content(&self.after)?);
        let Some(after) = after else { return Ok(false) };
        let Some(before) = before else { return Ok(true) };
        // Its bytes may have been pinned, just now, too.
        let pinned = before.content.and_then(ContentId::host).map_or(Ok(None), |host| self.store.pinned(host));
        let pinned = pinned.map_err(failed)?.map(|(content, _)| content);
        let is_same = before.content == after.content || (pinned.is_some() && pinned == after.content);
        if !is_same || before.size != after.size {
            return Ok(true);
        }
        // What is the host's is not changed in its place.
        let Some(content) = after.content.filter(|content| ContentId::host(*content).is_none()) else {
            return Ok(false);
        };
        let is_of_it = |key: &Key| match key {
            Key::Inline(of) | Key::Block(of, _) => *of == content,
            _ => false,
        };
        Ok(self.changes.iter().any(is_of_it))
    }

    fn number_of(&self, found: &HostFile) -> io::Result<Ino> {
        self.origin.number_of(found).map_err(failed)
    }

    fn signature(&self, ino: Ino) -> io::Result<Option<Signature>> {
        if let Some(known) = self.origin.signature(ino).map_err(failed)? {
            return Ok(Some(known));
        }
        let inode = self.store.inode(&self.before, ino).map_err(failed)?.found;
        Ok(inode.as_ref().map(Signature::of))
    }

    fn path_of(&self, ino: Ino) -> io::Result<Option<Vec<Name>>> {
        match self.origin.has(ino) {
            true => self.store.host_path(&self.before, ino).map_err(failed),
            false => Ok(None),
        }
    }

    fn new_path_of(&self, ino: Ino) -> io::Result<Option<Vec<Name>>> {
        self.store.host_path(&self.after, ino).map_err(failed)
    }
}
