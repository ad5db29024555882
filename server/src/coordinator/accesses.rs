//! Who has accessed what: the index that notices a conflict when it arises, so that a commit need not search for one.

use crate::access::{Access, AccessKey};
use mojavefs::id::ContextId;
use mojavefs::planted::{Planted, is_planted};
use parking_lot::Mutex;
use std::collections::HashMap;
use xxhash_rust::xxh3::Xxh3;

const SHARDS: usize = 32;

/// Every object accessed by a context that is still undecided, by the hash of its key.
///
/// Contexts are forgotten lazily: [`AccessIndex::settle`] sweeps out those that were decided, so that a decision costs the
/// same however much a job accessed.
pub(crate) struct AccessIndex {
    shards: [Mutex<HashMap<u64, Accessors>>; SHARDS],
}

/// The contexts that accessed one object; nearly always one.
struct Accessors {
    first: Accessor,
    more: Vec<Accessor>,
    /// How many were left when it was last looked at who still counts.
    settled: usize,
}

/// Up to so many contexts are kept of one object without a look at who of them still counts.
const UNSETTLED_MAX: usize = 16;

/// One context's use of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accessor {
    /// The context.
    pub(crate) context: ContextId,
    /// All its uses together.
    pub(crate) how: Access,
}

/// The hash under which an object is indexed; part of the stored format, since held speculations take their reads along.
/// Two objects of one hash count as the same: a false conflict once in 2^64 pairs is accepted.
pub(crate) fn hash_key(key: &AccessKey) -> u64 {
    let (kind, ino, name): (u8, _, &[u8]) = match key {
        AccessKey::Inode(ino) => (0, ino, &[]),
        AccessKey::Entry(ino, name) => (1, ino, name),
        AccessKey::Listing(ino) => (2, ino, &[]),
        AccessKey::Xattr(ino, name) => (3, ino, name),
        AccessKey::XattrList(ino) => (4, ino, &[]),
        AccessKey::Place(ino) => (5, ino, &[]),
    };
    let mut hasher = Xxh3::new();
    hasher.update(&[kind]);
    hasher.update(&ino.0.to_le_bytes());
    hasher.update(name);
    hasher.digest()
}

impl AccessIndex {
    pub(crate) fn new() -> Self {
        AccessIndex { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())) }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<u64, Accessors>> {
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    /// Records that `context` used the object and returns the others that did; nothing if this use was known already.
    pub(crate) fn note(&self, hash: u64, context: ContextId, how: Access) -> Option<Vec<Accessor>> {
        if context.0.is_multiple_of(2) && is_planted(Planted::UseForgotten) {
            return Some(self.accessors(hash));
        }
        let mut shard = self.shard(hash).lock();
        let new = Accessor { context, how };
        let Some(accessors) = shard.get_mut(&hash) else {
            shard.insert(hash, Accessors { first: new, more: Vec::new(), settled: 1 });
            return Some(Vec::new());
        };
        let others = accessors.iter().filter(|t| t.context != context).collect();
        if let Some(known) = accessors.iter_mut().find(|t| t.context == context) {
            let both = known.how.and(how);
            if both == known.how {
                return None;
            }
            known.how = both;
        } else {
            accessors.more.push(new);
        }
        Some(others)
    }

    /// Settles one object, if many have accessed it since that was done: what accesses it next has to look at all of them.
    pub(crate) fn settle_one(&self, hash: u64, stands: impl Fn(ContextId) -> Option<ContextId>) {
        let mut shard = self.shard(hash).lock();
        let grown = |accessors: &Accessors| accessors.more.len() > UNSETTLED_MAX + accessors.settled;
        let Some(accessors) = shard.get_mut(&hash).filter(|accessors| grown(accessors)) else { return };
        if !accessors.settle(&stands) {
            shard.remove(&hash);
        }
    }

    /// Who has accessed the object.
    pub(crate) fn accessors(&self, hash: u64) -> Vec<Accessor> {
        self.shard(hash).lock().get(&hash).map(|t| t.iter().collect()).unwrap_or_default()
    }

    /// The hashes of what `context` saw: what a held speculation takes along through a restart.
    pub(crate) fn reads_of(&self, is: impl Fn(ContextId) -> bool) -> Vec<u64> {
        let mut reads = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let read = |t: &Accessors| t.iter().any(|t| t.how != Access::Update && is(t.context));
            reads.extend(shard.iter().filter(|(_, accessors)| read(accessors)).map(|(hash, _)| *hash));
        }
        reads
    }

    /// Notes every use under the context that `stands` for the one it was made by, and forgets it where none does. Cost: the
    /// whole index, of which one part at a time is closed to others; `stands` is made anew for each.
    pub(crate) fn settle<F: Fn(ContextId) -> Option<ContextId>>(&self, stands: impl Fn() -> F) {
        for shard in &self.shards {
            let stands = stands();
            shard.lock().retain(|_, accessors| accessors.settle(&stands));
        }
    }
}

impl Accessors {
    fn iter(&self) -> impl Iterator<Item = Accessor> + '_ {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Accessor> + '_ {
        std::iter::once(&mut self.first).chain(self.more.iter_mut())
    }

    /// Whether anybody is left.
    fn settle(&mut self, stands: &impl Fn(ContextId) -> Option<ContextId>) -> bool {
        let mut settled: Vec<Accessor> = Vec::new();
        for Accessor { context, how } in std::iter::once(self.first).chain(self.more.drain(..)) {
            let Some(context) = stands(context) else { continue };
            match settled.iter_mut().find(|known| known.context == context) {
                Some(known) => known.how = known.how.and(how),
                None => settled.push(Accessor { context, how }),
            }
        }
        self.settled = settled.len();
        let Some(first) = settled.pop() else { return false };
        (self.first, self.more) = (first, settled);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::id::Ino;

    #[test]
    fn a_use_is_told_of_the_others_once() {
        let index = AccessIndex::new();
        let hash = hash_key(&AccessKey::Inode(Ino(7)));
        assert_eq!(index.note(hash, ContextId(1), Access::Read), Some(vec![]));
        let first = Accessor { context: ContextId(1), how: Access::Read };
        assert_eq!(index.note(hash, ContextId(2), Access::Write), Some(vec![first]));
        assert_eq!(index.note(hash, ContextId(2), Access::Read), None);
        assert_eq!(index.note(hash, ContextId(1), Access::Write).map(|o| o.len()), Some(1));
    }

    #[test]
    fn uses_of_inner_contexts_become_one_of_the_outer() {
        let index = AccessIndex::new();
        for (context, how) in [(1, Access::Read), (2, Access::Write), (3, Access::Read), (4, Access::Read)] {
            index.note(42, ContextId(context), how);
        }
        index.settle(|| |context| Some(if context == ContextId(3) { context } else { ContextId(9) }));
        let mut accessors = index.accessors(42);
        accessors.sort_by_key(|accessor| accessor.context);
        let both = Access::Read.and(Access::Write);
        let expected = [(3, Access::Read), (9, both)].map(|(id, how)| Accessor { context: ContextId(id), how });
        assert_eq!(accessors, expected);
    }

    #[test]
    fn one_object_is_settled_when_many_have_touched_it() {
        let index = AccessIndex::new();
        let accessed = 2 * UNSETTLED_MAX as u64;
        for context in 0..accessed {
            index.note(42, ContextId(context), Access::Write);
            let few = index.accessors(42).len() <= UNSETTLED_MAX + 2;
            index.settle_one(42, |context| (context == ContextId(7)).then_some(context));
            assert!(few || index.accessors(42).len() == 1, "{context}");
        }
        assert!(index.accessors(42).len() <= UNSETTLED_MAX);
    }

    #[test]
    fn decided_contexts_are_swept_out() {
        let index = AccessIndex::new();
        for context in 1..=3 {
            index.note(42, ContextId(context), Access::Read);
        }
        index.settle(|| |context| (context == ContextId(3)).then_some(context));
        assert_eq!(index.accessors(42), [Accessor { context: ContextId(3), how: Access::Read }]);
        index.settle(|| |_| None);
        assert!(index.accessors(42).is_empty());
        assert!(index.shards.iter().all(|s| s.lock().is_empty()));
    }
}
