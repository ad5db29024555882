//! Listing directories.

use super::op::Op;
use super::{Ops, Scope, fault};
use crate::access::AccessKey;
use mojavefs::id::Ino;
use mojavefs::limits::LISTING_ENTRIES_MAX;
use mojavefs::protocol::DirEntry;
use mojavefs::protocol::fault::Fault;

impl Ops {
    /// Up to `limit` names of a directory after `after`, in the order of their bytes, and whether these are the last.
    pub fn read_dir(
        &self,
        scope: &Scope,
        ino: Ino,
        after: Option<&[u8]>,
        limit: u32,
    ) -> Result<(Vec<DirEntry>, bool), Fault> {
        let limit = (limit as usize).clamp(1, LISTING_ENTRIES_MAX);
        let mut op = Op::new(self, scope);
        op.living_dir(ino)?;
        op.sees_listing(ino);
        let page = self.store.entries(&scope.sight, ino, after, limit).map_err(fault::store)?;
        op.saw_list(AccessKey::Listing(ino), page.newer, &page.met)?;
        let page = page.found;
        let end = page.len() < limit;
        let entries = page.into_iter().map(|(name, entry)| DirEntry { name, ino: entry.ino, kind: entry.kind });
        Ok((entries.collect(), end))
    }
}
