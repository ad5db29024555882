//! What one kernel is still to be told of others' changes, each thing once.

use crate::limits::INVALIDATED_NAMES_MAX;
use mojavefs::id::Ino;
use mojavefs::limits::INVALIDATIONS_MAX;
use mojavefs::protocol::Invalidation;

/// What a kernel must look up again.
#[derive(Default)]
pub(crate) struct InvalidationSet {
    pub(crate) what: Vec<Invalidation>,
    /// Too many names to keep them: all.
    pub(crate) all_names: bool,
    /// How many were left when it was last seen to that each is there once.
    tidy: usize,
}

impl InvalidationSet {
    pub(crate) fn add(&mut self, what: impl IntoIterator<Item = Invalidation>) {
        self.what.extend(what);
        if self.what.len() > INVALIDATIONS_MAX.max(2 * self.tidy) {
            self.sort_out();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.what.is_empty() && !self.all_names
    }

    /// One of the directories in which names change.
    pub(crate) fn directory(&self) -> Option<Ino> {
        self.what.iter().find_map(|what| match what {
            Invalidation::Entry { parent, .. } => Some(*parent),
            Invalidation::Inode(_) | Invalidation::Attributes(_) => None,
        })
    }

    fn sort_out(&mut self) {
        self.what.sort_by(|a, b| order(a).cmp(&order(b)));
        self.what.dedup();
        let is_name = |what: &Invalidation| matches!(what, Invalidation::Entry { .. });
        if self.what.iter().filter(|what| is_name(what)).count() > INVALIDATED_NAMES_MAX {
            self.all_names = true;
            self.what.retain(|what| !is_name(what));
        }
        self.tidy = self.what.len();
    }
}

fn order(what: &Invalidation) -> (Ino, u8, &[u8]) {
    match what {
        Invalidation::Inode(ino) => (*ino, 0, &[]),
        Invalidation::Attributes(ino) => (*ino, 1, &[]),
        Invalidation::Entry { parent, name } => (*parent, 2, name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: usize) -> Invalidation {
        Invalidation::Entry { parent: Ino::ROOT, name: number.to_string().into_bytes() }
    }

    #[test]
    fn what_is_added_again_and_again_takes_no_more_space() {
        let mut set = InvalidationSet::default();
        for round in 0..100 * INVALIDATIONS_MAX {
            set.add([name(round % 7), Invalidation::Inode(Ino(round as u64 % 7 + 2))]);
        }
        assert!(set.what.len() <= INVALIDATIONS_MAX && !set.all_names);
        for number in 0..7 {
            assert!(
                set.what.contains(&name(number)) && set.what.contains(&Invalidation::Inode(Ino(number as u64 + 2)))
            );
        }
    }

    #[test]
    fn beyond_a_bound_all_names_stand_for_each() {
        let mut set = InvalidationSet::default();
        for number in 0..4 * INVALIDATED_NAMES_MAX {
            set.add([name(number), Invalidation::Inode(Ino::ROOT)]);
        }
        assert!(
            set.all_names
                && set.what.len() <= 4 * INVALIDATED_NAMES_MAX
                && set.what.contains(&Invalidation::Inode(Ino::ROOT))
        );
    }
}
