//! Jobs inside of one job: some stay with what they found (`--isolate`), while others change the same files, one after the other,
//! and become part of what is around both, or fail. Each sees what was there when it began, whenever it looks.

use mojavefs_harness::{Mount, SPECRUN};
use mojavefs_nets::net::{Failure, Net};
use mojavefs_nets::random::Random;
use nix::sys::stat::Mode;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::str::FromStr;

const STEPS: usize = 24;
const FILES: usize = 6;
/// How many stay with what they found at the same time.
const APART: usize = 3;
/// What is said of a file that is not there.
const NOTHING: &str = "nothing";

/// One step. Jobs that stay with what they found are named by their places, files by their numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// A job begins; the one that was in its place ends.
    Begin(usize),
    /// It looks at a file.
    Look(usize, usize),
    /// Another job writes a file, and ends well.
    Put(usize),
    /// Another job writes a file, and fails.
    Fail(usize),
    /// Another job removes a file, and ends well.
    Remove(usize),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Begin(job) => write!(f, "begin {job}"),
            Line::Look(job, file) => write!(f, "look {job} {file}"),
            Line::Put(file) => write!(f, "put {file}"),
            Line::Fail(file) => write!(f, "fail {file}"),
            Line::Remove(file) => write!(f, "remove {file}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |word: &str| word.parse::<usize>().map_err(|e| format!("`{text}`: {e}"));
        Ok(match text.split_whitespace().collect::<Vec<_>>()[..] {
            ["begin", job] => Line::Begin(number(job)?),
            ["look", job, file] => Line::Look(number(job)?, number(file)?),
            ["put", file] => Line::Put(number(file)?),
            ["fail", file] => Line::Fail(number(file)?),
            ["remove", file] => Line::Remove(number(file)?),
            _ => return Err(format!("`{text}` is no line of this net")),
        })
    }
}

fn program(seed: u64) -> Vec<Line> {
    let random = &mut Random(seed);
    let line = |random: &mut Random| {
        let (job, file) = (random.below(APART), random.below(FILES));
        random.weighted(&[
            (2, Line::Begin(job)),
            (6, Line::Look(job, file)),
            (4, Line::Put(file)),
            (1, Line::Fail(file)),
            (1, Line::Remove(file)),
        ])
    };
    [Line::Begin(0), Line::Put(0), Line::Look(0, 0)].into_iter().chain((0..STEPS).map(|_| line(random))).collect()
}

/// What is in each file that is there.
type Files = BTreeMap<usize, String>;

/// The job around all others: a shell that does what it is told.
struct Around<'a> {
    mount: &'a Mount,
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    files: Files,
    apart: HashMap<usize, Apart>,
    steps: usize,
}

/// One that stays with what it found.
struct Apart {
    found: Files,
    to: File,
    from: BufReader<File>,
}

fn said(from: &mut impl BufRead) -> String {
    let mut line = String::new();
    from.read_line(&mut line).expect("an answer");
    line.trim_end().to_owned()
}

impl Around<'_> {
    fn tell(&mut self, what: &str) {
        writeln!(self.to, "{what}").expect("the job around all others is there");
    }

    fn line(&mut self, line: Line) -> Result<(), Failure> {
        self.steps += 1;
        let step = self.steps;
        match line {
            Line::Begin(job) => self.begin(job),
            Line::Look(job, file) => return self.look(job, file),
            Line::Put(file) => {
                self.change(&format!("echo {step} > {file}"))?;
                self.files.insert(file, step.to_string());
            }
            Line::Fail(file) => self.inner(&format!("echo {step} > {file}; exit 3"), "ended 3")?,
            Line::Remove(file) => {
                self.change(&format!("rm -f {file}"))?;
                self.files.remove(&file);
            }
        }
        Ok(())
    }

    fn change(&mut self, script: &str) -> Result<(), Failure> {
        self.inner(script, "ended 0")
    }

    /// Runs a job that ends before anything else is done.
    fn inner(&mut self, script: &str, expected: &str) -> Result<(), Failure> {
        let specrun = SPECRUN.path().display();
        self.tell(&format!("{specrun} --quiet --retries 0 -- sh -c '{script}'; echo ended $?"));
        match said(&mut self.from) {
            said if said == expected => Ok(()),
            said => Err(Failure::new("inner", format!("`{script}`: {said}, not {expected}"))),
        }
    }

    fn begin(&mut self, job: usize) {
        // Its input ends, and so does it.
        self.apart.remove(&job);
        let [input, output] = ["in", "out"].map(|way| self.mount.beside(&format!("{way}{}", self.steps)));
        [&input, &output].into_iter().for_each(|path| nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("a fifo"));
        let (specrun, [from, into]) = (SPECRUN.path().display(), [&input, &output].map(|path| path.display()));
        let loop_ = format!("echo begun; while read -r file; do cat \"$file\" 2>/dev/null || echo {NOTHING}; done");
        self.tell(&format!("{specrun} --isolate --quiet --retries 0 -- sh -c '{loop_}' <{from} >{into} &"));
        let to = File::options().write(true).open(input).expect("its input");
        let mut from = BufReader::new(File::open(output).expect("its output"));
        assert_eq!(said(&mut from), "begun");
        self.apart.insert(job, Apart { found: self.files.clone(), to, from });
    }

    fn look(&mut self, job: usize, file: usize) -> Result<(), Failure> {
        let Some(apart) = self.apart.get_mut(&job) else { return Ok(()) };
        writeln!(apart.to, "{file}").expect("it listens");
        let expected = apart.found.get(&file).map_or(NOTHING, String::as_str);
        match said(&mut apart.from) {
            said if said == expected => Ok(()),
            said => Err(Failure::new("look", format!("step {}: file {file}: {said:?}, not {expected:?}", self.steps))),
        }
    }
}

impl Drop for Around<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(program: &[Line]) -> Result<(), Failure> {
    let mount = Mount::new();
    let mut command =
        mount.specrun_command(&["--quiet", "--retries", "0"], "while read -r line; do eval \"$line\"; done");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("specrun runs");
    let (to, from) = (child.stdin.take().expect("its input"), child.stdout.take().expect("its output"));
    let (files, apart) = (Files::new(), HashMap::new());
    let mut around = Around { mount: &mount, child, to, from: BufReader::new(from), files, apart, steps: 0 };
    program.iter().try_for_each(|line| around.line(*line))?;
    around.apart.clear();
    around.tell("wait; exit 0");
    let code = around.child.wait().expect("it ends").code();
    if code != Some(0) {
        return Err(Failure::new("outer", format!("the job around all others: exit status {code:?}")));
    }
    let wanted = around.files.clone();
    drop(around);
    let there = |file: usize| Some((file, fs::read_to_string(mount.at(file.to_string())).ok()?.trim_end().to_owned()));
    let found: Files = (0..FILES).filter_map(there).collect();
    match found == wanted {
        true => Ok(()),
        false => Err(Failure::new("trunk", format!("trunk shows {found:?}, not {wanted:?}"))),
    }
}

#[test]
fn who_stays_with_what_it_found_sees_that_whatever_becomes_part_of_what_is_around_it() {
    require_root!();
    Net { name: "who_stays_with_what_it_found_sees_that", program, run, seeds: 6 }.cast();
}
