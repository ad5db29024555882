//! Jobs that append lines to the same files: what a job was told is written, and what it exited with 0 for, is there.

use crate::harness::{Mount, text, until};
use mojavefs_nets::random::Random;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::process::{Child, Command, Stdio};

#[test]
fn what_a_job_writes_after_others_have_built_on_its_file_is_not_lost() {
    for option in [&["--on-read", "committed"][..], &["--isolate"]] {
        let mount = Mount::new();
        mount.write("log", "base\n");
        let script = "echo A1 >> log; touch ../a1; until [ -e ../go ]; do sleep 0.01; done; echo A2 >> log";
        let first = mount.start_freely("first", option, script);
        until("the first has written", || mount.beside("a1").exists());
        let output = mount.specrun(&["--no-wait", "--json"], "echo B >> log");
        assert!(output.status.success(), "{}", text(&output.stderr));
        let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("--json says JSON");
        let id = said["id"].to_string();
        let waiting = mount.start("waiting", &["--from-start"], "cat log > seen; echo C >> log");
        waiting.let_exit(0);
        until("both have voted", || mount.status().iter().filter(|s| s["state"] == "voted").count() == 2);
        fs::write(mount.beside("go"), "").expect("go");
        assert!(first.exit(0).status.success());
        // Nobody is there who would run the second again: it is left, with what stands in its way.
        let status = mount.status();
        let left = status.iter().find(|s| s["id"].as_u64() == id.parse().ok()).unwrap_or_else(|| panic!("{status:?}"));
        assert_eq!((&left["state"], &left["conflicts"][0]["path"]), (&"held".into(), &"log".into()));
        assert_eq!(mount.mojavefs(&["commit", &id]).status.code(), Some(75), "{option:?}");
        assert!(mount.mojavefs(&["abort", &id]).status.success());
        let output = waiting.wait();
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!((mount.read("log"), mount.read("seen")), ("base\nA1\nA2\nC\n".into(), "base\nA1\nA2\n".into()));
        assert!(mount.status().is_empty());
        mount.check();
    }
}

#[test]
fn a_job_within_a_job_that_joins_nobody_writes_on_top_of_what_was_committed_beside_it() {
    let mount = Mount::new();
    mount.write("log", "base\n");
    let specrun = crate::harness::SPECRUN;
    let wait = "until [ -e ../go ]; do sleep 0.01; done";
    let outer = format!(
        "{specrun} --on-read committed -- sh -c 'echo A1 >> log; touch ../a1; {wait}; echo A2 >> log' & \
         until [ -e ../a1 ]; do sleep 0.01; done; {specrun} -- sh -c 'echo B >> log' && touch ../go; wait $! && cat log"
    );
    let output = mount.specrun(&["--retries", "0"], &outer);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!((text(&output.stdout), mount.read("log")), ("base\nA1\nB\nA2\n".into(), "base\nA1\nB\nA2\n".into()));
    mount.check();
}

const FILES: usize = 2;
const JOBS: usize = 8;

/// Appends lines, looks at the file after each, and leaves what it saw at its end: memory goes back with a job, files of the
/// host don't.
const APPENDER: &str = r#"
import os, sys, time
out, code, *words = sys.argv[1:]
seen = []
for word in words:
    name, line, pause = word.split(":")
    fd = os.open(name, os.O_WRONLY | os.O_APPEND)
    os.write(fd, (line + "\n").encode())
    os.close(fd)
    with open(name) as f: seen.append(name + " " + f.read().replace("\n", " "))
    time.sleep(int(pause) / 1000)
with open(out + ".new", "w") as f: f.write("".join(s + "\n" for s in seen))
os.rename(out + ".new", out)
sys.exit(int(code))
"#;

struct Job {
    child: Option<Child>,
    options: Vec<&'static str>,
    lines: Vec<(usize, String)>,
    code: i32,
}

const MODES: [&[&str]; 9] = [
    &[],
    &[],
    &["--from-start"],
    &["--no-wait"],
    &["--no-wait", "--from-start"],
    &["--on-read", "wait"],
    &["--on-read", "committed"],
    &["--isolate"],
    &["--hold"],
];

fn start(mount: &Mount, random: &mut Random, number: usize) -> Job {
    let options = MODES[random.below(MODES.len())].to_vec();
    let code = i32::from(random.below(6) == 0);
    let mut lines = Vec::new();
    let mut words = Vec::new();
    for line in 0..=random.below(3) {
        let (file, pause) = (random.below(FILES), random.below(60));
        words.push(format!("f{file}:{number}.{line}:{pause}"));
        lines.push((file, format!("{number}.{line}")));
    }
    println!("job {number} {options:?}: {words:?}, exit {code}");
    let mut command = Command::new(crate::harness::SPECRUN);
    command.args(&options).args(["--retries", "50", "--", "python3", "../appender.py"]);
    command.arg(format!("../seen.{number}")).arg(code.to_string()).args(&words);
    command.current_dir(mount.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Job { child: Some(command.spawn().expect("specrun runs")), options, lines, code }
}

fn run(seed: u64) {
    println!("repeat with MOJAVEFS_SEED={seed}");
    let mut random = Random(seed);
    let mount = Mount::new();
    fs::write(mount.beside("appender.py"), APPENDER).expect("write");
    (0..FILES).for_each(|file| mount.write(&format!("f{file}"), "base\n"));
    let mut jobs: BTreeMap<usize, Job> = BTreeMap::new();
    for number in 0..JOBS {
        jobs.insert(number, start(&mount, &mut random, number));
    }
    let running = RefCell::new(&mut jobs);
    until("all commands have ended", || {
        decide_what_is_left(&mount);
        let has_ended = |job: &mut Job| job.child.as_mut().is_some_and(|c| c.try_wait().expect("wait").is_some());
        running.borrow_mut().values_mut().all(has_ended)
    });
    until("everything is decided", || {
        decide_what_is_left(&mount);
        mount.status().is_empty()
    });
    let finals: Vec<String> = (0..FILES).map(|file| mount.read(&format!("f{file}"))).collect();
    finals.iter().for_each(|lines| println!("in the end: {}", lines.replace('\n', " ")));
    for (number, job) in &mut jobs {
        let output = job.child.take().expect("it ran").wait_with_output().expect("it has ended");
        check(&mount, *number, job, (output.status.code(), &text(&output.stderr)), &finals);
    }
    mount.check();
}

/// Decides what is held: what stands in conflict is undone, everything else is committed.
fn decide_what_is_left(mount: &Mount) {
    for left in mount.status() {
        if left["state"] == "held" {
            let in_conflict = left["conflicts"].as_array().is_some_and(|list| !list.is_empty());
            mount.mojavefs(&[if in_conflict { "abort" } else { "commit" }, &left["id"].to_string()]);
        }
    }
}

fn check(mount: &Mount, number: usize, job: &Job, (code, said): (Option<i32>, &str), finals: &[String]) {
    let place = |(file, line): &(usize, String)| finals[*file].lines().position(|found| found == line);
    let places: Vec<Option<usize>> = job.lines.iter().map(place).collect();
    let told = format!("job {number} {:?} exited with {code:?}, lines at {places:?}: {said}", job.options);
    let all = places.iter().all(Option::is_some);
    assert!(all || places.iter().all(Option::is_none), "all or nothing: {told}");
    let once = |(file, line): &(usize, String)| finals[*file].lines().filter(|found| *found == line).count() <= 1;
    assert!(job.lines.iter().all(once), "a line is there twice: {told}");
    // What is left for others to decide may have been undone since.
    let is_left = job.options.iter().any(|option| matches!(*option, "--no-wait" | "--hold"));
    let expected = match code {
        Some(0) if job.code == 0 => is_left || all,
        Some(1) if job.code == 1 => !all,
        _ => false,
    };
    assert!(expected, "{told}");
    if !all {
        return;
    }
    let seen = fs::read_to_string(mount.beside(&format!("seen.{number}"))).expect("what it saw");
    for seen in seen.lines() {
        let (name, lines) = seen.split_once(' ').expect("a name");
        let file: usize = name[1..].parse().expect("a number");
        let shown = finals[file].replace('\n', " ");
        assert!(shown.starts_with(lines), "it saw `{lines}` of `{shown}`: {told}");
    }
}

#[test]
fn lines_that_were_acknowledged_are_there_in_the_order_that_was_read() {
    let given = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    match given {
        Some(seed) => run(seed),
        None => (1..=if soak { 500 } else { 5 }).for_each(run),
    }
}
