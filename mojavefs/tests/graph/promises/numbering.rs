//! The numbers that changes carry, what a context sees by them, and folding.

use super::{A, B, World};
use mojavefs::graph::{Event, GraphError, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};

const INNER: ContextId = ContextId(9);

/// A context inside another, with a speculation of its own. Its first interval, its entry, and what it has entered.
fn begin_inside(w: &mut World, outer: IntervalId, sees: Sees) -> (IntervalId, IntervalId, SpecId) {
    let interval = w.new_interval();
    assert_eq!(w.apply(Event::Open { context: INNER, interval, from: Some(outer), sees }), []);
    let (entry, spec) = w.speculate(INNER);
    (interval, entry, spec)
}

fn number(w: &mut World, context: ContextId) -> IntervalId {
    let number = w.new_interval();
    assert_eq!(w.apply(Event::Number { context, number }), []);
    number
}

fn seen(w: &World, context: ContextId) -> Vec<IntervalId> {
    w.graph.seen_by(context).expect("something of it is undecided").numbers
}

#[test]
fn what_a_context_changes_carries_its_last_number() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    assert_eq!((w.graph.writer(A), seen(&w, A)), (Some(a), vec![a]));
    let later = number(&mut w, A);
    assert_eq!((w.graph.writer(A), seen(&w, A)), (Some(later), vec![a, later]));
    assert_eq!(w.graph.writer_of(later), Some(A));
    w.apply(Event::Number { context: A, number: a });
    assert_eq!(w.graph.writer(A), Some(a));
}

#[test]
fn a_number_is_one_contexts_and_none_once_that_is_decided() {
    let mut w = World::new();
    let (_, s) = w.speculate(A);
    let (b, _) = w.speculate(B);
    let later = number(&mut w, A);
    assert_eq!(w.try_apply(Event::Number { context: B, number: later }), Err(GraphError::InUse(later.0)));
    assert_eq!(w.try_apply(Event::Number { context: A, number: b }), Err(GraphError::InUse(b.0)));
    w.vote(A, s);
    assert_eq!(w.graph.writer_of(later), None);
    assert_eq!(w.try_apply(Event::Number { context: A, number: later }), Err(GraphError::NothingUndecided(A)));
}

#[test]
fn who_follows_sees_what_is_around_it_as_that_changes_and_who_stays_misses_it() {
    for (sees, follows) in [(Sees::Follows, true), (Sees::Found, false)] {
        let mut w = World::new();
        let (a, _) = w.speculate(A);
        let (first, entry, _) = begin_inside(&mut w, a, sees);
        let later = number(&mut w, A);
        let expected = if follows { vec![a, first, entry, later] } else { vec![a, first, entry] };
        let seen = w.graph.seen_by(INNER).expect("it is undecided");
        assert_eq!((seen.numbers, seen.missed), (expected, if follows { vec![] } else { vec![later] }));
        assert_eq!(w.graph.found_by(INNER), if follows { vec![a, later] } else { vec![a] });
    }
}

#[test]
fn what_was_found_before_a_restart_is_what_is_seen_after_it() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let later = number(&mut w, A);
    let (first, entry, _) = begin_inside(&mut w, a, Sees::Had(vec![a]));
    let seen = w.graph.seen_by(INNER).expect("it is undecided");
    assert_eq!((seen.numbers, seen.missed), (vec![a, first, entry], vec![later]));
}

#[test]
fn a_fold_leaves_the_numbers_to_the_one_around_and_nothing_else() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (first, entry, t) = begin_inside(&mut w, a, Sees::Follows);
    let size = w.graph.size();
    assert_eq!(w.apply(Event::Fold { context: INNER }), []);
    assert_eq!((w.graph.size().0, w.graph.size().1), (size.0 - 2, size.1 - 1));
    assert_eq!((w.graph.carried_by(A), w.graph.writer(A)), (vec![a, first, entry], Some(a)));
    assert!(!w.graph.is_undecided(t) && w.graph.outcome(t).is_none());
    let effects = w.vote(A, s);
    assert!(format!("{effects:?}").contains(&format!("{:?}", [a, first, entry])), "{effects:?}");
}

#[test]
fn who_built_on_what_was_folded_builds_on_what_took_it_in() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (_, entry, _) = begin_inside(&mut w, a, Sees::Follows);
    let (b, _) = w.speculate(B);
    let inside = ContextId(10);
    let interval = w.new_interval();
    w.apply(Event::Open { context: inside, interval, from: Some(entry), sees: Sees::Follows });
    w.join(B, entry);
    let before = [B, inside].map(|context| w.graph.seen_by(context));
    w.apply(Event::Fold { context: INNER });
    assert_eq!([B, inside].map(|context| w.graph.seen_by(context)), before, "they see what they saw");
    assert_eq!((w.graph.outer(inside), w.graph.inner(A).len()), (Some(A), 1));
    let effects = w.abort(A, s);
    let said = format!("{effects:?}");
    assert!(!w.graph.is_live(interval) && w.graph.is_live(b), "{said}");
}

#[test]
fn what_was_folded_hands_on_what_it_had_read() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    begin_inside(&mut w, a, Sees::Follows);
    let (b, t) = w.speculate(B);
    w.join(INNER, b);
    w.apply(Event::Fold { context: INNER });
    assert_eq!(w.graph.contexts_under(a), [A, B].into());
    assert_eq!(w.vote(A, s), [], "it waits for what it has read");
    assert!(format!("{:?}", w.vote(B, t)).contains(&format!("{:?}", [s, t])));
}

#[test]
fn what_is_shared_in_conflict_or_inside_of_nothing_open_is_not_folded() {
    let refused = Err(GraphError::CannotFold(INNER));
    let begin = || {
        let mut w = World::new();
        let (a, s) = w.speculate(A);
        let (_, _, t) = begin_inside(&mut w, a, Sees::Follows);
        assert_eq!(w.try_apply(Event::Fold { context: A }), Err(GraphError::CannotFold(A)));
        (w, s, t)
    };
    let (mut w, _, spec) = begin();
    w.apply(Event::Conflict { spec });
    assert_eq!(w.try_apply(Event::Fold { context: INNER }), refused);
    let (mut w, _, spec) = begin();
    w.speculate(B);
    let interval = w.new_interval();
    w.apply(Event::CoOwn { context: B, interval, spec });
    assert_eq!(w.try_apply(Event::Fold { context: INNER }), refused);
    let (mut w, spec, _) = begin();
    let (b, _) = w.speculate(B);
    w.join(A, b);
    w.vote(A, spec);
    assert_eq!(w.try_apply(Event::Fold { context: INNER }), refused, "nothing of A's is open any more");
}

#[test]
fn what_others_build_on_stays_apart_from_a_later_interval() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (_, entry, _) = begin_inside(&mut w, a, Sees::Follows);
    w.speculate(A);
    w.speculate(B);
    w.join(B, entry);
    assert_eq!(w.try_apply(Event::Fold { context: INNER }), Err(GraphError::CannotFold(INNER)));
}

#[test]
fn a_number_is_handed_over_to_the_one_before_it_unless_somebody_could_tell() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (_, entry, _) = begin_inside(&mut w, a, Sees::Follows);
    w.apply(Event::Fold { context: INNER });
    let first = IntervalId(entry.0 - 1);
    assert_eq!(w.try_apply(Event::Reassign { from: entry, to: a }), Err(GraphError::Apart(entry, a)));
    w.apply(Event::Discard { number: first });
    assert_eq!(w.graph.taker(entry), Some(a));
    let interval = w.new_interval();
    let context = ContextId(10);
    w.apply(Event::Open { context, interval, from: Some(a), sees: Sees::Had(vec![a]) });
    assert_eq!(w.try_apply(Event::Reassign { from: entry, to: a }), Err(GraphError::Apart(entry, a)));
    w.apply(Event::Close { context });
    let (context, interval) = (ContextId(11), w.new_interval());
    w.apply(Event::Open { context, interval, from: Some(a), sees: Sees::Found });
    assert_eq!(w.graph.taker(entry), Some(a), "it sees both");
    w.apply(Event::Reassign { from: entry, to: a });
    assert_eq!(w.graph.carried_by(A), [a]);
    assert_eq!(w.try_apply(Event::Discard { number: a }), Err(GraphError::Needed(a)));
}

#[test]
fn what_has_become_part_of_the_one_around_is_missed_as_its_own_changes_are() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    begin_inside(&mut w, a, Sees::Found);
    let (beside, interval) = (ContextId(10), w.new_interval());
    w.apply(Event::Open { context: beside, interval, from: Some(a), sees: Sees::Follows });
    let (entry, t) = w.speculate(beside);
    assert_eq!(w.graph.seen_by(INNER).map(|seen| seen.missed), Some(vec![]), "it may yet be undone");
    w.vote(beside, t);
    assert_eq!(w.graph.seen_by(INNER).map(|seen| seen.missed), Some(vec![interval, entry]));
    assert_eq!(w.graph.carried_by(A), [a, interval, entry]);
}
