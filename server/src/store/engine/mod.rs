//! The doors below the store: records, blobs, and the space that both take. What is on the other side, a database, files, a
//! disk, memory, only the engines know. `docs/engines.md` has the contracts as a table.
//!
//! An [`Engine`] is where a store lies, closed. A process takes it for itself ([`Engine::take`]), and opens its records, its
//! blobs and its space through what it gets ([`Taken`]). The records are opened again after a failure, the others are not.

mod batch;
mod cached;
mod directory;
mod disk;
mod error;
mod files;
mod log_sync;
pub mod memory;
mod private;
mod rocksdb;
mod sys;

pub use batch::{Change, WriteBatch};
pub use cached::{Uncached, cached_only, has_refused, is_cached_only, refuse};
pub use directory::Directory;
pub use error::EngineError;
pub use mojavefs::protocol::SpaceInfo;
pub(crate) use sys::read_cached;

use std::sync::Arc;

/// What a door answers.
pub type Result<T> = std::result::Result<T, EngineError>;

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To be used; it is made if there is none.
    Change,
    /// To be looked at, as it lies there: nothing is written, repaired or taken up again.
    Look,
}

/// Where a store lies.
pub trait Engine: Send + Sync {
    /// What users call it, for messages.
    fn name(&self) -> String;

    /// Takes it for this process alone. Waits a while for another that is ending.
    ///
    /// # Errors
    /// [`EngineError::InUse`], [`EngineError::NotAStore`] if something else is there, [`EngineError::NoStore`] if there is
    /// nothing to look at. Nothing is left behind then.
    fn take(&self, access: Access) -> Result<Arc<dyn Taken>>;
}

/// A store's place that this process has for itself. It is let go when this is dropped.
pub trait Taken: Send + Sync {
    /// Whether there was no store.
    fn is_new(&self) -> bool;

    /// What users are to be told of how it was found.
    fn note(&self) -> Option<String>;

    /// Opens the records. All that were opened before must have been dropped. What is found is durable once this returns.
    /// `memory_bytes` bounds buffers and caches.
    fn records(&self, memory_bytes: usize) -> Result<Arc<dyn Records>>;

    /// Opens the blobs.
    fn blobs(&self) -> Result<Arc<dyn Blobs>>;

    /// The space.
    fn space(&self) -> Arc<dyn Space>;

    /// Makes durable that there is a store. Blocks for the disk.
    fn settle(&self) -> Result<()>;

    /// Whoever has it is about to let go of it: who wants it waits for that. Nothing else changes by it.
    fn ends(&self) {}

    /// Removes the store, if taking it has made it, with all that it has made for it. Records and blobs must have been
    /// dropped.
    fn discard(&self);
}

/// A group of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Versions of objects.
    Data,
    /// Which objects an undecided interval changed.
    Changes,
    /// Decisions, held speculations, counters, what is to be reclaimed.
    Meta,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 3] = [Family::Data, Family::Changes, Family::Meta];
}

/// Ordered records: keys and values are bytes, keys order by their bytes.
///
/// A batch is there as a whole or not at all, now and after a crash. Who reads after [`Records::apply`] has returned sees what
/// it applied. What survives a crash of the machine is a prefix of what was applied, and all up to the last sync; a crash of
/// the process loses nothing. After [`EngineError::Failed`] or [`EngineError::Full`] it is not known whether a batch is there,
/// every change and sync may be refused ([`EngineError::Refused`]), and reading may show what is not durable, until the
/// records are opened again.
///
/// May be used from any thread; batches are applied one after the other. Who may read only what is in memory ([`cached_only`]) is
/// refused the rest.
pub trait Records: Send + Sync {
    /// Brings into memory what was refused. Blocks for the disk.
    fn fetch(&self, what: &Uncached) -> Result<()>;

    /// The value of a key.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>>;

    /// Whether there is such a key.
    fn contains(&self, family: Family, key: &[u8]) -> Result<bool>;

    /// Shows the records whose keys begin with `prefix`, in order, for as long as `visit` returns true: the common read, of
    /// the newest versions of one object. As they are at one moment.
    fn newest(&self, family: Family, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> bool) -> Result<()>;

    /// A walk over the keys that begin with `prefix`, from `from` on, as they are now, whatever is applied meanwhile.
    fn scan<'a>(&'a self, family: Family, prefix: &'a [u8], from: &[u8]) -> Box<dyn Cursor + 'a>;

    /// Applies a batch; `synced`: it is durable when this returns, as by [`Records::sync`].
    fn apply(&self, batch: &WriteBatch, synced: bool) -> Result<()>;

    /// Makes durable what was applied. Blocks for the disk.
    fn sync(&self) -> Result<()>;

    /// Leaves nothing to do for the next opening. Blocks for the disk.
    fn flush(&self) -> Result<()>;

    /// How far the sequence of batches has come, in a measure of the engine's own: if it is less when the records are opened
    /// again, batches were lost.
    fn reached(&self) -> u64;
}

/// A key and its value.
pub type Item<'a> = (&'a [u8], &'a [u8]);

/// A walk over keys, in their order.
pub trait Cursor {
    /// The record that it stands at, or nothing at the end.
    fn item(&self) -> Result<Option<Item<'_>>>;

    /// Goes on to the next key.
    fn next(&mut self);

    /// Goes on at the first key that is not below `key`.
    fn seek(&mut self, key: &[u8]);
}

/// The number of a blob. None is used for two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub u64);

/// Blobs: numbered sequences of bytes.
///
/// What was not synced may be lost by a crash of the machine, each piece of it by itself: any of the pages written, the length,
/// that a blob was made ([`Blobs::sync_names`]), that it was removed. A crash of the process loses nothing. After a failed sync
/// of a blob, what it had to write may be lost whatever a later sync says. Who may read only what is in memory ([`cached_only`]) is
/// refused the rest.
pub trait Blobs: Send + Sync {
    /// Brings into memory what was refused. Blocks for the disk.
    fn fetch(&self, what: &Uncached) -> Result<()>;

    /// What people call a blob, for messages.
    fn name(&self, blob: BlobId) -> String;

    /// Makes a new one, empty.
    fn create(&self, blob: BlobId) -> Result<()>;

    /// How long one may be at most, in bytes, as far as that is known.
    fn longest(&self) -> u64 {
        u64::MAX
    }

    /// How long it is, in bytes; [`EngineError::Missing`] if there is none.
    fn len(&self, blob: BlobId) -> Result<u64>;

    /// Fills `buffer` from `offset` on, as far as the blob reaches. Returns how many bytes those are.
    fn read(&self, blob: BlobId, offset: u64, buffer: &mut [u8]) -> Result<usize>;

    /// Where something other than zeros may be, from `offset` on; nothing if it is zeros from there to the end.
    fn next_data(&self, blob: BlobId, offset: u64) -> Result<Option<u64>> {
        let len = self.len(blob)?;
        Ok(Some(offset).filter(|at| *at < len))
    }

    /// Makes its bytes and its length durable. Blocks for the disk.
    fn sync(&self, blob: BlobId) -> Result<()>;

    /// Makes durable which blobs there are. Blocks for the disk.
    fn sync_names(&self) -> Result<()>;

    /// Makes everything durable, names too. After an error nothing is known; each blob's own sync says what became of it.
    /// Blocks for the disk.
    fn sync_all(&self) -> Result<()>;

    /// Removes one, if it is there.
    fn remove(&self, blob: BlobId) -> Result<()>;

    /// Every blob.
    fn list(&self) -> Result<Vec<BlobId>>;

    /// How blobs are changed, if this engine can do that. The store takes no engine that can't.
    fn in_place(&self) -> Option<&dyn InPlace>;
}

/// Changing blobs where they lie.
pub trait InPlace: Send + Sync {
    /// Makes it at least so long; what is new reads as zeros and takes no space.
    fn extend(&self, blob: BlobId, len: u64) -> Result<()>;

    /// Writes all of `data` at `offset`.
    fn write(&self, blob: BlobId, offset: u64, data: &[u8]) -> Result<()>;

    /// Takes the space for a range within its length, so that writing there takes no more. What it reads as stays. One that is
    /// refused ([`EngineError::Full`]) may have taken a part of it.
    fn allocate(&self, blob: BlobId, offset: u64, len: u64) -> Result<()>;

    /// Begins to make durable what was written, and does not wait for it.
    fn start_write_out(&self, blob: BlobId) -> Result<()>;

    /// Makes a range read as zeros and gives its space back; the length stays.
    fn punch(&self, blob: BlobId, offset: u64, len: u64) -> Result<()>;
}

/// The space that records and blobs take.
pub trait Space: Send + Sync {
    /// What there is of it, and what is free.
    fn info(&self) -> Result<SpaceInfo>;

    /// How much is reserved, in bytes.
    fn reserved(&self) -> Result<u64>;

    /// Reserves so much instead of what was before: nobody else gets it. All or nothing ([`EngineError::Full`]).
    fn reserve(&self, bytes: u64) -> Result<()>;

    /// Gives back what was reserved; false if nothing was.
    fn release(&self) -> Result<bool>;
}
