//! What a speculation changed, path by path.

use super::paths::{join, last_path_of, path_of};
use super::{Coordinator, fault};
use crate::ops::Scope;
use crate::store::{Inode, Key, Order, Sight, Store, StoreError};
use mojavefs::id::{Ino, IntervalId, Seq, SpecId};
use mojavefs::limits::DIFF_PAGE_MAX;
use mojavefs::protocol::codec;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{FileKind, Name};
use mojavefs::protocol::{Change, ChangeKind, DiffPage};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A speculation's changes: what it sees, and what it would see without them.
///
/// Of some that depend on each other in a ring none can be decided without the others: what each of them changed is shown as it
/// is with the work of all of them, against what would be there without any.
pub(super) struct Changes {
    pub(super) after: Sight,
    pub(super) before: Sight,
    /// The speculation, and those that it depends on and that depend on it.
    pub(super) ring: Vec<SpecId>,
    intervals: Vec<IntervalId>,
    /// Nothing but these.
    own: Sight,
    /// Those of the whole ring.
    together: Vec<IntervalId>,
}

/// Where a page begins: after this object among the changes of this interval.
type Cursor = (usize, Option<Key>);

impl Coordinator {
    pub(super) fn changes_of(&self, spec: SpecId, uid: u32) -> Result<Changes, Fault> {
        let state = self.state.lock();
        state.job(spec, uid)?;
        let ring = state.ring(spec);
        let intervals = state.all_intervals(spec);
        let together: Vec<IntervalId> = ring.iter().flat_map(|spec| state.all_intervals(*spec)).collect();
        // What others have undecided is neither seen nor noticed: among them may be these very changes, done again.
        let after = Sight { meets: false, live: state.seen_together(&ring), ..state.sight(state.tip(spec)) };
        let outer: Vec<IntervalId> = after.live.iter().copied().filter(|i| !together.contains(i)).collect();
        let before = Sight { live: Arc::from(outer), writer: IntervalId::FINAL, ..after.clone() };
        Ok(Changes { own: only(&intervals), after, before, ring, intervals, together })
    }

    /// What carries the changes of an undecided speculation.
    pub(crate) fn carriers(&self, spec: SpecId, uid: u32) -> Vec<IntervalId> {
        self.changes_of(spec, uid).map(|changes| changes.intervals).unwrap_or_default()
    }

    /// What a speculation has changed that is undecided, for its owner or root, and whether it stays with what it has read.
    pub(crate) fn keys_changed(&self, spec: SpecId, uid: u32) -> Result<(Vec<Key>, bool), Fault> {
        let mut keys = Vec::new();
        for interval in self.changes_of(spec, uid)?.intervals {
            keys.extend(self.store.changes(interval, None, usize::MAX).map_err(fault::store)?);
        }
        let stays = self.state.lock().job(spec, uid)?.snapshot.is_some();
        Ok((keys, stays))
    }

    /// What a speculation's diff compares: what it sees with its own changes, or what it would see without them; to be read.
    pub(crate) fn compared(&self, spec: SpecId, uid: u32, with_changes: bool) -> Result<Scope, Fault> {
        let changes = self.changes_of(spec, uid)?;
        let sight = if with_changes { changes.after } else { changes.before };
        Ok(Scope { sight: Sight { writer: IntervalId::FINAL, ..sight }, accesses: None, over: Arc::default() })
    }

    /// A page of what an undecided speculation changed, for its owner or root.
    pub(crate) fn diff(&self, spec: SpecId, uid: u32, from: Option<&[u8]>) -> Result<DiffPage, Fault> {
        let changes = self.changes_of(spec, uid)?;
        let cursor: Cursor = match from {
            Some(bytes) => codec::decode(bytes)
                .map_err(|_| Fault::new(FaultKind::Invalid, "this is no place where a page of a diff ends"))?,
            None => (0, None),
        };
        let with = changes.ring.iter().copied().filter(|other| *other != spec).collect();
        let (changes, next) = changes.page(&self.store, cursor).map_err(fault::store)?;
        let next = next.map(|next| codec::encode(&next)).transpose();
        let next = next.map_err(|why| Fault::new(FaultKind::Io, why.to_string()))?;
        Ok(DiffPage { changes, next, with })
    }
}

impl Changes {
    /// What all of the ring has changed.
    pub(super) fn of_the_ring(self) -> Self {
        Changes { own: only(&self.together), intervals: self.together.clone(), ..self }
    }

    fn page(&self, store: &Store, (index, after): Cursor) -> Result<(Vec<Change>, Option<Cursor>), StoreError> {
        let Some(interval) = self.intervals.get(index) else { return Ok((Vec::new(), None)) };
        let keys = store.changes(*interval, after.as_ref(), DIFF_PAGE_MAX)?;
        let mut changes = Vec::new();
        for key in &keys {
            if self.last_of(store, key)? == Some(*interval) {
                changes.extend(self.change(store, key)?);
            }
        }
        let next = match keys.into_iter().last() {
            Some(last) => (index, Some(last)),
            None => (index + 1, None),
        };
        Ok((changes, (next.0 < self.intervals.len()).then_some(next)))
    }

    /// Every change, in no particular order.
    pub(super) fn all(&self, store: &Store) -> Result<Vec<Change>, StoreError> {
        let mut all = Vec::new();
        let mut cursor = Some((0, None));
        while let Some(at) = cursor {
            let (page, next) = self.page(store, at)?;
            all.extend(page);
            cursor = next;
        }
        Ok(all)
    }

    /// The last of its intervals that changed an object: it is shown there.
    fn last_of(&self, store: &Store, key: &Key) -> Result<Option<IntervalId>, StoreError> {
        let order = match key {
            Key::Inode(ino) => store.inode(&self.own, *ino)?.order,
            Key::Entry(parent, name) => store.entry(&self.own, *parent, name)?.order,
            Key::Xattr(ino, name) => store.xattr(&self.own, *ino, name)?.order,
            Key::DirStat(_) | Key::Inline(_) | Key::Block(..) => None,
        };
        Ok(order.and_then(Order::interval))
    }

    fn change(&self, store: &Store, key: &Key) -> Result<Option<Change>, StoreError> {
        match key {
            Key::Entry(parent, name) => self.name_change(store, *parent, name),
            Key::Inode(ino) => self.file_change(store, *ino),
            Key::Xattr(ino, _) if self.last_of(store, &Key::Inode(*ino))?.is_none() => self.file_change(store, *ino),
            _ => Ok(None),
        }
    }

    fn name_change(&self, store: &Store, parent: Ino, name: &[u8]) -> Result<Option<Change>, StoreError> {
        let before = store.entry(&self.before, parent, name)?.found;
        let after = store.entry(&self.after, parent, name)?.found;
        if before == after {
            return Ok(None);
        }
        if let Some(entry) = after {
            let dir = last_path_of(store, &self.after, parent);
            let old = store.inode(&self.before, entry.ino)?.found.filter(|inode| inode.nlink > 0);
            let new = store.inode(&self.after, entry.ino)?.found;
            let from = match &old {
                Some(old) => self.moved_from(store, entry.ino, old)?,
                None => None,
            };
            let replaced = before.is_some();
            let kind = match from {
                Some(from) => ChangeKind::Renamed { from, modified: differs(old.as_ref(), new.as_ref()) },
                None if replaced => ChangeKind::Modified,
                None => ChangeKind::Added,
            };
            let replaced = match before {
                Some(before) => store.inode(&self.before, before.ino)?.found.map(|inode| (before.ino, inode)),
                None => None,
            };
            let before = match &kind {
                ChangeKind::Renamed { .. } => old.map(|inode| (entry.ino, inode)),
                _ => replaced,
            };
            let path = join(&dir, name);
            let old_path = match &kind {
                ChangeKind::Modified => path_of(store, &self.before, parent)?.map(|dir| join(&dir, name)),
                _ => None,
            };
            return Ok(Some(Change {
                old_path: old_path.filter(|old| *old != path),
                path,
                kind,
                before: before.map(|(ino, inode)| shown(ino, &inode)),
                after: new.map(|inode| shown(entry.ino, &inode)),
                xattrs: Vec::new(),
            }));
        }
        let Some(entry) = before else { return Ok(None) };
        let old = store.inode(&self.before, entry.ino)?.found;
        // Somewhere else now: that name tells of it.
        let moved = old.as_ref().is_some_and(|old| old.home == (parent, name.to_vec()))
            && store
                .inode(&self.after, entry.ino)?
                .found
                .is_some_and(|new| new.nlink > 0 && self.lives_at_home(store, entry.ino, &new));
        if moved {
            return Ok(None);
        }
        let Some(dir) = path_of(store, &self.before, parent)? else { return Ok(None) };
        let before = old.map(|inode| shown(entry.ino, &inode));
        Ok(Some(Change {
            path: join(&dir, name),
            old_path: None,
            kind: ChangeKind::Removed,
            before,
            after: None,
            xattrs: Vec::new(),
        }))
    }

    /// The path a file had, if it is not there any more.
    fn moved_from(&self, store: &Store, ino: Ino, old: &Inode) -> Result<Option<Vec<u8>>, StoreError> {
        let (parent, name) = &old.home;
        if store.entry(&self.after, *parent, name)?.found.is_some_and(|entry| entry.ino == ino) {
            return Ok(None);
        }
        Ok(path_of(store, &self.before, *parent)?.map(|dir| join(&dir, name)))
    }

    fn lives_at_home(&self, store: &Store, ino: Ino, inode: &Inode) -> bool {
        let (parent, name) = &inode.home;
        store.entry(&self.after, *parent, name).is_ok_and(|entry| entry.found.is_some_and(|entry| entry.ino == ino))
    }

    /// A file whose name stayed.
    fn file_change(&self, store: &Store, ino: Ino) -> Result<Option<Change>, StoreError> {
        let (old, new) = (store.inode(&self.before, ino)?.found, store.inode(&self.after, ino)?.found);
        let Some(new) = new else { return Ok(None) };
        if self.was_taken_away(store, old.as_ref(), &new)? {
            if path_of(store, &self.after, ino)?.is_some() {
                // It has a name that it was given here: that tells of it.
                return Ok(None);
            }
            let path = last_path_of(store, &self.after, ino);
            let after = Some(shown(ino, &new));
            let kind = ChangeKind::Added;
            return Ok(Some(Change { path, old_path: None, kind, before: None, after, xattrs: Vec::new() }));
        }
        let Some(old) = old else { return Ok(None) };
        if old.nlink == 0 || new.nlink == 0 || old.home != new.home {
            return Ok(None);
        }
        let Some(path) = path_of(store, &self.after, ino)? else { return Ok(None) };
        let xattrs = self.xattr_changes(store, ino)?;
        let modified = differs(Some(&old), Some(&new));
        let attrs =
            (old.mode, old.uid, old.gid, old.atime, old.mtime) != (new.mode, new.uid, new.gid, new.atime, new.mtime);
        let kind = match () {
            () if modified => ChangeKind::Modified,
            () if attrs || !xattrs.is_empty() => ChangeKind::Attributes,
            () => return Ok(None),
        };
        let old_path = path_of(store, &self.before, ino)?.filter(|old| *old != path);
        Ok(Some(Change { path, old_path, kind, before: Some(shown(ino, &old)), after: Some(shown(ino, &new)), xattrs }))
    }

    /// Somebody else removed a file that was changed here: it would be new now.
    fn was_taken_away(&self, store: &Store, old: Option<&Inode>, new: &Inode) -> Result<bool, StoreError> {
        if new.nlink == 0 || old.is_some_and(|old| old.nlink > 0) {
            return Ok(false);
        }
        let (parent, name) = &new.home;
        let named_here = |interval: &IntervalId| store.has_changed(*interval, &Key::Entry(*parent, name.clone()));
        for interval in &self.together {
            if named_here(interval)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn xattr_changes(&self, store: &Store, ino: Ino) -> Result<Vec<Name>, StoreError> {
        let mut names: BTreeSet<Name> = store.xattrs(&self.before, ino)?.found.into_iter().collect();
        names.extend(store.xattrs(&self.after, ino)?.found);
        let mut changed = Vec::new();
        for name in names {
            if store.xattr(&self.before, ino, &name)?.found != store.xattr(&self.after, ino, &name)?.found {
                changed.push(name);
            }
        }
        Ok(changed)
    }
}

/// Nothing but what was changed in these intervals.
fn only(intervals: &[IntervalId]) -> Sight {
    let mut live = intervals.to_vec();
    live.sort_unstable();
    Sight { snapshot: Seq(0), live: live.into(), ..Sight::trunk() }
}

/// The content of a regular file changed, as far as length and times tell.
fn differs(old: Option<&Inode>, new: Option<&Inode>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) if new.kind == FileKind::Regular => {
            (old.size, old.mtime, old.content) != (new.size, new.mtime, new.content)
        }
        _ => false,
    }
}

/// Attributes for people; a directory's times and links are not told.
fn shown(ino: Ino, inode: &Inode) -> mojavefs::protocol::file::Attr {
    crate::ops::file_attr(ino, inode)
}
