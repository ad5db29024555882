//! Locks on files (`flock`, `fcntl`), as they are asked for.

use serde::{Deserialize, Serialize};

/// Locks of one class know nothing of those of the other, as on any filesystem of Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LockClass {
    /// `flock`: of whole files, held by an open file.
    Whole,
    /// `fcntl`: of parts of files, held by a process (`F_SETLK`) or an open file (`F_OFD_SETLK`).
    Range,
    /// A program that runs holds its file shared, and who opens a file to write to it excludes that for a moment: nobody asks for these
    /// by a call of their own.
    Program,
}

/// What a lock lets others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LockMode {
    /// Share it.
    Shared,
    /// Nothing.
    Exclusive,
}

/// A part of a file: its first byte, and its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub first: u64,
    /// The last byte; `u64::MAX` or `i64::MAX` for whatever the file will have.
    pub last: u64,
}

/// Who asks for a lock, or has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockOwner {
    /// The class.
    pub class: LockClass,
    /// What a kernel calls the owner: the same number of the same view is the same owner.
    pub number: u64,
}

/// A lock that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LockAsked {
    /// For whom.
    pub owner: LockOwner,
    /// Through which open file.
    pub handle: u64,
    /// By which process, as the view's kernel numbers it.
    pub pid: u32,
    /// Of what.
    pub span: Span,
    /// What kind; nothing to let go of it.
    pub mode: Option<LockMode>,
}

/// A lock that somebody has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockHeld {
    /// Of what.
    pub span: Span,
    /// What kind.
    pub mode: LockMode,
    /// Which process has taken it; 0 if it is none that the asking view's kernel can know.
    pub pid: u32,
    /// It is in the view that asks.
    pub is_here: bool,
}

/// Whose locks on a file are let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unlocked {
    /// Those of an owner, which has closed the file.
    Owner(LockOwner),
    /// Those that were taken through an open file, which nobody has open any more.
    Handle(u64),
}

impl Span {
    /// All of a file.
    pub const ALL: Span = Span { first: 0, last: u64::MAX };

    /// Whether two have a byte in common.
    pub fn overlaps(self, other: Span) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// What is left of this before and behind another.
    pub fn without(self, other: Span) -> impl Iterator<Item = Span> {
        if !self.overlaps(other) {
            return [Some(self), None].into_iter().flatten();
        }
        let before = (self.first < other.first).then(|| Span { first: self.first, last: other.first - 1 });
        let behind = (self.last > other.last).then(|| Span { first: other.last + 1, last: self.last });
        [before, behind].into_iter().flatten()
    }
}

impl LockMode {
    /// Whether two owners can't have these of the same bytes.
    pub fn excludes(self, other: LockMode) -> bool {
        self == LockMode::Exclusive || other == LockMode::Exclusive
    }
}
