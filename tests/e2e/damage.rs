//! Stores that something has happened to: it is noticed, named, and not made worse.

use crate::harness::{MOJAVEFS, Mount, sh, text, until};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
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
fn what_a_crash_has_undone_is_counted_and_freed_by_the_next_mount() {
    let mount = Mount::new();
    sh(&mount.path(), "seq 20000 > f");
    let script = "seq 30000 > f; seq 20000 > new; : > ../ready; sleep 100";
    let mut job = mount.specrun_command(&["--quiet"], script).stderr(Stdio::null()).spawn().expect("specrun runs");
    until("the job has changed something", || mount.beside("ready").exists());
    mount.crash();
    job.wait().expect("the job ends");
    let said = |output: Output| {
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    };
    let garbage = said(fsck(mount.store()));
    assert!(!garbage.contains(" 0 unreachable versions") && garbage.contains("note: no view can reach"), "{garbage}");
    assert!(garbage.contains("a version of Inode(") && garbage.ends_with("the store is sound\n"), "{garbage}");
    mount.mount();
    let reclaimed = said(mount.mojavefs(&["gc"]));
    assert!(!reclaimed.contains("nothing named"), "{reclaimed}");
    mount.umount();
    let clean = said(fsck(mount.store()));
    assert!(clean.contains(" 0 unreachable versions\n") && !clean.contains("note: "), "{clean}");
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
        (empty.as_path(), "is an empty directory: there is no store to check"),
        (&mount.beside("none"), "does not exist: there is no store to check"),
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

/// The content files, largest first.
fn content_files(mount: &Mount) -> Vec<PathBuf> {
    let entries = fs::read_dir(mount.store().join("content")).expect("list");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort_by_key(|path| std::cmp::Reverse(fs::metadata(path).expect("stat").len()));
    paths
}

fn is_lost(mount: &Mount, name: &str) {
    let error = fs::read(mount.at(name)).expect_err("what is lost can't be read");
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{error}");
}

#[test]
fn content_that_is_lost_is_an_error_and_no_zeros() {
    let mount = Mount::new();
    sh(&mount.path(), "seq 90000 > cut; seq 40000 > missing; seq 20000 > kept");
    mount.umount();
    let files = content_files(&mount);
    fs::File::options().write(true).open(&files[0]).and_then(|file| file.set_len(10)).expect("cut off");
    fs::remove_file(&files[1]).expect("remove");
    is_damaged(&mount, &format!("{} ends at byte 10", files[0].display()));
    is_damaged(&mount, "it belongs to `/cut`");
    is_damaged(&mount, &format!("{} is missing; it belongs to `/missing`", files[1].display()));
    mount.mount();
    is_lost(&mount, "cut");
    is_lost(&mount, "missing");
    let file = fs::File::options().write(true).open(mount.at("cut")).expect("open");
    let over = file.write_all_at(b"over", 100_000).and_then(|()| file.sync_all());
    assert_eq!(over.expect_err("no zeros are made of what is lost").raw_os_error(), Some(nix::libc::EIO));
    drop(file);
    assert_eq!(mount.read("kept").lines().count(), 20_000);
    sh(&mount.path(), "rm cut; seq 30000 > missing");
    mount.check();
    assert_eq!(mount.read("missing").lines().count(), 30_000);
}

#[test]
fn holes_and_ends_are_no_damage() {
    let mount = Mount::new();
    let script = "seq 5000 > grown; truncate -s 300000 grown; truncate -s 1M sparse; printf x | dd of=sparse bs=1 seek=200000 \
                  conv=notrunc status=none; seq 40000 > short; truncate -s 70000 short; truncate -s 200000 short; seq 40000 > small; \
                  truncate -s 100 small; seq 40000 > punched; fallocate -p -o 4096 -l 150000 punched";
    sh(&mount.path(), script);
    let sums = sh(&mount.path(), "sha1sum *");
    assert!(mount.specrun(&[], "truncate -s 400000 grown; printf y >> short; printf z >> punched").status.success());
    sh(
        &mount.path(),
        "truncate -s 23893 grown; truncate -s 300000 grown; truncate -s 200000 short; truncate -s -1 punched",
    );
    mount.check();
    assert_eq!(sh(&mount.path(), "sha1sum *"), sums);
}
