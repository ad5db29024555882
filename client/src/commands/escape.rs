//! What others have named, for people: nothing in it reaches the terminal as a command.

use std::fmt::Write;

/// A path for people, unambiguous: control characters, bytes that are no text, and the backslash are escaped.
pub(crate) fn shown(path: &[u8]) -> String {
    match path {
        b"" => "/".to_owned(),
        path => escape(path, |c| c == '\\' || is_control(c)),
    }
}

/// A command for people, escaped in the same way.
pub(crate) fn escaped(command: &str) -> String {
    escape(command.as_bytes(), |c| c == '\\' || is_control(c))
}

/// A whole message, in which what was escaped already stays as it is.
pub(crate) fn harmless(message: &str) -> String {
    escape(message.as_bytes(), is_control)
}

/// Also those that change the order or the lines of what a terminal shows.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(bytes: &[u8], must: impl Fn(char) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match must(c) {
                true => escape_bytes(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                false => text.push(c),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    // Writing into a string does not fail.
    let _ = write!(text, "{}", bytes.escape_ascii());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_must_be_is_escaped() {
        assert_eq!(shown("ä b'\"".as_bytes()), "ä b'\"");
        assert_eq!(shown(b""), "/");
        assert_eq!(escaped("a\\nb\n\x1b[2J"), "a\\\\nb\\n\\x1b[2J");
        assert_eq!(shown(b"\xc3\xa4\xff"), "ä\\xff");
        assert_eq!(escaped("\u{9b}x\u{202e}"), "\\xc2\\x9bx\\xe2\\x80\\xae");
        assert_eq!(harmless("`a\\\\b`\r"), "`a\\\\b`\\r");
    }
}
