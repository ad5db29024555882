//! Finding the version that a view sees.

use super::db::{Db, Family, Scan};
use super::keys::{self, Key, ORDER_BYTES, Order};
use super::record::{self, BlockRecord, DirStat, Entry, Inode};
use super::{Committed, Decided, Listed, Newer, Reading, Sight, Store, StoreError, meta};
use mojavefs::id::{BlockNo, ContentId, Ino, IntervalId, LayerId, Seq};
use mojavefs::protocol::file::Name;
use std::collections::BTreeMap;

/// One stored version.
pub(super) struct Version {
    pub(super) order: Order,
    pub(super) stored: Vec<u8>,
}

/// Which version it is, and the record unless it is gone in it.
pub(super) type Stored = (Order, Option<Vec<u8>>);

/// All versions of one key, newest first.
pub(super) fn all(db: &Db, prefix: &[u8]) -> Result<Vec<Version>, StoreError> {
    let mut versions = Vec::new();
    db.newest(prefix, |key, value| {
        if key.len() == prefix.len() + ORDER_BYTES
            && let Some((_, order)) = keys::split(key)
        {
            versions.push(Version { order, stored: value.to_vec() });
        }
        true
    })?;
    Ok(versions)
}

/// Whether one of these versions of an inode refers to the content.
pub(super) fn refer(versions: &[Version], content: ContentId) -> Result<bool, StoreError> {
    for version in versions {
        if record::content_of(&version.stored)? == Some(content) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Chooses among the versions of one key as they come, newest first.
struct Chooser<'a> {
    sight: &'a Sight,
    decided: &'a Decided,
    best: Option<(Seq, Order, Vec<u8>)>,
    newer: Newer,
    met: Option<IntervalId>,
    done: bool,
}

impl<'a> Chooser<'a> {
    fn new(sight: &'a Sight, decided: &'a Decided) -> Self {
        Chooser { sight, decided, best: None, newer: Newer::default(), met: None, done: false }
    }

    fn offer(&mut self, order: Order, stored: &[u8]) {
        if self.done {
            return;
        }
        let seq = match order.interval() {
            Some(interval) if self.sight.live.binary_search(&interval).is_ok() => {
                self.best = Some((Seq::NOW, order, stored.to_vec()));
                self.done = true;
                return;
            }
            Some(interval) if self.sight.missed.contains(&interval) => {
                self.newer.is_missed = true;
                return;
            }
            Some(interval) => match self.decided.committed.get(&interval) {
                Some(committed) => committed.seq,
                None if self.sight.meets && !self.decided.dead.contains(&interval) => {
                    self.met = Some(interval);
                    self.done = true;
                    return;
                }
                None => return,
            },
            None => order.seq().expect("an order is an interval's or final"),
        };
        if seq > self.sight.snapshot {
            self.newer.is_final |= !self.newer.is_missed;
            return;
        }
        if self.best.as_ref().is_none_or(|(best, ..)| *best < seq) {
            self.best = Some((seq, order, stored.to_vec()));
        }
        // Merged versions come last and newest first: nothing after this one is later.
        self.done = order.interval().is_none();
    }

    /// Looks at all versions of one key, at the first of which `scan` stands, and leaves it behind the last.
    fn choose(mut self, scan: &mut Scan<'_>, prefix: &[u8]) -> Result<Reading<Vec<u8>>, StoreError> {
        while let Some((key, value)) = scan.item()? {
            match keys::split(key) {
                Some((same, order)) if same == prefix => self.offer(order, value),
                _ => break,
            }
            scan.next();
        }
        self.finish()
    }

    /// How what was chosen was committed, if it is not merged yet.
    fn committed(&self) -> Option<Committed> {
        let (_, order, _) = self.best.as_ref()?;
        self.decided.committed.get(&order.interval()?).copied()
    }

    fn finish(self) -> Result<Reading<Vec<u8>>, StoreError> {
        let (newer, met) = (self.newer, self.met);
        let Some((_, order, mut stored)) = self.best else {
            return Ok(Reading { found: None, order: None, newer, met });
        };
        let found = record::payload(&stored)?.is_some();
        stored.remove(0);
        Ok(Reading { found: found.then_some(stored), order: Some(order), newer, met })
    }
}

impl Store {
    /// The visible version of one record, as bytes.
    pub(super) fn read(&self, sight: &Sight, key: &Key) -> Result<Reading<Vec<u8>>, StoreError> {
        self.read_committed(sight, key).map(|(reading, _)| reading)
    }

    /// The same, and how that was committed, if it is not merged yet.
    fn read_committed(&self, sight: &Sight, key: &Key) -> Result<(Reading<Vec<u8>>, Option<Committed>), StoreError> {
        let db = self.db()?;
        let decided = self.decided.read();
        let prefix = key.prefix();
        let mut chooser = Chooser::new(sight, &decided);
        db.newest(&prefix, |key, value| {
            if key.len() == prefix.len() + ORDER_BYTES
                && let Some((_, order)) = keys::split(key)
            {
                chooser.offer(order, value);
            }
            !chooser.done
        })?;
        let committed = chooser.committed();
        Ok((chooser.finish()?, committed))
    }

    /// Every version of a key that is stored, whoever can see it, newest first: which it is, and the record unless it is gone
    /// in it.
    pub fn stored(&self, key: &Key) -> Result<Vec<Stored>, StoreError> {
        let versions = all(&*self.db()?, &key.prefix())?;
        let shown = |version: Version| {
            let payload = record::payload(&version.stored)?.map(<[u8]>::to_vec);
            Ok((version.order, payload))
        };
        versions.into_iter().map(shown).collect()
    }

    fn record<T: record::Record>(&self, sight: &Sight, key: &Key) -> Result<Reading<T>, StoreError> {
        self.read(sight, key)?.and_then(|bytes| record::decode(&bytes))
    }

    /// A file. What a commit has changed is as new as that.
    pub fn inode(&self, sight: &Sight, ino: Ino) -> Result<Reading<Inode>, StoreError> {
        let (reading, committed) = self.read_committed(sight, &Key::Inode(ino))?;
        reading.and_then(|bytes| {
            let inode: Inode = record::decode(&bytes)?;
            Ok(match committed {
                Some(committed) => inode.committed(committed),
                None => inode,
            })
        })
    }

    /// A name.
    pub fn entry(&self, sight: &Sight, parent: Ino, name: &[u8]) -> Result<Reading<Entry>, StoreError> {
        self.record(sight, &Key::Entry(parent, name.to_vec()))
    }

    /// An extended attribute.
    pub fn xattr(&self, sight: &Sight, ino: Ino, name: &[u8]) -> Result<Reading<Vec<u8>>, StoreError> {
        self.read(sight, &Key::Xattr(ino, name.to_vec()))
    }

    /// The bytes of a small content.
    pub fn inline(&self, sight: &Sight, content: ContentId) -> Result<Reading<Vec<u8>>, StoreError> {
        let reading = self.read(sight, &Key::Inline(content))?;
        reading.met.map_or(Ok(reading), |met| Err(StoreError::Met(met)))
    }

    /// Where a block lies.
    pub fn block(&self, sight: &Sight, content: ContentId, block: BlockNo) -> Result<Reading<BlockRecord>, StoreError> {
        self.record(sight, &Key::Block(content, block))
    }

    /// A directory's times and subdirectories: the visible sum and what visible intervals add to it.
    pub fn dir_stat(&self, sight: &Sight, ino: Ino) -> Result<DirStat, StoreError> {
        let db = self.db()?;
        let decided = self.decided.read();
        let versions = all(&db, &Key::DirStat(ino).prefix())?;
        sum(&versions, sight, &decided)
    }

    /// Whether a directory has no visible name.
    pub fn is_empty_dir(&self, sight: &Sight, ino: Ino) -> Result<Reading<bool>, StoreError> {
        let entries = self.named(sight, &Key::entries_of(ino), None, 1)?;
        let (newer, met) = (entries.newer, entries.met.first().copied());
        Ok(Reading { found: Some(entries.found.is_empty()), order: None, newer, met })
    }

    /// Up to `limit` names of a directory after `after`.
    pub fn entries(
        &self,
        sight: &Sight,
        ino: Ino,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listed<(Name, Entry)>, StoreError> {
        let Listed { found, newer, met } = self.named(sight, &Key::entries_of(ino), after, limit)?;
        let entries = found.into_iter().map(|(name, bytes)| Ok((name, record::decode(&bytes)?)));
        Ok(Listed { found: entries.collect::<Result<_, StoreError>>()?, newer, met })
    }

    /// The names of a file's extended attributes.
    pub fn xattrs(&self, sight: &Sight, ino: Ino) -> Result<Listed<Name>, StoreError> {
        let Listed { found, newer, met } = self.named(sight, &Key::xattrs_of(ino), None, usize::MAX)?;
        Ok(Listed { found: found.into_iter().map(|(name, _)| name).collect(), newer, met })
    }

    /// Visible records whose keys are `owner` and a name.
    fn named(
        &self,
        sight: &Sight,
        owner: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Listed<(Name, Vec<u8>)>, StoreError> {
        let db = self.db()?;
        let decided = self.decided.read();
        let mut from = owner.to_vec();
        if let Some(after) = after {
            from.extend_from_slice(after);
            from.push(1);
        }
        let mut listed = Listed { found: Vec::new(), newer: Newer::default(), met: Vec::new() };
        let mut scan = db.scan(Family::Data, owner, &from);
        while listed.found.len() < limit {
            let Some((key, _)) = scan.item()? else { break };
            let Some((prefix, _)) = keys::split(key) else { break };
            let prefix = prefix.to_vec();
            let reading = Chooser::new(sight, &decided).choose(&mut scan, &prefix)?;
            listed.newer = listed.newer.and(reading.newer);
            listed.met.extend(reading.met);
            let name = prefix[owner.len()..].strip_suffix(&[0]);
            if let (Some(name), Some(bytes)) = (name, reading.found) {
                listed.found.push((name.to_vec(), bytes));
            }
        }
        Ok(listed)
    }

    /// The visible blocks of a content from `first` to `last`, those that exist, with the versions they are.
    pub fn blocks(
        &self,
        sight: &Sight,
        content: ContentId,
        first: BlockNo,
        last: BlockNo,
    ) -> Result<BTreeMap<BlockNo, (BlockRecord, Order)>, StoreError> {
        let db = self.db()?;
        let decided = self.decided.read();
        let owner = Key::blocks_of(content);
        let mut blocks = BTreeMap::new();
        let mut scan = db.scan(Family::Data, &owner, &Key::Block(content, first).prefix());
        while let Some((key, _)) = scan.item()? {
            let Some((prefix, _)) = keys::split(key) else { break };
            let Some(Key::Block(_, number)) = Key::parse(prefix) else { break };
            if number > last {
                break;
            }
            let prefix = prefix.to_vec();
            let reading = Chooser::new(sight, &decided).choose(&mut scan, &prefix)?;
            if let Some(met) = reading.met {
                return Err(StoreError::Met(met));
            }
            if let (Some(bytes), Some(order)) = (reading.found, reading.order) {
                blocks.insert(number, (record::decode(&bytes)?, order));
            }
        }
        Ok(blocks)
    }

    /// Whether a version of the block lies in the layer, whoever sees it, or one did whose bytes are still to be given back.
    pub(super) fn occupies(&self, content: ContentId, block: BlockNo, layer: LayerId) -> Result<bool, StoreError> {
        let db = self.db()?;
        for version in all(&db, &Key::Block(content, block).prefix())? {
            if let Some(payload) = record::payload(&version.stored)?
                && record::decode::<BlockRecord>(payload)?.layer == layer
            {
                return Ok(true);
            }
        }
        // After the versions: one that goes leaves this record behind in the same moment.
        db.contains(Family::Meta, &meta::unused_block(layer, block))
    }

    /// The first block from `first` on that exists in the sight.
    pub fn next_block(&self, sight: &Sight, content: ContentId, first: BlockNo) -> Result<Option<BlockNo>, StoreError> {
        let mut from = first;
        loop {
            let until = BlockNo(from.0.saturating_add(1023));
            if let Some((number, _)) = self.blocks(sight, content, from, until)?.into_iter().next() {
                return Ok(Some(number));
            }
            let db = self.db()?;
            let owner = Key::blocks_of(content);
            let scan = db.scan(Family::Data, &owner, &Key::Block(content, BlockNo(until.0.saturating_add(1))).prefix());
            let next = scan.item()?.and_then(|(key, _)| Key::parse(keys::split(key)?.0));
            match next {
                Some(Key::Block(_, number)) if number > until => from = number,
                _ => return Ok(None),
            }
        }
    }
}

/// A directory's visible sum: the newest visible merged version, then what committed intervals added after it, then
/// what visible undecided ones did.
pub(super) fn sum(versions: &[Version], sight: &Sight, decided: &Decided) -> Result<DirStat, StoreError> {
    let mut base = (Seq(0), DirStat::default());
    let mut later: Vec<((Seq, IntervalId), DirStat)> = Vec::new();
    for version in versions {
        let Some(payload) = record::payload(&version.stored)? else { continue };
        let stat: DirStat = record::decode(payload)?;
        match version.order.interval() {
            Some(interval) if sight.live.binary_search(&interval).is_ok() => {
                let at = decided.committed.get(&interval).map(|committed| committed.at).unwrap_or_default();
                later.push(((Seq::NOW, interval), stat.not_before(at)));
            }
            Some(interval) => match decided.committed.get(&interval) {
                Some(committed) if committed.seq <= sight.snapshot => {
                    later.push(((committed.seq, interval), stat.not_before(committed.at)));
                }
                _ => {}
            },
            None => {
                let seq = version.order.seq().unwrap_or(Seq(0));
                if seq <= sight.snapshot && seq >= base.0 {
                    base = (seq, stat);
                }
            }
        }
    }
    later.retain(|((seq, _), _)| *seq > base.0);
    later.sort_by_key(|(order, _)| *order);
    Ok(later.into_iter().fold(base.1, |sum, (_, stat)| sum.then(stat)))
}
