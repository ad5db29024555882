//! Content: reading, writing, holes, copies, and when it is on disk.

use super::op::Op;
use super::{Ops, Scope, SetIds, fault};
use crate::limits::{COPY_BYTES_MAX, COPY_PIECE_BYTES};
use crate::store::{Inode, StoreError};
use mojavefs::id::Ino;
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Changed;
use mojavefs::protocol::{FallocateMode, SeekWhence};
use std::ops::Range;

/// What one step of an allocation did.
#[derive(Debug)]
pub struct Allocated {
    /// How far it got.
    pub until: u64,
    /// The numbers of blocks that were not there before.
    pub new: Vec<Range<u64>>,
    /// Why the space was not to be had, if it was not.
    pub refused: Option<Fault>,
}

impl Op<'_> {
    /// Sets the length of a regular file.
    pub(super) fn resize(&mut self, ino: Ino, inode: &mut Inode, size: u64) -> Result<(), Fault> {
        let (store, sight) = (self.store(), &self.scope.sight);
        if size == 0 && inode.content.is_some_and(|content| content.host().is_some()) {
            (inode.content, inode.size, inode.blocks) = (None, 0, 0);
            return Ok(());
        }
        store.own_content(inode).map_err(fault::store)?;
        store.truncate_content(sight, &mut self.batch, (ino, inode), size).map_err(|e| self.scope.content_fault(ino, e))
    }

    fn zero(&mut self, ino: Ino, inode: &mut Inode, offset: u64, len: u64) -> Result<(), Fault> {
        let (store, sight) = (self.store(), &self.scope.sight);
        let zeroed = store.zero_content(sight, &mut self.batch, inode, offset, len);
        zeroed.map_err(|e| self.scope.content_fault(ino, e))
    }

    fn write(&mut self, ino: Ino, inode: &mut Inode, offset: u64, data: &[u8]) -> Result<(), Fault> {
        let (store, sight) = (self.store(), &self.scope.sight);
        let written = store.write_content(sight, &mut self.batch, inode, offset, data);
        written.map_err(|e| self.scope.content_fault(ino, e))
    }

    /// A regular file whose bytes are about to be changed.
    fn regular_to_change(&mut self, ino: Ino) -> Result<Inode, Fault> {
        let mut inode = self.regular(ino)?;
        self.store().own_content(&mut inode).map_err(fault::store)?;
        Ok(inode)
    }

    /// Notes that the content changed. Returns whether the mode did, too.
    fn content_changed(&mut self, ino: Ino, inode: &mut Inode, set_ids: SetIds) -> Result<bool, Fault> {
        inode.mtime = self.now;
        inode.ctime = self.now;
        let mode_changed = self.drop_privileges(ino, inode, set_ids)?;
        self.put_inode(ino, inode)?;
        Ok(mode_changed)
    }
}

impl Ops {
    /// Refuses what would reach beyond the largest file; the end otherwise.
    pub(super) fn check_end(&self, ino: Ino, offset: u64, len: u64) -> Result<u64, Fault> {
        let end = u128::from(offset) + u128::from(len);
        match u64::try_from(end) {
            Ok(end) if end <= self.store.file_bytes_max() => Ok(end),
            _ => Err(fault::too_large(ino, end)),
        }
    }

    /// Up to `size` bytes from `offset` on; fewer only at the end.
    pub fn read(&self, scope: &Scope, ino: Ino, offset: u64, size: u32) -> Result<Vec<u8>, Fault> {
        let _shared = self.stripes.share(ino);
        let inode = Op::new(self, scope).regular(ino)?;
        let size = (size as usize).min(IO_BYTES_MAX);
        let read = self.store.read_content(&scope.sight, &inode, offset, size);
        read.map_err(|e| scope.content_fault(ino, e))
    }

    /// Writes all of `data` at `offset`, or at the end, wherever that is. Returns where.
    pub fn write(
        &self,
        scope: &Scope,
        ino: Ino,
        (offset, append): (u64, bool),
        data: &[u8],
        set_ids: SetIds,
    ) -> Result<Changed, Fault> {
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.regular_to_change(ino)?;
        let offset = if append { inode.size } else { offset };
        self.check_end(ino, offset, data.len() as u64)?;
        op.write(ino, &mut inode, offset, data)?;
        let mode_changed = op.content_changed(ino, &mut inode, set_ids)?;
        op.finish()?;
        Ok(Changed { at: offset, mode_changed })
    }

    /// Allocates, punches or zeroes a range. Returns its end. To allocate, the space must have been taken
    /// ([`Ops::allocate`]).
    pub fn fallocate(
        &self,
        scope: &Scope,
        ino: Ino,
        (offset, len): (u64, u64),
        mode: FallocateMode,
        set_ids: SetIds,
    ) -> Result<Changed, Fault> {
        let end = self.check_range(ino, (offset, len))?;
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.regular_to_change(ino)?;
        let keep_size = match mode {
            FallocateMode::Allocate { keep_size } => keep_size,
            FallocateMode::PunchHole => {
                op.zero(ino, &mut inode, offset, len)?;
                true
            }
            FallocateMode::ZeroRange { keep_size } => {
                op.zero(ino, &mut inode, offset, len)?;
                keep_size
            }
        };
        if !keep_size && end > inode.size {
            op.resize(ino, &mut inode, end)?;
        }
        let mode_changed = op.content_changed(ino, &mut inode, set_ids)?;
        op.finish()?;
        Ok(Changed { at: end, mode_changed })
    }

    /// The end of a range that a file can have.
    pub(crate) fn check_range(&self, ino: Ino, (offset, len): (u64, u64)) -> Result<u64, Fault> {
        match len {
            0 => Err(Fault::new(FaultKind::Invalid, "a range to allocate has a length")),
            len => self.check_end(ino, offset, len),
        }
    }

    /// One bounded step of taking the space for a range: writing there takes no more. Nothing else changes by it. What is
    /// refused has to be given back ([`Ops::unallocate`]) by who gives it up.
    pub fn allocate(&self, scope: &Scope, ino: Ino, range: Range<u64>) -> Result<Allocated, Fault> {
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.regular_to_change(ino)?;
        self.store.require_space(&inode, &range).map_err(fault::store)?;
        let places = self.store.place_range(&scope.sight, &mut op.batch, &mut inode, range);
        let places = places.map_err(|e| scope.content_fault(ino, e))?;
        if !op.batch.is_empty() {
            op.put_inode(ino, &inode)?;
            op.finish()?;
        }
        let refused = match self.store.take_space(&scope.sight, &inode, &places) {
            // It begins again, and finds its blocks.
            Err(uncached @ StoreError::Uncached) => return Err(fault::store(uncached)),
            result => result.err().map(fault::store),
        };
        Ok(Allocated { until: places.until, new: places.new, refused })
    }

    /// Removes those of some blocks that are zeros still.
    pub fn unallocate(&self, scope: &Scope, ino: Ino, blocks: &Range<u64>) -> Result<(), Fault> {
        let _locked = self.stripes.lock(&[ino]);
        let mut op = Op::new(self, scope);
        let mut inode = op.regular_to_change(ino)?;
        let given = self.store.unallocate(&scope.sight, &mut op.batch, &mut inode, blocks);
        given.map_err(|e| scope.content_fault(ino, e))?;
        if op.batch.is_empty() {
            return Ok(());
        }
        op.put_inode(ino, &inode)?;
        op.finish()
    }

    /// Finds data or a hole from `offset` on.
    pub fn seek(&self, scope: &Scope, ino: Ino, offset: u64, whence: SeekWhence) -> Result<u64, Fault> {
        let _shared = self.stripes.share(ino);
        let inode = Op::new(self, scope).regular(ino)?;
        let found = self.store.seek_content(&scope.sight, &inode, offset, whence);
        let found = found.map_err(|e| scope.content_fault(ino, e))?;
        found.ok_or_else(|| Fault::new(FaultKind::NoData, format!("nothing follows byte {offset} of inode {ino}")))
    }

    /// Copies up to `len` bytes from one file to another, or within one where the ranges don't overlap. Returns how many;
    /// fewer at the end of the source and beyond [`COPY_BYTES_MAX`].
    pub fn copy_range(
        &self,
        scope: &Scope,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u64,
        set_ids: SetIds,
    ) -> Result<Changed, Fault> {
        let ((source, offset), (target, to_offset)) = (from, to);
        // Of the source as it is now: a copy within one file makes it longer.
        let size = Op::new(self, scope).regular(source)?.size;
        let len = len.min(size.saturating_sub(offset)).min(COPY_BYTES_MAX);
        self.check_end(target, to_offset, len)?;
        if source == target && offset < to_offset + len && to_offset < offset + len {
            return Err(Fault::new(FaultKind::Invalid, format!("the ranges of inode {source} to copy overlap")));
        }
        let mut done = Changed::default();
        while done.at < len {
            let piece = (len - done.at).min(COPY_PIECE_BYTES) as u32;
            let (from, to) = ((source, offset + done.at), (target, to_offset + done.at));
            match self.copy_piece(scope, from, to, piece, set_ids) {
                Ok(Changed { at: 0, .. }) => break,
                Ok(Changed { at, mode_changed }) => {
                    done = Changed { at: done.at + at, mode_changed: done.mode_changed || mode_changed };
                }
                // The rest is asked for again.
                Err(_) if done.at > 0 => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(done)
    }

    fn copy_piece(
        &self,
        scope: &Scope,
        from: (Ino, u64),
        to: (Ino, u64),
        len: u32,
        set_ids: SetIds,
    ) -> Result<Changed, Fault> {
        let data = self.read(scope, from.0, from.1, len)?;
        if data.is_empty() {
            return Ok(Changed::default());
        }
        let written = self.write(scope, to.0, (to.1, false), &data, set_ids)?;
        Ok(Changed { at: data.len() as u64, ..written })
    }

    /// Makes a file durable. Inside a speculation it returns at once: it is durable when it commits. Else it blocks for
    /// the disk.
    pub fn fsync(&self, scope: &Scope, ino: Ino) -> Result<(), Fault> {
        if !scope.is_trunk() {
            return Ok(());
        }
        match self.store.inode(&scope.sight, ino).map_err(fault::store)?.found {
            Some(inode) => self.store.sync_file(&inode).map_err(fault::store),
            None => Err(fault::gone(ino)),
        }
    }
}
