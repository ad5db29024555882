//! A job that looks at what others have not committed, goes back to the read when they fail, and goes on: several times, with
//! files that it has adopted from them. What it is answered in the end is what it would be answered natively if those who
//! failed had done nothing.
//!
//! Others come one after the other, each in a directory of its own (`o0`, `o1`, …) that nobody has changed before it.

use crate::generate::{BYTES, Generator};
use crate::memory::Memory;
use crate::net::Failure;
use crate::op::{Mode, Op, Step};
use crate::scene::{End, Reads, pressure};
use crate::tree::{Times, walk};
use crate::words::{lines, words};
use crate::worker::Worker;
use mojavefs_harness::Mount;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

words! {
    /// Who another is.
    pub enum Who {
        /// A job.
        Job "job",
        /// An ordinary process, whose changes are final at once.
        Process "process",
    }
}

lines! {
    /// Whose turn it is.
    pub enum Turn {
        /// The first line: how the job reads, and how it ends.
        Start "start" { reads: Reads, end: End },
        /// The next one of the others begins; the steps that follow are its own.
        Other "other" { who: Who, end: End },
        /// The steps that follow are the job's.
        Mine "mine" { },
        /// The other ends.
        Decide "decide" { },
        /// The kernel drops its caches; the store reclaims.
        Pressure "pressure" { },
    }
}

/// A line of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Somebody else's turn, from here on.
    Turn(Turn),
    /// What that one does.
    Step(Step),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Turn(turn) => write!(f, "{turn}"),
            Line::Step(step) => write!(f, "{step}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let step = || line.parse().map(Line::Step);
        line.parse().map(Line::Turn).or_else(|turn| step().map_err(|step| format!("{turn}; {step}")))
    }
}

/// How many others come at most.
const OTHERS: usize = 5;
const STEPS_MAX: usize = 7;
const FILES: [(&str, u32); 3] = [("a", 20), ("b", 70_000), ("c", 5000)];

/// The program of a seed.
pub fn program(seed: u64) -> Vec<Line> {
    let mut mine = Generator::of_few_files(seed);
    mine.roots = vec!["m".to_owned()];
    let reads = mine.random.weighted(&[(8, Reads::Join), (1, Reads::FromStart), (1, Reads::Committed)]);
    let end = mine.random.weighted(&[(3, End::Commit), (1, End::Fail)]);
    let mut lines = vec![Line::Turn(Turn::Start { reads, end })];
    for number in 0..2 + mine.random.below(OTHERS - 1) {
        let dir = format!("o{number}");
        my_steps(&mut mine, &mut lines, &dir);
        let end = mine.random.weighted(&[(1, End::Commit), (3, End::Fail)]);
        let who = if end == End::Commit { mine.random.of(Who::ALL) } else { Who::Job };
        lines.push(Line::Turn(Turn::Other { who, end }));
        let mut other = Generator::of_few_files(mine.random.number());
        FILES.iter().for_each(|(name, _)| other.guess.is_there(*name));
        lines.extend((0..1 + mine.random.below(STEPS_MAX)).map(|_| Line::Step(other.step(BYTES))));
        lines.push(Line::Turn(Turn::Mine {}));
        let before = mine.guess.clone();
        // Who does not see another's work, and changes the same, is in conflict.
        if reads != Reads::Committed {
            mine.roots.push(dir.clone());
            FILES.iter().for_each(|(name, _)| mine.guess.is_there(format!("{dir}/{name}")));
        }
        my_steps(&mut mine, &mut lines, &dir);
        lines.push(Line::Turn(Turn::Decide {}));
        if end == End::Fail {
            mine.guess = before;
        }
    }
    my_steps(&mut mine, &mut lines, "m");
    lines
}

/// Some steps of the job's; among them looks at a directory.
fn my_steps(mine: &mut Generator, lines: &mut Vec<Line>, dir: &str) {
    for _ in 0..1 + mine.random.below(STEPS_MAX) {
        let step = match mine.random.below(10) {
            0..4 => mine.look(dir, &FILES.map(|(name, _)| name)),
            4 => Op::Walk { path: "/".to_owned() }.into(),
            _ => mine.step(BYTES),
        };
        lines.push(Line::Step(step));
        if mine.random.one_in(12) {
            lines.push(Line::Turn(Turn::Pressure {}));
        }
    }
}

/// What is there at first.
fn preparation() -> Vec<Step> {
    let dirs = std::iter::once("m".to_owned()).chain((0..OTHERS).map(|number| format!("o{number}")));
    let mut fill = 1_000_000;
    let steps = dirs.flat_map(|dir| {
        let make = |path: String| Op::Mkdir { path, mode: Mode(0o755) };
        let files = FILES.map(|(name, length)| {
            fill += 1;
            Op::Put { path: format!("{dir}/{name}"), fill, length }
        });
        [make(dir.clone()), make(format!("{dir}/d"))].into_iter().chain(files).map(Step::from).collect::<Vec<_>>()
    });
    steps.collect()
}

/// Who did a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doer {
    Job,
    Other(usize),
}

/// A step that was done, and what was answered; nothing where that can't be foretold.
#[derive(Clone, Debug)]
struct Event {
    doer: Doer,
    step: Step,
    said: Option<String>,
}

/// What is answered natively, and the tree that is left.
fn natively(dir: &Path, events: &[Event]) -> (Vec<String>, Vec<String>) {
    fs::create_dir(dir).expect("a directory for the native run");
    let ask = |worker: &mut Worker, step: &Step| worker.ask(&step.to_string()).expect("a native worker answers");
    let mut prepares = Worker::start(dir);
    preparation().iter().for_each(|step| drop(ask(&mut prepares, step)));
    let (mut job, mut other) = (Worker::start(dir), None);
    let mut answers = Vec::new();
    for event in events {
        let worker = match event.doer {
            Doer::Job => &mut job,
            Doer::Other(number) => match &mut other {
                Some((of, worker)) if *of == number => worker,
                other => &mut other.insert((number, Worker::start(&dir.join(format!("o{number}"))))).1,
            },
        };
        answers.push(ask(worker, &event.step));
    }
    // What was written through mappings is in the files when nobody maps them any more.
    drop((job, other));
    let tree = walk(dir, Times::Set);
    fs::remove_dir_all(dir).expect("remove the native run");
    (answers, tree)
}

struct Other {
    number: usize,
    worker: Worker,
    who: Who,
    end: End,
    done: Vec<Event>,
}

struct Falls<'a> {
    mount: &'a Mount,
    memory: &'a Memory,
    job: Worker,
    reads: Reads,
    /// What was done so far by those who have not failed, in an order that gives the same answers.
    events: Vec<Event>,
    other: Option<Other>,
    others: usize,
    others_turn: bool,
    replays: usize,
}

/// Runs a program on a mount that has nothing in it. Those that work on it have this much memory.
pub fn run_on(mount: &Mount, memory: &Memory, program: &[Line]) -> Result<(), Failure> {
    let mut prepares = Worker::start(&mount.path());
    for step in preparation() {
        prepares.ask(&step.to_string()).ok_or_else(|| Failure::new("preparation", step.to_string()))?;
    }
    drop(prepares);
    let (reads, end) = match program.first() {
        Some(Line::Turn(Turn::Start { reads, end })) => (*reads, *end),
        _ => (Reads::Join, End::Commit),
    };
    let options = [reads.options(), &["--retries", "100"]].concat();
    let job = Worker::start_in_job_with(memory, &mount.path(), &options);
    let (events, other) = (Vec::new(), None);
    let mut falls = Falls { mount, memory, job, reads, events, other, others: 0, others_turn: false, replays: 0 };
    for line in program {
        falls.line(line)?;
    }
    falls.end(end)
}

impl Falls<'_> {
    fn line(&mut self, line: &Line) -> Result<(), Failure> {
        match line {
            Line::Step(step) if self.others_turn => self.others_step(step),
            Line::Step(step) => self.my_step(step),
            Line::Turn(Turn::Start { .. }) => Ok(()),
            Line::Turn(Turn::Other { .. }) if self.others == OTHERS => Ok(()),
            Line::Turn(Turn::Other { who, end }) => {
                self.decide()?;
                let dir = self.mount.at(format!("o{}", self.others));
                let worker = match who {
                    Who::Job => Worker::start_in_job_with(self.memory, &dir, &["--retries", "0"]),
                    Who::Process => Worker::start_with(self.memory, &dir),
                };
                self.other = Some(Other { number: self.others, worker, who: *who, end: *end, done: Vec::new() });
                self.others += 1;
                self.others_turn = true;
                Ok(())
            }
            Line::Turn(Turn::Mine {}) => {
                self.others_turn = false;
                self.check()
            }
            Line::Turn(Turn::Decide {}) => self.decide(),
            Line::Turn(Turn::Pressure {}) => pressure(self.mount),
        }
    }

    fn others_step(&mut self, step: &Step) -> Result<(), Failure> {
        let Some(other) = &mut self.other else { return Ok(()) };
        let said = other.worker.ask(&step.to_string());
        let event = Event { doer: Doer::Other(other.number), step: step.clone(), said: Some(said.unwrap_or_default()) };
        other.done.push(event.clone());
        if self.reads != Reads::Committed || other.who == Who::Process {
            self.events.push(event);
        }
        Ok(())
    }

    fn my_step(&mut self, step: &Step) -> Result<(), Failure> {
        let number = self.mine().len();
        self.events.push(Event { doer: Doer::Job, step: step.clone(), said: None });
        self.job.say(&format!("{number} {step}"));
        match self.job_says()? {
            Some((answered, said)) if answered == number => {
                self.events.last_mut().expect("the step").said = Some(said);
                Ok(())
            }
            said => Err(Failure::new("answers", format!("to step {number}, {step}, the job says {said:?}"))),
        }
    }

    /// The number of the step that it answers, and the answer; nothing if it is at its start again.
    fn job_says(&mut self) -> Result<Option<(usize, String)>, Failure> {
        let Some(said) = self.job.answer() else {
            return Err(Failure::new("job ended", format!("the job has ended: {:?}", self.job.end())));
        };
        if said == crate::worker::READY {
            return Ok(None);
        }
        let numbered = said.split_once(' ').and_then(|(number, said)| Some((number.parse().ok()?, said.to_owned())));
        numbered.map(Some).ok_or_else(|| Failure::new("answers", format!("the job says {said:?}")))
    }

    /// Where the job's steps are among the events.
    fn mine(&self) -> Vec<usize> {
        (0..self.events.len()).filter(|at| self.events[*at].doer == Doer::Job).collect()
    }

    fn depends(&self) -> bool {
        let mine = self.mount.status().into_iter().find(|status| status["pid"] == self.job.pid());
        mine.is_some_and(|status| status["depends_on"].as_array().is_some_and(|on| !on.is_empty()))
    }

    fn decide(&mut self) -> Result<(), Failure> {
        self.others_turn = false;
        let Some(mut other) = self.other.take() else { return Ok(()) };
        let depends = self.depends();
        let code = match other.end {
            End::Commit => 0,
            End::Fail => 128 + nix::libc::SIGTERM,
        };
        other.worker.say(if other.end == End::Commit { "exit 0" } else { "die" });
        let ended = other.worker.end();
        if ended.code != Some(code) {
            return Err(Failure::new("exit status", format!("another must end with {code}: {ended:?}")));
        }
        match other.end {
            End::Commit if self.reads == Reads::Committed && other.who == Who::Job => self.events.extend(other.done),
            End::Commit => {}
            End::Fail => {
                self.events.retain(|event| event.doer != Doer::Other(other.number));
                if depends {
                    self.go_back()?;
                }
            }
        }
        self.check()
    }

    /// The job makes the call again by which it looked at what has failed, and does again what came after it.
    fn go_back(&mut self) -> Result<(), Failure> {
        let answer = self.job_says()?;
        let first = answer.as_ref().map_or(0, |(number, _)| *number);
        let mine = self.mine();
        let Some(at) = mine.get(first).copied() else {
            return Err(Failure::new(
                "answers",
                format!("the job answers {answer:?}; it has done {} steps", mine.len()),
            ));
        };
        // Who has committed since then has done so before that call is made again.
        let (later, again): (Vec<_>, Vec<_>) =
            self.events.split_off(at).into_iter().partition(|event| event.doer != Doer::Job);
        let is_mixed = !later.is_empty() && answer.is_some();
        self.events.extend(later);
        let mut again = again.into_iter();
        if let Some((_, said)) = answer {
            let event = again.next().expect("the step that it answers");
            // A walk that began before and went on afterwards has seen some of both.
            let foretold = !(is_mixed && matches!(event.step.op, Op::Walk { .. }));
            self.events.push(Event { said: foretold.then_some(said), ..event });
        }
        again.try_for_each(|event| self.my_step(&event.step))
    }

    fn beside(&mut self) -> std::path::PathBuf {
        self.replays += 1;
        self.mount.beside(&format!("native-{}", self.replays))
    }

    fn check(&mut self) -> Result<(), Failure> {
        let dir = self.beside();
        let (wanted, _) = natively(&dir, &self.events);
        let differs =
            |(_, (event, wanted)): &(usize, (&Event, String))| event.said.as_ref().is_some_and(|s| s != wanted);
        let found = self.events.iter().zip(wanted).enumerate().find(differs);
        let Some((at, (event, wanted))) = found else { return Ok(()) };
        let before: String =
            self.events[..at].iter().map(|event| format!("  {:?}: {}\n", event.doer, event.step)).collect();
        let said = event.said.clone().unwrap_or_default();
        Err(Failure::new(
            format!("{:?} {}", matches!(event.doer, Doer::Job), event.step.op.word()),
            format!(
                "{:?}: {}\n  {}\nas if only this had been done before:\n{before}",
                event.doer,
                event.step,
                crate::beside::difference(&said, &wanted)
            ),
        ))
    }

    fn end(mut self, end: End) -> Result<(), Failure> {
        self.decide()?;
        let code = i32::from(end == End::Fail);
        self.job.say(&format!("exit {code}"));
        let ended = self.job.end();
        if ended.code != Some(code) {
            return Err(Failure::new("exit status", format!("the job must end with {code}: {ended:?}")));
        }
        if end == End::Fail {
            self.events.retain(|event| event.doer != Doer::Job);
        }
        let dir = self.beside();
        let (_, wanted) = natively(&dir, &self.events);
        let found = walk(&self.mount.path(), Times::Set);
        match found == wanted {
            true => Ok(()),
            false => {
                let what = crate::beside::difference(&found.join("; "), &wanted.join("; "));
                Err(Failure::new("left", format!("what is left at the end differs\n  {what}\n{}", ended.stderr)))
            }
        }
    }
}
