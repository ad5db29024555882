//! Who comes through a job's view without being part of the job is refused: it would see undecided work and not depend on it.

use crate::harness::jobs::Running;
use crate::harness::programs::with_python_package;
use crate::harness::{Mount, SPECRUN, sh, text, until};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A job that has changed something, and its process, which stands in a directory with a file open.
fn job(mount: &Mount) -> (Running<'_>, String) {
    mount.write("never-read", &"x".repeat(100_000));
    sh(&mount.path(), "mkdir d && echo final > data");
    let pid = mount.beside("pid");
    let script = format!("echo undecided > data; echo x > d/made; cd d; exec 5< ../data; echo $$ > {}", pid.display());
    let job = mount.start("job", &[], &script);
    (job, fs::read_to_string(&pid).expect("its number").trim().to_owned())
}

fn refused(output: &Output) -> bool {
    !output.status.success() && output.stdout.is_empty() && text(&output.stderr).contains("Permission denied")
}

#[test]
fn nobody_from_outside_reads_or_changes_what_a_job_has_undecided() {
    require_root!();
    let mount = Mount::new();
    let (job, pid) = job(&mount);
    let root = mount.path().display().to_string();
    for what in [
        format!("cat /proc/{pid}/cwd/../data"),
        format!("cat /proc/{pid}/cwd/made"),
        format!("ls /proc/{pid}/cwd"),
        format!("cat /proc/{pid}/fd/5"),
        format!("cat /proc/{pid}/root{root}/data"),
        format!("ls /proc/{pid}/root{root}/nothing-that-is-there"),
        format!("truncate -s 0 /proc/{pid}/cwd/made"),
        format!("touch /proc/{pid}/cwd/new"),
        format!("rm /proc/{pid}/cwd/made"),
        format!("mv /proc/{pid}/cwd/made /proc/{pid}/cwd/moved"),
    ] {
        let on_trunk = Command::new("sh").args(["-c", &what]).output().expect("sh runs");
        assert!(refused(&on_trunk), "{what}: {on_trunk:?}");
        let in_a_job = mount.specrun(&["--quiet"], &what);
        assert!(refused(&in_a_job), "{what}, in a job: {in_a_job:?}");
    }
    assert!(job.exit(0).status.success());
    assert_eq!((mount.read("data"), mount.read("d/made")), ("undecided\n".into(), "x\n".into()));
    assert!(!mount.exists("d/new") && !mount.exists("d/moved"));
    mount.check();
}

#[test]
fn a_descriptor_that_is_passed_out_of_a_job_reads_nothing_that_its_kernel_has_to_ask_for() {
    let mount = Mount::new();
    mount.write("never-read", &"x".repeat(100_000));
    let socket = mount.beside("socket");
    let give = format!(
        "python3 -c 'import os, socket\n\
         s = socket.socket(socket.AF_UNIX); s.connect(\"{}\")\n\
         socket.send_fds(s, [b\"x\"], [os.open(\"never-read\", os.O_RDWR)]); s.recv(1)'",
        socket.display()
    );
    let take = format!(
        "import errno, os, socket\n\
         s = socket.socket(socket.AF_UNIX); s.bind(\"{}\"); s.listen(1); c, _ = s.accept()\n\
         fd = socket.recv_fds(c, 1, 1)[1][0]\n\
         for use in (lambda: os.pread(fd, 10, 0), lambda: os.ftruncate(fd, 3), lambda: os.getxattr(fd, \"user.x\")):\n\
         \x20   try: print(\"done\", use())\n\
         \x20   except OSError as e: print(errno.errorcode[e.errno])\n\
         os.close(fd); c.send(b\"x\")",
        socket.display()
    );
    let taker = Command::new("python3").args(["-c", &take]).stdout(Stdio::piped()).spawn();
    let taker = taker.expect("python3 runs");
    until("it listens", || socket.exists());
    let job = mount.specrun(&[], &give);
    assert!(job.status.success(), "{}", text(&job.stderr));
    let said = taker.wait_with_output().expect("it ends");
    assert_eq!(text(&said.stdout), "EACCES\nEACCES\nEACCES\n");
    assert_eq!(mount.read("never-read").len(), 100_000);
    mount.check();
}

/// What was read before is in the kernel's pages, which whoever has the file open sees without asking.
#[test]
fn a_descriptor_that_was_passed_out_of_a_job_shows_nothing_of_it_after_the_abort() {
    for (how, exit, is_shown) in [("exit 1", 1, false), ("true", 0, true)] {
        let mount = Mount::new();
        let [socket, ended] = ["socket", "ended"].map(|name| mount.beside(name).display().to_string());
        let give = format!(
            "python3 -c 'import os, socket\n\
             f = open(\"made\", \"w+\"); f.write(\"undecided\"); f.flush(); os.pread(f.fileno(), 9, 0)\n\
             s = socket.socket(socket.AF_UNIX); s.connect(\"{socket}\")\n\
             socket.send_fds(s, [b\"x\"], [f.fileno()]); s.recv(1)'; {how}"
        );
        let take = format!(
            "import errno, os, socket, time\n\
             s = socket.socket(socket.AF_UNIX); s.bind(\"{socket}\"); s.listen(1); c, _ = s.accept()\n\
             fd = socket.recv_fds(c, 1, 1)[1][0]\n\
             print(os.pread(fd, 9, 0).decode()); c.send(b\"x\")\n\
             while not os.path.exists(\"{ended}\"): time.sleep(0.01)\n\
             try: print(os.pread(fd, 9, 0).decode())\n\
             except OSError as e: print(errno.errorcode[e.errno])"
        );
        let taker = Command::new("python3").args(["-c", &take]).stdout(Stdio::piped()).spawn().expect("python3 runs");
        until("it listens", || Path::new(&socket).exists());
        let job = mount.specrun(&["--quiet"], &give);
        fs::write(&ended, "").expect("say so");
        assert_eq!(job.status.code(), Some(exit), "{}", text(&job.stderr));
        let said = taker.wait_with_output().expect("it ends");
        let said = text(&said.stdout);
        let (before, after) = said.trim().split_once('\n').expect("it looks twice");
        assert_eq!(before, "undecided");
        assert!(if is_shown { after == "undecided" } else { ["EACCES", "ENOTCONN"].contains(&after) }, "{said}");
        mount.check();
    }
}

#[test]
fn nobody_from_outside_reads_what_a_process_has_undecided_that_speculates_by_itself() {
    require_root!();
    let mount = Mount::new();
    mount.write("data", "final\n");
    let [pid, go] = ["pid", "go"].map(|name| mount.beside(name).display().to_string());
    let program = format!(
        "import mojave, os, subprocess, time\n\
         with mojave.speculation():\n\
         \x20   open(\"data\", \"w\").write(\"undecided\\n\")\n\
         \x20   assert subprocess.check_output([\"cat\", \"data\"]) == b\"undecided\\n\"\n\
         \x20   open(\"{pid}.half\", \"w\").write(str(os.getpid())); os.rename(\"{pid}.half\", \"{pid}\")\n\
         \x20   while not os.path.exists(\"{go}\"): time.sleep(0.01)"
    );
    let mut process = Command::new(SPECRUN);
    process.args(["--no-speculation", "--", "python3", "-c", &program]).current_dir(mount.path());
    let mut process = with_python_package(&mut process).spawn().expect("python3 runs");
    until("it has changed it", || Path::new(&pid).exists());
    let number = fs::read_to_string(&pid).expect("its number");
    let output = Command::new("cat").arg(format!("/proc/{number}/cwd/data")).output().expect("cat runs");
    assert!(refused(&output), "{output:?}");
    fs::write(&go, "").expect("let it go on");
    assert!(process.wait().expect("it ends").success());
    assert_eq!(mount.read("data"), "undecided\n");
    mount.check();
}

#[test]
fn whoever_a_job_has_started_is_inside_wherever_it_runs() {
    require_root!();
    let mount = Mount::new();
    mount.write("data", "x\n");
    let late = mount.beside("late");
    let script = format!(
        "echo y > data; unshare --mount cat data > elsewhere; unshare --mount --pid --fork --user cat data > deeper; \
         setsid --fork unshare --mount sh -c 'until [ -e go ]; do sleep 0.01; done; cat data > orphaned; touch {0}'; \
         touch go; until [ -e {0} ]; do sleep 0.01; done",
        late.display()
    );
    let job = mount.specrun(&[], &script);
    assert!(job.status.success(), "{}", text(&job.stderr));
    for name in ["elsewhere", "deeper", "orphaned"] {
        assert_eq!(mount.read(name), "y\n", "{name}");
    }
    mount.check();
}
