//! What can go wrong in the store.

use super::engine::EngineError;
use mojavefs::id::IntervalId;
use std::io;

/// An error of the store, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the store open.
    #[error("store {0} is in use by another process; stop that one (mojavefs umount) first")]
    InUse(String),
    /// Another process has the store open, and has said that it is ending.
    #[error("the process that had store {0} open is still ending, and writes out what it has; try again in a while")]
    Ending(String),
    /// Something else is where the store should be.
    #[error("{0} is not empty and is no MojaveFS store; name an empty or new directory")]
    NotAStore(String),
    /// There is nothing to look at.
    #[error("{0} holds no MojaveFS store; name the directory that was mounted or served")]
    NoStore(String),
    /// The store was written by a newer or older program.
    #[error("store {store} has format {found}; this program knows format {known}: use a program that fits")]
    Format {
        /// The store.
        store: String,
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
    /// The records failed. Opened again, they may work.
    #[error("the record store failed: {0}")]
    Records(String),
    /// The records refuse because of what had gone wrong before, for somebody else: nothing was tried.
    #[error("the record store failed: {0}")]
    Refused(String),
    /// It is not in memory, and nothing else was to be read ([`super::engine::cached_only`]).
    #[error("this must be read from the disk")]
    Uncached,
    /// The store can't lie in such an engine.
    #[error("a store can't lie there: {0}")]
    Unsuited(&'static str),
    /// The host has changed what it was asked for.
    #[error("{0}")]
    Changed(String),
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

    /// The host is not as it was.
    pub(crate) fn changed(what: String) -> Self {
        StoreError::Changed(what)
    }
}

impl From<EngineError> for StoreError {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::InUse(store) => StoreError::InUse(store),
            EngineError::Ending(store) => StoreError::Ending(store),
            EngineError::NotAStore(store) => StoreError::NotAStore(store),
            EngineError::NoStore(store) => StoreError::NoStore(store),
            EngineError::Corrupt(_) | EngineError::Missing(_) => StoreError::Corrupt(text),
            EngineError::Full(_) => StoreError::NoSpace(text),
            EngineError::Failed(_) => StoreError::Records(text),
            EngineError::Refused(_) => StoreError::Refused(text),
            EngineError::Uncached => StoreError::Uncached,
            EngineError::Io { context, source } => StoreError::Io { context, source },
        }
    }
}
