//! A job over a directory of the host, and somebody who changes the same directory at the worst moments: while the job runs, while it is
//! held, between the comparison and the record of the decision, between that and the apply, before and after each call of the apply.
//! At any of these the daemon may be killed, or the power cut. A plain model ([`model`], [`meeting`]) says what is a conflict, and
//! [`judge`] what may be there in the end: everything is in its old state, in its new one, in that which others have given it, or put aside;
//! nothing is lost, and nothing is mixed.

pub mod judge;
pub mod meeting;
pub mod model;
mod outcome;
mod programs;
mod real;
mod run;
mod watch;

pub use programs::{EVERYTHING, disturb, parse, program};
pub use run::{Ended, on, run};

use crate::words::{lines, words};
use model::{Change, Kind};
use std::fmt;
use std::str::FromStr;

/// A moment in the life of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It has done everything and has not ended.
    Running,
    /// It is held.
    Held,
    /// The host was compared, and the decision is about to be recorded.
    Prepare,
    /// It is on disk, and nothing was applied.
    Recorded,
    /// Before, or after, the call of the apply with this number.
    Before(usize),
    /// See [`When::Before`].
    After(usize),
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            When::Running => f.write_str("running"),
            When::Held => f.write_str("held"),
            When::Prepare => f.write_str("prepare"),
            When::Recorded => f.write_str("recorded"),
            When::Before(call) => write!(f, "before-{call}"),
            When::After(call) => write!(f, "after-{call}"),
        }
    }
}

impl FromStr for When {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let call = |number: &str| number.parse().map_err(|error| format!("`{number}`: {error}"));
        Ok(match word {
            "running" => When::Running,
            "held" => When::Held,
            "prepare" => When::Prepare,
            "recorded" => When::Recorded,
            word => match (word.strip_prefix("before-"), word.strip_prefix("after-")) {
                (Some(number), _) => When::Before(call(number)?),
                (_, Some(number)) => When::After(call(number)?),
                _ => return Err(format!("`{word}` is no moment")),
            },
        })
    }
}

words! {
    /// How the job runs.
    pub enum Mode {
        /// It is committed when it ends well.
        Plain "plain",
        /// The same, isolated from others.
        Apart "apart",
        /// It is held, and committed later.
        Hold "hold",
        /// The same, and the daemon is killed in between.
        HoldAgain "hold-again",
    }
}

words! {
    /// What becomes of a job that is in conflict.
    pub enum Decision {
        /// It is aborted.
        Abort "abort",
        /// It is committed, and its changes stand.
        Ours "ours",
        /// It is committed, and those of others stand.
        Theirs "theirs",
    }
}

lines! {
    /// A line of a program.
    pub enum Line {
        /// What is there at first.
        Was "was" { kind: Kind, path: String, with: String },
        Mode "mode" { mode: Mode },
        Job "job" { kind: Kind, path: String, with: String },
        /// Somebody else makes a change.
        Host "host" { when: When, kind: Kind, path: String, with: String },
        /// The daemon is killed.
        Kill "kill" { when: When },
        /// The power of the disk is cut.
        Cut "cut" { when: When },
        InConflict "in-conflict" { decision: Decision },
    }
}

impl Line {
    /// A change, as one of these lines.
    fn change(&self) -> Option<Change> {
        match self {
            Line::Was { kind, path, with } | Line::Job { kind, path, with } | Line::Host { kind, path, with, .. } => {
                Some(Change { kind: *kind, path: path.clone(), with: with.clone() })
            }
            _ => None,
        }
    }
}
