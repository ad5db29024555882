//! Reading what is in memory, and nothing else, where a lock is held that nobody shall wait for the disk with.

use super::{BlobId, EngineError, Family};
use mojavefs::id::Ino;
use std::cell::RefCell;

thread_local! {
    static READING: RefCell<Reading> = const { RefCell::new(Reading::Anything) };
}

/// What this thread may read.
enum Reading {
    Anything,
    /// What is in memory; what was refused first because it is not.
    Cached(Option<Uncached>),
}

/// Something that is to be read from the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncached {
    /// The value of a key.
    Record(Family, Vec<u8>),
    /// The records whose keys begin with `prefix`, from `from` on.
    Records {
        /// Their group.
        family: Family,
        /// How their keys begin.
        prefix: Vec<u8>,
        /// The first key, whether there is a record with it or not.
        from: Vec<u8>,
        /// How many were read already.
        read: usize,
    },
    /// Bytes of a blob.
    Bytes {
        /// The blob.
        blob: BlobId,
        /// Where they begin.
        offset: u64,
        /// How many they are.
        len: usize,
    },
    /// Bytes of a file of the host's.
    OfHost {
        /// The file.
        ino: Ino,
        /// Where they begin.
        offset: u64,
        /// How many they are.
        len: usize,
    },
}

/// Does something that reads nothing but what is in memory: what is not is refused ([`EngineError::Uncached`]). Returns what was
/// refused first, if anything was.
pub fn cached_only<T>(work: impl FnOnce() -> T) -> (T, Option<Uncached>) {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            READING.set(Reading::Anything);
        }
    }
    READING.set(Reading::Cached(None));
    let _end = End;
    let result = work();
    match READING.replace(Reading::Anything) {
        Reading::Cached(refused) => (result, refused),
        Reading::Anything => (result, None),
    }
}

/// Whether this thread may read only what is in memory.
pub fn is_cached_only() -> bool {
    READING.with_borrow(|reading| matches!(reading, Reading::Cached(_)))
}

/// Whether something was refused in what this thread is doing.
pub fn has_refused() -> bool {
    READING.with_borrow(|reading| matches!(reading, Reading::Cached(Some(_))))
}

/// Refuses to read something that is not in memory.
pub fn refuse(what: Uncached) -> EngineError {
    READING.with_borrow_mut(|reading| {
        if let Reading::Cached(refused @ None) = reading {
            *refused = Some(what);
        }
    });
    EngineError::Uncached
}
