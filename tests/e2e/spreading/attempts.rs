//! Who has read the work of an older job that is run again waits until that is there anew (rule 16).

use crate::harness::{Mount, text, until};
use std::fs::{self, File};
use std::process::{Child, ExitStatus};

/// A job whose words are looked at while it runs.
struct Job<'a> {
    mount: &'a Mount,
    name: String,
    child: Child,
}

impl<'a> Job<'a> {
    fn start(mount: &'a Mount, name: &str, options: &[&str], script: &str) -> Self {
        let said = File::create(mount.beside(&format!("{name}.said"))).expect("a file");
        let child = mount.specrun_command(options, script).stderr(said).spawn().expect("specrun runs");
        Job { mount, name: name.to_owned(), child }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.mount.beside(&format!("{}.said", self.name))).expect("what it said")
    }

    fn says(&self, words: &str) {
        until(&format!("{} says `{words}`", self.name), || self.said().contains(words));
    }

    fn ends(&mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The script of a job that is in conflict at its first end, and at its second run makes `made` when it is let.
const PRODUCER: &str = "echo mine > shared; \
    if [ -e ../ran ]; then until [ -e ../second ]; do sleep 0.01; done; else touch ../ran; echo old > made; \
    until [ -e ../first ]; do sleep 0.01; done; fi; echo new > made";

/// A producer and one that has read from it, which falls with it.
fn producer_and_reader<'a>(mount: &'a Mount, retries: &str, reader: &[&str]) -> (Job<'a>, Job<'a>) {
    mount.write("shared", "0\n");
    let producer = Job::start(mount, "producer", &["--retries", retries], PRODUCER);
    until("the producer has made it", || !mount.status().is_empty() && mount.beside("ran").exists());
    until("it is there", || text(&mount.mojavefs(&["diff", "1", "--stat"]).stdout).contains("made"));
    let reader = Job::start(mount, "reader", reader, "read line < made || exit 9; echo $line > result");
    reader.says("waits until");
    mount.write("shared", "trunk\n");
    mount.write("../first", "");
    (producer, reader)
}

#[test]
fn a_step_that_is_run_again_finds_what_it_reads() {
    for options in [&["--retries", "1"][..], &["--retries", "1", "--from-start"], &["--output", "hold"]] {
        let mount = Mount::new();
        let (mut producer, mut reader) = producer_and_reader(&mount, "1", options);
        reader.says("run again: waits until that is done");
        mount.write("../second", "");
        assert!(producer.ends().success(), "{}", producer.said());
        assert!(reader.ends().success(), "{options:?}: {}", reader.said());
        assert_eq!(mount.read("result"), "new\n");
        mount.check();
    }
}

#[test]
fn one_that_is_given_up_is_not_waited_for() {
    let mount = Mount::new();
    let (mut producer, mut reader) = producer_and_reader(&mount, "0", &[]);
    assert_eq!(producer.ends().code(), Some(75), "{}", producer.said());
    assert_eq!(reader.ends().code(), Some(9), "{}", reader.said());
    assert!(!reader.said().contains("waits until that is done"), "{}", reader.said());
    mount.check();
}

#[test]
fn the_wait_for_one_that_is_killed_ends() {
    let mount = Mount::new();
    let (mut producer, mut reader) = producer_and_reader(&mount, "1", &[]);
    reader.says("run again: waits until that is done");
    producer.child.kill().expect("it is killed");
    producer.ends();
    assert_eq!(reader.ends().code(), Some(9), "{}", reader.said());
    mount.check();
}

#[test]
fn a_signal_ends_the_wait() {
    let mount = Mount::new();
    let (mut producer, mut reader) = producer_and_reader(&mount, "1", &["--from-start"]);
    reader.says("run again: waits until that is done");
    let pid = nix::unistd::Pid::from_raw(reader.child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it is told to end");
    assert_eq!(reader.ends().code(), Some(143), "{}", reader.said());
    mount.write("../second", "");
    assert!(producer.ends().success(), "{}", producer.said());
    mount.check();
}

#[test]
fn three_that_have_read_each_other_do_not_wait_in_a_ring() {
    let mount = Mount::new();
    mount.write("shared", "0\n");
    let oldest = "echo mine > shared; echo $$ > a; until [ -e ../first ]; do sleep 0.01; done; \
                  [ ! -e c ] || { cat c > from-c; touch ../met; }; until [ -e ../last ]; do sleep 0.01; done";
    let mut oldest = Job::start(&mount, "oldest", &[], oldest);
    let there = |spec: &str, name: &str| text(&mount.mojavefs(&["diff", spec, "--stat"]).stdout).contains(name);
    until("a is there", || there("1", "a"));
    let mut second = Job::start(&mount, "second", &[], "read line < a || exit 9; echo $line > b");
    second.says("waits until");
    let mut third = Job::start(&mount, "third", &[], "read line < b || exit 9; echo $line > c");
    third.says("waits until");
    mount.write("../first", "");
    until("the ring is closed", || mount.beside("met").exists());
    mount.write("shared", "trunk\n");
    mount.write("../last", "");
    for job in [&mut oldest, &mut second, &mut third] {
        assert!(job.ends().success(), "{}: {}", job.name, job.said());
    }
    assert_eq!((mount.read("b"), mount.read("c")), (mount.read("a"), mount.read("a")));
    assert!(!mount.exists("from-c"), "there was no c when it was run again");
    mount.check();
}

#[test]
fn a_chain_of_a_hundred_gives_what_it_gives_without_failures() {
    let mount = Mount::new();
    mount.write("shared", "0\n");
    let producer = "echo mine > shared; echo 1 > 1; until [ -e ../first ]; do sleep 0.01; done";
    let mut producer = Job::start(&mount, "producer", &[], producer);
    until("it is there", || text(&mount.mojavefs(&["diff", "1", "--stat"]).stdout).contains('1'));
    let mut steps = Vec::new();
    for step in 2..=100 {
        let script = format!("read line < {} || exit 9; echo $((line + 1)) > {step}", step - 1);
        steps.push(Job::start(&mount, &format!("step-{step}"), &[], &script));
        let ended = || mount.status().iter().filter(|status| status["state"] == "done").count() == steps.len();
        until("it is done, and waits", ended);
    }
    mount.write("shared", "trunk\n");
    mount.write("../first", "");
    assert!(producer.ends().success(), "{}", producer.said());
    for step in &mut steps {
        assert!(step.ends().success(), "{}: {}", step.name, step.said());
    }
    assert_eq!(mount.read("100"), "100\n");
    mount.check();
}
