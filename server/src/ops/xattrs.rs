//! Extended attributes, with access control lists among them.

use super::op::Op;
use super::{Ops, Scope, fault};
use crate::access::AccessKey;
use crate::store::Inode;
use mojavefs::acl::{self, Acl};
use mojavefs::id::Ino;
use mojavefs::limits::{XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use mojavefs::protocol::XattrMode;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{FileKind, Name};

const PERMISSION_BITS: u32 = 0o777;
const SET_GROUP_ID: u32 = 0o2000;

fn check(ino: Ino, name: &[u8]) -> Result<(), Fault> {
    match name.len() {
        0 => Err(Fault::new(FaultKind::Invalid, format!("an attribute of inode {ino} needs a name"))),
        1..=XATTR_NAME_BYTES_MAX if !name.contains(&0) => Ok(()),
        _ => Err(Fault::new(FaultKind::Range, format!("`{}` can be no attribute's name", name.escape_ascii()))),
    }
}

impl Ops {
    /// An attribute's value.
    pub fn get_xattr(&self, scope: &Scope, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Fault> {
        check(ino, name)?;
        let mut op = Op::new(self, scope);
        op.xattr(ino, name)?.ok_or_else(|| fault::no_attribute(ino, name))
    }

    /// The names of a file's attributes.
    pub fn list_xattr(&self, scope: &Scope, ino: Ino) -> Result<Vec<Name>, Fault> {
        let op = Op::new(self, scope);
        op.sees(AccessKey::XattrList(ino));
        let names = self.store.xattrs(&scope.sight, ino).map_err(fault::store)?;
        op.saw_list(AccessKey::XattrList(ino), names.newer, &names.met)?;
        Ok(names.found)
    }

    /// Sets an attribute. An access ACL sets the mode as well, and is the mode if it says no more.
    /// With `clear_set_gid` the set-group-id bit goes by that: whoever sets it is no member of the file's group.
    pub fn set_xattr(
        &self,
        scope: &Scope,
        ino: Ino,
        (name, value): (&[u8], &[u8]),
        mode: XattrMode,
        clear_set_gid: bool,
    ) -> Result<(), Fault> {
        check(ino, name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Fault::new(
                FaultKind::TooLarge,
                format!("an attribute's value of {} bytes is longer than {XATTR_VALUE_BYTES_MAX}", value.len()),
            ));
        }
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.inode(ino)?;
        let known = op.xattr(ino, name)?.is_some();
        match (mode, known) {
            (XattrMode::Create, true) => {
                let text = format!("inode {ino} has the attribute `{}` already", name.escape_ascii());
                return Err(Fault::new(FaultKind::Exists, text));
            }
            (XattrMode::Replace, false) => return Err(fault::no_attribute(ino, name)),
            _ => {}
        }
        let kept = match name {
            acl::ACCESS => {
                if clear_set_gid {
                    inode.mode &= !SET_GROUP_ID;
                }
                set_access(&mut op, ino, &mut inode, value)?
            }
            acl::DEFAULT => set_default(&mut op, ino, &inode, value)?,
            _ => {
                op.put_xattr(ino, name, value)?;
                true
            }
        };
        if kept && !known {
            op.xattr_names_changed(ino);
        } else if !kept && known {
            op.remove_xattr(ino, name)?;
        }
        op.set_ctime(ino, &mut inode)?;
        op.put_inode(ino, &inode)?;
        op.finish()
    }

    /// Removes an attribute.
    pub fn remove_xattr(&self, scope: &Scope, ino: Ino, name: &[u8]) -> Result<(), Fault> {
        check(ino, name)?;
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.inode(ino)?;
        if op.xattr(ino, name)?.is_none() {
            return Err(fault::no_attribute(ino, name));
        }
        op.remove_xattr(ino, name)?;
        op.set_ctime(ino, &mut inode)?;
        op.put_inode(ino, &inode)?;
        op.finish()
    }
}

/// Returns whether the list says more than the mode.
fn set_access(op: &mut Op<'_>, ino: Ino, inode: &mut Inode, value: &[u8]) -> Result<bool, Fault> {
    let Some(access) = Acl::parse(value).map_err(|why| fault::bad_acl(ino, why))? else { return Ok(false) };
    let (mode, is_mode) = access.mode();
    inode.mode = (inode.mode & !PERMISSION_BITS) | mode;
    if !is_mode {
        op.put_xattr(ino, acl::ACCESS, &access.to_bytes())?;
    }
    Ok(!is_mode)
}

/// Returns whether there is a list.
fn set_default(op: &mut Op<'_>, ino: Ino, inode: &Inode, value: &[u8]) -> Result<bool, Fault> {
    if inode.kind != FileKind::Directory {
        return Err(Fault::new(FaultKind::AccessDenied, format!("inode {ino} is no directory and has no default ACL")));
    }
    let Some(default) = Acl::parse(value).map_err(|why| fault::bad_acl(ino, why))? else { return Ok(false) };
    op.put_xattr(ino, acl::DEFAULT, &default.to_bytes())?;
    Ok(true)
}
