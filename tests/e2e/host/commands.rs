//! Commands about work over directories of the host: without a number, and about what is not on the host as it should be.

use super::places::Unmount;
use crate::harness::host::OverHost;
use crate::harness::{MOJAVEFS, Mount, sh, text};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

fn mojavefs_in(host: &OverHost, dir: &Path, words: &[&str]) -> Output {
    host.command(MOJAVEFS).args(words).current_dir(dir).output().expect("mojavefs runs")
}

fn held_in(host: &OverHost, dir: &Path, script: &str) {
    let held = host.job(&["--hold"], script).current_dir(dir).output().expect("a job");
    assert!(held.status.success(), "{held:?}");
}

#[test]
fn without_a_number_the_only_one_that_is_held_here_is_meant() {
    let host = OverHost::new();
    sh(&host.aside("."), "mkdir -p other project/below");
    let nothing = host.mojavefs(&["commit"]);
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
    assert!(text(&nothing.stderr).contains("nothing is undecided over directories of the host"), "{nothing:?}");
    held_in(&host, &host.path(), "echo x > a");
    held_in(&host, &host.aside("other"), "echo y > b");
    // Where it was started, and below.
    let below = host.at("below");
    let diff = mojavefs_in(&host, &below, &["diff"]);
    assert!(text(&diff.stdout).ends_with("project/a\n"), "{diff:?}");
    let why = mojavefs_in(&host, &host.aside("other"), &["why"]);
    assert_eq!(text(&why.stdout), "2 depends on nothing that is undecided\n", "{why:?}");
    let shell = host.mojavefs(&["shell", "--", "cat", "a"]);
    assert_eq!(text(&shell.stdout), "x\n", "{shell:?}");
    let elsewhere = mojavefs_in(&host, &host.aside("."), &["abort"]);
    assert_eq!(elsewhere.status.code(), Some(1), "{elsewhere:?}");
    assert!(text(&elsewhere.stderr).contains("nothing is held over"), "{elsewhere:?}");
    assert!(mojavefs_in(&host, &below, &["commit"]).status.success());
    assert_eq!(host.read("a"), "x\n");
    assert!(mojavefs_in(&host, &host.aside("other"), &["abort"]).status.success());
    assert!(!host.aside("other/b").exists());
}

#[test]
fn without_a_number_several_are_listed_and_none_is_decided() {
    let host = OverHost::new();
    held_in(&host, &host.path(), "echo x > a");
    held_in(&host, &host.path(), "echo y > b");
    for command in ["commit", "abort", "diff", "shell", "why"] {
        let refused = host.mojavefs(&[command]);
        assert_eq!(refused.status.code(), Some(2), "{command}: {refused:?}");
        let said = text(&refused.stderr);
        assert!(said.contains("\n  1  1 change") && said.contains("\n  2  1 change"), "{command}: {said}");
    }
    // They outlive the daemon with what they are about.
    host.end(Signal::SIGTERM);
    assert!(host.mojavefs(&["abort", "1"]).status.success());
    assert!(host.mojavefs(&["commit"]).status.success());
    assert_eq!((host.at("a").exists(), host.read("b")), (false, "y\n".into()));
}

#[test]
fn status_says_over_which_directory_a_job_is() {
    let host = OverHost::new();
    held_in(&host, &host.path(), "echo x > a");
    let status = mojavefs_in(&host, Path::new("/"), &["status"]);
    assert!(text(&status.stdout).ends_with(&format!("\n  over {}\n", host.path().display())), "{status:?}");
    let json = mojavefs_in(&host, Path::new("/"), &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json[0]["dirs"], serde_json::json!([host.path().to_str()]), "{json}");
}

/// What was put aside is told by `status`, from anywhere, until the user removes it.
#[test]
fn what_was_displaced_is_shown_until_it_is_removed() {
    let host = OverHost::new();
    host.write("f", "old\n");
    let open = fs::File::options().append(true).open(host.at("f")).expect("open");
    let output = host.specrun(&[], "echo job > f");
    drop(open);
    let said = text(&output.stderr);
    let kept = PathBuf::from(said.lines().find_map(|line| line.rsplit_once("is now ")).expect("it is displaced").1);
    for ended in [false, true] {
        if ended {
            host.end(Signal::SIGTERM);
        }
        let status = text(&mojavefs_in(&host, Path::new("/"), &["status"]).stdout);
        let line = format!("displaced: {} is kept as {}, ", host.at("f").display(), kept.display());
        assert!(status.starts_with("nothing is undecided\n") && status.contains(&line), "{status}");
        let json = mojavefs_in(&host, Path::new("/"), &["status", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
        assert_eq!((&json[0]["state"], json[0]["kept"].as_str()), (&"displaced".into(), kept.to_str()), "{json}");
    }
    fs::remove_file(kept).expect("remove");
    assert_eq!(text(&host.mojavefs(&["status"]).stdout), "nothing is undecided\n");
}

#[test]
fn what_waits_to_be_applied_is_shown_with_the_reason_and_finished_by_apply() {
    require_root!();
    let host = OverHost::new();
    sh(&host.aside("."), "truncate -s 24M img; mkfs.ext4 -q img; mkdir disk; mount -o loop img disk; mkdir disk/d");
    let unmounts = Unmount(host.aside("disk"));
    let dir = host.aside("disk/d");
    sh(&dir, "head -c 8M /dev/zero > ballast");
    let nothing = host.mojavefs(&["apply"]);
    assert!(nothing.status.success() && text(&nothing.stdout) == "nothing waits to be applied\n", "{nothing:?}");
    let job = host.job(&[], "head -c 15M /dev/urandom > big; echo new > a").current_dir(&dir).output().expect("a job");
    assert_eq!(job.status.code(), Some(73), "{job:?}");
    for ended in [false, true] {
        if ended {
            host.end(Signal::SIGKILL);
        }
        let status = text(&mojavefs_in(&host, Path::new("/"), &["status"]).stdout);
        let names = ["a", "big"].map(|name| format!("\n  {}\n", dir.join(name).display()));
        assert!(status.contains("not on the host yet: ") && status.contains("No space left"), "{status}");
        assert!(names.iter().all(|name| status.contains(name)), "{status}");
        let json = mojavefs_in(&host, Path::new("/"), &["status", "--json"]);
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
        assert_eq!((&json[0]["state"], json[0]["paths"].as_array().map(Vec::len)), (&"unapplied".into(), Some(2)));
        let waits = mojavefs_in(&host, Path::new("/"), &["apply"]);
        assert_eq!(waits.status.code(), Some(73), "{waits:?}");
        assert!(text(&waits.stderr).contains("No space left"), "{waits:?}");
    }
    fs::remove_file(dir.join("ballast")).expect("remove");
    let done = mojavefs_in(&host, Path::new("/"), &["apply"]);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(sh(&dir, "ls -A; cat a"), "a\nbig\nnew\n");
    assert_eq!(text(&host.mojavefs(&["status"]).stdout), "nothing is undecided\n");
    host.end(Signal::SIGTERM);
    drop(unmounts);
}

#[test]
fn on_a_mount_the_only_one_that_is_held_there_is_meant() {
    let mount = Mount::new();
    let nothing = mount.mojavefs(&["commit"]);
    assert_eq!(nothing.status.code(), Some(1), "{nothing:?}");
    assert!(text(&nothing.stderr).contains("nothing is held on the filesystem mounted on"), "{nothing:?}");
    mount.held("echo x > a");
    assert_eq!(text(&mount.mojavefs(&["diff"]).stdout), "A  a\n");
    mount.held("echo x > b");
    assert_eq!(mount.mojavefs(&["commit"]).status.code(), Some(2));
    assert!(mount.mojavefs(&["abort", "2"]).status.success());
    assert!(mount.mojavefs(&["commit"]).status.success());
    assert_eq!((mount.read("a"), mount.exists("b")), ("x\n".into(), false));
}
