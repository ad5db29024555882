//! Who may do what.

use crate::harness::{MOJAVEFS, Mount, SPECRUN, is_running, sh, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

/// The files that say which are given are put over the machine's for this only.
#[test]
fn an_ordinary_user_s_job_knows_the_users_and_groups_that_are_given_to_that_user() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -m 1777 open; mkdir -m 2775 shared; chgrp 50000 shared");
    let specrun = mount.beside("specrun");
    fs::copy(SPECRUN, &specrun).expect("copy");
    let job = |given: &str, script: &str| {
        fs::write(mount.beside("given"), given).expect("write");
        let script = format!(
            "mount --bind {given} /etc/subuid && mount --bind {given} /etc/subgid && \
             setpriv --reuid=daemon --regid=daemon --groups=50000 {} -- sh -c '{script}'",
            specrun.display(),
            given = mount.beside("given").display(),
        );
        let mut command = Command::new("unshare");
        let output = command.args(["--mount", "sh", "-c", &script]).current_dir(mount.at("open")).output();
        let output = output.expect("unshare runs");
        (output.status.success(), text(&output.stdout), text(&output.stderr))
    };
    let use_them = "echo x > ../shared/f && echo y > own && chgrp 50000 own && chmod g+s own && setfacl -m u:50000:r,g:50001:r own && \
                    stat -c %g ../shared own && id -G";
    let (done, said, error) = job("daemon:50000:2\n1:50001:1\ndaemon:50000:2\n", use_them);
    assert!(done, "{error}");
    assert_eq!(said, "50000\n50000\n1 50000\n");
    assert_eq!(sh(&mount.path(), "stat -c '%u %g %a' shared/f open/own"), "1 50000 644\n1 50000 2644\n");
    let acl = "getfacl -nc open/own | grep -E '^(user|group):[0-9]' | tr '\\n' ' '";
    assert_eq!(sh(&mount.path(), acl), "user:50000:r-- group:50001:r-- ");
    // They are given to others, or to nobody: then they are not known, and all else is as it was.
    for given in ["", "bin:50000:2\n"] {
        let (done, said, error) =
            job(given, "chmod 600 own; echo z > ../shared/f && stat -c %g own && chgrp 50000 own");
        assert!(!done && said == "65534\n" && error.contains("Invalid argument"), "{given}: {said}{error}");
    }
    assert_eq!((mount.read("shared/f"), mount.read("open/own")), ("x\n".into(), "y\n".into()));
}

#[test]
fn only_the_owner_and_root_see_and_decide() {
    require_root!();
    let mount = Mount::new();
    let id = mount.held("echo x > a");
    let mojavefs = mount.beside("mojavefs");
    fs::copy(MOJAVEFS, &mojavefs).expect("copy");
    for words in ["commit", "abort", "diff", "why"] {
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

#[test]
fn who_waits_for_what_another_user_holds_is_not_told_to_decide_it() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir open && chmod 1777 open");
    let id = mount.held("echo x > open/a");
    let (specrun, said) = (mount.beside("specrun"), mount.beside("said"));
    fs::copy(SPECRUN, &specrun).expect("copy");
    let said_by = fs::File::create(&said).expect("a file");
    let setpriv = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"];
    let mut waits = Command::new("setpriv");
    waits.args(setpriv).arg(&specrun).args(["--", "cat", "open/a"]).current_dir(mount.path()).stderr(said_by);
    let mut waits = waits.stdout(std::process::Stdio::null()).spawn().expect("setpriv runs");
    let words = || fs::read_to_string(&said).expect("what it said");
    until("it waits", || words().contains(&format!("{id} is held by another user")));
    assert!(!words().contains("`mojavefs commit"), "{}", words());
    assert!(mount.mojavefs(&["commit", &id]).status.success());
    assert!(waits.wait().expect("it ends").success(), "{}", words());
}

/// Asks a daemon for a file's content before a speculation, whatever changed in it.
const PEEK: &str = "
import os, socket, struct, sys
value = os.getxattr('.', 'system.mojavefs').decode().split('\\n')
s = socket.socket(socket.AF_UNIX)
s.connect(value[1])
path = sys.argv[2].encode()
ask = bytes([4, int(sys.argv[1]), 0, len(path)]) + path + bytes([250])
s.sendall(struct.pack('<I', len(ask)) + ask)
length = struct.unpack('<I', s.recv(4))[0]
print(s.recv(length))
";

#[test]
fn a_diff_shows_only_what_its_reader_may_read() {
    require_root!();
    let mount = Mount::new();
    for (program, to) in [(SPECRUN, "specrun"), (MOJAVEFS, "mojavefs")] {
        fs::copy(program, mount.beside(to)).expect("copy");
    }
    sh(
        &mount.path(),
        "mkdir open priv && chown 65534 open && chmod 700 priv && echo hush > open/secret && chmod 600 open/secret && \
         echo hush > priv/key && echo all > open/shown && echo list > open/listed && chmod 600 open/listed && \
         setfacl -m u:65534:r open/listed",
    );
    let held = as_nobody(&mount, "../specrun --quiet --hold rm -f open/secret open/shown open/listed");
    assert!(held.status.success(), "{}", text(&held.stderr));
    let id = mount.status()[0]["id"].to_string();
    let said = text(&as_nobody(&mount, &format!("../mojavefs diff --patch {id}")).stdout);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.contains(&"D  open/secret") && lines.contains(&"this user may not read the content"), "{said}");
    assert!(lines.contains(&"-all") && lines.contains(&"-list") && !said.contains("hush"), "{said}");
    for (path, seen) in [("priv/key", false), ("open/secret", false), ("open/shown", true)] {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
            "--",
            "/usr/bin/python3",
            "-c",
            PEEK,
            &id,
            path,
        ]);
        let output = command.current_dir(mount.path()).output().expect("python runs");
        let said = text(&output.stdout);
        assert!(said.starts_with("b'") && !said.contains("hush"), "{path}: {said}{}", text(&output.stderr));
        assert_eq!(said.contains("all"), seen, "{path}: {said}");
    }
    assert!(text(&mount.mojavefs(&["diff", "--patch", &id]).stdout).contains("-hush"), "root reads everything");
}

/// Begins a job in the namespace that it is in, and goes.
const BEGIN: &str = "
import os, socket, struct
value = os.getxattr('.', 'system.mojavefs').decode().split('\\n')
s = socket.socket(socket.AF_UNIX)
s.connect(value[1])
ask = bytes([0, 0, int(value[2]), 1, 120, 0, 0, 0, 0, 0])
s.sendall(struct.pack('<I', len(ask)) + ask)
assert s.recv(5)[4] == 0, 'it is started'
";

#[test]
fn the_end_of_a_job_ends_nobody_else_s_processes() {
    require_root!();
    let mount = Mount::new();
    let nobody = "setpriv --reuid 65534 --regid 65534 --clear-groups";
    // A mount namespace that several users are in, as in a container.
    let script = format!(
        "sleep 1000 > /dev/null 2>&1 & echo $!; {nobody} sleep 1000 > /dev/null 2>&1 & echo $!; {nobody} /usr/bin/python3 -c \"$0\""
    );
    let mut command = Command::new("unshare");
    let output = command.args(["-m", "sh", "-c", &script, BEGIN]).current_dir(mount.path()).output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    let pids: Vec<Pid> = said.lines().map(|pid| Pid::from_raw(pid.parse().expect("a number"))).collect();
    until("the job is undone", || mount.status().is_empty());
    until("what is left of the user's is ended", || !is_running(pids[1]));
    assert!(is_running(pids[0]), "root's goes on");
    kill(pids[0], Signal::SIGKILL).expect("end it");
}

#[test]
fn only_the_owner_and_root_unmount() {
    require_root!();
    let mount = Mount::new();
    let mojavefs = mount.beside("mojavefs");
    fs::copy(MOJAVEFS, &mojavefs).expect("copy");
    let refused = |how: &str| {
        let script = format!("cd / && {} umount {how} {}", mojavefs.display(), mount.path().display());
        let output = as_nobody(&mount, &script);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("belongs to user 0: only root or its owner may unmount it"), "{said}");
    };
    refused("");
    refused("--force");
    assert!(mount.status().is_empty());
}

/// What an ordinary user does with a store of their own: jobs, a daemon that is killed, and what it leaves.
const OWN_MOUNT: &str = "
    trap 'cd /; mojavefs umount --force \"$PLACE/mnt\" 2>&1' EXIT
    cd \"$PLACE\" && mkdir mnt
    mojavefs mount --foreground store mnt & daemon=$!
    until grep -q \"$PLACE/mnt\" /proc/self/mountinfo; do kill -0 $daemon || exit 10; sleep 0.01; done
    cd mnt && echo final > a
    specrun --quiet -- sh -c 'echo changed > a; exit 3' && exit 11
    [ $(cat a) = final ] && specrun --quiet -- sh -c 'echo x > b' && [ $(stat -c %u b) = $(id -u) ] || exit 12
    specrun --quiet --hold -- sh -c 'echo held > c' && specrun --quiet --no-wait -- cp c d || exit 13
    mojavefs status | grep 'depends on 3' || exit 14
    kill -KILL $daemon; wait $daemon
    ls && exit 15
    cd .. && mojavefs mount --force store mnt && [ $(ls mnt | tr -d '\\n') = ab ] || exit 16
    mojavefs commit -m mnt 3 && [ $(cat mnt/c) = held ] && [ $(cat mnt/d) = held ] || exit 17
    mojavefs umount mnt && mojavefs fsck store || exit 18
";

#[test]
fn an_ordinary_user_mounts_a_store_of_their_own() {
    require_root!();
    let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
    sh(root.path(), "chmod 755 . && mknod -m 666 fuse c 10 229 && mkdir theirs && chown 65534:65534 theirs");
    for program in [MOJAVEFS, SPECRUN] {
        sh(root.path(), &format!("cp {program} ."));
    }
    // Where only root may open the device, this user may, here.
    let script = "mount --bind fuse /dev/fuse && exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -c \"$0\"";
    let mut unshare = Command::new("timeout");
    unshare.args(["-k", "5", "100", "unshare", "-m", "sh", "-c", script, OWN_MOUNT]).current_dir(root.path());
    let path = format!("{}:{}", root.path().display(), std::env::var("PATH").unwrap_or_default());
    let output = unshare.env("PATH", path).env("PLACE", root.path().join("theirs")).output().expect("unshare runs");
    assert!(output.status.success(), "{}: {}{}", output.status, text(&output.stdout), text(&output.stderr));
}
