//! Names: what they lead to, and what changes that.

use super::Given;
use crate::call::Call;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{ConnectionExt, FsOp, RenameMode};

/// What a new file is made from.
#[derive(Clone, Debug)]
pub struct NewFile {
    /// What it is.
    pub kind: FileKind,
    /// The lower 12 bits of its mode; more is ignored.
    pub mode: u32,
    /// What of them is left out where the directory has no default ACL.
    pub umask: u32,
    /// The device that it stands for, if it does, as the kernel numbers them.
    pub rdev: u32,
    /// Where it leads to, if it is a symbolic link.
    pub target: Vec<u8>,
}

/// A name that is to be another one, of the same or of another directory.
#[derive(Clone, Debug)]
pub struct Rename {
    /// The name, and its directory.
    pub from: (Ino, Vec<u8>),
    /// What it is to be.
    pub to: (Ino, Vec<u8>),
    /// What becomes of what is there.
    pub mode: RenameMode,
}

impl Call<'_> {
    /// What a name leads to. Whoever does not act on it looks at nobody's undecided work by that.
    pub fn look_up(&self, parent: Ino, name: &[u8]) -> Result<Given, Fault> {
        match self.view.is_glancing(self.caller.pid) {
            true => self.view.give(self.asks(FsOp::GlanceNamed { parent, name })),
            false => self.view.give(self.asks(FsOp::Lookup { parent, name })),
        }
    }

    /// Makes a file in the name of the caller.
    pub fn create(&self, parent: Ino, name: &[u8], new: &NewFile) -> Result<Given, Fault> {
        let NewFile { kind, mode, umask, rdev, ref target } = *new;
        let mode = mode & 0o7777;
        self.view.give(self.asks(FsOp::Create { parent, name, kind, mode, umask, rdev, target }))
    }

    /// Makes a regular file without a name in the name of the caller.
    pub fn create_unnamed(&self, parent: Ino, new: &NewFile) -> Result<Given, Fault> {
        let (mode, umask) = (new.mode & 0o7777, new.umask);
        self.view.give(self.asks(FsOp::CreateUnnamed { parent, mode, umask }))
    }

    /// Finds a file by its number, or the directory around a directory.
    pub fn look_up_inode(&self, ino: Ino, around: bool) -> Result<Given, Fault> {
        self.view.give(self.asks(FsOp::LookupInode { ino, around }))
    }

    /// Gives a file one more name.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Given, Fault> {
        self.view.give(self.asks(FsOp::Link { ino, parent, name }))
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        self.server().done(self.asks(FsOp::Unlink { parent, name }))
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        self.server().done(self.asks(FsOp::RemoveDir { parent, name }))
    }

    /// Renames.
    pub fn rename(&self, rename: &Rename) -> Result<(), Fault> {
        let Rename { from: (parent, name), to: (new_parent, new_name), mode } = rename;
        let (parent, new_parent, mode) = (*parent, *new_parent, *mode);
        self.server().done(self.asks(FsOp::Rename { parent, name, new_parent, new_name, mode }))
    }

    /// Where a symbolic link leads to.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, Fault> {
        self.server().data(self.asks(FsOp::ReadLink { ino }))
    }
}
