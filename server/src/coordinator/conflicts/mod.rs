//! Conflicts between contexts that do not join each other (rule 11 and `--isolate`): noticed when a second one accesses an
//! object, effective when the first one becomes final.

#[cfg(test)]
mod histories;
mod kept;
#[cfg(test)]
mod model;
mod standing;
mod together;

pub(crate) use kept::Looming;
pub(crate) use standing::{Clash, Standing};

use super::accesses::{AccessIndex, Accessor, hash_key};
use crate::access::{Access, AccessKey};
use crate::order::{Ordered, Place};
use mojavefs::id::ContextId;
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::OnRead;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeSet, HashMap};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The conflicts of every undecided context.
pub(crate) struct Conflicts {
    index: AccessIndex,
    users: Ordered<RwLock<Users>>,
    noticed: Ordered<Mutex<Noticed>>,
    /// How many contexts are undecided: while none is, trunk pays nothing.
    undecided: AtomicUsize,
    /// There may be conflicts to write down.
    has_news: AtomicBool,
}

/// Whose the noted uses are by now.
#[derive(Default)]
struct Users {
    /// Every undecided context.
    undecided: HashMap<ContextId, Looks>,
    /// Contexts whose commit folded into an outer one: their accesses are the outer one's now.
    folded: HashMap<ContextId, ContextId>,
}

/// What a context does about others' undecided work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looks {
    /// It builds on that, or is refused: two of these never conflict with each other.
    Joins,
    /// It sees what is final, as it comes, and what it depends on in another way.
    Follows,
    /// It stays with what it found.
    Stays,
}

impl From<OnRead> for Looks {
    fn from(on_read: OnRead) -> Self {
        match (on_read.meets(), on_read.follows()) {
            (true, _) => Looks::Joins,
            (false, true) => Looks::Follows,
            (false, false) => Looks::Stays,
        }
    }
}

/// What the graph says of contexts.
pub(crate) trait Nesting {
    /// Those that were started inside one, or inside what was.
    fn inside(&self, context: ContextId) -> BTreeSet<ContextId>;
    /// Those that it is inside of.
    fn around(&self, context: ContextId) -> BTreeSet<ContextId>;
    /// Those that it depends on.
    fn under(&self, context: ContextId) -> BTreeSet<ContextId>;
    /// Those of which it sees all that they have changed so far.
    fn seen(&self, context: ContextId) -> BTreeSet<ContextId>;
}

#[derive(Default)]
struct Noticed {
    /// What turns into a conflict of another once this context becomes final.
    pending: HashMap<ContextId, BTreeSet<Pending>>,
    /// What keeps a context from committing.
    standing: HashMap<ContextId, Standing>,
    /// Contexts with conflicts that are not written down yet; what is not held needs no such record.
    news: BTreeSet<ContextId>,
}

/// One context has changed what another had used, or had used what another has changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
struct Pending {
    /// Whose use does not contain the change.
    loser: ContextId,
    clash: Clash,
    /// One of the two did not see the other's work where both used the object: they can't become final together in any order
    /// but this one, the loser first.
    apart: bool,
}

impl Noticed {
    fn stand(&mut self, context: ContextId, clash: Clash) {
        if self.standing.entry(context).or_default().add(clash) {
            self.news.insert(context);
        }
    }
}

impl Users {
    /// The undecided context that now stands for `context`; `None` if it was decided.
    fn effective(&self, mut context: ContextId) -> Option<ContextId> {
        while let Some(outer) = self.folded.get(&context) {
            context = *outer;
        }
        self.undecided.contains_key(&context).then_some(context)
    }

    fn joins(&self, context: ContextId) -> bool {
        self.undecided.get(&context) == Some(&Looks::Joins)
    }
}

impl Conflicts {
    pub(crate) fn new() -> Self {
        Conflicts {
            index: AccessIndex::new(),
            users: Ordered::rw_lock(Place::Users, Users::default()),
            noticed: Ordered::mutex(Place::Noticed, Noticed::default()),
            undecided: AtomicUsize::new(0),
            has_news: AtomicBool::new(false),
        }
    }

    /// A context begins.
    pub(crate) fn open(&self, context: ContextId, looks: Looks) {
        self.users.write().undecided.insert(context, looks);
        self.undecided.fetch_add(1, Ordering::SeqCst);
    }

    /// Who loses by it if a process outside every context changes an object.
    pub(crate) fn losers_to_trunk(&self, key: &AccessKey, how: Access) -> Vec<(ContextId, Clash)> {
        if self.undecided.load(Ordering::SeqCst) == 0 || !how.changes() {
            return Vec::new();
        }
        let accessors = self.index.accessors(hash_key(key));
        let users = self.users.read();
        let losers = accessors.into_iter().filter(|t| t.how.conflicts_with(how));
        let clash = |by: Accessor| Clash { key: key.clone(), changed: by.how.changes() };
        losers.filter_map(|by| Some((users.effective(by.context)?, clash(by)))).collect()
    }

    /// A process outside every context changed an object.
    pub(crate) fn accessed_on_trunk(&self, key: &AccessKey, how: Access) {
        for (loser, clash) in self.losers_to_trunk(key, how) {
            self.stand(loser, clash);
        }
    }

    /// `context` has written over what others did to an object, which it had not seen.
    pub(crate) fn wrote_over_others(&self, context: ContextId, key: AccessKey) {
        if let Some(context) = self.users.read().effective(context) {
            self.stand(context, Clash { key, changed: true });
        }
    }

    /// A conflict that the caller writes down at once. Whether it has to be.
    pub(crate) fn foresee(&self, context: ContextId, clash: Clash) -> bool {
        self.noticed.lock().standing.entry(context).or_default().add(clash)
    }

    /// What will keep contexts from committing once these others are final, for those that lose by it.
    pub(crate) fn of_losers(&self, winners: &[ContextId]) -> HashMap<ContextId, Standing> {
        let users = self.users.read();
        let noticed = self.noticed.lock();
        let mut losers: HashMap<ContextId, Standing> = HashMap::new();
        for Pending { loser, clash, .. } in winners.iter().filter_map(|winner| noticed.pending.get(winner)).flatten() {
            let Some(loser) = users.effective(*loser) else { continue };
            let known = || noticed.standing.get(&loser).cloned().unwrap_or_default();
            losers.entry(loser).or_insert_with(known).add(clash.clone());
        }
        losers
    }

    /// `context` used an object; `newer_final`: something newer than its snapshot was final already. The graph is asked only
    /// if others have used it, too.
    pub(crate) fn accessed<G: Deref<Target: Nesting>>(
        &self,
        context: ContextId,
        key: AccessKey,
        how: Access,
        newer_final: bool,
        graph: impl FnOnce() -> G,
    ) {
        if newer_final && how != Access::Update {
            self.stand(context, Clash { key: key.clone(), changed: how.changes() });
        }
        let hash = hash_key(&key);
        let others = match self.index.note(hash, context, how) {
            Some(others) => others,
            None if how.changes() => self.index.accessors(hash),
            None => return,
        };
        if others.iter().all(|other| other.context == context) {
            return;
        }
        // Before the users are locked: whoever has the graph looks into them.
        let graph = graph();
        let users = self.users.read();
        let Some(me) = users.effective(context) else { return };
        let (joins, around, inside) = (users.joins(me), graph.around(me), graph.inside(me));
        // A joiner has joined whatever it found changed. That matters only for what is inside of it.
        let seen = match joins {
            true if inside.is_empty() => BTreeSet::new(),
            true => graph.under(me),
            false => graph.seen(me),
        };
        self.index.settle_one(hash, |context| users.effective(context));
        for other in others.into_iter().filter(|t| t.how.conflicts_with(how)) {
            let Some(them) = users.effective(other.context).filter(|them| *them != me) else { continue };
            let is_inside = inside.contains(&them);
            // It comes after what the other one did, and has that.
            let is_joined = joins && users.joins(them);
            let has = around.contains(&them) || is_joined || (is_inside || !joins) && seen.contains(&them);
            if !has {
                self.meet((me, joins), how, Accessor { context: them, ..other }, is_inside, &key);
            }
        }
    }

    /// One context uses what another has used, and does not have all that this did. That one may run inside of it.
    fn meet(&self, (me, joins): (ContextId, bool), how: Access, them: Accessor, is_inside: bool, key: &AccessKey) {
        let clash = |changed: bool| Clash { key: key.clone(), changed };
        if is_inside {
            if how.changes() {
                self.stand(them.context, clash(them.how.changes()));
            }
            return;
        }
        let mut is_new = false;
        // A joiner has what the other has changed so far, and only what that changes later is apart from it.
        let apart = !joins;
        if how.changes() {
            is_new |= self.pend(me, Pending { loser: them.context, clash: clash(them.how.changes()), apart });
        }
        if them.how.changes() && apart {
            is_new |= self.pend(them.context, Pending { loser: me, clash: clash(how.changes()), apart });
        }
        if is_new {
            self.outdated(me);
        }
    }

    fn stand(&self, context: ContextId, clash: Clash) {
        self.noticed.lock().stand(context, clash);
        self.has_news.store(true, Ordering::SeqCst);
    }

    /// Whether it was not known.
    fn pend(&self, winner: ContextId, pending: Pending) -> bool {
        !is_planted(Planted::ConflictUnnoticed)
            && self.noticed.lock().pending.entry(winner).or_default().insert(pending)
    }

    /// What is written down of a held context is not all of it any more.
    pub(crate) fn outdated(&self, context: ContextId) {
        self.noticed.lock().news.insert(context);
        self.has_news.store(true, Ordering::SeqCst);
    }

    /// The contexts of which more is to be written down since this was asked last.
    pub(crate) fn take_news(&self) -> BTreeSet<ContextId> {
        match self.has_news.swap(false, Ordering::SeqCst) {
            true => std::mem::take(&mut self.noticed.lock().news),
            false => BTreeSet::new(),
        }
    }

    /// What keeps `context` from committing.
    pub(crate) fn of(&self, context: ContextId) -> Standing {
        self.noticed.lock().standing.get(&context).cloned().unwrap_or_default()
    }

    /// Adds conflicts and reads that a held context had before a restart.
    pub(crate) fn restore(
        &self,
        context: ContextId,
        standing: Standing,
        reads: &[u64],
        changes: impl Iterator<Item = (AccessKey, Access)>,
    ) {
        for hash in reads {
            self.index.note(*hash, context, Access::Read);
        }
        for (key, how) in changes {
            self.index.note(hash_key(&key), context, how);
        }
        if !standing.is_empty() && !is_planted(Planted::ConflictsLostAtRestart) {
            self.noticed.lock().standing.insert(context, standing);
        }
    }

    /// The hashes of what `context`, and what folded into it, saw.
    pub(crate) fn reads_of(&self, context: ContextId) -> Vec<u64> {
        let users = self.users.read();
        self.index.reads_of(|c| users.effective(c) == Some(context))
    }

    /// An inner context's commit folded into `outer`: what it accessed counts as the outer one's, and its siblings that
    /// accessed the same conflict now, but for those that it builds on and whose work it had seen where it touched it.
    pub(crate) fn fold(&self, inner: ContextId, outer: ContextId, graph: &impl Nesting) {
        let (inside, under) = (graph.inside(outer), graph.under(inner));
        let mut users = self.users.write();
        let mut noticed = self.noticed.lock();
        for Pending { loser, clash, apart } in noticed.pending.remove(&inner).unwrap_or_default() {
            let Some(loser) = users.effective(loser) else { continue };
            if inside.contains(&loser) {
                if !apart && under.contains(&loser) {
                    continue;
                }
                noticed.stand(loser, clash);
                self.has_news.store(true, Ordering::SeqCst);
            } else if loser != outer {
                noticed.pending.entry(outer).or_default().insert(Pending { loser, clash, apart });
            }
        }
        if let Some(standing) = noticed.standing.remove(&inner).filter(|standing| !standing.is_empty()) {
            noticed.standing.entry(outer).or_default().merge(standing);
        }
        users.undecided.remove(&inner);
        users.folded.insert(inner, outer);
        self.undecided.fetch_sub(1, Ordering::SeqCst);
    }

    /// `context` became final (or, with `dead`, was undone): what it changed stands, or never was.
    pub(crate) fn decided(&self, context: ContextId, dead: bool) {
        let mut users = self.users.write();
        let mut noticed = self.noticed.lock();
        if users.undecided.remove(&context).is_some() {
            self.undecided.fetch_sub(1, Ordering::SeqCst);
        }
        noticed.standing.remove(&context);
        let pending = noticed.pending.remove(&context).unwrap_or_default();
        for Pending { loser, clash, .. } in pending.into_iter().filter(|_| !dead) {
            if let Some(loser) = users.effective(loser) {
                noticed.stand(loser, clash);
                self.has_news.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Forgets what decided contexts accessed or would have lost by. Cost: the whole index; called in the background. `alone`
    /// returns once nobody is about to use what was looked up before.
    pub(crate) fn sweep<G>(&self, alone: impl FnOnce() -> G) {
        let folded: Vec<ContextId> = self.users.read().folded.keys().copied().collect();
        self.index.settle(|| {
            let users = self.users.read();
            move |context| users.effective(context)
        });
        let users = self.users.write();
        for pending in self.noticed.lock().pending.values_mut() {
            let effective = |pending: Pending| Some(Pending { loser: users.effective(pending.loser)?, ..pending });
            *pending = std::mem::take(pending).into_iter().filter_map(effective).collect();
        }
        drop(users);
        // Nothing names them any more.
        let _alone = alone();
        let mut users = self.users.write();
        folded.iter().for_each(|inner| _ = users.folded.remove(inner));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::id::Ino;
    use mojavefs::limits::CONFLICTS_MAX;

    const A: ContextId = ContextId(1);
    const B: ContextId = ContextId(2);
    const INNER: ContextId = ContextId(3);

    fn file(ino: u64) -> AccessKey {
        AccessKey::Inode(Ino(ino))
    }

    /// Some are inside A, and INNER may depend on one.
    struct Nested {
        joined: Option<ContextId>,
    }

    const NESTED: Nested = Nested { joined: None };
    const SIBLING: ContextId = ContextId(4);

    impl Nesting for Nested {
        fn inside(&self, context: ContextId) -> BTreeSet<ContextId> {
            if context == A { BTreeSet::from([INNER, SIBLING]) } else { BTreeSet::new() }
        }

        fn around(&self, context: ContextId) -> BTreeSet<ContextId> {
            [A].into_iter().filter(|_| [INNER, SIBLING].contains(&context)).collect()
        }

        fn under(&self, context: ContextId) -> BTreeSet<ContextId> {
            self.joined.into_iter().filter(|_| context == INNER).chain(self.around(context)).collect()
        }

        fn seen(&self, context: ContextId) -> BTreeSet<ContextId> {
            self.under(context)
        }
    }

    fn two() -> Conflicts {
        let conflicts = Conflicts::new();
        conflicts.open(A, Looks::Stays);
        conflicts.open(B, Looks::Stays);
        conflicts
    }

    #[test]
    fn the_first_to_commit_wins() {
        let conflicts = two();
        conflicts.accessed(A, file(1), Access::Write, false, || &NESTED);
        conflicts.accessed(B, file(1), Access::Write, false, || &NESTED);
        assert!(conflicts.of(A).is_empty() && conflicts.of(B).is_empty());
        conflicts.decided(A, false);
        assert!(!conflicts.of(B).is_empty());
    }

    #[test]
    fn an_abort_leaves_no_conflict() {
        let conflicts = two();
        conflicts.accessed(A, file(1), Access::Write, false, || &NESTED);
        conflicts.accessed(B, file(1), Access::Read, false, || &NESTED);
        conflicts.decided(A, true);
        assert!(conflicts.of(B).is_empty());
    }

    #[test]
    fn readers_and_makers_of_different_names_do_not_meet() {
        let conflicts = two();
        for context in [A, B] {
            conflicts.accessed(context, file(1), Access::Read, false, || &NESTED);
            conflicts.accessed(context, AccessKey::Listing(Ino(2)), Access::Update, false, || &NESTED);
        }
        conflicts.decided(A, false);
        assert!(conflicts.of(B).is_empty());
    }

    #[test]
    fn trunk_wins_at_once() {
        let conflicts = two();
        conflicts.accessed(A, file(1), Access::Read, false, || &NESTED);
        for ino in [1, 2] {
            conflicts.accessed_on_trunk(&file(ino), Access::Write);
        }
        assert_eq!(conflicts.of(A).clashes.into_iter().collect::<Vec<_>>(), [(file(1), false)]);
    }

    #[test]
    fn an_inner_job_builds_on_the_outer_one() {
        let conflicts = two();
        conflicts.accessed(A, file(1), Access::Write, false, || &NESTED);
        conflicts.open(INNER, Looks::Stays);
        conflicts.accessed(INNER, file(1), Access::Write, false, || &NESTED);
        assert!(conflicts.of(INNER).is_empty());
        conflicts.accessed(A, file(1), Access::Write, false, || &NESTED);
        assert!(!conflicts.of(INNER).is_empty());
    }

    #[test]
    fn what_folds_into_the_outer_job_conflicts_through_it() {
        let conflicts = two();
        conflicts.open(INNER, Looks::Stays);
        conflicts.accessed(INNER, file(1), Access::Write, false, || &NESTED);
        conflicts.accessed(B, file(1), Access::Write, false, || &NESTED);
        conflicts.fold(INNER, A, &NESTED);
        assert!(conflicts.of(B).is_empty());
        conflicts.decided(B, false);
        assert!(!conflicts.of(A).is_empty());
        conflicts.decided(A, true);
        conflicts.sweep(|| ());
        assert!(conflicts.users.read().folded.is_empty());
    }

    #[test]
    fn of_siblings_the_one_that_was_built_on_comes_first() {
        for (sees, is_built_on_last) in [(true, false), (true, true), (false, true)] {
            let conflicts = two();
            conflicts.open(INNER, Looks::Joins);
            conflicts.open(SIBLING, Looks::Stays);
            conflicts.accessed(SIBLING, file(1), Access::Write, false, || &NESTED);
            conflicts.accessed(INNER, file(1), Access::Write, false, || &NESTED);
            if !is_built_on_last {
                conflicts.accessed(SIBLING, file(1), Access::Write, false, || &NESTED);
            }
            conflicts.fold(INNER, A, &Nested { joined: sees.then_some(SIBLING) });
            assert_eq!(conflicts.of(SIBLING).is_empty(), sees && is_built_on_last);
        }
    }

    #[test]
    fn nothing_is_kept_for_losers_that_are_decided() {
        let conflicts = two();
        conflicts.accessed(A, file(1), Access::Write, false, || &NESTED);
        for round in 0..3 {
            let loser = ContextId(10 + round);
            conflicts.open(loser, Looks::Stays);
            conflicts.accessed(loser, file(1), Access::Read, false, || &NESTED);
            conflicts.decided(loser, true);
        }
        conflicts.accessed(B, file(1), Access::Read, false, || &NESTED);
        conflicts.sweep(|| ());
        assert_eq!(conflicts.noticed.lock().pending[&A].len(), 1);
        conflicts.decided(A, false);
        assert!(!conflicts.of(B).is_empty());
    }

    #[test]
    fn a_sweep_leaves_nothing_of_what_was_folded_but_its_uses() {
        let conflicts = two();
        conflicts.open(INNER, Looks::Stays);
        conflicts.accessed(INNER, file(1), Access::Read, false, || &NESTED);
        conflicts.fold(INNER, A, &NESTED);
        conflicts.sweep(|| ());
        assert!(conflicts.users.read().folded.is_empty());
        conflicts.accessed_on_trunk(&file(1), Access::Write);
        assert!(!conflicts.of(A).is_empty());
    }

    #[test]
    fn what_is_in_conflict_already_is_no_news() {
        let conflicts = two();
        let objects = CONFLICTS_MAX as u64 + 20;
        (0..objects).for_each(|ino| conflicts.accessed(A, file(ino), Access::Read, false, || &NESTED));
        let mut written_down = 0;
        for ino in (0..objects).chain(0..objects) {
            conflicts.accessed_on_trunk(&file(ino), Access::Write);
            written_down += conflicts.take_news().len();
        }
        assert_eq!(written_down, CONFLICTS_MAX + 1, "that there are more than are named is one piece of news");
        assert_eq!(conflicts.of(A).more, 20);
    }
}
