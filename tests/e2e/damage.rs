//! Stores that something has happened to: it is noticed, named, and not made worse.

use crate::harness::{MOJAVEFS, Mount, sh, text, until};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

fn fsck(store: &Path) -> Output {
    Command::new(MOJAVEFS).arg("fsck").arg(store).output().expect("mojavefs runs")
}

/// Everything in a directory, with its content and when it was changed.
fn everything(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("list").map(|entry| entry.expect("an entry").path()) {
        let changed = fs::metadata(&entry).and_then(|m| m.modified()).expect("stat");
        match entry.is_dir() {
            true => found.extend(everything(&entry).into_iter().chain([(entry, (changed, Vec::new()))])),
            false => drop(found.insert(entry.clone(), (changed, fs::read(&entry).expect("read")))),
        }
    }
    found
}

/// A file of the records whose name ends like this.
fn records(mount: &Mount, end: &str) -> PathBuf {
    let entries = fs::read_dir(mount.store().join("records")).expect("list");
    let mut paths = entries.map(|entry| entry.expect("an entry").path());
    paths.find(|path| path.to_string_lossy().contains(end)).unwrap_or_else(|| panic!("no {end} among the records"))
}

/// The store is damaged: this is said, with exit status 4, and nothing is changed.
fn is_damaged(mount: &Mount, what: &str) {
    let before = everything(mount.store());
    let output = fsck(mount.store());
    let said = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("problem: ") && said.contains(what), "{said}");
    assert!(!said.contains("run `mojavefs fsck`"), "{said}");
    assert!(everything(mount.store()) == before, "fsck has written into the store");
}

/// An unmounted store with a few files in it.
fn filled() -> Mount {
    let mount = Mount::new();
    sh(&mount.path(), "for i in $(seq 8); do seq $i 20000 > f$i; done; mkdir d; echo small > d/s");
    mount.umount();
    mount
}

#[test]
fn fsck_takes_a_store_as_it_is_and_leaves_it_so() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d; seq 20000 > d/large; echo small > small; seq 20000 > gone");
    assert!(mount.specrun(&[], "rm gone; rmdir e 2>&1; seq 3 20000 > d/large; mkdir n; touch n/f").status.success());
    mount.held("rm -r d; echo held > small");
    let script = "seq 30000 > d/large; rm small; touch ../written; sleep 100";
    let mut job = mount.specrun_command(&[], script).spawn().expect("specrun runs");
    until("the job has written", || mount.beside("written").exists());
    mount.crash();
    job.wait().expect("the job ends");
    let before = everything(mount.store());
    mount.fsck();
    assert!(everything(mount.store()) == before, "fsck has written into the store");
    mount.mount();
    assert_eq!((mount.read("small"), mount.read("d/large").lines().count()), ("small\n".into(), 19_998));
    mount.check();
}

#[test]
fn missing_or_overwritten_records_are_damage() {
    let mount = filled();
    let table = records(&mount, ".sst");
    let whole = fs::read(&table).expect("read");
    fs::File::options().write(true).open(&table).and_then(|file| file.write_all_at(&[0x5a; 8], 40)).expect("overwrite");
    is_damaged(&mount, "Corruption");
    fs::write(&table, whole).expect("mend");
    mount.fsck();
    for (name, why) in [("MANIFEST", "MANIFEST"), (".sst", ".sst"), ("CURRENT", "CURRENT is missing")] {
        let (path, aside) = (records(&mount, name), mount.beside("aside"));
        fs::rename(&path, &aside).expect("rename");
        is_damaged(&mount, why);
        let refused = mount.try_mount(&[]);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        fs::rename(&aside, &path).expect("rename");
        mount.fsck();
    }
    mount.mount();
    assert_eq!(mount.read("d/s"), "small\n");
}

#[test]
fn what_can_not_be_checked_is_no_damage() {
    let mount = Mount::new();
    let empty = mount.beside("empty");
    fs::create_dir(&empty).expect("mkdir");
    let cases = [
        (empty.as_path(), "holds no MojaveFS store"),
        (&mount.beside("none"), "holds no MojaveFS store"),
        (mount.store(), "in use"),
    ];
    for (store, why) in cases {
        let output = fsck(store);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
    }
    assert!(fs::read_dir(&empty).expect("list").next().is_none() && !mount.beside("none").exists());
}
