//! Names: what they lead to, and what changes that.

use super::Given;
use crate::call::Call;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::FileKind;
use mojavefs::protocol::{ConnectionExt, RenameMode, Request};

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
        let view = self.view.id();
        match self.view.is_glancing(self.caller.pid) {
            true => self.view.give(Request::GlanceNamed { view, parent, name }),
            false => self.view.give(Request::Lookup { view, parent, name }),
        }
    }

    /// Makes a file in the name of the caller.
    pub fn create(&self, parent: Ino, name: &[u8], new: &NewFile) -> Result<Given, Fault> {
        let (view, uid, gid) = (self.view.id(), self.caller.uid, self.caller.gid);
        let NewFile { kind, mode, umask, rdev, ref target } = *new;
        let mode = mode & 0o7777;
        self.view.give(Request::Create { view, parent, name, kind, mode, umask, uid, gid, rdev, target })
    }

    /// Gives a file one more name.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Given, Fault> {
        self.view.give(Request::Link { view: self.view.id(), ino, parent, name })
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        self.server().done(Request::Unlink { view: self.view.id(), parent, name })
    }

    /// Removes an empty directory.
    pub fn remove_dir(&self, parent: Ino, name: &[u8]) -> Result<(), Fault> {
        self.server().done(Request::RemoveDir { view: self.view.id(), parent, name })
    }

    /// Renames.
    pub fn rename(&self, rename: &Rename) -> Result<(), Fault> {
        let Rename { from: (parent, name), to: (new_parent, new_name), mode } = rename;
        let (view, parent, new_parent, mode) = (self.view.id(), *parent, *new_parent, *mode);
        self.server().done(Request::Rename { view, parent, name, new_parent, new_name, mode })
    }

    /// Where a symbolic link leads to.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, Fault> {
        self.server().data(Request::ReadLink { view: self.view.id(), ino })
    }
}
