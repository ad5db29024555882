//! Where jobs over the host run, and what becomes of these places meanwhile.

use crate::harness::disk::Disk;
use crate::harness::host::OverHost;
use crate::harness::{sh, text, until};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;

/// A job is ended when its directory, or one above, is moved or replaced: nothing of what it writes reaches the host.
#[test]
fn a_job_whose_directory_is_moved_or_replaced_is_ended() {
    let moves = [
        "mv project elsewhere; mkdir project",
        "mv project elsewhere",
        "mv project elsewhere; ln -s elsewhere project",
        "mkdir other; mv -T --exchange project other || { mv project t; mv other project; mv t other; }",
    ];
    for moved in moves {
        let host = OverHost::new();
        host.write("a", "old");
        let project = host.path().display().to_string();
        let script = format!(
            "echo job > {project}/a; touch ../halfway; i=0; while [ $i -lt 3000 ]; do echo $i > {project}/new; sleep 0.01; i=$((i+1)); done"
        );
        let job = host.job(&[], &script).stderr(Stdio::piped()).spawn().expect("a job");
        until("it is halfway", || host.aside("halfway").exists());
        sh(&host.aside("."), moved);
        let output = job.wait_with_output().expect("it ends");
        let said = text(&output.stderr);
        // By a link it still leads to the view, and what the host has is in conflict.
        let is_said =
            said.contains("was moved, replaced or covered") || moved.contains("ln -s") && said.contains("conflicts");
        assert!(output.status.code() == Some(75) && is_said, "{moved}: {said}");
        assert!(said.contains("held as 1"), "{moved}: {said}");
        let found = sh(&host.aside("."), "find . -name a -path '*[ejpo]*' | grep -v state | xargs cat");
        assert_eq!(found, "old", "{moved}");
    }
}

#[test]
fn several_directories_are_decided_together() {
    let host = OverHost::new();
    sh(&host.aside("."), "mkdir one two; echo a > one/a; echo b > two/b");
    let [one, two] = ["one", "two"].map(|dir| host.aside(dir).display().to_string());
    let words = ["--dir", &one, "--dir", &two];
    let output = host.specrun(&words, "echo x >> ../one/a; echo x >> ../two/b; echo x > here; exit 1");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let read = |path: &str| fs::read_to_string(host.aside(path)).expect("read");
    assert_eq!((read("one/a"), read("two/b"), read("project/here")), ("a\n".into(), "b\n".into(), "x\n".into()));
    // From one into the other.
    let output = host.specrun(&words, "echo x >> ../one/a; mv ../one/a ../two/ || exit 9; ls ../two");
    assert!(output.status.success(), "{output:?}");
    assert_eq!((read("two/a"), host.aside("one/a").exists()), ("a\nx\n".into(), false));
}

#[test]
fn jobs_over_directories_of_which_one_lies_in_the_other_meet() {
    let host = OverHost::new();
    sh(&host.path(), "mkdir -p d; echo old > d/a");
    let script = "echo new > a; touch ../../halfway; until [ -e ../../go ]; do sleep 0.01; done";
    let inner = host.job(&[], script).current_dir(host.at("d")).spawn().expect("a job");
    until("it is halfway", || host.aside("halfway").exists());
    let outer = host.specrun(&["--no-wait"], "cat d/a");
    assert_eq!(text(&outer.stdout), "new\n", "{outer:?}");
    fs::write(host.aside("go"), "").expect("go");
    assert!(inner.wait_with_output().expect("it ends").status.success());
    assert_eq!(host.read("d/a"), "new\n");
}

#[test]
fn what_is_mounted_below_is_no_part_of_it_and_named() {
    require_root!();
    let host = OverHost::new();
    sh(&host.path(), "mkdir mnt; mount -t tmpfs none mnt; echo in > mnt/in");
    let output = host.specrun(&[], "cat mnt/in; echo job > mnt/job; echo job > job; exit 1");
    let found = (host.at("mnt/job").exists(), host.at("job").exists());
    sh(&host.path(), "umount mnt");
    assert_eq!((text(&output.stdout).as_str(), found), ("in\n", (true, false)), "{output:?}");
    assert!(text(&output.stderr).contains("mnt is mounted by itself"), "{output:?}");
}

/// A disk that fails elsewhere keeps no job from its directory.
#[test]
fn what_is_mounted_elsewhere_does_not_matter() {
    require_root!();
    let host = OverHost::new();
    let disk = Disk::new(&host.aside("."), "xfs", 400);
    Disk::cut_power(&disk.point);
    assert!(fs::metadata(&disk.point).is_err(), "the disk has failed");
    let output = host.specrun(&[], "echo x > a");
    until("the disk can be taken off", || disk.detach());
    assert!(output.status.success() && host.read("a") == "x\n", "{output:?}");
}

/// What does not fit is not begun, is tried again, and keeps nobody else's work from the host.
#[test]
fn a_full_disk_keeps_a_commit_from_the_host_and_no_other_one() {
    require_root!();
    let host = OverHost::new();
    let (unmounts, dir) = on_a_disk(&host);
    sh(&dir, "echo old > a; echo old > b; head -c 8M /dev/zero > ballast");
    let job =
        host.job(&[], "head -c 15M /dev/urandom > big; echo new > a; rm b").current_dir(&dir).output().expect("a job");
    assert_eq!(job.status.code(), Some(73), "{job:?}");
    assert!(text(&job.stderr).contains("No space left on device"), "{job:?}");
    assert_eq!(sh(&dir, "ls -A; cat a b"), "a\nb\nballast\nold\nold\n");
    host.run("echo elsewhere > x");
    assert_eq!(host.read("x"), "elsewhere\n");
    // Jobs see what is committed.
    let seen = host.job(&[], "cat a; ls").current_dir(&dir).output().expect("a job");
    assert_eq!(text(&seen.stdout), "new\na\nballast\nbig\n", "{seen:?}");
    fs::remove_file(dir.join("ballast")).expect("remove");
    until("it is on the host", || {
        host.run("true");
        dir.join("big").exists()
    });
    assert_eq!(sh(&dir, "ls -A; cat a"), "a\nbig\nnew\n");
    host.end(nix::sys::signal::Signal::SIGTERM);
    drop(unmounts);
}

/// Wherever else the directory is mounted, or a part of it, or one above it, a job has its view, and nothing of it is left undone.
#[test]
fn what_is_bound_elsewhere_is_covered_there_too() {
    require_root!();
    let host = OverHost::new();
    sh(&host.path(), "mkdir -p sub ../whole ../part ../above; echo old > f; echo old > sub/g; echo old > ../file");
    let binds =
        "mount --bind project whole; mount --bind project/sub part; mount --bind project/f file; mount --bind . above";
    sh(&host.aside("."), binds);
    let unmounts = ["above", "file", "part", "whole"].map(|name| Unmount(host.aside(name)));
    let change = "echo a > ../whole/made; echo b > ../part/g; echo c > ../file; echo d > ../above/project/other; cat f sub/g made other";
    let undone = host.specrun(&[], &format!("{change}; exit 1"));
    assert_eq!(text(&undone.stdout), "c\nb\na\nd\n", "{undone:?}");
    assert_eq!(sh(&host.path(), "cat f sub/g ../file; ls"), "old\nold\nold\nf\nsub\n");
    host.run(change);
    assert_eq!(sh(&host.path(), "cat f sub/g made other"), "c\nb\na\nd\n");
    let inner = format!("{} -- sh -c 'echo e > ../part/g; exit 1' || true", crate::harness::SPECRUN);
    let nested = host.specrun(&[], &format!("{inner}; cat sub/g ../part/g; exit 1"));
    assert_eq!(text(&nested.stdout), "b\nb\n", "{nested:?}");
    drop(unmounts);
}

/// Whoever looks at something else does not wait for a disk that hangs while something is applied to it.
#[test]
fn jobs_look_at_the_host_while_something_is_applied() {
    require_root!();
    let host = OverHost::new();
    let (unmounts, dir) = on_a_disk(&host);
    sh(&dir, "mkdir moves; echo unchanged > moves/in");
    host.write("known", "old\n");
    let mut job = host.job(&["--hold"], "echo new > a; mv moves moved").current_dir(&dir).spawn().expect("a job");
    assert!(job.wait().expect("it ends").success());
    sh(&dir, "fsfreeze -f .");
    let thaws = Thaw(host.aside("disk"));
    let mut commit = host.command(crate::harness::MOJAVEFS).args(["commit", "1"]).spawn().expect("a commit");
    // What is committed is what jobs see there.
    until("it is committed", || {
        let seen = host.job(&["--no-wait"], "cat a").current_dir(&dir).output().expect("a job");
        text(&seen.stdout) == "new\n"
    });
    host.write("known", "edited\n");
    assert_eq!(host.run("cat known; ls"), "edited\nknown\n");
    let seen = host.job(&["--no-wait"], "cat moved/in").current_dir(&dir).output().expect("a job");
    assert_eq!(text(&seen.stdout), "unchanged\n", "{seen:?}");
    assert!(commit.try_wait().expect("it runs").is_none(), "the commit did not wait for the disk");
    drop(thaws);
    assert!(commit.wait().expect("it ends").success());
    assert_eq!(sh(&dir, "cat a moved/in; ls"), "new\nunchanged\na\nmoved\n");
    host.end(nix::sys::signal::Signal::SIGTERM);
    drop(unmounts);
}

/// Work is held over a restart after which the disk has another number.
#[test]
fn a_disk_that_comes_back_as_another_device_is_the_same_disk() {
    require_root!();
    let host = OverHost::new();
    let (unmounts, dir) = on_a_disk(&host);
    let disk = host.aside("disk");
    sh(&dir, "echo old > a; echo old > b; mkdir sub; echo in > sub/in");
    let held = host.job(&["--hold"], "echo new > a; rm b; mv sub moved").current_dir(&dir).output().expect("a job");
    assert!(held.status.success(), "{held:?}");
    host.end(nix::sys::signal::Signal::SIGTERM);
    let device = || fs::metadata(&disk).expect("look").dev();
    let was = device();
    // What is mounted in between takes the number.
    let mut others = Vec::new();
    sh(&host.aside("."), "umount disk");
    for other in 0.. {
        let script =
            format!("truncate -s 8M o{other}; mkfs.ext4 -q o{other}; mkdir m{other}; mount -o loop o{other} m{other}");
        sh(&host.aside("."), &script);
        others.push(Unmount(host.aside(&format!("m{other}"))));
        sh(&host.aside("."), "mount -o loop img disk");
        if device() != was {
            break;
        }
        assert!(other < 8, "the disk has the same number again and again");
        sh(&host.aside("."), "umount disk");
    }
    let commit = host.mojavefs(&["commit", "1"]);
    assert!(commit.status.success() && !text(&commit.stderr).contains("displaced"), "{commit:?}");
    assert_eq!(sh(&dir, "ls -A; cat a moved/in"), "a\nmoved\nnew\nin\n");
    host.end(nix::sys::signal::Signal::SIGTERM);
    drop((unmounts, others));
}

/// Lets a frozen filesystem go on however a test ends.
struct Thaw(std::path::PathBuf);

impl Drop for Thaw {
    fn drop(&mut self) {
        let _ = std::process::Command::new("timeout").args(["20", "fsfreeze", "-u"]).arg(&self.0).status();
    }
}

/// A disk of its own, mounted until that is dropped, and a directory on it.
fn on_a_disk(host: &OverHost) -> (Unmount, std::path::PathBuf) {
    sh(&host.aside("."), "truncate -s 24M img; mkfs.ext4 -q img; mkdir disk; mount -o loop img disk; mkdir disk/d");
    (Unmount(host.aside("disk")), host.aside("disk/d"))
}

/// Takes a disk away however a test ends.
pub(super) struct Unmount(pub(super) std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// What is undecided over the host is asked for from anywhere; all of the host is no place for a job, nor for a shell.
#[test]
fn commands_work_from_anywhere() {
    let host = OverHost::new();
    host.specrun(&["--hold"], "echo x > a");
    host.end(nix::sys::signal::Signal::SIGTERM);
    let from_root =
        |words: &[&str]| host.command(crate::harness::MOJAVEFS).args(words).current_dir("/").output().expect("it runs");
    assert!(text(&from_root(&["status"]).stdout).starts_with("1  held"));
    let shell = from_root(&["shell", "1", "--", "true"]);
    assert!(!shell.status.success() && text(&shell.stderr).contains("too much for a job"), "{shell:?}");
    let shell = host.mojavefs(&["shell", "1", "--", "cat", "a"]);
    assert_eq!(text(&shell.stdout), "x\n", "{shell:?}");
    assert!(from_root(&["commit", "1"]).status.success());
    assert_eq!(host.read("a"), "x\n");
}
