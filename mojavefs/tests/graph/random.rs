//! Random histories against the model. A failure is shrunk, printed and kept in a file beside this one, which is tried
//! first from then on.

use crate::referee::Referee;
use mojavefs::graph::{Awaited, Event, Owner, Resume, Sees, Waits};
use mojavefs::id::{ContextId, IntervalId, SpecId};
use mojavefs::limits::NAIVE_INTERVALS_MAX;
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const CONTEXTS: u64 = 6;

/// An event whose ids are chosen by number among those there are when its turn comes.
#[derive(Clone, Debug)]
struct Choice {
    kind: u8,
    context: u8,
    spec: u8,
    interval: u8,
    variant: u8,
}

fn choice() -> impl Strategy<Value = Choice> {
    let kind = prop_oneof![
        3 => Just(0_u8), 6 => Just(1), 2 => Just(2), 10 => Just(3), 8 => Just(4), 2 => Just(5), 2 => Just(6),
        1 => Just(7), 2 => Just(8), 2 => Just(9), 4 => Just(10), 3 => Just(11), 5 => Just(12), 6 => Just(13), 2 => Just(14)
    ];
    let fields = (kind, any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>());
    fields.prop_map(|(kind, context, spec, interval, variant)| Choice { kind, context, spec, interval, variant })
}

struct Ids {
    interval: u64,
    spec: u64,
}

impl Choice {
    fn event(&self, referee: &Referee, ids: &mut Ids) -> Event {
        let context = ContextId(1 + u64::from(self.context) % CONTEXTS);
        let new = IntervalId(ids.interval + 1);
        let model = referee.model();
        let undecided: Vec<SpecId> = model.undecided().collect();
        // Now and then one that is decided or was never there.
        let spec = match self.variant % 16 {
            0 => SpecId(1 + u64::from(self.spec) % (ids.spec + 1)),
            _ => *undecided.get(usize::from(self.spec) % undecided.len().max(1)).unwrap_or(&SpecId(1)),
        };
        let live: Vec<IntervalId> = model.live().collect();
        let interval = match self.variant % 16 {
            0 => IntervalId(1 + u64::from(self.interval) % (ids.interval + 1)),
            _ => *live.get(usize::from(self.interval) % live.len().max(1)).unwrap_or(&IntervalId(1)),
        };
        let owners = referee.graph.owners(spec);
        let own = owners.get(usize::from(self.context) % owners.len().max(1)).map(|(owner, _)| *owner);
        let owner = match self.variant % 8 {
            1 => Owner::Context(context),
            2 => Owner::Store(context),
            _ => own.unwrap_or(Owner::Context(context)),
        };
        let running = model.is_running(context);
        let idle = live.is_empty() && !self.variant.is_multiple_of(16);
        let kind = if !running && (self.kind <= 3 || idle) {
            0
        } else if idle {
            1
        } else {
            self.kind
        };
        match kind {
            0 => Event::Open {
                context,
                interval: new,
                from: Some(interval).filter(|_| self.variant >= 96 && !idle),
                sees: self.sees(referee),
            },
            1 => Event::Speculate { context, interval: new, spec: SpecId(ids.spec + 1) },
            2 => Event::CoOwn { context, interval: new, spec },
            3 => Event::Read { context, of: interval, interval: new, resume: self.resume(referee, context) },
            4 => Event::Vote { owner, spec },
            5 => Event::Abort { owner, spec, code: i32::from(self.interval % 16), retry: self.variant > 128 },
            6 => Event::Hold { context: owner.context(), spec },
            7 => Event::Close { context },
            8 => Event::Conflict { spec },
            9 => Event::Resolve { spec },
            10 => Event::Number { context, number: if self.variant.is_multiple_of(8) { interval } else { new } },
            11 => Event::Fold { context },
            13 => Event::Prepare { owner, spec },
            14 => self.end(referee, spec),
            12 if self.variant % 4 == 3 => Event::Discard { number: self.carried(referee, self.interval) },
            _ => self.reassign(referee),
        }
    }

    /// What is sealed is confirmed, or not.
    fn end(&self, referee: &Referee, other: SpecId) -> Event {
        let model = referee.model();
        let sealing: Vec<SpecId> = model.undecided().filter(|spec| model.sealed(*spec).is_some()).collect();
        let spec = *sealing.get(usize::from(self.interval) % sealing.len().max(1)).unwrap_or(&other);
        if self.variant.is_multiple_of(3) { Event::Cancel { spec } } else { Event::Confirm { spec } }
    }

    fn sees(&self, referee: &Referee) -> Sees {
        match self.variant % 8 {
            3 => Sees::Found,
            7 => Sees::Had(vec![self.carried(referee, self.spec), self.carried(referee, self.context)]),
            _ => Sees::Follows,
        }
    }

    /// Most often of a number to the one before it.
    fn reassign(&self, referee: &Referee) -> Event {
        let from = self.carried(referee, self.interval);
        let before = referee.graph.taker(from).filter(|_| !self.variant.is_multiple_of(8));
        Event::Reassign { from, to: before.unwrap_or(self.carried(referee, self.spec)) }
    }

    /// Some number that an undecided change may carry.
    fn carried(&self, referee: &Referee, which: u8) -> IntervalId {
        let mut numbers: Vec<IntervalId> = referee.model().carried().map(|(number, _)| number).collect();
        numbers.sort_unstable();
        numbers.get(usize::from(which) % numbers.len().max(1)).copied().unwrap_or(IntervalId(1))
    }

    fn resume(&self, referee: &Referee, context: ContextId) -> Resume {
        let stack = referee.model().stack(context);
        match (self.variant / 16) % 4 {
            0 => Resume::Start,
            1 => Resume::At(*stack.get(usize::from(self.spec) % stack.len().max(1)).unwrap_or(&IntervalId(1))),
            _ => Resume::Here,
        }
    }
}

/// Whether an event begins something, so that its ids are used up.
fn begins(event: &Event, ids: &mut Ids) {
    match event {
        Event::Open { .. } | Event::CoOwn { .. } | Event::Read { .. } | Event::Number { .. } => ids.interval += 1,
        Event::Speculate { .. } => {
            ids.interval += 1;
            ids.spec += 1;
        }
        _ => {}
    }
}

fn play(choices: &[Choice], mut referee: Referee) {
    let mut ids = Ids { interval: 0, spec: 0 };
    let mut ended = Vec::new();
    for (at, choice) in choices.iter().enumerate() {
        let event = choice.event(&referee, &mut ids);
        // The ids of contexts are not used again, which the graph does not watch over.
        if matches!(event, Event::Open { context, .. } if ended.contains(&context)) {
            continue;
        }
        if referee.apply(&event).is_ok() {
            begins(&event, &mut ids);
            if let Event::Close { context } | Event::Fold { context } = event {
                ended.push(context);
            }
        }
        if at % 8 == 7 {
            referee.check_nesting();
            referee.check_waits(&waits(choice, &referee));
        }
    }
}

/// Some waits that may be under way: of each context for some live interval, for some other context's end, or for both.
fn waits(choice: &Choice, referee: &Referee) -> Waits {
    let contexts: Vec<ContextId> = referee.model().contexts().collect();
    let live: Vec<IntervalId> =
        contexts.iter().filter_map(|context| referee.model().stack(*context).last().copied()).collect();
    let waiting = |(at, context): (usize, &ContextId)| {
        let nth = at * 7 + usize::from(choice.interval);
        let on = live.get(nth % live.len().max(1)).copied().map(Awaited::Decision);
        let end = Some(Awaited::End(contexts[nth / 2 % contexts.len()]));
        let chosen = |bits: u8| (usize::from(bits) >> (at % 8)) & 1 == 1;
        let on = on.filter(|_| chosen(choice.variant)).into_iter().chain(end.filter(|_| chosen(choice.spec)));
        (*context, on.collect())
    };
    contexts.iter().enumerate().map(waiting).collect()
}

fn config() -> ProptestConfig {
    let failures = FileFailurePersistence::Direct(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/graph/random.failures"));
    ProptestConfig {
        cases: 10_000,
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(failures)),
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn random_histories_agree_with_the_model(
        choices in prop::collection::vec(choice(), 1..120),
        // Every other history is cut, and soon.
        intervals_max in prop_oneof![Just(NAIVE_INTERVALS_MAX), 0_usize..24],
    ) {
        play(&choices, Referee::remembering(intervals_max));
    }
}
