//! What the host has, written down: what nobody had looked at has always been so; anything else is a change by somebody outside of every
//! job.

use super::op::Op;
use super::{Ops, Scope, fault};
use crate::origin::{HostFile, HostName, Signature};
use crate::store::{Batch, DirStat, Entry, Inode, Key, Sight};
use mojavefs::id::{ContentId, Ino};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::{FileKind, Name};

/// What was found to be otherwise than it was written down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted {
    /// A name.
    pub(crate) name: bool,
    /// Files.
    pub(crate) files: Vec<Ino>,
}

impl Ops {
    /// Writes down what the host has at a name, if anything. `was` is what the file there was when it was looked at last, if that is not
    /// what is written down. `is_known`: somebody may know that nothing was there.
    pub(crate) fn note_host_name(
        &self,
        scope: &Scope,
        (parent, name): (Ino, &[u8]),
        (found, is_known): (Option<&HostFile>, bool),
        was: Option<&Signature>,
    ) -> Result<Noted, Fault> {
        let trunk = Sight::trunk();
        let mut op = Op::new(self, scope);
        let (_locked, [entry]) = self.lock_names(&mut op, [(parent, name)])?;
        let mut old = Batch::of_old(&self.store);
        let mut noted = Noted::default();
        let same = matches!((entry, found), (Some(entry), Some(found)) if entry.ino == found.ino);
        if !same {
            if let Some(entry) = entry {
                noted.name = true;
                self.note_host_loss(&mut op, (parent, name), entry, &mut noted)?;
            }
            if let Some(found) = found {
                let entry = Entry { ino: found.ino, kind: found.inode.kind };
                let key = Key::Entry(parent, name.to_vec());
                if !noted.name && !is_known && self.store.stored(&key).map_err(fault::store)?.is_empty() {
                    old.put_entry(parent, name, &entry).map_err(fault::store)?;
                } else {
                    noted.name = true;
                    op.put_entry(parent, name, entry)?;
                    op.list_changed(parent);
                }
            }
        }
        if let Some(found) = found {
            let known = self.store.inode(&trunk, found.ino).map_err(fault::store)?.found;
            match known {
                None => self.note_new(&mut op, &mut old, (parent, name), found)?,
                Some(known) => {
                    let is_alone = known.kind == FileKind::Directory || found.inode.nlink <= 1;
                    let home = match known.home == (parent, name.to_vec()) || !is_alone {
                        true => known.home.clone(),
                        false => (parent, name.to_vec()),
                    };
                    self.note_attributes(&mut op, (&known, home), found, was, &mut noted)?;
                }
            }
        }
        if !old.is_empty() {
            self.store.apply(old).map_err(fault::store)?;
        }
        op.finish()?;
        Ok(noted)
    }

    /// Whether a file that the host has at a name is written down as it is.
    pub(crate) fn is_noted(
        &self,
        scope: &Scope,
        (parent, name): (Ino, &[u8]),
        found: &HostFile,
        was: Option<&Signature>,
    ) -> Result<bool, Fault> {
        let known = self.store.inode(&scope.sight, found.ino).map_err(fault::store)?.found;
        let Some(known) = known else { return Ok(false) };
        let is_dir = known.kind == FileKind::Directory;
        let is = Signature::of(&found.inode);
        let is_same = was.map_or_else(|| Signature::of(&known) == is, |was| *was == is);
        let is_home = known.home.0 == parent && known.home.1 == name;
        if !is_same || !is_home || found.inode.target != known.target || (!is_dir && known.nlink != found.inode.nlink) {
            return Ok(false);
        }
        if !is_dir {
            return Ok(true);
        }
        let stat = self.store.dir_stat(&scope.sight, found.ino).map_err(fault::store)?;
        Ok(known.nlink == 2 && (stat.subdirs, stat.mtime) == (found.dir.subdirs, found.dir.mtime))
    }

    /// A name is not there any more, or leads elsewhere.
    fn note_host_loss(
        &self,
        op: &mut Op<'_>,
        (parent, name): (Ino, &[u8]),
        entry: Entry,
        noted: &mut Noted,
    ) -> Result<(), Fault> {
        op.remove_entry(parent, name)?;
        op.list_changed(parent);
        let inode = self.store.inode(&Sight::trunk(), entry.ino).map_err(fault::store)?.found;
        // What has its home elsewhere is looked at there.
        if let Some(inode) = inode.filter(|inode| inode.home == (parent, name.to_vec())) {
            let inode = Inode { nlink: 1, ..inode };
            op.drop_link(entry.ino, inode)?;
            noted.files.push(entry.ino);
        }
        Ok(())
    }

    /// A file that is not written down.
    fn note_new(&self, op: &mut Op<'_>, old: &mut Batch, home: (Ino, &[u8]), found: &HostFile) -> Result<(), Fault> {
        let ino = found.ino;
        let inode = Inode { home: (home.0, home.1.to_vec()), ..found.inode.clone() };
        let was_there = !self.store.stored(&Key::Inode(ino)).map_err(fault::store)?.is_empty();
        if was_there {
            // Its number was another file's.
            op.put_inode(ino, &inode)?;
        } else {
            old.put_inode(ino, &inode).map_err(fault::store)?;
        }
        if inode.kind == FileKind::Directory {
            let is_new = self.store.stored(&Key::DirStat(ino)).map_err(fault::store)?.is_empty();
            let batch = if is_new { &mut *old } else { &mut op.batch };
            batch.put_dir_stat(ino, found.dir).map_err(fault::store)?;
        }
        if was_there {
            return self.note_xattrs(op, ino, &found.xattrs);
        }
        found.xattrs.iter().try_for_each(|(name, value)| old.put_xattr(ino, name, value).map_err(fault::store))
    }

    fn note_attributes(
        &self,
        op: &mut Op<'_>,
        (known, home): (&Inode, (Ino, Name)),
        found: &HostFile,
        was: Option<&Signature>,
        noted: &mut Noted,
    ) -> Result<(), Fault> {
        let (ino, is) = (found.ino, Signature::of(&found.inode));
        let was = was.cloned().unwrap_or_else(|| Signature::of(known));
        // One that had lost its name has another one.
        let nlink = if known.kind == FileKind::Directory { 2 } else { found.inode.nlink };
        if is == was && found.inode.target == known.target {
            if home != known.home || nlink != known.nlink {
                // Nobody sees where that is.
                let moved = Inode { home, nlink, ..known.clone() };
                op.batch.put_inode(ino, &moved).map_err(fault::store)?;
            }
            return self.note_dir_stat(found);
        }
        op.put_inode(ino, &Inode { home, nlink, ..found.inode.clone() })?;
        noted.files.push(ino);
        self.note_xattrs(op, ino, &found.xattrs)?;
        self.note_dir_stat(found)
    }

    fn note_xattrs(&self, op: &mut Op<'_>, ino: Ino, xattrs: &[(Name, Vec<u8>)]) -> Result<(), Fault> {
        let trunk = Sight::trunk();
        for name in self.store.xattrs(&trunk, ino).map_err(fault::store)?.found {
            if !xattrs.iter().any(|(known, _)| *known == name) {
                op.remove_xattr(ino, &name)?;
            }
        }
        for (name, value) in xattrs {
            if self.store.xattr(&trunk, ino, name).map_err(fault::store)?.found.as_ref() != Some(value) {
                op.xattr_names_changed(ino);
                op.put_xattr(ino, name, value)?;
            }
        }
        Ok(())
    }

    /// What follows from a directory's names, on which nobody depends: it is so for every snapshot, too.
    fn note_dir_stat(&self, found: &HostFile) -> Result<(), Fault> {
        if found.inode.kind != FileKind::Directory {
            return Ok(());
        }
        let known = self.store.dir_stat(&Sight::trunk(), found.ino).map_err(fault::store)?;
        let DirStat { subdirs, atime, mtime, ctime } = found.dir;
        if (known.subdirs, known.mtime) == (subdirs, mtime) {
            return Ok(());
        }
        let stored = self.store.stored(&Key::DirStat(found.ino)).map_err(fault::store)?;
        let last = stored.iter().map(|(order, _)| *order).find(|order| order.interval().is_none());
        let mut batch = last.map_or_else(|| Batch::of_old(&self.store), |order| Batch::at(&self.store, order));
        let stat = DirStat { subdirs: subdirs - known.subdirs, atime, mtime, ctime };
        batch.put_dir_stat(found.ino, stat).map_err(fault::store)?;
        self.store.apply(batch).map_err(fault::store)
    }

    /// Writes down which names a directory of the host's has, as far as nobody has looked for them. Returns those that have to be looked
    /// at one by one: they are others than is written down.
    pub(crate) fn note_host_names(
        &self,
        scope: &Scope,
        dir: Ino,
        names: &[HostName],
        is_known: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<Name>, Fault> {
        let _locked = self.stripes.lock(&[dir]);
        let trunk = &scope.sight;
        let known = self.store.entries(trunk, dir, None, usize::MAX).map_err(fault::store)?.found;
        let known: std::collections::HashMap<Name, Entry> = known.into_iter().collect();
        let mut old = Batch::of_old(&self.store);
        let mut others = Vec::new();
        for HostName { name, ino, kind } in names {
            match known.get(name) {
                Some(entry) if entry.ino == *ino => {}
                Some(_) => others.push(name.clone()),
                None => {
                    let is_new = |key: Key| Ok(self.store.stored(&key).map_err(fault::store)?.is_empty());
                    let is_new = is_new(Key::Entry(dir, name.clone()))? && is_new(Key::Inode(*ino))?;
                    match !is_known(name) && is_new {
                        true => old.put_entry(dir, name, &Entry { ino: *ino, kind: *kind }).map_err(fault::store)?,
                        false => others.push(name.clone()),
                    }
                }
            }
        }
        let there: std::collections::HashSet<&Name> = names.iter().map(|found| &found.name).collect();
        others.extend(known.into_keys().filter(|name| !there.contains(name)));
        if !old.is_empty() {
            self.store.apply(old).map_err(fault::store)?;
        }
        Ok(others)
    }

    /// The host's file in which the bytes of a file lie that a view shows.
    pub(crate) fn bytes_of_host(&self, scope: &Scope, ino: Ino) -> Result<Option<Ino>, Fault> {
        let inode = self.store.inode(&scope.sight, ino).map_err(fault::store)?.found;
        Ok(inode.and_then(|inode| inode.content.and_then(ContentId::host)))
    }

    /// What trunk's record of a name leads to.
    pub(crate) fn host_entry(&self, scope: &Scope, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Fault> {
        Ok(self.store.entry(&scope.sight, parent, name).map_err(fault::store)?.found)
    }

    /// The names of a directory that are on record with what they lead to.
    pub(crate) fn host_names(&self, scope: &Scope, dir: Ino) -> Result<Vec<(Name, Entry)>, Fault> {
        let mut names = self.store.entries(&scope.sight, dir, None, usize::MAX).map_err(fault::store)?.found;
        let mut failed = Ok(());
        names.retain(|(_, entry)| match self.store.inode(&scope.sight, entry.ino) {
            Ok(inode) => inode.found.is_some(),
            Err(error) => {
                failed = Err(fault::store(error));
                false
            }
        });
        failed.map(|()| names)
    }

    /// A file's record on trunk.
    pub(crate) fn host_inode(&self, scope: &Scope, ino: Ino) -> Result<Option<Inode>, Fault> {
        Ok(self.store.inode(&scope.sight, ino).map_err(fault::store)?.found)
    }
}
