//! The speculations that a view has gone into, so that what is remembered of it here goes back with it.

use mojavefs::id::SpecId;

/// Where a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// How often the view went into a speculation or out of one: what was read while this changed may be of before or after.
    pub(crate) turns: u64,
    /// The entry of the innermost speculation that it is in; 0 for what it was opened for.
    pub(crate) since: u64,
}

/// Those that a view has entered and not left, the outermost first, each with the number of its entry.
#[derive(Default)]
pub(crate) struct Entered {
    open: Vec<(SpecId, u64)>,
    turns: u64,
}

impl Entered {
    pub(crate) fn place(&self) -> Place {
        Place { turns: self.turns, since: self.open.last().map_or(0, |(_, since)| *since) }
    }

    /// The numbers of the entries, in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = u64> {
        self.open.iter().map(|(_, since)| *since)
    }

    pub(crate) fn enter(&mut self, spec: SpecId) {
        self.turns += 1;
        self.open.push((spec, self.turns));
    }

    /// Leaves a speculation and those entered inside of it: they have become part of what is around them.
    pub(crate) fn keep(&mut self, spec: SpecId) {
        self.leave(spec);
    }

    /// The same for one that was undone: nothing that was read since the entry of which the number is returned holds any more.
    /// Of one that it had left already nobody knows what else was read since.
    pub(crate) fn undo(&mut self, spec: SpecId) -> u64 {
        self.leave(spec).unwrap_or(0)
    }

    fn leave(&mut self, spec: SpecId) -> Option<u64> {
        self.turns += 1;
        let at = self.open.iter().position(|(open, _)| *open == spec)?;
        let since = self.open[at].1;
        self.open.truncate(at);
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_undone_is_told_by_the_entry_since_which_it_was_read() {
        let mut entered = Entered::default();
        assert_eq!(entered.place().since, 0);
        entered.enter(SpecId(7));
        let outer = entered.place().since;
        entered.enter(SpecId(8));
        let inner = entered.place().since;
        assert!(0 < outer && outer < inner);
        entered.keep(SpecId(8));
        assert_eq!(entered.place().since, outer);
        entered.enter(SpecId(9));
        assert!(entered.place().since > inner, "it is told apart from one that was left");
        assert_eq!((entered.undo(SpecId(7)), entered.place().since), (outer, 0));
        assert_eq!(entered.undo(SpecId(7)), 0);
    }

    #[test]
    fn whatever_enters_or_leaves_is_noticed() {
        let mut entered = Entered::default();
        let before = entered.place();
        entered.enter(SpecId(7));
        entered.undo(SpecId(7));
        assert!(entered.place().since == before.since && entered.place() != before);
    }
}
