//! Attributes: reading and changing them.

use super::op::Op;
use super::{Ops, Scope, SetIds, fault};
use crate::store::{DirStat, Inode};
use mojavefs::acl::{self, Acl};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind, SetAttr, SetTime, Time};

const MODE_BITS: u32 = 0o7777;

impl Ops {
    /// A file's attributes.
    pub fn get_attr(&self, scope: &Scope, ino: Ino) -> Result<Attr, Fault> {
        let mut op = Op::new(self, scope);
        let inode = op.inode(ino)?;
        op.attr(ino, &inode)
    }

    /// Changes attributes, and the length of a regular file, for a caller of the group `gid`.
    pub fn set_attr(&self, scope: &Scope, ino: Ino, set: &SetAttr, gid: u32) -> Result<Attr, Fault> {
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.inode(ino)?;
        if let Some(size) = set.size {
            let set_ids = if set.clear_set_id { SetIds::Go { gid } } else { SetIds::Stay };
            // One that was made where files may be longer can be cut.
            if size > inode.size {
                self.check_end(ino, size, 0)?;
            }
            set_size(&mut op, ino, &mut inode, size, set_ids)?;
        }
        if set.uid.is_some() || set.gid.is_some() {
            set_owner(&mut op, ino, &mut inode, set)?;
        }
        if let Some(mode) = set.mode {
            set_mode(&mut op, ino, &mut inode, mode & MODE_BITS)?;
        }
        let now = op.now;
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let (atime, mtime) = (set.atime.map(time), set.mtime.map(time));
        set_times(&mut op, ino, &mut inode, atime, mtime)?;
        let only_times = set.mode.is_none() && set.uid.is_none() && set.gid.is_none();
        if inode.kind != FileKind::Directory || !only_times {
            op.put_inode(ino, &inode)?;
        }
        let after = AttrAfter { stat: DirStat { subdirs: 0, atime, mtime, ctime: Some(now) } };
        let attr = after.attr(&op, ino, &inode)?;
        op.finish()?;
        Ok(attr)
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, scope: &Scope, ino: Ino) -> Result<Vec<u8>, Fault> {
        let inode = Op::new(self, scope).inode(ino)?;
        inode.target.ok_or_else(|| Fault::new(FaultKind::Invalid, format!("inode {ino} is no symbolic link")))
    }
}

/// Attributes as they will be once the operation is applied.
struct AttrAfter {
    stat: DirStat,
}

impl AttrAfter {
    fn attr(&self, op: &Op<'_>, ino: Ino, inode: &Inode) -> Result<Attr, Fault> {
        let mut attr = op.attr(ino, inode)?;
        if inode.kind == FileKind::Directory {
            attr.atime = self.stat.atime.unwrap_or(attr.atime);
            attr.mtime = self.stat.mtime.unwrap_or(attr.mtime);
            attr.ctime = self.stat.ctime.unwrap_or(attr.ctime);
        }
        Ok(attr)
    }
}

fn set_size(op: &mut Op<'_>, ino: Ino, inode: &mut Inode, size: u64, set_ids: SetIds) -> Result<(), Fault> {
    match inode.kind {
        FileKind::Regular => {}
        FileKind::Directory => return Err(fault::is_directory(ino)),
        _ => return Err(fault::not_regular(ino)),
    }
    op.resize(ino, inode, size)?;
    inode.mtime = op.now;
    op.drop_privileges(ino, inode, set_ids).map(drop)
}

fn set_owner(op: &mut Op<'_>, ino: Ino, inode: &mut Inode, set: &SetAttr) -> Result<(), Fault> {
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    if inode.kind == FileKind::Directory {
        return Ok(());
    }
    // A group that may not run it keeps its bit: who may change the owner may keep that.
    let set_ids = SetIds::Go { gid: inode.gid };
    op.drop_privileges(ino, inode, set_ids).map(drop)
}

/// A new mode goes into the access ACL, too.
fn set_mode(op: &mut Op<'_>, ino: Ino, inode: &mut Inode, mode: u32) -> Result<(), Fault> {
    inode.mode = mode;
    let Some(bytes) = op.xattr(ino, acl::ACCESS)? else { return Ok(()) };
    if let Some(mut access) = Acl::parse(&bytes).map_err(|why| fault::bad_acl(ino, why))? {
        access.set_mode(mode);
        op.put_xattr(ino, acl::ACCESS, &access.to_bytes())?;
    }
    Ok(())
}

/// A directory's times lie with its names, those of everything else in its inode.
fn set_times(
    op: &mut Op<'_>,
    ino: Ino,
    inode: &mut Inode,
    atime: Option<Time>,
    mtime: Option<Time>,
) -> Result<(), Fault> {
    if inode.kind == FileKind::Directory {
        let ctime = Some(op.now);
        return op.add_dir_stat(ino, DirStat { subdirs: 0, atime, mtime, ctime });
    }
    inode.atime = atime.unwrap_or(inode.atime);
    inode.mtime = mtime.unwrap_or(inode.mtime);
    inode.ctime = op.now;
    Ok(())
}
