//! Finding, making and removing names.

use super::op::Op;
use super::{Ops, Scope, fault};
use crate::store::{Entry, Inode, Sight};
use mojavefs::acl;
use mojavefs::id::Ino;
use mojavefs::limits::{LINKS_MAX, NAME_BYTES_MAX, SYMLINK_BYTES_MAX};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind, Name};

const SET_GROUP_ID: u32 = 0o2000;
const MODE_BITS: u32 = 0o7777;

/// A file to make.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits before the umask.
    pub mode: u32,
    /// Bits to clear, unless the directory has a default ACL.
    pub umask: u32,
    /// The owner.
    pub uid: u32,
    /// The group, unless the directory is set-group-id.
    pub gid: u32,
    /// The device number of a device node.
    pub rdev: u32,
    /// The target of a symbolic link; else empty.
    pub target: &'a [u8],
}

/// Refuses what no directory entry can be called.
pub(super) fn check_name(name: &[u8]) -> Result<(), Fault> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Fault::new(
            FaultKind::NameTooLong,
            format!("a name of {} bytes is longer than {NAME_BYTES_MAX}", name.len()),
        ));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Fault::new(FaultKind::Invalid, format!("`{}` can be no name", name.escape_ascii())));
    }
    Ok(())
}

impl Ops {
    /// Finds `name` in `parent`.
    pub fn lookup(&self, scope: &Scope, parent: Ino, name: &[u8]) -> Result<Attr, Fault> {
        check_name(name)?;
        let mut op = Op::new(self, scope);
        let entry = op.entry(parent, name)?.ok_or_else(|| fault::no_name(parent, name))?;
        let inode = op.inode_if_any(entry.ino)?.ok_or_else(|| fault::no_name(parent, name))?;
        op.attr(entry.ino, &inode)
    }

    /// Finds `name` in `parent` for a listing. What another has changed and not committed yet is not looked at: then the
    /// attributes are those without that, and false comes with them.
    pub fn glance(&self, scope: &Scope, parent: Ino, name: &[u8]) -> Result<(Attr, bool), Fault> {
        check_name(name)?;
        let mut op = Op::new(self, scope);
        let entry = op.entry(parent, name)?.ok_or_else(|| fault::no_name(parent, name))?;
        self.in_passing(op, entry.ino)?.ok_or_else(|| fault::no_name(parent, name))
    }

    /// A file's attributes for nobody who acts on them: what another has changed and not committed yet is not looked at, as in
    /// [`Ops::glance`].
    pub fn glance_at(&self, scope: &Scope, ino: Ino) -> Result<(Attr, bool), Fault> {
        self.in_passing(Op::new(self, scope), ino)?.ok_or_else(|| fault::gone(ino))
    }

    /// Finds `name` in `parent` for nobody who acts on it, as [`Ops::glance_at`]. Errors: `Busy` if another has made or removed it
    /// and not committed that yet.
    pub fn glance_named(&self, scope: &Scope, parent: Ino, name: &[u8]) -> Result<(Attr, bool), Fault> {
        check_name(name)?;
        let mut op = Op::new(self, scope);
        let entry = op.entry_in_passing(parent, name)?.ok_or_else(|| fault::no_name(parent, name))?;
        self.in_passing(op, entry.ino)?.ok_or_else(|| fault::no_name(parent, name))
    }

    fn in_passing(&self, mut op: Op<'_>, ino: Ino) -> Result<Option<(Attr, bool)>, Fault> {
        if let Some(inode) = op.inode_in_passing(ino)? {
            return Ok(Some((op.attr(ino, &inode)?, true)));
        }
        let sight = Sight { meets: false, ..op.scope.sight.clone() };
        let inode = self.store.inode(&sight, ino).map_err(fault::store)?.found;
        inode.map(|inode| Ok((op.attr(ino, &inode)?, false))).transpose()
    }

    /// Makes a file of any kind.
    pub fn create(&self, scope: &Scope, parent: Ino, name: &[u8], new: NewFile<'_>) -> Result<Attr, Fault> {
        check_name(name)?;
        let _locked = self.stripes.lock(&[parent]);
        let mut op = Op::new(self, scope);
        let dir = op.living_dir(parent)?;
        if op.entry(parent, name)?.is_some() {
            return Err(fault::exists(parent, name));
        }
        let home = (parent, name.to_vec());
        let (ino, inode) = self.new_inode(&mut op, &dir, home, new)?;
        op.create_inode(ino, &inode)?;
        op.put_entry(parent, name, Entry { ino, kind: new.kind })?;
        op.names_changed(parent, i64::from(new.kind == FileKind::Directory))?;
        let attr = op.new_attr(ino, &inode);
        op.finish()?;
        Ok(attr)
    }

    /// Makes a regular file without a name, which goes when no kernel knows it any more, unless it was given one. `about_to` is told its
    /// number before it is there.
    pub fn create_unnamed(
        &self,
        scope: &Scope,
        parent: Ino,
        new: NewFile<'_>,
        about_to: impl FnOnce(Ino),
    ) -> Result<Attr, Fault> {
        let _locked = self.stripes.lock(&[parent]);
        let mut op = Op::new(self, scope);
        let dir = op.living_dir(parent)?;
        let (ino, inode) = self.new_inode(&mut op, &dir, (parent, Vec::new()), new)?;
        let inode = Inode { nlink: 0, ..inode };
        op.create_unnamed(ino, &inode)?;
        let attr = op.new_attr(ino, &inode);
        about_to(ino);
        op.finish()?;
        Ok(attr)
    }

    /// Finds a file by its number, or the directory around a directory.
    pub fn lookup_inode(&self, scope: &Scope, ino: Ino, around: bool) -> Result<Attr, Fault> {
        let mut op = Op::new(self, scope);
        let inode = op.inode(ino)?;
        // What lost its last name is there for those who have it open, whose kernel knows it.
        if inode.nlink == 0 {
            return Err(fault::gone(ino));
        }
        if !around {
            return op.attr(ino, &inode);
        }
        if inode.kind != FileKind::Directory {
            return Err(fault::not_directory(ino));
        }
        let around = inode.home.0;
        let inode = op.inode(around)?;
        op.attr(around, &inode)
    }

    /// A file to be made in a directory, with its access control lists.
    fn new_inode(
        &self,
        op: &mut Op<'_>,
        dir: &Inode,
        home: (Ino, Name),
        new: NewFile<'_>,
    ) -> Result<(Ino, Inode), Fault> {
        let target = match new.kind {
            FileKind::Symlink => Some(check_target(new.target)?.to_vec()),
            _ => None,
        };
        let ino = self.store.next_ino().map_err(fault::store)?;
        let is_dir = new.kind == FileKind::Directory;
        let mut mode = new.mode & MODE_BITS;
        match op.default_acl(home.0, new.kind)? {
            Some((bytes, default)) => {
                let mut access = default;
                mode = access.inherit(mode);
                if !access.mode().1 {
                    op.put_xattr(ino, acl::ACCESS, &access.to_bytes())?;
                }
                if is_dir {
                    op.put_xattr(ino, acl::DEFAULT, &bytes)?;
                }
            }
            None if new.kind == FileKind::Symlink => mode = 0o777,
            None => mode &= !new.umask,
        }
        let from_dir = dir.mode & SET_GROUP_ID != 0;
        if from_dir && is_dir {
            mode |= SET_GROUP_ID;
        }
        let owner = (new.uid, if from_dir { dir.gid } else { new.gid });
        let inode = Inode {
            rdev: if is_device(new.kind) { new.rdev } else { 0 },
            nlink: if is_dir { 2 } else { 1 },
            size: target.as_ref().map_or(0, |t| t.len() as u64),
            target,
            ..Inode::new(new.kind, mode, owner, home, op.now)
        };
        Ok((ino, inode))
    }

    /// Adds the name `name` in `parent` to a file that is no directory.
    pub fn link(&self, scope: &Scope, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, Fault> {
        check_name(name)?;
        let _locked = self.stripes.lock(&[parent, ino]);
        let mut op = Op::new(self, scope);
        op.living_dir(parent)?;
        let mut inode = op.inode(ino)?;
        if inode.kind == FileKind::Directory {
            return Err(Fault::new(
                FaultKind::NotPermitted,
                format!("inode {ino} is a directory and has one name only"),
            ));
        }
        if op.entry(parent, name)?.is_some() {
            return Err(fault::exists(parent, name));
        }
        match inode.nlink {
            0 if inode.home.1.is_empty() => {
                inode.nlink = 1;
                inode.home = (parent, name.to_vec());
            }
            0 => return Err(Fault::new(FaultKind::NotFound, format!("inode {ino} has no name any more"))),
            LINKS_MAX.. => {
                return Err(Fault::new(FaultKind::TooManyLinks, format!("inode {ino} has {LINKS_MAX} names already")));
            }
            _ => inode.nlink += 1,
        }
        inode.ctime = op.now;
        op.put_inode(ino, &inode)?;
        op.put_entry(parent, name, Entry { ino, kind: inode.kind })?;
        op.names_changed(parent, 0)?;
        let attr = op.attr(ino, &inode)?;
        op.finish()?;
        Ok(attr)
    }

    /// Removes a name of a file that is no directory. Returns the inode, which lives on until it has no name and nobody holds
    /// it.
    pub fn unlink(&self, scope: &Scope, parent: Ino, name: &[u8]) -> Result<Ino, Fault> {
        check_name(name)?;
        let mut op = Op::new(self, scope);
        let (_locked, [entry]) = self.lock_names(&mut op, [(parent, name)])?;
        let entry = entry.ok_or_else(|| fault::no_name(parent, name))?;
        if entry.kind == FileKind::Directory {
            return Err(fault::is_directory(entry.ino));
        }
        let inode = op.inode(entry.ino)?;
        op.remove_entry(parent, name)?;
        op.names_changed(parent, 0)?;
        op.drop_link(entry.ino, inode)?;
        op.finish()?;
        Ok(entry.ino)
    }

    /// Removes an empty directory. Returns its inode, which lives on until nobody holds it.
    pub fn remove_dir(&self, scope: &Scope, parent: Ino, name: &[u8]) -> Result<Ino, Fault> {
        check_name(name)?;
        let mut op = Op::new(self, scope);
        let (_locked, [entry]) = self.lock_names(&mut op, [(parent, name)])?;
        let entry = entry.ok_or_else(|| fault::no_name(parent, name))?;
        if entry.kind != FileKind::Directory {
            return Err(fault::not_directory(entry.ino));
        }
        let inode = op.inode(entry.ino)?;
        op.require_empty(entry.ino)?;
        op.remove_entry(parent, name)?;
        op.names_changed(parent, -1)?;
        op.drop_link(entry.ino, inode)?;
        op.finish()?;
        Ok(entry.ino)
    }
}

fn is_device(kind: FileKind) -> bool {
    matches!(kind, FileKind::CharDevice | FileKind::BlockDevice)
}

fn check_target(target: &[u8]) -> Result<&[u8], Fault> {
    match target.len() {
        0 => Err(Fault::new(FaultKind::NotFound, "a symbolic link needs a target")),
        1..=SYMLINK_BYTES_MAX => Ok(target),
        len => Err(Fault::new(
            FaultKind::NameTooLong,
            format!("a target of {len} bytes is longer than {SYMLINK_BYTES_MAX}"),
        )),
    }
}
