//! Mounting, unmounting, and what can go wrong with it.

use crate::harness::{MOJAVEFS, Mount, project, run, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn mount_fails(words: &[&str], says: &str) {
    let output = Command::new(MOJAVEFS).arg("mount").args(words).output().expect("mojavefs runs");
    let error = text(&output.stderr);
    assert!(!output.status.success() && error.contains(says), "{words:?}: {error}");
}

#[test]
fn what_was_written_is_there_after_a_remount() {
    let mount = Mount::new();
    mount.write("a", "x");
    mount.umount();
    assert!(fs::read_dir(mount.path()).expect("list").next().is_none());
    mount.mount();
    assert_eq!(mount.read("a"), "x");
}

/// How long a store's lock is waited for if whoever has it says nothing.
const LOCK_WAIT: Duration = Duration::from_secs(2);

#[test]
fn whoever_mounts_a_store_waits_for_its_daemon_to_end() {
    require_root!();
    let mount = Mount::new();
    mount.write("file", "content");
    // Closing the store takes twice as long as a lock is waited for.
    let delay = format!("inject=fsync:delay_enter={}:when=1", (2 * LOCK_WAIT).as_micros());
    let mut strace = mount.strace(&["-e", "trace=fsync", "-e", &delay]);
    run(Path::new("/"), "umount", &[mount.path().to_str().expect("a path in UTF-8")]);
    let began = Instant::now();
    mount.mount();
    assert!(began.elapsed() > LOCK_WAIT, "there was nothing to wait for: {:?}", began.elapsed());
    assert_eq!(mount.read("file"), "content");
    strace.wait().expect("it ends with the daemon");
    mount.check();
}

#[test]
fn a_store_that_is_mounted_is_refused_at_once() {
    let mount = Mount::new();
    let elsewhere = mount.beside("elsewhere").to_string_lossy().into_owned();
    fs::create_dir(&elsewhere).expect("mkdir");
    let began = Instant::now();
    mount_fails(&[&mount.store().to_string_lossy(), &elsewhere], "is mounted on");
    assert!(began.elapsed() < LOCK_WAIT, "it took {:?}", began.elapsed());
}

#[test]
fn mistakes_are_told() {
    let mount = Mount::new();
    let dir = |name: &str| mount.beside(name).to_string_lossy().into_owned();
    let (store, point) = (dir("store"), dir("mnt"));
    mount_fails(&[&dir("other"), &dir("missing")], "there is no directory");
    mount_fails(&[&dir("other"), &point], "has a MojaveFS mounted already");
    fs::create_dir(dir("elsewhere")).expect("mkdir");
    mount_fails(&[&store, &dir("elsewhere")], "is in use by another process");
    fs::create_dir(dir("foreign")).expect("mkdir");
    fs::write(dir("foreign") + "/file", "").expect("write");
    mount_fails(&[&dir("foreign"), &dir("elsewhere")], "is no MojaveFS store");
    fs::write(dir("file"), "").expect("write");
    mount_fails(&[&dir("other"), &dir("file")], "is no directory");
    mount_fails(&[&dir("file"), &dir("elsewhere")], "is no directory");
    mount_fails(&[&dir("no/such/store"), &dir("elsewhere")], "there is no directory");
    let says = |words: &[&str], says: &str| {
        let output = Command::new(MOJAVEFS).args(words).output().expect("runs");
        assert!(output.status.code() == Some(1) && text(&output.stderr).contains(says), "{}", text(&output.stderr));
    };
    let address = format!("unix:{}", dir("socket"));
    says(&["serve", "--listen", &address, &dir("no/such/store")], "there is no directory");
    says(&["keygen", &dir("no/such/key")], "there is no directory");
    says(&["keygen", &dir("file")], "is there already; remove it or name another file");
    let (key, other, elsewhere) = (dir("file"), dir("other"), dir("elsewhere"));
    for how in [&[][..], &["--foreground"]] {
        mount_fails(&[how, &["--key", &key, &other, &elsewhere]].concat(), "--key is for tcp: only");
    }
    assert!(!mount.beside("no").exists() && !mount.beside("other").exists(), "nothing is made by mistake");
    says(&["fsck", &dir("elsewhere")], "is an empty directory");
    says(&["fsck", &dir("no")], "does not exist");
    says(&["fsck", &dir("file")], "is no directory");
    says(&["fsck", &dir("foreign")], "holds no MojaveFS store; name the directory that was mounted");
    let output = Command::new(MOJAVEFS).arg("umount").arg(dir("elsewhere")).output().expect("runs");
    assert!(text(&output.stderr).contains("no MojaveFS is mounted"), "{}", text(&output.stderr));
}

/// In a mount namespace of its own: what is mounted by mistake is seen by nobody else, and ends soon.
fn mount_apart(words: &[&str], dir: &std::path::Path) -> String {
    let apart = ["-m", "timeout", "-k", "5", "20", MOJAVEFS, "mount", "--foreground"];
    let output = Command::new("unshare").args(apart).args(words).current_dir(dir).output().expect("unshare runs");
    assert_eq!(output.status.code(), Some(1), "{words:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_mount_may_not_hide_what_others_need() {
    require_root!();
    let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
    crate::harness::sh(root.path(), "mkdir -p a/b && ln -s a link && ln -s /proc proc");
    let refused = |store: &str, point: &str, says: &str| {
        let error = mount_apart(&[store, point], root.path());
        assert!(error.contains(says), "{store} on {point}: {error}");
        let made = ["new", "a/new", "a/b/new"].iter().any(|name| root.path().join(name).exists());
        assert!(!made, "{point}: no store is made");
    };
    refused("new", "/", "is the root of all there is");
    let kernel_s =
        [("/proc", "proc"), ("proc", "proc"), ("/sys", "sysfs"), ("/dev", "devtmpfs"), ("/dev/pts", "devpts")];
    for (point, kind) in kernel_s {
        refused("new", point, &format!("is the kernel's own ({kind})"));
    }
    if std::path::Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        refused("new", "/sys/fs/cgroup", "is the kernel's own (cgroup2)");
    }
    for point in ["/run", "/run/mojavefs"] {
        refused("new", point, "holds the control sockets");
    }
    for (store, point) in [("a/new", "a"), ("a/b/new", "link"), ("link/b/new", "a"), ("a/b", "a")] {
        refused(store, point, "holds the store");
    }
    refused("a/b", "link/b", "is the store itself");
    let mount = Mount::new();
    mount.umount();
    let inside = mount.store().join("content");
    let error = mount_apart(&[mount.store(), &inside].map(|path| path.to_str().expect("a path of text")), root.path());
    assert!(error.contains("lies in the store"), "{error}");
}

#[test]
fn a_dead_daemon_s_mount_is_cleared_by_force() {
    let mount = Mount::new();
    mount.write("a", "x");
    nix::sys::signal::kill(mount.daemon(), nix::sys::signal::Signal::SIGKILL).expect("kill");
    crate::harness::until("the mount is dead", || fs::metadata(mount.path()).is_err());
    let refused = mount.try_mount(&[]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("--force"), "{}", text(&refused.stderr));
    let forced = mount.try_mount(&["--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    assert_eq!(mount.read("a"), "x");
}

#[test]
fn a_dead_daemon_s_mount_is_known_whatever_the_kernel_has_cached() {
    let mount = Mount::new();
    fs::metadata(mount.path()).expect("stat");
    let daemon = mount.daemon();
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGKILL).expect("kill");
    crate::harness::until("the daemon is gone", || !crate::harness::is_running(daemon));
    let forced = mount.try_mount(&["--force"]);
    assert!(forced.status.success(), "{}", text(&forced.stderr));
    fs::metadata(mount.path()).expect("stat");
    mount.crash();
    mount.mount();
}

#[test]
fn a_daemon_that_hangs_is_told_and_its_mount_taken_away_by_force() {
    let mount = Mount::new();
    mount.write("a", "x");
    let daemon = mount.daemon();
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGSTOP).expect("stop it");
    // Whoever asks a thread that has not stopped yet can't be ended before it goes on.
    let stopped = |thread: fs::DirEntry| {
        fs::read_to_string(thread.path().join("status")).is_ok_and(|status| status.contains("State:\tT"))
    };
    crate::harness::until("all of it has stopped", || {
        fs::read_dir(format!("/proc/{daemon}/task")).expect("its threads").flatten().all(stopped)
    });
    let [store, point] = [mount.store().to_owned(), mount.path()];
    let run = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "60", MOJAVEFS]).args(words).stderr(std::process::Stdio::piped());
        command
    };
    let tries = [
        (run(&["umount"]).arg(&point).spawn(), "hangs; take the mount away with --force"),
        (run(&["mount", "--force"]).args([&store, &point]).spawn(), "whose daemon hangs"),
    ];
    for (child, says) in tries {
        let output = child.expect("it runs").wait_with_output().expect("wait");
        assert!(output.status.code() == Some(1) && text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
    let output = run(&["umount", "--force"]).arg(&point).output().expect("it runs");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("unmounted, but its daemon hangs"), "{said}");
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGCONT).expect("let it go on");
    crate::harness::until("the daemon is gone", || !crate::harness::is_running(daemon));
    mount.mount();
    assert_eq!(mount.read("a"), "x");
}

#[test]
fn a_store_of_another_format_or_damaged_is_refused() {
    let mount = Mount::new();
    mount.umount();
    let current = fs::read_to_string(mount.store().join("records/CURRENT")).expect("CURRENT");
    fs::write(mount.store().join("records").join(current.trim()), "garbage").expect("damage it");
    let refused = mount.try_mount(&[]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("cannot mount"), "{}", text(&refused.stderr));
}

#[test]
fn a_running_job_keeps_its_filesystem_mounted_and_no_other() {
    let (busy, other) = (Mount::new(), Mount::new());
    let job = busy.start("job", &[], "echo 1 > a");
    // The job's mount namespace may have a copy of this mount.
    let began = std::time::Instant::now();
    other.umount();
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "it must not wait for the job");
    other.mount();
    let refused = std::process::Command::new(crate::harness::MOJAVEFS).arg("umount").arg(busy.path()).output();
    let refused = refused.expect("mojavefs runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("jobs run on it"), "{}", text(&refused.stderr));
    assert!(job.exit(0).status.success());
    assert_eq!(busy.read("a"), "1\n");
}

#[test]
fn a_mount_is_not_taken_away_from_where_it_cannot_be() {
    require_root!();
    let mount = Mount::new();
    let script =
        format!("echo 1 > a; {MOJAVEFS} umount --force . ; echo $? > code; {MOJAVEFS} umount . ; echo $? >> code");
    let output = mount.specrun(&[], &script);
    let said = text(&output.stderr);
    assert!(output.status.success() && said.matches("unmount it outside of the job").count() == 2, "{said}");
    assert_eq!((mount.read("a"), mount.read("code")), ("1\n".into(), "1\n1\n".into()));
    let copy = ["-m", "--propagation", "private", MOJAVEFS, "umount"];
    let output = Command::new("unshare").args(copy).arg(mount.path()).output().expect("unshare runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("in another mount namespace"), "{}", text(&output.stderr));
    assert_eq!(mount.read("a"), "1\n");
}

#[test]
fn jobs_of_a_mount_that_is_taken_away_by_force_say_that_they_were_undone() {
    let mount = Mount::new();
    let job = mount.start("job", &[], "echo 1 > a; setsid sleep 1000 & echo $! > ../pid");
    let output = Command::new(MOJAVEFS).args(["umount", "--force"]).arg(mount.path()).output().expect("mojavefs runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let pid = fs::read_to_string(mount.beside("pid")).expect("a pid").trim().parse().expect("a number");
    assert!(!crate::harness::is_running(nix::unistd::Pid::from_raw(pid)), "what it left is ended");
    let output = job.wait();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(75), "{said}");
    assert!(said.contains("the filesystem was unmounted") && said.contains("was undone"), "{said}");
    mount.mount();
    assert!(!mount.exists("a"));
}

/// Where daemons of this user have their sockets.
fn sockets() -> std::path::PathBuf {
    let own = || match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) => std::path::PathBuf::from(dir).join("mojavefs"),
        None => std::env::temp_dir().join(format!("mojavefs-{}", nix::unistd::geteuid())),
    };
    if nix::unistd::geteuid().is_root() { "/run/mojavefs".into() } else { own() }
}

#[test]
fn sockets_of_daemons_that_were_killed_are_removed_and_those_of_others_kept() {
    let (mount, other) = (Mount::new(), Mount::new());
    let left = sockets().join(format!("{}.sock", mount.daemon()));
    assert!(left.exists());
    mount.crash();
    assert!(left.exists(), "nobody was there to remove it");
    mount.mount();
    crate::harness::until("the socket is removed", || !left.exists());
    assert!(mount.status().is_empty() && other.status().is_empty());
    let own = sockets().join(format!("{}.sock", mount.daemon()));
    mount.umount();
    assert!(!own.exists());
}

#[test]
fn a_mount_that_fails_leaves_nothing() {
    require_root!();
    let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
    crate::harness::sh(root.path(), "mkdir mnt empty");
    let names = || crate::harness::sh(root.path(), "find . | sort");
    let before = names();
    // What is there in its place is no FUSE device.
    let no_device = "mount --bind /dev/null /dev/fuse && exec $0 mount --foreground $1 mnt";
    // A daemon finds this out only when all else is done.
    let no_place = "exec $0 mount --daemon $1 $PWD/missing";
    for (store, script) in [("new", no_device), ("empty", no_device), ("new", no_place), ("empty", no_place)] {
        let mut apart = Command::new("unshare");
        apart.args(["-m", "sh", "-c", script, MOJAVEFS, store]).current_dir(root.path());
        let child = apart.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
        let child = child.expect("unshare runs");
        let socket = sockets().join(format!("{}.sock", child.id()));
        let output = child.wait_with_output().expect("it ends");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains("mount on "), "{script}: {said}");
        assert!(!socket.exists() && names() == before, "{script} with {store}: {}", names());
    }
}

#[test]
fn a_mountpoint_may_be_a_symbolic_link() {
    let mount = Mount::new();
    mount.write("a", "x");
    mount.umount();
    std::os::unix::fs::symlink("mnt", mount.beside("near")).expect("symlink");
    let link = mount.beside("far");
    std::os::unix::fs::symlink(mount.beside("near"), &link).expect("symlink");
    let mojavefs = |words: &[&str]| {
        let output = Command::new(MOJAVEFS).args(words).arg(&link).current_dir("/").output().expect("mojavefs runs");
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    };
    let store = mount.store().to_str().expect("a path of text");
    mojavefs(&["mount", store]);
    assert_eq!((mount.read("a"), fs::read_to_string(link.join("a")).expect("read")), ("x".into(), "x".into()));
    mojavefs(&["status", "-m"]);
    mojavefs(&["umount"]);
    mojavefs(&["mount", store]);
    nix::sys::signal::kill(mount.daemon(), nix::sys::signal::Signal::SIGKILL).expect("kill");
    crate::harness::until("the mount is dead", || fs::metadata(mount.path()).is_err());
    mojavefs(&["mount", "--force", store]);
    mojavefs(&["umount"]);
    assert!(!mount.exists("a"));
}

#[test]
fn a_new_store_is_said_to_be_new() {
    let mount = Mount::new();
    mount.umount();
    let again = mount.try_mount(&[]);
    assert!(again.status.success() && again.stderr.is_empty(), "{}", text(&again.stderr));
    mount.umount();
    fs::remove_dir_all(mount.store()).expect("remove the store");
    for _ in ["missing", "empty"] {
        let new = mount.try_mount(&[]);
        assert!(new.status.success(), "{}", text(&new.stderr));
        assert_eq!(text(&new.stderr), format!("created {}\n", mount.store().display()));
        mount.umount();
        fs::remove_dir_all(mount.store()).and_then(|()| fs::create_dir(mount.store())).expect("empty the store");
    }
}

#[test]
fn a_mount_that_nobody_waits_for_any_more_is_taken_away() {
    let mount = Mount::new();
    mount.write("a", "x");
    mount.umount();
    // As if `mojavefs mount` had been interrupted.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut daemon = std::process::Command::new(MOJAVEFS);
    daemon.args(["mount", "--daemon", "--"]).arg(mount.store()).arg(mount.path()).stdout(writer);
    assert!(daemon.status().expect("mojavefs runs").success());
    assert!(fs::read_dir(mount.path()).expect("nothing is mounted").next().is_none());
    mount.mount();
    assert_eq!(mount.read("a"), "x");
}

/// A directory with what `make install` puts where mount(8) looks, in the place of which it is put for `script`, in a namespace of its own.
fn with_mount_helper(dir: &std::path::Path, script: &str) -> std::process::Output {
    let helpers = dir.join("sbin");
    fs::create_dir_all(&helpers).and_then(|()| fs::create_dir_all(dir.join("bin"))).expect("directories");
    let helper = fs::read_to_string(project("scripts/mount.fuse.mojavefs")).expect("the helper");
    let helper = helper.replace("@PREFIX@", &dir.display().to_string());
    fs::write(helpers.join("mount.fuse.mojavefs"), helper).expect("the helper");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(helpers.join("mount.fuse.mojavefs"), mode).expect("the helper");
    let _ = std::os::unix::fs::symlink(MOJAVEFS, dir.join("bin/mojavefs"));
    let script = format!("mount --bind {} /sbin && cd {} && {script}", helpers.display(), dir.display());
    Command::new("unshare").args(["--mount", "sh", "-c", &script]).output().expect("unshare runs")
}

#[test]
fn mount_and_fstab_lead_to_it() {
    require_root!();
    let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
    let script = "mkdir here && mount -t fuse.mojavefs -o nofail,memory=64M $PWD/store here && echo 1 > here/file && umount here &&
        echo \"$PWD/store $PWD/here fuse.mojavefs defaults,_netdev 0 0\" > fstab &&
        mount --fstab $PWD/fstab --all && cat here/file && findmnt -n -o FSTYPE here && umount here";
    let output = with_mount_helper(root.path(), script);
    let said = text(&output.stdout);
    assert!(output.status.success() && said.ends_with("1\nfuse.mojavefs\n"), "{said}{}", text(&output.stderr));
    let script = "mount -t fuse.mojavefs -o ro,nosuid $PWD/store here && cat here/file && findmnt -n -o OPTIONS here | grep -o nosuid;
        ! touch here/other; (cd here && $0 -- sh -c 'cat file; ! touch other'); umount here";
    let script = script.replace("$0", crate::harness::SPECRUN);
    let output = with_mount_helper(root.path(), &script);
    let (said, refused) = (text(&output.stdout), text(&output.stderr).matches("Read-only file system").count());
    assert!(output.status.success() && said.ends_with("1\nnosuid\n1\n") && refused == 2, "{output:?}");
    let output = with_mount_helper(root.path(), "mount -t fuse.mojavefs -o quick $PWD/store here");
    assert!(!output.status.success() && text(&output.stderr).contains("there is no option `quick`"), "{output:?}");
    // The last daemon has ended.
    let output = Command::new(MOJAVEFS).arg("fsck").arg(root.path().join("store")).output().expect("it runs");
    assert!(output.status.success(), "{}", text(&output.stdout));
}
