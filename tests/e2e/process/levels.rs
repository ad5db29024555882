//! Many levels that change something and are committed: what they leave behind does not grow with their number, and is right
//! whatever becomes of their job.

use crate::harness::digest::exact;
use crate::harness::programs::{SUBJECTS, compiled};
use crate::harness::{MOJAVEFS, Mount, sh, text, until};
use std::path::PathBuf;
use std::process::Command;

const COUNT: usize = 300;
const BLOCK: usize = 65536;

/// What the levels change, and the program.
fn mounted() -> (Mount, PathBuf) {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir new; echo old > same; head -c 131072 /dev/zero | tr '\\0' . > large");
    let program = compiled(&mount, SUBJECTS, "levels");
    (mount, program)
}

/// All levels have happened.
fn is_done(mount: &Mount) {
    let line = |number: usize| format!("{number:6}\n");
    assert_eq!(mount.read("same"), line(COUNT - 1));
    let large = mount.read("large");
    assert_eq!((&large[..7], &large[BLOCK..BLOCK + 7]), (&*line(COUNT - 2), &*line(COUNT - 1)));
    assert!(large.len() == 2 * BLOCK && large.bytes().filter(|byte| *byte == b'.').count() == 2 * BLOCK - 14);
    let mut names: Vec<usize> =
        sh(&mount.at("new"), "ls").lines().map(|name| name.parse().expect("a number")).collect();
    names.sort_unstable();
    assert_eq!(names, (1..COUNT).step_by(3).collect::<Vec<_>>());
    for name in names {
        assert_eq!(mount.read(&format!("new/{name}")), line(name + 1));
    }
}

/// What a check of the store says that nobody has mounted.
fn checked(mount: &Mount) -> String {
    let output = Command::new(MOJAVEFS).arg("fsck").arg(mount.store()).output().expect("mojavefs runs");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn diff(mount: &Mount, id: &str) -> String {
    let output = mount.mojavefs(&["diff", id]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_held_job_keeps_one_version_of_what_its_levels_have_changed() {
    for how in ["flat", "nested"] {
        let (mount, program) = mounted();
        let before = exact(&mount.path());
        let id = mount.held(&format!("{} {how} {COUNT}", program.display()));
        assert_eq!(exact(&mount.path()), before);
        let changes = diff(&mount, &id);
        assert_eq!(changes.lines().filter(|line| line.contains("new/")).count(), COUNT / 3, "{changes}");
        mount.crash();
        let found = checked(&mount);
        if how == "flat" {
            // Two that are final, and two of the job.
            assert!(found.contains(" 4 blocks, 1 held"), "{found}");
        }
        mount.mount();
        assert_eq!((exact(&mount.path()), diff(&mount, &id)), (before, changes));
        assert!(mount.mojavefs(&["commit", &id]).status.success());
        is_done(&mount);
        mount.check();
        is_done(&mount);
    }
}

#[test]
fn a_jobs_commit_is_that_of_all_its_levels_and_so_is_its_abort() {
    for (how, options) in [("flat", &[][..]), ("nested", &[]), ("flat", &["--isolate"]), ("nested", &["--isolate"])] {
        let (mount, program) = mounted();
        let before = exact(&mount.path());
        let levels = format!("{} {how} {COUNT}", program.display());
        assert_eq!(mount.specrun(options, &format!("{levels} && exit 1")).status.code(), Some(1));
        assert_eq!(exact(&mount.path()), before);
        // Other processes of the job see them, and go on from there.
        let rest = "cat same large > ../seen; echo more >> same; echo more > new/1";
        let output = mount.specrun(options, &format!("{levels} && {rest}"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(sh(mount.beside("").as_path(), "wc -c < seen").trim(), (7 + 2 * BLOCK).to_string());
        assert_eq!((mount.read("same"), mount.read("new/1")), (format!("{:6}\nmore\n", COUNT - 1), "more\n".into()));
        sh(&mount.path(), &format!("printf '{:6}\\n' > same; printf '     2\\n' > new/1", COUNT - 1));
        is_done(&mount);
        mount.check();
        is_done(&mount);
    }
}

#[test]
fn nothing_is_left_of_levels_whose_daemon_dies_before_their_job_is_decided() {
    let (mount, program) = mounted();
    let before = exact(&mount.path());
    let mut job = mount.specrun_command(&[], &format!("{} flat {COUNT} wait", program.display()));
    let mut job = job.spawn().expect("specrun runs");
    until("all levels are committed", || mount.beside("told").exists());
    mount.crash();
    job.wait().expect("the job ends");
    mount.fsck();
    mount.mount();
    assert_eq!(exact(&mount.path()), before);
    assert!(mount.status().is_empty());
    mount.check();
    assert_eq!(exact(&mount.path()), before);
}
