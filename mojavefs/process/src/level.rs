//! Entering, committing and aborting the speculations of this process.

#![allow(unsafe_code)]

use crate::arena::{self, Arena, Doubt, Jump, Outcome};
use crate::files;
use crate::limits::{DYING_MAX, LEVELS_MAX, PLACES_BYTES_MAX};
use crate::record;
use crate::restore;
use crate::sys::{self, Errno, Mask};
use crate::vote::{self, Asked, Until, Vote};
use mojavefs::id::SpecId;
use std::time::{Duration, Instant};

/// Said of a speculation that others have undone.
const FELL_WITH: &str = "somebody else has undone it, or what it depended on";
/// Said of one that can't be committed.
const IN_CONFLICT: &str = "somebody else has changed what it changed";
/// Said of one of whose vote nothing is known.
pub(crate) const IN_DOUBT: &str = "libmojave: the daemon behind the filesystem has gone: not known whether the speculation that was voted for was \
                                   committed; see `mojavefs status` after mounting again";

/// Every signal.
const ALL: Mask = !0;

/// Blocks every signal. What others decide is heard of when the library is done.
fn block_signals(arena: &mut Arena) {
    arena.mask = sys::set_mask(ALL);
}

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
    /// The vote was sent, and nobody says what came of it.
    Doubt,
}

/// Enters a speculation. Returns again for every abort and retry, with memory as it is now. `own`: a speculation of
/// another's that it becomes a further owner of.
pub(crate) fn speculate(own: Option<SpecId>) -> sys::Result<Entered> {
    let arena = arena::ensure()?;
    settle(arena, Until::Told);
    arena.say(format_args!(""));
    arena.reap_dying(|_| false);
    if arena.dying_count > DYING_MAX {
        arena.reap_dying(|_| true);
    }
    let depth = arena.depth;
    if depth == LEVELS_MAX {
        arena.say(format_args!("speculations nest {LEVELS_MAX} deep at most"));
        return Err(Errno(libc::EAGAIN));
    }
    block_signals(arena);
    if let Err(error) = prepare(arena, own) {
        sys::set_mask(arena.mask);
        return Err(error);
    }
    arena.taken += 1;
    let faults = arena.faults_of_children();
    let level = &mut arena.levels[depth];
    (level.voted_in, level.code, level.forked) = (0, 0, false);
    (level.taken, level.faults_before) = (arena.taken, faults);
    level.record.mask = arena.mask;
    let returned = sys::checkpoint(&raw mut level.registers, level.stack.top(), sleep);
    // From here on this runs once more for every abort; what it needs is in the arena.
    match returned {
        Ok(0) => Ok(came_back()),
        Ok(checkpoint) => {
            arena.levels[depth].checkpoint = checkpoint as i32;
            let entered = named(arena);
            if entered.is_err() {
                arena.end_checkpoint(depth);
            }
            sys::set_mask(arena.levels[depth].record.mask);
            entered.map(|()| Entered::Commit)
        }
        Err(error) => {
            take_back(arena);
            sys::set_mask(arena.levels[depth].record.mask);
            arena.say(format_args!("the checkpoint, a process of its own, can't be started"));
            Err(error)
        }
    }
}

fn refused(arena: &mut Arena, why: files::Refused) -> Errno {
    arena.say(format_args!("{why}"));
    Errno(why.errno())
}

/// The level that was announced is entered, with the number that it has in the filesystem.
fn named(arena: &mut Arena) -> sys::Result<()> {
    let spec = files::entered(arena.mask).map_err(|why| refused(arena, why))?.map_or(0, |spec| spec.0);
    let id = i32::try_from(spec).ok().filter(|id| *id > arena.last_id).unwrap_or(arena.last_id + 1);
    let level = &mut arena.levels[arena.depth];
    (level.id, level.spec) = (id, spec);
    arena.last_id = id;
    arena.depth += 1;
    Ok(())
}

/// The level that was announced is not entered.
fn take_back(arena: &Arena) {
    if let Ok(Some(spec)) = files::entered(arena.mask) {
        files::undo(arena.mask, spec.0);
    }
}

/// Notes what has to be put back, and announces the level to the filesystem.
fn prepare(arena: &mut Arena, own: Option<SpecId>) -> sys::Result<()> {
    if let Some(fd) = arena.lost()? {
        arena.say(format_args!("descriptor {fd} was the library's own, and the program has closed it"));
        return Err(Errno(libc::EBADF));
    }
    record::refuse_threads(arena)?;
    record::refuse_locks(arena)?;
    files::attach(arena).map_err(|why| refused(arena, why))?;
    if own.is_some() && !files::attached() {
        arena.say(format_args!("only a process in a job of specrun can own another's speculation"));
        return Err(Errno(libc::ENOTSUP));
    }
    record::begin(arena)?;
    files::announce(own).map_err(|why| refused(arena, why))?;
    record::take(arena).inspect_err(|_| take_back(arena))
}

/// After everything was put back.
fn came_back() -> Entered {
    let Some(arena) = arena::existing() else { sys::die(&[b"libmojave: lost its own memory"]) };
    let Jump { level: at, code, retry, asked, .. } = arena.jump;
    arena.mask = arena.levels[at].record.mask;
    if asked {
        files::undone(arena.mask);
    }
    for level in at..arena.depth {
        if level > at || !retry {
            let id = arena.levels[level].id;
            arena.decide(id, Outcome::Aborted);
        }
    }
    arena.take_back(at);
    // One whose vote can't stand is one to go back to again.
    arena.awaits &= at > 0;
    if arena.levels[at].spec != 0 {
        // Where an append goes, how far a copy reaches and what is mapped is the kernel's belief: it asks anew how long files are.
        let files = arena.levels[at].record.descriptors().iter().filter(|descriptor| descriptor.lockable);
        files.for_each(|file| sys::refresh(file.fd, file.status_flags & libc::O_APPEND != 0));
        look_up_again(arena, at);
    }
    let entered = if retry {
        arena.depth = at + 1;
        let level = &mut arena.levels[at];
        (level.code, level.voted_in) = (code, 0);
        if level.spec != 0 {
            match files::enter(arena.mask) {
                Ok(spec) => level.spec = spec.map_or(0, |spec| spec.0),
                Err(_) => sys::die(&[b"libmojave: cannot enter a speculation again: the daemon does not answer"]),
            }
        }
        Entered::Commit
    } else {
        arena.end_checkpoint(at);
        arena.depth = at;
        Entered::Abort(code)
    };
    sys::set_mask(arena.mask);
    entered
}

/// Has the kernel look up the directories that it believes elsewhere than they are again.
fn look_up_again(arena: &mut Arena, level: usize) {
    let Arena { levels, scratch, mask, .. } = arena;
    let mut moved = levels[level].record.places.moved(&mut scratch.text_a[..PLACES_BYTES_MAX]).peekable();
    if moved.peek().is_some() {
        files::glancing(*mask, || {
            moved.for_each(|path| {
                // One that can't be found is nowhere to be moved from.
                let _ = sys::identity(path);
            });
        });
    }
}

/// The life of a checkpoint: it sleeps until the process that it belongs to is gone.
extern "C" fn sleep() -> ! {
    let Some(life) = arena::of_checkpoint() else { sys::exit(0) };
    let _ = sys::plain(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as usize, libc::SIGKILL as usize]);
    if sys::parent() != life.owner {
        sys::exit(0);
    }
    life.close_others();
    // Hung up when the process runs another program.
    let waited = libc::pollfd { fd: life.ends[0], events: 0, revents: 0 };
    while let Err(Errno(libc::EINTR)) | Ok(0) = sys::given(libc::SYS_poll, &[0, 1, usize::MAX], 0, &waited) {}
    sys::exit(0)
}

/// Looks what comes of the vote for the outermost level. False: it is not known by then. If the vote can't stand, the process
/// goes back to where it entered that level.
pub(crate) fn settle(arena: &mut Arena, until: Until) -> bool {
    if !arena.awaits {
        return true;
    }
    block_signals(arena);
    let vote = vote::verdict(arena, arena.levels[0].spec, until);
    let known = vote.is_some();
    if let Some(vote) = vote {
        counted(arena, 0, vote);
        arena.awaits = false;
    }
    sys::set_mask(arena.mask);
    known
}

/// The vote for a level counts: it is no more. Or it does not: the process goes back to its entry.
fn counted(arena: &mut Arena, level: usize, vote: Vote) {
    let how = match vote {
        Vote::Cast => Outcome::Committed,
        Vote::Unknown => Outcome::Unknown,
        Vote::Conflict => {
            arena.say(format_args!("{IN_CONFLICT}"));
            roll_back(arena, level, files::CONFLICT, false)
        }
        Vote::Fell => {
            arena.say(format_args!("{FELL_WITH}"));
            roll_back(arena, level, files::FELL, false)
        }
    };
    arena.decide(arena.levels[level].id, how);
    arena.fold_votes(level);
    arena.let_go(level);
    if how == Outcome::Unknown {
        // To go back and do it again may do it twice.
        arena.say(format_args!("{IN_DOUBT}"));
        arena.doubt = Doubt::Untold;
    }
}

fn find(arena: &Arena, id: i32, committed: bool) -> Result<Option<usize>, Refusal> {
    if let Some(at) = arena.open().position(|level| level.id == id) {
        return Ok(Some(at + usize::from(arena.awaits)));
    }
    match arena.outcome(id) {
        // Voted for, which is not taken back.
        Some(Outcome::Undecided) if committed => Ok(None),
        Some(Outcome::Undecided) => Err(Refusal::Decided(Outcome::Committed)),
        Some(Outcome::Unknown) => Err(Refusal::Doubt),
        Some(outcome) if (outcome == Outcome::Committed) == committed => Ok(None),
        Some(outcome) => Err(Refusal::Decided(outcome)),
        None => Err(Refusal::Unknown),
    }
}

/// Votes to commit. The vote for a level that others were entered inside of counts when these are committed.
pub(crate) fn commit(id: i32) -> Result<(), Refusal> {
    let arena = arena::existing().ok_or(Refusal::Unknown)?;
    settle(arena, Until::Told);
    let Some(at) = find(arena, id, true)? else { return Ok(()) };
    let innermost = arena.levels[arena.depth - 1].id;
    let level = &mut arena.levels[at];
    if level.voted_in == 0 {
        level.voted_in = innermost;
    }
    block_signals(arena);
    let voted = |arena: &Arena| arena.open().next_back().filter(|level| level.voted_in != 0).map(|level| level.id);
    while let Some(id) = voted(arena) {
        vote_for_the_innermost(arena);
        if arena.outcome(id) == Some(Outcome::Unknown) {
            arena.doubt = Doubt::Told;
            sys::set_mask(arena.mask);
            return Err(Refusal::Doubt);
        }
    }
    sys::set_mask(arena.mask);
    Ok(())
}

/// Casts the vote for the innermost level. What comes of it is waited for unless nothing open is around the level.
fn vote_for_the_innermost(arena: &mut Arena) {
    let level = arena.depth - 1;
    let spec = arena.levels[level].spec;
    if spec == 0 {
        return counted(arena, level, Vote::Cast);
    }
    let decided_alone = level == usize::from(arena.awaits) && files::decides_alone();
    let vote = match vote::cast(arena, spec) {
        Err(vote) => vote,
        Ok(()) if decided_alone && level == 0 => {
            arena.awaits = true;
            return;
        }
        Ok(()) if decided_alone => match vote::verdict(arena, spec, Until::Told) {
            Some(vote) => vote,
            // It waits for others, so nothing is around it: what was is final, and it is the outermost itself.
            None => return counted(arena, 0, Vote::Cast),
        },
        Ok(()) => vote::verdict(arena, spec, Until::Decided(None)).unwrap_or(Vote::Fell),
    };
    counted(arena, level, vote);
}

/// Goes back to a level that others have undone, or that is in conflict, from wherever the program is.
pub(crate) fn fall(arena: &mut Arena, level: usize, code: i32) -> ! {
    sys::set_mask(ALL);
    match code {
        files::CONFLICT => arena.say(format_args!("{IN_CONFLICT}")),
        _ => arena.say(format_args!("{FELL_WITH}")),
    }
    restore::go_back(arena, Jump { level, code, retry: false, fell: true, asked: false })
}

/// Undoes a level and goes back to it. Signals are blocked.
fn roll_back(arena: &mut Arena, level: usize, code: i32, retry: bool) -> ! {
    let spec = arena.levels[level].spec;
    arena.jump = Jump { level, code, retry, fell: false, asked: spec != 0 };
    if spec != 0 {
        // Nothing that they do may come after it is undone.
        restore::end_children(arena);
        files::ask_to_undo(arena.mask, spec);
    }
    let jump = arena.jump;
    restore::go_back(arena, jump)
}

/// Goes back to the entry of a speculation, which returns `code`, or enters again. `words` are what is said there of the
/// reason. Returns only if it can't.
pub(crate) fn abort(id: i32, code: i32, retry: bool, words: &str) -> Refusal {
    if code <= 0 {
        return Refusal::Code;
    }
    let Some(arena) = arena::existing() else { return Refusal::Unknown };
    match find(arena, id, false) {
        Ok(Some(level)) => {
            arena.say(format_args!("{words}"));
            block_signals(arena);
            roll_back(arena, level, code, retry)
        }
        Ok(None) => Refusal::Decided(Outcome::Aborted),
        Err(refusal) => refusal,
    }
}

/// The innermost open speculation, and how many are open.
pub(crate) fn current() -> Option<(i32, usize)> {
    let arena = arena::existing()?;
    arena.open().next_back().map(|level| (level.id, arena.open().count()))
}

/// The innermost open speculation's number in the filesystem, by which others can own it, too.
pub(crate) fn shared() -> Option<u64> {
    arena::existing()?.open().next_back().map(|level| level.spec).filter(|spec| *spec != 0)
}

/// Waits until nothing that the process has done can be undone any more, no longer than that if it is said.
pub(crate) fn barrier(limit: Option<Duration>) -> sys::Result<()> {
    if current().is_some() || !files::decides_alone() {
        return Err(Errno(libc::EDEADLK));
    }
    match finish(limit) {
        true if in_doubt() => Err(Errno(libc::EIO)),
        true => Ok(()),
        false => Err(Errno(libc::ETIMEDOUT)),
    }
}

/// Waits until it is known what comes of the last vote.
pub(crate) fn finish(limit: Option<Duration>) -> bool {
    let deadline = limit.map(|limit| Instant::now() + limit);
    arena::existing().is_none_or(|arena| settle(arena, Until::Decided(deadline)))
}

/// The process ends, and with it what it has not decided, on which its last vote may depend by way of others: that is undone before
/// what comes of the vote is waited for.
pub(crate) fn end() {
    if let Some(arena) = arena::existing().filter(|arena| arena.awaits) {
        let outermost = arena.open().next().map(|level| level.spec);
        if let Some(spec) = outermost {
            block_signals(arena);
            files::undo(arena.mask, spec);
            while arena.open().next().is_some() {
                arena.let_go(arena.depth - 1);
            }
            sys::set_mask(arena.mask);
        }
    }
    finish(None);
}

/// Whether nobody knows what came of a vote of this process; the caller tells the program.
pub(crate) fn in_doubt() -> bool {
    arena::existing().is_some_and(|arena| {
        let doubt = arena.doubt != Doubt::None;
        if doubt {
            arena.doubt = Doubt::Told;
            arena.say(format_args!("{IN_DOUBT}"));
        }
        doubt
    })
}

/// How a speculation of this process stands, as far as that is known.
pub(crate) fn outcome(id: i32) -> Option<Outcome> {
    let arena = arena::existing()?;
    // An answer that is on its way is not waited for.
    settle(arena, if arena.asked == Asked::Nothing { Until::Told } else { Until::Decided(Some(Instant::now())) });
    let outcome = arena.outcome(id);
    if outcome == Some(Outcome::Unknown) {
        in_doubt();
    }
    outcome
}

/// The code of the retry by which the innermost speculation was entered; 0 at first.
pub(crate) fn code() -> i32 {
    arena::existing().and_then(|arena| arena.open().next_back().map(|level| level.code)).unwrap_or(0)
}
