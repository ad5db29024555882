//! How dependencies spread, and what is undone or final with what.

use super::{A, B, C, World, finals, rolled_back};
use mojavefs::graph::{Because, Cause, Effect, Event, GraphError, Outcome, Owner, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId};
use mojavefs::limits::WHY_LINKS_MAX;
use std::collections::BTreeMap;

// Rule 2: reading.

#[test]
fn a_reader_of_undecided_data_falls_with_it() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    let c = w.join(C, b);
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[a, b, c]));
    assert_eq!(rolled_back(&effects), BTreeMap::from([(A, a), (B, b), (C, c)]));
    assert!(w.graph.settled(B).is_some(), "what it did before it read stays");
}

#[test]
fn a_reader_of_undecided_data_becomes_final_with_it() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    assert_eq!(w.vote(A, s), finals(&[a, b], &[s]));
}

#[test]
fn reading_what_one_depends_on_already_changes_nothing() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let b = w.join(B, a);
    let before = w.graph.clone();
    assert_eq!(w.join(B, a), b);
    assert_eq!(w.join(B, b), b);
    assert_eq!(w.graph, before);
}

#[test]
fn without_a_checkpoint_everything_that_depends_on_the_job_falls_with_it() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let c = w.join(C, b);
    assert_eq!(w.read(B, a, Resume::Start), b);
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[a, b, c]));
    assert_eq!(rolled_back(&effects), BTreeMap::from([(A, a), (B, b), (C, c)]));
    assert_eq!(w.graph.outcome(t), Some(Outcome::Aborted));
}

#[test]
fn a_join_can_lie_at_the_latest_checkpoint_there_is() {
    let mut w = World::new();
    let (outer, s) = w.speculate(B);
    let (inner, t) = w.speculate(B);
    let (a, u) = w.speculate(A);
    assert_eq!(w.read(B, a, Resume::At(inner)), inner);
    let effects = w.abort(A, u);
    assert!(w.is_undone_by(&effects, &[inner, a]));
    assert_eq!((w.graph.outcome(t), w.graph.outcome(s)), (Some(Outcome::Aborted), None));
    assert_eq!(w.graph.current(B), Some(outer));
}

#[test]
fn a_context_whose_work_is_final_cannot_join_at_its_start() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    for resume in [Resume::Start, Resume::At(a)] {
        let read = Event::Read { context: B, of: a, interval: IntervalId(99), resume };
        assert_eq!(w.try_apply(read), Err(GraphError::CannotResume(B)));
    }
}

#[test]
fn a_context_sees_what_it_depends_on_and_nothing_else() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (b, _) = w.speculate(B);
    let joined = w.join(B, a);
    let (a2, _) = w.speculate(A);
    let (c, _) = w.speculate(C);
    assert_eq!(w.graph.visible(joined), [a, b, joined]);
    assert_eq!(w.graph.visible(a2), [a, a2]);
    assert_eq!(w.graph.visible(c), [c]);
    assert!(w.graph.builds_on(joined, a) && !w.graph.builds_on(joined, c));
}

// Rule 5: what dies with what.

#[test]
fn an_owner_that_loses_its_entry_aborts_what_it_owned() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let joined = w.join(B, a);
    let (entry, t) = w.speculate(B);
    let partner = w.co_own(C, t);
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[a, joined, entry, partner]));
    assert_eq!(rolled_back(&effects), BTreeMap::from([(A, a), (B, joined), (C, partner)]));
}

#[test]
fn a_members_rollback_aborts_nobody() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let first = w.join(C, a);
    let second = w.join(C, b);
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[a, first, second]));
    assert!(w.graph.is_undecided(t) && w.graph.is_live(b));
}

#[test]
fn a_rollback_says_why() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let joined = w.join(B, a);
    let (entry, t) = w.speculate(B);
    let partner = w.co_own(C, t);
    let effects = w.apply(Event::Abort { owner: Owner::Context(A), spec: s, code: 7, retry: false });
    let cause = Cause::Aborted { spec: s, code: 7, retry: false };
    let rollback = |context: ContextId| {
        let of = |effect: &&Effect| matches!(effect, Effect::Rollback { context: of, .. } if *of == context);
        effects.iter().find(of).expect("it is rolled back").clone()
    };
    let Effect::Rollback { entered, code, why, cause: named, .. } = rollback(C) else { unreachable!("chosen above") };
    assert_eq!((entered, code, named), (Some(t), None, cause));
    let chain: Vec<(IntervalId, Because)> = why.iter().map(|link| (link.interval, link.because)).collect();
    let expected = [
        (partner, Because::Assumption(t)),
        (entry, Because::Base(joined)),
        (joined, Because::Dep(a)),
        (a, Because::Assumption(s)),
    ];
    assert_eq!(chain, expected);
    let Effect::Rollback { entered, code, .. } = rollback(A) else { unreachable!("chosen above") };
    assert_eq!((entered, code), (Some(s), Some(7)), "speculate returns again, with the code");
}

#[test]
fn an_explanation_has_a_limit() {
    let mut w = World::new();
    let (first, s) = w.speculate(A);
    let mut last = first;
    for round in 0..3 * WHY_LINKS_MAX {
        last = w.join(if round % 2 == 0 { B } else { C }, last);
    }
    let context = ContextId(9);
    let interval = w.new_interval();
    w.apply(Event::Open { context, interval, from: Some(last), sees: Sees::Follows });
    let lengths = w.abort(A, s).into_iter().filter_map(|effect| match effect {
        Effect::Rollback { why, .. } => Some(why.len()),
        _ => None,
    });
    assert_eq!(lengths.max(), Some(WHY_LINKS_MAX));
}

// Rule 6: rings.

#[test]
fn a_ring_becomes_final_together() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    w.read(A, b, Resume::Start);
    w.read(B, a, Resume::Start);
    assert_eq!(w.graph.visible(a), [a, b]);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.vote(B, t), finals(&[a, b], &[s, t]));
}

#[test]
fn a_ring_falls_together() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    w.read(A, b, Resume::Start);
    w.read(B, a, Resume::Start);
    assert_eq!(w.vote(A, s), []);
    let effects = w.abort(B, t);
    assert!(w.is_undone_by(&effects, &[a, b]));
    assert_eq!(w.graph.outcome(s), Some(Outcome::Aborted));
}

#[test]
fn owners_that_vote_from_inside_each_others_speculations_become_final_together() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let (a2, b2) = (w.join(A, b), w.join(B, a));
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.vote(B, t), finals(&[a, b, a2, b2], &[s, t]));
}
