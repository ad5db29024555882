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
        // Whether the caller may keep set-id bits is hidden from us here; root may.
        let set = SetAttr { clear_set_id: set.size.is_some() && self.caller.uid != 0, ..set.clone() };
        self.server().given(self.asks(FsOp::SetAttr { ino, set }))
    }

    /// An extended attribute's value.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, Fault> {
        match self.view.control_of(name) {
            Some(value) => Ok(value.to_vec()),
            None => self.server().data(self.asks(FsOp::GetXattr { ino, name })),
        }
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode) -> Result<(), Fault> {
        if self.view.control_of(name).is_some() {
            return Err(Fault::new(FaultKind::NotPermitted, "what the daemon is found by is not to be set"));
        }
        self.server().done(self.asks(FsOp::SetXattr { ino, name, value, mode }))
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
