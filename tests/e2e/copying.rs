//! Copying trees in and out.

use crate::harness::{MOJAVEFS, Mount, digest, run, sh, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

#[test]
fn a_tree_goes_in_and_out_unchanged() {
    let mount = Mount::new();
    let (from, out) = (mount.beside("from"), mount.beside("out"));
    fs::create_dir(&from).expect("mkdir");
    sh(
        &from,
        "mkdir -p a/b; echo x > a/b/f; ln a/b/f a/link; ln -s b/f a/soft; mkfifo p; chmod 4755 a/b/f; \
         truncate -s 3M hole; printf end >> hole; touch -d '2001-02-03 04:05:06.789' a/b/f a/b; setfattr -n user.k -v v a/b/f",
    );
    let output = mount.mojavefs(&["import".as_ref(), from.as_os_str(), "/in/deep".as_ref()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let output = mount.mojavefs(&["export".as_ref(), "/in/deep".as_ref(), out.as_os_str()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let digest = digest::copied;
    let below = |path: &Path| digest(path).lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(below(&mount.at("in/deep")), below(&from));
    assert_eq!(below(&out), below(&from));
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn what_is_private_stays_private_however_an_export_ends() {
    let mount = Mount::new();
    sh(&mount.path(), "chmod 711 . && mkdir -m 700 p && head -c 100000 /dev/zero > p/s && chmod 644 p/s");
    // Ended in the middle of the file, by the limit on its size.
    let script = format!("umask 0; ulimit -c 0; ulimit -f 16; exec {MOJAVEFS} export / ../half");
    let output = Command::new("bash").args(["-c", &script]).current_dir(mount.path()).output().expect("bash runs");
    assert_eq!(output.status.signal(), Some(nix::libc::SIGXFSZ), "{}", text(&output.stderr));
    let half = mount.beside("half");
    assert_eq!([mode(&half), mode(&half.join("p")), mode(&half.join("p/s"))], [0o700, 0o700, 0o600]);
    run(&mount.path(), MOJAVEFS, &["export", "/", "../whole"]);
    let whole = mount.beside("whole");
    assert_eq!([mode(&whole), mode(&whole.join("p")), mode(&whole.join("p/s"))], [0o711, 0o700, 0o644]);
    fs::create_dir(mount.beside("mine")).expect("mkdir");
    run(&mount.path(), MOJAVEFS, &["export", "/p", "../mine"]);
    assert_eq!(mode(&mount.beside("mine")), 0o755, "a directory that was there keeps what it has");
}

#[test]
fn what_is_private_stays_private_when_it_is_imported() {
    let mount = Mount::new();
    let from = mount.beside("from");
    sh(&mount.beside(""), "mkdir -m 700 from && mkdir -m 750 from/d && echo x > from/d/f && chmod 640 from/d/f");
    sh(&mount.path(), "mkdir -p there/d");
    for (to, top) in [("/in/deep", 0o700), ("/there", 0o755)] {
        let output = mount.mojavefs(&["import".as_ref(), from.as_os_str(), to.as_ref()]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let at = mount.at(&to[1..]);
        assert_eq!([mode(&at), mode(&at.join("d")), mode(&at.join("d/f"))], [top, 0o750, 0o640]);
    }
    assert_eq!(mode(&mount.at("in")), 0o755, "what is made on the way is as mkdir makes it");
}

#[test]
fn a_directory_is_not_copied_into_itself() {
    let mount = Mount::new();
    sh(&mount.path(), "echo hi > a; mkdir -p d/e; echo x > d/e/x; mkdir empty");
    let refused = |words: &[&str], why: &str| {
        let output = mount.mojavefs(words);
        assert!(output.status.code() == Some(1) && text(&output.stderr).contains(why), "{}", text(&output.stderr));
    };
    let top = mount.path();
    let top = top.to_str().expect("a path of text");
    std::os::unix::fs::symlink(top, mount.beside("link")).expect("symlink");
    refused(&["export", "/", "out"], "into itself");
    refused(&["export", "/", "../link/out/deep"], "into itself");
    refused(&["export", "/d", "d/new"], "into itself");
    refused(&["export", "/empty", "empty"], "into itself");
    refused(&["import", top, "/d/self"], "into itself");
    refused(&["import", "../link/d", "/d/e"], "into itself");
    refused(&["import", "d/e", "/d"], "in which it lies");
    std::os::unix::fs::symlink(mount.beside(""), mount.at("out")).expect("a link");
    for path in ["../up", "d/../../up", "/out/up"] {
        refused(&["import", "d/e", path], "leads out of the filesystem");
        refused(&["export", path, "../exported"], "leads out of the filesystem");
    }
    assert!(!mount.beside("up").exists() && !mount.beside("exported").exists());
    fs::remove_file(mount.at("out")).expect("rm");
    assert_eq!(sh(&mount.path(), "find . | sort"), ".\n./a\n./d\n./d/e\n./d/e/x\n./empty\n");
    run(&mount.path(), MOJAVEFS, &["import", "d", "/d2"]);
    run(&mount.path(), MOJAVEFS, &["export", "/d", "d3"]);
    assert_eq!((mount.read("d2/e/x"), mount.read("d3/e/x")), ("x\n".into(), "x\n".into()));
}

#[test]
fn an_export_does_not_follow_links_out_of_the_filesystem() {
    let mount = Mount::new();
    fs::create_dir(mount.beside("host")).expect("mkdir");
    fs::write(mount.beside("host/secret"), "hush").expect("write");
    sh(&mount.path(), "ln -s ../host out; mkdir d; echo x > d/x; ln -s d inside; ln -s ../../host d/link");
    let refused = mount.mojavefs(&["export", "/out", "../copy"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("leads out of the filesystem"), "{}", text(&refused.stderr));
    assert!(!mount.beside("copy").exists());
    run(&mount.path(), MOJAVEFS, &["export", "/inside", "../copy"]);
    assert_eq!(fs::read_link(mount.beside("copy/link")).expect("a link"), std::path::Path::new("../../host"));
    assert_eq!(fs::read_to_string(mount.beside("copy/x")).expect("read"), "x\n");
}
