//! What is done in turns, a line each. A job is named by its place among those that work at the time, counted round, so that a
//! line means something whatever was left out before it.
//!
//! | line | what it says |
//! | --- | --- |
//! | `flat`, `nested`, `committed` | the first line: what there is in this program, see [`Histories`] |
//! | `begin 3` | a job begins, inside of the one at place 3, or of none if there are too few |
//! | `do 3 OP…` | the job at place 3 does it, as [`mojavefs_nets::op`] has it |
//! | `trunk OP…` | a process in no job does it |
//! | `vote 3`, `fail 3`, `kill 3` | the job at place 3 ends well, by a signal, or its outermost one is killed |

use mojavefs_nets::op::{How, Op};
use mojavefs_nets::random::Random;
use std::fmt;
use std::str::FromStr;

/// Directories that are there at first, and stay.
pub(super) const DIRS: usize = 3;
/// Names in each.
const NAMES: usize = 5;
const STEPS: usize = 400;
/// As many as can be at work at the end.
const ENDS: usize = super::running::JOBS_MAX;
/// Large files lie in content files, small ones in records.
const LARGE: u32 = 24_000;
const SMALL: u32 = 9;

/// What there is in one program. Where jobs go back to reads, what is inside of those that fail can't be foretold: one of which
/// only a part falls is given up a moment later, and who comes to depend on it in between falls with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Histories {
    /// Jobs that can go back to reads, none inside of another.
    Flat,
    /// Jobs inside of jobs that go back to their start.
    Nested,
    /// Jobs inside of jobs that can go back to reads, and all are committed.
    Committed,
}

impl Histories {
    const ALL: [(&str, Histories); 3] =
        [("flat", Histories::Flat), ("nested", Histories::Nested), ("committed", Histories::Committed)];

    /// The options of `specrun`.
    pub(super) fn options(self) -> &'static [&'static str] {
        match self {
            Histories::Nested => &["--retries", "0", "--quiet", "--from-start"],
            Histories::Flat | Histories::Committed => &["--retries", "0", "--quiet"],
        }
    }

    /// Whether there are jobs inside of jobs.
    pub(super) fn nest(self) -> bool {
        self != Histories::Flat
    }

    fn fail(self) -> bool {
        self != Histories::Committed
    }
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Kind(Histories),
    Begin(usize),
    Do(usize, Op),
    Trunk(Op),
    Vote(usize),
    Fail(usize),
    Kill(usize),
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Kind(kind) => {
                f.write_str(Histories::ALL.iter().find(|(_, other)| other == kind).map_or("", |(word, _)| word))
            }
            Line::Begin(place) => write!(f, "begin {place}"),
            Line::Do(place, op) => write!(f, "do {place} {op}"),
            Line::Trunk(op) => write!(f, "trunk {op}"),
            Line::Vote(place) => write!(f, "vote {place}"),
            Line::Fail(place) => write!(f, "fail {place}"),
            Line::Kill(place) => write!(f, "kill {place}"),
        }
    }
}

impl FromStr for Line {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if let Some((_, kind)) = Histories::ALL.iter().find(|(other, _)| *other == word) {
            return Ok(Line::Kind(*kind));
        }
        let place = |text: &str| text.parse::<usize>().map_err(|e| format!("`{line}`: {e}"));
        match word {
            "trunk" => rest.parse().map(Line::Trunk),
            "do" => {
                let (number, op) = rest.split_once(' ').ok_or_else(|| format!("`{line}` does nothing"))?;
                Ok(Line::Do(place(number)?, op.parse()?))
            }
            "begin" => place(rest).map(Line::Begin),
            "vote" => place(rest).map(Line::Vote),
            "fail" => place(rest).map(Line::Fail),
            "kill" => place(rest).map(Line::Kill),
            _ => Err(format!("`{line}` begins with no word that is known")),
        }
    }
}

/// The program of a seed.
pub(super) fn program(seed: u64) -> Vec<Line> {
    let kind = Histories::ALL[(seed % 3) as usize].1;
    let mut random = Random(seed);
    let mut lines = vec![Line::Kind(kind)];
    lines.extend((0..STEPS).map(|step| line(&mut random, kind, step as u32)));
    lines.extend((0..ENDS).map(|_| match random.one_in(2) || !kind.fail() {
        true => Line::Vote(0),
        false => Line::Fail(0),
    }));
    lines
}

fn line(random: &mut Random, kind: Histories, step: u32) -> Line {
    // More than ever work at a time.
    let place = random.below(1 << 16);
    match random.below(20) {
        0..2 => Line::Begin(place),
        2 => Line::Vote(place),
        3 if kind.fail() && random.one_in(2) => Line::Fail(place),
        4 if kind.fail() && random.one_in(3) => Line::Kill(place),
        // What it changes can make jobs fail.
        5 if kind.fail() => Line::Trunk(op(random, step)),
        5 => Line::Trunk(Op::Cat { path: path(random) }),
        _ => Line::Do(place, op(random, step)),
    }
}

fn path(random: &mut Random) -> String {
    format!("{}/{}", random.below(DIRS), random.below(NAMES))
}

fn op(random: &mut Random, step: u32) -> Op {
    let path = path(random);
    let (fill, length) = (step + 1, if random.one_in(4) { LARGE + step } else { SMALL + step % 50 });
    match random.below(12) {
        0..3 => Op::Cat { path },
        3 => Op::Stat { path },
        4 => Op::List { path: random.below(DIRS).to_string() },
        5..8 => Op::Put { path, fill, length },
        8 if random.one_in(2) => Op::Add { path, fill, length },
        // Makes no file.
        8 => Op::AddLine { path, text: fill.to_string() },
        9 => Op::Unlink { path },
        _ => Op::Rename { path, to: self::path(random), how: How::Plain },
    }
}
