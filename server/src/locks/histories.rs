//! Random histories, held against the naive model.

use super::naive::{BYTES, Naive};
use super::table::{Asked, Table};
use crate::random::Random;
use mojavefs::id::{Ino, ViewId};
use mojavefs::protocol::{LockAsked, LockClass, LockMode, LockOwner, Span, Unlocked};

const HISTORIES: u64 = 3_000;
const STEPS: usize = 60;

fn asked(random: &mut Random) -> LockAsked {
    let class = if random.below(3) == 0 { LockClass::Whole } else { LockClass::Range };
    let (a, b) = (random.below(BYTES as usize) as u64, random.below(BYTES as usize) as u64);
    let span = match class {
        LockClass::Whole | LockClass::Program => Span { first: 0, last: u64::MAX },
        LockClass::Range => Span { first: a.min(b), last: if a.max(b) == BYTES - 1 { u64::MAX } else { a.max(b) } },
    };
    let mode = match random.below(5) {
        0 => None,
        1 | 2 => Some(LockMode::Shared),
        _ => Some(LockMode::Exclusive),
    };
    let number = random.below(3) as u64;
    // An open file has one owner of whole locks; a process uses several.
    let handle = if class == LockClass::Whole { number } else { random.below(3) as u64 };
    LockAsked { owner: LockOwner { class, number }, handle, pid: 1, span, mode }
}

/// The same, whoever is in the way.
fn kind(asked: Asked) -> u8 {
    match asked {
        Asked::Done => 0,
        Asked::Refused(_) => 1,
        Asked::Queued => 2,
        Asked::Deadlock => 3,
    }
}

fn history(seed: u64) {
    let mut random = Random::of(seed);
    let (mut table, mut naive) = (Table::default(), Naive::default());
    let mut waiting: Vec<(ViewId, Ino, LockAsked)> = Vec::new();
    let mut saved: Vec<(ViewId, Vec<(Ino, LockAsked)>)> = Vec::new();
    for step in 0..STEPS {
        let here = || format!("seed {seed}, step {step}");
        let (view, ino) = (ViewId(random.below(3) as u64), Ino(1 + random.below(2) as u64));
        match random.below(10) {
            0..=5 => {
                let (asked, waits) = (asked(&mut random), (random.below(2) == 0));
                let outcome = naive.ask(view, ino, &asked, waits);
                assert_eq!(kind(table.ask(view, ino, &asked, waits).0), kind(outcome), "{}: {asked:?}", here());
                if outcome == Asked::Queued {
                    waiting.push((view, ino, asked));
                }
            }
            6 if !waiting.is_empty() => {
                let (view, ino, asked) = waiting.swap_remove(random.below(waiting.len()));
                assert_eq!(table.leave(view, ino, &asked).0, naive.leave(view, ino, &asked), "{}", here());
            }
            7 => {
                let number = random.below(3) as u64;
                let class = if random.below(2) == 0 { LockClass::Whole } else { LockClass::Range };
                let whose = match random.below(2) == 0 {
                    true => Unlocked::Owner(LockOwner { class, number }),
                    false => Unlocked::Handle(number),
                };
                table.unlock(view, ino, whose);
                naive.unlock(view, ino, whose);
            }
            8 if random.below(3) == 0 => saved.push((view, table.of(view))),
            8 if random.below(2) == 0 && !saved.is_empty() => {
                let (view, locks) = saved.swap_remove(random.below(saved.len()));
                let has_all = table.put_back(view, &locks).1;
                assert_eq!(has_all, naive.put_back(view, &locks), "{}: {locks:?}", here());
                waiting.retain(|(of, ..)| *of != view);
            }
            8 if random.below(4) == 0 => {
                table.drop_view(view);
                naive.drop_view(view);
                waiting.retain(|(of, ..)| *of != view);
            }
            _ => {
                let asked = asked(&mut random);
                let (found, expected) = (table.test(view, ino, &asked), naive.obstacles(view, ino, &asked));
                assert_eq!(found.is_some(), !expected.is_empty(), "{}: {asked:?}", here());
                assert!(found.is_none_or(|found| expected.contains(&found.by)), "{}: {found:?}", here());
            }
        }
        // Those to whom something is offered ask again.
        waiting.retain(|(view, ino, asked)| {
            if !naive.is_offered(*view, *ino, asked) {
                return true;
            }
            assert_eq!(kind(table.ask(*view, *ino, asked, true).0), 0, "{}: {asked:?} is offered", here());
            assert_eq!(kind(naive.ask(*view, *ino, asked, true)), 0);
            false
        });
    }
}

#[test]
fn the_table_says_what_the_model_says() {
    (1..=HISTORIES).for_each(history);
}
