//! The rules, promise by promise. Contexts are named `A`, `B`, `C`; each begins with an interval that is final at once.

use mojavefs::codec;
use mojavefs::graph::{Because, Cause, Effect, Event, Graph, GraphError, Outcome, Owner, Resume};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::{OUTCOMES_KEPT_MAX, WHY_LINKS_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

const A: ContextId = ContextId(1);
const B: ContextId = ContextId(2);
const C: ContextId = ContextId(3);

/// A graph with contexts `A`, `B` and `C` running, and short ways to say what happens.
struct World {
    graph: Graph,
    last: u64,
}

impl World {
    fn new() -> Self {
        let mut world = World { graph: Graph::new(), last: 0 };
        for context in [A, B, C] {
            let interval = world.new_interval();
            let effects = world.apply(Event::Open { context, interval, from: None });
            assert_eq!(effects, [Effect::Final { intervals: vec![interval], specs: vec![] }]);
        }
        world
    }

    fn new_interval(&mut self) -> IntervalId {
        self.last += 1;
        IntervalId(self.last)
    }

    fn try_apply(&mut self, event: Event) -> Result<Vec<Effect>, GraphError> {
        let effects = self.graph.apply(&event);
        self.graph.check().expect("the graph is in order after every event");
        effects
    }

    fn apply(&mut self, event: Event) -> Vec<Effect> {
        self.try_apply(event.clone()).unwrap_or_else(|error| panic!("{event:?}: {error}"))
    }

    /// Enters a new speculation. Its number is that of its first entry.
    fn speculate(&mut self, context: ContextId) -> (IntervalId, SpecId) {
        let interval = self.new_interval();
        let spec = SpecId(interval.0);
        assert_eq!(self.apply(Event::Speculate { context, interval, spec }), []);
        (interval, spec)
    }

    fn co_own(&mut self, context: ContextId, spec: SpecId) -> IntervalId {
        let interval = self.new_interval();
        assert_eq!(self.apply(Event::CoOwn { context, interval, spec }), []);
        interval
    }

    /// Reads, with a checkpoint. The interval that the reader is in then.
    fn join(&mut self, context: ContextId, of: IntervalId) -> IntervalId {
        self.read(context, of, Resume::Here)
    }

    fn read(&mut self, context: ContextId, of: IntervalId, resume: Resume) -> IntervalId {
        let interval = self.new_interval();
        assert_eq!(self.apply(Event::Read { context, of, interval, resume }), []);
        self.graph.current(context).expect("it joined")
    }

    fn vote(&mut self, context: ContextId, spec: SpecId) -> Vec<Effect> {
        self.apply(Event::Vote { owner: Owner::Context(context), spec })
    }

    fn abort(&mut self, context: ContextId, spec: SpecId) -> Vec<Effect> {
        self.apply(abort(context, spec))
    }

    fn is_undone_by(&self, effects: &[Effect], gone: &[IntervalId]) -> bool {
        effects.iter().any(|effect| matches!(effect, Effect::Dead { intervals, .. } if intervals == gone))
            && gone.iter().all(|id| !self.graph.is_live(*id))
    }
}

fn abort(context: ContextId, spec: SpecId) -> Event {
    Event::Abort { owner: Owner::Context(context), spec, code: 1, retry: false }
}

fn finals(intervals: &[IntervalId], specs: &[SpecId]) -> Vec<Effect> {
    vec![Effect::Final { intervals: intervals.to_vec(), specs: specs.to_vec() }]
}

fn rolled_back(effects: &[Effect]) -> BTreeMap<ContextId, IntervalId> {
    let rollback = |effect: &Effect| match effect {
        Effect::Rollback { context, to, .. } => Some((*context, *to)),
        _ => None,
    };
    effects.iter().filter_map(rollback).collect()
}

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
    assert_eq!(w.graph.members(s), BTreeSet::from([B]));
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
    let (a, s) = w.speculate(A);
    let (b, _) = w.speculate(B);
    let joined = w.join(B, a);
    let (a2, t) = w.speculate(A);
    let (c, _) = w.speculate(C);
    assert_eq!(w.graph.visible(joined), [a, b, joined]);
    assert_eq!(w.graph.visible(a2), [a, a2]);
    assert_eq!(w.graph.visible(c), [c]);
    assert_eq!(w.graph.specs_under(a2), BTreeSet::from([s, t]));
    assert_eq!(w.graph.path(joined, a), Some(vec![joined, a]));
    assert_eq!(w.graph.path(joined, c), None);
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
        assert_eq!(w.apply(Event::Open { context: job, interval: first, from: Some(outer) }), []);
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
    assert_eq!(w.graph.members(t), BTreeSet::new());
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
    w.apply(Event::Open { context, interval, from: Some(last) });
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
fn holds_and_votes_survive_a_restart_and_nothing_else_does() {
    let mut w = World::new();
    let (held, s) = w.speculate(A);
    w.apply(Event::Hold { context: A, spec: s });
    let (job, first) = (ContextId(9), w.new_interval());
    w.apply(Event::Open { context: job, interval: first, from: Some(held) });
    let (inner, t) = w.speculate(job);
    assert_eq!(w.vote(job, t), []);
    let (undecided, u) = w.speculate(B);
    let reader = w.join(C, held);
    w.apply(Event::Conflict { spec: s });

    let bytes = codec::encode(&w.graph.held()).expect("a graph can be written down");
    let mut again: Graph = codec::decode(&bytes).expect("and read");
    again.check().expect("what was written is in order");
    assert_eq!([held, first, inner].map(|id| again.is_live(id)), [true; 3]);
    assert_eq!([undecided, reader].map(|id| again.is_live(id)), [false; 2]);
    assert!(!again.is_undecided(u) && again.is_in_conflict(s));
    again.apply(&Event::Resolve { spec: s }).expect("it is undecided");
    let effects = again.apply(&Event::Vote { owner: Owner::Store(A), spec: s }).expect("the store owns it");
    assert_eq!(effects, finals(&[held, first, inner], &[s, t]));
}

#[test]
fn a_hold_inside_something_undecided_does_not_survive_a_restart() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    w.join(B, a);
    let (_, t) = w.speculate(B);
    w.apply(Event::Hold { context: B, spec: t });
    assert_eq!(w.graph.held(), Graph::new());
}

#[test]
fn what_a_held_job_joined_and_lost_leaves_the_rest_of_it() {
    let mut w = World::new();
    let (held, s) = w.speculate(A);
    w.apply(Event::Hold { context: A, spec: s });
    let (b, _) = w.speculate(B);
    let joined = w.join(A, b);
    let left = w.graph.held();
    assert!(left.is_live(held) && !left.is_live(joined) && !left.is_live(b));
    assert_eq!(left.current(A), Some(held));
}

#[test]
fn a_broken_graph_is_not_taken_for_a_whole_one() {
    let mut w = World::new();
    let (_, s) = w.speculate(A);
    w.apply(Event::Hold { context: A, spec: s });
    let whole = codec::encode(&w.graph.held()).expect("a graph can be written down");
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

// Rule 9: waiting.

#[test]
fn a_barrier_inside_ones_own_undecided_speculation_would_never_end() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let b = w.join(B, a);
    let nobody = BTreeMap::new();
    assert!(w.graph.would_wait_forever(A, a, &nobody));
    assert!(!w.graph.would_wait_forever(B, b, &nobody), "a member's barrier ends with the owner's decision");
    w.co_own(C, s);
    w.vote(A, s);
    assert!(!w.graph.would_wait_forever(A, a, &nobody), "one that has voted may wait for the others");
}

#[test]
fn a_wait_that_would_close_a_cycle_is_noticed() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (b, _) = w.speculate(B);
    let (c, _) = w.speculate(C);
    let waits = BTreeMap::from([(B, c), (C, a)]);
    assert!(w.graph.would_wait_forever(A, b, &waits), "A on B on C on A");
    assert!(!w.graph.would_wait_forever(A, b, &BTreeMap::from([(B, c)])));
}

#[test]
fn a_cycle_closed_by_a_later_join_is_noticed() {
    let mut w = World::new();
    let (a, _) = w.speculate(A);
    let (b, t) = w.speculate(B);
    let waits = BTreeMap::from([(A, b)]);
    assert_eq!(w.graph.waiting_forever(&waits), []);
    w.join(B, a);
    w.vote(B, t);
    assert_eq!(w.graph.waiting_forever(&waits), [A], "B's vote needs A now, and A waits for B");
}

#[test]
fn waiting_for_what_the_store_holds_is_no_cycle() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    w.apply(Event::Hold { context: A, spec: s });
    assert!(!w.graph.would_wait_forever(B, a, &BTreeMap::from([(A, a)])));
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
    let (b, t) = w.speculate(B);
    let joined = w.join(B, a);
    w.abort(A, s);
    let before = w.graph.clone();
    let read = Event::Read { context: C, of: a, interval: IntervalId(99), resume: Resume::Here };
    assert_eq!(w.try_apply(read), Err(GraphError::NoInterval(a)));
    let open = Event::Open { context: ContextId(9), interval: IntervalId(99), from: Some(a) };
    assert_eq!(w.try_apply(open), Err(GraphError::NoInterval(a)));
    // B has been rolled back and does not know it yet: this vote was cast in an interval that never was.
    let vote = Event::Vote { owner: Owner::Context(B), spec: t };
    assert_eq!(w.graph.apply_sent_from(B, joined, &vote), Err(GraphError::NoInterval(joined)));
    assert_eq!(w.graph, before);
    assert_eq!(w.graph.apply_sent_from(B, b, &vote), Ok(finals(&[b], &[t])));
}

#[test]
fn a_context_undone_to_its_start_must_begin_again() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let (context, first) = (ContextId(9), w.new_interval());
    w.apply(Event::Open { context, interval: first, from: Some(a) });
    let effects = w.abort(A, s);
    assert_eq!(rolled_back(&effects).get(&context), Some(&first));
    let late = Event::Speculate { context, interval: IntervalId(99), spec: SpecId(99) };
    assert_eq!(w.try_apply(late), Err(GraphError::Undone(context)));
    let interval = w.new_interval();
    w.apply(Event::Open { context, interval, from: None });
    w.speculate(context);
}

#[test]
fn ids_are_used_once() {
    let mut w = World::new();
    let (a, s) = w.speculate(A);
    let interval = IntervalId(99);
    let used = [
        Event::Open { context: A, interval, from: None },
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
    assert_eq!(w.graph.preview(&vote), Ok(vec![s, t, u]));
    assert_eq!(w.graph, before);
    w.apply(Event::Conflict { spec: u });
    assert_eq!(w.apply(vote), finals(&[a, job, joined, b], &[s, t]));
    assert!(w.graph.is_live(c) && w.graph.is_undecided(u));
}

// What it costs.

#[test]
fn a_million_speculations_leave_nothing_behind() {
    let mut graph = Graph::new();
    graph.apply(&Event::Open { context: A, interval: IntervalId(1), from: None }).expect("A is new");
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
        graph.apply(&Event::Open { context, interval: IntervalId(2 * id), from: None }).expect("new ids");
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
