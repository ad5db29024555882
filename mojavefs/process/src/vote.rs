//! Votes. That for a level that nothing is around is cast without waiting for what comes of it.
//!
//! Until that is known the level's checkpoint is kept, and what the process enters next is inside of it. It is asked for when the
//! process enters or decides another level, and waited for at a barrier and before the process runs another program or ends; that
//! the vote can't stand the daemon says by itself, and the process goes back.

use crate::arena::{self, Arena};
use crate::files;
use crate::sys;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Outcome, Reply, SpecOp, SpecState};
use mojavefs_attach::control::{self, answer, put};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Instant;

/// A question of which the answer is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Asked {
    Nothing,
    /// To count the vote.
    Vote,
    /// To say when what it waits for is decided.
    Wait,
    /// What has become of it.
    Outcome,
}

/// How a vote ended.
pub(crate) enum Vote {
    /// It counts.
    Cast,
    /// Something that became final meanwhile is in its way.
    Conflict,
    /// The speculation is undone already.
    Fell,
    /// It was sent, and nobody says any more what came of it.
    Unknown,
}

/// Sends the vote for a level.
pub(crate) fn cast(arena: &mut Arena, spec: u64) -> Result<(), Vote> {
    files::mortally(arena.mask, || {
        files::drain().map_err(|_| Vote::Fell)?;
        match ask(arena, Asked::Vote, spec, None) {
            Some(Ok(())) => Ok(()),
            _ => Err(Vote::Fell),
        }
    })
}

fn ask(arena: &mut Arena, what: Asked, spec: u64, deadline: Option<Instant>) -> Option<Result<(), Fault>> {
    let spec = SpecId(spec);
    let question = match what {
        Asked::Nothing => return None,
        Asked::Vote => Ask::Speculation(SpecOp::Commit { spec, resolutions: Vec::new(), touch: false }),
        // What is entered next is announced behind the answer.
        Asked::Wait => Ask::Speculation(SpecOp::Await {
            specs: vec![spec],
            behind: None,
            millis: deadline.map_or(u32::MAX, |at| left(at) as u32),
        }),
        Asked::Outcome => Ask::Speculation(SpecOp::Outcome { spec }),
    };
    arena.asked = what;
    files::daemon().map(|daemon| put(&daemon, &question))
}

/// How long what comes of a vote is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Until the daemon has said how it stands.
    Told,
    /// Until that is decided, or this moment has come.
    Decided(Option<Instant>),
}

/// What has come of the vote for a level; nothing if that is not known by then.
pub(crate) fn verdict(arena: &mut Arena, spec: u64, until: Until) -> Option<Vote> {
    files::mortally(arena.mask, || {
        let (first, deadline) = match until {
            Until::Told => (Asked::Outcome, None),
            Until::Decided(deadline) => (Asked::Wait, deadline),
        };
        if arena.asked == Asked::Nothing && !matches!(ask(arena, first, spec, deadline), Some(Ok(()))) {
            return Some(unanswered(arena, spec));
        }
        loop {
            if !files::daemon().is_none_or(|daemon| is_there(&daemon, deadline)) {
                return None;
            }
            let asked = core::mem::replace(&mut arena.asked, Asked::Nothing);
            let said = files::daemon().map(|daemon| answer(&daemon).map(|(answer, _)| answer));
            if said.as_ref().is_none_or(|said| said.as_ref().is_err_and(|fault| fault.kind == FaultKind::InDoubt)) {
                return Some(unanswered(arena, spec));
            }
            match next(asked, said) {
                Ok(vote) => return Some(vote),
                // It waits for others.
                Err(Asked::Wait) if until == Until::Told => return None,
                Err(question) if matches!(ask(arena, question, spec, deadline), Some(Ok(()))) => {}
                Err(_) => return Some(Vote::Unknown),
            }
        }
    })
}

/// The daemon does not say on the process's connection what has come of a vote.
fn unanswered(arena: &Arena, spec: u64) -> Vote {
    let known = if arena.awaits { anew(SpecId(spec)) } else { None };
    known.unwrap_or(Vote::Unknown)
}

/// The same from another connection: the program has closed the library's. Nothing if the daemon is gone.
fn anew(spec: SpecId) -> Option<Vote> {
    let daemon = files::connect()?;
    loop {
        let answer = control::ask(&daemon, &Ask::Speculation(SpecOp::Outcome { spec }), None).ok()?.0;
        match next(Asked::Outcome, Some(Ok(answer))) {
            Ok(vote) => return Some(vote),
            Err(_) => drop(
                control::ask(
                    &daemon,
                    &Ask::Speculation(SpecOp::Await { specs: vec![spec], behind: None, millis: u32::MAX }),
                    None,
                )
                .ok()?,
            ),
        }
    }
}

/// What follows from an answer: what has become of the vote, or a further question.
fn next(asked: Asked, said: Option<Result<Answer, Fault>>) -> Result<Vote, Asked> {
    match (asked, said) {
        (Asked::Vote, Some(Ok(Answer::Reply(Reply::Outcome(outcome))))) if !outcome.conflicts.is_empty() => {
            Ok(Vote::Conflict)
        }
        (Asked::Vote, Some(Ok(Answer::Reply(Reply::Outcome(outcome))))) if outcome.waits_for.is_empty() => {
            Ok(Vote::Cast)
        }
        (Asked::Vote, Some(Ok(Answer::Reply(Reply::Outcome(_))))) => Err(Asked::Wait),
        (Asked::Wait, Some(Ok(Answer::Reply(Reply::Specs(_))))) => Err(Asked::Outcome),
        (Asked::Outcome, Some(Ok(Answer::Reply(Reply::Outcome(Outcome { state, .. }))))) => match state {
            SpecState::Committed => Ok(Vote::Cast),
            SpecState::Held => Ok(Vote::Conflict),
            SpecState::Aborted => Ok(Vote::Fell),
            SpecState::Voted | SpecState::Running => Err(Asked::Wait),
        },
        // It was refused, or never sent. In what has been voted for an error says nothing of what came of it.
        (Asked::Vote, Some(Err(fault))) if fault.kind != FaultKind::InDoubt => Ok(Vote::Fell),
        _ => Ok(Vote::Unknown),
    }
}

/// How many milliseconds are left.
fn left(deadline: Instant) -> i32 {
    i32::try_from(deadline.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX)
}

/// Whether an answer comes until the deadline; with none it is waited for.
fn is_there(stream: &UnixStream, deadline: Option<Instant>) -> bool {
    let Some(deadline) = deadline else { return true };
    let mut waits = libc::pollfd { fd: stream.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    loop {
        let left = left(deadline);
        match sys::filled(libc::SYS_poll, &[0, 1, left as usize], 0, waits) {
            Ok(seen) if seen.revents != 0 => return true,
            Ok(_) if left == 0 => return false,
            Ok(_) | Err(_) => waits.revents = 0,
        }
    }
}

/// The same without any memory of the program's.
pub(crate) fn discard_asked(arena: &mut Arena) -> sys::Result<()> {
    if core::mem::replace(&mut arena.asked, Asked::Nothing) == Asked::Nothing {
        return Ok(());
    }
    let mut length = [0u8; size_of::<u32>()];
    sys::receive(arena.daemon, &mut length)?;
    let mut left = u32::from_le_bytes(length) as usize;
    while left > 0 {
        let step = left.min(arena.scratch.text_a.len());
        sys::receive(arena.daemon, &mut arena.scratch.text_a[..step])?;
        left -= step;
    }
    Ok(())
}

/// Takes the answer to a question that nobody waits for any more.
pub(crate) fn forget_asked(stream: &UnixStream) -> Result<(), Fault> {
    match arena::existing() {
        Some(arena) if arena.asked != Asked::Nothing => {
            arena.asked = Asked::Nothing;
            answer(stream).map(drop)
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: SpecId = SpecId(7);

    fn refused(kind: FaultKind) -> Option<Result<Answer, Fault>> {
        Some(Err(Fault::new(kind, "refused")))
    }

    fn is(state: SpecState) -> Option<Result<Answer, Fault>> {
        Some(Ok(Answer::Reply(Reply::Outcome(Outcome::of(SPEC, state, 0)))))
    }

    #[test]
    fn a_vote_that_was_refused_has_not_counted() {
        for kind in [FaultKind::Disconnected, FaultKind::NoSpace, FaultKind::Stale] {
            assert!(matches!(next(Asked::Vote, refused(kind)), Ok(Vote::Fell)));
        }
        assert!(matches!(next(Asked::Outcome, is(SpecState::Aborted)), Ok(Vote::Fell)));
    }

    #[test]
    fn a_vote_of_which_nobody_says_what_came_is_not_said_to_have_come_to_nothing() {
        assert!(matches!(next(Asked::Vote, refused(FaultKind::InDoubt)), Ok(Vote::Unknown)));
        for kind in [FaultKind::InDoubt, FaultKind::Disconnected, FaultKind::NotFound, FaultKind::Io] {
            assert!(matches!(next(Asked::Wait, refused(kind)), Ok(Vote::Unknown)));
            assert!(matches!(next(Asked::Outcome, refused(kind)), Ok(Vote::Unknown)));
        }
    }

    #[test]
    fn a_vote_that_was_told_to_be_committed_counts() {
        assert!(matches!(next(Asked::Vote, is(SpecState::Committed)), Ok(Vote::Cast)));
        assert!(matches!(next(Asked::Outcome, is(SpecState::Committed)), Ok(Vote::Cast)));
    }
}
