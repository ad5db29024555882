//! Filling a kernel's page of a directory.

use super::GENERATION;
use super::answers::{absent, time};
use super::convert::{attr, kind};
use fuser::{INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::file::Attr;
use mojavefs_fs::{Call, Listed, Listing};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Names from a position on.
pub(super) fn names(call: &Call<'_>, dir: u64, from: u64, reply: &mut ReplyDirectory) -> Result<(), Fault> {
    let takes = |entry: Listed<'_>| {
        !reply.add(INodeNo(entry.ino.0), entry.next, kind(entry.kind), OsStr::from_bytes(entry.name))
    };
    call.list_names(dir, from, takes)
}

/// The same with each file's attributes.
pub(super) fn files(call: &Call<'_>, dir: u64, from: u64, reply: &mut ReplyDirectoryPlus) -> Result<(), Fault> {
    let takes = |entry: Listed<'_>| {
        let plain = Attr { ino: entry.ino, kind: entry.kind, ..absent() };
        let (shown, lasts) = match entry.given {
            Listing::Given(given) => given,
            Listing::Named => (plain, false),
            // A size that can't be: the kernel lists it, keeps nothing of it, and forgets it at once.
            Listing::Gone => (Attr { size: u64::MAX, ..plain }, false),
        };
        let (ino, name) = (INodeNo(shown.ino.0), OsStr::from_bytes(entry.name));
        !reply.add(ino, entry.next, name, &time(lasts), &attr(&shown), GENERATION)
    };
    call.list_files(dir, from, takes)
}
