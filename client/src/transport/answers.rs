//! What comes of operations, as kernels are answered.

use super::convert::{attributes, lasting};
use super::owners;
use mojavefs::limits::NAME_BYTES_MAX;
use mojavefs::protocol::SpaceInfo;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_fs::{Given, View};
use mojavefs_fuse::protocol::{Answer, Entry, Opened, OpenedFlags, Space};
use nix::libc;

/// What of an operation a kernel is answered.
pub(super) type Answered = Result<Answer, Fault>;

/// Nothing but that it is done.
pub(super) fn done(result: Result<(), Fault>) -> Answered {
    result.map(|()| Answer::Done)
}

/// What a name leads to; false if the kernel must not keep that.
pub(super) fn entry((found, lasts): &Given) -> Entry {
    let (name_lasts, attributes_last) = (lasting(*lasts), lasting(*lasts));
    Entry { node: found.ino.0, generation: 0, name_lasts, attributes_last, attributes: attributes(found) }
}

/// A name that was made.
pub(super) fn made(result: Result<Given, Fault>) -> Answered {
    result.map(|given| Answer::Entry(entry(&given)))
}

/// A name that was looked up.
pub(super) fn looked_up(result: Result<Given, Fault>) -> Answered {
    match result {
        Err(fault) if fault.kind == FaultKind::NotFound => {
            Ok(Answer::Entry(Entry { name_lasts: lasting(true), ..Entry::default() }))
        }
        result => made(result),
    }
}

/// How a file is open that was opened with these flags. Its pages stay: the kernel is told when they change. What a program that only
/// reads has done by closing it, if it closes it, is nobody's concern, unless it lets go of locks by that.
pub(super) fn opened(flags: u32, number: u64, unlocks_at_close: bool) -> Opened {
    let is_silent = flags.cast_signed() & libc::O_ACCMODE == libc::O_RDONLY && !unlocks_at_close;
    let flags = if is_silent { OpenedFlags::NOFLUSH } else { OpenedFlags::NONE };
    let handle = owners::handle(number, is_silent);
    Opened { handle, flags: flags.and(OpenedFlags::KEEP_CACHE), ..Opened::default() }
}

/// A file is open.
pub(super) fn open(view: &View, opened: Opened) -> Answer {
    view.opens_file();
    Answer::Opened(opened)
}

/// A file that was made and is open with these flags.
pub(super) fn created(view: &View, result: Result<Given, Fault>, (flags, handle): (u32, u64)) -> Answered {
    let exclusively = flags & libc::O_EXCL.cast_unsigned() != 0;
    match result {
        Ok(given) => {
            view.opens_file();
            Ok(Answer::Created(entry(&given), opened(flags, handle, false)))
        }
        // Somebody else was first, which is as good: the kernel looks again, and opens what is there by its own rules.
        Err(fault) if fault.kind == FaultKind::Exists && !exclusively => Err(Fault { kind: FaultKind::Stale, ..fault }),
        Err(fault) => Err(fault),
    }
}

/// A file's attributes; false if the kernel must not keep them.
pub(super) fn found(result: Result<Given, Fault>) -> Answered {
    result.map(|(found, lasts)| Answer::Attributes(attributes(&found), lasting(lasts)))
}

/// The same with when it was made.
pub(super) fn found_with_birth(result: Result<Given, Fault>) -> Answered {
    result.map(|(found, lasts)| Answer::Statx(attributes(&found), lasting(lasts)))
}

/// A value, or how long it is if no room was given.
pub(super) fn xattr(result: Result<Vec<u8>, Fault>, size: u32) -> Answered {
    let value = result?;
    match size {
        0 => Ok(Answer::Length(value.len() as u32)),
        size if value.len() <= size as usize => Ok(Answer::Data(value)),
        _ => Err(Fault::new(FaultKind::Range, format!("{} bytes are more than {size}", value.len()))),
    }
}

/// The space under the store.
pub(super) fn space(space: &SpaceInfo) -> Answer {
    const UNIT: u64 = 4096;
    Answer::Space(Space {
        unit: UNIT as u32,
        total: space.total_bytes / UNIT,
        free: space.free_bytes / UNIT,
        available: space.available_bytes / UNIT,
        files: space.files + space.files_free,
        files_free: space.files_free,
        name_bytes: NAME_BYTES_MAX as u32,
    })
}
