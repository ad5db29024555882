//! Who has taken what a context had locked, or who changed what: what a commit waits for (rule 7 of `docs/file-locks.md`).

use super::{Asked, Locks, SPANS_KEPT_MAX};
use mojavefs::id::{ContextId, Ino, ViewId};
use mojavefs::protocol::{LockAsked, LockClass, LockMode, LockOwner, Span};

const JOB: (ViewId, Option<ContextId>) = (ViewId(1), Some(ContextId(1)));
const TRUNK: (ViewId, Option<ContextId>) = (ViewId(2), None);
const INO: Ino = Ino(7);

fn asked(class: LockClass, (first, last): (u64, u64), mode: Option<LockMode>) -> LockAsked {
    LockAsked { owner: LockOwner { class, number: 1 }, handle: 1, pid: 1, span: Span { first, last }, mode }
}

/// A job has had one lock on a file; whether its commit waits for one that is taken on trunk after that.
fn waits(had: &LockAsked, taken: &LockAsked) -> bool {
    let locks = Locks::default();
    assert_eq!(locks.ask(JOB, INO, had, false), Asked::Done);
    assert_eq!(locks.ask(JOB, INO, &LockAsked { mode: None, ..*had }, false), Asked::Done);
    assert_eq!(locks.ask(TRUNK, INO, taken, false), Asked::Done);
    let over = locks.taken_over(&[ContextId(1)]);
    assert!(locks.taken_over(&[ContextId(2)]).is_empty());
    over.iter().any(|(ino, taken)| *ino == INO && taken.by.view == TRUNK.0)
}

#[test]
fn a_commit_waits_for_locks_that_exclude_one_which_its_job_had_before() {
    use LockClass::{Range, Whole};
    use LockMode::{Exclusive, Shared};
    let had = asked(Range, (10, 19), Some(Exclusive));
    assert!(waits(&had, &asked(Range, (19, 30), Some(Shared))));
    assert!(!waits(&had, &asked(Range, (20, 30), Some(Exclusive))), "another part");
    assert!(!waits(&had, &asked(Whole, (0, u64::MAX), Some(Exclusive))), "flock knows nothing of fcntl");
    let shared = asked(Range, (10, 19), Some(Shared));
    assert!(!waits(&shared, &asked(Range, (10, 19), Some(Shared))));
    assert!(waits(&shared, &asked(Range, (0, 10), Some(Exclusive))));
}

#[test]
fn locks_that_were_there_before_do_not_count_and_what_is_decided_is_forgotten() {
    let locks = Locks::default();
    let shared = asked(LockClass::Range, (0, 9), Some(LockMode::Shared));
    assert_eq!(locks.ask(TRUNK, INO, &shared, false), Asked::Done);
    assert_eq!(locks.ask(JOB, INO, &shared, false), Asked::Done);
    assert!(locks.taken_over(&[ContextId(1)]).is_empty());
    // What an inner context has had the outer one has.
    locks.unlock(TRUNK.0, INO, mojavefs::protocol::Unlocked::Handle(1));
    locks.drop_view(JOB.0);
    locks.fold(ContextId(1), ContextId(3));
    assert_eq!(locks.ask(TRUNK, INO, &LockAsked { mode: Some(LockMode::Exclusive), ..shared }, false), Asked::Done);
    assert_eq!((locks.taken_over(&[ContextId(1)]).len(), locks.taken_over(&[ContextId(3)]).len()), (0, 1));
    locks.forget(ContextId(3), mojavefs::id::SpecId(3));
    assert!(locks.taken_over(&[ContextId(3)]).is_empty());
}

#[test]
fn of_very_many_parts_all_is_remembered_as_one() {
    let locks = Locks::default();
    let parts = SPANS_KEPT_MAX as u64 + 10;
    for part in 0..parts {
        let lock = asked(LockClass::Range, (10 * part, 10 * part), Some(LockMode::Exclusive));
        assert_eq!(locks.ask(JOB, INO, &lock, false), Asked::Done);
    }
    locks.drop_view(JOB.0);
    for part in [0, parts / 2, parts - 1] {
        let lock = asked(LockClass::Range, (10 * part, 10 * part), Some(LockMode::Shared));
        assert_eq!(locks.ask(TRUNK, INO, &lock, false), Asked::Done);
        assert!(!locks.taken_over(&[ContextId(1)]).is_empty(), "part {part}");
        assert_eq!(locks.ask(TRUNK, INO, &LockAsked { mode: None, ..lock }, false), Asked::Done);
    }
}
