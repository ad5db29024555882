//! Reading and writing a file's bytes as one view sees them.

use super::layers::Purpose;
use crate::limits::INLINE_BYTES_MAX;
use crate::store::keys::Order;
use crate::store::record::SECTOR_BYTES;
use crate::store::{Batch, BlockRecord, Inode, Sight, Store, StoreError};
use mojavefs::id::{BlockNo, ContentId, Ino, IntervalId, LayerId};
use mojavefs::limits::BLOCK_BYTES;
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::SeekWhence;
use std::collections::BTreeMap;
use std::ops::Range;

pub(super) const BLOCK: usize = BLOCK_BYTES as usize;
/// How many units of `st_blocks` a block is.
pub(super) const BLOCK_SECTORS: u64 = BLOCK_BYTES / SECTOR_BYTES;

/// The parts of a byte range by block: the block, and which of its bytes.
pub(super) fn by_block(offset: u64, len: u64) -> impl Iterator<Item = (BlockNo, Range<usize>)> {
    let end = offset + len;
    let blocks = if len == 0 { 0..0 } else { offset / BLOCK_BYTES..end.div_ceil(BLOCK_BYTES) };
    blocks.map(move |number| {
        let start = number * BLOCK_BYTES;
        let from = offset.max(start) - start;
        let to = end.min(start + BLOCK_BYTES) - start;
        (BlockNo(number), from as usize..to as usize)
    })
}

impl Store {
    /// Up to `len` bytes from `offset` on; fewer only at the end of the file.
    pub fn read_content(&self, sight: &Sight, inode: &Inode, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        let len = (len as u64).min(inode.size.saturating_sub(offset)) as usize;
        let mut data = vec![0; len];
        let Some(content) = inode.content.filter(|_| len > 0) else { return Ok(data) };
        if let Some(host) = content.host() {
            self.read_host((host, sight), inode, offset, &mut data)?;
            return Ok(data);
        }
        if inode.is_small()
            && let Some(bytes) = self.inline(sight, content)?.found
        {
            let have = bytes.get(offset as usize..).unwrap_or_default();
            let count = have.len().min(len);
            data[..count].copy_from_slice(&have[..count]);
            return Ok(data);
        }
        let last = BlockNo((offset + len as u64 - 1) / BLOCK_BYTES);
        let blocks = self.blocks(sight, content, BlockNo(offset / BLOCK_BYTES), last)?;
        let mut run: Option<(LayerId, Range<usize>)> = None;
        let mut runs = Vec::new();
        for (number, range) in by_block(offset, len as u64) {
            let start = (number.0 * BLOCK_BYTES + range.start as u64 - offset) as usize;
            let end = start + range.len();
            let layer = blocks.get(&number).map(|(place, _)| place.layer);
            match (&mut run, layer) {
                (Some((same, bytes)), Some(layer)) if *same == layer => bytes.end = end,
                (_, layer) => runs.extend(std::mem::replace(&mut run, layer.map(|layer| (layer, start..end)))),
            }
        }
        runs.extend(run);
        for (layer, range) in runs {
            self.content().read(layer, offset + range.start as u64, &mut data[range])?;
        }
        Ok(data)
    }

    /// Writes `data` at `offset`; the size grows as needed. The bytes are in the content files when this returns; they
    /// belong to the file once the batch is applied.
    pub fn write_content(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset + data.len() as u64;
        let size = inode.size.max(end);
        let stays_small = inode.is_small() && size <= INLINE_BYTES_MAX;
        if inode.content.is_none() || stays_small {
            self.require_room()?;
        }
        let content = self.content_of(inode)?;
        if stays_small {
            let mut bytes = self.inline_now(sight, batch, content)?.unwrap_or_default();
            bytes.resize(size as usize, 0);
            bytes[offset as usize..end as usize].copy_from_slice(data);
            batch.put_inline(content, &bytes);
            inode.blocks = size.div_ceil(SECTOR_BYTES);
        } else {
            self.clear_behind_end(sight, batch, inode, content, offset)?;
            self.spill(sight, batch, inode, content)?;
            self.write_blocks(sight, batch, inode, content, offset, data)?;
        }
        inode.size = size;
        Ok(())
    }

    /// A write that failed, or died with the daemon, may have left bytes behind the end: in the last block, or in those that
    /// were allocated there. Before the file grows over them, up to `until`, they go.
    fn clear_behind_end(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        content: ContentId,
        until: u64,
    ) -> Result<(), StoreError> {
        let end = inode.size;
        if inode.is_small() || until <= end {
            return Ok(());
        }
        let mut grown = Inode { size: until, ..inode.clone() };
        let last = BlockNo((until - 1) / BLOCK_BYTES);
        let mut next = self.next_block(sight, content, BlockNo(end / BLOCK_BYTES))?;
        while let Some(first) = next.filter(|first| *first <= last) {
            let until_block = BlockNo((first.0 + 1023).min(last.0));
            for (number, (place, _)) in self.blocks(sight, content, first, until_block)? {
                let start = (number.0 * BLOCK_BYTES).max(end);
                let bytes = start..((number.0 + 1) * BLOCK_BYTES).min(until);
                let len = (bytes.end - start) as usize;
                if self.content().has_data(place.layer, bytes)?
                    && self.read_content(sight, &grown, start, len)?.iter().any(|byte| *byte != 0)
                {
                    self.write_blocks(sight, batch, &mut grown, content, start, &vec![0; len])?;
                }
            }
            next = self.next_block(sight, content, BlockNo(until_block.0 + 1))?;
        }
        Ok(())
    }

    pub(super) fn content_of(&self, inode: &mut Inode) -> Result<ContentId, StoreError> {
        match inode.content {
            Some(content) => Ok(content),
            None => {
                let content = ContentId(self.next_id()?);
                inode.content = Some(content);
                Ok(content)
            }
        }
    }

    /// Moves a small content into a block, before it grows or space is allocated for it.
    pub(super) fn spill(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        content: ContentId,
    ) -> Result<(), StoreError> {
        if !inode.is_small() {
            return Ok(());
        }
        let Some(bytes) = self.inline_now(sight, batch, content)? else { return Ok(()) };
        batch.remove_inline(content);
        inode.blocks = 0;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let layer = self.place(sight, batch, content, (BlockNo(0), BlockNo(0)))?;
        self.content().write(Purpose { content, writer: sight.writer, grows: true }, layer, 0, &bytes)?;
        inode.blocks = BLOCK_SECTORS;
        Ok(())
    }

    fn write_blocks(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        content: ContentId,
        offset: u64,
        data: &[u8],
    ) -> Result<(), StoreError> {
        let end = offset + data.len() as u64;
        let last = BlockNo((end - 1) / BLOCK_BYTES);
        let mut purpose = Purpose { content, writer: sight.writer, grows: end > inode.size };
        let known = self.known(sight, batch, content, (BlockNo(offset / BLOCK_BYTES), last))?;
        let mut pending: Option<(LayerId, u64, Range<usize>)> = None;
        for (number, range) in by_block(offset, data.len() as u64) {
            let start = (number.0 * BLOCK_BYTES + range.start as u64 - offset) as usize;
            let piece = start..start + range.len();
            let at = offset + start as u64;
            let whole = range.len() == BLOCK || (range.start == 0 && at + range.len() as u64 >= inode.size);
            let (layer, composed) = match known.get(&number) {
                Some((place, order)) if self.in_place(sight, *order) => {
                    batch.note_rewrite();
                    (place.layer, None)
                }
                Some((place, _)) => {
                    let layer = self.place(sight, batch, content, (number, last))?;
                    purpose.grows = true;
                    let composed = (!whole).then(|| self.compose(place.layer, number, &range, &data[piece.clone()]));
                    (layer, composed.transpose()?)
                }
                None if data[piece.clone()].iter().all(|byte| *byte == 0) => {
                    self.write_run(purpose, &mut pending, data)?;
                    continue;
                }
                None => {
                    let layer = self.place(sight, batch, content, (number, last))?;
                    purpose.grows = true;
                    inode.blocks += BLOCK_SECTORS;
                    (layer, None)
                }
            };
            if let Some(block) = composed {
                self.content().write(purpose, layer, number.0 * BLOCK_BYTES, &block)?;
                continue;
            }
            match &mut pending {
                Some((same, _, run)) if *same == layer && run.end == piece.start => run.end = piece.end,
                _ => {
                    self.write_run(purpose, &mut pending, data)?;
                    pending = Some((layer, at, piece));
                }
            }
        }
        self.write_run(purpose, &mut pending, data)
    }

    /// The blocks of a range with what the operation has placed so far.
    pub(super) fn known(
        &self,
        sight: &Sight,
        batch: &Batch,
        content: ContentId,
        (first, last): (BlockNo, BlockNo),
    ) -> Result<BTreeMap<BlockNo, (BlockRecord, Order)>, StoreError> {
        let mut known = self.blocks(sight, content, first, last)?;
        known.extend(batch.places(content).map(|(number, layer)| (number, (BlockRecord { layer }, own_order(sight)))));
        Ok(known)
    }

    fn write_run(
        &self,
        purpose: Purpose,
        pending: &mut Option<(LayerId, u64, Range<usize>)>,
        data: &[u8],
    ) -> Result<(), StoreError> {
        match pending.take() {
            Some((layer, at, run)) => self.content().write(purpose, layer, at, &data[run]),
            None => Ok(()),
        }
    }

    /// A block of `layer` with a piece of it replaced.
    fn compose(
        &self,
        layer: LayerId,
        number: BlockNo,
        range: &Range<usize>,
        piece: &[u8],
    ) -> Result<Vec<u8>, StoreError> {
        let mut block = vec![0; BLOCK];
        self.content().read(layer, number.0 * BLOCK_BYTES, &mut block)?;
        block[range.clone()].copy_from_slice(piece);
        Ok(block)
    }

    /// Whether the writer may change a version where it lies: nobody else can see it as it was.
    pub(super) fn in_place(&self, sight: &Sight, order: Order) -> bool {
        match (sight.writer, order.interval()) {
            (IntervalId::FINAL, None) => !self.snapshots.needs(order, Order::undecided(IntervalId::FINAL)),
            (IntervalId::FINAL, Some(interval)) => {
                let committed = self.decided.read().committed.get(&interval).map(|committed| committed.seq);
                let order = committed.map(Order::is_final);
                order.is_some_and(|order| !self.snapshots.needs(order, Order::undecided(IntervalId::FINAL)))
            }
            (writer, interval) => interval == Some(writer),
        }
    }

    /// Finds a new place for a block, in a file that then is long enough for all blocks up to `last`.
    pub(super) fn place(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        content: ContentId,
        (number, last): (BlockNo, BlockNo),
    ) -> Result<LayerId, StoreError> {
        self.require_room()?;
        let layer = self.layer(sight, batch, content, number)?;
        self.content().cover(layer, last)?;
        batch.put_block(content, number, BlockRecord { layer })?;
        Ok(layer)
    }

    /// The layer for a block that can't be changed in place: one where no version of the block lies, not even one that
    /// the writer does not see. A snapshot may, and what is cut off there must not come up again; nor one whose bytes are
    /// still to be given back.
    fn layer(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        content: ContentId,
        number: BlockNo,
    ) -> Result<LayerId, StoreError> {
        let current = batch.new_layer(content).or_else(|| self.content().current(content, sight.writer));
        if let Some(layer) = current
            && !self.occupies(content, number, layer)?
        {
            return Ok(layer);
        }
        let layer = LayerId(self.next_id()?);
        self.content().create(layer, content, sight.writer)?;
        batch.add_layer(content, layer);
        Ok(layer)
    }

    /// Sets a file's size; what is cut off reads as zeros if the file grows again.
    pub fn truncate_content(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        (ino, inode): (Ino, &mut Inode),
        size: u64,
    ) -> Result<(), StoreError> {
        let Some(content) = inode.content else {
            inode.size = size;
            return Ok(());
        };
        if size == 0 {
            batch.discard_content(content, ino);
            inode.content = None;
            inode.blocks = 0;
        } else if let Some(mut bytes) = self.small(sight, batch, inode, content)? {
            if size <= INLINE_BYTES_MAX {
                bytes.resize(size as usize, 0);
                batch.put_inline(content, &bytes);
                inode.blocks = size.div_ceil(SECTOR_BYTES);
            } else {
                self.spill(sight, batch, inode, content)?;
            }
        } else if size > inode.size {
            self.clear_behind_end(sight, batch, inode, content, size)?;
        } else if size <= INLINE_BYTES_MAX {
            self.shrink_to_inline(sight, batch, inode, content, size)?;
        } else {
            // What is allocated behind the end goes, too.
            let from = if is_planted(Planted::WriteLostAtTruncate) { size - size % BLOCK_BYTES } else { size };
            self.zero_content(sight, batch, inode, from, u64::MAX)?;
        }
        inode.size = size;
        Ok(())
    }

    /// The bytes of a small content, with what the operation has done to them so far.
    fn inline_now(&self, sight: &Sight, batch: &Batch, content: ContentId) -> Result<Option<Vec<u8>>, StoreError> {
        match batch.inline(content)? {
            Some(changed) => Ok(changed),
            None => Ok(self.inline(sight, content)?.found),
        }
    }

    fn small(
        &self,
        sight: &Sight,
        batch: &Batch,
        inode: &Inode,
        content: ContentId,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        match inode.is_small() {
            true => Ok(Some(self.inline_now(sight, batch, content)?.unwrap_or_default())),
            false => Ok(None),
        }
    }

    /// A content that becomes small moves into the record store: where its bytes lie follows from its size. No block is
    /// written on the way: one without a record would leave its bytes behind.
    fn shrink_to_inline(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        content: ContentId,
        size: u64,
    ) -> Result<(), StoreError> {
        let bytes = self.read_content(sight, inode, 0, size as usize)?;
        self.zero_content(sight, batch, inode, 0, u64::MAX)?;
        batch.put_inline(content, &bytes);
        inode.blocks = size.div_ceil(SECTOR_BYTES);
        Ok(())
    }

    /// Makes a range read as zeros, without storing any, and frees what is allocated in it, also behind the end; the size stays.
    pub fn zero_content(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        offset: u64,
        len: u64,
    ) -> Result<(), StoreError> {
        let end = offset.saturating_add(len);
        let Some(content) = inode.content.filter(|_| offset < end) else { return Ok(()) };
        if let Some(mut bytes) = self.small(sight, batch, inode, content)? {
            let (size, end) = (inode.size as usize, inode.size.min(end) as usize);
            bytes.resize(size, 0);
            bytes[inode.size.min(offset) as usize..end].fill(0);
            batch.put_inline(content, &bytes);
            return Ok(());
        }
        let last = BlockNo((end - 1) / BLOCK_BYTES);
        let known = self.blocks(sight, content, BlockNo(offset / BLOCK_BYTES), last)?;
        for number in known.into_keys() {
            let start = number.0 * BLOCK_BYTES;
            let from = offset.max(start) - start;
            let to = end.min(start + BLOCK_BYTES) - start;
            let covers_rest = start < inode.size && start + to >= inode.size;
            if from == 0 && (to == BLOCK_BYTES || covers_rest) {
                batch.remove_block(content, number);
                inode.blocks = inode.blocks.saturating_sub(BLOCK_SECTORS);
            } else {
                let zeros = vec![0; (to - from) as usize];
                self.write_blocks(sight, batch, inode, content, start + from, &zeros)?;
            }
        }
        Ok(())
    }

    /// The next data or hole from `offset` on; `None` beyond the end, or when only a hole follows.
    pub fn seek_content(
        &self,
        sight: &Sight,
        inode: &Inode,
        offset: u64,
        whence: SeekWhence,
    ) -> Result<Option<u64>, StoreError> {
        if offset >= inode.size {
            return Ok(None);
        }
        let Some(content) = inode.content else {
            return Ok((whence == SeekWhence::Hole).then_some(offset));
        };
        // Where the host has holes is not looked for.
        if content.host().is_some() {
            return Ok(Some(if whence == SeekWhence::Data { offset } else { inode.size }));
        }
        if inode.is_small() {
            if is_planted(Planted::HoleOverData) && whence == SeekWhence::Data {
                return Ok(None);
            }
            return Ok(Some(if whence == SeekWhence::Data { offset } else { inode.size }));
        }
        let mut number = BlockNo(offset / BLOCK_BYTES);
        let at = |number: BlockNo| (number.0 * BLOCK_BYTES).max(offset);
        if whence == SeekWhence::Data {
            let next = self.next_block(sight, content, number)?;
            return Ok(next.map(at).filter(|at| *at < inode.size));
        }
        while at(number) < inode.size {
            let until = BlockNo(number.0 + 1023);
            let known = self.blocks(sight, content, number, until)?;
            for number in number.0..=until.0 {
                if !known.contains_key(&BlockNo(number)) {
                    return Ok(Some(at(BlockNo(number)).min(inode.size)));
                }
            }
            number = BlockNo(until.0 + 1);
        }
        Ok(Some(inode.size))
    }

    /// Makes one file durable: its content, and everything recorded before. Blocks for the disk.
    pub fn sync_file(&self, inode: &Inode) -> Result<(), StoreError> {
        if let Some(content) = inode.content {
            self.content().sync_content(content)?;
        }
        self.sync_records()
    }
}

/// The order of what the writer of `sight` writes now, for [`Store::in_place`].
fn own_order(sight: &Sight) -> Order {
    match sight.writer {
        IntervalId::FINAL => Order::is_final(mojavefs::id::Seq(u64::MAX >> 2)),
        writer => Order::undecided(writer),
    }
}
