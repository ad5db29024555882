//! The end of processes, restarts, waiting, and cost.

use super::{A, B, C, World, abort, finals, rolled_back};
use mojavefs::graph::Awaited::{self, Decision, End};
use mojavefs::graph::{Cause, Effect, Event, Graph, GraphError, Outcome, Owner, Sees, Waits};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::OUTCOMES_KEPT_MAX;
use mojavefs::protocol::codec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

// Rule 7: the end of a context; holding.

#[test]
fn an_owner_that_ends_without_deciding_has_aborted() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (inner, t) = w.speculate(A);
    let b = w.join(B, inner);
    let effects = w.apply(Event::Close { context: A });
    assert!(w.is_undone_by(&effects, &[a, inner, b]));
    assert_eq!(rolled_back(&effects), BTreeMap::from([(B, b)]), "a context that is gone goes back nowhere");
    assert_eq!((w.graph.outcome(s), w.graph.outcome(t)), (Some(Outcome::Aborted), Some(Outcome::Aborted)));
    assert!(matches!(effects[0], Effect::Dead { cause: Cause::OwnerGone { spec }, .. } if spec == s));
}

#[test]
fn an_owner_that_has_voted_may_end() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.co_own(B, s);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.apply(Event::Close { context: A }), []);
    assert_eq!(w.vote(B, s), finals(&[a, b], &[s]));
    assert_eq!(w.graph.size(), (0, 0, 2));
}

#[test]
fn an_owner_that_has_ended_and_loses_its_vote_has_aborted() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let joined = w.join(A, b);
    let reader = w.join(C, a);
    assert_eq!(w.vote(A, s), []);
    assert_eq!(w.apply(Event::Close { context: A }), []);
    let effects = w.abort(B, t);
    assert!(w.is_undone_by(&effects, &[a, b, joined, reader]), "nobody is left to vote again");
    assert_eq!(w.graph.outcome(s), Some(Outcome::Aborted));
}

#[test]
fn of_a_context_that_is_gone_nothing_is_kept_that_nothing_builds_on() {
    let mut w = World::new();
    let (mut outer, _) = w.speculate(A);
    let outermost = outer;
    let mut entered = Vec::new();
    for context in (10..40).map(ContextId) {
        let interval = w.new_interval();
        assert_eq!(w.apply(Event::Open { context, interval, from: Some(outer), sees: Sees::Follows }), []);
        let (entry, spec) = w.speculate(context);
        entered.push((context, spec));
        outer = entry;
    }
    for (context, spec) in entered.into_iter().rev() {
        w.abort(context, spec);
        assert_eq!(w.apply(Event::Close { context }), []);
        assert!(w.graph.stack(context).is_empty(), "{context}");
    }
    assert_eq!(w.graph.stack(A), [outermost]);
    assert_eq!(w.graph.size(), (1, 1, 3));
}

#[test]
fn a_member_that_ends_changes_nothing_for_the_others() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    let c = w.join(C, b);
    assert_eq!(w.apply(Event::Close { context: B }), []);
    assert!(w.graph.is_live(b), "it is judged as before");
    assert_eq!(w.vote(A, s), finals(&[a, b, c], &[s]));
}

#[test]
fn a_held_speculation_survives_its_processes_and_is_decided_by_the_store() {
    for commits in [true, false] {
        let mut w = World::new();
        let (a, s) = w.speculate(A);
        assert_eq!(w.apply(Event::Hold { context: A, spec: s }), []);
        assert_eq!(w.apply(Event::Hold { context: A, spec: s }), [], "again is harmless");
        assert_eq!(w.apply(Event::Close { context: A }), []);
        assert_eq!(w.try_apply(abort(A, s)), Err(GraphError::NotOwner(s)));
        let owner = Owner::Store(A);
        match commits {
            true => assert_eq!(w.apply(Event::Vote { owner, spec: s }), finals(&[a], &[s])),
            false => {
                let effects = w.apply(Event::Abort { owner, spec: s, code: 1, retry: false });
                assert!(w.is_undone_by(&effects, &[a]));
            }
        }
    }
}

#[test]
fn a_held_speculation_falls_with_what_it_depends_on() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let joined = w.join(B, a);
    let (held, t) = w.speculate(B);
    w.apply(Event::Hold { context: B, spec: t });
    let effects = w.abort(A, s);
    assert!(w.is_undone_by(&effects, &[a, joined, held]));
    assert_eq!(w.graph.outcome(t), Some(Outcome::Aborted));
}

#[test]
fn a_broken_graph_is_not_taken_for_a_whole_one() {
    let mut w = World::new();
    let (_, s) = w.speculate(A);
    w.apply(Event::Hold { context: A, spec: s });
    let whole = codec::encode(&w.graph).expect("a graph can be written down");
    let mut refused = 0;
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            // Whatever was read, checking it answers.
            let read = codec::decode::<Graph>(&bytes);
            refused += usize::from(read.is_err() || read.is_ok_and(|graph| graph.check().is_err()));
        }
    }
    assert!(refused > whole.len(), "{refused} changed bits of {} bytes were noticed", whole.len());
}

// Rule 9: waiting.

#[test]
fn a_barrier_inside_ones_own_undecided_speculation_would_never_end() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    let nobody = Waits::new();
    assert!(w.graph.would_wait_forever(A, Decision(a), &nobody));
    assert!(!w.graph.would_wait_forever(B, Decision(b), &nobody), "a member's barrier ends with the owner's decision");
    w.co_own(C, s);
    w.vote(A, s);
    assert!(!w.graph.would_wait_forever(A, Decision(a), &nobody), "one that has voted may wait for the others");
}

fn waits<const N: usize>(of: [(ContextId, Awaited); N]) -> Waits {
    of.into_iter().map(|(waiter, on)| (waiter, BTreeSet::from([on]))).collect()
}

#[test]
fn a_wait_that_would_close_a_cycle_is_noticed() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (b, _) = w.speculate(B);
    let (c, _) = w.speculate(C);
    let both = waits([(B, Decision(c)), (C, Decision(a))]);
    assert!(w.graph.would_wait_forever(A, Decision(b), &both), "A on B on C on A");
    assert!(!w.graph.would_wait_forever(A, Decision(b), &waits([(B, Decision(c))])));
}

/// A job, and one that its command has started and waits for.
#[test]
fn a_cycle_over_nested_jobs_is_noticed() {
    const INNER: ContextId = ContextId(4);
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (b, _) = w.speculate(B);
    let interval = w.new_interval();
    w.apply(Event::Open { context: INNER, interval, from: Some(a), sees: Sees::Follows });
    let (inner, t) = w.speculate(INNER);
    let nested = (A, End(INNER));
    assert!(!w.graph.would_wait_forever(INNER, Decision(b), &waits([nested])));
    assert!(w.graph.would_wait_forever(B, Decision(a), &waits([nested, (INNER, Decision(b))])), "B on A on INNER on B");
    assert!(
        w.graph.would_wait_forever(INNER, Decision(b), &waits([nested, (B, Decision(a))])),
        "INNER on B on A on INNER"
    );
    assert!(!w.graph.would_wait_forever(B, Decision(a), &waits([(INNER, Decision(b))])), "A does not wait for it");
    assert!(
        w.graph.would_wait_forever(INNER, Decision(a), &waits([nested])),
        "it is part of A, which waits for its end"
    );
    let joined = w.join(B, inner);
    w.vote(INNER, t);
    assert!(w.graph.would_wait_forever(A, Decision(joined), &waits([])), "what B has read is A's");
}

#[test]
fn a_cycle_closed_by_a_later_join_is_noticed() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let waits = waits([(A, Decision(b))]);
    assert!(!w.graph.would_wait_forever(A, Decision(b), &waits));
    w.join(B, a);
    w.vote(B, t);
    assert!(w.graph.would_wait_forever(A, Decision(b), &waits), "B's vote needs A now, and A waits for B");
}

#[test]
fn waiting_for_what_the_store_holds_is_no_cycle() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    w.apply(Event::Hold { context: A, spec: s });
    assert!(!w.graph.would_wait_forever(B, Decision(a), &waits([(A, Decision(a))])));
}

// What it costs.

#[test]
fn a_million_speculations_leave_nothing_behind() {
    let mut graph = Graph::new();
    graph
        .apply(&Event::Open { context: A, interval: IntervalId(1), from: None, sees: Sees::Follows })
        .expect("A is new");
    let owner = Owner::Context(A);
    for id in 2..1_000_002 {
        let (interval, spec) = (IntervalId(id), SpecId(id));
        graph.apply(&Event::Speculate { context: A, interval, spec }).expect("new ids");
        let decision = match id % 2 {
            0 => Event::Vote { owner, spec },
            _ => Event::Abort { owner, spec, code: 1, retry: false },
        };
        graph.apply(&decision).expect("A owns it");
        assert_eq!(graph.size(), (0, 0, 1));
    }
    graph.check().expect("the graph is in order");
    let remembered = (2..1_000_002).filter(|id| graph.outcome(SpecId(*id)).is_some()).count();
    assert_eq!(remembered, OUTCOMES_KEPT_MAX);
    let long_ago = Event::Vote { owner, spec: SpecId(2) };
    assert_eq!(graph.apply(&long_ago), Err(GraphError::NoSpec(SpecId(2))));
}

#[test]
fn a_decision_costs_what_it_reaches_and_not_what_there_is() {
    let mut graph = Graph::new();
    for id in 1..=20_000 {
        let (context, spec) = (ContextId(id), SpecId(id));
        graph
            .apply(&Event::Open { context, interval: IntervalId(2 * id), from: None, sees: Sees::Follows })
            .expect("new ids");
        graph.apply(&Event::Speculate { context, interval: IntervalId(2 * id + 1), spec }).expect("new ids");
    }
    let owner = Owner::Context(A);
    let start = Instant::now();
    for id in 100_000..150_000 {
        let (interval, spec) = (IntervalId(id), SpecId(id));
        graph.apply(&Event::Speculate { context: A, interval, spec }).expect("new ids");
        let decision = match id % 2 {
            0 => Event::Abort { owner, spec, code: 1, retry: false },
            // Not final: A's first speculation is open.
            _ => Event::Vote { owner, spec },
        };
        graph.apply(&decision).expect("A owns it");
        if id % 2 == 1 {
            graph.apply(&Event::Abort { owner, spec, code: 1, retry: false }).expect("A owns it");
        }
    }
    // Far more than it takes, far less than looking at 20,000 speculations 100,000 times does.
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}
