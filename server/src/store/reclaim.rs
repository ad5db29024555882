//! Background work: removing what dead intervals wrote, merging what committed ones did, dropping what no snapshot sees
//! any more. In bounded steps; each leaves the store sound. The space of it is given back afterwards (`reclaim_space`).

use super::db::{Db, Family, Writes};
use super::keys::{self, Key, Order};
use super::record::{self, Inode};
use super::search::is_gone;
use super::versions::{self, Version};
use super::{Sight, Store, StoreError, meta};
use crate::limits::RECLAIM_STEP;
use mojavefs::id::{ContentId, Ino, IntervalId, LayerId, Seq};
use mojavefs::planted::{Planted, is_planted};
use std::collections::HashSet;

/// What one step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Records and content files removed or merged.
    pub removed: u64,
    /// There may be more to do.
    pub more: bool,
}

/// How far what is kept for snapshots was looked through.
#[derive(Default)]
pub(super) struct KeptSeen {
    /// How many snapshots had ended when it was last looked through to the end.
    ended: Option<u64>,
    /// Where to go on.
    from: Option<Vec<u8>>,
}

impl Store {
    /// One bounded step. `in_use` says whether a kernel still knows an inode that has no name.
    pub fn reclaim(&self, in_use: &dyn Fn(Ino) -> bool) -> Result<Reclaimed, StoreError> {
        self.reclaim_of(in_use, &|_| true)
    }

    /// The same, of these decided intervals only.
    pub fn reclaim_of(
        &self,
        in_use: &dyn Fn(Ino) -> bool,
        of: &dyn Fn(IntervalId) -> bool,
    ) -> Result<Reclaimed, StoreError> {
        for step in [Self::reclaim_dead, Self::merge_committed] {
            let removed = self.with_room(|| step(self, of))?;
            if removed > 0 {
                return Ok(Reclaimed { removed, more: true });
            }
        }
        let kept = self.with_room(|| self.reclaim_kept())?;
        let removed = self.reclaim_orphans(in_use)? + kept + self.with_room(|| self.reclaim_garbage())?;
        if removed == 0 {
            self.keep_room()?;
        }
        Ok(Reclaimed { removed, more: removed > 0 })
    }

    /// The decided intervals whose versions still carry their numbers.
    pub fn decided(&self) -> HashSet<IntervalId> {
        let decided = self.decided.read();
        decided.committed.keys().chain(&decided.dead).copied().collect()
    }

    fn reclaim_dead(&self, of: &dyn Fn(IntervalId) -> bool) -> Result<u64, StoreError> {
        let next = self.decided.read().dead.iter().copied().find(|interval| of(*interval));
        let Some(interval) = next else { return Ok(0) };
        let keys = self.changes_left(interval)?;
        // Else a note of a content could be removed by who has just found that a dead version refers to it.
        let _noting = (!keys.is_empty()).then(|| self.final_writes.lock());
        let db = self.db()?;
        let mut writes = db.writes();
        for key in &keys {
            self.drop_dead(&db, &mut writes, key, interval)?;
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

    /// Removes a dead interval's version of one key, and has looked at what stayed because of it: the content that it refers
    /// to, and a tombstone.
    fn drop_dead(&self, db: &Db, writes: &mut Writes<'_>, key: &Key, interval: IntervalId) -> Result<(), StoreError> {
        let (prefix, order) = (key.prefix(), Order::undecided(interval));
        writes.delete(Family::Changes, &meta::change(interval, &prefix));
        let mut versions = versions::all(db, &prefix)?;
        let Some(at) = versions.iter().position(|version| version.order == order) else {
            // It was one of a content that was destroyed.
            return Ok(());
        };
        let dead = versions.remove(at);
        if !(is_planted(Planted::VersionKept) && matches!(key, Key::Inode(_))) {
            writes.delete(Family::Data, &keys::version(&prefix, order));
        }
        if let Key::Inode(ino) = key
            && let Some(content) = record::content_of(&dead.stored)?
            && !versions::refer(&versions, content)?
        {
            writes.wait(meta::discarded(content, *ino));
        }
        if let Some(last) = versions.iter().find(|version| version.order.interval().is_none())
            && record::payload(&last.stored)?.is_none()
        {
            writes.wait(meta::garbage(&prefix));
        }
        Ok(())
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

    fn merge_committed(&self, of: &dyn Fn(IntervalId) -> bool) -> Result<u64, StoreError> {
        // In their order.
        let next = self.decided.read().committed.iter().map(|(interval, committed)| (committed.seq, *interval)).min();
        let Some((_, interval)) = next.filter(|(_, interval)| of(*interval)) else { return Ok(0) };
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
        let mut versions = versions::all(db, &prefix)?;
        if let Key::Inode(_) = key {
            for version in &mut versions {
                if let Some(committed) = version.order.interval().and_then(|interval| decided.committed.get(&interval))
                {
                    version.stored = record::as_committed(&version.stored, *committed)?;
                }
            }
        }
        let committed_at = |version: &Version| Some(decided.committed.get(&version.order.interval()?)?.seq);
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
        self.write_merged(writes, key, &merged, &versions)?;
        let undecided = versions.iter().any(|v| v.order.interval().is_some() && committed_at(v).is_none());
        if let Some((newest, stored)) = merged.first()
            && !undecided
            && record::payload(stored)?.is_none()
        {
            self.drop_tombstone(writes, &prefix, Order::is_final(*newest));
        }
        Ok(())
    }

    /// Keeps of the merged versions (newest first) those that somebody may see.
    fn write_merged(
        &self,
        writes: &mut Writes<'_>,
        key: &Key,
        merged: &[(Seq, Vec<u8>)],
        before: &[Version],
    ) -> Result<(), StoreError> {
        let prefix = key.prefix();
        let mut newer: Option<&(Seq, Vec<u8>)> = None;
        for version in merged {
            let order = Order::is_final(version.0);
            let needed_by = newer.and_then(|(seq, _)| self.snapshots.needed_by(order, Order::is_final(*seq)));
            if let Some(snapshot) = needed_by {
                writes.put(Family::Meta, &meta::kept(snapshot, &prefix), &[]);
            }
            let stays = newer.is_none() || needed_by.is_some();
            let there = before.iter().any(|v| v.order == order);
            match (stays, there) {
                (true, false) => writes.put(Family::Data, &keys::version(&prefix, order), &version.1),
                (false, true) => writes.delete(Family::Data, &keys::version(&prefix, order)),
                _ => {}
            }
            if let Some((_, staying)) = newer.filter(|_| !stays) {
                self.content_goes(writes, key, &version.1, staying)?;
            }
            newer = Some(version);
        }
        let Some((_, stored)) = merged.first() else { return Ok(()) };
        if let (Key::Inode(ino), Some(payload)) = (key, record::payload(stored)?) {
            let inode: Inode = record::decode(payload)?;
            if inode.nlink == 0 {
                writes.wait(meta::orphan(*ino));
            }
        }
        Ok(())
    }

    /// Looks at keys of which final versions may be of no use any more.
    fn reclaim_garbage(&self) -> Result<u64, StoreError> {
        let _writers = self.final_writes.lock();
        let db = self.db()?;
        let found = db.waiting(meta::GARBAGE, RECLAIM_STEP)?;
        let mut writes = db.writes();
        for record in &found {
            writes.delete(Family::Meta, record);
            self.look_again(&db, &mut writes, &record[1..])?;
        }
        writes.apply(false)?;
        Ok(found.len() as u64)
    }

    /// Looks again at keys with versions that were kept for a snapshot which has ended.
    fn reclaim_kept(&self) -> Result<u64, StoreError> {
        let ended = self.snapshots.ended();
        let mut seen = self.kept.lock();
        if seen.ended == Some(ended) {
            return Ok(0);
        }
        let _writers = self.final_writes.lock();
        let db = self.db()?;
        let mut found = Vec::new();
        let mut scan = db.scan(Family::Meta, &[meta::KEPT], seen.from.as_deref().unwrap_or(&[meta::KEPT]));
        while let Some((key, _)) = scan.item()?.filter(|_| found.len() < RECLAIM_STEP) {
            match meta::kept_for(key) {
                None => return Err(StoreError::corrupt("a record of what is kept for a snapshot has a short key")),
                Some((snapshot, _)) if self.snapshots.is_active(snapshot) => {
                    scan.seek(&meta::kept(Seq(snapshot.0 + 1), &[]));
                }
                Some(_) => {
                    found.push(key.to_vec());
                    scan.next();
                }
            }
        }
        drop(scan);
        let mut writes = db.writes();
        for record in &found {
            writes.delete(Family::Meta, record);
            let (_, prefix) = meta::kept_for(record).expect("it was just read");
            self.look_again(&db, &mut writes, prefix)?;
        }
        writes.apply(false)?;
        *seen = match found.len() < RECLAIM_STEP {
            true => KeptSeen { ended: Some(ended), from: None },
            false => KeptSeen { ended: None, from: found.last().cloned() },
        };
        Ok(found.len() as u64)
    }

    /// Removes the final versions of a key that nobody may see any more.
    fn look_again(&self, db: &Db, writes: &mut Writes<'_>, prefix: &[u8]) -> Result<(), StoreError> {
        let Some(key) = Key::parse(prefix) else {
            return Err(StoreError::corrupt("a record of what can go has an unknown key"));
        };
        match key.inode() {
            Some(ino) if is_gone(db, ino)? => {
                // What belonged to an inode that is gone; what jobs have changed goes when they are decided.
                for version in versions::all(db, prefix)?.iter().filter(|v| v.order.interval().is_none()) {
                    writes.delete(Family::Data, &keys::version(prefix, version.order));
                }
                Ok(())
            }
            _ => self.merge_key(db, writes, &key),
        }
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
    use crate::store::engine::memory::Memory;
    use crate::store::{Batch, StoreOptions};

    #[test]
    fn what_nobody_uses_goes_however_much_is_in_use_before_it() {
        let store = store();
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

    fn store() -> Store {
        let options = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };
        Store::open(&Memory::of(1 << 30), options).expect("the store opens")
    }

    fn job(store: &Store) -> Sight {
        let interval = IntervalId(store.next_id().expect("a number"));
        Sight { live: std::sync::Arc::from([interval]), writer: interval, ..Sight::trunk() }
    }

    const FILE: Ino = Ino(1000);

    fn change(store: &Store, sight: &Sight, how: impl FnOnce(&mut Batch, &mut Inode)) {
        let found = |ino| store.inode(sight, ino).expect("a read").found;
        let mut inode = found(FILE).unwrap_or_else(|| Inode { nlink: 1, ..found(Ino::ROOT).expect("the root") });
        let mut batch = Batch::new(store, sight);
        how(&mut batch, &mut inode);
        batch.put_inode(FILE, &inode).expect("a record");
        store.apply(batch).expect("a batch");
    }

    fn write(store: &Store, sight: &Sight, offset: u64) {
        change(store, sight, |batch, inode| {
            store.write_content(sight, batch, inode, offset, &[7; 100_000]).expect("a write");
        });
    }

    fn empty(store: &Store, sight: &Sight) {
        change(store, sight, |batch, inode| {
            store.truncate_content(sight, batch, (FILE, inode), 0).expect("it is cut off");
        });
    }

    fn content_files(store: &Store) -> usize {
        store.engine.blobs().and_then(|blobs| blobs.list()).expect("blobs").len()
    }

    #[test]
    fn a_content_that_only_undone_work_referred_to_goes_whenever_it_is_looked_at() {
        // After how many of the steps what is noted is looked at.
        for looks in 0..16_u32 {
            let store = store();
            let (trunk, job) = (Sight::trunk(), job(&store));
            let look = |step: u32| {
                if looks & 1 << step != 0 {
                    while store.reclaim_space().expect("a step") > 0 {}
                }
            };
            write(&store, &trunk, 0);
            write(&store, &job, 100_000);
            look(0);
            empty(&store, &trunk);
            look(1);
            store.abort(&[job.writer], &[]).expect("an abort");
            look(2);
            while store.reclaim(&|_| false).expect("a step").more {
                look(3);
            }
            while store.reclaim_space().expect("a step") > 0 {}
            assert_eq!(content_files(&store), 0, "looked at after {looks:b}");
        }
    }

    #[test]
    fn a_note_that_work_leaves_while_others_refer_to_the_content_is_not_lost() {
        let store = store();
        let (trunk, first, second) = (Sight::trunk(), job(&store), job(&store));
        write(&store, &trunk, 0);
        write(&store, &first, 100_000);
        write(&store, &second, 200_000);
        empty(&store, &trunk);
        assert_eq!(content_files(&store), 3);
        // The second sees what trunk had, and after it nobody does.
        for (job, left) in [(first, 2), (second, 0)] {
            store.abort(&[job.writer], &[]).expect("an abort");
            while store.reclaim(&|_| false).expect("a step").more {}
            while store.reclaim_space().expect("a step") > 0 {}
            assert_eq!(content_files(&store), left);
        }
    }

    #[test]
    fn a_tombstone_over_undone_work_goes_with_that() {
        let store = store();
        let (trunk, job) = (Sight::trunk(), job(&store));
        let key = Key::Xattr(Ino::ROOT, b"user.k".to_vec());
        let put = |sight: &Sight, there: bool| {
            let mut batch = Batch::new(&store, sight);
            match there {
                true => batch.put_xattr(Ino::ROOT, b"user.k", b"value").expect("a record"),
                false => batch.remove_xattr(Ino::ROOT, b"user.k").expect("a record"),
            }
            store.apply(batch).expect("a batch");
        };
        let versions = || versions::all(&store.db().expect("records"), &key.prefix()).expect("versions").len();
        put(&trunk, true);
        put(&job, true);
        put(&trunk, false);
        while store.reclaim(&|_| false).expect("a step").more {}
        assert_eq!(versions(), 2);
        store.abort(&[job.writer], &[]).expect("an abort");
        while store.reclaim(&|_| false).expect("a step").more {}
        assert_eq!(versions(), 0);
    }
}
