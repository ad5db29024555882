//! Locks (`flock`, `fcntl`) between the views of a server.

mod commits;

use crate::harness::programs::SUBJECTS;
use crate::harness::served::Server;
use crate::harness::{Mount, SPECRUN, is_running, project, run, text, until};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// How long one that is told nothing more may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(5);

/// A program that takes locks as it is told.
struct Locker {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Locker {
    fn start(mut command: Command, dir: &Path) -> Locker {
        let program = project(SUBJECTS).join("locker.py");
        command.arg("python3").arg(program).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::inherit()).spawn().expect("it runs");
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        Locker { child, orders, answers }
    }

    /// Outside of every job.
    fn on_trunk(dir: &Path) -> Locker {
        Self::start(Command::new("env"), dir)
    }

    /// The same, with the file `file` open as `f`.
    fn outside_with_file(mount: &Mount) -> Locker {
        let mut locker = Self::on_trunk(&mount.path());
        locker.does("open f file rw");
        locker
    }

    fn in_job(dir: &Path, options: &[&str]) -> Locker {
        let mut specrun = Command::new(SPECRUN);
        specrun.arg("--quiet").args(options).arg("--");
        Self::start(specrun, dir)
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders.as_mut().expect("it listens"), "{order}").expect("it listens");
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        line.trim_end().to_owned()
    }

    fn say(&mut self, order: &str) -> String {
        self.tell(order);
        self.answer()
    }

    /// Does something that must succeed.
    fn does(&mut self, order: &str) {
        assert_eq!(self.say(order), "ok", "{order}");
    }

    /// Its exit code.
    fn end(mut self) -> i32 {
        self.orders.take();
        self.child.wait().expect("it ends").code().expect("no signal")
    }
}

impl Drop for Locker {
    fn drop(&mut self) {
        self.orders.take();
        // A job ends as a whole only by itself.
        let deadline = Instant::now() + END_TIME_MAX;
        while Instant::now() < deadline && self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many requests of a mount wait.
fn waiting(mount: &Mount) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", mount.daemon())).expect("the daemon runs");
    let names = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "mojavefs-parked").count()
}

/// What each way of taking a lock says, and of letting go of it.
const WAYS: [(&str, &str); 3] =
    [("flock f x", "flock f u"), ("posix f w 0 10", "posix f u 0 10"), ("ofd f w 0 10", "ofd f u 0 10")];

fn exclude_each_other(holder: &mut Locker, other: &mut Locker) {
    for locker in [&mut *holder, &mut *other] {
        locker.does("open f file rw");
    }
    for (lock, unlock) in WAYS {
        holder.does(lock);
        assert_eq!(other.say(lock), "EAGAIN", "{lock}");
        holder.does(unlock);
        other.does(lock);
        assert_eq!(holder.say(lock), "EAGAIN", "{lock}");
        other.does(unlock);
    }
    // Parts that have no byte in common, and what is shared.
    holder.does("posix f w 0 10");
    other.does("posix f w 10 10");
    other.does("flock f s");
    holder.does("flock f s");
    assert_eq!(holder.say("flock f x"), "EAGAIN");
    assert_eq!(other.say("test f w 5 1"), format!("w 0 10 {}", holder.say("pid")));
    assert_eq!(other.say("test f w 10 5"), "free");
}

#[test]
fn trunk_and_jobs_exclude_each_other() {
    let mount = Mount::new();
    mount.write("file", "");
    exclude_each_other(&mut Locker::on_trunk(&mount.path()), &mut Locker::in_job(&mount.path(), &[]));
    exclude_each_other(&mut Locker::in_job(&mount.path(), &[]), &mut Locker::on_trunk(&mount.path()));
    exclude_each_other(&mut Locker::in_job(&mount.path(), &["--isolate"]), &mut Locker::in_job(&mount.path(), &[]));
    exclude_each_other(&mut Locker::on_trunk(&mount.path()), &mut Locker::on_trunk(&mount.path()));
    mount.check();
}

#[test]
fn mounts_of_one_server_exclude_each_other() {
    let server = Server::new();
    let (one, other) = (server.mount(), server.mount());
    one.write("file", "");
    exclude_each_other_elsewhere(&mut Locker::on_trunk(&one.path()), &mut Locker::on_trunk(&other.path()));
    exclude_each_other_elsewhere(&mut Locker::in_job(&one.path(), &[]), &mut Locker::on_trunk(&other.path()));
}

/// The same where a process is nobody whom the other's kernel knows.
fn exclude_each_other_elsewhere(holder: &mut Locker, other: &mut Locker) {
    for locker in [&mut *holder, &mut *other] {
        locker.does("open f file rw");
    }
    for (lock, unlock) in WAYS {
        holder.does(lock);
        assert_eq!(other.say(lock), "EAGAIN", "{lock}");
        other.tell(&format!("{lock} wait"));
        holder.does(unlock);
        assert_eq!(other.answer(), "ok", "{lock}");
        other.does(unlock);
    }
    holder.does("posix f w 0 10");
    assert_eq!(other.say("test f w 5 1"), "w 0 10 0");
}

#[test]
fn who_waits_gets_it_in_turn_and_who_is_told_to_stop_leaves_the_line() {
    let mount = Mount::new();
    mount.write("file", "");
    for (lock, unlock) in WAYS {
        let mut all =
            [Locker::on_trunk(&mount.path()), Locker::in_job(&mount.path(), &[]), Locker::on_trunk(&mount.path())];
        all.iter_mut().for_each(|locker| locker.does("open f file rw"));
        let [holder, first, second] = &mut all;
        holder.does(lock);
        first.tell(&format!("{lock} wait"));
        until("it waits", || waiting(&mount) == 1);
        second.tell(&format!("{lock} wait"));
        until("both wait", || waiting(&mount) == 2);
        holder.does(unlock);
        assert_eq!(first.answer(), "ok");
        assert_eq!(holder.say(lock), "EAGAIN", "the first in the line has it");
        // The second is killed while it waits: nobody has to wait for it.
        kill(Pid::from_raw(second.child.id().cast_signed()), Signal::SIGKILL).expect("it runs");
        second.child.wait().expect("it ends");
        until("nobody waits", || waiting(&mount) == 0);
        first.does(unlock);
        holder.does(lock);
    }
    mount.check();
}

#[test]
fn who_would_wait_for_itself_is_told() {
    let mount = Mount::new();
    mount.write("file", "");
    let (mut one, mut other) = (Locker::on_trunk(&mount.path()), Locker::in_job(&mount.path(), &[]));
    one.does("open f file rw");
    other.does("open f file rw");
    one.does("posix f w 0 1");
    other.does("posix f w 1 1");
    one.tell("posix f w 1 1 wait");
    until("it waits", || waiting(&mount) == 1);
    assert_eq!(other.say("posix f w 0 1 wait"), "EDEADLOCK", "as Python calls it");
    other.does("posix f u 0 0");
    assert_eq!(one.answer(), "ok");
}

#[test]
fn locks_end_with_the_job_however_it_ends() {
    let mount = Mount::new();
    mount.write("file", "");
    let mut outside = Locker::outside_with_file(&mount);
    for end in ["commits", "fails", "is aborted", "is killed"] {
        for (lock, unlock) in WAYS {
            let mut job = Locker::in_job(&mount.path(), &["--retries", "0"]);
            job.does("open f file rw");
            job.does(lock);
            assert_eq!(outside.say(lock), "EAGAIN");
            outside.tell(&format!("{lock} wait"));
            until("it waits", || waiting(&mount) == 1);
            match end {
                "commits" => drop(job.orders.take()),
                "fails" => job.tell("exit 1"),
                "is aborted" => {
                    let id = mount.spec_of("locker.py").expect("it is undecided").to_string();
                    let aborted = mount.mojavefs(&["abort", &id]);
                    assert!(aborted.status.success(), "{}", text(&aborted.stderr));
                }
                _ => kill(Pid::from_raw(job.child.id().cast_signed()), Signal::SIGKILL).expect("it runs"),
            }
            assert_eq!(outside.answer(), "ok", "{lock}: the job {end}");
            outside.does(unlock);
        }
    }
    drop(outside);
    mount.check();
}

#[test]
fn a_process_lets_go_when_it_closes_the_file_by_any_descriptor() {
    let mount = Mount::new();
    mount.write("file", "");
    let (mut one, mut other) = (Locker::on_trunk(&mount.path()), Locker::on_trunk(&mount.path()));
    other.does("open f file rw");
    one.does("open f file rw");
    one.does("posix f w 0 10");
    assert_eq!(other.say("posix f w 0 10"), "EAGAIN");
    // Now somebody has asked for a lock: also one that was opened only to be read.
    one.does("open again file r");
    one.does("close again");
    other.does("posix f w 0 10");
    other.does("posix f u 0 10");
    // An open file's own locks stay.
    one.does("ofd f w 0 10");
    one.does("flock f x");
    one.does("open again file r");
    one.does("close again");
    assert_eq!((other.say("ofd f w 0 10"), other.say("flock f x")), ("EAGAIN".into(), "EAGAIN".into()));
    one.does("close f");
    // The kernel says so after the call.
    until("it is let go of", || fs::File::open(mount.at("file")).is_ok_and(|file| file.try_lock().is_ok()));
    other.does("flock f x");
    other.does("ofd f w 0 10 wait");
    drop((one, other));
    mount.check();
}

/// A fifo beside a mount.
fn fifo(mount: &Mount, name: &str) -> PathBuf {
    let path = mount.beside(name);
    mkfifo(&path, Mode::S_IRWXU).expect("a fifo");
    path
}

#[test]
fn a_child_does_not_keep_what_its_parent_has_locked_as_a_process_and_does_keep_an_open_file() {
    let mount = Mount::new();
    mount.write("file", "");
    let mut other = Locker::on_trunk(&mount.path());
    other.does("open f file rw");
    let fifo = fifo(&mount, "fifo");
    let mut one = Locker::on_trunk(&mount.path());
    one.does("open f file rw");
    one.does("posix f w 0 10");
    one.does("flock f x");
    one.does(&format!("fork {}", fifo.display()));
    one.does("close f");
    other.does("posix f w 0 10");
    other.does("posix f u 0 10");
    assert_eq!(other.say("flock f x"), "EAGAIN", "the child has the file open");
    one.end();
    assert_eq!(other.say("flock f x"), "EAGAIN", "the child has the file open");
    fs::write(&fifo, "").expect("it reads");
    other.does("flock f x wait");
    drop(other);
    mount.check();
}

#[test]
fn what_a_process_has_locked_of_a_file_that_it_only_reads_ends_with_it() {
    let mount = Mount::new();
    mount.write("file", "");
    let fifo = fifo(&mount, "fifo");
    let mut one = Locker::on_trunk(&mount.path());
    // Nobody has asked for a lock yet: the kernel does not tell when this is closed.
    one.does("open f file r");
    let mut other = Locker::on_trunk(&mount.path());
    other.does("open f file rw");
    one.does("posix f r 0 10");
    assert_eq!(other.say("posix f w 0 10"), "EAGAIN");
    one.does(&format!("fork {}", fifo.display()));
    one.end();
    other.does("posix f w 0 10 wait");
    fs::write(&fifo, "").expect("it reads");
}

#[test]
fn who_has_locked_something_can_only_go_back_to_its_start() {
    require_root!();
    let mount = Mount::new();
    mount.write("data", "old\n");
    for how in ["fcntl.flock(lock, fcntl.LOCK_EX)", "fcntl.lockf(lock, fcntl.LOCK_EX)"] {
        let first = mount.start("first", &[], "echo new > data");
        let script = format!(
            "import fcntl\nopen('../runs', 'a').write('run\\n')\nlock = open('lock', 'w')\n{how}\ntext = open('data').read()\n\
             open('../fifo').read()\nopen('result', 'w').write(text)"
        );
        let fifo = fifo(&mount, "fifo");
        let child = child_of(Command::new(SPECRUN).args(["--", "python3", "-c", &script]).current_dir(mount.path()));
        let pid = child.id();
        let mine = || mount.status().into_iter().find(|status| status["pid"] == pid);
        let joined = || mine().and_then(|mine| mine["depends_on"].as_array()?.first().cloned());
        until("it has read", || joined().is_some());
        assert_eq!(joined().expect("it has read")["back_to"], "start");
        assert!(joined().expect("it has read").to_string().contains("locked"), "{:?}", joined());
        first.exit(1);
        let runs = || fs::read_to_string(mount.beside("runs")).unwrap_or_default().lines().count();
        until("it runs again", || runs() == 2);
        // It has the lock that it had asked for, in either run.
        fs::write(&fifo, "").expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!((mount.read("result"), runs()), ("old\n".into(), 2));
        fs::remove_file(mount.beside("runs")).expect("runs");
        fs::remove_file(fifo).expect("a fifo");
    }
    mount.check();
}

fn child_of(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// Counts in a file that is mapped, under a lock, and never syncs.
const COUNTING: &str = "
import fcntl, mmap, os, sys
file = os.open('count', os.O_RDWR)
shared = mmap.mmap(file, 4096)
for _ in range(int(sys.argv[1])):
    fcntl.lockf(file, fcntl.LOCK_EX)
    count = int.from_bytes(shared[:8], 'little')
    shared[:8] = (count + 1).to_bytes(8, 'little')
    fcntl.lockf(file, fcntl.LOCK_UN)
";

#[test]
fn who_gets_a_lock_sees_what_was_stored_under_it_in_another_mount() {
    let server = Server::new();
    let (one, other) = (server.mount(), server.mount());
    fs::write(one.at("count"), [0; 4096]).expect("a file");
    const TIMES: u64 = 300;
    let count = |mount: &Mount| {
        let mut python = Command::new("python3");
        python.args(["-c", COUNTING, &TIMES.to_string()]).current_dir(mount.path()).spawn().expect("it runs")
    };
    let mut all = [count(&one), count(&other), count(&one)];
    all.iter_mut().for_each(|child| assert!(child.wait().expect("it ends").success()));
    run(&one.path(), "python3", &["-c", "import os; f = os.open('count', os.O_RDWR); os.fsync(f)"]);
    let bytes = fs::read(other.at("count")).expect("it is there");
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")), 3 * TIMES);
}

#[test]
fn nothing_of_a_lock_is_left_when_its_process_has_been_killed() {
    let mount = Mount::new();
    mount.write("file", "");
    let mut outside = Locker::outside_with_file(&mount);
    for (lock, unlock) in WAYS {
        let mut one = Locker::on_trunk(&mount.path());
        one.does("open f file rw");
        one.does(lock);
        let pid = Pid::from_raw(one.say("pid").parse().expect("a number"));
        kill(pid, Signal::SIGKILL).expect("it runs");
        until("it is gone", || !is_running(pid));
        outside.does(&format!("{lock} wait"));
        outside.does(unlock);
    }
    drop(outside);
    mount.check();
}

#[test]
fn a_database_that_is_open_while_a_job_changes_it_is_never_damaged() {
    let mount = Mount::new();
    let program = project(SUBJECTS).join("database.py");
    let ways: [&[&str]; 3] = [&[], &["--isolate"], &["--on-read", "wait"]];
    for (journal, when, options) in
        ["delete", "wal"].iter().flat_map(|j| ["no", "reads", "writes"].map(|w| ways.map(|o| (j, w, o)))).flatten()
    {
        let here = mount.at(format!("{journal}-{when}-{}", options.join("")));
        fs::create_dir(&here).expect("a directory");
        let mut python = Command::new("python3");
        python.arg(&program).args([journal, when, SPECRUN, "--quiet", "--retries", "0"]).args(options).arg("--");
        let output = python.current_dir(&here).output().expect("it runs");
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{journal}, {when}, {options:?}: {said}");
    }
    mount.check();
}

#[test]
fn a_database_that_several_mounts_change_is_never_damaged() {
    let server = Server::new();
    let mounts = [server.mount(), server.mount()];
    let python = |mount: &Mount, script: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", &format!("import sqlite3\n{script}")]).current_dir(mount.path());
        python
    };
    let made = "sqlite3.connect('data.db').execute('create table t(number)')";
    assert!(python(&mounts[0], made).status().expect("it runs").success());
    let insert = "db = sqlite3.connect('data.db', isolation_level=None, timeout=60)
for number in range(60):
    db.execute('insert into t values(?)', (number,))";
    let mut all: Vec<Child> = [0, 1, 0, 1].map(|at| python(&mounts[at], insert).spawn().expect("it runs")).into();
    all.iter_mut().for_each(|child| assert!(child.wait().expect("it ends").success()));
    let look = "db = sqlite3.connect('data.db')
print(*db.execute('pragma integrity_check').fetchone(), *db.execute('select count(*) from t').fetchone())";
    for mount in &mounts {
        let output = python(mount, look).output().expect("it runs");
        assert_eq!(text(&output.stdout).trim(), "ok 240", "{}", text(&output.stderr));
    }
}

#[test]
fn a_program_that_runs_elsewhere_is_not_written_to() {
    let mount = Mount::new();
    fs::copy("/bin/sleep", mount.at("program")).expect("a program");
    let run = || Command::new(mount.at("program")).arg("1000").spawn().expect("it runs");
    let busy = |output: std::process::Output| {
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("Text file busy"), "{}", text(&output.stderr));
    };
    let mut running = run();
    for script in ["cp /bin/true program", "truncate -s 0 program", "echo >> program"] {
        busy(mount.specrun(&[], &format!("{script} || exit 1")));
        busy(mount.specrun(&["--isolate"], &format!("{script} || exit 1")));
    }
    // A new one in its place is another file.
    let replaced = mount.specrun(&[], "cp /bin/true new && mv new program");
    assert!(replaced.status.success(), "{}", text(&replaced.stderr));
    assert!(running.try_wait().expect("wait").is_none(), "it runs on");
    running.kill().and_then(|()| running.wait()).expect("it ends");
    let written = mount.specrun(&[], "cp /bin/sleep program");
    assert!(written.status.success(), "{}", text(&written.stderr));
    // One that is started after a job has written to it.
    let held = mount.held("cp /bin/true program");
    let mut running = run();
    let refused = mount.mojavefs(&["commit", &held]);
    let said = text(&refused.stderr);
    assert!(
        refused.status.code() == Some(75) && said.contains(&format!("process {} on trunk runs", running.id())),
        "{said}"
    );
    running.kill().and_then(|()| running.wait()).expect("it ends");
    assert!(mount.mojavefs(&["commit", &held]).status.success());
    // One that runs in a job.
    fs::copy("/bin/sleep", mount.at("program")).expect("it does not run");
    let job = mount.start(
        "job",
        &[],
        "./program 1000 & echo $! > ../running; until [ -e /proc/$!/exe ]; do sleep 0.01; done",
    );
    let copied = Command::new("cp").args(["/bin/true", "program"]).current_dir(mount.path()).output().expect("it runs");
    busy(copied);
    let pid: i32 = fs::read_to_string(mount.beside("running")).expect("it runs").trim().parse().expect("a number");
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
    job.exit(1);
    mount.check();
}
