//! What processes did, as far as it was not taken back: from what they wrote down on the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One step: what was done, when, and what it was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Did {
    /// The line of the program, its `%` filled in.
    pub(super) what: String,
    /// Nanoseconds of the clock that never jumps.
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) answer: String,
}

/// What counts of a file of answers: one who goes back does its steps again, and what came after is void.
pub(super) fn read(answers: &Path, program: &[String]) -> Vec<Did> {
    let text = fs::read_to_string(answers).unwrap_or_default();
    let mut steps: BTreeMap<usize, Did> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(at), Some(start), Some(end)) = (number(), number(), number()) else { continue };
        let at = at as usize;
        steps.split_off(&at);
        let Some(line) = at.checked_sub(1).and_then(|at| program.get(at)) else { continue };
        let what = line.replace('%', &start.to_string());
        steps.insert(at, Did { what, start, end, answer: words.next().unwrap_or_default().to_owned() });
    }
    steps.into_values().collect()
}

impl Did {
    fn words(&self) -> Vec<&str> {
        self.what.split(' ').filter(|word| *word != "child").collect()
    }

    /// The file whose lines were read, and they.
    pub(super) fn lines(&self) -> Option<(&str, Vec<&str>)> {
        match self.words()[..] {
            ["lines", file] => Some((file, lines(&self.answer)?)),
            _ => None,
        }
    }

    /// The directory that was listed, and the names in it.
    pub(super) fn listed(&self) -> Option<(&str, Vec<&str>)> {
        match self.words()[..] {
            ["list", dir] => {
                let names = self.answer.strip_prefix('[')?.strip_suffix(']')?;
                Some((dir, names.split(' ').filter(|name| !name.is_empty()).collect()))
            }
            _ => None,
        }
    }

    fn succeeded(&self) -> bool {
        !self.answer.starts_with('E')
    }

    /// A line that was appended to a file.
    pub(super) fn added(&self) -> Option<(&str, &str)> {
        match self.words()[..] {
            ["add-line", file, line] if self.succeeded() => Some((file, line)),
            _ => None,
        }
    }

    /// A line that took the place of what was in a file.
    pub(super) fn put(&self) -> Option<(&str, &str)> {
        match self.words()[..] {
            ["put-line", file, line] if self.succeeded() => Some((file, line)),
            _ => None,
        }
    }

    /// A name that was made: its directory, and the name.
    pub(super) fn made(&self) -> Option<(&str, &str)> {
        match self.words()[..] {
            ["put-line", path, _] | ["link", _, path] if self.succeeded() => path.split_once('/'),
            _ => None,
        }
    }

    /// A name that was removed.
    pub(super) fn removed(&self) -> Option<(&str, &str)> {
        match self.words()[..] {
            ["unlink", path] if self.succeeded() => path.split_once('/'),
            _ => None,
        }
    }
}

/// The lines of a file, as they are answered; nothing if it was not there.
pub(super) fn lines(answer: &str) -> Option<Vec<&str>> {
    let lines = answer.strip_prefix('=')?;
    Some(lines.split(',').filter(|line| !line.is_empty()).collect())
}
