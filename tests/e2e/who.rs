//! Who may do what.

use crate::harness::{Mount, SPECRUN, sh, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

const NOBODY: &str = "65534";

fn as_nobody(mount: &Mount, script: &str) -> std::process::Output {
    let setpriv = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--", "sh", "-c", script];
    Command::new("setpriv").args(setpriv).current_dir(mount.path()).output().expect("setpriv runs")
}

#[test]
fn permissions_hold_for_every_user() {
    require_root!();
    let mount = Mount::new();
    mount.write("secret", "x");
    fs::set_permissions(mount.at("secret"), fs::Permissions::from_mode(0o600)).expect("chmod");
    assert!(!as_nobody(&mount, "cat secret").status.success());
    assert!(!as_nobody(&mount, "echo y > mine").status.success());
    sh(&mount.path(), "mkdir open && chmod 1777 open");
    assert!(as_nobody(&mount, "echo y > open/mine").status.success());
    assert_eq!(sh(&mount.path(), "stat -c %u open/mine").trim(), NOBODY);
}

#[test]
fn an_ordinary_user_runs_jobs_on_root_s_mount_with_their_own_rights() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir open && chmod 1777 open && echo 0 > kept && chmod 644 kept");
    // The programs must be where that user can run them.
    let specrun = mount.beside("specrun");
    fs::copy(SPECRUN, &specrun).expect("copy");
    let script = format!("cd open && {} -- sh -c 'echo x > mine; echo y > ../kept; true'", specrun.display());
    let output = as_nobody(&mount, &script);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((mount.read("open/mine"), mount.read("kept")), ("x\n".into(), "0\n".into()));
    assert_eq!(sh(&mount.path(), "stat -c %u open/mine").trim(), NOBODY);
}

#[test]
fn only_the_owner_and_root_see_and_decide() {
    require_root!();
    let mount = Mount::new();
    let id = mount.held("echo x > a");
    let mojavefs = mount.beside("mojavefs");
    fs::copy(crate::harness::MOJAVEFS, &mojavefs).expect("copy");
    for words in ["commit", "abort", "diff"] {
        let output = as_nobody(&mount, &format!("{} {words} {id}", mojavefs.display()));
        assert!(
            !output.status.success() && text(&output.stderr).contains("belongs to user 0"),
            "{}",
            text(&output.stderr)
        );
    }
    assert_eq!(text(&as_nobody(&mount, &format!("{} status", mojavefs.display())).stdout), "nothing is undecided\n");
    assert_eq!(mount.status().len(), 1);
}
