//! What jobs at work at the same time do: lines, each with the number of a job.
//!
//! | line | what it says |
//! | --- | --- |
//! | `0 served` | two mounts of one server, not one mount with a server of its own |
//! | `0 remounted` | what is held is decided once all jobs have ended and the mount was unmounted and mounted again |
//! | `0 peaceful` | nobody fails, and nobody is in conflict: nobody may be undone |
//! | `3 begin 40 0 OPTION…` | job 3 begins after 40 ms, on mount 0, with these options of `specrun`; `trunk`: in no job |
//! | `3 own 2` | it is a further owner of job 2 |
//! | `3 do OP…` | what its process does, as [`mojavefs_nets::op`] has it; `%` is a number that never comes again |
//! | `3 pause 20` | it waits for 20 ms |
//! | `3 inner 31 OPTION…` | it runs job 31 inside, and waits for it |
//! | `3 exit 1` | how it exits, otherwise with 0 |
//! | `3 then abort 50` | it is held, and decided so after 50 ms |

use mojavefs_nets::random::Random;
use std::fmt;
use std::str::FromStr;

/// Files that lines are appended to, and nothing else happens to.
pub(super) const LOGS: usize = 3;
/// Files that are overwritten.
pub(super) const REGISTERS: usize = 3;
/// Files that are there at first, and may be removed.
pub(super) const VICTIMS: usize = 6;
/// What is in a file at first.
pub(super) const FIRST: &str = "0.first";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) job: u8,
    pub(super) word: String,
    pub(super) rest: String,
}

impl Line {
    fn new(job: u8, word: &str, rest: impl fmt::Display) -> Self {
        Line { job, word: word.to_owned(), rest: rest.to_string() }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.job, self.word, self.rest)
    }
}

impl FromStr for Line {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let (job, text) = line.split_once(' ').ok_or_else(|| format!("`{line}` has no number of a job"))?;
        let job = job.parse().map_err(|e| format!("`{line}`: {e}"))?;
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        Ok(Line::new(job, word, rest.trim()))
    }
}

struct Maker {
    random: Random,
    peaceful: bool,
    /// Most jobs see nobody else's work, and all append to one log: conflicts.
    crowded: bool,
    served: bool,
    /// Nobody waits for anybody else's decision.
    remounted: bool,
    lines: Vec<Line>,
    steps: usize,
    /// When each job begins, in milliseconds.
    begins: Vec<usize>,
}

/// The program of a seed.
pub(super) fn program(seed: u64) -> Vec<Line> {
    let mut random = Random(seed);
    let (peaceful, crowded, served) = (seed % 3 == 1, seed % 3 == 2, random.one_in(3));
    let remounted = seed % 6 == 5 && !served;
    let mut maker =
        Maker { random, peaceful, crowded, served, remounted, lines: Vec::new(), steps: 0, begins: Vec::new() };
    if served {
        maker.lines.push(Line::new(0, "served", ""));
    }
    if remounted {
        maker.lines.push(Line::new(0, "remounted", ""));
    }
    if peaceful {
        maker.lines.push(Line::new(0, "peaceful", ""));
    }
    let jobs = 3 + maker.random.below(6) as u8;
    (1..=jobs).for_each(|job| maker.job(job));
    maker.lines
}

impl Maker {
    fn add(&mut self, job: u8, word: &str, rest: impl fmt::Display) {
        self.lines.push(Line::new(job, word, rest));
    }

    fn job(&mut self, job: u8) {
        let mount = self.random.below(1 + usize::from(self.served));
        let options = self.options(job);
        let may_own = !self.peaceful && !self.remounted && job > 1 && !options.contains("trunk");
        let owned = (may_own && self.random.one_in(4)).then(|| 1 + self.random.below(usize::from(job) - 1));
        // One that is there, and goes on for a while, can be owned.
        let delay = self.random.below(60) + owned.map_or(0, |owned| self.begins[owned - 1]);
        self.begins.push(delay);
        self.add(job, "begin", format!("{delay} {mount} {options}"));
        if let Some(owned) = owned {
            self.add(job, "own", owned);
        }
        let mut inner = job * 10;
        for _ in 0..2 + self.random.below(7) {
            if options != "trunk" && self.random.one_in(8) && job < 20 {
                inner += 1;
                self.inner(job, inner);
            } else {
                self.step(job);
            }
        }
        if options.contains("--hold") {
            let how = if self.random.one_in(2) { "commit" } else { "abort" };
            let delay = self.random.below(80);
            self.add(job, "then", format!("{how} {delay}"));
        } else if !self.peaceful && options != "trunk" && self.random.one_in(if owned.is_some() { 2 } else { 4 }) {
            let code = 1 + self.random.below(3);
            self.add(job, "exit", code);
        }
    }

    fn inner(&mut self, job: u8, inner: u8) {
        let modes: &[(usize, &str)] = match self.peaceful {
            true => &[(3, ""), (1, "--on-read wait"), (1, "--from-start")],
            false => &[(4, ""), (1, "--on-read wait"), (1, "--from-start"), (1, "--isolate"), (1, "--retries 0")],
        };
        let modes = if self.remounted { &[(2, ""), (1, "--isolate")] } else { modes };
        let options = self.random.weighted(modes);
        self.add(job, "inner", format!("{inner} {options}"));
        for _ in 0..1 + self.random.below(4) {
            self.step(inner);
        }
        if !self.peaceful && self.random.one_in(4) {
            self.add(inner, "exit", 1);
        }
    }

    fn options(&mut self, job: u8) -> String {
        let peaceful: &[(usize, &str)] =
            &[(5, ""), (2, "--from-start"), (2, "--on-read wait"), (1, "--on-read fail"), (1, "--no-wait")];
        let others: &[(usize, &str)] = &[
            (2, "--isolate"),
            (2, "--on-read committed"),
            (2, "--hold"),
            (1, "--hold --isolate"),
            (2, "--no-wait --on-read committed"),
            (2, "--no-wait"),
        ];
        if self.peaceful {
            return format!("--retries 0 {}", self.random.weighted(peaceful)).trim().to_owned();
        }
        if job > 2 && self.random.one_in(8) {
            return "trunk".to_owned();
        }
        if self.remounted {
            return self
                .random
                .weighted(&[(3, "--hold"), (3, "--hold --isolate"), (1, "--isolate"), (1, "--no-wait")])
                .to_owned();
        }
        let apart: &[(usize, &str)] =
            &[(1, "--isolate"), (1, "--on-read committed"), (1, "--no-wait --on-read committed")];
        let modes = if self.crowded && self.random.one_in(2) { apart } else { &[peaceful, others].concat() };
        let mode = self.random.weighted(modes);
        match self.random.below(3) {
            0 => mode.to_owned(),
            retries => format!("{mode} --retries {}", retries * 4 - 4).trim().to_owned(),
        }
    }

    fn step(&mut self, job: u8) {
        self.steps += 1;
        let step = self.steps;
        let logs = if self.crowded { 1 } else { LOGS };
        let [log, register, victim] = [logs, REGISTERS, VICTIMS].map(|limit| self.random.below(limit));
        let pause = 1 + self.random.below(40);
        let what = self.random.weighted(&[
            (3, format!("do lines l{log}")),
            (5, format!("do add-line l{log} {job}.{step}.%")),
            (2, format!("do lines r{register}")),
            (2, format!("do put-line r{register} {job}.{step}.%")),
            (2, format!("do put-line n/{job}.{step}.% {job}.{step}.%")),
            (2, "do list n".to_owned()),
            (1, format!("do unlink v/{victim}")),
            (1, "do list v".to_owned()),
            (1, format!("do lines v/{victim}")),
            (1, format!("do link base h/{job}.{step}.%")),
            (1, "do list h".to_owned()),
            (1, format!("do child lines l{log}")),
            (3, format!("pause {pause}")),
        ]);
        let (word, rest) = what.split_once(' ').expect("two words");
        self.add(job, word, rest);
    }
}
