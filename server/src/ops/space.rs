//! Space, and what becomes of files without a name.

use super::{Ops, fault};
use mojavefs::protocol::SpaceInfo;
use mojavefs::protocol::fault::Fault;

impl Ops {
    /// What the disk under the store has.
    pub fn space(&self) -> Result<SpaceInfo, Fault> {
        self.store.space().map_err(fault::store)
    }
}
