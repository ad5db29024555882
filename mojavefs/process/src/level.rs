//! Entering, committing and aborting the speculations of this process.

#![allow(unsafe_code)]

use crate::arena::{self, Arena, Jump, Level, Outcome};
use crate::limits::{DYING_MAX, LEVELS_MAX};
use crate::record;
use crate::restore;
use crate::sys::{self, Errno, Mask};

/// Every signal.
const ALL: Mask = !0;

/// What an entry returned with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The speculation begins: the commit branch.
    Commit,
    /// It was aborted with this code.
    Abort(i32),
}

/// Why a decision can't be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There is no such speculation.
    Unknown,
    /// It is decided the other way.
    Decided(Outcome),
    /// A code must be more than 0.
    Code,
}

/// Enters a speculation. Returns again for every abort and retry, with memory as it is now.
pub(crate) fn speculate() -> sys::Result<Entered> {
    let arena = arena::ensure()?;
    arena.say(format_args!(""));
    arena.reap_dying(libc::WNOHANG);
    if arena.dying_count > DYING_MAX {
        arena.reap_dying(0);
    }
    let depth = arena.depth;
    if depth == LEVELS_MAX {
        arena.say(format_args!("speculations nest {LEVELS_MAX} deep at most"));
        return Err(Errno(libc::EAGAIN));
    }
    record::take(arena)?;
    let id = arena.last_id + 1;
    let level = &mut arena.levels[depth];
    (level.id, level.voted_at, level.code, level.forked) = (id, 0, 0, false);
    level.asleep.reset();
    level.record.mask = sys::set_mask(ALL);
    let (argument, stack) = (core::ptr::from_mut(level).cast(), level.asleep.stack_top());
    let returned = sys::checkpoint(&raw mut level.registers, stack, sleep, argument);
    // From here on this runs once more for every abort; what it needs is in the arena.
    match returned {
        Ok(0) => Ok(came_back()),
        Ok(checkpoint) => {
            arena.last_id = id;
            arena.levels[depth].checkpoint = checkpoint as i32;
            arena.depth = depth + 1;
            sys::set_mask(arena.levels[depth].record.mask);
            Ok(Entered::Commit)
        }
        Err(error) => {
            sys::set_mask(arena.levels[depth].record.mask);
            arena.say(format_args!("the checkpoint, a process of its own, can't be started"));
            Err(error)
        }
    }
}

/// After everything was put back.
fn came_back() -> Entered {
    let Some(arena) = arena::existing() else { sys::die(&[b"libmojave: lost its own memory"]) };
    let Jump { level: at, code, retry } = arena.jump;
    let mask = arena.levels[at].record.mask;
    for level in at..arena.depth {
        if level > at || !retry {
            let id = arena.levels[level].id;
            arena.decide(id, false);
        }
    }
    for level in &mut arena.levels[..at] {
        if level.voted_at > at {
            // The vote was cast inside of what is undone.
            level.voted_at = 0;
        }
    }
    let entered = if retry {
        arena.depth = at + 1;
        let level = &mut arena.levels[at];
        (level.code, level.voted_at) = (code, 0);
        Entered::Commit
    } else {
        arena.end_checkpoint(at);
        arena.depth = at;
        Entered::Abort(code)
    };
    sys::set_mask(mask);
    entered
}

/// The life of a checkpoint: it sleeps until the process that it belongs to is gone.
extern "C" fn sleep(level: *mut u8) -> ! {
    // SAFETY: the level that was passed to `checkpoint`; this process writes only what is its own of it.
    let level: &Level = unsafe { &*level.cast::<Level>() };
    let Some(life) = arena::of_checkpoint() else { sys::exit(0) };
    let _ = sys::plain(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize]);
    if sys::parent() != life.owner {
        sys::exit(0);
    }
    sys::close(life.ends[1]);
    level.asleep.note_actions();
    // Hung up when the process runs another program.
    let waited = libc::pollfd { fd: life.ends[0], events: 0, revents: 0 };
    while let Err(Errno(libc::EINTR)) | Ok(0) = sys::given(libc::SYS_poll, &[0, 1, usize::MAX], 0, &waited) {}
    sys::exit(0)
}

fn find(arena: &Arena, id: i32, committed: bool) -> Result<Option<usize>, Refusal> {
    if let Some(at) = arena.open().iter().position(|level| level.id == id) {
        return Ok(Some(at));
    }
    match arena.outcome(id) {
        Some(outcome) if (outcome == Outcome::Committed) == committed => Ok(None),
        Some(outcome) => Err(Refusal::Decided(outcome)),
        None => Err(Refusal::Unknown),
    }
}

/// Votes to commit. The vote for a level that others were entered inside of counts when these are committed.
pub(crate) fn commit(id: i32) -> Result<(), Refusal> {
    let arena = arena::existing().ok_or(Refusal::Unknown)?;
    let Some(at) = find(arena, id, true)? else { return Ok(()) };
    let depth = arena.depth;
    let level = &mut arena.levels[at];
    if level.voted_at == 0 {
        level.voted_at = depth;
    }
    while arena.depth > 0 && arena.levels[arena.depth - 1].voted_at != 0 {
        let top = arena.depth - 1;
        let id = arena.levels[top].id;
        arena.end_checkpoint(top);
        arena.depth = top;
        arena.decide(id, true);
    }
    Ok(())
}

/// Goes back to the entry of a speculation, which returns `code`, or enters again. Returns only if it can't.
pub(crate) fn abort(id: i32, code: i32, retry: bool) -> Refusal {
    if code <= 0 {
        return Refusal::Code;
    }
    let Some(arena) = arena::existing() else { return Refusal::Unknown };
    match find(arena, id, false) {
        Ok(Some(level)) => {
            sys::set_mask(ALL);
            restore::go_back(arena, Jump { level, code, retry })
        }
        Ok(None) => Refusal::Decided(Outcome::Aborted),
        Err(refusal) => refusal,
    }
}

/// The innermost open speculation, and how many are open.
pub(crate) fn current() -> Option<(i32, usize)> {
    let arena = arena::existing()?;
    arena.open().last().map(|level| (level.id, arena.depth))
}

/// The code of the retry by which the innermost speculation was entered; 0 at first.
pub(crate) fn code() -> i32 {
    arena::existing().and_then(|arena| arena.open().last().map(|level| level.code)).unwrap_or(0)
}
