//! The filesystem in more than one place: bind mounts of it and of parts of it, and other mounts of its server. A job's view covers
//! all of them, or the job is not started.

use crate::harness::programs::with_python_package;
use crate::harness::served::Server;
use crate::harness::{MOJAVEFS, Mount, SPECRUN, sh, text, until};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Something mounted, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// A part of a mount, bound beside it.
    fn bind(mount: &Mount, part: &str, to: &str) -> Mounted {
        Mounted::at(&mount.at(part), &mount.beside(to))
    }

    fn at(from: &Path, to: &Path) -> Mounted {
        match from.is_dir() {
            true => fs::create_dir_all(to).expect("a directory"),
            false => drop(fs::File::create(to).expect("a file")),
        }
        mount_at(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
        Mounted(to.to_owned())
    }

    fn tmpfs(to: PathBuf) -> Mounted {
        mount_at(Some("none"), &to, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        fs::write(to.join("there"), "memory\n").expect("a file in memory");
        Mounted(to)
    }

    fn remount(&self, flags: MsFlags) {
        let flags = flags | MsFlags::MS_REMOUNT | MsFlags::MS_BIND;
        mount_at(None::<&str>, &self.0, None::<&str>, flags, None::<&str>).expect("mounted again");
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let gone = umount2(&self.0, MntFlags::MNT_DETACH);
        assert!(gone.is_ok() || gone == Err(Errno::EINVAL), "{gone:?}");
    }
}

/// `specrun` with a shell script in a directory; `$1` is the directory of the test.
fn specrun_in(mount: &Mount, dir: &Path, options: &[&str], script: &str) -> Output {
    let mut command = Command::new(SPECRUN);
    command.args(options).args(["--", "sh", "-ec", script, "sh"]).arg(mount.beside("")).current_dir(dir);
    command.stdin(Stdio::null()).output().expect("specrun runs")
}

fn succeeds(mount: &Mount, dir: &Path, script: &str) -> String {
    let output = specrun_in(mount, dir, &["--quiet"], script);
    assert!(output.status.success(), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The same, and all that it does is undone.
fn is_undone(mount: &Mount, dir: &Path, script: &str) -> String {
    let output = specrun_in(mount, dir, &["--quiet"], &format!("{script}\nexit 7"));
    assert_eq!(output.status.code(), Some(7), "{script}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

fn is_refused(mount: &Mount, options: &[&str], says: &[&str]) {
    let output = specrun_in(mount, &mount.path(), options, "touch it-ran");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert!(says.iter().all(|word| said.contains(word)), "{said}");
    let left = mount.status();
    assert!(!mount.exists("it-ran") && left.is_empty(), "{left:?}");
}

/// A directory with a file, bound in whole, in part and twice over; and the file alone.
fn bound() -> (Mount, Vec<Mounted>) {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p sub/deep; echo old > sub/f; echo old > sub/deep/f; echo old > g");
    let binds = [("sub", "part"), ("", "whole"), ("sub/deep", "deep"), ("sub/f", "file")];
    let binds = binds.map(|(part, to)| Mounted::bind(&mount, part, to)).into();
    (mount, binds)
}

/// Through each of its places, and what is seen through the others.
const WRITES: &str = "
    cd $1; echo a > part/f; cat whole/sub/f file mnt/sub/f
    echo b > file; cat part/f mnt/sub/f
    echo c > whole/g; cat mnt/g
    echo d > deep/f; cat part/deep/f mnt/sub/deep/f
    echo e > mnt/sub/new; cat part/new; mkdir part/dir; mv part/new whole/sub/dir; cat mnt/sub/dir/new
";
const SEEN: &str = "a\na\na\nb\nb\nc\nd\nd\ne\ne\n";

#[test]
fn what_a_job_writes_through_any_place_of_the_filesystem_is_its_own() {
    require_root!();
    let (mount, binds) = bound();
    let places = ["mnt", "part", "whole", "whole/sub/deep", "deep", ""];
    for place in places.iter().filter(|place| !place.is_empty()) {
        assert_eq!(is_undone(&mount, &mount.beside(place), WRITES), SEEN, "{place}");
        for file in ["g", "sub/f", "sub/deep/f"] {
            assert_eq!(mount.read(file), "old\n", "{place}");
        }
        assert!(!mount.exists("sub/dir"));
    }
    assert_eq!(succeeds(&mount, &mount.beside("deep"), WRITES), SEEN);
    let files = ["sub/f", "g", "sub/deep/f", "sub/dir/new"];
    assert_eq!(files.map(|file| mount.read(file)), ["b\n", "c\n", "d\n", "e\n"]);
    assert_eq!(fs::read_to_string(mount.beside("part/dir/new")).expect("it is there"), "e\n");
    drop(binds);
    mount.check();
}

#[test]
fn working_directory_and_descriptors_stay_where_they_are() {
    require_root!();
    let (mount, binds) = bound();
    let script =
        "exec 3>>f 4<whole/g >out && \"$0\" --quiet -- sh -c 'echo more >&3; cat <&4; pwd -P; : > here; exit '$1";
    let shell = |code: &str| {
        let script = script.replace("whole/g", "../whole/g");
        let mut command = Command::new("timeout");
        command.args(["-k", "1", "60", "sh", "-c", &script, SPECRUN, code]);
        command.current_dir(mount.beside("part")).output().expect("a shell runs")
    };
    let output = shell("3");
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert_eq!((mount.read("sub/f"), mount.read("sub/out")), ("old\n".into(), String::new()));
    assert!(!mount.exists("sub/here"));
    let output = shell("0");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let here = mount.beside("part").canonicalize().expect("it is there");
    assert_eq!(
        (mount.read("sub/f"), mount.read("sub/out")),
        ("old\nmore\n".into(), format!("old\n{}\n", here.display()))
    );
    assert!(mount.exists("sub/here"));
    drop(binds);
    mount.check();
}

#[test]
fn a_job_that_is_run_again_has_all_places_again() {
    require_root!();
    let (mount, binds) = bound();
    let inner = "cat $1/part/f $1/file; until [ -e $1/go ]; do sleep 0.01; done; echo x >> $1/file";
    let writer = mount.start("writer", &[], "echo new > sub/f");
    let mut command = Command::new(SPECRUN);
    command.args(["--from-start", "--", "sh", "-c", &format!("touch $1/ran; {inner}"), "sh"]).arg(mount.beside(""));
    let job = command.current_dir(mount.beside("part")).stdout(Stdio::piped()).stderr(Stdio::piped());
    let job = job.spawn().expect("specrun runs");
    until("it depends on the other", || {
        mount.status().iter().any(|status| !status["depends_on"].as_array().is_none_or(Vec::is_empty))
    });
    writer.exit(1);
    fs::write(mount.beside("go"), "").expect("go");
    let output = job.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("running again"), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout), "new\nnew\nold\nold\n");
    assert_eq!(mount.read("sub/f"), "old\nx\n");
    drop(binds);
    mount.check();
}

#[test]
fn a_job_inside_of_another_covers_them_once_more() {
    require_root!();
    let (mount, binds) = bound();
    let specrun = SPECRUN;
    let inner = |code| {
        format!(
            "{specrun} --quiet -- sh -ec 'cat f; echo inner > f; echo inner > '$1'/file; echo x > '$1'/whole/g; exit {code}'"
        )
    };
    let script = format!(
        "echo outer > $1/file; {} || true; cat f $1/mnt/g; {}; cat $1/whole/sub/f $1/mnt/g",
        inner(1),
        inner(0)
    );
    let seen = "outer\nouter\nold\nouter\ninner\nx\n";
    assert_eq!(is_undone(&mount, &mount.beside("part"), &script), seen);
    assert_eq!((mount.read("sub/f"), mount.read("g")), ("old\n".into(), "old\n".into()));
    assert_eq!(succeeds(&mount, &mount.beside("part"), &script), seen);
    assert_eq!((mount.read("sub/f"), mount.read("g")), ("inner\n".into(), "x\n".into()));
    // What the outer one has moved is what it was bound as no more, but the same file.
    let script = format!("mv $1/mnt/sub $1/mnt/moved; cd $1/part; {}; cat $1/mnt/moved/f", inner(0));
    assert_eq!(is_undone(&mount, &mount.path(), &script), "inner\ninner\n");
    drop(binds);
    mount.check();
}

#[test]
fn binds_over_each_other_and_inside_of_the_filesystem_are_covered() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir a b inside; echo a > a/f; echo b > b/f; echo hidden > inside/f");
    let over = [
        Mounted::bind(&mount, "a", "bound"),
        Mounted::bind(&mount, "b", "bound"),
        Mounted::bind(&mount, "a", "mnt/inside"),
    ];
    let script =
        "cat $1/bound/f $1/mnt/inside/f; echo x >> $1/bound/f; echo y >> $1/mnt/inside/f; cat $1/mnt/a/f $1/mnt/b/f";
    let seen = "b\na\na\ny\nb\nx\n";
    for dir in ["mnt", "bound", "mnt/inside"] {
        assert_eq!(is_undone(&mount, &mount.beside(dir), script), seen, "{dir}");
        assert_eq!((mount.read("a/f"), mount.read("b/f")), ("a\n".into(), "b\n".into()));
    }
    assert_eq!(succeeds(&mount, &mount.at("inside"), script), seen);
    assert_eq!(
        (mount.read("a/f"), mount.read("b/f"), mount.read("inside/f")),
        ("a\ny\n".into(), "b\nx\n".into(), "a\ny\n".into())
    );
    drop(over);
    assert_eq!(mount.read("inside/f"), "hidden\n");
    // A part of it over all of it, which is nowhere else to be seen.
    let part = Mounted::at(&mount.at("a"), &mount.path());
    assert_eq!(is_undone(&mount, &mount.path(), "cat f; echo z > f; ls $1/mnt"), "a\ny\nf\n");
    assert_eq!(mount.read("f"), "a\ny\n");
    assert_eq!(succeeds(&mount, &mount.path(), "echo z > f"), "");
    drop(part);
    assert_eq!(mount.read("a/f"), "z\n");
    mount.check();
}

#[test]
fn what_else_is_mounted_in_a_bind_is_to_be_seen_in_a_job() {
    require_root!();
    let mount = Mount::new();
    sh(
        &mount.path(),
        "mkdir -p sub/memory sub/over deep other; echo old > deep/f; echo old > sub/f; echo old > other/f",
    );
    let bind = Mounted::bind(&mount, "sub", "bound");
    let memory = Mounted::tmpfs(mount.beside("bound/memory"));
    let deep = Mounted::bind(&mount, "deep", "bound/memory/deep");
    let other = Mounted::bind(&mount, "other", "other");
    let over = Mounted::tmpfs(mount.beside("other"));
    let script = "cat $1/bound/memory/there $1/other/there; cat $1/bound/memory/deep/f; echo x > $1/bound/memory/deep/f
        echo y > $1/bound/f; cat $1/mnt/deep/f; echo kept > $1/bound/memory/kept; ls $1/mnt/sub/memory";
    let outer = format!("\"$0\" --quiet -- sh -ec '{script}' sh $1", script = script);
    for (dir, script) in
        [("mnt", script.to_owned()), ("bound", script.to_owned()), ("mnt", outer.replace("$0", SPECRUN))]
    {
        assert_eq!(is_undone(&mount, &mount.beside(dir), &script), "memory\nmemory\nold\nx\n", "{dir}");
        assert_eq!((mount.read("deep/f"), mount.read("sub/f")), ("old\n".into(), "old\n".into()));
        // It is another filesystem.
        assert_eq!(fs::read_to_string(mount.beside("bound/memory/kept")).expect("it is there"), "kept\n");
    }
    drop((over, other, deep, memory, bind));
    mount.check();
}

#[test]
fn what_is_not_allowed_in_a_place_is_not_allowed_to_a_job() {
    require_root!();
    let (mount, binds) = bound();
    binds[0].remount(MsFlags::MS_RDONLY);
    binds[2].remount(MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOATIME);
    let options = "grep \" $1part \\| $1deep \" /proc/self/mountinfo | awk '{print $5, $6}' | sort -u";
    let before = sh(&mount.path(), &options.replace("$1", &format!("{}/", mount.beside("").display())));
    let script =
        "! echo x > part/f || exit 1; cp /bin/true deep/; ! deep/true || exit 2; echo x > mnt/sub/f; cat part/f";
    let said = is_undone(
        &mount,
        &mount.path(),
        &format!("cd $1; ( {script} ) 2>/dev/null || exit; {}", options.replace("$1", "$1/")),
    );
    assert_eq!(
        said.split_once('\n').map(|(first, rest)| (first, rest.lines().count())),
        Some(("x", before.lines().count())),
        "{said}{before}"
    );
    drop(binds);
    mount.check();
}

#[test]
fn places_may_have_any_name() {
    require_root!();
    let mount = Mount::new();
    for name in ["with space", "tab\there", "two\nlines", "back\\slash", "\\040", "end //deleted"] {
        let dir = name.replace("//", "-");
        fs::create_dir(mount.at(&dir)).expect("a directory");
        fs::write(mount.at(&dir).join("f"), "old").expect("a file");
        let bind = Mounted::bind(&mount, &dir, &format!("bound {dir}"));
        assert_eq!(
            is_undone(&mount, &bind.0, "cat f; echo x > f; pwd"),
            format!("old{}\n", bind.0.display()),
            "{name:?}"
        );
        assert_eq!(mount.read(&format!("{dir}/f")), "old");
    }
    mount.check();
}

#[test]
fn a_bind_of_what_is_gone_keeps_jobs_from_starting() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p sub other; touch file");
    let bind = Mounted::bind(&mount, "sub", "bound");
    let says = ["bound shows what was /sub of the filesystem and is not there any more", "umount", "bind it anew"];
    // By a job the kernel has lost its name for a while, and it is the same.
    assert!(mount.specrun(&["--quiet"], "mv sub elsewhere; mv elsewhere sub; touch sub/x").status.success());
    assert_eq!(is_undone(&mount, &bind.0, "ls; touch y"), "x\n");
    sh(&mount.path(), "rm -r sub");
    is_refused(&mount, &[], &says);
    sh(&mount.path(), "mkdir sub");
    is_refused(&mount, &["--isolate"], &says);
    drop(bind);
    assert!(mount.specrun(&["--quiet"], "touch sub/x").status.success());
    let file = Mounted::bind(&mount, "file", "bound-file");
    sh(&mount.path(), "echo new > file.new; mv file.new file");
    is_refused(&mount, &[], &["bound-file shows what was /file of the filesystem"]);
    drop(file);
    let output = Command::new(SPECRUN).arg("--no-speculation").args(["--", "true"]).current_dir(mount.path()).output();
    assert!(output.expect("it runs").status.success());
    mount.check();
}

/// A mount namespace in which only a part of the filesystem is to be seen, as in a container.
#[test]
fn jobs_run_where_only_a_part_of_the_filesystem_is_to_be_seen() {
    require_root!();
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p sub/memory; echo old > sub/f; echo old > g");
    fs::create_dir(mount.beside("data")).expect("a directory");
    let script = "mount --make-rprivate /; mount --bind mnt/sub data; umount -l mnt; mount -t tmpfs none data/memory; touch data/memory/there
        cd data; $SPECRUN --quiet -- sh -ec 'cat f; echo new > f; ls ../mnt; ls memory; exit 1' || cat f
        $SPECRUN --quiet -- sh -ec 'echo made > made; $SPECRUN --quiet -- sh -c \"echo inner > inner; cat made\"'
        $SPECRUN --quiet --hold -- sh -c 'echo held > f'
        id=$($MOJAVEFS status --json | sed -n 's/.*\"id\": *\\([0-9]*\\).*/\\1/p' | head -1)
        $MOJAVEFS diff $id; $MOJAVEFS commit $id; cat f
        $MOJAVEFS export sub ../out; cat ../out/made; ! $MOJAVEFS export . ../all";
    let mut command = Command::new("unshare");
    command.args(["-m", "timeout", "-k", "5", "60", "sh", "-ec", script]).current_dir(mount.beside(""));
    let output = command.env("SPECRUN", SPECRUN).env("MOJAVEFS", MOJAVEFS).output().expect("unshare runs");
    let (said, complained) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{said}{complained}");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(&lines[..5], ["old", "there", "old", "made", "M  sub/f"], "{said}");
    assert!(lines.contains(&"held") && complained.contains("only /sub of the filesystem is"), "{said}{complained}");
    assert_eq!(
        ["sub/f", "sub/made", "sub/inner", "g"].map(|file| mount.read(file)),
        ["held\n", "made\n", "inner\n", "old\n"]
    );
    mount.check();
}

#[test]
fn a_bind_is_taken_away_alone_and_the_mount_not_before_its_binds() {
    require_root!();
    let (mount, binds) = bound();
    let umount = |words: &[&str]| Command::new(MOJAVEFS).arg("umount").args(words).output().expect("mojavefs runs");
    let path = |name: &str| mount.beside(name).to_string_lossy().into_owned();
    let output = umount(&[&path("mnt")]);
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("mnt is bound on") && mount.exists("g"), "{}", text(&output.stderr));
    for bind in ["part", "whole"] {
        let output = umount(&[&path(bind)]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert!(mount.exists("g") && !mount.beside(bind).join("f").exists());
    }
    let output = umount(&["--force", &path("mnt")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
    assert!(!mounts.contains(&path("")), "{mounts}");
    drop(binds);
    mount.mount();
    mount.check();
}

const NOBODY: &str = "65534";

#[test]
fn an_ordinary_users_job_covers_what_that_user_can_reach() {
    require_root!();
    let mount = Mount::new();
    sh(
        &mount.path(),
        "mkdir -p open/memory private hidden; chmod 1777 open; chmod 777 private; echo old > open/f; chmod 666 open/f",
    );
    fs::copy(SPECRUN, mount.beside("specrun")).expect("copy");
    let bind = Mounted::bind(&mount, "open", "bound");
    let memory = Mounted::tmpfs(mount.beside("bound/memory"));
    fs::create_dir(mount.beside("secret")).expect("a directory");
    fs::set_permissions(mount.beside("secret"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("chmod");
    let secret = Mounted::bind(&mount, "private", "secret/bound");
    let as_nobody = |script: &str| {
        let setpriv = ["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--", "sh", "-ec", script];
        Command::new("setpriv").args(setpriv).current_dir(&bind.0).output().expect("setpriv runs")
    };
    let job = |code: i32| {
        format!(
            "../specrun --quiet -- sh -ec 'cat f memory/there; echo x > f; cat ../mnt/open/f; : > ../bound/mine; ../specrun --quiet -- cat f; exit {code}'"
        )
    };
    for (code, left) in [(1, "old\n"), (0, "x\n")] {
        let output = as_nobody(&job(code));
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "old\nmemory\nx\nx\n");
        assert_eq!((mount.read("open/f").as_str(), mount.exists("open/mine")), (left, code == 0));
    }
    // One that the user can write to, and has no way to in the view.
    sh(&mount.path(), "mkdir -p closed/open; chmod 777 closed/open; chmod 700 closed");
    let closed = Mounted::bind(&mount, "closed/open", "closed");
    let output = as_nobody(&job(0));
    assert_eq!(output.status.code(), Some(125));
    let said = text(&output.stderr);
    assert!(said.contains("closed: ") && said.contains("ermission denied") && said.contains("umount"), "{said}");
    drop((closed, secret, memory, bind));
    mount.check();
}

/// Levels of a process are undone in all places, with a job around it and without one.
#[test]
fn levels_of_a_process_reach_every_place() {
    require_root!();
    let (mount, binds) = bound();
    let program = r#"
import mojave, os, sys
root = sys.argv[1]
file = os.open("f", os.O_RDWR | os.O_APPEND)
def level(fails):
    try:
        with mojave.speculation():
            os.write(file, b"level\n")
            for place in "file", "whole/g", "deep/f", "mnt/g": open(f"{root}/{place}", "a").write(place + "\n")
            open("new", "w").close()
            assert open(root + "/mnt/sub/f").read().endswith("level\nfile\n")
            if fails: raise ValueError
    except mojave.Aborted: pass
level(True)
assert open(root + "/file").read() == "old\n" and not os.path.exists("new"), open(root + "/file").read()
level(False)
print(os.getcwd(), open(root + "/whole/g").read().split())
"#;
    for (number, options) in [(1, &["--no-speculation"][..]), (2, &["--quiet"])] {
        let mut command = Command::new(SPECRUN);
        command
            .args(options)
            .args(["--", "python3", "-c", program])
            .arg(mount.beside(""))
            .current_dir(mount.beside("part"));
        let output = with_python_package(&mut command).output().expect("it runs");
        assert!(output.status.success(), "{options:?}: {}", text(&output.stderr));
        let here = mount.beside("part").canonicalize().expect("it is there");
        assert_eq!(text(&output.stdout), format!("{} ['old', 'whole/g', 'mnt/g']\n", here.display()));
        assert_eq!(mount.read("sub/f"), "old\nlevel\nfile\n", "{number}");
        sh(&mount.path(), "echo old > sub/f; echo old > g; echo old > sub/deep/f; rm sub/new");
    }
    drop(binds);
    mount.check();
}

#[test]
fn commands_take_paths_by_whatever_place() {
    require_root!();
    let (mount, binds) = bound();
    let say = |dir: &str, words: &[&str]| {
        let output = Command::new(MOJAVEFS).args(words).current_dir(mount.beside(dir)).output().expect("mojavefs runs");
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    let job = mount.start("job", &[], "echo x > sub/f");
    let spec = job.spec().to_string();
    assert!(say("deep", &["status"]).contains(&spec));
    assert_eq!(say("part", &["diff", &spec]), "M  sub/f\n");
    let part = mount.beside("part").to_string_lossy().into_owned();
    assert!(say("", &["status", "-m", &part]).contains(&spec));
    let mut barriers: Vec<_> = [("part", "f"), ("whole", "sub/f"), ("", "file"), ("deep", "f")]
        .map(|(dir, path)| {
            Command::new(MOJAVEFS)
                .args(["barrier", path, "-m", &part])
                .current_dir(mount.beside(dir))
                .spawn()
                .expect("it runs")
        })
        .into();
    job.exit(0);
    barriers.iter_mut().for_each(|barrier| assert!(barrier.wait().expect("it ends").success()));
    // Which of two versions of a file stands is said by its path in a bind.
    let held = mount.held("echo held > sub/f; echo held > sub/deep/f");
    sh(&mount.path(), "echo mine > sub/f; echo mine > sub/deep/f");
    say("part", &["commit", &held, "--ours", "f", "--theirs", &format!("{part}/deep/f")]);
    assert_eq!((mount.read("sub/f"), mount.read("sub/deep/f")), ("held\n".into(), "mine\n".into()));
    let output = Command::new(MOJAVEFS)
        .args(["export", "sub"])
        .arg(mount.beside("part/copy"))
        .current_dir(mount.path())
        .output();
    let output = output.expect("it runs");
    assert!(text(&output.stderr).contains("into itself"), "{}", text(&output.stderr));
    drop(binds);
    mount.check();
}

#[test]
fn other_mounts_of_the_server_are_covered_and_other_filesystems_are_not() {
    require_root!();
    let server = Server::new();
    let (one, other, third) = (server.mount(), server.mount_tcp(), Mount::new());
    sh(&one.path(), "mkdir sub; echo old > sub/f");
    third.write("f", "third\n");
    let bind = Mounted::bind(&other, "sub", "bound");
    let there = other.beside("").display().to_string();
    let script = format!(
        "cat {there}/mnt/sub/f {there}/bound/f; echo x > {there}/mnt/sub/f; cat sub/f; echo y > {there}/bound/f; cat sub/f; cat {third}",
        third = third.at("f").display()
    );
    assert_eq!(is_undone(&one, &one.path(), &script), "old\nold\nx\ny\nthird\n");
    assert_eq!((one.read("sub/f"), other.read("sub/f")), ("old\n".into(), "old\n".into()));
    assert_eq!(succeeds(&one, &bind.0, "cat f; pwd; echo z > f"), format!("old\n{}\n", bind.0.display()));
    assert_eq!((one.read("sub/f"), other.read("sub/f")), ("z\n".into(), "z\n".into()));
    // Another server is none of its business.
    let foreign = Server::new();
    let stranger = foreign.mount();
    let write = format!("echo kept > {}", stranger.at("f").display());
    is_undone(&one, &one.path(), &write);
    assert_eq!(stranger.read("f"), "kept\n");
    drop(bind);
}

/// Where a directory is that a process has in use is known by whatever place it has opened it.
#[test]
fn a_job_goes_back_to_a_read_in_a_bind() {
    require_root!();
    let (mount, binds) = bound();
    mount.write("data", "old\n");
    let script = "
import os, sys, time
root = sys.argv[1]
used = os.open('deep', os.O_RDONLY)
log = open('log', 'a')
log.write('begun\\n'); log.flush()
text = open(root + '/whole/data').read()
os.rename(root + '/part/deep', root + '/part/to')
log.write(text); log.flush()
if 'new' in text: open(root + '/done', 'w').close()
while not os.path.exists(root + '/go'): time.sleep(0.01)
open('result', 'w').write(text + os.getcwd())
";
    let first = mount.start("first", &[], "echo new > data");
    let mut command = Command::new("timeout");
    command.args(["-k", "5", "60", SPECRUN, "--", "python3", "-c", script]).arg(mount.beside(""));
    let job = command.current_dir(mount.beside("part")).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let job = job.expect("specrun runs");
    until("it has done all that", || mount.beside("done").exists());
    first.exit(1);
    fs::write(mount.beside("go"), "").expect("go");
    let output = job.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("going on from the read"), "{}", text(&output.stderr));
    assert_eq!(mount.read("sub/log"), "begun\nold\n");
    let here = mount.beside("part").canonicalize().expect("it is there");
    assert_eq!(mount.read("sub/result"), format!("old\n{}", here.display()));
    assert!(mount.exists("sub/to/f") && !mount.exists("sub/deep"));
    drop(binds);
    mount.check();
}

/// A mount that somebody has open, if only to look what it is, can't be unmounted.
#[test]
fn jobs_that_start_do_not_keep_other_filesystems_from_being_unmounted() {
    let (server, other) = (Server::new(), Server::new());
    let (mount, embedded, served) = (server.mount(), Mount::new(), other.mount());
    std::thread::scope(|scope| {
        let unmounting = scope.spawn(|| {
            for _ in 0..10 {
                for other in [&embedded, &served] {
                    other.umount();
                    other.mount();
                }
            }
        });
        while !unmounting.is_finished() {
            succeeds(&mount, &mount.path(), "true");
        }
    });
}
