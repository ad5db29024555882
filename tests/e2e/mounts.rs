//! What is mounted inside of the filesystem, and who works there, while others change things; and that nothing is believed
//! any more that they have changed.

use crate::harness::{Mount, run, sh, text, until};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Something mounted, for as long as this lives.
struct Inside(PathBuf);

impl Inside {
    fn bind(from: PathBuf, to: PathBuf) -> Self {
        mount_at(Some(&from), &to, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
        Inside(to)
    }

    fn tmpfs(to: PathBuf) -> Self {
        mount_at(Some("none"), &to, Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
        fs::write(to.join("there"), "memory").expect("a file in memory");
        Inside(to)
    }

    fn is_there(&self) -> bool {
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("the mounts");
        mounts.lines().any(|line| line.split(' ').nth(4) == self.0.to_str())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let gone = umount2(&self.0, MntFlags::MNT_DETACH);
        assert!(gone.is_ok() || matches!(gone, Err(Errno::EINVAL | Errno::ENOENT)), "{gone:?}");
    }
}

/// Later kernels take away what is mounted inside (see `docs/decisions.md`).
fn kernel_keeps_mounts() -> bool {
    let name = nix::sys::utsname::uname().expect("the kernel's name");
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let keeps = (numbers.next(), numbers.next()) < (Some(6), Some(19));
    if !keeps {
        eprintln!("skipped: needs a kernel before 6.19");
    }
    keeps
}

#[test]
fn what_is_mounted_inside_survives_the_work_of_jobs() {
    require_root!();
    if !kernel_keeps_mounts() {
        return;
    }
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p a/chroot/proc a/bound beside; touch a/f a/chroot/f a/file; echo old > a/bound/hidden");
    fs::create_dir(mount.beside("outside")).expect("a directory outside");
    fs::write(mount.beside("outside/there"), "outside").expect("a file outside");
    let bound = Inside::bind(mount.beside("outside"), mount.at("a/bound"));
    let file = Inside::bind(mount.beside("outside/there"), mount.at("a/file"));
    let memory = Inside::tmpfs(mount.at("a/chroot/proc"));
    let works = [
        ("nothing", "true"),
        ("elsewhere", "touch beside/new"),
        ("beside the mounts", "echo x > a/f; touch a/new; mkdir a/dir; rm -f a/chroot/f; touch a/chroot/f"),
        ("the directories above", "chmod 711 . a a/chroot; touch .; setfattr -n user.a -v 1 a"),
        ("what is mounted over", "chmod 700 a/bound a/file; touch a/bound/more; echo new > a/bound/hidden"),
        ("much, elsewhere", "mkdir many; cd many; seq 3000 | xargs touch"),
        ("much, beside the mounts", "cd a; seq 3000 | xargs touch"),
        ("much, beside them again", "cd a; seq 3000 | xargs rm; cd ../many; seq 3000 | xargs rm"),
        ("what is undone", "rm -r beside; touch a/undone; mv a/f a/g; exit 1"),
    ];
    for (what, script) in works {
        // The kernel has looked at everything.
        run(&mount.path(), "ls", &["-lR", "."]);
        mount.specrun(&["--quiet"], script);
        // Both are looked up by every path.
        assert_eq!(mount.read("a/bound/there"), "outside", "{what}");
        assert_eq!(mount.read("a/file"), "outside", "{what}");
        assert_eq!(mount.read("a/chroot/proc/there"), "memory", "{what}");
        run(&mount.path(), "ls", &["-lR", "."]);
        assert!(bound.is_there() && file.is_there() && memory.is_there(), "{what}");
    }
    let held = mount.held("touch a/held; chmod 755 a");
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    assert!(mount.exists("a/held") && mount.read("a/bound/there") == "outside");
    assert_eq!(mount.specrun(&[], "test $(cat a/bound/hidden) = new").status.code(), Some(0));
    drop((bound, file, memory));
    assert_eq!(mount.read("a/bound/hidden"), "new\n");
    mount.check();
}

/// As on any filesystem when somebody removes the directory in another place; here, also when they move it.
#[test]
fn what_is_mounted_on_a_directory_goes_with_it() {
    require_root!();
    if !kernel_keeps_mounts() {
        return;
    }
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p gone moved/below kept/below");
    let gone = Inside::tmpfs(mount.at("gone"));
    let moved = Inside::tmpfs(mount.at("moved/below"));
    let kept = Inside::tmpfs(mount.at("kept/below"));
    assert!(mount.specrun(&["--quiet"], "rmdir gone; mv moved elsewhere").status.success());
    assert!(!mount.exists("gone") && mount.exists("elsewhere/below") && !mount.exists("elsewhere/below/there"));
    assert!(!gone.is_there() && !moved.is_there() && kept.is_there());
    drop(kept);
    mount.check();
}

/// A job that mounts something in its own view keeps it while others work, whose work it sees.
#[test]
fn what_a_job_has_mounted_survives_the_work_of_others() {
    require_root!();
    if !kernel_keeps_mounts() {
        return;
    }
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p root/proc d; touch root/f d/f");
    let script = "mount -t tmpfs none root/proc && echo memory > root/proc/there && ls -lR . >/dev/null; echo ready
        while read step; do ls -lR . >/dev/null; cat root/proc/there; done";
    let mut command = mount.specrun_command(&["--quiet"], script);
    let mut job = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("specrun runs");
    let mut ask = job.stdin.take().expect("a pipe");
    let mut answers = BufReader::new(job.stdout.take().expect("a pipe")).lines();
    let mut answer = || answers.next().expect("an answer").expect("text");
    assert_eq!(answer(), "ready");
    let works = [
        "touch root/g; echo x > d/f",
        "mkdir root/dir; chmod 711 root .",
        "echo more > root/f",
        "cd d; seq 2000 | xargs touch",
        "rm -r root/dir root/g",
    ];
    for work in works {
        assert!(mount.specrun(&["--quiet"], work).status.success());
        writeln!(ask, "go on").expect("it listens");
        assert_eq!(answer(), "memory", "{work}");
    }
    // Undecided work that it joins.
    let other = mount.start("other", &[], "touch root/undecided; echo y > d/f");
    writeln!(ask, "go on").expect("it listens");
    assert_eq!(answer(), "memory");
    assert!(other.exit(0).status.success());
    writeln!(ask, "go on").expect("it listens");
    assert_eq!(answer(), "memory");
    drop(ask);
    assert!(job.wait().expect("it ends").success());
    mount.check();
}

#[test]
fn whoever_works_in_a_directory_is_not_disturbed_by_jobs_beside() {
    if !kernel_keeps_mounts() {
        return;
    }
    let mount = Mount::new();
    sh(&mount.path(), "mkdir -p a/b/c");
    let program = "import os, sys\n\
        os.chdir('a/b/c')\n\
        here, rounds = os.getcwd(), 0\n\
        while not os.path.exists(sys.argv[1]):\n\
        \x20   assert os.getcwd() == here\n\
        \x20   os.stat(here); os.stat('../c'); rounds += 1\n\
        print(rounds)";
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(mount.beside("stop")).current_dir(mount.path());
    let worker = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("python runs");
    for round in 0..60 {
        let script =
            format!("touch f a/f a/b/f a/b/c/{round}; mkdir a/b/c/d{round}; chmod 7{}5 a/b; touch a", round % 8);
        assert!(mount.specrun(&["--quiet"], &script).status.success());
    }
    fs::write(mount.beside("stop"), "").expect("stop it");
    let output = worker.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).trim().parse::<u64>().expect("a number") > 100);
    mount.check();
}

/// Names are asked for all the time, so that answers are under way whenever something becomes final.
#[test]
fn no_answer_under_way_is_believed_after_a_commit() {
    let rounds = if std::env::var_os("MOJAVEFS_SOAK").is_some() { 2_000 } else { 40 };
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d other");
    let names = 24;
    let (over, looks) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for looker in 0..2 {
            let (mount, over, looks) = (&mount, &over, &looks);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    for name in 0..names {
                        let _ = fs::symlink_metadata(mount.at(format!("d/{name}")));
                        let _ = fs::symlink_metadata(mount.at(format!("d/{name}/sub")));
                    }
                    if looker == 0 {
                        // Names that go meanwhile are errors.
                        let listed = Command::new("ls").args(["-l", "d"]).current_dir(mount.path()).output();
                        assert!(!listed.expect("ls runs").stdout.is_empty());
                    }
                    looks.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let result = std::panic::catch_unwind(|| {
            let mut expected = BTreeMap::new();
            for round in 0..rounds {
                let script = change(&mut expected, names, round);
                let output = mount.specrun(&["--quiet"], &script);
                assert!(output.status.success(), "{}", text(&output.stderr));
                for name in 0..names {
                    let found = fs::read_to_string(mount.at(format!("d/{name}"))).or_else(|_| {
                        fs::read_to_string(mount.at(format!("d/{name}/sub"))).map(|text| format!("dir {text}"))
                    });
                    assert_eq!(found.ok().as_ref(), expected.get(&name), "d/{name} after round {round}");
                }
            }
        });
        over.store(true, Ordering::SeqCst);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(looks.load(Ordering::SeqCst) > 10);
    mount.check();
}

/// A script that removes, replaces and makes names, files and directories by turns; now and then with much else.
fn change(expected: &mut BTreeMap<usize, String>, names: usize, round: usize) -> String {
    let mut script = String::from("set -e; cd d\n");
    for name in (round % 3..names).step_by(3) {
        match (name + round / 3) % 4 {
            0 => {
                script += &format!("rm -rf {name}; echo {round} > new; mv new {name}\n");
                expected.insert(name, format!("{round}\n"));
            }
            1 => {
                script += &format!("rm -rf {name}; mkdir {name}; echo {round} > {name}/sub\n");
                expected.insert(name, format!("dir {round}\n"));
            }
            2 => {
                script += &format!("rm -rf {name}\n");
                expected.remove(&name);
            }
            _ => {}
        }
    }
    if round % 10 == 9 {
        script += "cd ../other; seq 1500 | xargs touch; seq 1500 | xargs rm\n";
        // Enough that what the kernel knows is looked for, rather than all that was changed.
        script += &format!("mkdir much{round}; cd much{round}; seq 1500 | xargs touch\n");
    }
    script
}

/// Each kernel has to be told of what the other one is changing in the directory that it has locked itself.
#[test]
fn two_who_change_names_that_both_know_do_not_wait_for_each_other() {
    let mount = Mount::new();
    sh(&mount.path(), "mkdir d");
    let program = "import os, sys\n\
        names = [str(n) for n in range(600)]\n\
        assert not any(os.path.exists('d/' + name) for name in names)\n\
        print('ready', flush=True)\n\
        sys.stdin.readline()\n\
        for name in names[int(sys.argv[1])::2]: os.close(os.open('d/' + name, os.O_CREAT | os.O_WRONLY))";
    let start = |which: usize| {
        let mut command = mount.specrun_command(&["--quiet"], &format!("exec python3 -c \"{program}\" {which}"));
        let mut job = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("specrun runs");
        let mut lines = BufReader::new(job.stdout.take().expect("a pipe")).lines();
        assert_eq!(lines.next().expect("a line").expect("text"), "ready");
        job
    };
    let mut jobs: Vec<_> = (0..2).map(start).collect();
    let began = Instant::now();
    jobs.iter_mut().for_each(|job| writeln!(job.stdin.take().expect("a pipe"), "go").expect("a start"));
    jobs.into_iter().for_each(|mut job| assert!(job.wait().expect("it ends").success()));
    // Were each to wait for the other it would be a minute.
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    until("all is there", || fs::read_dir(mount.at("d")).expect("names").count() == 600);
    mount.check();
}
