//! What no linter checks: the walls between folders, the length of files.

use crate::harness::project;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 600;

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("list").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != ".git" {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs" || e == "md" || e == "toml") {
            found.push(path);
        }
    }
}

fn each(check: impl Fn(&str, &str)) {
    let root = project("");
    let mut found = Vec::new();
    sources(&root, &mut found);
    for path in found {
        let name = path.strip_prefix(&root).expect("below the root").to_string_lossy().into_owned();
        check(&name, &fs::read_to_string(&path).expect("read"));
    }
}

#[test]
fn each_library_is_known_in_one_folder() {
    let walls = [
        ("fuser::", "client/src/fuse/"),
        ("rocksdb::", "server/src/store/engine/rocksdb.rs"),
        ("bincode::", "mojavefs/src/protocol/codec.rs"),
        ("use rustls::", "mojavefs/net/"),
    ];
    each(|name, text| {
        for (library, home) in walls {
            let allowed = name.starts_with(home) || name == "tests/e2e/tidy.rs" || !name.ends_with(".rs");
            assert!(allowed || !text.contains(library), "{name} knows {library}");
        }
    });
}

/// Above the doors of the store nobody names a path, a file or a disk. Sockets lie in the filesystem, too.
#[test]
fn the_server_knows_its_disk_by_the_doors_of_the_store() {
    let words = [
        "std::fs",
        "std::path",
        "std::os::unix::fs",
        "nix::fcntl",
        "nix::sys::statvfs",
        "nix::unistd::sync",
        "libc::",
        "rocksdb",
        "tempfile",
    ];
    each(|name, text| {
        let above = name.starts_with("server/src/") && !name.starts_with("server/src/store/engine/");
        if above && !name.starts_with("server/src/net/") {
            let word = words.iter().find(|word| text.contains(**word));
            assert!(word.is_none(), "{name} uses {word:?}");
        }
    });
}

#[test]
fn the_graph_is_pure_and_client_and_server_are_strangers() {
    each(|name, text| {
        if name.starts_with("mojavefs/src/graph/") {
            for word in ["std::time", "std::thread", "std::io", "std::fs", "Mutex"] {
                assert!(!text.contains(word), "{name} uses {word}");
            }
        }
        assert!(!(name.starts_with("client/") && text.contains("mojavefs_server")), "{name} knows the server");
        assert!(!(name.starts_with("server/") && text.contains("mojavefs_client")), "{name} knows the client");
    });
}

/// What programs link must not bring a runtime, and what puts their memory back must not allocate.
#[test]
fn programs_link_no_network_and_readers_of_proc_do_not_allocate() {
    for crate_dir in ["mojavefs", "mojavefs/process", "mojavefs/procfs", "client/attach"] {
        let manifest = fs::read_to_string(project(crate_dir).join("Cargo.toml")).expect("a manifest");
        for library in ["tokio", "rustls", "rcgen", "mojavefs-net"] {
            assert!(!manifest.contains(library), "{crate_dir} depends on {library}");
        }
    }
    each(|name, text| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for word in ["Vec<", "vec!", "String", "format!", "Box<", "std::"] {
            let allocates = name.starts_with("mojavefs/procfs/src/") && code.contains(word);
            assert!(!allocates, "{name} uses {word}");
        }
    });
}

#[test]
fn files_can_be_read_in_one_sitting() {
    each(|name, text| {
        let lines = text.lines().count();
        assert!(!name.ends_with(".rs") || lines <= LINES_MAX, "{name} has {lines} lines");
    });
}
