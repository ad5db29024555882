//! What one operation changes, applied at once.

use super::db::{Db, Family, Writes};
use super::keys::{self, Key, Order};
use super::meta;
use super::record::{self, BlockRecord, DirStat, Entry, Inode};
use super::versions;
use super::{Content, Sight, Store, StoreError};
use crate::limits::APPLY_TRIES_MAX;
use mojavefs::id::{BlockNo, ContentId, Ino, IntervalId, LayerId, Seq};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Changes to be made together by one writer.
pub struct Batch {
    sight: Sight,
    /// Which version everything in it becomes, if not the one of now.
    order: Option<Order>,
    records: BTreeMap<Key, Vec<u8>>,
    dir_stats: Vec<(Ino, DirStat)>,
    orphans: Vec<Ino>,
    /// Where the bytes of the blocks go that this batch places.
    content: Arc<Content>,
    /// New content files. They are this batch's alone until it is applied.
    layers: Vec<(ContentId, LayerId)>,
    discarded: Vec<(ContentId, Ino)>,
    /// Bytes were written where they lay before.
    rewritten: bool,
    /// Blocks that this batch places.
    placed: BTreeMap<(ContentId, BlockNo), LayerId>,
}

impl Batch {
    /// An empty batch of the sight's writer.
    pub fn new(store: &Store, sight: &Sight) -> Self {
        Batch {
            content: store.content.clone(),
            sight: sight.clone(),
            order: None,
            records: BTreeMap::new(),
            dir_stats: Vec::new(),
            orphans: Vec::new(),
            layers: Vec::new(),
            discarded: Vec::new(),
            rewritten: false,
            placed: BTreeMap::new(),
        }
    }

    /// An empty batch of what has always been so: versions before all others, which every snapshot shows.
    pub(crate) fn of_old(store: &Store) -> Self {
        Self::at(store, Order::is_final(Seq(1)))
    }

    /// An empty batch of final versions of this order, in the place of those that are there.
    pub(crate) fn at(store: &Store, order: Order) -> Self {
        let mut batch = Batch::new(store, &Sight::trunk());
        batch.order = Some(order);
        batch
    }

    fn put(&mut self, key: Key, stored: Vec<u8>) {
        self.records.insert(key, stored);
    }

    /// Sets a file's record.
    pub fn put_inode(&mut self, ino: Ino, inode: &Inode) -> Result<(), StoreError> {
        self.put(Key::Inode(ino), record::encode(inode)?);
        Ok(())
    }

    /// Files whose records are in it.
    fn inodes(&self) -> impl Iterator<Item = Ino> + '_ {
        self.records.keys().filter_map(|key| match key {
            Key::Inode(ino) => Some(*ino),
            _ => None,
        })
    }

    /// Sets a name.
    pub fn put_entry(&mut self, parent: Ino, name: &[u8], entry: &Entry) -> Result<(), StoreError> {
        self.put(Key::Entry(parent, name.to_vec()), record::encode(entry)?);
        Ok(())
    }

    /// Removes a name.
    pub fn remove_entry(&mut self, parent: Ino, name: &[u8]) -> Result<(), StoreError> {
        self.put(Key::Entry(parent, name.to_vec()), record::tombstone());
        Ok(())
    }

    /// Adds to a directory's count of subdirectories and sets those times that are given.
    pub fn put_dir_stat(&mut self, ino: Ino, stat: DirStat) -> Result<(), StoreError> {
        match self.dir_stats.iter_mut().find(|(known, _)| *known == ino) {
            Some((_, sum)) => *sum = sum.then(stat),
            None => self.dir_stats.push((ino, stat)),
        }
        Ok(())
    }

    /// Sets an extended attribute.
    pub fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.put(Key::Xattr(ino, name.to_vec()), record::encode_bytes(value));
        Ok(())
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), StoreError> {
        self.put(Key::Xattr(ino, name.to_vec()), record::tombstone());
        Ok(())
    }

    /// Sets the bytes of a small content.
    pub fn put_inline(&mut self, content: ContentId, bytes: &[u8]) {
        self.put(Key::Inline(content), record::encode_bytes(bytes));
    }

    /// The bytes of a small content as this batch leaves them, if it changes them.
    pub(in crate::store) fn inline(&self, content: ContentId) -> Result<Option<Option<Vec<u8>>>, StoreError> {
        let stored = self.records.get(&Key::Inline(content));
        stored.map(|stored| Ok(record::payload(stored)?.map(<[u8]>::to_vec))).transpose()
    }

    /// A content is no longer small.
    pub fn remove_inline(&mut self, content: ContentId) {
        self.put(Key::Inline(content), record::tombstone());
    }

    /// Says where a block lies.
    pub fn put_block(&mut self, content: ContentId, block: BlockNo, place: BlockRecord) -> Result<(), StoreError> {
        self.put(Key::Block(content, block), record::encode(&place)?);
        self.placed.insert((content, block), place.layer);
        Ok(())
    }

    /// Makes a block a hole. Its bytes stay until that is on disk.
    pub(super) fn remove_block(&mut self, content: ContentId, block: BlockNo) {
        self.put(Key::Block(content, block), record::tombstone());
    }

    /// Removes a file's record.
    pub(super) fn remove_inode(&mut self, ino: Ino) {
        self.put(Key::Inode(ino), record::tombstone());
    }

    /// Removes a directory's times and counts.
    pub(super) fn remove_dir_stat(&mut self, ino: Ino) {
        self.put(Key::DirStat(ino), record::tombstone());
    }

    /// The blocks of a content that this batch places, with their layers.
    pub(super) fn places(&self, content: ContentId) -> impl Iterator<Item = (BlockNo, LayerId)> + '_ {
        self.placed.iter().filter(move |((of, _), _)| *of == content).map(|((_, block), layer)| (*block, *layer))
    }

    /// A new content file belongs to this content and writer.
    pub fn add_layer(&mut self, content: ContentId, layer: LayerId) {
        self.layers.push((content, layer));
    }

    /// The content file of this content that this batch has made last.
    pub(super) fn new_layer(&self, content: ContentId) -> Option<LayerId> {
        self.layers.iter().rev().find(|(of, _)| *of == content).map(|(_, layer)| *layer)
    }

    /// What it has written belongs to its records now.
    fn settle(mut self) {
        for (content, layer) in self.layers.drain(..) {
            self.content.set_current(content, self.sight.writer, layer);
        }
        self.placed.clear();
    }

    /// It failed, and its records may be there all the same when the log is next read: what it has written stays, and nothing
    /// else is put there.
    fn doubt(mut self) {
        self.layers.clear();
        std::mem::take(&mut self.placed).into_values().for_each(|layer| self.content.retire(layer));
    }

    /// An inode no longer refers to this content in this sight.
    pub fn discard_content(&mut self, content: ContentId, ino: Ino) {
        self.discarded.push((content, ino));
    }

    /// A final inode lost its last name: it goes when nobody uses it any more.
    pub fn add_orphan(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.orphans.push(ino);
        Ok(())
    }

    /// Whether it only takes away: names, contents, or parts of these.
    fn frees(&self) -> bool {
        let gone = |stored: &[u8]| matches!(record::payload(stored), Ok(None));
        let adds = |key: &Key| matches!(key, Key::Entry(..) | Key::Xattr(..) | Key::Block(..));
        let removes = !self.discarded.is_empty() || self.records.values().any(|stored| gone(stored));
        removes && self.layers.is_empty() && !self.records.iter().any(|(key, stored)| adds(key) && !gone(stored))
    }

    /// Bytes were written where they lay before, which takes no space if there is some under all of them.
    pub(super) fn note_rewrite(&mut self) {
        self.rewritten = true;
    }

    /// Whether it only is about bytes that were written where they lay before.
    fn rewrites(&self) -> bool {
        let gone = |stored: &[u8]| matches!(record::payload(stored), Ok(None));
        let only_inodes = self.records.iter().all(|(key, stored)| matches!(key, Key::Inode(_)) || gone(stored));
        self.rewritten && only_inodes && self.layers.is_empty() && self.placed.is_empty() && self.dir_stats.is_empty()
    }

    /// Whether it changes anything.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.dir_stats.is_empty() && self.orphans.is_empty()
    }
}

impl Drop for Batch {
    /// What a batch has written that came to nothing is nobody's, and must not show in what is written there next.
    fn drop(&mut self) {
        for (_, layer) in &self.layers {
            if let Err(error) = self.content.remove_layer(*layer) {
                tracing::error!("a content file that is not used: {error}");
            }
        }
        let old = |layer: &LayerId| !self.layers.iter().any(|(_, new)| new == layer);
        for ((_, block), layer) in self.placed.iter().filter(|(_, layer)| old(layer)) {
            if let Err(error) = self.content.punch(*layer, *block) {
                tracing::error!("a block that is not used: {error}");
                self.content.retire(*layer);
            }
        }
    }
}

impl Store {
    /// Makes all changes of a batch at once. They survive the death of the process; [`Store::sync`] makes them survive
    /// that of the machine. One that removes works on a full disk, too, and so does one that writes where it was promised space.
    pub fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if !batch.frees() && !batch.rewrites() {
            self.require_room()?;
        }
        let result = self.try_apply(&batch);
        if batch.sight.writer == IntervalId::FINAL {
            self.homes.changed(batch.inodes());
        }
        match result {
            Ok(()) => batch.settle(),
            Err(_) => {
                if batch.sight.writer != IntervalId::FINAL {
                    // Its records may be there all the same: a commit of them has something to make durable.
                    self.note_changes(batch.sight.writer, 1);
                }
                batch.doubt();
            }
        }
        result
    }

    fn try_apply(&self, batch: &Batch) -> Result<(), StoreError> {
        let apply = || match batch.sight.writer {
            IntervalId::FINAL => self.apply_final(batch),
            writer => self.apply_undecided(writer, batch),
        };
        let mut result = apply();
        for _ in 0..APPLY_TRIES_MAX {
            match &result {
                Err(StoreError::Refused(why)) => self.mend(why)?,
                Err(StoreError::Records(why)) => {
                    self.mend(why)?;
                    break;
                }
                Err(StoreError::NoSpace(why)) if batch.frees() => self.make_room(why)?,
                Err(StoreError::NoSpace(why)) if batch.rewrites() && self.can_spare_room()? => self.make_room(why)?,
                Err(StoreError::NoSpace(why)) if self.mend_with_space(why)? => {}
                _ => break,
            }
            result = apply();
            if result.is_ok() && batch.sight.writer != IntervalId::FINAL {
                // What failed before may have been there, and was not counted.
                self.count_again(batch.sight.writer);
            }
        }
        result
    }

    fn apply_undecided(&self, writer: IntervalId, batch: &Batch) -> Result<(), StoreError> {
        // Else a note of a content could be removed by who has just found that this interval refers to it.
        let _noting = (!batch.discarded.is_empty()).then(|| self.final_writes.lock());
        let db = self.db()?;
        let order = Order::undecided(writer);
        let mut writes = db.writes();
        let mut new_inodes = 0;
        for (key, stored) in &batch.records {
            let prefix = key.prefix();
            let change = meta::change(writer, &prefix);
            if matches!(key, Key::Inode(_)) && !db.contains(Family::Changes, &change)? {
                new_inodes += 1;
            }
            let version = keys::version(&prefix, order);
            if matches!(key, Key::Block(..))
                && record::payload(stored)?.is_none()
                && let Some(before) = db.get(Family::Data, &version)?
            {
                self.content_goes(&mut writes, key, &before, stored)?;
            }
            writes.put(Family::Data, &version, stored);
            writes.put(Family::Changes, &change, &[]);
        }
        for (ino, stat) in &batch.dir_stats {
            let prefix = Key::DirStat(*ino).prefix();
            let version = keys::version(&prefix, order);
            let before = match db.get(Family::Data, &version)? {
                Some(stored) => record::payload(&stored)?.map(record::decode).transpose()?.unwrap_or_default(),
                None => DirStat::default(),
            };
            writes.put(Family::Data, &version, &record::encode(&before.then(*stat))?);
            writes.put(Family::Changes, &meta::change(writer, &prefix), &[]);
        }
        meta::note_content(&mut writes, &batch.layers, &batch.discarded, writer);
        writes.apply(false)?;
        self.note_changes(writer, new_inodes);
        Ok(())
    }

    fn apply_final(&self, batch: &Batch) -> Result<(), StoreError> {
        // The lock before the database: whoever opens it again holds the lock and waits for all others to let go.
        let _merging = self.final_writes.lock();
        let db = self.db()?;
        let order = batch.order.unwrap_or(Order::is_final(self.epoch()));
        let mut writes = db.writes();
        for (key, stored) in &batch.records {
            let prefix = key.prefix();
            writes.put(Family::Data, &keys::version(&prefix, order), stored);
            self.drop_superseded(&db, &mut writes, key, &prefix, (order, stored))?;
        }
        for (ino, stat) in &batch.dir_stats {
            let key = Key::DirStat(*ino);
            let prefix = key.prefix();
            let mut known = versions::all(&db, &prefix)?;
            if batch.order.is_some() {
                known.retain(|version| version.order == order);
            }
            let before = versions::sum(&known, &Sight::trunk(), &self.decided.read())?;
            let stored = record::encode(&before.then(*stat))?;
            writes.put(Family::Data, &keys::version(&prefix, order), &stored);
            self.drop_superseded(&db, &mut writes, &key, &prefix, (order, &stored))?;
        }
        for ino in &batch.orphans {
            writes.wait(meta::orphan(*ino));
        }
        meta::note_content(&mut writes, &batch.layers, &batch.discarded, IntervalId::FINAL);
        writes.apply(false)
    }

    /// Removes the merged versions that the one of `order` replaces, or notes for which snapshot they are kept.
    fn drop_superseded(
        &self,
        db: &Db,
        writes: &mut Writes<'_>,
        key: &Key,
        prefix: &[u8],
        (order, stored): (Order, &[u8]),
    ) -> Result<(), StoreError> {
        let versions = versions::all(db, prefix)?;
        if let Some(rewritten) = versions.iter().find(|v| v.order == order) {
            self.content_goes(writes, key, &rewritten.stored, stored)?;
        }
        let mut newer = order;
        for version in versions.iter().filter(|v| v.order.interval().is_none() && v.order < order) {
            match self.snapshots.needed_by(version.order, newer) {
                Some(snapshot) => writes.put(Family::Meta, &meta::kept(snapshot, prefix), &[]),
                None => {
                    writes.delete(Family::Data, &keys::version(prefix, version.order));
                    self.content_goes(writes, key, &version.stored, stored)?;
                }
            }
            newer = version.order;
        }
        let gone = record::payload(stored)?.is_none();
        // What jobs have changed is looked at when they are decided.
        if gone && versions.iter().all(|version| version.order.interval().is_none()) {
            self.drop_tombstone(writes, prefix, order);
        }
        Ok(())
    }

    /// Removes the newest version of a key, a tombstone, unless a snapshot is older: then once that has ended.
    pub(super) fn drop_tombstone(&self, writes: &mut Writes<'_>, prefix: &[u8], order: Order) {
        match self.snapshots.oldest_below(order) {
            Some(snapshot) => writes.put(Family::Meta, &meta::kept(snapshot, prefix), &[]),
            None => writes.delete(Family::Data, &keys::version(prefix, order)),
        }
    }

    /// Notes that what a dropped version of a file referred to may be garbage.
    pub(super) fn content_goes(
        &self,
        writes: &mut Writes<'_>,
        key: &Key,
        dropped: &[u8],
        staying: &[u8],
    ) -> Result<(), StoreError> {
        match key {
            Key::Inode(ino) => {
                let (gone, stays) = (record::content_of(dropped)?, record::content_of(staying)?);
                if let Some(gone) = gone.filter(|gone| stays != Some(*gone)) {
                    writes.wait(meta::discarded(gone, *ino));
                }
            }
            Key::Block(_, block) => {
                let place = |stored: &[u8]| -> Result<Option<BlockRecord>, StoreError> {
                    record::payload(stored)?.map(record::decode).transpose()
                };
                let gone = place(dropped)?;
                if let Some(gone) = gone.filter(|gone| place(staying).ok().flatten() != Some(*gone)) {
                    writes.wait(meta::unused_block(gone.layer, *block));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
