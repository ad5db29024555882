//! One operation in one view: what it reads, what it changes, and what of it is reported.
//!
//! Reports keep an order that leaves no gap: a use that only reads is reported *before* the store is read, a change
//! *after* it was applied, with the objects' locks still held. So of a reader and a writer that meet, either the writer
//! finds the reader's report, or the reader finds the writer's version.

use super::{Ops, Scope, SetIds, fault};
use crate::access::{Access, AccessKey};
use crate::limits::{NAME_TRIES_MAX, PARENTS_MAX};
use crate::store::{Batch, DirStat, Entry, Inode, Newer, Order, Reading, Store, StoreError, engine};
use mojavefs::acl::{self, Acl};
use mojavefs::id::{Ino, IntervalId};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind, Time};

/// The size that `stat` shows of every directory, in bytes.
const DIRECTORY_BYTES: u64 = 4096;
const SET_USER_ID: u32 = 0o4000;
const SET_GROUP_ID: u32 = 0o2000;
const GROUP_EXECUTE: u32 = 0o0010;
const CAPABILITY: &[u8] = b"security.capability";

/// One operation under way.
pub(super) struct Op<'a> {
    ops: &'a Ops,
    pub(super) scope: &'a Scope,
    pub(super) batch: Batch,
    /// The time of everything this operation changes.
    pub(super) now: Time,
    changed: Vec<(AccessKey, Access)>,
    /// What was read, and what there is of it that this view does not see.
    newer: Vec<(AccessKey, Newer)>,
    /// The latest interval of what was read, and what that was.
    latest: Option<(IntervalId, AccessKey)>,
}

impl<'a> Op<'a> {
    pub(super) fn new(ops: &'a Ops, scope: &'a Scope) -> Self {
        let batch = Batch::new(&ops.store, &scope.sight);
        Op { ops, scope, batch, now: ops.clock.now(), changed: Vec::new(), newer: Vec::new(), latest: None }
    }

    /// The store below; it outlives the operation.
    pub(super) fn store(&self) -> &'a Store {
        &self.ops.store
    }

    /// Reads something, reporting it first.
    fn read<T>(
        &mut self,
        key: AccessKey,
        read: impl FnOnce(&Ops, &Scope) -> Result<Reading<T>, StoreError>,
    ) -> Result<Option<T>, Fault> {
        let reading = self.look(&key, read)?;
        match reading.met {
            Some(of) => Err(self.scope.meet(&key, &[of])),
            None => Ok(reading.found),
        }
    }

    /// The same; what it met of others is left to the caller.
    fn look<T>(
        &mut self,
        key: &AccessKey,
        read: impl FnOnce(&Ops, &Scope) -> Result<Reading<T>, StoreError>,
    ) -> Result<Reading<T>, Fault> {
        let accesses = self.scope.reads_reported();
        if let Some(accesses) = accesses {
            accesses.note(key.clone(), Access::Read, Newer::default());
        }
        let reading = read(self.ops, self.scope).map_err(fault::store)?;
        if let Some(accesses) = accesses.filter(|_| reading.newer.any()) {
            accesses.note(key.clone(), Access::Read, reading.newer);
            self.newer.push((key.clone(), reading.newer));
        }
        if let Some(interval) = reading.order.and_then(Order::interval)
            && self.latest.as_ref().is_none_or(|(latest, _)| *latest < interval)
            && self.scope.sight.builds_on(interval)
        {
            self.latest = Some((interval, key.clone()));
        }
        Ok(reading)
    }

    /// An inode whose name was listed, for its attributes; nothing if it is another's undecided work, which a listing
    /// does not look at.
    pub(super) fn inode_in_passing(&mut self, ino: Ino) -> Result<Option<Inode>, Fault> {
        let reading = self.look(&AccessKey::Inode(ino), |ops, scope| ops.store.inode(&scope.sight, ino))?;
        Ok(reading.found.filter(|_| reading.met.is_none()))
    }

    /// A name, if it is there, for nobody who acts on it. Errors: `Busy` if that is another's undecided work.
    pub(super) fn entry_in_passing(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Fault> {
        let key = AccessKey::Entry(parent, name.to_vec());
        let reading = self.look(&key, |ops, scope| ops.store.entry(&scope.sight, parent, name))?;
        if reading.met.is_some() {
            let text = format!("`{}` in directory {parent} is another's undecided work", name.escape_ascii());
            return Err(Fault::new(FaultKind::Busy, text));
        }
        Ok(reading.found)
    }

    /// A name, if it is there.
    pub(super) fn entry(&mut self, parent: Ino, name: &[u8]) -> Result<Option<Entry>, Fault> {
        self.read(AccessKey::Entry(parent, name.to_vec()), |ops, scope| ops.store.entry(&scope.sight, parent, name))
    }

    /// An inode, if it is there.
    pub(super) fn inode_if_any(&mut self, ino: Ino) -> Result<Option<Inode>, Fault> {
        self.read(AccessKey::Inode(ino), |ops, scope| ops.store.inode(&scope.sight, ino))
    }

    /// An inode that must be there.
    pub(super) fn inode(&mut self, ino: Ino) -> Result<Inode, Fault> {
        self.inode_if_any(ino)?.ok_or_else(|| fault::gone(ino))
    }

    /// A directory that has not been removed.
    pub(super) fn living_dir(&mut self, ino: Ino) -> Result<Inode, Fault> {
        let inode = self.inode(ino)?;
        match inode.kind {
            FileKind::Directory if inode.nlink > 0 => Ok(inode),
            FileKind::Directory => Err(Fault::new(FaultKind::NotFound, format!("directory {ino} has been removed"))),
            _ => Err(fault::not_directory(ino)),
        }
    }

    /// A regular file.
    pub(super) fn regular(&mut self, ino: Ino) -> Result<Inode, Fault> {
        let inode = self.inode(ino)?;
        match inode.kind {
            FileKind::Regular => Ok(inode),
            FileKind::Directory => Err(fault::is_directory(ino)),
            _ => Err(fault::not_regular(ino)),
        }
    }

    /// An extended attribute, if it is there.
    pub(super) fn xattr(&mut self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.read(AccessKey::Xattr(ino, name.to_vec()), |ops, scope| ops.store.xattr(&scope.sight, ino, name))
    }

    /// Reports that which names `dir` has is seen.
    pub(super) fn sees_listing(&self, dir: Ino) {
        self.sees(AccessKey::Listing(dir));
    }

    /// Reports that `key` is seen.
    pub(super) fn sees(&self, key: AccessKey) {
        if let Some(accesses) = self.scope.reads_reported() {
            accesses.note(key, Access::Read, Newer::default());
        }
    }

    /// Reports what was found when the names of `key` were read.
    pub(super) fn saw_list(&self, key: AccessKey, newer: Newer, met: &[IntervalId]) -> Result<(), Fault> {
        if !met.is_empty() {
            return Err(self.scope.meet(&key, met));
        }
        if let Some(accesses) = self.scope.reads_reported().filter(|_| newer.any()) {
            accesses.note(key, Access::Read, newer);
        }
        Ok(())
    }

    /// Refuses a directory that has entries.
    pub(super) fn require_empty(&mut self, dir: Ino) -> Result<(), Fault> {
        let empty = self.read(AccessKey::Listing(dir), |ops, scope| ops.store.is_empty_dir(&scope.sight, dir))?;
        match empty {
            Some(false) => Err(Fault::new(FaultKind::NotEmpty, format!("directory {dir} is not empty"))),
            _ => Ok(()),
        }
    }

    /// The default ACL that `dir` gives to a file of `kind`: its bytes and itself.
    pub(super) fn default_acl(&mut self, dir: Ino, kind: FileKind) -> Result<Option<(Vec<u8>, Acl)>, Fault> {
        if kind == FileKind::Symlink {
            return Ok(None);
        }
        let Some(bytes) = self.xattr(dir, acl::DEFAULT)? else { return Ok(None) };
        let acl = Acl::parse(&bytes).map_err(|why| fault::bad_acl(dir, why))?;
        Ok(acl.map(|acl| (bytes, acl)))
    }

    fn change(&mut self, key: AccessKey, how: Access) {
        match self.changed.iter_mut().find(|(known, _)| *known == key) {
            Some((_, known)) => *known = how.max(*known),
            None => self.changed.push((key, how)),
        }
    }

    /// A new file. It is reported by its name only: nobody else can have used it.
    pub(super) fn create_inode(&mut self, ino: Ino, inode: &Inode) -> Result<(), Fault> {
        if inode.kind == FileKind::Directory {
            let now = Some(self.now);
            let stat = DirStat { subdirs: 0, atime: now, mtime: now, ctime: now };
            self.batch.put_dir_stat(ino, stat).map_err(fault::store)?;
        }
        self.batch.put_inode(ino, inode).map_err(fault::store)
    }

    /// A new file that has no name.
    pub(super) fn create_unnamed(&mut self, ino: Ino, inode: &Inode) -> Result<(), Fault> {
        self.create_inode(ino, inode)?;
        match self.scope.is_trunk() {
            true => self.batch.add_orphan(ino).map_err(fault::store),
            // Noted when it is merged.
            false => Ok(()),
        }
    }

    pub(super) fn put_inode(&mut self, ino: Ino, inode: &Inode) -> Result<(), Fault> {
        self.change(AccessKey::Inode(ino), Access::Write);
        self.batch.put_inode(ino, inode).map_err(fault::store)
    }

    pub(super) fn put_entry(&mut self, parent: Ino, name: &[u8], entry: Entry) -> Result<(), Fault> {
        self.change(AccessKey::Entry(parent, name.to_vec()), Access::Write);
        self.batch.put_entry(parent, name, &entry).map_err(fault::store)
    }

    pub(super) fn remove_entry(&mut self, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        self.change(AccessKey::Entry(parent, name.to_vec()), Access::Write);
        self.batch.remove_entry(parent, name).map_err(fault::store)
    }

    /// The names in `dir` change, and with them its times and, by `subdirs`, its link count.
    pub(super) fn names_changed(&mut self, dir: Ino, subdirs: i64) -> Result<(), Fault> {
        self.change(AccessKey::Listing(dir), Access::Update);
        self.add_dir_stat(dir, DirStat { subdirs, atime: None, mtime: Some(self.now), ctime: Some(self.now) })
    }

    /// The names in `dir` are others; its times and link count are said by somebody else.
    pub(super) fn list_changed(&mut self, dir: Ino) {
        self.change(AccessKey::Listing(dir), Access::Update);
    }

    /// Changes a directory's times and link count, which nobody depends on.
    pub(super) fn add_dir_stat(&mut self, dir: Ino, stat: DirStat) -> Result<(), Fault> {
        self.batch.put_dir_stat(dir, stat).map_err(fault::store)
    }

    pub(super) fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.change(AccessKey::Xattr(ino, name.to_vec()), Access::Write);
        self.batch.put_xattr(ino, name, value).map_err(fault::store)
    }

    pub(super) fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), Fault> {
        self.change(AccessKey::Xattr(ino, name.to_vec()), Access::Write);
        self.xattr_names_changed(ino);
        self.batch.remove_xattr(ino, name).map_err(fault::store)
    }

    /// Which attributes `ino` has changes.
    pub(super) fn xattr_names_changed(&mut self, ino: Ino) {
        self.change(AccessKey::XattrList(ino), Access::Update);
    }

    /// Notes the change of a directory's or file's attributes, `inode` being its record so far: now.
    pub(super) fn set_ctime(&mut self, ino: Ino, inode: &mut Inode) -> Result<(), Fault> {
        inode.ctime = self.now;
        if inode.kind == FileKind::Directory {
            self.add_dir_stat(ino, DirStat { subdirs: 0, atime: None, mtime: None, ctime: Some(self.now) })?;
        }
        Ok(())
    }

    /// Takes one name from an inode.
    pub(super) fn drop_link(&mut self, ino: Ino, mut inode: Inode) -> Result<(), Fault> {
        if inode.kind == FileKind::Directory {
            inode.nlink = 0;
            // Whoever adds a name to it meanwhile conflicts, even if it never looked the directory up.
            self.change(AccessKey::Listing(ino), Access::Write);
        } else {
            inode.nlink = inode.nlink.saturating_sub(1);
        }
        self.set_ctime(ino, &mut inode)?;
        self.put_inode(ino, &inode)?;
        if inode.nlink == 0 && self.scope.is_trunk() {
            self.batch.add_orphan(ino).map_err(fault::store)?;
        }
        Ok(())
    }

    /// Takes away what a change of content or owner takes away: capabilities, and set-id bits that do not stay. Returns whether the mode
    /// is another one.
    pub(super) fn drop_privileges(&mut self, ino: Ino, inode: &mut Inode, set_ids: SetIds) -> Result<bool, Fault> {
        let before = inode.mode;
        if let SetIds::Go { gid } = set_ids {
            inode.mode &= !SET_USER_ID;
            if inode.mode & GROUP_EXECUTE != 0 || inode.gid != gid {
                inode.mode &= !SET_GROUP_ID;
            }
        }
        if self.xattr_unseen(ino, CAPABILITY)? {
            self.remove_xattr(ino, CAPABILITY)?;
        }
        Ok(inode.mode != before)
    }

    /// Whether a file that is written anyway has an attribute: setting one writes the file too, so its conflict is
    /// noticed without a report.
    fn xattr_unseen(&self, ino: Ino, name: &[u8]) -> Result<bool, Fault> {
        let reading = self.ops.store.xattr(&self.scope.sight, ino, name).map_err(fault::store)?;
        Ok(reading.found.is_some())
    }

    /// What `stat` shows of a file.
    pub(super) fn attr(&self, ino: Ino, inode: &Inode) -> Result<Attr, Fault> {
        if inode.kind != FileKind::Directory {
            return Ok(file_attr(ino, inode));
        }
        let stat = self.ops.store.dir_stat(&self.scope.sight, ino).map_err(fault::store)?;
        Ok(dir_attr(ino, inode, &stat))
    }

    /// What `stat` shows of a file just made.
    pub(super) fn new_attr(&self, ino: Ino, inode: &Inode) -> Attr {
        match inode.kind {
            FileKind::Directory => dir_attr(ino, inode, &DirStat::default()),
            _ => file_attr(ino, inode),
        }
    }

    /// Refuses to move the directory `moved` to below itself. The caller holds [`Ops::moves`]. The move rests on where the
    /// directories above its new place lie: somebody else who moves one of these could make a ring of the two.
    pub(super) fn require_outside(&mut self, moved: Ino, mut dir: Ino) -> Result<(), Fault> {
        self.change(AccessKey::Place(moved), Access::Write);
        for _ in 0..PARENTS_MAX {
            if dir == moved {
                return Err(Fault::new(FaultKind::Invalid, format!("directory {moved} can't move to below itself")));
            }
            if dir == Ino::ROOT {
                return Ok(());
            }
            self.change(AccessKey::Place(dir), Access::Update);
            dir = self.inode(dir)?.home.0;
        }
        Err(Fault::new(FaultKind::Io, format!("the parents of directory {dir} never end; check the store with fsck")))
    }

    /// Makes all changes visible at once and reports them. The locks of what changed are still held.
    pub(super) fn finish(self) -> Result<(), Fault> {
        // Of two versions of an object the one of the later interval is the later one: so it must be.
        if let Some((latest, key)) = self.latest.filter(|(latest, _)| *latest > self.scope.sight.writer) {
            return Err(self.scope.meet(&key, &[latest]));
        }
        if engine::has_refused() {
            return Err(fault::store(StoreError::Uncached));
        }
        if let Some(accesses) = self.scope.accesses.as_deref() {
            accesses.foresee(&self.changed)?;
        }
        self.ops.store.apply(self.batch).map_err(fault::store)?;
        if let Some(accesses) = self.scope.accesses.as_deref() {
            for (key, how) in self.changed {
                let newer = self.newer.iter().filter(|(of, _)| *of == key).map(|(_, newer)| *newer);
                let newer = newer.fold(Newer::default(), Newer::and);
                accesses.note(key, how, newer);
            }
        }
        Ok(())
    }
}

pub(crate) fn file_attr(ino: Ino, inode: &Inode) -> Attr {
    Attr {
        ino,
        kind: inode.kind,
        mode: inode.mode,
        nlink: inode.nlink,
        uid: inode.uid,
        gid: inode.gid,
        rdev: inode.rdev,
        size: inode.size,
        blocks: inode.blocks,
        atime: inode.atime,
        mtime: inode.mtime,
        ctime: inode.ctime,
        born: inode.born,
    }
}

/// A directory's times and links lie in its own record, so that names made side by side never conflict.
fn dir_attr(ino: Ino, inode: &Inode, stat: &DirStat) -> Attr {
    let subdirs = u32::try_from(stat.subdirs.max(0)).unwrap_or(u32::MAX);
    Attr {
        nlink: if inode.nlink == 0 { 0 } else { subdirs.saturating_add(2) },
        size: DIRECTORY_BYTES,
        blocks: DIRECTORY_BYTES / 512,
        atime: stat.atime.unwrap_or(inode.atime),
        mtime: stat.mtime.unwrap_or(inode.mtime),
        ctime: stat.ctime.unwrap_or(inode.ctime),
        ..file_attr(ino, inode)
    }
}

type Locked<'a, const N: usize> = (super::locks::Locked<'a>, [Option<Entry>; N]);

impl Ops {
    /// Reads names and locks their directories and what they name.
    pub(super) fn lock_names<const N: usize>(
        &self,
        op: &mut Op<'_>,
        names: [(Ino, &[u8]); N],
    ) -> Result<Locked<'_, N>, Fault> {
        for _ in 0..NAME_TRIES_MAX {
            let mut inos: Vec<Ino> = names.iter().map(|(parent, _)| *parent).collect();
            let mut expected = [None; N];
            for (slot, (parent, name)) in expected.iter_mut().zip(names) {
                // Looked at without a lock, to know what to lock; not an answer, so not reported.
                let reading = self.store.entry(&op.scope.sight, parent, name).map_err(fault::store)?;
                *slot = reading.found.map(|entry| entry.ino);
                inos.extend(*slot);
            }
            let locked = self.stripes.lock(&inos);
            let mut entries = [None; N];
            for (slot, (parent, name)) in entries.iter_mut().zip(names) {
                *slot = op.entry(parent, name)?;
            }
            if entries.map(|entry: Option<Entry>| entry.map(|e| e.ino)) == expected {
                return Ok((locked, entries));
            }
        }
        let (parent, name) = names[0];
        Err(Fault::new(
            FaultKind::Busy,
            format!("`{}` in directory {parent} changes all the time", name.escape_ascii()),
        ))
    }
}
