//! Numbers that repeat for a seed.

/// A generator (splitmix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// One of them; there must be one.
    pub fn of<T: Clone>(&mut self, these: &[T]) -> T {
        these[self.below(these.len())].clone()
    }

    /// One of them, each as often as its weight says.
    pub fn weighted<T: Clone>(&mut self, these: &[(usize, T)]) -> T {
        let mut at = self.below(these.iter().map(|(weight, _)| weight).sum());
        for (weight, this) in these {
            match at.checked_sub(*weight) {
                Some(left) => at = left,
                None => return this.clone(),
            }
        }
        unreachable!("the number is below the sum of the weights")
    }
}
