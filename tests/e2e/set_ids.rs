//! Who changes a program gets nobody else's rights by that: set-id bits and capabilities go, and the kernel runs nothing by those that
//! are gone.

use crate::harness::programs::{SUBJECTS, compiled_on_its_own};
use crate::harness::served::Server;
use crate::harness::{Mount, SPECRUN, run, sh};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// All that changes content or owner.
const WAYS: [&str; 11] =
    ["write", "direct", "asynchronous", "append", "truncate", "allocate", "punch", "zero", "copy", "send", "owner"];
/// Somebody without rights.
const NOBODY: [&str; 6] = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
/// Gives a program a capability, as `setcap cap_chown+ep` does.
const GIVE: &str = "import os, struct
os.setxattr('program', 'security.capability', struct.pack('<5I', 0x02000001, 1, 0, 0, 0))";
const SHOW: &str = "import os; print(os.listxattr('program'))";

fn make_program(dir: &Path, mode: u32) {
    sh(dir, "rm -f program; cp /usr/bin/id program");
    fs::set_permissions(dir.join("program"), fs::Permissions::from_mode(mode)).expect("chmod");
}

fn mode(dir: &Path) -> u32 {
    fs::metadata(dir.join("program")).expect("stat").mode() & 0o7777
}

/// Has somebody change the program and run it, by each way, after these words. The program says as whom it ran.
fn change_it_and_run_it(mount: &Mount, words: &[&str]) {
    let subject = compiled_on_its_own(mount, SUBJECTS, "set_ids");
    let (dir, subject) = (mount.path(), subject.to_str().expect("a path in UTF-8"));
    for how in WAYS {
        make_program(&dir, 0o6777);
        if how == "owner" {
            sh(&dir, "chown 65534 program; chmod 6777 program");
        }
        let words = [words, &NOBODY, &[subject, how, "./program", "-u"]].concat();
        assert_eq!(run(&dir, words[0], &words[1..]), "65534\n", "{how} of {words:?}");
        assert_eq!(mode(&dir), 0o777, "{how} of {words:?}");
    }
}

#[test]
fn who_changes_a_set_id_program_and_runs_it_at_once_gets_no_rights_by_it() {
    require_root!();
    change_it_and_run_it(&Mount::new(), &[]);
}

#[test]
fn so_it_is_in_a_job() {
    require_root!();
    change_it_and_run_it(&Mount::new(), &[SPECRUN, "--quiet", "--"]);
}

#[test]
fn so_it_is_where_the_server_is_another_process() {
    require_root!();
    change_it_and_run_it(&Server::new().mount(), &[]);
}

#[test]
fn root_keeps_set_id_bits_unless_it_has_given_up_the_right_to() {
    require_root!();
    let mount = Mount::new();
    let subject = compiled_on_its_own(&mount, SUBJECTS, "set_ids");
    let (dir, subject) = (mount.path(), subject.to_str().expect("a path in UTF-8"));
    for how in WAYS.into_iter().filter(|how| *how != "owner") {
        for (bounding, left) in [("+all", 0o6777), ("-fsetid", 0o777)] {
            make_program(&dir, 0o6777);
            run(&dir, "setpriv", &["--bounding-set", bounding, subject, how, "./program", "-u"]);
            assert_eq!(mode(&dir), left, "{how} with {bounding}");
        }
    }
    mount.check();
}

#[test]
fn a_group_that_may_not_run_it_keeps_its_bit_of_what_a_member_changes() {
    require_root!();
    let mount = Mount::new();
    let subject = compiled_on_its_own(&mount, SUBJECTS, "set_ids");
    let (dir, subject) = (mount.path(), subject.to_str().expect("a path in UTF-8"));
    for how in WAYS.into_iter().filter(|how| *how != "owner") {
        for (group, left) in [("65534", 0o2767), ("1", 0o767)] {
            make_program(&dir, 0o2767);
            sh(&dir, &format!("chgrp {group} program; chmod 2767 program"));
            // As neither its owner nor, to run it, a member that may not.
            let words = [&NOBODY[1..], &[subject, how, "./program", "-u"]].concat();
            let tried = std::process::Command::new(NOBODY[0]).args(words).current_dir(&dir).output().expect("it runs");
            assert_eq!((mode(&dir), tried.status.success()), (left, group == "1"), "{how} of group {group}");
        }
    }
    mount.check();
}

#[test]
fn whoever_changes_a_program_takes_its_capabilities_away() {
    require_root!();
    let mount = Mount::new();
    let subject = compiled_on_its_own(&mount, SUBJECTS, "set_ids");
    let (dir, subject) = (mount.path(), subject.to_str().expect("a path in UTF-8"));
    for how in WAYS.into_iter().filter(|how| *how != "owner") {
        make_program(&dir, 0o777);
        run(&dir, "python3", &["-c", GIVE]);
        assert_eq!(run(&dir, "python3", &["-c", SHOW]), "['security.capability']\n");
        run(&dir, subject, &[how, "./program", "-u"]);
        assert_eq!(run(&dir, "python3", &["-c", SHOW]), "[]\n", "{how}");
    }
    mount.check();
}
