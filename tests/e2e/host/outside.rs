//! What lies outside of a job's directories: it is said at the start, and with `--outside read-only` the job can't change it.

use crate::harness::host::OverHost;
use crate::harness::programs::with_python_package;
use crate::harness::{MOJAVEFS, SPECRUN, sh, text};
use std::fs;
use std::path::Path;
use std::process::Output;

/// Where directories that are not `/tmp` can be made for a test.
fn elsewhere() -> &'static Path {
    Path::new("/var/tmp")
}

/// What a job can't do, each in a line that says so.
const REFUSED: &str = "for dir in $HOME /var/tmp /etc $OUTSIDE; do touch $dir/mojavefs-outside 2>/dev/null && echo wrote $dir; done; true";

fn read_only(host: &OverHost, words: &[&str], script: &str) -> Output {
    let words = [&["--outside", "read-only"], words].concat();
    let mut job = host.job(&words, script);
    job.env("OUTSIDE", host.aside("outside")).env("HOME", host.aside("home"));
    with_python_package(&mut job).output().expect("specrun runs")
}

fn with_home(host: &OverHost) {
    sh(&host.aside("."), "mkdir home outside");
}

#[test]
fn a_job_that_may_change_its_directory_only() {
    // In /tmp the job has a directory of its own, in which the covered ones are all there is.
    for dir in [elsewhere(), Path::new("/tmp")] {
        let host = OverHost::beside(dir);
        with_home(&host);
        sh(&host.path(), "echo old > a; mkdir d; echo x > d/x; touch ../outside/there");
        let output = read_only(&host, &[], &format!("{REFUSED}; echo new > a; rm -r d; echo n > n"));
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert_eq!((host.read("a"), host.read("n"), host.at("d").exists()), ("new\n".into(), "n\n".into(), false));
        let undone = read_only(&host, &[], "echo no > a; exit 3");
        assert_eq!((undone.status.code(), host.read("a")), (Some(3), "new\n".into()), "{undone:?}");
        // Everybody else goes on writing there, while the job runs and after it.
        fs::write(host.aside("outside/written"), "").expect("write");
    }
}

#[test]
fn tmp_is_the_job_s_own_and_gone_with_it() {
    let host = OverHost::beside(elsewhere());
    with_home(&host);
    let name = format!("mojavefs-test.private-{}", std::process::id());
    let outside = std::env::temp_dir().join(&name);
    fs::write(&outside, "host").expect("write");
    let script =
        format!("[ ! -e /tmp/{name} ]; echo job > /tmp/{name}; cat /tmp/{name}; mktemp >/dev/null; stat -c %a /tmp");
    let output = read_only(&host, &[], &script);
    let found = fs::read_to_string(&outside).expect("read");
    fs::remove_file(&outside).expect("remove");
    assert_eq!((text(&output.stdout).as_str(), found.as_str()), ("job\n1777\n", "host"), "{output:?}");
}

#[test]
fn what_is_excepted_can_be_changed() {
    let host = OverHost::beside(elsewhere());
    with_home(&host);
    sh(&host.aside("."), "mkdir outside/dir cache; touch outside/file");
    let [dir, file] = ["outside/dir", "outside/file"].map(|path| host.aside(path).display().to_string());
    let script = "echo job > $OUTSIDE/dir/new; echo job > $OUTSIDE/file; touch $OUTSIDE/other || echo refused; exit 1";
    let output = read_only(&host, &["--host", &dir, "--host", &file], script);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), "refused\n".into()), "{output:?}");
    // It is no part of the job.
    assert_eq!(sh(&host.aside("outside"), "ls; cat dir/new file"), "dir\nfile\njob\njob\n");
    let missing = read_only(&host, &["--host", "/no/such/place"], "true");
    assert_eq!(missing.status.code(), Some(125), "{missing:?}");
    assert!(text(&missing.stderr).contains("/no/such/place: No such file"), "{missing:?}");
    let alone = host.specrun(&["--host", &dir], "true");
    assert!(text(&alone.stderr).contains("--host goes with --outside read-only"), "{alone:?}");
}

#[test]
fn what_is_mounted_below_is_read_only_too() {
    require_root!();
    let host = OverHost::beside(elsewhere());
    with_home(&host);
    sh(&host.path(), "mkdir mnt; mount -t tmpfs none mnt; echo in > mnt/in");
    let output = read_only(&host, &[], "cat mnt/in; touch mnt/job 2>/dev/null || echo refused; echo job > job");
    let below = host.at("mnt").display().to_string();
    let excepted = read_only(&host, &["--host", &below], "touch mnt/job");
    let found = sh(&host.at("mnt"), "ls");
    sh(&host.path(), "umount mnt");
    assert_eq!((text(&output.stdout).as_str(), host.read("job").as_str()), ("in\nrefused\n", "job\n"), "{output:?}");
    assert!(text(&output.stderr).contains("mnt is mounted by itself: the job can't change it"), "{output:?}");
    assert!(excepted.status.success() && found == "in\njob\n", "{excepted:?}");
}

/// An agent listens in a directory of `/tmp`; another one of the user's in the home directory, which is read-only.
#[test]
fn sockets_of_the_user_are_reached() {
    let host = OverHost::beside(elsewhere());
    with_home(&host);
    sh(&host.aside("home"), "mkdir .gnupg");
    let agent = tempfile::Builder::new().prefix("mojavefs-test.").tempdir_in("/tmp").expect("a directory");
    let sockets = [agent.path().join("agent"), host.aside("home/.gnupg/S.gpg-agent"), host.aside("home/other.sock")];
    let listeners = sockets.each_ref().map(|socket| std::os::unix::net::UnixListener::bind(socket).expect("bind"));
    let connect =
        "import os, socket\nfor path in os.environ['SOCKETS'].split(): socket.socket(socket.AF_UNIX).connect(path)";
    let mut job = host.command(SPECRUN);
    job.args(["--outside", "read-only", "--", "python3", "-c", connect]).env("HOME", host.aside("home"));
    let paths = sockets.each_ref().map(|socket| socket.display().to_string());
    let output = job.env("SSH_AUTH_SOCK", &sockets[0]).env("SOCKETS", paths.join(" ")).output().expect("specrun runs");
    drop(listeners);
    assert!(output.status.success(), "{output:?}");
}

const SPECULATES: &str = "
import mojave, os
open('kept', 'w').write('before')
try:
    with mojave.speculation():
        open('kept', 'w').write('undone'); open('gone', 'w').write('undone')
        raise ValueError('no')
except mojave.Aborted:
    assert open('kept').read() == 'before' and not os.path.exists('gone')
with mojave.speculation():
    open('done', 'w').write('done')
";

#[test]
fn jobs_inside_and_libmojave_work_where_all_else_is_read_only() {
    let host = OverHost::beside(elsewhere());
    with_home(&host);
    host.write("a", "a\n");
    let script = format!(
        "{SPECRUN} -- sh -c 'echo b >> a'; {SPECRUN} -- sh -c 'echo no >> a; exit 1' || echo c >> a; \
         {SPECRUN} --hold -- sh -c 'echo h > held'; {MOJAVEFS} commit >&2; python3 -c \"$PROGRAM\"; {REFUSED}"
    );
    let words = ["--outside", "read-only"];
    let mut job = host.job(&words, &script);
    job.env("PROGRAM", SPECULATES).env("OUTSIDE", host.aside("outside")).env("HOME", host.aside("home"));
    let output = with_python_package(&mut job).output().expect("specrun runs");
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    let found = ["a", "held", "kept", "done"].map(|path| host.read(path));
    assert_eq!(found, ["a\nb\nc\n", "h\n", "before", "done"], "{output:?}");
}

/// As an ordinary user, whose job has a user namespace, and whose daemon listens in `/tmp`.
#[test]
fn an_ordinary_user_s_job_may_change_its_directory_only() {
    require_root!();
    let host = OverHost::beside(elsewhere());
    with_home(&host);
    sh(
        &host.aside("."),
        "mknod -m 666 fuse c 10 229; mkdir state runtime; chown -R 65534:65534 project home outside state runtime",
    );
    for program in [MOJAVEFS, SPECRUN] {
        sh(&host.aside("."), &format!("cp {program} ."));
    }
    let short_lived = tempfile::Builder::new().prefix("mojavefs-test.").tempdir_in("/tmp").expect("a directory");
    sh(short_lived.path(), "chown 65534:65534 .");
    // Without the first the daemon listens in a directory of the second.
    let runtimes = [("XDG_RUNTIME_DIR", host.aside("runtime")), ("TMPDIR", short_lived.path().to_owned())];
    for (name, runtime) in runtimes {
        let script = format!(
            "echo old > a; $BIN/specrun --outside read-only -- sh -ec '{REFUSED}; $BIN/specrun -- sh -c \"echo inner > b\"; echo job > a; \
             echo x > /tmp/x'; cat a b; ! $BIN/specrun --outside read-only -- sh -c 'echo no > a; exit 1'; cat a; rm b"
        );
        let enter =
            "mount --bind ../fuse /dev/fuse && exec setpriv --reuid 65534 --regid 65534 --clear-groups sh -ec \"$0\"";
        let mut unshare = host.command("unshare");
        unshare.args(["-m", "sh", "-c", enter, &script]).env_remove("XDG_RUNTIME_DIR").env(name, runtime);
        unshare.env("BIN", host.aside(".")).env("OUTSIDE", host.aside("outside")).env("HOME", host.aside("home"));
        let output = unshare.output().expect("unshare runs");
        host.end(nix::sys::signal::Signal::SIGTERM);
        assert!(output.status.success(), "{name}: {output:?}");
        assert_eq!(text(&output.stdout), "job\ninner\njob\n", "{name}: {output:?}");
    }
}

#[test]
fn a_mount_has_no_outside() {
    let mount = crate::harness::Mount::new();
    let output = mount.specrun(&["--outside", "read-only"], "true");
    assert_eq!(output.status.code(), Some(125), "{output:?}");
    assert!(text(&output.stderr).contains("this is a mount of MojaveFS"), "{output:?}");
}

/// What a job says at its start, as a program reads it.
fn started(host: &OverHost, dir: &Path, words: &[&str]) -> serde_json::Value {
    let words = [&["--json"], words].concat();
    let output = host.job(&words, "true").current_dir(dir).output().expect("a job");
    assert!(output.status.success(), "{output:?}");
    let said = text(&output.stderr);
    let lines: Vec<serde_json::Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[1]["state"]), (2, &"committed".into()), "{said}");
    lines[0].clone()
}

#[test]
fn what_is_covered_is_said_at_the_start() {
    let host = OverHost::new();
    let dir = host.path().display().to_string();
    let said = started(&host, &host.path(), &[]);
    assert_eq!(said, serde_json::json!({"state": "started", "covers": [dir], "native": [], "outside": []}));
    // On a terminal.
    let specrun = format!("{SPECRUN} -- true");
    let on_terminal = host.command("script").args(["-qec", &specrun, "/dev/null"]).output().expect("script runs");
    assert!(text(&on_terminal.stdout).contains(&format!("specrun: over {dir};")), "{on_terminal:?}");
    assert!(!text(&host.specrun(&[], "true").stderr).contains("over"), "nobody reads along");
}

#[test]
fn what_of_a_repository_lies_elsewhere_is_named() {
    let host = OverHost::new();
    let git = "git -c user.name=a -c user.email=a@b -c init.defaultBranch=main -c protocol.file.allow=always";
    sh(
        &host.path(),
        &format!(
            "{git} init -q main; cd main; echo a > a; git add a; {git} commit -qm a; git worktree add -q ../tree; \
             cd ..; git clone -q --shared main shared; {git} init -q super; cd super; {git} submodule --quiet add ../main sub"
        ),
    );
    let leads = |dir: &str, words: &[&str]| started(&host, &host.at(dir), words)["outside"].clone();
    let at = |path: &str| host.at(path).display().to_string();
    assert_eq!(leads("main", &[]), serde_json::json!([]));
    assert_eq!(leads("tree", &[]), serde_json::json!([at("main/.git")]));
    assert_eq!(leads("shared", &[]), serde_json::json!([at("main/.git/objects")]));
    assert_eq!(leads("super", &[]), serde_json::json!([]));
    assert_eq!(leads("super/sub", &[]), serde_json::json!([at("super/.git/modules/sub")]));
    // As it is said to people, and what comes of doing that.
    let told = host.job(&[], "true").current_dir(host.at("tree")).output().expect("a job");
    let advice = format!("but for --dir {} --dir {}\n", at("tree"), at("main/.git"));
    assert!(text(&told.stderr).contains(&advice), "{told:?}");
    let words = ["--dir", &at("tree"), "--dir", &at("main/.git")];
    assert_eq!(leads("tree", &words), serde_json::json!([]));
    let commit = format!("echo b > b; git add b; {git} commit -qm b; exit 1");
    let undone = host.job(&words, &commit).current_dir(host.at("tree")).output().expect("a job");
    assert_eq!(undone.status.code(), Some(1), "{undone:?}");
    assert_eq!(sh(&host.at("tree"), "git log --format=%s; git status --porcelain"), "a\n");
}
