//! Several jobs that go back to reads, of each other and through each other.

use super::{Job, PYTHON, goes_back, let_go, mounted, runs};
use crate::harness::served::Server;
use crate::harness::{Mount, SPECRUN, until};
use std::fs;

#[test]
fn two_that_read_each_other_finish() {
    require_root!();
    let mount = mounted();
    mount.write("a", "0\n");
    mount.write("b", "0\n");
    let script = |mine: &str, theirs: &str| {
        format!(
            "import time\nopen('{mine}', 'w').write('1\\n')\nwhile open('{theirs}').read() != '1\\n': time.sleep(0.002)\n"
        )
    };
    let one = Job::python(&mount, &[], &script("a", "b"));
    let two = Job::python(&mount, &[], &script("b", "a"));
    for job in [one, two] {
        let (code, said) = job.end();
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!((mount.read("a"), mount.read("b")), ("1\n".into(), "1\n".into()));
    mount.check();
}

#[test]
fn a_chain_goes_back_link_by_link() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let copy = |from: &str, to: &str, fifo: &str| {
        format!("n = 1\ntext = open('{from}').read()\nn += 1\nopen('{to}', 'w').write(text)\nopen('../{fifo}').read()")
    };
    mount.write("b", "old\n");
    mount.write("c", "old\n");
    let mut second = Job::python(&mount, &[], &copy("data", "b", "fifo"));
    second.joined(&mount, "data");
    until("it has written", || {
        mount.status().iter().any(|status| status["changes"] == 1 && status["pid"] == second.id())
    });
    let mut third = Job::python(&mount, &[], &copy("b", "c", "gate"));
    assert_eq!(third.joined(&mount, "b")["back_to"], "read");
    first.exit(1);
    for job in [&mut second, &mut third] {
        job.until_said("going on from the read (1 of 3)");
    }
    let_go(&mount);
    fs::write(mount.beside("gate"), "go\n").expect("the other fifo");
    for job in [second, third] {
        let (code, said) = job.end();
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!((mount.read("b"), mount.read("c")), ("old\n".into(), "old\n".into()));
    mount.check();
}

#[test]
fn what_was_seen_of_one_who_lives_on_is_joined_anew() {
    require_root!();
    let mount = mounted();
    crate::harness::sh(&mount.path(), "echo g > gone; ln -s first link");
    let script = "
import os
seen = [open('data').read(), os.path.exists('gone'), os.path.exists('new'), os.readlink('link')]
open('../fifo').read()
open('result', 'w').write(repr(seen))
";
    let first = mount.start("first", &[], "echo new > data");
    let second = mount.start("second", &[], "rm gone; touch new; ln -sfn second link");
    let mut job = Job::python(&mount, &[], script);
    for path in ["data", "gone"] {
        assert_eq!(job.joined(&mount, path)["back_to"], "read");
    }
    first.exit(1);
    job.until_said("going on from the read (1 of 3)");
    until("it has left them", || job.dependency(&mount, "data").is_none());
    assert_eq!(job.joined(&mount, "gone")["back_to"], "read");
    second.exit(1);
    job.until_said("going on from the read (2 of 3)");
    let_go(&mount);
    let (code, said) = job.end();
    assert_eq!((code, mount.read("result")), (Some(0), "['old\\n', True, False, 'first']".into()), "{said}");
    mount.check();
}

#[test]
fn an_inner_job_goes_back_to_its_read() {
    require_root!();
    let mount = mounted();
    let first = mount.start("first", &[], "echo new > data");
    let mut outer = Job::start(&mount, &[], &[SPECRUN, "--", "python3", "-c", PYTHON]);
    let inner = || mount.status().into_iter().find(|status| status["depends_on"][0]["path"] == "data");
    until("the inner one has read", || inner().is_some());
    assert_eq!(inner().expect("it has read")["depends_on"][0]["back_to"], "read");
    first.exit(1);
    outer.until_said("going on from the read (1 of 3)");
    let_go(&mount);
    let (code, said) = outer.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!((mount.read("result"), runs(&mount)), ("42 same old\n".into(), "run\n".into()));
    mount.check();
}

#[test]
fn it_works_with_a_server_elsewhere() {
    require_root!();
    let server = Server::new();
    for mount in [server.mount(), server.mount_tcp()] {
        mount.write("data", "old\n");
        crate::harness::sh(&mount.beside(""), "mkfifo fifo");
        goes_back(&mount, &["python3", "-c", PYTHON]);
    }
}

/// Reads and writes at random; what it has read it knows in memory only, and says at its end, if it comes to it.
const WORKER: &str = "
import os, random, sys, time
me, seed = sys.argv[1], sys.argv[2]
number, pid, said = random.Random(seed + me), os.getpid(), []
for step in range(25):
    file = os.open(f'f{number.randrange(5)}', os.O_RDWR)
    if number.random() < 0.5: said.append(os.read(file, 6).decode())
    else: os.write(file, f'{me}.{step:04}'.encode())
    os.close(file)
    time.sleep(number.random() / 500)
if number.random() < 0.3: sys.exit(1)
assert pid == os.getpid()
open(f'out-{me}', 'w').write(' '.join(said))
";

/// Whoever has failed has left no trace: not in a file, and not in the memory of those who have read from it.
fn nobody_remembers_what_did_not_happen(seed: u64) {
    println!("repeat with MOJAVEFS_SEED={seed}");
    let mount = Mount::new();
    (0..5).for_each(|file| mount.write(&format!("f{file}"), "0.0000"));
    fs::write(mount.beside("worker.py"), WORKER).expect("write");
    let start = |me: u64| {
        let (me, seed) = (me.to_string(), seed.to_string());
        Job::start(&mount, &["--retries", "1000"], &["python3", "../worker.py", &me, &seed])
    };
    let jobs: Vec<(u64, Job)> = (1..=8).map(|me| (me, start(me))).collect();
    let ended: Vec<(u64, Option<i32>, String)> = jobs
        .into_iter()
        .map(|(me, job)| {
            let (code, said) = job.end();
            (me, code, said)
        })
        .collect();
    let stands = |tag: &str| {
        let who: u64 = tag.split('.').next().and_then(|who| who.parse().ok()).expect("a tag");
        who == 0 || ended.iter().any(|(me, code, _)| *me == who && *code == Some(0))
    };
    for (me, code, said) in &ended {
        assert!(matches!(code, Some(0 | 1)), "{me}: {code:?}: {said}");
        assert_eq!(mount.exists(&format!("out-{me}")), *code == Some(0), "{me}");
        if *code == Some(0) {
            let read = mount.read(&format!("out-{me}"));
            assert!(read.split(' ').filter(|tag| !tag.is_empty()).all(stands), "{me} has read {read}: {said}");
        }
    }
    (0..5).for_each(|file| assert!(stands(&mount.read(&format!("f{file}"))), "f{file}"));
    assert!(mount.status().is_empty());
    mount.check();
}

#[test]
fn nothing_that_did_not_happen_is_remembered() {
    require_root!();
    let given = std::env::var("MOJAVEFS_SEED").ok().and_then(|seed| seed.parse().ok());
    let soak = std::env::var_os("MOJAVEFS_SOAK").is_some();
    match given {
        Some(seed) => nobody_remembers_what_did_not_happen(seed),
        None => (1..=if soak { 500 } else { 5 }).for_each(nobody_remembers_what_did_not_happen),
    }
}
