//! What others have named, for programs. JSON knows text only, and a name is any bytes.

use serde_json::{Value, json};

/// Adds a path to an object under this key, and one that is no UTF-8 a second time: under `KEY_bytes`, in hexadecimal.
pub(crate) fn with_path(mut object: Value, key: &str, path: &[u8]) -> Value {
    object[key] = String::from_utf8_lossy(path).into();
    if !is_text(path) {
        object[format!("{key}_bytes")] = hex(path).into();
    }
    object
}

/// Adds a list of paths; if one of them is no UTF-8, all of them a second time, in the same order.
pub(crate) fn with_paths(mut object: Value, key: &str, paths: &[&[u8]]) -> Value {
    object[key] = paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
    if !paths.iter().all(|path| is_text(path)) {
        object[format!("{key}_bytes")] = json!(paths.iter().map(|path| hex(path)).collect::<Vec<_>>());
    }
    object
}

fn is_text(path: &[u8]) -> bool {
    std::str::from_utf8(path).is_ok()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_there_twice() {
        assert_eq!(with_path(json!({"a": 1}), "path", "\u{e4}".as_bytes()), json!({"a": 1, "path": "\u{e4}"}));
        let twice = json!({"path": "a\u{fffd}", "path_bytes": "61ff"});
        assert_eq!(with_path(json!({}), "path", b"a\xff"), twice);
        let twice = json!({"all": ["a", "\u{fffd}"], "all_bytes": ["61", "fe"]});
        assert_eq!(with_paths(json!({}), "all", &[b"a", b"\xfe"]), twice);
        assert_eq!(with_paths(json!({}), "all", &[b"a"]), json!({"all": ["a"]}));
    }
}
