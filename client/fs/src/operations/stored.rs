//! What programs have stored to pages through mappings while others replaced the file: that, and nothing else of these pages, is written
//! to what replaces it.

use std::ops::Range;

/// The parts of the one in which it differs from the other, which is as if it went on with zeros.
pub(super) fn differences(before: &[u8], after: &[u8]) -> Vec<Range<usize>> {
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
