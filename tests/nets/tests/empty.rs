//! After random work on trunk and in jobs (committed, undone, in conflict, held) everything is removed: the store is as it was
//! when it was new, and nothing had to be searched for.

use mojavefs_harness::Mount;
use mojavefs_nets::empty::{self, Standing};
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::random::Random;
use std::fmt;
use std::process::Command;
use std::str::FromStr;

const ROUNDS: usize = 12;
const NAMES: [&str; 6] = ["a", "b", "c", "d/x", "d/y", "e"];
const SIZES: [&str; 4] = ["10", "5000", "100000", "700000"];

/// What is done, as shell scripts, and by whom.
#[derive(Clone, Debug)]
enum Line {
    Trunk(String),
    /// Whether it is committed.
    Job(bool, String),
    /// Held; then something on trunk, then committed or not.
    Held(bool, String, String),
    /// Two jobs at once, isolated or not, and trunk.
    Overlap(bool, String, String, String),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Trunk(script) => write!(f, "trunk|{script}"),
            Line::Job(commits, script) => write!(f, "job|{commits}|{script}"),
            Line::Held(commits, script, then) => write!(f, "held|{commits}|{script}|{then}"),
            Line::Overlap(apart, one, other, then) => write!(f, "overlap|{apart}|{one}|{other}|{then}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split('|').collect();
        let yes = |word: &str| word == "true";
        let own = str::to_owned;
        Ok(match words[..] {
            ["trunk", script] => Line::Trunk(own(script)),
            ["job", commits, script] => Line::Job(yes(commits), own(script)),
            ["held", commits, script, then] => Line::Held(yes(commits), own(script), own(then)),
            ["overlap", apart, one, other, then] => Line::Overlap(yes(apart), own(one), own(other), own(then)),
            _ => return Err(format!("`{text}` is no line of this net")),
        })
    }
}

fn command(random: &mut Random) -> String {
    let [name, other] = [random.of(&NAMES), random.of(&NAMES)];
    let (size, number) = (random.of(&SIZES), random.below(400_000));
    match random.below(14) {
        0 => format!("mkdir -p d; head -c {size} /dev/urandom > {name}"),
        1 => format!("echo {number} >> {name}"),
        2 => format!(": > {name}"),
        3 => format!("rm -f {name}"),
        4 => format!("mv -f {name} {other}"),
        5 => format!("ln -f {name} {other}"),
        6 => format!("cp {name} {other}"),
        7 => format!("dd if=/dev/urandom of={name} bs=1000 count=3 seek={} conv=notrunc", number % 300),
        8 => "rm -rf d; mkdir -p d".into(),
        9 => format!("chmod {} {name}", if number % 2 == 0 { "600" } else { "644" }),
        10 => format!("setfattr -n user.k -v {number} {name}"),
        11 => format!("ln -sf {other} {name}.l; rm -f {name}.l"),
        12 => format!("mkfifo {name}.p; rm -f {name}.p"),
        _ => format!("truncate -s {number} {name}"),
    }
}

fn script(random: &mut Random, commands: usize) -> String {
    (0..commands).map(|_| command(random) + " 2>/dev/null; ").collect()
}

fn program(seed: u64) -> Vec<Line> {
    let random = &mut Random(seed);
    let line = |random: &mut Random| match random.below(6) {
        0 => Line::Trunk(script(random, 4)),
        1 => Line::Job(true, script(random, 4)),
        2 => Line::Job(false, script(random, 4)),
        3 => Line::Held(random.one_in(2), script(random, 3), script(random, 2)),
        _ => Line::Overlap(random.one_in(2), script(random, 2), script(random, 2), script(random, 2)),
    };
    (0..ROUNDS).map(|_| line(random)).collect()
}

fn trunk(mount: &Mount, script: &str) {
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).current_dir(mount.path());
    shell.status().expect("sh runs");
}

/// Two jobs that have both done their work before either ends.
fn overlap(mount: &Mount, apart: bool, scripts: [&str; 2], then: &str) {
    let ready = |number: usize| mount.beside(&format!("ready{number}"));
    let go = mount.beside("go");
    let options: &[&str] =
        if apart { &["--quiet", "--retries", "0", "--isolate"] } else { &["--quiet", "--retries", "0"] };
    let start = |(number, script): (usize, &str)| {
        // The second fails.
        let wait =
            format!("{script} : > {}; until [ -e {} ]; do sleep 0.01; done", ready(number).display(), go.display());
        let mut command = mount.specrun_command(options, &format!("{wait}; exit {number}"));
        command.stderr(std::process::Stdio::null()).spawn().expect("specrun runs")
    };
    let mut jobs: Vec<_> = scripts.into_iter().enumerate().map(start).collect();
    // One that is undone at once because of the other is never ready.
    for (number, job) in jobs.iter_mut().enumerate() {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !ready(number).exists() && job.try_wait().expect("its status").is_none() {
            assert!(std::time::Instant::now() < deadline, "job {number} does nothing");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
    }
    trunk(mount, then);
    std::fs::write(&go, "").expect("the jobs go on");
    for job in &mut jobs {
        job.wait().expect("the job ends");
    }
    for path in [ready(0), ready(1), go] {
        drop(std::fs::remove_file(path));
    }
}

fn run(program: &[Line]) -> Result<(), Failure> {
    let mount = Mount::new();
    let before = Standing::of(&mount);
    for line in program {
        match line {
            Line::Trunk(script) => trunk(&mount, script),
            Line::Job(commits, script) => {
                let end = if *commits { "true" } else { "exit 1" };
                mount.specrun(&["--quiet", "--retries", "0"], &format!("{script}{end}"));
            }
            Line::Held(commits, script, then) => {
                mount.specrun(&["--quiet", "--retries", "0", "--hold"], &format!("{script}true"));
                trunk(&mount, then);
                for held in mount.status() {
                    let id = held["id"].to_string();
                    if *commits {
                        mount.mojavefs(&["commit", &id]);
                    }
                    // One that was in conflict.
                    mount.mojavefs(&["abort", &id]);
                }
            }
            Line::Overlap(apart, one, other, then) => overlap(&mount, *apart, [one, other], then),
        }
    }
    empty::left_nothing(&mount, &before)
}

#[test]
fn the_store_is_empty_when_everything_is_removed() {
    Net { name: "the_store_is_empty_when_everything_is_removed", program, run, seeds: 8 }.cast();
}
