//! Attributes, plain and extended.

use super::Given;
use crate::call::Call;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::SetAttr;
use mojavefs::protocol::{ConnectionExt, FsOp, SpaceInfo, XattrMode};

impl Call<'_> {
    /// A file's attributes. Whoever supervises the job looks at nobody's undecided work by that: it asks on behalf of a process that does
    /// not run.
    pub fn attributes(&self, ino: Ino) -> Result<Given, Fault> {
        match self.view.only_glances(self.caller.pid) {
            true => self.server().given(self.asks(FsOp::GlanceAt { ino })),
            false => self.view.unless_refused(ino, || self.server().given(self.asks(FsOp::GetAttr { ino }))),
        }
    }

    /// Changes what of a file's attributes is named.
    pub fn set_attributes(&self, ino: Ino, set: &SetAttr) -> Result<Given, Fault> {
        self.server().given(self.asks(FsOp::SetAttr { ino, set: set.clone() }))
    }

    /// An extended attribute's value.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Fault> {
        match self.view.control_of(name) {
            Some(value) => Ok(value.to_vec()),
            None => self.server().data(self.asks(FsOp::GetXattr { ino, name })),
        }
    }

    /// Sets an extended attribute. With `clear_set_gid` it is an access ACL whose setter may not keep the set-group-id bit.
    pub fn set_xattr(
        &self,
        ino: Ino,
        (name, value): (&[u8], &[u8]),
        mode: XattrMode,
        clear_set_gid: bool,
    ) -> Result<(), Fault> {
        if self.view.control_of(name).is_some() {
            return Err(Fault::new(FaultKind::NotPermitted, "what the daemon is found by is not to be set"));
        }
        self.server().done(self.asks(FsOp::SetXattr { ino, name, value, mode, clear_set_gid }))
    }

    /// The names of all extended attributes, each with a zero byte behind it.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<u8>, Fault> {
        let names = self.server().names(self.asks(FsOp::ListXattr { ino }))?;
        Ok(names.into_iter().flat_map(|name| [name, vec![0]].concat()).collect())
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), Fault> {
        self.server().done(self.asks(FsOp::RemoveXattr { ino, name }))
    }

    /// The space under the store.
    pub fn space(&self) -> Result<SpaceInfo, Fault> {
        self.server().space(self.asks(FsOp::StatFs))
    }
}
