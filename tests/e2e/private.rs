//! What a daemon writes is for its user only: whoever could read the store would read everything in it.

use crate::harness::served::{Server, try_serve};
use crate::harness::{MOJAVEFS, Mount, run, sh, text};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

const SECRETS: &str = "top secret|small secret|held secret";

/// What an ordinary user gets out of a directory of the host by reading whatever can be read there.
fn seen_by_nobody(dir: &Path) -> String {
    let script = format!("grep -raE '{SECRETS}' . 2>/dev/null; cat content/* records/* 2>/dev/null | head -c 100");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c"]);
    command.arg(format!("cd '{}' && {script}", dir.display()));
    text(&command.output().expect("setpriv runs").stdout)
}

/// What there is below a directory that others than the owner have any permission for.
fn open_to_others(dir: &Path) -> String {
    run(Path::new("/"), "find", &[&*dir.to_string_lossy(), "!", "-type", "l", "-perm", "/077"])
}

fn mount_with(umask: &str, mount: &Mount, words: &str) -> Output {
    let script = format!("umask {umask}; exec \"$0\" mount {words} \"$1\" \"$2\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(MOJAVEFS).arg(mount.store()).arg(mount.path());
    command.env("MOJAVEFS_CHECK", "1").output().expect("sh runs")
}

#[test]
fn nobody_else_reads_the_store_whatever_the_umask() {
    require_root!();
    let mount = Mount::new();
    for umask in ["000", "022", "027", "077"] {
        mount.umount();
        fs::remove_dir_all(mount.store()).expect("remove the store");
        let output = mount_with(umask, &mount, "");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let held = "umask 077; yes 'held secret' | head -c 300000 > held";
        sh(
            &mount.path(),
            "umask 077; yes 'top secret' | head -c 300000 > big; echo 'small secret' > small; echo all > shown; \
             chmod 644 shown",
        );
        mount.held(held);
        sh(&mount.path(), "sync");
        assert_eq!(seen_by_nobody(mount.store()), "", "umask {umask}");
        assert_eq!(open_to_others(mount.store()), "", "umask {umask}");
        // What users are to reach is reached.
        let socket = format!("/run/mojavefs/{}.sock", mount.daemon());
        let look = format!("setpriv --reuid 65534 --regid 65534 --clear-groups sh -c 'cat shown && ls -l {socket}'");
        assert!(sh(&mount.path(), &look).starts_with("all\n"), "umask {umask}");
        let runtime = fs::metadata("/run/mojavefs").expect("the directory of sockets").mode();
        assert_eq!((runtime & 0o022, runtime & 0o005), (0, 0o005), "{runtime:o}");
        assert_eq!(fs::metadata("/run/mojavefs/daemon.log").expect("the log").mode() & 0o077, 0);
        assert_eq!(fs::metadata(socket).expect("the control socket").mode() & 0o777, 0o666);
    }
    mount.check();
    assert_eq!(open_to_others(mount.store()), "");
}

#[test]
fn a_store_that_others_could_read_is_tightened_when_it_is_opened() {
    let mount = Mount::new();
    let store = mount.store();
    let open = || sh(store, "chmod -R go+rX .");
    mount.umount();
    open();
    let first = mount_with("022", &mount, "");
    let said = text(&first.stderr);
    assert!(first.status.success() && said.lines().count() == 1, "{said}");
    assert!(
        said.starts_with("mojavefs: other users could read the store ") && said.contains("owner only now"),
        "{said}"
    );
    assert_eq!(open_to_others(store), "");
    mount.umount();
    let again = mount_with("022", &mount, "");
    assert!(again.status.success() && again.stderr.is_empty(), "{}", text(&again.stderr));
    mount.umount();
    open();
    // It is opened, tightened, and then can't listen.
    let serve = try_serve(&["--listen", "unix:/proc/no/socket"], store);
    assert!(!serve.status.success());
    assert_eq!(open_to_others(store), "");
    mount.mount();
}

#[test]
fn a_server_s_store_socket_and_key_are_its_user_s_only() {
    let server = Server::new();
    let mount = server.mount();
    mount.write("a", &"x".repeat(100_000));
    assert_eq!(open_to_others(&server.store()), "");
    for path in [server.socket(), &server.key()] {
        assert_eq!(fs::metadata(path).expect("stat").mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn a_directory_on_the_way_that_is_another_user_s_is_warned_of() {
    require_root!();
    let root = tempfile::Builder::new().prefix("mojavefs-test.").tempdir().expect("a directory for the test");
    sh(
        root.path(),
        "mkdir -p theirs/mine open/mine sticky/mine private && chown 65534 theirs && chmod 777 open && chmod 1777 sticky",
    );
    let said = |words: &[&str]| {
        let output = Command::new(MOJAVEFS).args(words).current_dir(root.path()).output().expect("mojavefs runs");
        text(&output.stderr)
    };
    for (dir, why) in [("theirs", "belongs to user 65534"), ("open", "is writable by every user")] {
        let key = said(&["keygen", &format!("{dir}/mine/key")]);
        let shown = root.path().join(dir).canonicalize().expect("a path");
        let warning =
            format!("mojavefs: warning: {} {why}, who can put something else in the place of", shown.display());
        assert!(key.starts_with(&format!("{warning} the key file ")), "{key}");
        let store = format!("{dir}/mine/store");
        // It goes no further: there is nothing to mount on.
        let point = format!("{dir}/missing");
        let listen = format!("unix:{dir}/mine/no/socket");
        let serve = said(&["serve", "--listen", &listen, &store]);
        assert!(serve.contains(&format!("{warning} the store ")), "{serve}");
        assert!(serve.contains(&format!("{warning} the socket ")), "{serve}");
        assert!(said(&["mount", &store, &point]).contains("there is no directory"));
    }
    for dir in ["sticky/mine", "private"] {
        assert_eq!(said(&["keygen", &format!("{dir}/key")]), "", "{dir}");
    }
}

#[test]
fn what_is_exported_has_the_modes_of_the_originals_whatever_the_umask() {
    let mount = Mount::new();
    sh(
        &mount.path(),
        "mkdir dir && echo x > dir/shown && echo y > dir/secret && chmod 664 dir/shown && chmod 600 dir/secret",
    );
    fs::set_permissions(mount.at("dir"), Permissions::from_mode(0o775)).expect("chmod");
    for umask in ["000", "077"] {
        let to = mount.beside(&format!("copy{umask}"));
        let script = format!("umask {umask}; exec \"$0\" export /dir \"$1\"");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).arg(MOJAVEFS).arg(&to).current_dir(mount.path());
        let output = command.output().expect("sh runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let mode = |name: &str| fs::metadata(to.join(name)).expect("stat").mode() & 0o777;
        assert_eq!(["", "shown", "secret"].map(mode), [0o775, 0o664, 0o600], "umask {umask}");
    }
}
