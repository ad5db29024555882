//! A file's content on one side of a diff. No mount lies between it and the user, so it is seen to here that they get only
//! what the kernel would let them read.

use super::Daemon;
use super::caller::Caller;
use super::rights::{self, READ, SEARCH};
use crate::limits::PATCH_BYTES_MAX;
use mojavefs::acl;
use mojavefs::id::{Ino, SpecId, ViewId};
use mojavefs::limits::IO_BYTES_MAX;
use mojavefs::protocol::control::{Answer, Side};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind};
use mojavefs::protocol::{Connection, ConnectionExt, FsOp, ViewKind, ViewOp};

/// The content of a file, or a link's target, through a view of its own.
pub(super) fn content(
    daemon: &Daemon,
    caller: &Caller,
    (spec, side): (SpecId, Side),
    path: &[u8],
    bytes_max: u64,
) -> Result<Answer, Fault> {
    let (server, uid) = (&*daemon.connection, caller.uid);
    let kind = match side {
        Side::Before => ViewKind::Before { spec, uid },
        Side::After => ViewKind::After { spec, uid },
    };
    let view = server.view(ViewOp::Open(kind))?.view;
    let content = Reader { server, view, caller, path }.read(bytes_max.min(PATCH_BYTES_MAX));
    server.done(ViewOp::Close(view))?;
    content.map(Answer::Content)
}

struct Reader<'a> {
    server: &'a dyn Connection,
    view: ViewId,
    caller: &'a Caller,
    path: &'a [u8],
}

impl Reader<'_> {
    fn read(&self, bytes_max: u64) -> Result<Vec<u8>, Fault> {
        let (server, view) = (self.server, self.view);
        let mut attr = server.attr(FsOp::GetAttr { ino: Ino::ROOT }.on(view))?;
        for name in self.path.split(|byte| *byte == b'/') {
            self.check(&attr, SEARCH)?;
            let ino = server.attr(FsOp::Lookup { parent: attr.ino, name }.on(view))?.ino;
            attr = server.attr(FsOp::GetAttr { ino }.on(view))?;
        }
        let ino = attr.ino;
        match attr.kind {
            FileKind::Symlink => return server.data(FsOp::ReadLink { ino }.on(view)),
            FileKind::Regular => self.check(&attr, READ)?,
            _ => return Ok(Vec::new()),
        }
        if attr.size > bytes_max {
            let path = self.path.escape_ascii();
            let text = format!("{path} has {} bytes, more than the {bytes_max} shown", attr.size);
            return Err(Fault::new(FaultKind::TooLarge, text));
        }
        let mut content = Vec::new();
        while (content.len() as u64) < attr.size {
            let piece = FsOp::Read {
                ino,
                offset: content.len() as u64,
                size: IO_BYTES_MAX as u32,
                reads: mojavefs::protocol::Reads::Once,
            }
            .on(view);
            let data = server.data(piece)?;
            if data.is_empty() {
                break;
            }
            content.extend(data);
        }
        Ok(content)
    }

    /// Whether the caller may do this with a file on the way, or the last one.
    fn check(&self, attr: &Attr, wanted: u16) -> Result<(), Fault> {
        let acl = || match self.server.data(FsOp::GetXattr { ino: attr.ino, name: acl::ACCESS }.on(self.view)) {
            Ok(list) => Ok(Some(list)),
            Err(fault) if fault.kind == FaultKind::NoAttribute => Ok(None),
            Err(fault) => Err(fault),
        };
        match rights::allow(self.caller, attr, acl, wanted)? {
            true => Ok(()),
            false => {
                let text = format!("user {} may not read {}", self.caller.uid, self.path.escape_ascii());
                Err(Fault::new(FaultKind::AccessDenied, text))
            }
        }
    }
}
