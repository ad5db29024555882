//! Looking through all of a store for what no view can reach and no index names: it should not be there, but what an earlier
//! version of this program left is. What is found is noted, and goes as everything that is noted does.

use super::db::{Db, Family};
use super::keys::{self, Key};
use super::reach::{self, Reach};
use super::versions::{self, Version};
use super::{Store, StoreError, meta, record};
use crate::limits::{SEARCH_CONTENTS_MAX, SEARCH_STEP};
use mojavefs::id::{ContentId, Ino};
use std::collections::BTreeSet;

/// A discarded content of which no inode is known.
const NO_INODE: Ino = Ino(0);

/// A search under way, and how far it is.
#[derive(Default)]
pub struct Search {
    at: Place,
    /// Contents with records, that no inode passed so far refers to.
    contents: BTreeSet<ContentId>,
    /// The last content of an earlier walk: there were too many for one.
    contents_done: Option<ContentId>,
    /// There are more contents than one walk can take: this is the last that it takes.
    contents_until: Option<ContentId>,
}

/// Where a search goes on: in the keys of content files, or of versions.
enum Place {
    Layers(Vec<u8>),
    Data(Vec<u8>),
}

impl Default for Place {
    fn default() -> Self {
        Place::Layers(vec![meta::LAYER])
    }
}

impl Store {
    /// One bounded step of a search. Returns how many things were found, and the search if it is not over.
    pub fn search(&self, mut search: Search) -> Result<(u64, Option<Search>), StoreError> {
        let db = self.db()?;
        match std::mem::take(&mut search.at) {
            Place::Layers(from) => {
                search.at = self.search_layers(&db, &mut search, &from)?;
                Ok((0, Some(search)))
            }
            Place::Data(from) => match self.search_data(&db, &mut search, &from)? {
                (found, Some(next)) => {
                    search.at = Place::Data(next);
                    Ok((found, Some(search)))
                }
                (found, None) => {
                    let discarded = self.discard_all(&db, &search.contents)?;
                    let contents_done = search.contents_until;
                    let again = contents_done.map(|_| Search { contents_done, ..Search::default() });
                    Ok((found + discarded, again))
                }
            },
        }
    }

    fn search_layers(&self, db: &Db, search: &mut Search, from: &[u8]) -> Result<Place, StoreError> {
        let mut scan = db.scan(Family::Meta, &[meta::LAYER], from);
        for _ in 0..SEARCH_STEP {
            let Some((key, _)) = scan.item()? else { return Ok(Place::Data(Vec::new())) };
            if let Some([content, _]) = meta::numbers(key) {
                search.add(ContentId(content));
            }
            scan.next();
        }
        Ok(scan.item()?.map_or(Place::Data(Vec::new()), |(key, _)| Place::Layers(key.to_vec())))
    }

    /// Contents come before inodes among the keys, so an inode that refers to one is passed after it.
    fn search_data(&self, db: &Db, search: &mut Search, from: &[u8]) -> Result<(u64, Option<Vec<u8>>), StoreError> {
        let mut writes = db.writes();
        let (mut found, mut seen) = (0, 0);
        let next = each_key(db, from, |prefix, versions| {
            seen += versions.len();
            let Some(key) = Key::parse(prefix) else {
                return Err(StoreError::corrupt(format!("a record has the unknown key {}", prefix.escape_ascii())));
            };
            if self.is_worth_a_look(db, search, &key, versions)? {
                writes.wait(meta::garbage(prefix));
                found += 1;
            }
            Ok(seen < SEARCH_STEP)
        })?;
        writes.apply(false)?;
        Ok((found, next))
    }

    fn is_worth_a_look(
        &self,
        db: &Db,
        search: &mut Search,
        key: &Key,
        versions: &[Version],
    ) -> Result<bool, StoreError> {
        match key {
            Key::Inline(content) | Key::Block(content, _) => search.add(*content),
            Key::Inode(_) => {
                for version in versions {
                    if let Some(content) = record::content_of(&version.stored)? {
                        search.contents.remove(&content);
                    }
                }
            }
            Key::Entry(..) | Key::DirStat(_) | Key::Xattr(..) => {}
        }
        // What an interval has changed is in its index.
        let is_final = |version: &Version| version.order.interval().is_none();
        if !versions.iter().any(is_final) {
            return Ok(false);
        }
        if let Some(ino) = key.inode()
            && is_gone(db, ino)?
        {
            return Ok(true);
        }
        let decided = self.decided.read();
        let snapshots = self.snapshots.all();
        let reach = Reach { decided: &decided, is_live: &|_| true, snapshots: &snapshots };
        Ok(reach.sort(key, versions)?.unreachable.into_iter().any(is_final))
    }

    fn discard_all(&self, db: &Db, contents: &BTreeSet<ContentId>) -> Result<u64, StoreError> {
        let mut writes = db.writes();
        contents.iter().for_each(|content| writes.wait(meta::discarded(*content, NO_INODE)));
        writes.apply(false)?;
        Ok(contents.len() as u64)
    }
}

impl Search {
    fn add(&mut self, content: ContentId) {
        if self.contents_done.is_some_and(|done| content <= done) {
            return;
        }
        self.contents.insert(content);
        if self.contents.len() > SEARCH_CONTENTS_MAX {
            self.contents.pop_last();
            self.contents_until = self.contents.last().copied();
        }
    }
}

/// Whether nothing is left of an inode that anybody could see.
pub(super) fn is_gone(db: &Db, ino: Ino) -> Result<bool, StoreError> {
    let versions = versions::all(db, &Key::Inode(ino).prefix())?;
    Ok(reach::inodes(&versions.iter().collect::<Vec<_>>())?.is_empty())
}

/// Looks at each key from `from` on with all of its versions, newest first, until `look` says that it is enough. Returns where
/// to go on, unless that was all.
pub(super) fn each_key(
    db: &Db,
    from: &[u8],
    mut look: impl FnMut(&[u8], &[Version]) -> Result<bool, StoreError>,
) -> Result<Option<Vec<u8>>, StoreError> {
    let (mut current, mut versions) = (Vec::new(), Vec::new());
    let mut scan = db.scan(Family::Data, &[], from);
    while let Some((key, value)) = scan.item()? {
        let Some((prefix, order)) = keys::split(key) else {
            return Err(StoreError::corrupt(format!("a record has the unknown key {}", key.escape_ascii())));
        };
        if prefix != current {
            if !versions.is_empty() && !look(&current, &versions)? {
                return Ok(Some(key.to_vec()));
            }
            current = prefix.to_vec();
            versions.clear();
        }
        versions.push(Version { order, stored: value.to_vec() });
        scan.next();
    }
    if !versions.is_empty() {
        look(&current, &versions)?;
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::engine::BlobId;
    use crate::store::engine::memory::Memory;
    use crate::store::{Batch, Inode, Order, Sight, StoreOptions, fsck};
    use mojavefs::id::{BlockNo, LayerId, Seq};

    const OPTIONS: StoreOptions = StoreOptions { memory_bytes: 32 << 20, owner: (0, 0) };

    fn search_all(store: &Store) -> u64 {
        let (mut total, mut search) = (0, Some(Search::default()));
        while let Some(under_way) = search {
            let (found, next) = store.search(under_way).expect("a step");
            total += found;
            search = next;
        }
        total
    }

    fn free(store: &Store) {
        while store.reclaim_space().expect("a step") > 0 || store.reclaim(&|_| false).expect("a step").more {}
    }

    /// Leaves versions of every sort that no view can reach, as if what removes them had forgotten them. Returns how many.
    fn leave_garbage(store: &Store) -> u64 {
        let db = store.db().expect("records");
        let mut writes = db.writes();
        let mut left = 0;
        let mut put = |key: &Key, seq: u64, stored: &[u8]| {
            writes.put(Family::Data, &keys::version(&key.prefix(), Order::is_final(Seq(seq))), stored);
            left += 1;
        };
        let root = store.inode(&Sight::trunk(), Ino::ROOT).expect("a read").found.expect("the root");
        let old = Inode { content: Some(ContentId(90)), ..root };
        put(&Key::Inode(Ino::ROOT), 1, &record::encode(&old).expect("a record"));
        let gone = Ino(77);
        put(&Key::Xattr(gone, b"user.k".to_vec()), 1, &record::encode_bytes(b"value"));
        put(&Key::DirStat(gone), 1, &record::tombstone());
        put(&Key::Entry(Ino::ROOT, b"gone".to_vec()), 1, &record::tombstone());
        for content in [90, 91] {
            let place = record::encode(&crate::store::BlockRecord { layer: LayerId(content) }).expect("a record");
            put(&Key::Block(ContentId(content), BlockNo(3)), 1, &place);
            put(&Key::Inline(ContentId(content)), 1, &record::encode_bytes(b"bytes"));
        }
        for (content, layer) in [(90, 90), (91, 91), (92, 92)] {
            writes.put(Family::Meta, &meta::key(meta::LAYER, [content, layer]), &0_u64.to_be_bytes());
            let blobs = store.engine.blobs().expect("blobs");
            blobs.create(BlobId(layer)).expect("a content file");
            blobs.in_place().expect("they can be changed").extend(BlobId(layer), 1 << 20).expect("it is longer");
        }
        writes.apply(false).expect("records");
        left
    }

    #[test]
    fn what_no_view_can_reach_is_counted_found_and_freed() {
        let place = Memory::of(1 << 30);
        let content_files = |store: &Store| store.engine.blobs().and_then(|blobs| blobs.list()).expect("blobs").len();
        let store = Store::open(&place, OPTIONS).expect("the store opens");
        let trunk = Sight::trunk();
        let mut batch = Batch::new(&store, &trunk);
        batch.put_xattr(Ino::ROOT, b"user.kept", b"value").expect("a record");
        store.apply(batch).expect("a batch");
        free(&store);
        assert_eq!(search_all(&store), 0, "a sound store has nothing to find");
        let left = leave_garbage(&store);
        free(&store);
        assert_eq!(content_files(&store), 3, "nothing names it");
        drop(store);
        let check = || fsck(&place, OPTIONS, &mut |_| {}).expect("it is checked");
        let report = check();
        assert!(report.problems.is_empty(), "garbage is no damage: {:?}", report.problems);
        assert_eq!((report.unreachable, report.unreachable_blocks, report.unreachable_files), (left, 2, 3));
        let store = Store::open(&place, OPTIONS).expect("the store opens");
        assert!(search_all(&store) > 0);
        free(&store);
        assert_eq!(search_all(&store), 0, "it is found once");
        assert_eq!(store.xattr(&trunk, Ino::ROOT, b"user.kept").expect("a read").found.as_deref(), Some(&b"value"[..]));
        assert_eq!(content_files(&store), 0);
        drop(store);
        let report = check();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!((report.unreachable, report.blocks, report.unreachable_files), (0, 0, 0));
    }
}
