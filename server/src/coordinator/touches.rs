//! Who has touched what: the index that notices a conflict when it arises, so that a commit need not search for one.

use crate::touch::{Touch, TouchKey};
use mojavefs::id::ContextId;
use mojavefs::planted::{Planted, is_planted};
use parking_lot::Mutex;
use std::collections::HashMap;
use xxhash_rust::xxh3::Xxh3;

const SHARDS: usize = 32;

/// Every object touched by a context that is still undecided, by the hash of its key.
///
/// Contexts are forgotten lazily: [`TouchIndex::settle`] sweeps out those that were decided, so that a decision costs the
/// same however much a job touched.
pub(crate) struct TouchIndex {
    shards: [Mutex<HashMap<u64, Touchers>>; SHARDS],
}

/// The contexts that touched one object; nearly always one.
struct Touchers {
    first: Toucher,
    more: Vec<Toucher>,
    /// How many were left when it was last looked at who still counts.
    settled: usize,
}

/// Up to so many contexts are kept of one object without a look at who of them still counts.
const UNSETTLED_MAX: usize = 16;

/// One context's use of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Toucher {
    /// The context.
    pub(crate) context: ContextId,
    /// All its uses together.
    pub(crate) how: Touch,
}

/// The hash under which an object is indexed; part of the stored format, since held speculations take their reads along.
/// Two objects of one hash count as the same: a false conflict once in 2^64 pairs is accepted.
pub(crate) fn hash_key(key: &TouchKey) -> u64 {
    let (kind, ino, name): (u8, _, &[u8]) = match key {
        TouchKey::Inode(ino) => (0, ino, &[]),
        TouchKey::Entry(ino, name) => (1, ino, name),
        TouchKey::Listing(ino) => (2, ino, &[]),
        TouchKey::Xattr(ino, name) => (3, ino, name),
        TouchKey::XattrList(ino) => (4, ino, &[]),
        TouchKey::Place(ino) => (5, ino, &[]),
    };
    let mut hasher = Xxh3::new();
    hasher.update(&[kind]);
    hasher.update(&ino.0.to_le_bytes());
    hasher.update(name);
    hasher.digest()
}

impl TouchIndex {
    pub(crate) fn new() -> Self {
        TouchIndex { shards: std::array::from_fn(|_| Mutex::new(HashMap::new())) }
    }

    fn shard(&self, hash: u64) -> &Mutex<HashMap<u64, Touchers>> {
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    /// Records that `context` used the object and returns the others that did; nothing if this use was known already.
    pub(crate) fn touch(&self, hash: u64, context: ContextId, how: Touch) -> Option<Vec<Toucher>> {
        if context.0.is_multiple_of(2) && is_planted(Planted::UseForgotten) {
            return Some(self.touchers(hash));
        }
        let mut shard = self.shard(hash).lock();
        let new = Toucher { context, how };
        let Some(touchers) = shard.get_mut(&hash) else {
            shard.insert(hash, Touchers { first: new, more: Vec::new(), settled: 1 });
            return Some(Vec::new());
        };
        let others = touchers.iter().filter(|t| t.context != context).collect();
        if let Some(known) = touchers.iter_mut().find(|t| t.context == context) {
            let both = known.how.and(how);
            if both == known.how {
                return None;
            }
            known.how = both;
        } else {
            touchers.more.push(new);
        }
        Some(others)
    }

    /// Settles one object, if many have touched it since that was done: what touches it next has to look at all of them.
    pub(crate) fn settle_one(&self, hash: u64, stands: impl Fn(ContextId) -> Option<ContextId>) {
        let mut shard = self.shard(hash).lock();
        let grown = |touchers: &Touchers| touchers.more.len() > UNSETTLED_MAX + touchers.settled;
        let Some(touchers) = shard.get_mut(&hash).filter(|touchers| grown(touchers)) else { return };
        if !touchers.settle(&stands) {
            shard.remove(&hash);
        }
    }

    /// Who has touched the object.
    pub(crate) fn touchers(&self, hash: u64) -> Vec<Toucher> {
        self.shard(hash).lock().get(&hash).map(|t| t.iter().collect()).unwrap_or_default()
    }

    /// The hashes of what `context` saw: what a held speculation takes along through a restart.
    pub(crate) fn reads_of(&self, is: impl Fn(ContextId) -> bool) -> Vec<u64> {
        let mut reads = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let read = |t: &Touchers| t.iter().any(|t| t.how != Touch::Update && is(t.context));
            reads.extend(shard.iter().filter(|(_, touchers)| read(touchers)).map(|(hash, _)| *hash));
        }
        reads
    }

    /// Notes every use under the context that `stands` for the one it was made by, and forgets it where none does. Cost: the
    /// whole index, of which one part at a time is closed to others; `stands` is made anew for each.
    pub(crate) fn settle<F: Fn(ContextId) -> Option<ContextId>>(&self, stands: impl Fn() -> F) {
        for shard in &self.shards {
            let stands = stands();
            shard.lock().retain(|_, touchers| touchers.settle(&stands));
        }
    }
}

impl Touchers {
    fn iter(&self) -> impl Iterator<Item = Toucher> + '_ {
        std::iter::once(self.first).chain(self.more.iter().copied())
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Toucher> + '_ {
        std::iter::once(&mut self.first).chain(self.more.iter_mut())
    }

    /// Whether anybody is left.
    fn settle(&mut self, stands: &impl Fn(ContextId) -> Option<ContextId>) -> bool {
        let mut settled: Vec<Toucher> = Vec::new();
        for Toucher { context, how } in std::iter::once(self.first).chain(self.more.drain(..)) {
            let Some(context) = stands(context) else { continue };
            match settled.iter_mut().find(|known| known.context == context) {
                Some(known) => known.how = known.how.and(how),
                None => settled.push(Toucher { context, how }),
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
        let index = TouchIndex::new();
        let hash = hash_key(&TouchKey::Inode(Ino(7)));
        assert_eq!(index.touch(hash, ContextId(1), Touch::Read), Some(vec![]));
        let first = Toucher { context: ContextId(1), how: Touch::Read };
        assert_eq!(index.touch(hash, ContextId(2), Touch::Write), Some(vec![first]));
        assert_eq!(index.touch(hash, ContextId(2), Touch::Read), None);
        assert_eq!(index.touch(hash, ContextId(1), Touch::Write).map(|o| o.len()), Some(1));
    }

    #[test]
    fn uses_of_inner_contexts_become_one_of_the_outer() {
        let index = TouchIndex::new();
        for (context, how) in [(1, Touch::Read), (2, Touch::Write), (3, Touch::Read), (4, Touch::Read)] {
            index.touch(42, ContextId(context), how);
        }
        index.settle(|| |context| Some(if context == ContextId(3) { context } else { ContextId(9) }));
        let mut touchers = index.touchers(42);
        touchers.sort_by_key(|toucher| toucher.context);
        let both = Touch::Read.and(Touch::Write);
        let expected = [(3, Touch::Read), (9, both)].map(|(id, how)| Toucher { context: ContextId(id), how });
        assert_eq!(touchers, expected);
    }

    #[test]
    fn one_object_is_settled_when_many_have_touched_it() {
        let index = TouchIndex::new();
        let touched = 2 * UNSETTLED_MAX as u64;
        for context in 0..touched {
            index.touch(42, ContextId(context), Touch::Write);
            let few = index.touchers(42).len() <= UNSETTLED_MAX + 2;
            index.settle_one(42, |context| (context == ContextId(7)).then_some(context));
            assert!(few || index.touchers(42).len() == 1, "{context}");
        }
        assert!(index.touchers(42).len() <= UNSETTLED_MAX);
    }

    #[test]
    fn decided_contexts_are_swept_out() {
        let index = TouchIndex::new();
        for context in 1..=3 {
            index.touch(42, ContextId(context), Touch::Read);
        }
        index.settle(|| |context| (context == ContextId(3)).then_some(context));
        assert_eq!(index.touchers(42), [Toucher { context: ContextId(3), how: Touch::Read }]);
        index.settle(|| |_| None);
        assert!(index.touchers(42).is_empty());
        assert!(index.shards.iter().all(|s| s.lock().is_empty()));
    }
}
