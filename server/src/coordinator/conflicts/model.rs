//! What conflicts should be, said anew from the whole history: every use of every object, and what its user saw.
//!
//! A use is in conflict with a change that is final, or was made by what is around its user, and that the user did not see,
//! whichever came first. It is not where what is around has seen the use and depends on its user, which comes first then. Contexts
//! that become final together are one history: that is wrong if it leads round in a ring who of them comes before whom, as the
//! one did not see the other's change.

use super::{Looks, Nesting};
use mojavefs::id::ContextId;
use std::collections::{BTreeMap, BTreeSet};

/// What a change carries: whose it was, and how often that context had begun a new number.
pub(super) type Number = (ContextId, usize);

#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) looks: Looks,
    pub(super) outer: Option<ContextId>,
    /// Becomes final with these, at the earliest, and with what is around it.
    pub(super) needs: BTreeSet<ContextId>,
    /// The numbers that its changes carry.
    numbers: BTreeSet<Number>,
    /// The last of its own.
    number: usize,
    /// Of one that stays with what it found: the changes that were final.
    snapshot: BTreeSet<usize>,
    /// And the numbers of those that were not.
    found: BTreeSet<Number>,
}

/// One use of one object, by its place in the history.
#[derive(Clone, Debug)]
struct Use {
    /// Nobody is a process outside every context. What has become part of what is around it is that one's.
    by: Option<ContextId>,
    object: u64,
    changes: bool,
    number: Option<Number>,
    /// It is answered for: only who stays with what it found does so for what it has only read.
    counts: bool,
    /// The earlier uses that it takes account of.
    saw: BTreeSet<usize>,
    /// Earlier ones that are no matter of conflict with it: both users join what they find.
    joined: BTreeSet<usize>,
    /// Under whose name it is noted; of what has become part of another, that one's after a sweep.
    noted: Option<ContextId>,
    /// Those that its user depended on when the change was made, or became part of what is around that.
    after: BTreeSet<ContextId>,
}

#[derive(Clone, Default, Debug)]
pub(super) struct Model {
    pub(super) contexts: BTreeMap<ContextId, Context>,
    history: BTreeMap<usize, Use>,
    finals: BTreeSet<usize>,
    next: usize,
}

impl Nesting for Model {
    fn inside(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.contexts.keys().copied().filter(|inner| Model::around(self, *inner).contains(&context)).collect()
    }

    fn around(&self, context: ContextId) -> BTreeSet<ContextId> {
        Model::around(self, context).into_iter().collect()
    }

    fn under(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.all_needed(context)
    }

    fn seen(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.contexts.keys().copied().filter(|other| self.sees(context, *other)).collect()
    }
}

impl Model {
    /// Those that one is inside of.
    fn around(&self, context: ContextId) -> Vec<ContextId> {
        let outer = |context: &ContextId| self.contexts.get(context)?.outer;
        std::iter::successors(outer(&context), outer).collect()
    }

    /// Whether it sees all that the other has changed so far.
    fn sees(&self, context: ContextId, other: ContextId) -> bool {
        match self.contexts[&context].looks {
            Looks::Joins | Looks::Follows => self.all_needed(context).contains(&other),
            Looks::Stays => self.contexts[&other].numbers.is_subset(&self.seen_numbers(context)),
        }
    }

    pub(super) fn all_needed(&self, context: ContextId) -> BTreeSet<ContextId> {
        self.needed_but(context, &[])
    }

    fn needed_but(&self, context: ContextId, left_out: &[ContextId]) -> BTreeSet<ContextId> {
        let mut needed = BTreeSet::new();
        let mut todo = vec![context];
        while let Some(at) = todo.pop() {
            let context = self.contexts.get(&at).filter(|_| !left_out.contains(&at) && needed.insert(at));
            todo.extend(context.into_iter().flat_map(|context| context.needs.iter().chain(&context.outer)));
        }
        needed
    }

    /// The numbers that one sees that stays with what it found: these, its own, and those of what it depends on in another way.
    fn seen_numbers(&self, context: ContextId) -> BTreeSet<Number> {
        let needed = self.needed_but(context, &self.around(context));
        let numbers = needed.iter().flat_map(|needed| &self.contexts[needed].numbers);
        numbers.chain(&self.contexts[&context].found).copied().collect()
    }

    pub(super) fn begin(&mut self, context: ContextId, looks: Looks, outer: Option<ContextId>) {
        let around = outer.and_then(|outer| Some((outer, self.contexts.get(&outer)?)));
        let (snapshot, found) = match around {
            None => (self.finals.clone(), BTreeSet::new()),
            Some((outer, it)) if it.looks == Looks::Stays => (it.snapshot.clone(), self.seen_numbers(outer)),
            Some((outer, _)) => {
                let needed = self.all_needed(outer);
                (self.finals.clone(), needed.iter().flat_map(|at| &self.contexts[at].numbers).copied().collect())
            }
        };
        let (numbers, needs) = (BTreeSet::from([(context, 0)]), BTreeSet::new());
        self.contexts.insert(context, Context { looks, outer, needs, numbers, number: 0, snapshot, found });
    }

    fn seen(&self, context: ContextId, earlier: usize) -> bool {
        let (it, earlier_use) = (&self.contexts[&context], &self.history[&earlier]);
        let Some(by) = earlier_use.by.filter(|_| !self.finals.contains(&earlier)) else {
            return it.looks != Looks::Stays || it.snapshot.contains(&earlier);
        };
        by == context
            || match it.looks {
                Looks::Joins => true,
                Looks::Follows => self.sees(context, by),
                Looks::Stays if self.around(context).contains(&by) => {
                    earlier_use.number.is_some_and(|number| it.found.contains(&number))
                }
                Looks::Stays => self.sees(context, by),
            }
    }

    /// Whether one that stays with what it found comes upon something newer, final or of what is around it.
    pub(super) fn finds_newer(&self, context: ContextId, object: u64) -> bool {
        let around = self.around(context);
        let is_there =
            |(at, a_use): &(&usize, &Use)| self.finals.contains(at) || a_use.by.is_some_and(|by| around.contains(&by));
        let changes = self.history.iter().filter(|(_, a_use)| a_use.object == object && a_use.changes);
        changes.filter(is_there).any(|(at, _)| !self.seen(context, *at))
    }

    pub(super) fn note(&mut self, by: Option<ContextId>, object: u64, changes: bool) {
        let is_known = |a_use: &Use| a_use.object == object && a_use.noted == by;
        let finds_newer = by.is_some_and(|by| self.contexts[&by].looks == Looks::Stays && self.finds_newer(by, object));
        if !changes && !finds_newer && self.history.values().any(is_known) {
            // Looking again at what it has used before says nothing new.
            return;
        }
        let earlier = self.history.iter().filter(|(_, earlier)| earlier.object == object).map(|(at, _)| *at);
        let saw: BTreeSet<usize> = earlier.filter(|at| by.is_none_or(|context| self.seen(context, *at))).collect();
        let found: BTreeSet<ContextId> =
            saw.iter().filter_map(|at| self.history[at].by.filter(|_| self.history[at].changes)).collect();
        match by.and_then(|context| self.contexts.get_mut(&context)) {
            Some(context) if context.looks == Looks::Joins => context.needs.extend(found),
            Some(_) => {}
            None => drop(self.finals.insert(self.next)),
        }
        let number = by.map(|by| (by, self.contexts[&by].number));
        let joins = |by: Option<ContextId>| by.is_some_and(|by| self.contexts[&by].looks == Looks::Joins);
        let both_join = |at: &usize| {
            let other = self.history[at].by.filter(|by| self.contexts.contains_key(by));
            joins(by) && joins(other)
        };
        let joined = saw.iter().copied().filter(both_join).collect();
        let counts = by.is_some_and(|by| changes || self.contexts[&by].looks == Looks::Stays);
        let after = by.map(|by| self.all_needed(by)).unwrap_or_default();
        self.history.insert(self.next, Use { by, object, changes, number, counts, saw, joined, noted: by, after });
        self.next += 1;
    }

    pub(super) fn need(&mut self, context: ContextId, other: ContextId) {
        self.contexts.get_mut(&context).expect("it is undecided").needs.insert(other);
    }

    /// Who can't commit, and over what.
    pub(super) fn standing(&self) -> BTreeSet<(ContextId, u64)> {
        let mut standing = BTreeSet::new();
        for (at, a_use) in &self.history {
            let Some(by) = a_use.by.filter(|by| self.contexts.contains_key(by) && a_use.counts) else { continue };
            let around = self.around(by);
            let stands = |(then, change): (&usize, &Use)| {
                let comes_first = change.saw.contains(at) && change.after.contains(&by);
                let is_around = change.by.is_some_and(|by| around.contains(&by)) && !comes_first;
                let unseen =
                    change.changes && change.by != Some(by) && !a_use.saw.contains(then) && !change.joined.contains(at);
                change.object == a_use.object && unseen && (is_around || self.finals.contains(then))
            };
            if self.history.iter().any(stands) {
                standing.insert((by, a_use.object));
            }
        }
        standing
    }

    /// Those of a set that come before themselves.
    pub(super) fn in_rings(&self, set: &BTreeSet<ContextId>) -> BTreeSet<ContextId> {
        let mut before: BTreeSet<(ContextId, ContextId)> = BTreeSet::new();
        let of_set = |(_, a_use): &(&usize, &Use)| a_use.by.is_some_and(|by| set.contains(&by));
        for (at, a_use) in self.history.iter().filter(of_set).filter(|(_, a_use)| a_use.counts) {
            for (then, change) in self.history.iter().filter(of_set).filter(|(_, change)| change.changes) {
                let apart = !a_use.saw.contains(then) && !change.saw.contains(at);
                if apart && a_use.object == change.object && a_use.by != change.by {
                    before.extend(a_use.by.zip(change.by));
                }
            }
        }
        loop {
            let further =
                before.iter().flat_map(|(a, b)| before.iter().filter(move |(c, _)| b == c).map(|(_, d)| (*a, *d)));
            let all: BTreeSet<_> = before.iter().copied().chain(further).collect();
            if all.len() == before.len() {
                return before.into_iter().filter(|(a, b)| a == b).map(|(a, _)| a).collect();
            }
            before = all;
        }
    }

    /// An inner context becomes part of the one around it, which writes on with a new number or with the one it had.
    pub(super) fn fold(&mut self, inner: ContextId, with_new_number: bool) {
        let needed = self.all_needed(inner);
        let inside: BTreeSet<ContextId> =
            self.contexts.keys().copied().filter(|at| self.around(*at).contains(&inner)).collect();
        let folded = self.contexts.remove(&inner).expect("it is undecided");
        let outer = folded.outer.expect("it is inside of another");
        for a_use in self.history.values_mut().filter(|a_use| a_use.by == Some(inner)) {
            a_use.by = Some(outer);
            a_use.after.retain(|other| inside.contains(other));
            a_use.after.extend(needed.difference(&inside));
        }
        let part_of = |context: ContextId| if context == inner { outer } else { context };
        for (at, context) in &mut self.contexts {
            context.outer = context.outer.map(part_of);
            if *at == outer {
                context.needs.extend(folded.needs.iter().copied());
                context.numbers.extend(&folded.numbers);
                context.number += usize::from(with_new_number);
                context.numbers.insert((outer, context.number));
            }
            context.needs = context.needs.iter().copied().map(part_of).filter(|need| need != at).collect();
        }
    }

    pub(super) fn sweep(&mut self) {
        self.history.values_mut().for_each(|a_use| a_use.noted = a_use.by);
    }

    pub(super) fn finish(&mut self, set: &BTreeSet<ContextId>) {
        let of_set = |a_use: &&Use| a_use.by.is_some_and(|by| set.contains(&by));
        self.finals.extend(self.history.iter().filter(|(_, a_use)| of_set(a_use)).map(|(at, _)| *at));
        let numbers: BTreeSet<Number> =
            set.iter().flat_map(|context| &self.contexts[context].numbers).copied().collect();
        self.forget(set);
        for context in self.contexts.values_mut().filter(|context| !context.found.is_disjoint(&numbers)) {
            // What it found is part of what is final now.
            context.snapshot.clone_from(&self.finals);
        }
    }

    /// Undoes a context and all that needs it. Returns them.
    pub(super) fn undo(&mut self, context: ContextId) -> BTreeSet<ContextId> {
        let needing = self.contexts.keys().copied().filter(|other| self.all_needed(*other).contains(&context));
        let dead: BTreeSet<ContextId> = needing.collect();
        self.history.retain(|_, a_use| a_use.by.is_none_or(|by| !dead.contains(&by)));
        self.forget(&dead);
        dead
    }

    fn forget(&mut self, set: &BTreeSet<ContextId>) {
        self.contexts.retain(|context, _| !set.contains(context));
        for context in self.contexts.values_mut() {
            context.needs.retain(|need| !set.contains(need));
            context.outer = context.outer.filter(|outer| !set.contains(outer));
        }
    }

    /// The objects that a context, with what has become part of it, has changed.
    pub(super) fn changed(&self, context: ContextId) -> BTreeSet<u64> {
        let changes = self.history.values().filter(|a_use| a_use.by == Some(context) && a_use.changes);
        changes.map(|a_use| a_use.object).collect()
    }
}
