//! What programs have stored to pages through mappings while others replaced the file: that, and nothing else of these pages, is written
//! to what replaces it.

use crate::view::View;
use mojavefs::id::Ino;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{ConnectionExt, Request};
use std::ops::Range;

/// Writes what differs in pages from what they were `before`, as far as the file still reaches. Returns where they lie.
pub(super) fn write_stored(view: &View, (ino, offset): (Ino, u64), before: &[u8], pages: &[u8]) -> Result<u64, Fault> {
    for stored in differences(before, pages) {
        let size = view.server().attr(Request::GetAttr { view: view.id(), ino })?.size;
        let at = offset + stored.start as u64;
        let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let data = &pages[stored][..];
        let data = &data[..data.len().min(left)];
        if !data.is_empty() {
            let (append, clear_set_id, mapped) = (false, false, true);
            let write = Request::Write { view: view.id(), ino, offset: at, data, append, clear_set_id, mapped };
            view.server().offset(write)?;
        }
    }
    Ok(offset)
}

/// The parts of the one in which it differs from the other, which is as if it went on with zeros.
fn differences(before: &[u8], after: &[u8]) -> Vec<Range<usize>> {
    let differs = |at: &usize| after[*at] != before.get(*at).copied().unwrap_or(0);
    let mut parts: Vec<Range<usize>> = Vec::new();
    for at in (0..after.len()).filter(differs) {
        match parts.last_mut() {
            Some(part) if part.end == at => part.end += 1,
            _ => parts.push(at..at + 1),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_what_differs() {
        let text = |before, after: &'static [u8]| -> Vec<&[u8]> {
            differences(before, after).into_iter().map(|part| &after[part]).collect()
        };
        let none: [&[u8]; 0] = [];
        assert_eq!(text(b"as it was", b"as it was"), none);
        assert_eq!(text(b"as it was", b"AS it wAs"), [&b"AS"[..], b"A"]);
        assert_eq!(text(b"short", b"short\0\0and\0"), [b"and"]);
        assert_eq!(text(b"", b""), none);
    }
}
