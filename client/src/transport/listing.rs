//! Filling a kernel's page of a directory.

use super::answers::{Answered, entry};
use super::convert::type_of;
use crate::limits::{LISTING_BYTES_MAX, SHORT_LISTING_BYTES_MAX};
use mojavefs::protocol::fault::Fault;
use mojavefs_fs::{Call, Listed, Listing};
use mojavefs_fuse::protocol::{self, Answer, Attributes, Entry, Page};

/// Where in a mode its type begins.
const TYPE_SHIFT: u32 = 12;

/// The entries of a directory from a position on, as many as there is room for in so many bytes.
pub(super) fn page(call: &Call<'_>, (dir, from): (u64, u64), size: u32, with_attributes: bool) -> Answered {
    let most = match (with_attributes, call.view().names_are_told()) {
        (true, true) => SHORT_LISTING_BYTES_MAX,
        (true, false) => LISTING_BYTES_MAX,
        (false, _) => u32::MAX,
    };
    let mut page = Page::new(size.min(most), with_attributes);
    match with_attributes {
        true => files(call, (dir, from), &mut page)?,
        false => call.list_names(dir, from, |entry| page.add(&listed(&entry, entry.ino.shown())))?,
    }
    Ok(Answer::Listing(page))
}

fn listed<'a>(entry: &Listed<'a>, ino: u64) -> protocol::Listed<'a> {
    protocol::Listed { ino, next: entry.next, kind: type_of(entry.kind) >> TYPE_SHIFT, name: entry.name }
}

fn files(call: &Call<'_>, (dir, from): (u64, u64), page: &mut Page) -> Result<(), Fault> {
    let takes = |listing: Listed<'_>| {
        let plain = Attributes { ino: listing.ino.shown(), mode: type_of(listing.kind), ..Attributes::default() };
        let named = |attributes: Attributes| Entry { node: listing.ino.0, attributes, ..Entry::default() };
        let shown = match &listing.given {
            Listing::Given(given) => entry(given),
            Listing::Named => named(plain),
            // A size that can't be: the kernel lists it, keeps nothing of it, and forgets it at once.
            Listing::Gone => named(Attributes { size: u64::MAX, ..plain }),
        };
        page.add_with(&listed(&listing, shown.attributes.ino), &shown)
    };
    call.list_files(dir, from, takes)
}
