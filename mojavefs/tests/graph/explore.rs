//! Every interleaving of small cases. From every state that can be reached, every event is tried and held against the
//! model; states are the same if they differ by the names of intervals only.

use crate::referee::Referee;
use mojavefs::graph::{Event, Graph, Owner, Resume, Sees};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

/// How small.
struct Bounds {
    contexts: u64,
    /// How many of them run from the beginning.
    begun: u64,
    specs: u64,
    /// Undecided intervals at a time.
    live: usize,
    /// Events in a row.
    depth: usize,
    /// Explores further owners, holds and conflicts as well.
    rare: bool,
    /// Explores what changes are numbered with, and folding.
    numbers: bool,
    /// Explores decisions that are under way.
    rounds: bool,
}

#[derive(Clone)]
struct State {
    referee: Referee,
    opened: u64,
    /// Contexts 1 to this have done something; of the others, which are all alike, only the next one is tried.
    used: u64,
    specs: u64,
    intervals: u64,
    ended: BTreeSet<ContextId>,
    depth: usize,
}

/// What a state is, apart from the names of its intervals.
type Shape = (u64, u64, u64, BTreeSet<ContextId>, Vec<u8>);

fn shape(state: &State) -> Shape {
    let graph = &state.referee.graph;
    let live = (1..=state.intervals).map(IntervalId).filter(|id| graph.writer_of(*id).is_some());
    let names: BTreeMap<IntervalId, u64> = live.zip(1..).collect();
    (state.opened, state.used, state.specs, state.ended.clone(), renamed(graph, &names))
}

/// The graph as text with its intervals renamed: all of it, so that no difference is overlooked.
fn renamed(graph: &Graph, names: &BTreeMap<IntervalId, u64>) -> Vec<u8> {
    let text = format!("{graph:?}");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find("IntervalId(") {
        let (before, after) = rest.split_at(at + "IntervalId(".len());
        let end = after.find(')').expect("an id ends");
        let id = IntervalId(after[..end].parse().expect("an id is a number"));
        out.push_str(before);
        // One that is settled is named in a context only, where it matters no more which one it was.
        out.push_str(&names.get(&id).map_or("settled".to_string(), u64::to_string));
        rest = &after[end..];
    }
    out.push_str(rest);
    out.into_bytes()
}

/// The context that does it.
fn named(event: &Event) -> Option<u64> {
    match event {
        Event::Open { context, .. }
        | Event::Speculate { context, .. }
        | Event::CoOwn { context, .. }
        | Event::Read { context, .. }
        | Event::Hold { context, .. }
        | Event::Number { context, .. }
        | Event::Fold { context }
        | Event::Close { context } => Some(context.0),
        Event::Vote { owner, .. } | Event::Prepare { owner, .. } | Event::Abort { owner, .. } => {
            Some(owner.context().0)
        }
        Event::Conflict { .. } | Event::Resolve { .. } => None,
        Event::Confirm { .. } | Event::Cancel { .. } | Event::Reassign { .. } | Event::Discard { .. } => None,
    }
}

impl State {
    /// Every event that makes some sense here, and a few that make none.
    fn events(&self, bounds: &Bounds) -> Vec<Event> {
        let mut events = Vec::new();
        let new = IntervalId(self.intervals + 1);
        let model = self.referee.model();
        let live: Vec<IntervalId> = model.live().collect();
        let room = live.len() < bounds.live;
        if self.opened < bounds.contexts {
            let context = ContextId(self.opened + 1);
            events.push(Event::Open { context, interval: new, from: None, sees: Sees::Follows });
            if room {
                for sees in if bounds.numbers { &[Sees::Follows, Sees::Found][..] } else { &[Sees::Follows] } {
                    let open = |from: &IntervalId| Event::Open {
                        context,
                        interval: new,
                        from: Some(*from),
                        sees: sees.clone(),
                    };
                    events.extend(live.iter().map(open));
                }
            }
        }
        for context in self.acting().map(ContextId).filter(|context| !self.ended.contains(context)) {
            events.push(Event::Close { context });
            events.push(Event::Open { context, interval: new, from: None, sees: Sees::Follows });
            for of in &live {
                let resumes = if room { &[Resume::Here, Resume::Start][..] } else { &[Resume::Start] };
                events.extend(resumes.iter().map(|resume| Event::Read {
                    context,
                    of: *of,
                    interval: new,
                    resume: *resume,
                }));
            }
            if room && self.specs < bounds.specs {
                events.push(Event::Speculate { context, interval: new, spec: SpecId(self.specs + 1) });
            }
        }
        for spec in (1..=self.specs).map(SpecId) {
            self.decisions(spec, new, room, bounds.rare, &mut events);
            if bounds.rounds {
                let prepare = |context| Event::Prepare { owner: Owner::Context(ContextId(context)), spec };
                events.extend(self.acting().map(prepare));
                events.extend([Event::Confirm { spec }, Event::Cancel { spec }]);
            }
        }
        if bounds.numbers {
            self.numbers(new, bounds, &mut events);
        }
        events
    }

    fn numbers(&self, new: IntervalId, bounds: &Bounds, events: &mut Vec<Event>) {
        let numbers: Vec<IntervalId> = self.referee.model().carried().map(|(number, _)| number).collect();
        for context in self.acting().map(ContextId) {
            events.push(Event::Fold { context });
            if numbers.len() <= bounds.live {
                events.push(Event::Number { context, number: new });
            }
        }
        for from in &numbers {
            events.push(Event::Discard { number: *from });
            events.extend(numbers.iter().map(|to| Event::Reassign { from: *from, to: *to }));
        }
    }

    fn decisions(&self, spec: SpecId, new: IntervalId, room: bool, rare: bool, events: &mut Vec<Event>) {
        for context in self.acting().map(ContextId) {
            let owners = [Owner::Context(context), Owner::Store(context)];
            for owner in owners.into_iter().take(if rare { 2 } else { 1 }) {
                events.push(Event::Vote { owner, spec });
                events.push(Event::Abort { owner, spec, code: 1, retry: false });
            }
            if rare {
                events.push(Event::Hold { context, spec });
                events.push(Event::Abort { owner: Owner::Context(context), spec, code: 2, retry: true });
                if room {
                    events.push(Event::CoOwn { context, interval: new, spec });
                }
            }
        }
        if rare {
            events.push(Event::Conflict { spec });
            events.push(Event::Resolve { spec });
        }
    }

    fn acting(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.opened.min(self.used + 1)
    }

    fn after(&self, event: &Event) -> Option<State> {
        let mut next = self.clone();
        next.referee.apply(event).ok()?;
        next.depth += 1;
        next.used = next.used.max(named(event).unwrap_or_default());
        match event {
            Event::Open { context, .. } => {
                next.opened = next.opened.max(context.0);
                next.intervals += 1;
            }
            Event::Speculate { spec, .. } => {
                next.specs = spec.0;
                next.intervals += 1;
            }
            Event::CoOwn { .. } | Event::Read { .. } | Event::Number { .. } => next.intervals += 1,
            Event::Close { context } | Event::Fold { context } => {
                next.ended.insert(*context);
            }
            _ => {}
        }
        Some(next)
    }
}

fn explore(bounds: &Bounds) -> usize {
    let mut start = State {
        referee: Referee::default(),
        opened: 0,
        used: 0,
        specs: 0,
        intervals: 0,
        ended: BTreeSet::new(),
        depth: 0,
    };
    for id in 1..=bounds.begun {
        let begin = Event::Open { context: ContextId(id), interval: IntervalId(id), from: None, sees: Sees::Follows };
        start = start.after(&begin).expect("the first contexts begin");
    }
    start.used = 0;
    let last = start.depth + bounds.depth;
    let mut seen: HashSet<Shape> = HashSet::from([shape(&start)]);
    let mut todo = VecDeque::from([start]);
    while let Some(state) = todo.pop_front() {
        state.referee.check_nesting();
        for event in state.events(bounds) {
            if let Some(next) = state.after(&event)
                && next.depth < last
                && seen.insert(shape(&next))
            {
                todo.push_back(next);
            }
        }
    }
    seen.len()
}

fn explored(name: &str, bounds: &Bounds, at_least: usize) {
    let states = explore(bounds);
    println!("{name}: {states} states");
    assert!(states >= at_least, "{name}: {states} states only, {at_least} expected");
}

#[test]
fn every_interleaving_of_three_contexts_and_three_speculations_agrees_with_the_model() {
    explored(
        "all events",
        &Bounds { contexts: 3, begun: 3, specs: 3, live: 5, depth: 6, rare: true, numbers: false, rounds: false },
        14_000,
    );
}

#[test]
fn every_interleaving_of_two_contexts_agrees_with_the_model_further_down() {
    explored(
        "two contexts",
        &Bounds { contexts: 2, begun: 2, specs: 2, live: 4, depth: 8, rare: true, numbers: false, rounds: false },
        28_000,
    );
}

#[test]
fn every_interleaving_with_nested_contexts_agrees_with_the_model() {
    explored(
        "nested contexts",
        &Bounds { contexts: 3, begun: 1, specs: 3, live: 5, depth: 7, rare: false, numbers: false, rounds: false },
        14_000,
    );
}

#[test]
fn every_interleaving_of_folding_and_numbering_agrees_with_the_model() {
    let bounds =
        Bounds { contexts: 3, begun: 1, specs: 2, live: 4, depth: 6, rare: false, numbers: true, rounds: false };
    explored("numbers and folds", &bounds, 5_000);
}

#[test]
fn every_interleaving_of_plain_events_agrees_with_the_model_further_down() {
    explored(
        "plain events",
        &Bounds { contexts: 3, begun: 3, specs: 3, live: 5, depth: 7, rare: false, numbers: false, rounds: false },
        18_000,
    );
}

#[test]
fn every_interleaving_with_decisions_under_way_agrees_with_the_model() {
    let bounds =
        Bounds { contexts: 3, begun: 3, specs: 3, live: 4, depth: 7, rare: false, numbers: false, rounds: true };
    explored("decisions under way", &bounds, 5_000);
    let bounds =
        Bounds { contexts: 2, begun: 2, specs: 2, live: 4, depth: 7, rare: true, numbers: false, rounds: true };
    explored("decisions under way, further owners", &bounds, 5_000);
}
