//! Giving space back: contents and blocks of content files that no record refers to any more.
//!
//! What is destroyed here can't come back, but the records that dropped it may be lost with the power: then the ones before
//! them hold again, and refer to it. So they go to disk first.

use super::db::{Db, Family, Writes};
use super::keys::Key;
use super::versions;
use super::{Store, StoreError, meta};
use crate::limits::RECLAIM_STEP;
use mojavefs::id::{BlockNo, ContentId, Ino, LayerId};

/// What one step looks at.
struct Found {
    /// Contents that an inode referred to, with whether it still does.
    contents: Vec<(ContentId, Ino, bool)>,
    blocks: Vec<(LayerId, BlockNo)>,
}

impl Store {
    /// One bounded step. Returns how many contents and blocks it was about. Blocks for the disk if there are any.
    pub fn reclaim_space(&self) -> Result<u64, StoreError> {
        let _alone = self.giving_back.lock();
        self.with_room(|| {
            let found = self.unused()?;
            if !found.blocks.is_empty() || found.contents.iter().any(|(.., referred)| !referred) {
                // What has taken its place, too.
                self.content.sync_grown()?;
                self.sync_records()?;
            }
            self.drop_contents(&found.contents)?;
            self.punch_blocks(&found.blocks)?;
            Ok((found.contents.len() + found.blocks.len()) as u64)
        })
    }

    /// Whether there is anything to give back.
    pub fn has_unused(&self) -> Result<bool, StoreError> {
        let db = self.db()?;
        Ok(!db.waiting(meta::DISCARDED, 1)?.is_empty() || !db.waiting(meta::UNUSED_BLOCK, 1)?.is_empty())
    }

    fn unused(&self) -> Result<Found, StoreError> {
        let db = self.db()?;
        let contents = db.waiting(meta::DISCARDED, RECLAIM_STEP / 16)?;
        let contents = contents.iter().filter_map(|key| meta::numbers(key)).map(|[content, ino]| {
            let (content, ino) = (ContentId(content), Ino(ino));
            Ok((content, ino, refers(&db, ino, content)?))
        });
        let blocks = db.waiting(meta::UNUSED_BLOCK, RECLAIM_STEP)?;
        let blocks = blocks.iter().filter_map(|key| meta::numbers(key));
        Ok(Found {
            contents: contents.collect::<Result<_, StoreError>>()?,
            blocks: blocks.map(|[layer, block]| (LayerId(layer), BlockNo(block))).collect(),
        })
    }

    /// Contents that a version of an inode referred to which is gone: if no other version does, they go.
    fn drop_contents(&self, found: &[(ContentId, Ino, bool)]) -> Result<(), StoreError> {
        for (content, ino, referred) in found.iter().copied() {
            // The lock before the database: whoever opens it again holds the lock and waits for all others to let go.
            let _writers = self.final_writes.lock();
            let db = self.db()?;
            let mut writes = db.writes();
            match (referred, refers(&db, ino, content)?) {
                // What has dropped it meanwhile may not be on disk yet.
                (true, false) => continue,
                (_, true) => {}
                (false, false) => self.drop_content(&db, &mut writes, content)?,
            }
            writes.delete(Family::Meta, &meta::discarded(content, ino));
            writes.apply(false)?;
        }
        Ok(())
    }

    fn drop_content(&self, db: &Db, writes: &mut Writes<'_>, content: ContentId) -> Result<(), StoreError> {
        for prefix in [Key::Inline(content).prefix(), Key::blocks_of(content)] {
            let mut scan = db.scan(Family::Data, &prefix, &prefix);
            while let Some((key, _)) = scan.item()? {
                writes.delete(Family::Data, key);
                scan.next();
            }
        }
        let prefix = meta::key(meta::LAYER, [content.0]);
        let mut scan = db.scan(Family::Meta, &prefix, &prefix);
        while let Some((key, value)) = scan.item()? {
            if let (Some([_, layer]), Ok(writer)) = (meta::numbers(key), value.try_into()) {
                self.content.remove_layer(LayerId(layer))?;
                writes.delete(Family::Meta, key);
                writes.delete(Family::Meta, &meta::key(meta::INTERVAL_LAYER, [u64::from_be_bytes(writer), layer]));
            }
            scan.next();
        }
        self.content.forget_content(content);
        Ok(())
    }

    /// Blocks of content files that no record refers to: their space is given back.
    fn punch_blocks(&self, found: &[(LayerId, BlockNo)]) -> Result<(), StoreError> {
        let db = self.db()?;
        let mut writes = db.writes();
        for (layer, block) in found.iter().copied() {
            self.content.punch(layer, block)?;
            writes.delete(Family::Meta, &meta::unused_block(layer, block));
        }
        writes.apply(false)
    }
}

/// Whether any version of the inode refers to the content.
fn refers(db: &Db, ino: Ino, content: ContentId) -> Result<bool, StoreError> {
    versions::refer(&versions::all(db, &Key::Inode(ino).prefix())?, content)
}
