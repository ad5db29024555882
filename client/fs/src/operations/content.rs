//! The bytes of files.

use super::stored::differences;
use crate::call::Call;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::Changed;
use mojavefs::protocol::{ConnectionExt, FallocateMode, FsOp, Reads};

/// Some bytes of a file: from where on, and how many.
pub type Range = (Ino, u64, u64);

/// Where and how bytes are written to a file.
#[derive(Clone, Copy, Debug)]
pub struct Write {
    /// The file.
    pub ino: Ino,
    /// Where the first byte goes, unless it is appended.
    pub offset: u64,
    /// It goes behind what there is.
    pub append: bool,
    /// Set-id bits are lost by it.
    pub clear_set_id: bool,
    /// The kernel writes out pages, of which nobody may have written every byte.
    pub by_kernel: bool,
}

impl Call<'_> {
    /// Reads a range of a file, at most.
    pub fn read(&self, range: Range, reads: Reads) -> Result<Vec<u8>, Fault> {
        let (ino, offset, size) = range;
        let request = || self.asks(FsOp::Read { ino, offset, size: size as u32, reads });
        match self.view.decision_wait().filter(|_| reads != Reads::Once) {
            Some(wait) => wait.read(&request()),
            None => self.view.unless_refused(ino, || self.server().data(request())),
        }
    }

    /// Writes; returns where the bytes lie.
    pub fn write(&self, write: &Write, data: &[u8]) -> Result<Changed, Fault> {
        let Write { ino, offset, append, clear_set_id, by_kernel: mapped } = *write;
        self.server().changed(self.asks(FsOp::Write { ino, offset, data, append, clear_set_id, mapped }))
    }

    /// Writes what differs in pages from what they were `before`, as far as the file still reaches: what programs have stored to them
    /// through mappings while others replaced the file. Returns where they lie.
    pub fn write_stored(&self, write: &Write, before: &[u8], pages: &[u8]) -> Result<Changed, Fault> {
        for stored in differences(before, pages) {
            let size = self.server().attr(self.asks(FsOp::GetAttr { ino: write.ino }))?.size;
            let offset = write.offset + stored.start as u64;
            let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
            let data = &pages[stored][..];
            let data = &data[..data.len().min(left)];
            if !data.is_empty() {
                // Of these bytes none is old.
                let part = Write { offset, append: false, clear_set_id: false, by_kernel: false, ..*write };
                self.write(&part, data)?;
            }
        }
        Ok(Changed { at: write.offset, mode_changed: false })
    }

    /// Makes room, or holes, or zeros. Set-id bits are lost by it with `clear_set_id`.
    pub fn fallocate(&self, range: Range, mode: FallocateMode, clear_set_id: bool) -> Result<Changed, Fault> {
        let (ino, offset, len) = range;
        self.server().changed(self.asks(FsOp::Fallocate { ino, offset, len, mode, clear_set_id }))
    }

    /// Copies a range of a file to a place in another, or in the same. Returns how many bytes were copied. That one's set-id
    /// bits are lost by it with `clear_set_id`.
    pub fn copy(&self, from: Range, (to, to_offset): (Ino, u64), clear_set_id: bool) -> Result<Changed, Fault> {
        let (ino, offset, len) = from;
        self.server().changed(self.asks(FsOp::CopyRange { ino, offset, to, to_offset, len, clear_set_id }))
    }

    /// A program has closed a file: those who must see at once what it did are told. Unless it is to wait, that is refused where others
    /// have to be told first.
    pub fn close(&self, wait: bool) -> Result<(), Fault> {
        self.server().done(self.asks(FsOp::Settle { wait }))
    }

    /// What was done to a file is on disk.
    pub fn sync(&self, ino: Ino) -> Result<(), Fault> {
        self.server().done(self.asks(FsOp::Fsync { ino }))
    }
}
