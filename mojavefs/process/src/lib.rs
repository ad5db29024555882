//! libmojave: speculate, commit and abort inside a program.
//!
//! A speculation is work on an assumption that is checked later. [`enter`] takes a checkpoint; [`commit`] keeps what was
//! done since; [`abort`] goes back: memory, stack, registers, signals, descriptors, working directory, timers and children
//! are as they were, in the same process, and `enter` returns once more. [`speculate`] is the same for a closure.
//!
//! The primitives are those of the MCC compiler (Smith, Tapus, Hickey, "The Mojave compiler", section 3) and of
//! "Distributed speculations" (Tapus), for processes of any language on a stock Linux kernel.
//!
//! ```
//! let balance = mojave::speculate(|speculation| {
//!     let balance = 100 - 30;
//!     if balance < 0 {
//!         return Err(mojave::Code::new(1).expect("not 0"));
//!     }
//!     let _ = speculation;
//!     Ok(balance)
//! });
//! assert_eq!(balance.expect("nothing failed"), 70);
//! ```

mod arena;
mod capi;
mod exec;
mod files;
mod kept;
mod level;
mod libc_exec;
mod limits;
mod maps;
mod pending;
mod places;
mod record;
mod restore;
mod share;
mod sys;
mod text;
mod vote;

pub use arena::Outcome;
use level::{Entered, Refusal};
pub use share::{NoToken, Token, barrier, own, share};
use std::io;
use std::num::NonZeroI32;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Names a speculation of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(i32);

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// The code of an abort: all that is left of what was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Code(NonZeroI32);

impl Code {
    /// What a closure is aborted with that failed with an error of its own.
    pub const FAILED: Code = Code(NonZeroI32::new(1).expect("not 0"));
    /// What a closure is aborted with that panicked.
    pub const PANICKED: Code = Code(NonZeroI32::new(101).expect("not 0"));

    /// A code; nothing unless it is more than 0.
    pub fn new(code: i32) -> Option<Code> {
        NonZeroI32::new(code).filter(|code| code.get() > 0).map(Code)
    }

    /// The number.
    pub fn get(self) -> i32 {
        self.0.get()
    }
}

/// Any error aborts, with [`Code::FAILED`]: the error itself is undone with the rest.
impl<E: std::error::Error> From<E> for Code {
    fn from(_: E) -> Self {
        Code::FAILED
    }
}

/// Why a speculation came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Aborted {
    /// It was aborted with this code; nothing it did has happened.
    #[error("the speculation was aborted with code {}", .0.get())]
    Code(Code),
    /// It could not be entered.
    #[error("cannot speculate: {0}")]
    Refused(#[from] io::Error),
}

/// Which branch an entry takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// The speculation is open.
    Commit(Id),
    /// It was aborted with this code, and is closed.
    Abort(Code),
}

/// Why a decision was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// No speculation of this process has that number, or it was decided long ago.
    #[error("there is no speculation {0}")]
    Unknown(Id),
    /// It is committed already.
    #[error("speculation {0} is committed already")]
    Committed(Id),
    /// It is aborted already.
    #[error("speculation {0} is aborted already")]
    Aborted(Id),
    /// The vote was sent, and the daemon has gone before it said what came of it.
    #[error(
        "not known whether speculation {0} was committed: the daemon has gone; see `mojavefs status` after mounting"
    )]
    InDoubt(Id),
}

fn decision_error(id: Id, refusal: Refusal) -> DecisionError {
    match refusal {
        Refusal::Decided(Outcome::Committed) => DecisionError::Committed(id),
        Refusal::Decided(_) => DecisionError::Aborted(id),
        Refusal::Doubt => DecisionError::InDoubt(id),
        Refusal::Unknown | Refusal::Code => DecisionError::Unknown(id),
    }
}

/// Enters a speculation. It returns [`Branch::Commit`] at first and after every [`retry`], and [`Branch::Abort`] after an
/// [`abort`], with everything as it was at the entry.
///
/// # Errors
/// Where something of the process can't be put back (several threads, a connected socket, memory shared with others …):
/// `Unsupported`, and the text names it. Where no process can be started for the checkpoint: `WouldBlock` or `OutOfMemory`.
pub fn enter() -> io::Result<Branch> {
    entered(level::speculate(None))
}

fn entered(returned: sys::Result<Entered>) -> io::Result<Branch> {
    match returned {
        Ok(Entered::Abort(code)) => Ok(Branch::Abort(Code::new(code).unwrap_or(Code::FAILED))),
        Ok(Entered::Commit) => match current() {
            Some(id) => Ok(Branch::Commit(id)),
            None => Err(io::Error::other("the speculation just entered is not open")),
        },
        Err(sys::Errno(errno)) => {
            let kind = io::Error::from_raw_os_error(errno).kind();
            let words = arena::existing().map(|arena| String::from_utf8_lossy(arena.words.as_bytes()).into_owned());
            let words = words.unwrap_or_default();
            Err(if words.is_empty() { io::Error::from_raw_os_error(errno) } else { io::Error::new(kind, words) })
        }
    }
}

/// Votes to commit: what was done becomes part of the speculation around it, or of the process. Speculations may be committed
/// in any order; one inside of which others are open is committed when these are, and open again if one of them is aborted.
///
/// The vote is not waited for: [`barrier`] says when what it was cast for is final. If that can't be, the process goes back to
/// the entry from wherever it is by then. The process's end waits for it.
///
/// # Errors
/// If it is aborted, or not known. Committing twice is harmless.
pub fn commit(id: Id) -> Result<(), DecisionError> {
    level::commit(id.0).map_err(|refusal| decision_error(id, refusal))
}

/// Goes back to the entry of a speculation, which returns [`Branch::Abort`]. All that were entered later are aborted, too.
///
/// Returns only if it is decided already. No destructor runs: what they would have cleaned up never was.
pub fn abort(id: Id, code: Code) -> DecisionError {
    decision_error(id, level::abort(id.0, code.get(), false, ""))
}

/// Goes back to the entry of a speculation and enters it again (the MCC compiler's `rollback`). [`retried`] tells the code.
///
/// Returns only if it is decided already.
pub fn retry(id: Id, code: Code) -> DecisionError {
    decision_error(id, level::abort(id.0, code.get(), true, ""))
}

/// The innermost open speculation.
pub fn current() -> Option<Id> {
    level::current().map(|(id, _)| Id(id))
}

/// How many speculations are open.
pub fn depth() -> usize {
    level::current().map_or(0, |(_, depth)| depth)
}

/// The code of the [`retry`] by which the innermost speculation was entered again; nothing at first.
pub fn retried() -> Option<Code> {
    Code::new(level::code())
}

/// How a speculation of this process stands; nothing if it is not known, or was decided long ago.
pub fn outcome(id: Id) -> Option<Outcome> {
    level::outcome(id.0)
}

/// A speculation, for the closure that runs in it.
#[derive(Debug)]
pub struct Speculation {
    id: Id,
}

impl Speculation {
    /// Its number.
    pub fn id(&self) -> Id {
        self.id
    }

    /// Goes back to its entry and runs the closure again.
    pub fn retry(&self, code: Code) -> DecisionError {
        retry(self.id, code)
    }

    /// The code of the retry by which the closure runs again; nothing at first.
    pub fn retried(&self) -> Option<Code> {
        retried()
    }
}

/// Runs a closure in a speculation: what it did is kept if it succeeds, and never happened if it fails or panics. Where nothing
/// is around it, it is final when this returns.
///
/// # Errors
/// [`Aborted::Code`] if it failed, [`Aborted::Refused`] if it was never run (see [`enter`]).
pub fn speculate<T>(run: impl FnOnce(&Speculation) -> Result<T, Code>) -> Result<T, Aborted> {
    let id = match enter()? {
        Branch::Commit(id) => id,
        Branch::Abort(code) => return Err(Aborted::Code(code)),
    };
    let speculation = Speculation { id };
    // A panic is undone with all that it left half done.
    let code = match catch_unwind(AssertUnwindSafe(|| run(&speculation))) {
        Ok(Ok(done)) => {
            return match commit(id) {
                Ok(()) => {
                    if depth() == 0 {
                        level::finish(None);
                    }
                    if level::in_doubt() {
                        return Err(Aborted::Refused(io::Error::other(DecisionError::InDoubt(id))));
                    }
                    Ok(done)
                }
                Err(error) => Err(Aborted::Refused(io::Error::other(error))),
            };
        }
        Ok(Err(code)) => code,
        Err(_) => Code::PANICKED,
    };
    Err(Aborted::Refused(io::Error::other(abort(id, code))))
}
