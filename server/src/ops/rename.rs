//! Renaming: replace, refuse or exchange.

use super::names::check_name;
use super::op::Op;
use super::{Ops, Scope, fault};
use crate::store::{Entry, Inode};
use mojavefs::id::Ino;
use mojavefs::protocol::RenameMode;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::FileKind;

/// A name and what it names.
struct Place<'a> {
    parent: Ino,
    name: &'a [u8],
    entry: Entry,
}

impl Place<'_> {
    fn is_dir(&self) -> bool {
        self.entry.kind == FileKind::Directory
    }
}

impl Ops {
    /// Renames `from` to `to`, each a directory and a name. Returns the inode that lost a name by it. `owner` is who a whiteout belongs to, user and
    /// group, if one is left.
    pub fn rename(
        &self,
        scope: &Scope,
        from: (Ino, &[u8]),
        to: (Ino, &[u8]),
        mode: RenameMode,
        owner: (u32, u32),
    ) -> Result<Option<Ino>, Fault> {
        check_name(from.1)?;
        check_name(to.1)?;
        let _one_move = (from.0 != to.0).then(|| self.moves.lock());
        let mut op = Op::new(self, scope);
        let (_locked, [source, target]) = self.lock_names(&mut op, [from, to])?;
        let source = source.ok_or_else(|| fault::no_name(from.0, from.1))?;
        op.living_dir(from.0)?;
        op.living_dir(to.0)?;
        let source = Place { parent: from.0, name: from.1, entry: source };
        let target = target.map(|entry| Place { parent: to.0, name: to.1, entry });
        let lost = match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => return Err(fault::exists(to.0, to.1)),
            (RenameMode::Exchange, None) => return Err(fault::no_name(to.0, to.1)),
            (RenameMode::Exchange, Some(target)) => {
                exchange(&mut op, &source, &target)?;
                None
            }
            (_, Some(target)) if target.entry.ino == source.entry.ino => return Ok(None),
            (_, target) => {
                let lost = replace(&mut op, &source, to, target)?;
                if mode == RenameMode::Whiteout {
                    self.leave_whiteout(&mut op, (source.parent, source.name), owner)?;
                }
                lost
            }
        };
        op.finish()?;
        Ok(lost)
    }
}

impl Ops {
    fn leave_whiteout(&self, op: &mut Op<'_>, (parent, name): (Ino, &[u8]), owner: (u32, u32)) -> Result<(), Fault> {
        let ino = self.store.next_ino().map_err(fault::store)?;
        let kind = FileKind::CharDevice;
        let inode = Inode::new(kind, 0, owner, (parent, name.to_vec()), op.now);
        op.create_inode(ino, &inode)?;
        op.put_entry(parent, name, Entry { ino, kind })
    }
}

fn replace(
    op: &mut Op<'_>,
    source: &Place<'_>,
    (parent, name): (Ino, &[u8]),
    target: Option<Place<'_>>,
) -> Result<Option<Ino>, Fault> {
    if source.is_dir() && source.parent != parent {
        op.require_outside(source.entry.ino, parent)?;
    }
    if let Some(target) = &target {
        match (source.is_dir(), target.is_dir()) {
            (true, false) => return Err(fault::not_directory(target.entry.ino)),
            (false, true) => return Err(fault::is_directory(target.entry.ino)),
            (true, true) => op.require_empty(target.entry.ino)?,
            (false, false) => {}
        }
        let inode = op.inode(target.entry.ino)?;
        op.drop_link(target.entry.ino, inode)?;
    }
    op.remove_entry(source.parent, source.name)?;
    op.put_entry(parent, name, source.entry)?;
    rehome(op, source.entry.ino, parent, name)?;
    let moved = i64::from(source.is_dir());
    let lost = i64::from(target.as_ref().is_some_and(Place::is_dir));
    if source.parent == parent {
        op.names_changed(parent, -lost)?;
    } else {
        op.names_changed(source.parent, -moved)?;
        op.names_changed(parent, moved - lost)?;
    }
    Ok(target.map(|target| target.entry.ino))
}

fn exchange(op: &mut Op<'_>, a: &Place<'_>, b: &Place<'_>) -> Result<(), Fault> {
    if a.entry.ino == b.entry.ino {
        return Ok(());
    }
    for (moved, dir) in [(a, b.parent), (b, a.parent)] {
        if moved.is_dir() && moved.parent != dir {
            op.require_outside(moved.entry.ino, dir)?;
        }
    }
    op.put_entry(a.parent, a.name, b.entry)?;
    op.put_entry(b.parent, b.name, a.entry)?;
    rehome(op, a.entry.ino, b.parent, b.name)?;
    rehome(op, b.entry.ino, a.parent, a.name)?;
    let gained = i64::from(b.is_dir()) - i64::from(a.is_dir());
    if a.parent == b.parent {
        op.names_changed(a.parent, 0)
    } else {
        op.names_changed(a.parent, gained)?;
        op.names_changed(b.parent, -gained)
    }
}

/// The inode is called `name` in `parent` from now on.
fn rehome(op: &mut Op<'_>, ino: Ino, parent: Ino, name: &[u8]) -> Result<(), Fault> {
    let mut inode: Inode = op.inode(ino)?;
    if inode.nlink == 0 {
        return Err(Fault::new(FaultKind::NotFound, format!("inode {ino} has no name any more")));
    }
    inode.home = (parent, name.to_vec());
    op.set_ctime(ino, &mut inode)?;
    op.put_inode(ino, &inode)
}
