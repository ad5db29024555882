//! Space that is promised: blocks of zeros that take what they will take once they are written.
//!
//! They are recorded first, and take the space then: after a crash in between the file has them, and gives back with itself
//! whatever they took.

use super::io::{BLOCK, BLOCK_SECTORS, by_block};
use super::layers::Purpose;
use crate::limits::{ALLOCATED_AT_ONCE, COPIED_AT_ONCE, REMOVING_BYTES};
use crate::store::{Batch, Inode, Sight, Store, StoreError};
use mojavefs::id::{BlockNo, ContentId, LayerId};
use mojavefs::limits::BLOCK_BYTES;
use std::ops::Range;

/// What one step of an allocation has found places for.
#[derive(Debug, Default)]
pub struct Places {
    /// How far it got.
    pub until: u64,
    /// Blocks that are new.
    pub new: Vec<Range<u64>>,
    /// Which bytes of content files are to take their space.
    bytes: Vec<(LayerId, Range<u64>)>,
}

impl Places {
    fn add(&mut self, layer: LayerId, bytes: Range<u64>) {
        self.until = bytes.end;
        match self.bytes.last_mut() {
            Some((same, run)) if *same == layer && run.end == bytes.start => run.end = bytes.end,
            _ => self.bytes.push((layer, bytes)),
        }
    }

    fn add_new(&mut self, number: BlockNo) {
        match self.new.last_mut() {
            Some(run) if run.end == number.0 => run.end += 1,
            _ => self.new.push(number.0..number.0 + 1),
        }
    }
}

impl Store {
    /// Refuses to promise more than there is: at once, as far as what the file has says so.
    pub fn require_space(&self, inode: &Inode, bytes: &Range<u64>) -> Result<(), StoreError> {
        self.require_room()?;
        let wanted = (bytes.end - bytes.start).saturating_sub(inode.bytes_taken());
        let available = self.space()?.available_bytes.saturating_sub(REMOVING_BYTES);
        match wanted <= available {
            true => Ok(()),
            false => Err(StoreError::NoSpace(format!(
                "{wanted} bytes are to be allocated, and {available} are free; remove something or ask for less"
            ))),
        }
    }

    /// One bounded step of an allocation: gives every block of a range a place where the writer may change it. What is read
    /// stays the same.
    pub fn place_range(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        range: Range<u64>,
    ) -> Result<Places, StoreError> {
        let content = self.content_of(inode)?;
        self.spill(sight, batch, inode, content)?;
        let purpose = Purpose { content, writer: sight.writer, grows: true };
        let first = range.start / BLOCK_BYTES;
        let end = range.end.min((first + ALLOCATED_AT_ONCE) * BLOCK_BYTES);
        let last = BlockNo((end - 1) / BLOCK_BYTES);
        let known = self.known(sight, batch, content, (BlockNo(first), last))?;
        let (mut places, mut copied) = (Places { until: range.start, ..Places::default() }, 0);
        for (number, bytes) in by_block(range.start, end - range.start) {
            let layer = match known.get(&number) {
                Some((place, order)) if self.in_place(sight, *order) => {
                    self.content().whole(place.layer, (number.0 + 1) * BLOCK_BYTES)?;
                    place.layer
                }
                Some(_) if copied == COPIED_AT_ONCE => break,
                Some((place, _)) => {
                    copied += 1;
                    self.copy_block(sight, batch, (content, number), place.layer)?
                }
                None => {
                    let layer = self.place(sight, batch, content, (number, last))?;
                    self.content().grows(purpose, layer);
                    inode.blocks += BLOCK_SECTORS;
                    places.add_new(number);
                    layer
                }
            };
            let start = number.0 * BLOCK_BYTES;
            places.add(layer, start + bytes.start as u64..start + bytes.end as u64);
        }
        Ok(places)
    }

    /// A block that others see, too, gets a place of its own: later it may be too late for that.
    fn copy_block(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        (content, number): (ContentId, BlockNo),
        from: LayerId,
    ) -> Result<LayerId, StoreError> {
        let mut block = vec![0; BLOCK];
        self.content().read(from, number.0 * BLOCK_BYTES, &mut block)?;
        let layer = self.place(sight, batch, content, (number, number))?;
        let purpose = Purpose { content, writer: sight.writer, grows: true };
        self.content().write(purpose, layer, number.0 * BLOCK_BYTES, &block)?;
        Ok(layer)
    }

    /// Takes the space for what was placed, and is recorded by now.
    pub fn take_space(&self, sight: &Sight, inode: &Inode, places: &Places) -> Result<(), StoreError> {
        let Some(content) = inode.content else { return Ok(()) };
        let purpose = Purpose { content, writer: sight.writer, grows: true };
        places.bytes.iter().try_for_each(|(layer, bytes)| self.content().allocate(purpose, *layer, bytes.clone()))
    }

    /// Removes those of some blocks that are zeros still: they were allocated for a promise that can't be kept.
    pub fn unallocate(
        &self,
        sight: &Sight,
        batch: &mut Batch,
        inode: &mut Inode,
        blocks: &Range<u64>,
    ) -> Result<(), StoreError> {
        let Some(content) = inode.content.filter(|_| !blocks.is_empty()) else { return Ok(()) };
        let known = self.blocks(sight, content, BlockNo(blocks.start), BlockNo(blocks.end - 1))?;
        for (number, (place, order)) in known {
            let start = number.0 * BLOCK_BYTES;
            let mut block = vec![0; BLOCK];
            if self.content().has_data(place.layer, start..start + BLOCK_BYTES)? {
                self.content().read(place.layer, start, &mut block)?;
            }
            if self.in_place(sight, order) && block.iter().all(|byte| *byte == 0) {
                batch.remove_block(content, number);
                inode.blocks = inode.blocks.saturating_sub(BLOCK_SECTORS);
            }
        }
        Ok(())
    }
}
