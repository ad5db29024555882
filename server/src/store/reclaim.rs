//! Background work: removing what dead intervals wrote, merging what committed ones did, dropping what no snapshot sees
//! any more. In bounded steps; each leaves the store sound. The space of it is given back afterwards (`give_back`).

use super::db::{Db, Family, Writes};
use super::keys::{self, Key, Order};
use super::record::{self, Inode};
use super::versions::{self, Version};
use super::{Sight, Store, StoreError, meta};
use crate::limits::RECLAIM_STEP;
use mojavefs::id::{ContentId, Ino, IntervalId, LayerId, Seq};
use mojavefs::planted::{Planted, is_planted};

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Records and content files removed or merged.
    pub removed: u64,
    /// There may be more to do.
    pub more: bool,
}

impl Store {
    /// One bounded step. `in_use` says whether a kernel still knows an inode that has no name.
    pub fn reclaim(&self, in_use: &dyn Fn(Ino) -> bool) -> Result<Reclaimed, StoreError> {
        for step in [Self::reclaim_dead, Self::merge_committed] {
            let removed = self.with_room(|| step(self))?;
            if removed > 0 {
                return Ok(Reclaimed { removed, more: true });
            }
        }
        let removed = self.reclaim_orphans(in_use)? + self.with_room(|| self.reclaim_garbage())?;
        if removed == 0 {
            self.keep_room()?;
        }
        Ok(Reclaimed { removed, more: removed > 0 })
    }

    fn reclaim_dead(&self) -> Result<u64, StoreError> {
        let Some(interval) = self.decided.read().dead.first().copied() else { return Ok(0) };
        let keys = self.changes_left(interval)?;
        let db = self.db()?;
        let mut writes = db.writes();
        for key in &keys {
            let prefix = key.prefix();
            if !(is_planted(Planted::VersionKept) && matches!(key, Key::Inode(_))) {
                writes.delete(Family::Data, &keys::version(&prefix, Order::undecided(interval)));
            }
            writes.delete(Family::Changes, &meta::change(interval, &prefix));
        }
        if keys.is_empty() {
            for (layer, content) in self.layers_of(&db, interval)? {
                self.content.remove_layer(layer)?;
                writes.delete(Family::Meta, &meta::key(meta::LAYER, [content.0, layer.0]));
                writes.delete(Family::Meta, &meta::key(meta::INTERVAL_LAYER, [interval.0, layer.0]));
            }
            self.decided.write().dead.retain(|dead| *dead != interval);
            self.changes.lock().remove(&interval);
            self.content.forget_interval(interval);
        }
        writes.apply(false)?;
        self.changes_done(interval, &keys);
        Ok(keys.len() as u64 + 1)
    }

    /// Changes of a decided interval that are still to be looked at. What was before them leaves something behind in the
    /// buffers that a scan would have to walk through.
    fn changes_left(&self, interval: IntervalId) -> Result<Vec<Key>, StoreError> {
        let done = self.reclaimed_to.lock().clone();
        if let Some((_, key)) = done.filter(|(of, _)| *of == interval) {
            let left = self.changes(interval, Some(&key), RECLAIM_STEP)?;
            if !left.is_empty() {
                return Ok(left);
            }
        }
        self.changes(interval, None, RECLAIM_STEP)
    }

    fn changes_done(&self, interval: IntervalId, keys: &[Key]) {
        *self.reclaimed_to.lock() = keys.last().map(|last| (interval, last.clone()));
    }

    pub(super) fn layers_of(&self, db: &Db, interval: IntervalId) -> Result<Vec<(LayerId, ContentId)>, StoreError> {
        let prefix = meta::key(meta::INTERVAL_LAYER, [interval.0]);
        let mut layers = Vec::new();
        let mut scan = db.scan(Family::Meta, &prefix, &prefix);
        while let Some((key, value)) = scan.item()? {
            if let (Some([_, layer]), Ok(content)) = (meta::numbers(key), value.try_into()) {
                layers.push((LayerId(layer), ContentId(u64::from_be_bytes(content))));
            }
            scan.next();
        }
        Ok(layers)
    }

    fn merge_committed(&self) -> Result<u64, StoreError> {
        let next = self.decided.read().committed.iter().map(|(interval, seq)| (*seq, *interval)).min();
        let Some((_, interval)) = next else { return Ok(0) };
        let keys = self.changes_left(interval)?;
        let mut unmerged = self.unmerged.lock();
        {
            let _writers = self.final_writes.lock();
            let db = self.db()?;
            let mut writes = db.writes();
            for key in &keys {
                self.merge_key(&db, &mut writes, key)?;
                writes.delete(Family::Changes, &meta::change(interval, &key.prefix()));
            }
            if keys.is_empty() {
                writes.delete(Family::Meta, &meta::key(meta::DECISION, [interval.0]));
                for (layer, _) in self.layers_of(&db, interval)? {
                    writes.delete(Family::Meta, &meta::key(meta::INTERVAL_LAYER, [interval.0, layer.0]));
                }
            }
            writes.apply(false)?;
        }
        self.changes_done(interval, &keys);
        if let Some(left) = unmerged.get_mut(&interval) {
            *left = left.saturating_sub(keys.len() as u64);
        }
        if keys.is_empty() {
            unmerged.remove(&interval);
            self.decided.write().committed.remove(&interval);
            self.changes.lock().remove(&interval);
            self.content.forget_interval(interval);
        }
        Ok(keys.len() as u64 + 1)
    }

    /// How many records of committed work are still to be merged. Reads through what was committed since it was last asked,
    /// and nothing else.
    pub fn unmerged(&self) -> Result<u64, StoreError> {
        let mut unmerged = self.unmerged.lock();
        let committed: Vec<IntervalId> = self.decided.read().committed.keys().copied().collect();
        let mut records = 0;
        for interval in committed {
            records += match unmerged.get(&interval) {
                Some(left) => *left,
                None => {
                    let left = self.count_records(interval)?;
                    unmerged.insert(interval, left);
                    left
                }
            };
        }
        Ok(records)
    }

    fn count_records(&self, interval: IntervalId) -> Result<u64, StoreError> {
        let db = self.db()?;
        let prefix = interval.0.to_be_bytes();
        let mut scan = db.scan(Family::Changes, &prefix, &prefix);
        let mut records = 0;
        while scan.item()?.is_some() {
            records += 1;
            scan.next();
        }
        Ok(records)
    }

    /// Turns the committed versions of one key into merged ones.
    fn merge_key(&self, db: &Db, writes: &mut Writes<'_>, key: &Key) -> Result<(), StoreError> {
        let prefix = key.prefix();
        let decided = self.decided.read();
        let versions = versions::all(db, &prefix)?;
        let committed_at = |version: &Version| Some(*decided.committed.get(&version.order.interval()?)?);
        let mut merged: Vec<(Seq, Vec<u8>)> =
            versions.iter().filter_map(|v| Some((v.order.seq()?, v.stored.clone()))).collect();
        let mut seqs: Vec<Seq> = versions.iter().filter_map(committed_at).collect();
        seqs.sort_unstable();
        seqs.dedup();
        for seq in seqs {
            let stored = match key {
                Key::DirStat(_) => {
                    let sight = Sight { snapshot: seq, ..Sight::trunk() };
                    record::encode(&versions::sum(&versions, &sight, &decided)?)?
                }
                // Versions come newest interval first, so the first of a commit is its last word.
                _ => match versions.iter().find(|v| committed_at(v) == Some(seq)) {
                    Some(version) => version.stored.clone(),
                    None => continue,
                },
            };
            merged.push((seq, stored));
        }
        for version in versions.iter().filter(|v| committed_at(v).is_some()) {
            writes.delete(Family::Data, &keys::version(&prefix, version.order));
            if !merged.iter().any(|(_, stored)| *stored == version.stored) {
                self.content_goes(writes, key, &version.stored, &record::tombstone())?;
            }
        }
        merged.sort_by_key(|(seq, _)| std::cmp::Reverse(*seq));
        self.write_merged(writes, key, &prefix, &merged, &versions)
    }

    /// Keeps of the merged versions (newest first) those that somebody may see.
    fn write_merged(
        &self,
        writes: &mut Writes<'_>,
        key: &Key,
        prefix: &[u8],
        merged: &[(Seq, Vec<u8>)],
        before: &[Version],
    ) -> Result<(), StoreError> {
        let undecided = before.iter().any(|v| v.order.interval().is_some());
        let mut newer: Option<&(Seq, Vec<u8>)> = None;
        let mut kept_older = false;
        for version in merged {
            let order = Order::is_final(version.0);
            let stays = newer.is_none_or(|(seq, _)| self.snapshots.needs(order, Order::is_final(*seq)));
            let there = before.iter().any(|v| v.order == order);
            match (stays, there) {
                (true, false) => writes.put(Family::Data, &keys::version(prefix, order), &version.1),
                (false, true) => writes.delete(Family::Data, &keys::version(prefix, order)),
                _ => {}
            }
            if stays {
                kept_older |= newer.is_some();
            } else if let Some((_, staying)) = newer {
                self.content_goes(writes, key, &version.1, staying)?;
            }
            newer = Some(version);
        }
        let Some((newest, stored)) = merged.first() else { return Ok(()) };
        let payload = record::payload(stored)?;
        if let (Key::Inode(ino), Some(payload)) = (key, payload) {
            let inode: Inode = record::decode(payload)?;
            if inode.nlink == 0 {
                writes.wait(meta::orphan(*ino));
            }
        }
        let gone = payload.is_none();
        let order = Order::is_final(*newest);
        if kept_older || (gone && (undecided || self.snapshots.any_below(order))) {
            writes.put(Family::Meta, &meta::garbage(prefix), &[]);
        } else {
            writes.delete(Family::Meta, &meta::garbage(prefix));
            if gone {
                writes.delete(Family::Data, &keys::version(prefix, order));
            }
        }
        Ok(())
    }

    /// Looks again at keys with versions that a snapshot needed, once an older snapshot has ended.
    fn reclaim_garbage(&self) -> Result<u64, StoreError> {
        let oldest = self.snapshots.oldest();
        if *self.garbage_seen.lock() == Some((oldest, self.epoch())) {
            return Ok(0);
        }
        let _writers = self.final_writes.lock();
        let db = self.db()?;
        let mut at = self.garbage_at.lock();
        let from = std::mem::replace(&mut *at, vec![meta::GARBAGE]);
        let mut prefixes = Vec::new();
        let mut scan = db.scan(Family::Meta, &[meta::GARBAGE], &from);
        while let Some((key, _)) = scan.item()? {
            if prefixes.len() == RECLAIM_STEP {
                *at = key.to_vec();
                break;
            }
            prefixes.push(key[1..].to_vec());
            scan.next();
        }
        let finished = prefixes.len() < RECLAIM_STEP;
        drop(scan);
        let mut writes = db.writes();
        for prefix in &prefixes {
            let Some(key) = Key::parse(prefix) else {
                return Err(StoreError::corrupt("a garbage record has an unknown key"));
            };
            self.merge_key(&db, &mut writes, &key)?;
        }
        let removed = writes.len() as u64;
        writes.apply(false)?;
        if finished {
            *self.garbage_seen.lock() = Some((oldest, self.epoch()));
        }
        Ok(removed)
    }

    /// Final inodes without a name that no kernel knows, wherever they are among those that one does.
    fn reclaim_orphans(&self, in_use: &dyn Fn(Ino) -> bool) -> Result<u64, StoreError> {
        let mut removed = 0;
        let mut found = self.db()?.waiting(meta::ORPHAN, RECLAIM_STEP)?;
        while let (Some(last), 0) = (found.last(), removed) {
            let orphans = found.iter().filter_map(|key| meta::numbers(key)).map(|[ino]| Ino(ino));
            for ino in orphans.filter(|ino| !in_use(*ino)) {
                self.with_room(|| self.remove_orphan(ino))?;
                removed += 1;
            }
            found = self.db()?.waiting_after(last, RECLAIM_STEP)?;
        }
        Ok(removed)
    }

    fn remove_orphan(&self, ino: Ino) -> Result<(), StoreError> {
        let trunk = Sight::trunk();
        let unlinked = self.inode(&trunk, ino)?.found.is_none_or(|inode| inode.nlink == 0);
        let mut batch = super::Batch::new(self, &trunk);
        if unlinked {
            batch.remove_inode(ino);
            batch.remove_dir_stat(ino);
            for name in self.xattrs(&trunk, ino)?.found {
                batch.remove_xattr(ino, &name)?;
            }
            self.apply(batch)?;
        }
        let db = self.db()?;
        let mut writes = db.writes();
        writes.delete(Family::Meta, &meta::orphan(ino));
        writes.apply(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, StoreOptions};

    #[test]
    fn what_nobody_uses_goes_however_much_is_in_use_before_it() {
        let dir = tempfile::TempDir::new().expect("a directory for the store");
        let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
        let store = Store::open(dir.path(), options).expect("the store opens");
        let trunk = Sight::trunk();
        let root = store.inode(&trunk, Ino::ROOT).expect("a read").found.expect("the root");
        let unlinked = Inode { nlink: 0, ..root };
        let in_use = Ino(1000 + 2 * RECLAIM_STEP as u64);
        let mut batch = Batch::new(&store, &trunk);
        for ino in (1000..=in_use.0 + 1).map(Ino) {
            batch.put_inode(ino, &unlinked).expect("a record");
            batch.add_orphan(ino).expect("a record");
        }
        store.apply(batch).expect("a batch");
        while store.reclaim(&|ino| ino <= in_use).expect("a step").more {}
        let there = |ino| store.inode(&trunk, ino).expect("a read").found.is_some();
        assert!(there(in_use) && !there(Ino(in_use.0 + 1)));
    }
}
