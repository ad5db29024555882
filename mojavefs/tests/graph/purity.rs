//! The graph does no I/O, keeps no clock, starts no thread, and its answers do not depend on hashing.

use std::path::Path;

#[test]
fn the_graph_is_pure() {
    // Asked for at run time: clones may share a target directory, and with it this program.
    let folder = Path::new(&std::env::var_os("CARGO_MANIFEST_DIR").expect("tests are run by cargo")).join("src/graph");
    let forbidden = [
        "std::time",
        "std::thread",
        "std::io",
        "std::fs",
        "std::net",
        "std::env",
        "std::process",
        "std::sync",
        "tokio",
        "HashMap",
        "HashSet",
        "RandomState",
        "async ",
        "unsafe",
        "println!",
    ];
    let mut files = 0;
    let mut todo = vec![folder.clone()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("the graph has a folder");
            todo.extend(entries.map(|entry| entry.expect("a readable folder").path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("sources are text");
        for word in forbidden {
            assert!(!text.contains(word), "{} contains {word}", path.display());
        }
        files += 1;
    }
    assert!(files >= 9, "found only {files} files in {}", folder.display());
}
