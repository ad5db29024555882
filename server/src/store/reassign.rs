//! An undecided interval becomes part of an earlier one: its versions carry that one's number from then on.

use super::db::{Db, Family, Writes};
use super::keys::{self, Key, Order};
use super::record;
use super::{Store, StoreError, meta};
use mojavefs::id::IntervalId;

impl Store {
    /// Gives what an undecided interval has changed to an earlier one, at once; `keys` is all of it. The caller keeps every
    /// other operation out, and no undecided interval between the two may have changed any of it. After an error it may have
    /// happened or not.
    pub fn reassign(&self, from: IntervalId, to: IntervalId, keys: &[Key]) -> Result<(), StoreError> {
        // Contents that nothing refers to any more are destroyed meanwhile, with all their versions.
        let _writers = self.final_writes.lock();
        let db = self.db()?;
        let mut writes = db.writes();
        let mut new_inodes = 0;
        for key in keys {
            let is_new = self.reassign_key(&db, &mut writes, key, (from, to))?;
            new_inodes += u64::from(is_new && matches!(key, Key::Inode(_)));
        }
        for (layer, content) in self.layers_of(&db, from)? {
            writes.delete(Family::Meta, &meta::key(meta::INTERVAL_LAYER, [from.0, layer.0]));
            meta::note_content(&mut writes, &[(content, layer)], &[], to);
        }
        writes.apply(false)?;
        self.changes.lock().remove(&from);
        self.note_changes(to, new_inodes);
        self.content.reassign(from, to);
        Ok(())
    }

    /// Whether the earlier interval had not changed this.
    fn reassign_key(
        &self,
        db: &Db,
        writes: &mut Writes<'_>,
        key: &Key,
        (from, to): (IntervalId, IntervalId),
    ) -> Result<bool, StoreError> {
        let prefix = key.prefix();
        let [later, earlier] = [from, to].map(|interval| keys::version(&prefix, Order::undecided(interval)));
        let before = db.get(Family::Data, &earlier)?;
        // One of a content that was destroyed is gone from the one as from the other.
        if let Some(stored) = db.get(Family::Data, &later)? {
            match (&before, key) {
                (Some(before), Key::DirStat(_)) => {
                    writes.put(Family::Data, &earlier, &record::sum(before, &stored)?);
                }
                (Some(before), _) => {
                    self.content_goes(writes, key, before, &stored)?;
                    writes.put(Family::Data, &earlier, &stored);
                }
                (None, _) => writes.put(Family::Data, &earlier, &stored),
            }
            writes.delete(Family::Data, &later);
        }
        let change = meta::change(to, &prefix);
        let is_new = !db.contains(Family::Changes, &change)?;
        writes.put(Family::Changes, &change, &[]);
        writes.delete(Family::Changes, &meta::change(from, &prefix));
        Ok(is_new)
    }
}
