//! The program `nets-worker`, and the end of a test that tells it what to do.
//!
//! Told on its standard input, or in a file (`nets-worker --program FILE`), it performs a line, answers a line, and so on. First it
//! says `ready`. An answer to a line that begins with a number begins with it, too, and from a file each does: a job that goes
//! back to a read says some again, and the last one counts. Lines are those of [`crate::op::Step`], and:
//!
//! | line | what it does |
//! | --- | --- |
//! | `inner OPTION…` | runs `specrun OPTION… -- nets-worker` on the same input and output; when that has ended: `ended CODE` |
//! | `exit CODE` | ends, without an answer |
//! | `die` | ends by `SIGTERM`, without an answer |
//! | `reach FILE` | makes an empty file of the host: the test sees how far it is |
//! | `await FILE` | waits until the test has made this file of the host |
//! | `pause N` | waits for N milliseconds |
//! | `inner-program FILE ANSWERS OPTION…` | runs `specrun OPTION… -- nets-worker --timed FILE`, whose answers are added to a file |
//!
//! With `--timed FILE` each answer begins with the number of its line, and when it was begun and ended, in nanoseconds of the clock
//! that never jumps; `%` in a line is when it was begun.

use crate::memory::Memory;
use crate::perform::Performer;
use crate::sys;
use mojavefs_harness::SPECRUN;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

pub(crate) const READY: &str = "ready";
/// Between two looks for a file, or whether a process has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// How much of a file is read between two pauses by who fills the caches.
const READ_AT_ONCE: usize = 1 << 20;
/// How long an answer, or an end, may take: what hangs is a failure.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// Where the program is: beside the project's own.
pub fn program() -> PathBuf {
    SPECRUN.path().with_file_name("nets-worker")
}

/// The program.
pub fn main() -> ExitCode {
    match perform_all() {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("nets-worker: {e}");
            ExitCode::from(99)
        }
    }
}

fn perform_all() -> Result<u8, String> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut performer = Performer::new().map_err(|e| format!("the working directory: {e}"))?;
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => from_input(&mut performer),
        ["--program", file] => {
            let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            from_file(&mut performer, &text)
        }
        ["--timed", file] => {
            let text = fs::read_to_string(file).map_err(|e| format!("{file}: {e}"))?;
            timed(&mut performer, &text)
        }
        ["--read-for-ever", file] => Err(read_for_ever(file)),
        _ => Err("usage: nets-worker [--program FILE | --timed FILE | --read-for-ever FILE]".to_owned()),
    }
}

/// Reads a file again and again, with a pause after each [`READ_AT_ONCE`], until it is killed; why it can't go on.
fn read_for_ever(file: &str) -> String {
    let mut buffer = vec![0; READ_AT_ONCE];
    let read_on = |buffer: &mut [u8]| -> std::io::Result<()> {
        let mut from = fs::File::open(file)?;
        while from.read(buffer)? > 0 {
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    loop {
        if let Err(e) = read_on(&mut buffer) {
            return format!("{file}: {e}");
        }
    }
}

/// What one line comes to.
enum Said {
    Answer(String),
    Exit(u8),
}

fn from_input(performer: &mut Performer) -> Result<u8, String> {
    println!("{READY}");
    let mut line = String::new();
    loop {
        line.clear();
        // An inner worker reads on where this one stops: nobody says more than one line before it is answered.
        if std::io::stdin().read_line(&mut line).map_err(|e| format!("its input: {e}"))? == 0 {
            return Ok(0);
        }
        let line = line.trim_end_matches('\n');
        let numbered = line.split_once(' ').filter(|(number, _)| number.parse::<u64>().is_ok());
        let (number, line) = numbered.map_or((String::new(), line), |(number, line)| (format!("{number} "), line));
        match act(performer, line)? {
            Said::Answer(answer) => println!("{number}{answer}"),
            Said::Exit(code) => return Ok(code),
        }
    }
}

fn from_file(performer: &mut Performer, text: &str) -> Result<u8, String> {
    println!("0 {READY}");
    for (at, line) in text.lines().enumerate() {
        match act(performer, line)? {
            Said::Answer(answer) => println!("{} {answer}", at + 1),
            Said::Exit(code) => return Ok(code),
        }
    }
    Ok(0)
}

/// Nanoseconds of the clock that the answers of timed programs are told by.
pub fn now() -> u64 {
    sys::now()
}

fn timed(performer: &mut Performer, text: &str) -> Result<u8, String> {
    println!("0 0 0 {READY}");
    for (at, line) in text.lines().enumerate() {
        let began = sys::now();
        match act(performer, &line.replace('%', &began.to_string()))? {
            Said::Answer(answer) => println!("{} {began} {} {answer}", at + 1, sys::now()),
            Said::Exit(code) => return Ok(code),
        }
    }
    Ok(0)
}

fn act(performer: &mut Performer, line: &str) -> Result<Said, String> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Ok(match word {
        "exit" => Said::Exit(rest.parse().map_err(|e| format!("`{line}`: {e}"))?),
        "die" => {
            raise(Signal::SIGTERM).map_err(|e| format!("SIGTERM: {e}"))?;
            return Err("SIGTERM is ignored".to_owned());
        }
        "inner" => Said::Answer(inner(rest, performer.root())?),
        "inner-program" => Said::Answer(inner_program(rest, performer.root())?),
        "pause" => {
            std::thread::sleep(Duration::from_millis(rest.parse().map_err(|e| format!("`{line}`: {e}"))?));
            Said::Answer("later".to_owned())
        }
        "reach" => Said::Answer(fs::write(rest, "").map_or_else(|e| e.to_string(), |()| "reached".to_owned())),
        "await" => {
            while !Path::new(rest).exists() {
                std::thread::sleep(PAUSE);
            }
            Said::Answer("there".to_owned())
        }
        _ => Said::Answer(performer.perform(&line.parse()?)),
    })
}

fn inner(options: &str, root: &Path) -> Result<String, String> {
    let mut command = Command::new(SPECRUN);
    command.args(options.split_whitespace()).arg("--").arg(program()).current_dir(root);
    let status = command.status().map_err(|e| format!("specrun: {e}"))?;
    Ok(format!("ended {}", status.code().unwrap_or(-1)))
}

fn inner_program(words: &str, root: &Path) -> Result<String, String> {
    let words: Vec<&str> = words.split_whitespace().collect();
    let [program, answers, options @ ..] = &words[..] else { return Err("inner-program FILE ANSWERS".to_owned()) };
    let answers = fs::File::options().create(true).append(true).open(answers).map_err(|e| format!("{answers}: {e}"))?;
    let mut command = Command::new(SPECRUN);
    command.args(options).arg("--").arg(self::program()).args(["--timed", program]).current_dir(root).stdout(answers);
    let status = command.status().map_err(|e| format!("specrun: {e}"))?;
    Ok(format!("ended {}", status.code().unwrap_or(-1)))
}

/// A worker that a test tells what to do. It is killed when this is dropped.
pub struct Worker {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

/// How a worker, or its job, ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub code: Option<i32>,
    /// What was said on standard error.
    pub stderr: String,
}

impl Worker {
    /// Starts one in a directory, in no job.
    pub fn start(dir: &Path) -> Worker {
        Self::start_with(&Memory::Ample, dir)
    }

    /// The same with so much memory.
    pub fn start_with(memory: &Memory, dir: &Path) -> Worker {
        Self::run(memory.command(program()), dir)
    }

    /// Starts one in a directory of a mount, in a job with these options of `specrun`.
    pub fn start_in_job(dir: &Path, options: &[&str]) -> Worker {
        Self::start_in_job_with(&Memory::Ample, dir, options)
    }

    /// The same with so much memory.
    pub fn start_in_job_with(memory: &Memory, dir: &Path, options: &[&str]) -> Worker {
        Self::start_in_job_among(memory, dir, options, &[])
    }

    /// The same with this in its environment.
    pub fn start_in_job_among(
        memory: &Memory,
        dir: &Path,
        options: &[&str],
        environment: &[(&'static str, PathBuf)],
    ) -> Worker {
        let mut specrun = memory.command(SPECRUN);
        specrun.args(options).arg("--").arg(program()).envs(environment.iter().map(|(name, value)| (name, value)));
        Self::run(specrun, dir)
    }

    fn run(mut command: Command, dir: &Path) -> Worker {
        command.current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}; build the workspace first"));
        let (to, from) = (child.stdin.take(), child.stdout.take().expect("its output"));
        let mut worker = Worker { child, to, from: BufReader::new(from) };
        match worker.answer() {
            Some(said) if said == READY => worker,
            said => panic!("{command:?} says {said:?}: {:?}", worker.end()),
        }
    }

    /// The process: `specrun` for one in a job.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it: `specrun` for one in a job.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill it");
    }

    /// Tells it to do something, without waiting for the answer.
    pub fn say(&mut self, line: &str) {
        // One that has ended hears nothing any more, as its missing answer shows.
        let _ = self.to.as_mut().map(|to| writeln!(to, "{line}"));
    }

    /// The next answer; nothing if it has ended.
    pub fn answer(&mut self) -> Option<String> {
        if self.from.buffer().is_empty() {
            let mut waited_for = [PollFd::new(self.from.get_ref().as_fd(), PollFlags::POLLIN)];
            let limit = PollTimeout::try_from(ANSWER_TIME_MAX).expect("it fits");
            let ready = poll(&mut waited_for, limit).expect("wait for its answer");
            assert!(ready > 0, "no answer from process {} in {ANSWER_TIME_MAX:?}", self.child.id());
        }
        let mut said = String::new();
        self.from.read_line(&mut said).expect("read its answer");
        said.strip_suffix('\n').map(str::to_owned)
    }

    /// Tells it to do something, and waits for the answer.
    pub fn ask(&mut self, line: &str) -> Option<String> {
        self.say(line);
        self.answer()
    }

    /// Begins a job within its job, which does what comes from then on.
    pub fn begin_inner(&mut self, options: &[&str]) -> Result<(), String> {
        match self.ask(&format!("inner {}", options.join(" "))) {
            Some(said) if said == READY => Ok(()),
            said => Err(format!("a job within a job says {said:?}")),
        }
    }

    /// Ends it, or the job within its job, whose exit status is the answer.
    pub fn end_inner(&mut self, code: u8) -> Option<String> {
        self.ask(&format!("exit {code}"))
    }

    /// Lets it exit with this code, and waits until it, or its job, has ended.
    pub fn exit(mut self, code: u8) -> Ended {
        self.say(&format!("exit {code}"));
        self.end()
    }

    /// Waits until it has ended.
    pub fn end(&mut self) -> Ended {
        self.to = None;
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        let status = loop {
            match self.child.try_wait().expect("wait for it") {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "process {} does not end", self.child.id()),
            }
            std::thread::sleep(PAUSE);
        };
        let mut stderr = String::new();
        let mut from = self.child.stderr.take().expect("it is asked once how it ended");
        from.read_to_string(&mut stderr).expect("what it said");
        Ended { code: status.code(), stderr }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
