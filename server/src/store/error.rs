//! What can go wrong in the store.

use mojavefs::id::IntervalId;
use std::io;
use std::path::PathBuf;

/// An error of the store, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("store {} is in use by another process; stop that one (mojavefs umount) first", .0.display())]
    InUse(PathBuf),
    /// The directory holds something else.
    #[error("{} is not empty and is no MojaveFS store; name an empty or new directory", .0.display())]
    NotAStore(PathBuf),
    /// There is nothing to look at.
    #[error("{} holds no MojaveFS store; name the directory that was mounted or served", .0.display())]
    NoStore(PathBuf),
    /// The store was written by a newer or older program.
    #[error("store {} has format {found}; this program knows format {known}: use a program that fits", path.display())]
    Format {
        /// The store.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// The format of this program.
        known: u64,
    },
    /// What is stored makes no sense.
    #[error("the store is damaged: {0}; run `mojavefs fsck` on it")]
    Corrupt(String),
    /// The disk under the store is full.
    #[error("the disk under the store is full ({0})")]
    NoSpace(String),
    /// The disk under the store failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What the system said.
        source: io::Error,
    },
    /// RocksDB failed.
    #[error("the record store failed: {0}")]
    Records(String),
    /// A decision could not be made durable and was found not to have been made.
    #[error("not committed: {0}")]
    NotCommitted(String),
    /// Content was met that an undecided interval wrote which the view does not see yet.
    #[error("undecided work of interval {0} was met")]
    Met(IntervalId),
    /// The store stopped after an error that left it in doubt.
    #[error("the store has stopped after an error ({0}); mend the disk and mount again")]
    Stopped(String),
}

impl StoreError {
    /// Damage, described.
    pub(crate) fn corrupt(what: impl Into<String>) -> Self {
        StoreError::Corrupt(what.into())
    }

    /// Whether the record store refused because of what had gone wrong before, for somebody else: nothing was tried.
    pub(crate) fn follows_another(&self) -> bool {
        let words = ["Writer has previous error", "Seen error. Skip writing buffer"];
        matches!(self, StoreError::Records(text) if words.iter().any(|word| text.contains(word)))
    }

    /// A failed system call, with what it was for.
    pub(crate) fn io(context: impl Into<String>, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(code) if code == nix::libc::ENOSPC || code == nix::libc::EDQUOT => StoreError::NoSpace(context.into()),
            _ => StoreError::Io { context: context.into(), source },
        }
    }
}

impl From<rocksdb::Error> for StoreError {
    fn from(error: rocksdb::Error) -> Self {
        let text = error.into_string();
        match () {
            () if text.contains("No space left") => StoreError::NoSpace(text),
            () if text.starts_with("Corruption") => StoreError::Corrupt(text),
            () => StoreError::Records(text),
        }
    }
}
