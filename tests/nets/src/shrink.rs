//! Makes what fails smaller while it still fails.

use std::time::{Duration, Instant};

/// How long shrinking may take.
pub const SHRINK_TIME_MAX: Duration = Duration::from_secs(60);

/// The smallest part of `lines` found until the deadline that still fails: halves, quarters, …, single lines are left out.
pub fn shrink<T: Clone>(lines: &[T], deadline: Instant, still_fails: impl Fn(&[T]) -> bool) -> Vec<T> {
    let mut kept = lines.to_vec();
    let mut piece = kept.len().div_ceil(2);
    while piece > 0 {
        let before = kept.len();
        let mut at = 0;
        while at < kept.len() {
            if Instant::now() > deadline {
                return kept;
            }
            let end = (at + piece).min(kept.len());
            let without = [&kept[..at], &kept[end..]].concat();
            // The end is where it fails: what comes before is more often of no use.
            if still_fails(&without) {
                kept = without;
            } else {
                at = end;
            }
        }
        // A line may be of use only to one that has gone since.
        piece = match piece {
            1 if kept.len() < before => 1,
            _ => piece / 2,
        };
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_goes() {
        let lines: Vec<u32> = (0..100).collect();
        let deadline = Instant::now() + SHRINK_TIME_MAX;
        let fails = |lines: &[u32]| [7, 50, 51].iter().all(|needed| lines.contains(needed));
        assert_eq!(shrink(&lines, deadline, fails), [7, 50, 51]);
    }

    #[test]
    fn it_ends_in_time() {
        let lines: Vec<u32> = (0..100).collect();
        assert_eq!(shrink(&lines, Instant::now() - Duration::from_secs(1), |_| true), lines);
    }
}
