//! Before an operation looks at something of the host's, the host is looked at.

use super::Session;
use super::files::file;
use super::names::entry;
use crate::limits::OPERATION_TRIES_MAX;
use crate::ops::Noted;
use crate::origin::{HostRead, Origin, Signature, store_fault};
use crate::store::{HostBytes, Inode, Key, Sight, StoreError};
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::protocol::FsOp;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;
use std::collections::HashSet;

/// How often a file is copied that changes meanwhile.
const PIN_TRIES_MAX: u32 = 3;

impl Session {
    /// Compares with the host what an operation in a view is about to use.
    pub(super) fn compare_for(&self, view: ViewId, op: &FsOp<'_>) -> Result<(), Fault> {
        let Some(origin) = self.shared.origin.clone() else { return Ok(()) };
        match op {
            FsOp::Lookup { parent, name } | FsOp::GlanceNamed { parent, name } => {
                self.compare_name(&origin, *parent, name)
            }
            FsOp::Create { parent, .. } | FsOp::Link { parent, .. } if origin.is_own(*parent) => {
                Err(Fault::new(FaultKind::AccessDenied, "undecided work lies here, which no job may change"))
            }
            FsOp::Create { parent, name, .. } => {
                self.compare_file(&origin, *parent)?;
                self.compare_name(&origin, *parent, name)
            }
            FsOp::Glance { parent, names } => {
                names.iter().try_for_each(|name| self.compare_name(&origin, *parent, name))
            }
            FsOp::Link { ino, parent, name } => {
                self.compare_file(&origin, *ino)?;
                self.compare_name(&origin, *parent, name)
            }
            FsOp::Unlink { parent, name } => self.compare_name(&origin, *parent, name),
            FsOp::RemoveDir { parent, name } => {
                self.compare_name(&origin, *parent, name)?;
                self.refuse_own(&origin, view, *parent, name)?;
                self.compare_target(&origin, view, *parent, name)
            }
            FsOp::Rename { parent, name, new_parent, new_name, .. } => {
                self.compare_name(&origin, *parent, name)?;
                self.compare_name(&origin, *new_parent, new_name)?;
                self.refuse_own(&origin, view, *parent, name)?;
                self.refuse_own(&origin, view, *new_parent, new_name)?;
                self.compare_target(&origin, view, *new_parent, new_name)
            }
            FsOp::ReadDir { ino, .. } => self.compare_list(&origin, *ino),
            FsOp::GetAttr { ino }
            | FsOp::GlanceAt { ino }
            | FsOp::LookupInode { ino, .. }
            | FsOp::ReadLink { ino }
            | FsOp::Read { ino, .. }
            | FsOp::Seek { ino, .. }
            | FsOp::GetXattr { ino, .. }
            | FsOp::ListXattr { ino }
            | FsOp::SetXattr { ino, .. }
            | FsOp::RemoveXattr { ino, .. }
            | FsOp::MakeCurrent { ino } => self.compare_file(&origin, *ino),
            FsOp::SetAttr { ino, set } => {
                self.compare_file(&origin, *ino)?;
                if set.size.is_some_and(|size| size > 0) { self.pin(&origin, view, *ino) } else { Ok(()) }
            }
            FsOp::Write { ino, .. } | FsOp::Fallocate { ino, .. } => self.pin(&origin, view, *ino),
            FsOp::CopyRange { ino, to, .. } => {
                self.compare_file(&origin, *ino)?;
                self.pin(&origin, view, *to)
            }
            _ => Ok(()),
        }
    }

    /// Refuses to remove or move the directory in which our own state lies, or one around that: as if something were mounted there.
    fn refuse_own(&self, origin: &Origin, view: ViewId, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        let found = self.on(view, |ops, scope| ops.host_entry(scope, parent, name))?;
        match found.is_some_and(|entry| origin.holds_own(entry.ino)) {
            true => Err(Fault::new(FaultKind::Busy, "undecided work lies here, which no job may move")),
            false => Ok(()),
        }
    }

    /// The names of a directory that a view shows at a name, which must be known to be none.
    fn compare_target(&self, origin: &Origin, view: ViewId, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        let found = self.on(view, |ops, scope| ops.host_entry(scope, parent, name))?;
        let dir = found.filter(|entry| entry.kind == FileKind::Directory);
        dir.map_or(Ok(()), |dir| self.compare_list(origin, dir.ino))
    }

    /// Compares with the host, while nobody else does: again whenever something is committed in between, which is no change of the host's.
    fn compare(&self, origin: &Origin, compare: impl Fn() -> Result<(), Fault>) -> Result<(), Fault> {
        for _ in 0..OPERATION_TRIES_MAX {
            self.shared.apply_before_looking(origin)?;
            let compared = {
                let _comparing = origin.comparing.lock();
                compare()
            };
            match compared {
                Err(fault) if fault.kind == FaultKind::Again => origin.waiting.wait(),
                result => return result,
            }
        }
        Err(Fault::new(FaultKind::Busy, "others commit all the time; try again later"))
    }

    /// Compares what a name leads to on the host with what is written down.
    pub(crate) fn compare_name(&self, origin: &Origin, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        let is_known = origin.is_known(parent, name);
        if !origin.has(parent) || !origin.has_to_look(parent, Some(name)) {
            return Ok(());
        }
        let compared = self.compare(origin, || self.compare_name_now(origin, (parent, name), is_known));
        compared.inspect_err(|_| origin.could_not_look(parent, Some(name)))
    }

    /// The same at once. Errors: `Again` if something was committed in between.
    fn compare_name_now(&self, origin: &Origin, (parent, name): (Ino, &[u8]), is_known: bool) -> Result<(), Fault> {
        if origin.waiting.is_about_name(parent, name) {
            return Ok(());
        }
        let Some(mut path) = origin.path_now(parent)? else { return Ok(()) };
        path.push(name.to_vec());
        let found = origin.find(&path)?;
        let known = self.on(self.trunk()?, |ops, scope| ops.host_entry(scope, parent, name))?;
        let files = [found.as_ref().map(|found| found.ino), known.map(|known| known.ino)];
        if files.into_iter().flatten().any(|ino| origin.waiting.is_about_file(ino)) {
            return Ok(());
        }
        let was = found.as_ref().map_or(Ok(None), |found| origin.signature(found.ino)).map_err(store_fault)?;
        if let Some(found) = &found
            && known.is_some_and(|known| known.ino == found.ino)
            && self.on(self.trunk()?, |ops, scope| ops.is_noted(scope, (parent, name), found, was.as_ref()))?
        {
            origin.has_looked(found.ino);
            return Ok(());
        }
        let what = |noted: &Noted| {
            let name = noted.name.then(|| entry(parent, name));
            name.into_iter().chain(noted.files.iter().flat_map(|ino| file(*ino))).collect()
        };
        let noted = self.change(self.trunk()?, what, |ops, scope| {
            self.demand_applied()?;
            ops.note_host_name(scope, (parent, name), (found.as_ref(), is_known), was.as_ref())
        })?;
        origin.has_changed(&noted.files).map_err(store_fault)?;
        found.iter().for_each(|found| origin.has_looked(found.ino));
        Ok(())
    }

    /// The same of a file by its number.
    pub(crate) fn compare_file(&self, origin: &Origin, ino: Ino) -> Result<(), Fault> {
        if ino == Ino::ROOT || !origin.has(ino) || !origin.has_to_look(ino, None) {
            return Ok(());
        }
        let compared = self.compare(origin, || {
            let scope = self.open_view(self.trunk()?)?.view.scope();
            match self.shared.ops.host_inode(&scope, ino)? {
                Some(Inode { home: (parent, name), nlink: 1.., .. }) => {
                    self.compare_name_now(origin, (parent, &name), true)
                }
                _ => Ok(()),
            }
        });
        compared.inspect_err(|_| origin.could_not_look(ino, None))
    }

    /// The same of all names of a directory.
    pub(crate) fn compare_list(&self, origin: &Origin, dir: Ino) -> Result<(), Fault> {
        self.compare_file(origin, dir)?;
        // Before this look counts.
        let was_listed = origin.is_listed(dir);
        if !origin.has(dir) || !origin.has_to_list(dir) {
            return Ok(());
        }
        let compared = self.compare(origin, || self.compare_list_now(origin, dir, was_listed));
        compared.inspect_err(|_| origin.could_not_list(dir))
    }

    /// The same at once. Errors: `Again` if something was committed in between.
    fn compare_list_now(&self, origin: &Origin, dir: Ino, was_listed: bool) -> Result<(), Fault> {
        let Some(path) = origin.path_now(dir)? else { return Ok(()) };
        let Some(names) = origin.list(&path, dir)? else { return Ok(()) };
        let is_known = |name: &[u8]| was_listed || origin.is_seen(dir, name);
        let others = self.on(self.trunk()?, |ops, scope| ops.note_host_names(scope, dir, &names, &is_known))?;
        others.iter().try_for_each(|name| self.compare_name_now(origin, (dir, name), is_known(name)))
    }

    /// Compares everything with the host that was ever looked at: before somebody stays with what is so now, and after.
    pub(super) fn compare_all(&self, origin: &Origin) -> Result<(), Fault> {
        origin.waiting.wait();
        origin.forget_looks();
        if origin.begins() {
            self.compare_recorded(origin)?;
        }
        let (names, dirs) = origin.looks();
        for (ino, name) in names {
            match name {
                Some(name) => self.compare_name(origin, ino, &name)?,
                None => self.compare_file(origin, ino)?,
            }
        }
        dirs.into_iter().try_for_each(|dir| self.compare_list(origin, dir))
    }

    /// The same with everything that is on record of earlier daemons.
    fn compare_recorded(&self, origin: &Origin) -> Result<(), Fault> {
        let (mut dirs, mut seen) = (vec![Ino::ROOT], HashSet::new());
        // What was moved on the host piece by piece may be on record in a ring, until it is looked at.
        while let Some(dir) = dirs.pop() {
            if !seen.insert(dir) {
                continue;
            }
            // Before the list brings more.
            let names = self.on(self.trunk()?, |ops, scope| ops.host_names(scope, dir))?;
            match self.compare_list(origin, dir) {
                // One above those that jobs are about need not be readable.
                Err(fault) if fault.kind != FaultKind::AccessDenied => return Err(fault),
                _ => {}
            }
            for (name, entry) in names {
                self.compare_name(origin, dir, &name)?;
                if entry.kind == FileKind::Directory && origin.has(entry.ino) {
                    dirs.push(entry.ino);
                }
            }
        }
        Ok(())
    }

    fn is_directory(&self, ino: Ino) -> Result<bool, Fault> {
        let inode = self.on(self.trunk()?, |ops, scope| ops.host_inode(scope, ino))?;
        Ok(inode.is_some_and(|inode| inode.kind == FileKind::Directory))
    }

    fn demand_applied(&self) -> Result<(), Fault> {
        match self.shared.has_to_apply() {
            false => Ok(()),
            true => Err(Fault::new(FaultKind::Again, "something was committed just now")),
        }
    }

    /// Compares with the host what a speculation is about to change there.
    pub(super) fn compare_changes(&self, actor: u32, spec: SpecId) -> Result<(), Fault> {
        let Some(origin) = self.shared.origin.clone() else { return Ok(()) };
        // One that is decided already has none.
        let Ok((keys, stays)) = self.shared.coordinator.keys_changed(spec, actor) else { return Ok(()) };
        if !keys.is_empty() {
            origin.waiting.wait();
        }
        origin.forget_looks();
        if stays {
            // Which of it was its own look is not known by name.
            self.compare_all(&origin)?;
        }
        for key in keys {
            match key {
                Key::Entry(dir, name) => {
                    self.compare_file(&origin, dir)?;
                    self.compare_name(&origin, dir, &name)?;
                }
                Key::Inode(ino) => {
                    self.compare_file(&origin, ino)?;
                    // Of a directory that goes everything goes.
                    if self.is_directory(ino)? {
                        self.compare_list(&origin, ino)?;
                    }
                }
                Key::Xattr(ino, _) => self.compare_file(&origin, ino)?,
                Key::DirStat(_) | Key::Inline(_) | Key::Block(..) => {}
            }
        }
        Ok(())
    }

    /// The bytes of a file of the host's that are about to be changed in a view are written down as they are.
    fn pin(&self, origin: &Origin, view: ViewId, ino: Ino) -> Result<(), Fault> {
        let Some(host) = self.on(view, |ops, scope| ops.bytes_of_host(scope, ino))? else { return Ok(()) };
        let store = &self.shared.store;
        for _ in 0..PIN_TRIES_MAX {
            if origin.file_waits(host).map_err(store_fault)? {
                origin.waiting.wait();
            }
            self.compare_file(origin, host)?;
            let _comparing = origin.comparing.lock();
            if store.pinned(host).map_err(store_fault)?.is_some() {
                return Ok(());
            }
            let path = store.host_path(&Sight::trunk(), host).map_err(store_fault)?;
            let Some(path) = path else { break };
            if let Some(before) = origin.find(&path)?.filter(|found| found.ino == host) {
                let (size, was) = (before.inode.size, Signature::of(&before.inode));
                let read = |offset, buffer: &mut [u8]| {
                    let bytes = HostBytes { offset, buffer, is_cached_only: false };
                    Ok(match origin.read_at(&path, host, bytes)? {
                        HostRead::Done(count) => count,
                        HostRead::Gone | HostRead::Uncached => 0,
                    })
                };
                let is_still = || {
                    let after = origin.find(&path).ok().flatten();
                    after.is_some_and(|after| after.ino == host && Signature::of(&after.inode) == was)
                };
                match store.pin((host, size), read, is_still) {
                    Ok(true) => return Ok(()),
                    Ok(false) | Err(StoreError::Changed(_)) => {}
                    Err(error) => return Err(store_fault(error)),
                }
            }
            origin.forget_looks();
        }
        Err(Fault::new(FaultKind::Busy, format!("file {} changes on the host all the time", host.shown())))
    }

    /// The view of this session that shows what is final.
    fn trunk(&self) -> Result<ViewId, Fault> {
        let none = || Fault::new(FaultKind::Protocol, "this session has no view of what is final");
        self.trunk.get().copied().ok_or_else(none)
    }
}
