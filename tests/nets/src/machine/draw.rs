//! Programs from a seed.

use super::{INNERMOST, Order, What};
use crate::random::Random;

const STEPS: usize = 300;

/// How often each is told.
const WEIGHTS: [(usize, What); 35] = [
    (4, What::Fill),
    (6, What::Resize),
    (4, What::Map),
    (4, What::Cut),
    (6, What::Protect),
    (5, What::Store),
    (3, What::GiveBack),
    (5, What::Grow),
    (5, What::Block),
    (3, What::Unblock),
    (3, What::Raise),
    (3, What::Send),
    (5, What::Queue),
    (5, What::Take),
    (2, What::Handle),
    (1, What::Start),
    (5, What::Open),
    (2, What::Close),
    (3, What::Dup),
    (6, What::Put),
    (3, What::Seek),
    (1, What::Appending),
    (5, What::Write),
    (3, What::Append),
    (2, What::Unlink),
    (2, What::Rename),
    (2, What::Link),
    (2, What::Truncate),
    (1, What::Child),
    (3, What::Shared),
    (1, What::Umask),
    (26, What::Enter),
    (26, What::Commit),
    (9, What::Abort),
    (4, What::Retry),
];

/// One program in so many is about levels above all.
const ABOUT_LEVELS: u64 = 3;

/// The program of a seed.
pub fn program(seed: u64) -> Vec<Order> {
    let mut random = Random(seed);
    let deep = seed.is_multiple_of(ABOUT_LEVELS);
    let weights = WEIGHTS.map(|(weight, what)| {
        let often = match what {
            What::Enter | What::Commit => 8,
            What::Abort | What::Retry => 3,
            _ => 1,
        };
        (if deep { weight * often } else { weight }, what)
    });
    (0..STEPS).map(|_| order(&mut random, &weights, deep)).collect()
}

/// `deep`: what is undone is one of the innermost levels, so that others stay open for long.
fn order(random: &mut Random, weights: &[(usize, What)], deep: bool) -> Order {
    let what = random.weighted(weights);
    let mut byte = || random.below(256) as u8;
    let (mut a, b, c) = (byte(), byte() % 16, byte());
    if deep && matches!(what, What::Abort | What::Retry) {
        a |= INNERMOST;
    }
    let number = match what {
        // The C library maps large pieces by themselves.
        What::Resize if random.one_in(3) => 1 + random.below(400_000),
        What::Resize => 1 + random.below(10_000),
        What::Append => random.below(3000),
        // Large ones lie in content files, small ones in records.
        _ if random.one_in(4) => random.below(40_000),
        _ => random.below(300),
    };
    Order { what, a, b, c, number: number as u32 }
}
