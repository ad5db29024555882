//! What others have named, for people: nothing in it reaches the terminal as a command.

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

/// A path as `patch` and `git apply` read it in the head of a patch: in double quotes and escaped as in C, if it must be.
pub(crate) fn in_patch(path: &[u8]) -> String {
    let must = |c: char| matches!(c, '"' | '\\') || is_control(c);
    let octal = |text: &mut String, byte: u8| match byte {
        b'"' | b'\\' => text.extend(['\\', byte.into()]),
        b'\n' => text.push_str("\\n"),
        _ => text.push_str(&format!("\\{byte:03o}")),
    };
    let escaped = escape_by(path, must, octal);
    // Without quotes a name may end at a space.
    match escaped.as_bytes() == path && !path.contains(&b' ') {
        true => escaped,
        false => format!("\"{escaped}\""),
    }
}

/// Also those that change the order or the lines of what a terminal shows.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(bytes: &[u8], must: impl Fn(char) -> bool) -> String {
    escape_by(bytes, must, |text, byte| text.extend(byte.escape_ascii().map(char::from)))
}

/// Escapes bytes that are no text, and those of characters that must be.
fn escape_by(bytes: &[u8], must: impl Fn(char) -> bool, each: impl Fn(&mut String, u8)) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match must(c) {
                true => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| each(&mut text, byte)),
                false => text.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| each(&mut text, *byte));
    }
    text
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
        assert_eq!(in_patch("a/ä'b".as_bytes()), "a/ä'b");
        assert_eq!(in_patch(b"a/a b"), "\"a/a b\"");
        assert_eq!(in_patch(b"b/\"\\ \n\x01\xff"), r#""b/\"\\ \n\001\377""#);
        assert_eq!(harmless("`a\\\\b`\r"), "`a\\\\b`\\r");
    }
}
