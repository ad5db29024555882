//! Programs that know nothing of speculations are rolled back to the read by which they became part of another job.

mod calls;
mod locks;
mod many;
mod obstacles;
mod places;
mod sizes;
mod ways;

use crate::harness::programs::{SUBJECTS, compiled_on_its_own};
use crate::harness::{Mount, SPECRUN, is_running, text, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

/// Counts in memory, reads `data`, waits on a fifo, says what it has.
const PYTHON: &str = "
import os
open('../runs', 'a').write('run\\n')
count, me = 41, os.getpid()
count += 1
text = open('data').read()
open('../fifo').read()
open('result', 'w').write(f'{count} {\"same\" if me == os.getpid() else \"other\"} {text}')
";

const AWK: &str = r#"
BEGIN {
    print "run" >> "../runs"; close("../runs")
    count = 41; count++
    while ((getline line < "data") > 0) text = text line "\n"
    getline line < "../fifo"
    printf "%d same %s", count, text > "result"
}
"#;

const SQL: [&str; 3] = [
    "create table gate (line); create table t (count); insert into t values (41);
select writefile('../runs', cast(coalesce(readfile('../runs'), '') as text) || 'run' || char(10));
update t set count = count + 1;
alter table t add column text; update t set text = readfile('data');",
    ".import ../fifo gate",
    "select writefile('result', count || ' same ' || cast(text as text)) from t;",
];

/// `specrun` while it runs.
struct Job {
    child: Child,
    stderr: BufReader<ChildStderr>,
    said: String,
}

impl Job {
    fn start(mount: &Mount, options: &[&str], command: &[&str]) -> Job {
        let mut specrun = Command::new(SPECRUN);
        specrun.args(options).arg("--").args(command).current_dir(mount.path()).env("HERE", mount.path());
        let mut child =
            specrun.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("runs");
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        Job { child, stderr, said: String::new() }
    }

    fn python(mount: &Mount, options: &[&str], script: &str) -> Job {
        Job::start(mount, options, &["python3", "-c", script])
    }

    fn shell(mount: &Mount, options: &[&str], script: &str) -> Job {
        Job::start(mount, options, &["sh", "-c", script])
    }

    /// Its supervisor.
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something has happened, which it must still be there for.
    fn until(&mut self, what: &str, condition: impl Fn() -> bool) {
        let child = std::cell::RefCell::new(&mut self.child);
        let has_ended = || child.borrow_mut().try_wait().expect("wait").is_some();
        until(what, || condition() || has_ended());
        if !condition() {
            self.stderr.read_to_string(&mut self.said).expect("what it says");
            panic!("it has ended before {what}: {}", self.said);
        }
    }

    /// Waits until it has said this.
    fn until_said(&mut self, words: &str) {
        while !self.said.contains(words) {
            let before = self.said.len();
            self.stderr.read_line(&mut self.said).expect("what it says");
            assert!(self.said.len() > before, "it never said {words:?}: {}", self.said);
        }
    }

    /// What it depends on by this path, once it does.
    fn joined(&self, mount: &Mount, path: &str) -> serde_json::Value {
        until(&format!("it has read {path}"), || self.dependency(mount, path).is_some());
        self.dependency(mount, path).expect("it has read it")
    }

    fn dependency(&self, mount: &Mount, path: &str) -> Option<serde_json::Value> {
        let mine = mount.status().into_iter().find(|status| status["pid"] == self.child.id())?;
        mine["depends_on"].as_array()?.iter().find(|joined| joined["path"] == path).cloned()
    }

    /// The processes that it has started: those that run, and its checkpoints.
    fn processes(&self) -> (Vec<Pid>, Vec<Pid>) {
        let id = self.child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
        children.filter(|pid| is_running(*pid)).partition(|pid| !state(*pid).starts_with('t'))
    }

    /// The exit status, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        loop {
            let before = self.said.len();
            self.stderr.read_line(&mut self.said).expect("what it says");
            if self.said.len() == before {
                break;
            }
        }
        let code = self.child.wait().expect("it ends").code();
        (code, std::mem::take(&mut self.said))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One letter, as `/proc` has it.
fn state(pid: Pid) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().trim_start().to_owned()
}

fn mounted() -> Mount {
    let mount = Mount::new();
    mount.write("data", "old\n");
    crate::harness::sh(&mount.beside(""), "mkfifo fifo gate");
    mount
}

/// Lets one that waits on the fifo go on.
fn let_go(mount: &Mount) {
    fs::write(mount.beside("fifo"), "go\n").expect("the fifo");
}

fn runs(mount: &Mount) -> String {
    fs::read_to_string(mount.beside("runs")).unwrap_or_default()
}

fn reader(mount: &Mount) -> PathBuf {
    compiled_on_its_own(mount, SUBJECTS, "reader")
}

/// While it runs, what it has read is undone; and once more when it has ended.
fn goes_back_to_the_read(command: &[&str]) {
    let mount = mounted();
    goes_back(&mount, command);
    mount.check();
}

fn goes_back(mount: &Mount, command: &[&str]) {
    let first = mount.start("first", &[], "echo new > data");
    let mut job = Job::start(mount, &[], command);
    assert_eq!(job.joined(mount, "data")["back_to"], "read");
    let (running, checkpoints) = job.processes();
    assert_eq!((running.len(), checkpoints.len()), (1, 1));
    assert_eq!(first.exit(1).status.code(), Some(1));
    job.until_said("going on from the read (1 of 3)");
    let is_back = || job.processes() == (running.clone(), Vec::new()) && job.dependency(mount, "data").is_none();
    until("it runs under its old number, and nothing else is left", is_back);
    let_go(mount);
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result")), (Some(0), "42 same old\n".into()), "{said}");
    assert!(said.contains("had read `data`") && said.contains("first.through"), "{said}");
    assert_eq!(runs(mount), "run\n", "what came before the read was done once");

    let second = mount.start("second", &[], "echo new > data");
    let mut job = Job::start(mount, &[], command);
    job.joined(mount, "data");
    let_go(mount);
    job.until_said("done; waits until");
    assert_eq!(mount.read("result"), "42 same old\n");
    second.exit(1);
    job.until_said("going on from the read (1 of 3)");
    let_go(mount);
    let (code, said) = job.end();
    assert_eq!(
        (code, mount.read("result"), runs(mount)),
        (Some(0), "42 same old\n".into(), "run\nrun\n".into()),
        "{said}"
    );
    assert!(mount.status().is_empty());
}

#[test]
fn a_python_script_goes_back_to_the_read() {
    require_root!();
    goes_back_to_the_read(&["python3", "-c", PYTHON]);
}

#[test]
fn awk_goes_back_to_the_read() {
    require_root!();
    goes_back_to_the_read(&["awk", AWK]);
}

#[test]
fn sqlite_goes_back_to_the_read() {
    require_root!();
    goes_back_to_the_read(&["sqlite3", ":memory:", SQL[0], SQL[1], SQL[2]]);
}

#[test]
fn a_static_program_goes_back_to_the_read() {
    require_root!();
    let mount = mounted();
    let program = reader(&mount);
    goes_back(&mount, &[&program.to_string_lossy(), "plain"]);
    mount.check();
}

#[test]
fn all_that_the_kernel_keeps_of_a_process_comes_back() {
    require_root!();
    let mount = mounted();
    let program = reader(&mount);
    let first = mount.start("first", &[], "echo new > data");
    let job = Job::start(&mount, &[], &[&program.to_string_lossy(), "all"]);
    until("it has changed everything", || mount.beside("messed").exists() || mount.status().len() < 2);
    assert_eq!(job.joined(&mount, "data")["back_to"], "read");
    first.exit(1);
    let (code, said) = job.end();
    assert_eq!((code, mount.exists("result")), (Some(0), true), "{said}");
    assert_eq!((mount.read("mine"), mount.read("result")), ("A123456789".into(), "all there\n".into()));
    mount.check();
}

#[test]
fn what_was_read_becomes_final_with_it() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let mut job = Job::python(&mount, &[], PYTHON);
    job.joined(&mount, "data");
    let_go(&mount);
    job.until_said("done; waits until");
    assert!(!mount.exists("result"));
    first.exit(0);
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result"), runs(&mount)), (Some(0), "42 same new\n".into(), "run\n".into()), "{said}");
    mount.check();
}

#[test]
fn each_read_is_gone_back_to_by_itself() {
    require_root!();
    let mount = mounted();
    mount.write("other", "old\n");
    let script = "
import os
steps = ['begun']
steps.append(open('data').read().strip())
open('one', 'w').write(' '.join(steps))
steps.append(open('other').read().strip())
open('two', 'w').write(' '.join(steps))
open('../fifo').read()
";
    let first = mount.start("first", &[], "echo new > data");
    let second = mount.start("second", &[], "echo new > other");
    let mut job = Job::python(&mount, &[], script);
    for path in ["data", "other"] {
        assert_eq!(job.joined(&mount, path)["back_to"], "read");
    }
    second.exit(1);
    job.until_said("going on from the read (1 of 3)");
    until("it has read the old one", || job.dependency(&mount, "other").is_none() && job.processes().0.len() == 1);
    assert_eq!(job.joined(&mount, "data")["back_to"], "read");
    let third = mount.start("third", &[], "echo newer > other");
    first.exit(1);
    job.until_said("going on from the read (2 of 3)");
    job.joined(&mount, "other");
    let_go(&mount);
    job.until_said("done; waits until");
    third.exit(0);
    let (code, said) = job.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((mount.read("one"), mount.read("two")), ("begun old".into(), "begun old newer".into()));
    mount.check();
}

#[test]
fn a_program_that_became_another_is_the_first_again() {
    require_root!();
    let mount = mounted();
    let script = "echo run >> ../runs; read text < data; [ $text = old ] || exec python3 -c \"open('../fifo').read()\"; \
                  echo $$ $text > result";
    let first = mount.start("first", &[], "echo new > data");
    let mut job = Job::shell(&mount, &[], script);
    job.joined(&mount, "data");
    let pid = job.processes().0[0];
    until("it runs another program", || {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("python"))
    });
    first.exit(1);
    job.until_said("going on from the read");
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result")), (Some(0), format!("{pid} old\n")), "{said}");
    assert_eq!(runs(&mount), "run\n");
}

#[test]
fn children_started_since_the_read_are_ended() {
    require_root!();
    let mount = mounted();
    let script = "read text < data; [ $text = old ] || { setsid sleep 1000 & sleep 1000; }; echo $text > result";
    let first = mount.start("first", &[], "echo new > data");
    let job = Job::shell(&mount, &[], script);
    job.joined(&mount, "data");
    until("it has children", || {
        let pid = job.processes().0[0];
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        children.split_whitespace().count() == 2
    });
    let sleeper = format!("{}", job.processes().0[0]);
    let children = fs::read_to_string(format!("/proc/{sleeper}/task/{sleeper}/children")).expect("children");
    first.exit(1);
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result")), (Some(0), "old\n".into()), "{said}");
    for child in children.split_whitespace() {
        assert!(!is_running(Pid::from_raw(child.parse().expect("a number"))));
    }
}

#[test]
fn too_many_returns_are_a_temporary_failure() {
    require_root!();
    let mount = mounted();
    let mut job = None;
    for round in 0..3 {
        let first = mount.start("first", &[], "echo new > data");
        let job = job.get_or_insert_with(|| {
            Job::python(&mount, &["--retries", "2"], "while True: open('data').read(); open('../fifo').read()")
        });
        if round > 0 {
            let_go(&mount);
        }
        job.joined(&mount, "data");
        first.exit(1);
        if round < 2 {
            job.until_said(&format!("({} of 2)", round + 1));
            until("it is back", || job.dependency(&mount, "data").is_none() && job.processes().0.len() == 1);
        }
    }
    let (code, said) = job.expect("it was started").end();
    assert_eq!(code, Some(75), "{said}");
    assert!(said.contains("it was run 3 times in all"), "{said}");
    assert!(mount.status().is_empty());
}

/// Reads `data`, and waits until it was asked to end, and then for ever; after a read of what is final, no longer than for that.
const ASKED: &str = "
import os, signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(open('../asked', 'a').write('asked\\n')))
text = open('data').read()
while not asked: time.sleep(.005)
if text == 'old\\n': sys.exit(3)
while True: time.sleep(1)
";

#[test]
fn one_that_was_asked_to_end_is_asked_again_where_it_went_back_to_and_not_begun_again() {
    require_root!();
    for (options, code, words) in
        [(&[][..], 3, "going on from the read"), (&["--from-start"], 128 + 15, "SIGTERM has asked for its end")]
    {
        let mount = mounted();
        let first = mount.start("first", &[], "echo new > data");
        let mut job = Job::python(&mount, options, ASKED);
        job.joined(&mount, "data");
        kill(job.pid(), Signal::SIGTERM).expect("kill");
        until("it has been asked", || mount.beside("asked").exists());
        first.exit(1);
        job.until_said(words);
        let (ended, said) = job.end();
        assert_eq!(ended, Some(code), "{said}");
        mount.check();
    }
}

#[test]
fn a_job_that_is_undone_itself_takes_its_checkpoints_with_it() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    for how in ["abort", "SIGTERM", "SIGKILL", "death"] {
        let mut job = Job::shell(&mount, &["--retries", "0"], "read text < data; read text < ../fifo; kill -9 $$");
        job.joined(&mount, "data");
        let (running, checkpoints) = job.processes();
        assert_eq!((running.len(), checkpoints.len()), (1, 1), "{how}");
        let id = mount.spec_of("kill -9 $$").expect("it is undecided").to_string();
        match how {
            "abort" => assert!(mount.mojavefs(&["abort", &id]).status.success()),
            "SIGTERM" => kill(job.pid(), Signal::SIGTERM).expect("kill"),
            "SIGKILL" => job.child.kill().expect("kill"),
            _ => let_go(&mount),
        }
        let code = match how {
            "abort" => Some(75),
            "SIGTERM" => Some(128 + 15),
            "death" => Some(128 + 9),
            _ => None,
        };
        let (ended, said) = job.end();
        assert_eq!(ended, code, "{how}: {said}");
        for pid in running.into_iter().chain(checkpoints) {
            until(&format!("{how}: process {pid} is gone"), || !is_running(pid));
        }
        until("it is undone", || mount.status().len() == 1);
    }
    first.exit(0);
    mount.check();
}

#[test]
fn one_that_waits_with_its_checkpoints_can_be_interrupted() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let mut job = Job::shell(&mount, &[], "read text < data; echo $text > result");
    job.until_said("done; waits until");
    kill(job.pid(), Signal::SIGINT).expect("kill");
    let (code, said) = job.end();
    assert_eq!(code, Some(128 + 2), "{said}");
    first.exit(0);
    assert!(!mount.exists("result") && mount.status().is_empty());
}

#[test]
fn a_failure_that_came_of_what_did_not_happen_did_not_happen() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let mut job = Job::start(&mount, &[], &["grep", "-q", "old", "data"]);
    job.until_said("done; waits until");
    first.exit(1);
    let (code, said) = job.end();
    assert_eq!(code, Some(0), "{said}");
    let second = mount.start("second", &[], "echo new > data");
    let mut job = Job::start(&mount, &[], &["grep", "-q", "old", "data"]);
    job.until_said("done; waits until");
    second.exit(0);
    let (code, said) = job.end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("rolled back 0 changes (exit 1)"), "{said}");
}

#[test]
fn a_timer_that_rings_all_the_time_goes_on() {
    require_root!();
    let mount = mounted();
    let script = "
import signal
rung = 0
def ring(*_):
    global rung
    rung += 1
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
text = open('data').read()
before = rung
while rung < before + 20 or text == 'new\\n': pass
signal.setitimer(signal.ITIMER_REAL, 0)
";
    for round in 0..5 {
        let first = mount.start("first", &[], "echo new > data");
        let job = Job::python(&mount, &[], script);
        let joined = job.joined(&mount, "data");
        assert_eq!(joined["back_to"], "read", "round {round}: {joined}");
        first.exit(1);
        let (code, said) = job.end();
        assert_eq!(code, Some(0), "round {round}: {said}");
    }
}

#[test]
fn what_was_said_to_a_log_stays_in_it() {
    require_root!();
    let mount = mounted();
    let log = mount.beside("log");
    let script = "echo one; { read text < data; } > result; echo two";
    let first = mount.start("first", &[], "echo new > data");
    let file = fs::File::options().create(true).append(false).write(true).truncate(true).open(&log).expect("the log");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(["--", "bash", "-c", script]).current_dir(mount.path()).stdin(Stdio::null());
    specrun.stdout(file.try_clone().expect("a copy")).stderr(Stdio::piped());
    let job = specrun.spawn().expect("specrun runs");
    until("it is done", || mount.status().iter().any(|status| status["state"] == "done"));
    use std::io::Write;
    (&file).write_all(b"said by another\n").expect("write");
    first.exit(1);
    let output = job.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(fs::read_to_string(&log).expect("the log"), "one\ntwo\nsaid by another\ntwo\n");
}
