//! Where data and holes are, as programs see it. What they have written through mappings lies in the kernel until it writes
//! that out, and the server knows nothing of it: what looks like a hole is one only when nothing is left to write out there.

use super::slow::Turn;
use crate::limits::HOLE_TRIES_MAX;
use crate::view::View;
use fuser::{INodeNo, Notifier};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{ConnectionExt, Request, SeekWhence};
use std::sync::{Arc, OnceLock};

/// A question of a program's: where the first data, or the first hole, is from an offset on.
pub(super) struct Search {
    /// By whom the kernel is told to write out.
    pub(super) notifier: Arc<OnceLock<Notifier>>,
    pub(super) ino: Ino,
    pub(super) offset: u64,
    pub(super) whence: SeekWhence,
}

impl Search {
    /// The answer if there is no hole in it, which does not depend on what the kernel still has to write out; or an error that
    /// says nothing about holes.
    pub(super) fn without_hole(&self, view: &View) -> Option<Result<u64, Fault>> {
        let found = self.ask(view, self.whence, self.offset);
        match (&found, self.whence) {
            (Ok(at), SeekWhence::Data) if *at == self.offset => Some(found),
            (Ok(_), _) => None,
            (Err(fault), _) if fault.kind == FaultKind::NoData => None,
            (Err(_), _) => Some(found),
        }
    }

    /// The answer after the kernel has written out what lies in holes. Blocks until other threads have answered the kernel; so
    /// where those are few (`turn`), what is not known to be a hole counts as data, which is always right.
    pub(super) fn with_holes(&self, view: &View, turn: Turn) -> Result<u64, Fault> {
        match (turn, self.whence) {
            (Turn::Aside, SeekWhence::Data) => self.data(view),
            (Turn::Aside, SeekWhence::Hole) => self.hole(view),
            (Turn::AtOnce, _) => self.all_is_data(view),
        }
    }

    fn data(&self, view: &View) -> Result<u64, Fault> {
        match self.ask(view, SeekWhence::Data, self.offset) {
            Ok(at) => self.write_out(view, self.offset, Some(at)),
            Err(fault) if fault.kind == FaultKind::NoData => self.write_out(view, self.offset, None),
            Err(fault) => return Err(fault),
        }
        self.ask(view, SeekWhence::Data, self.offset)
    }

    fn hole(&self, view: &View) -> Result<u64, Fault> {
        let mut hole = self.ask(view, SeekWhence::Hole, self.offset)?;
        for _ in 0..HOLE_TRIES_MAX {
            match self.ask(view, SeekWhence::Data, hole) {
                Ok(end) => self.write_out(view, hole, Some(end)),
                Err(fault) if fault.kind == FaultKind::NoData => self.write_out(view, hole, None),
                Err(fault) => return Err(fault),
            }
            let again = self.ask(view, SeekWhence::Hole, self.offset)?;
            if again <= hole {
                return Ok(again);
            }
            hole = again;
        }
        self.all_is_data(view)
    }

    /// As if the file had no holes but the one behind its end.
    fn all_is_data(&self, view: &View) -> Result<u64, Fault> {
        let size = view.server().attr(Request::GetAttr { view: view.id(), ino: self.ino })?.size;
        match self.whence {
            _ if self.offset >= size => {
                let text = format!("inode {} ends before byte {}", self.ino, self.offset);
                Err(Fault::new(FaultKind::NoData, text))
            }
            SeekWhence::Data => Ok(self.offset),
            SeekWhence::Hole => Ok(size),
        }
    }

    fn ask(&self, view: &View, whence: SeekWhence, offset: u64) -> Result<u64, Fault> {
        view.server().offset(Request::Seek { view: view.id(), ino: self.ino, offset, whence })
    }

    /// Has the kernel write out what lies between two offsets, and forget it.
    fn write_out(&self, view: &View, from: u64, to: Option<u64>) {
        let Some(notifier) = self.notifier.get() else { return };
        let length = to.map_or(0, |to| to - from);
        let told = notifier.inval_inode(INodeNo(self.ino.0), from.cast_signed(), length.cast_signed());
        if let Err(error) = told.or_else(super::serve::harmless) {
            tracing::warn!("writing out inode {} in view {}: {error}", self.ino, view.id());
        }
    }
}
