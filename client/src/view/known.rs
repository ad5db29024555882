//! Which inodes a kernel knows, and how often it was told of each.

use mojavefs::id::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;

const SHARDS: usize = 16;

/// Lookup counts, as the kernel keeps them.
#[derive(Default)]
pub(super) struct Known {
    shards: [Mutex<HashMap<Ino, u64>>; SHARDS],
}

impl Known {
    fn shard(&self, ino: Ino) -> &Mutex<HashMap<Ino, u64>> {
        &self.shards[(ino.0 % SHARDS as u64) as usize]
    }

    pub(super) fn add(&self, ino: Ino) {
        *self.shard(ino).lock().entry(ino).or_insert(0) += 1;
    }

    /// True if the kernel knows it no more.
    pub(super) fn drop(&self, ino: Ino, times: u64) -> bool {
        let mut shard = self.shard(ino).lock();
        let Some(count) = shard.get_mut(&ino) else { return false };
        *count = count.saturating_sub(times);
        let gone = *count == 0;
        if gone {
            shard.remove(&ino);
        }
        gone
    }

    pub(super) fn has(&self, ino: Ino) -> bool {
        self.shard(ino).lock().contains_key(&ino)
    }
}
