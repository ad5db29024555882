//! The checker notices a graph that is wrong.

use mojavefs::graph::{Difference, Effect, Event, Graph, ModelChecker, Owner, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::{NAIVE_LIVE_MAX, WHY_LINKS_MAX};

const A: ContextId = ContextId(1);
const B: ContextId = ContextId(2);

fn open(context: ContextId, interval: u64) -> Event {
    Event::Open { context, interval: IntervalId(interval), from: None, sees: Sees::Follows }
}

fn speculate(context: ContextId, interval: u64, spec: u64) -> Event {
    Event::Speculate { context, interval: IntervalId(interval), spec: SpecId(spec) }
}

/// Something of every kind, each of which changes something.
fn history() -> Vec<Event> {
    let (one, two, three) = (SpecId(1), SpecId(2), SpecId(3));
    vec![
        open(A, 1),
        open(B, 2),
        speculate(A, 3, 1),
        speculate(B, 4, 2),
        Event::Read { context: B, of: IntervalId(3), interval: IntervalId(5), resume: Resume::Here },
        Event::Read { context: A, of: IntervalId(4), interval: IntervalId(6), resume: Resume::Start },
        Event::CoOwn { context: B, interval: IntervalId(7), spec: one },
        Event::Conflict { spec: one },
        Event::Vote { owner: Owner::Context(A), spec: one },
        Event::Vote { owner: Owner::Context(B), spec: one },
        Event::Hold { context: B, spec: two },
        Event::Vote { owner: Owner::Store(B), spec: two },
        Event::Resolve { spec: one },
        speculate(A, 8, 3),
        Event::Abort { owner: Owner::Context(A), spec: three, code: 1, retry: false },
        Event::Close { context: A },
        Event::Close { context: B },
    ]
}

/// Plays the history; the graph loses one of the events.
fn play(lost: Option<usize>) -> Result<(), Box<Difference>> {
    let (mut graph, mut checker) = (Graph::new(), ModelChecker::default());
    for (at, event) in history().iter().enumerate() {
        let before = graph.clone();
        checker.apply(&mut graph, event)?.expect("the history makes sense");
        if lost == Some(at) {
            graph = before;
        }
    }
    // Whatever comes next.
    checker.apply(&mut graph, &open(ContextId(9), 99)).map(drop)
}

#[test]
fn a_graph_that_loses_no_event_agrees_with_the_model() {
    play(None).unwrap_or_else(|difference| panic!("{difference}"));
}

#[test]
fn a_graph_that_loses_any_one_event_is_noticed_at_the_next() {
    let history = history();
    for lost in 0..history.len() {
        let difference = play(Some(lost)).expect_err(&format!("{:?} was lost and nobody noticed", history[lost]));
        let next = history.get(lost + 1).cloned().unwrap_or_else(|| open(ContextId(9), 99));
        assert_eq!(difference.event, next, "{difference}");
        assert_eq!(difference.late, history[..=lost], "{difference}");
        assert!(difference.to_string().contains("graph: ") && difference.to_string().contains("model: "));
    }
}

#[test]
fn an_explanation_that_reaches_its_limit_is_a_right_one() {
    let (mut graph, mut checker) = (Graph::new(), ModelChecker::default());
    let mut apply = |event: Event| {
        let answer = checker.apply(&mut graph, &event).unwrap_or_else(|difference| panic!("{difference}"));
        answer.expect("the history makes sense")
    };
    apply(open(A, 1));
    apply(speculate(A, 2, 1));
    for reader in 3..3 + 2 * WHY_LINKS_MAX as u64 {
        let (context, from) = (ContextId(reader), Some(IntervalId(reader - 1)));
        apply(Event::Open { context, interval: IntervalId(reader), from, sees: Sees::Follows });
    }
    let effects = apply(Event::Abort { owner: Owner::Context(A), spec: SpecId(1), code: 1, retry: false });
    let links = effects.iter().filter_map(|effect| match effect {
        Effect::Rollback { why, .. } => Some(why.len()),
        _ => None,
    });
    assert_eq!(links.max(), Some(WHY_LINKS_MAX));
}

#[test]
fn with_too_much_undecided_the_witness_gives_up_and_the_graph_goes_on() {
    let (mut graph, mut checker) = (Graph::new(), ModelChecker::default());
    let mut apply = |event: Event| {
        let answer = checker.apply(&mut graph, &event).unwrap_or_else(|difference| panic!("{difference}"));
        answer.expect("the graph has room");
        checker.gave_up()
    };
    assert!(!apply(open(A, 1)));
    for spec in 1..=NAIVE_LIVE_MAX as u64 {
        assert!(!apply(speculate(A, 1 + spec, spec)), "it gave up at {spec}");
    }
    let more = NAIVE_LIVE_MAX as u64 + 1;
    assert!(apply(speculate(A, 1 + more, more)));
    assert!(apply(Event::Close { context: A }));
    assert_eq!(graph.size(), (0, 0, 0));
}
