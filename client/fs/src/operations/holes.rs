//! Where data and holes are, as programs see it. What they have written through mappings lies in the kernel until it writes
//! that out, and the server knows nothing of it: what looks like a hole is one only when nothing is left to write out there.

use crate::call::Call;
use crate::limits::HOLE_TRIES_MAX;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{ConnectionExt, FsOp, SeekWhence};

/// A kernel that can be told to write out what it has of a file.
pub trait WritesOut {
    /// Has it write out what lies between two offsets (or up to the end), and forget it. Blocks until other threads have answered it.
    fn write_out(&self, ino: Ino, from: u64, to: Option<u64>);
}

impl Call<'_> {
    /// Where the first data, or the first hole, of a file is from an offset on, if there is no hole in the answer, which then does not depend
    /// on what the kernel still has to write out; or an error that says nothing about holes.
    pub fn seek_at_once(&self, ino: Ino, offset: u64, whence: SeekWhence) -> Option<Result<u64, Fault>> {
        let found = self.ask_for(ino, whence, offset);
        match (&found, whence) {
            (Ok(at), SeekWhence::Data) if *at == offset => Some(found),
            (Ok(_), _) => None,
            (Err(fault), _) if fault.kind == FaultKind::NoData => None,
            (Err(_), _) => Some(found),
        }
    }

    /// The answer after the kernel has written out what lies in holes. Without a kernel that may be waited for, what is not known to be a
    /// hole counts as data, which is always right.
    pub fn seek(
        &self,
        ino: Ino,
        offset: u64,
        whence: SeekWhence,
        kernel: Option<&dyn WritesOut>,
    ) -> Result<u64, Fault> {
        let Some(kernel) = kernel else { return self.all_is_data(ino, offset, whence) };
        let search = Search { call: self, kernel, ino, offset };
        match whence {
            SeekWhence::Data => search.data(),
            SeekWhence::Hole => search.hole(),
        }
    }

    /// As if the file had no holes but the one behind its end.
    fn all_is_data(&self, ino: Ino, offset: u64, whence: SeekWhence) -> Result<u64, Fault> {
        let size = self.server().attr(self.asks(FsOp::GetAttr { ino }))?.size;
        match whence {
            _ if offset >= size => Err(Fault::new(FaultKind::NoData, format!("inode {ino} ends before byte {offset}"))),
            SeekWhence::Data => Ok(offset),
            SeekWhence::Hole => Ok(size),
        }
    }

    fn ask_for(&self, ino: Ino, whence: SeekWhence, offset: u64) -> Result<u64, Fault> {
        self.server().offset(self.asks(FsOp::Seek { ino, offset, whence }))
    }
}

/// A question of a program's, whose answer has a hole in it.
struct Search<'a> {
    call: &'a Call<'a>,
    kernel: &'a dyn WritesOut,
    ino: Ino,
    offset: u64,
}

impl Search<'_> {
    fn ask(&self, whence: SeekWhence, offset: u64) -> Result<u64, Fault> {
        self.call.ask_for(self.ino, whence, offset)
    }

    /// The hole that begins there is written to, if the kernel has anything for it.
    fn fill(&self, hole: u64) -> Result<(), Fault> {
        let end = match self.ask(SeekWhence::Data, hole) {
            Ok(end) => Some(end),
            Err(fault) if fault.kind == FaultKind::NoData => None,
            Err(fault) => return Err(fault),
        };
        self.kernel.write_out(self.ino, hole, end);
        Ok(())
    }

    fn data(&self) -> Result<u64, Fault> {
        self.fill(self.offset)?;
        self.ask(SeekWhence::Data, self.offset)
    }

    fn hole(&self) -> Result<u64, Fault> {
        let mut hole = self.ask(SeekWhence::Hole, self.offset)?;
        for _ in 0..HOLE_TRIES_MAX {
            self.fill(hole)?;
            let again = self.ask(SeekWhence::Hole, self.offset)?;
            if again <= hole {
                return Ok(again);
            }
            hole = again;
        }
        self.call.all_is_data(self.ino, self.offset, SeekWhence::Hole)
    }
}
