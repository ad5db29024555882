//! Who skips the holes of a file comes to the same bytes as who reads it, also while it is written through a mapping.

use crate::harness::programs::SUBJECTS;
use crate::harness::served::Server;
use crate::harness::{Mount, SPECRUN, project, run, until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

fn script() -> String {
    project(SUBJECTS).join("holes.py").display().to_string()
}

/// Runs it on trunk and in jobs of every kind.
fn everywhere(what: &str) {
    let mount = Mount::new();
    let (specrun, script) = (SPECRUN.to_string(), script());
    let run_in = |dir: &str, words: &[&str]| {
        fs::create_dir(mount.at(dir)).expect("mkdir");
        let words = [words, &["python3", &script, what]].concat();
        run(&mount.at(dir), words[0], &words[1..]);
    };
    run_in("trunk", &[]);
    run_in("job", &[&specrun, "--quiet", "--"]);
    run_in("apart", &[&specrun, "--quiet", "--isolate", "--"]);
    run_in("waits", &[&specrun, "--quiet", "--on-read", "wait", "--"]);
    mount.check();
}

#[test]
fn whoever_skips_holes_finds_what_was_written_in_every_way() {
    everywhere("table");
}

#[test]
fn many_look_for_holes_while_one_writes_through_a_mapping() {
    everywhere("crowd");
}

#[test]
fn another_mount_of_the_same_server_shows_holes_where_it_shows_zeros() {
    let server = Server::new();
    let (here, there) = (server.mount(), server.mount());
    let map = "import mmap, os
f = os.open('f', os.O_RDWR | os.O_CREAT)
os.ftruncate(f, 1 << 20)
m = mmap.mmap(f, 1 << 20)
m[300000] = 1
print('mapped', flush=True)
input()";
    let mut writer = Command::new("python3");
    writer.args(["-c", map]).current_dir(here.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut writer = writer.spawn().expect("python3 runs");
    let mut line = String::new();
    BufReader::new(writer.stdout.take().expect("its output")).read_line(&mut line).expect("it speaks");
    let look = |mount: &Mount| run(&mount.path(), "python3", &[&script(), "look", "f"]);
    look(&there);
    look(&here);
    look(&there);
    // What was looked for here is at the server, who tells the other.
    until("the other mount has heard", || fs::read(there.at("f")).expect("read")[300_000] == 1);
    run(&there.path(), "cp", &["f", "copy"]);
    drop(writer.stdin.take());
    writer.wait().expect("it ends");
    look(&there);
    assert_eq!(fs::read(there.at("copy")).expect("read")[300_000], 1);
}
