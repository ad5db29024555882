//! Filling a kernel's page of a directory.

use super::GENERATION;
use super::answers::absent;
use super::convert::{attr, kind};
use crate::limits::CACHE_TIME;
use crate::view::View;
use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::Attr;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// Names from a position on. An error if there is not even one to give: what comes before it is said first, and then it is met again.
pub(super) fn names(view: &View, handle: u64, offset: u64, reply: &mut ReplyDirectory) -> Result<(), Fault> {
    let dir = view.dir(handle)?;
    let mut listing = dir.lock();
    if offset == 0 {
        listing.rewind(view);
    }
    let mut position = offset as usize;
    loop {
        match listing.entry(view, position) {
            Ok(Some(entry)) => {
                position += 1;
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(INodeNo(entry.ino.0), position as u64, kind(entry.kind), name) {
                    return Ok(());
                }
            }
            Ok(None) => return Ok(()),
            Err(_) if position > offset as usize => return Ok(()),
            Err(fault) => return Err(fault),
        }
    }
}

/// The same with each file's attributes.
pub(super) fn files(view: &View, handle: u64, offset: u64, reply: &mut ReplyDirectoryPlus) -> Result<(), Fault> {
    let dir = view.dir(handle)?;
    let mut listing = dir.lock();
    if offset == 0 {
        listing.rewind(view);
    }
    let (dir, mut position, mut is_empty) = (listing.ino(), offset as usize, true);
    loop {
        let entry = match listing.entry(view, position) {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(()),
            Err(_) if !is_empty => return Ok(()),
            Err(fault) => return Err(fault),
        };
        position += 1;
        let name = OsStr::from_bytes(&entry.name);
        let plain = Attr { ino: entry.ino, kind: entry.kind, ..absent() };
        // A size that can't be: the kernel lists it, keeps nothing of it, and forgets it at once.
        let only_listed = Attr { size: u64::MAX, ..plain.clone() };
        // The kernel does not count `.` and `..` as looked up.
        let given = match position {
            ..=2 => None,
            _ => match view.give_listed(dir, &entry.name) {
                Ok((given, _)) if given.ino != entry.ino => {
                    view.take_back(given.ino);
                    None
                }
                Ok(given) => Some(given),
                Err(fault) if matches!(fault.kind, FaultKind::NotFound | FaultKind::NotFoundNow) => None,
                Err(_) if !is_empty => return Ok(()),
                Err(fault) => return Err(fault),
            },
        };
        let (shown, time) = match &given {
            Some((given, true)) => (given, CACHE_TIME),
            Some((given, false)) => (given, Duration::ZERO),
            None if position <= 2 => (&plain, Duration::ZERO),
            // The name does not lead there any more; it did when the listing began.
            None => {
                view.is_given(entry.ino);
                (&only_listed, Duration::ZERO)
            }
        };
        if reply.add(INodeNo(shown.ino.0), position as u64, name, &time, &attr(shown), GENERATION) {
            if position > 2 {
                view.take_back(shown.ino);
            }
            return Ok(());
        }
        is_empty = false;
    }
}
