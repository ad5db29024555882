//! Programs with libmojave: one process over its memory, mappings, signals, children, descriptors and files at once, with levels
//! that are entered, voted for in any order, aborted and tried again. A model says how all of it must be after each order.

mod draw;
mod files;
mod model;
mod signals;

pub use draw::program;

use crate::empty::{Standing, left_nothing};
use crate::net::Failure;
use crate::words::{field, words};
use model::Model;
use mojavefs_harness::programs::compiled;
use mojavefs_harness::{Mount, SPECRUN, text, until};
use std::fmt;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::str::FromStr;

/// Where `machine.c` lies, which does what the model says.
const SUBJECTS: &str = "tests/nets/subjects";

words! {
    /// What the process can be told, numbered as in `machine.c`.
    // Their names say what they do; groups are memory, mappings, signals, children, descriptors, files, levels.
    #[allow(missing_docs)]
    pub enum What {
        Fill "fill", Resize "resize",
        Map "map", Cut "cut", Protect "protect", Store "store", GiveBack "give-back", Grow "grow",
        Block "block", Unblock "unblock", Raise "raise", Send "send", Queue "queue", Take "take", Handle "handle",
        Start "start",
        Open "open", Close "close", Dup "dup", Put "put", Seek "seek", Appending "appending",
        Write "write", Append "append", Unlink "unlink", Rename "rename", Link "link", Truncate "truncate", Child "child",
        Shared "shared", Umask "umask",
        Enter "enter", Commit "commit", Abort "abort", Retry "retry",
    }
}

/// From here on a number is of one of the two innermost levels; below it, of any.
const INNERMOST: u8 = 128;

/// One order; what the numbers mean depends on `what`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    what: What,
    a: u8,
    b: u8,
    c: u8,
    number: u32,
}

impl Order {
    fn bytes(&self) -> [u8; 8] {
        let number = self.number.to_ne_bytes();
        [self.what as u8, self.a, self.b, self.c, number[0], number[1], number[2], number[3]]
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {} {}", self.what, self.a, self.b, self.c, self.number)
    }
}

impl FromStr for Order {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let (what, a) = (field(&mut words, "what")?, field(&mut words, "a")?);
        let (b, c) = (field(&mut words, "b")?, field(&mut words, "c")?);
        Ok(Order { what, a, b, c, number: field(&mut words, "the number")? })
    }
}

/// Where a program runs, and what becomes of it.
struct Mode {
    name: &'static str,
    options: &'static [&'static str],
    /// The exit status of the command around it.
    code: i32,
}

const MODES: [Mode; 3] = [
    Mode { name: "job", options: &[], code: 0 },
    Mode { name: "undone-job", options: &[], code: 3 },
    Mode { name: "no-job", options: &["--no-speculation"], code: 0 },
];

/// Runs a program in a job that is committed, in one that is undone, and in none.
pub fn run(orders: &[Order]) -> Result<(), Failure> {
    let mount = Mount::new();
    let before = Standing::of(&mount);
    let machine = compiled(&mount, SUBJECTS, "machine");
    MODES.iter().try_for_each(|mode| run_in(&mount, &machine, mode, orders))?;
    left_nothing(&mount, &before)
}

fn run_in(mount: &Mount, machine: &Path, mode: &Mode, orders: &[Order]) -> Result<(), Failure> {
    let dir = mount.at(mode.name);
    fs::create_dir(&dir).expect("mkdir");
    let mut specrun = Command::new(SPECRUN);
    specrun.args(mode.options).args(["--quiet", "--", "sh", "-c"]).arg(format!("\"$0\" && exit {}", mode.code));
    specrun.arg(machine).current_dir(&dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut specrun = specrun.spawn().expect("specrun runs");
    let bytes: Vec<u8> = orders.iter().flat_map(Order::bytes).collect();
    let mut input = specrun.stdin.take().expect("its input");
    // Who has ended takes no more, as the missing answers show.
    let told = std::thread::spawn(move || drop(input.write_all(&bytes)));
    let output = specrun.wait_with_output().expect("it ends");
    told.join().expect("it is told");
    let said = text(&output.stderr);
    let end = compare(mode, orders, &text(&output.stdout), &said)?;
    if output.status.code() != Some(mode.code) {
        let what = format!("{}: it ended with {:?}, not {}: {said}", mode.name, output.status.code(), mode.code);
        return Err(Failure::new(format!("{} status", mode.name), what));
    }
    until("what it had open is undone", || mount.status().is_empty());
    let left = |name: &str| fs::read(dir.join(name)).ok();
    for (name, content) in end.files() {
        let content = content.filter(|_| mode.code == 0);
        if left(name).as_deref() != content {
            let what = format!("{}: {name} is not what it was at the end", mode.name);
            return Err(Failure::new(format!("{} end", mode.name), what));
        }
    }
    Ok(())
}

/// Holds what it said against the model; returns what must be left of it.
fn compare(mode: &Mode, orders: &[Order], answers: &str, said: &str) -> Result<files::Files, Failure> {
    let (mut model, mut answers) = (Model::new(), answers.lines());
    for (at, order) in orders.iter().enumerate() {
        let expected = model.obey(order);
        let kind = || format!("{} {}", mode.name, order.what);
        let place = format!("{}: order {} (`{order}`)", mode.name, at + 1);
        match answers.next() {
            Some(answer) if answer == expected => {}
            Some(answer) => return Err(Failure::new(kind(), format!("{place}: {}", difference(answer, &expected)))),
            None => return Err(Failure::new(kind(), format!("{place} ended it: {said}"))),
        }
    }
    Ok(model.end())
}

/// Where two answers part.
fn difference(answer: &str, expected: &str) -> String {
    let (mut field, both) = ("result", answer.split(' ').zip(expected.split(' ')));
    for (mine, right) in both {
        if mine != right {
            return format!("{field}: `{mine}`, not `{right}`\n  it says  {answer}\n  expected {expected}");
        }
        if mine.len() > 3 && mine.bytes().all(|byte| byte.is_ascii_lowercase()) {
            field = mine;
        }
    }
    format!("one is longer\n  it says  {answer}\n  expected {expected}")
}
