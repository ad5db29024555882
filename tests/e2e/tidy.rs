//! What no linter checks: the walls between folders, the length of files.

use crate::harness::{MOJAVEFS, project};
use std::collections::HashMap;
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

fn each(mut check: impl FnMut(&str, &str)) {
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
        ("fuser::", "client/src/transport/fuser"),
        ("rocksdb::", "server/src/store/engine/rocksdb.rs"),
        ("bincode::", "mojavefs/src/protocol/codec.rs"),
        ("use rustls::", "mojavefs/net/"),
    ];
    each(|name, text| {
        for (library, home) in walls {
            // The module of this name is not the library.
            let text = text.replace("super::rocksdb::", "").replace("by_fuser::", "");
            let allowed = name.starts_with(home) || name == "tests/e2e/tidy.rs" || !name.ends_with(".rs");
            assert!(allowed || !text.contains(library), "{name} knows {library}");
        }
    });
}

/// Above the doors of the store, and of the host, nobody names a path, a file or a disk. Sockets lie in the filesystem, too.
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
    ];
    each(|name, text| {
        let above = name.starts_with("server/src/") && !name.starts_with("server/src/store/engine/");
        if above && !name.starts_with("server/src/net/") && !name.starts_with("server/src/origin/host/") {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let word = words.iter().find(|word| code.contains(**word));
            assert!(word.is_none(), "{name} uses {word:?}");
        }
    });
}

/// The engine that loses and fails is linked into tests, and into nothing that is shipped.
#[test]
fn the_faulty_engine_is_not_shipped() {
    each(|name, text| {
        let for_tests = ["tests/", "bench/", "server/faulty/"].iter().any(|folder| name.starts_with(folder));
        if !name.ends_with("Cargo.toml") || for_tests {
            return;
        }
        let mut section = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let is_linked =
                section.contains("dependencies") && !section.contains("dev-") && !section.contains("workspace");
            assert!(!(is_linked && line.starts_with("mojavefs-faulty")), "{name} links it in {section}");
        }
    });
    let program = fs::read(MOJAVEFS).expect("the program");
    let contains = |word: &[u8]| program.windows(word.len()).any(|window| window == word);
    assert!(contains(b"mojavefs_server"), "what is linked in can be told by the program");
    assert!(!contains(b"mojavefs_faulty"));
}

#[test]
fn the_graph_is_pure_and_client_and_server_are_strangers() {
    each(|name, text| {
        if name.starts_with("mojavefs/src/graph/") || name.starts_with("server/cluster/src/") {
            for word in ["std::time", "std::thread", "std::io", "std::fs", "Mutex"] {
                assert!(!text.contains(word), "{name} uses {word}");
            }
        }
        assert!(!(name.starts_with("client/") && text.contains("mojavefs_server")), "{name} knows the server");
        for word in ["nix::", "libc", "std::fs", "std::process", "fuser", "std::os"] {
            assert!(!(name.starts_with("client/fs/src/") && text.contains(word)), "{name} uses {word}");
        }
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

/// A thread that is detached by another can end its process ([`mojavefs_threads`] says how).
#[test]
fn threads_that_nobody_joins_detach_themselves() {
    each(|name, text| {
        let is_shipped = ["client/", "server/src/", "mojavefs/", "src/"].iter().any(|folder| name.starts_with(folder));
        let joins = ["mojavefs/threads/src/lib.rs", "server/src/server.rs"].contains(&name) || name.contains("/tests/");
        if is_shipped && name.ends_with(".rs") && !joins {
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            assert!(!code.contains("thread::spawn") && !code.contains("thread::Builder"), "{name} starts a thread");
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

/// Words that were given up for those of the glossary.
const RETIRED: &[&str] = &[
    "Careful",
    "Leg",
    "Manners",
    "NoLeg",
    "Owed",
    "Patient",
    "Seats",
    "Strangers",
    "Touch",
    "TouchKey",
    "Touches",
    "Voice",
    "Witness",
    "absorb",
    "excuse",
    "give_back",
    "hand_over",
    "leg",
    "legs",
    "pile",
    "startle",
];

#[test]
fn words_that_were_given_up_are_used_no_more() {
    each(|name, text| {
        if name.ends_with(".toml") || name == "tests/e2e/tidy.rs" || name == "CHANGELOG.md" {
            return;
        }
        let mut words = text.split(|c: char| !c.is_alphanumeric() && c != '_');
        let retired = words.find(|word| RETIRED.contains(word));
        assert!(retired.is_none(), "{name} says {retired:?}");
    });
}

/// What a crate shows and nobody uses, its own tests included, is dead; but for what programs elsewhere are to use.
#[test]
fn nothing_public_is_unused() {
    let (mut shown, mut used) = (Vec::new(), HashMap::<String, usize>::new());
    each(|name, text| {
        if !name.ends_with(".rs") {
            return;
        }
        for word in text.split(|c: char| !c.is_alphanumeric() && c != '_') {
            *used.entry(word.to_owned()).or_default() += 1;
        }
        if name.contains("/src/") && !name.starts_with("mojavefs/process/src/") {
            shown.extend(text.lines().filter_map(public).map(|item| (name.to_owned(), item)));
        }
    });
    let unused: Vec<&(String, String)> = shown.iter().filter(|(_, item)| used[item] == 1).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// The name of a public item that a line declares.
fn public(line: &str) -> Option<String> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let rest = rest.strip_prefix("const fn ").or_else(|| {
        let kinds = ["fn ", "struct ", "enum ", "trait ", "const ", "static ", "type "];
        kinds.iter().find_map(|kind| rest.strip_prefix(kind))
    })?;
    rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().map(str::to_owned)
}
