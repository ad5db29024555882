//! Entering, voting, aborting, and what stands in the way.

use super::{A, B, C, World, abort, finals, rolled_back};
use mojavefs::graph::{Cause, Effect, Event, GraphError, Outcome, Owner, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet};

// Rules 1 and 3: entering and voting.

#[test]
fn a_committed_speculation_becomes_final_at_once() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    assert_eq!(w.vote(A, s), finals(&[a], &[s]));
    assert_eq!(w.graph.outcome(s), Some(Outcome::Committed));
    assert_eq!((w.graph.current(A), w.graph.settled(A)), (None, Some(a)));
}

#[test]
fn an_inner_commit_is_final_only_with_the_outer_one() {
    let mut w = World::new();
    let (outer, s) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    assert_eq!(w.vote(A, t), []);
    assert_eq!(w.graph.outcome(t), None);
    assert_eq!(w.vote(A, s), finals(&[outer, inner], &[s, t]));
}

#[test]
fn an_outer_commit_from_inside_an_inner_one_is_final_only_with_it() {
    let mut w = World::new();
    let (outer, s) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.vote(A, t), finals(&[outer, inner], &[s, t]));
}

#[test]
fn committing_an_older_level_leaves_later_ones_open() {
    let mut w = World::new();
    let (outer, s) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.graph.owners(t), [(Owner::Context(A), false)]);
    let effects = w.abort(A, t);
    assert!(w.is_undone_by(&effects, &[inner]));
    assert!(effects.contains(&Effect::Withdrawn { spec: s, context: A }), "it was cast inside what is undone");
    assert_eq!(w.vote(A, s), finals(&[outer], &[s]));
}

#[test]
fn every_owner_must_vote() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.co_own(B, s);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.graph.owners(s), [(Owner::Context(A), true), (Owner::Context(B), false)]);
    assert_eq!(w.vote(B, s), finals(&[a, b], &[s]));
}

#[test]
fn a_vote_inherits_what_its_interval_depends_on() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let joined = w.join(A, b);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.graph.open_under(joined), BTreeSet::from([t]));
    assert_eq!(w.vote(B, t), finals(&[a, b, joined], &[s, t]));
}

#[test]
fn what_is_joined_after_the_vote_does_not_hold_it_up() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let other = w.co_own(B, s);
    let (c, t) = w.speculate(C);
    assert_eq!(w.vote(A, s), []);
    let later = w.join(A, c);
    assert_eq!(w.vote(B, s), finals(&[a, other], &[s]));
    assert!(w.graph.is_live(later));
    assert_eq!(w.vote(C, t), finals(&[c, later], &[t]));
}

#[test]
fn a_voting_interval_that_dies_takes_its_vote_back() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let joined = w.join(A, b);
    assert_eq!(w.vote(A, s), []);
    let effects = w.abort(B, t);
    assert!(w.is_undone_by(&effects, &[b, joined]));
    assert!(effects.contains(&Effect::Withdrawn { spec: s, context: A }));
    assert_eq!(rolled_back(&effects), BTreeMap::from([(A, joined), (B, b)]));
    assert_eq!(w.graph.owners(s), [(Owner::Context(A), false)]);
    assert_eq!(w.vote(A, s), finals(&[a], &[s]));
}

// Rule 4: aborting.

#[test]
fn any_owner_may_abort_at_any_time() {
    for aborting in [A, B] {
        let mut w = World::new();
        let (a, s) = w.speculate(A);
        let b = w.co_own(B, s);
        assert_eq!(w.vote(A, s), []);
        let effects = w.abort(aborting, s);
        assert!(w.is_undone_by(&effects, &[a, b]));
        assert_eq!(rolled_back(&effects), BTreeMap::from([(A, a), (B, b)]));
    }
}

#[test]
fn only_owners_decide() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    let before = w.graph.clone();
    assert_eq!(w.try_apply(abort(B, s)), Err(GraphError::NotOwner(s)));
    for owner in [Owner::Context(B), Owner::Store(A), Owner::Store(B)] {
        assert_eq!(w.try_apply(Event::Vote { owner, spec: s }), Err(GraphError::NotOwner(s)));
    }
    assert_eq!(w.graph, before);
    assert!(w.graph.is_live(b));
}

#[test]
fn an_inner_abort_leaves_the_outer_one_as_it_was() {
    let mut w = World::new();
    let (outer, s) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    let effects = w.abort(A, t);
    assert!(w.is_undone_by(&effects, &[inner]));
    assert_eq!(w.graph.current(A), Some(outer));
    assert_eq!(w.vote(A, s), finals(&[outer], &[s]));
}

#[test]
fn an_outer_abort_undoes_the_inner_commit_too() {
    let mut w = World::new();
    let (outer, s) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    assert_eq!(w.vote(A, t), []);
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[outer, inner]));
    assert_eq!(w.graph.outcome(t), Some(Outcome::Aborted));
}

#[test]
fn a_nested_job_that_committed_is_decided_with_the_outer_job() {
    for commits in [true, false] {
        let mut w = World::new();
        let (outer, s) = w.speculate(A);
        let (job, first) = (ContextId(9), w.new_interval());
        assert_eq!(w.apply(Event::Open { context: job, interval: first, from: Some(outer), sees: Sees::Follows }), []);
        let (entry, t) = w.speculate(job);
        assert_eq!(w.vote(job, t), []);
        assert_eq!(w.apply(Event::Close { context: job }), []);
        let folded = w.join(A, entry);
        let all = [outer, first, entry, folded];
        match commits {
            true => assert_eq!(w.vote(A, s), finals(&all, &[s, t])),
            false => {
                let effects = w.abort(A, s);
                assert!(w.is_undone_by(&effects, &all));
                assert_eq!(rolled_back(&effects), BTreeMap::from([(A, outer)]), "the inner job is over");
            }
        }
        assert_eq!(w.graph.size(), (0, 0, 3), "nothing is left but the running contexts");
    }
}

// Rule 8: codes and retrying.

#[test]
fn a_retry_enters_the_same_level_again() {
    let mut w = World::new();
    let (outer, _) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    let effects = w.apply(Event::Abort { owner: Owner::Context(A), spec: t, code: 3, retry: true });
    let retried = |effect: &Effect| {
        let again = Cause::Aborted { spec: t, code: 3, retry: true };
        matches!(effect, Effect::Rollback { to, cause, code: Some(3), .. } if *to == inner && *cause == again)
    };
    assert!(effects.iter().any(retried));
    let (again, _) = w.speculate(A);
    assert_eq!(w.graph.stack(A), [outer, again]);
    let late = Event::Abort { owner: Owner::Context(A), spec: t, code: 3, retry: true };
    assert_eq!(w.try_apply(late), Err(GraphError::Aborted(t)), "there is nothing to enter again");
}

#[test]
fn an_abort_code_is_not_zero() {
    let mut w = World::new();
    let (_, s) = w.speculate(A);
    let zero = Event::Abort { owner: Owner::Context(A), spec: s, code: 0, retry: false };
    assert_eq!(w.try_apply(zero), Err(GraphError::ZeroCode(s)));
}

// Rule 10: late messages.

#[test]
fn deciding_a_decided_speculation_is_an_error_unless_it_is_the_same_decision() {
    let mut w = World::new();
    let (_, s) = w.speculate(A);
    let (_, t) = w.speculate(B);
    w.vote(A, s);
    w.abort(B, t);
    let before = w.graph.clone();
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.abort(B, t), []);
    assert_eq!(w.try_apply(abort(A, s)), Err(GraphError::Committed(s)));
    let vote = Event::Vote { owner: Owner::Context(B), spec: t };
    assert_eq!(w.try_apply(vote), Err(GraphError::Aborted(t)));
    assert_eq!(w.try_apply(Event::Hold { context: A, spec: s }), Err(GraphError::Committed(s)));
    assert_eq!(w.try_apply(Event::Conflict { spec: s }), Err(GraphError::Committed(s)));
    assert_eq!(w.try_apply(abort(A, SpecId(999))), Err(GraphError::NoSpec(SpecId(999))));
    assert_eq!(w.graph, before);
}

#[test]
fn a_message_about_a_dead_interval_is_dropped() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    w.join(B, a);
    w.abort(A, s);
    let before = w.graph.clone();
    let read = Event::Read { context: C, of: a, interval: IntervalId(99), resume: Resume::Here };
    assert_eq!(w.try_apply(read), Err(GraphError::NoInterval(a)));
    let open = Event::Open { context: ContextId(9), interval: IntervalId(99), from: Some(a), sees: Sees::Follows };
    assert_eq!(w.try_apply(open), Err(GraphError::NoInterval(a)));
    assert_eq!(w.graph, before);
}

#[test]
fn a_context_undone_to_its_start_must_begin_again() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (context, first) = (ContextId(9), w.new_interval());
    w.apply(Event::Open { context, interval: first, from: Some(a), sees: Sees::Follows });
    let effects = w.abort(A, s);
    assert_eq!(rolled_back(&effects).get(&context), Some(&first));
    let late = Event::Speculate { context, interval: IntervalId(99), spec: SpecId(99) };
    assert_eq!(w.try_apply(late), Err(GraphError::Undone(context)));
    let interval = w.new_interval();
    w.apply(Event::Open { context, interval, from: None, sees: Sees::Follows });
    w.speculate(context);
}

#[test]
fn ids_are_used_once() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let interval = IntervalId(99);
    let used = [
        Event::Open { context: A, interval, from: None, sees: Sees::Follows },
        Event::Speculate { context: B, interval, spec: s },
        Event::Speculate { context: B, interval: a, spec: SpecId(99) },
        Event::Speculate { context: B, interval: IntervalId::FINAL, spec: SpecId(99) },
    ];
    for event in used {
        assert!(matches!(w.try_apply(event.clone()), Err(GraphError::InUse(_))), "{event:?}");
    }
    assert_eq!(w.try_apply(Event::CoOwn { context: A, interval, spec: s }), Err(GraphError::Owns(A, s)));
}

// Rule 11: conflicts.

#[test]
fn a_speculation_in_conflict_is_not_final_until_it_is_resolved() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    w.apply(Event::Conflict { spec: s });
    assert_eq!(w.vote(A, s), [], "voted, and held up");
    assert_eq!(w.graph.outcome(s), None);
    assert_eq!(w.apply(Event::Resolve { spec: s }), finals(&[a, b], &[s]));
}

#[test]
fn a_speculation_in_conflict_can_be_aborted_after_its_vote() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    w.apply(Event::Conflict { spec: s });
    w.vote(A, s);
    w.apply(Event::Close { context: A });
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[a]));
}

#[test]
fn what_one_vote_would_settle_can_be_checked_before() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (job, joined) = (w.join(B, a), w.join(C, a));
    let ((b, t), (c, u)) = (w.speculate(B), w.speculate(C));
    w.vote(B, t);
    w.vote(C, u);
    let vote = Event::Vote { owner: Owner::Context(A), spec: s };
    let before = w.graph.clone();
    assert_eq!(w.graph.preview(&vote), Ok(finals(&[a, job, joined, b, c], &[s, t, u])));
    assert_eq!(w.graph, before);
    w.apply(Event::Conflict { spec: u });
    assert_eq!(w.apply(vote), finals(&[a, job, joined, b], &[s, t]));
    assert!(w.graph.is_live(c) && w.graph.is_undecided(u));
}
