//! What can go wrong below the store. Each error is told apart where it arises; nobody above looks at a text.

use std::io;

/// An error of an engine, in words for people.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process has the store.
    #[error("store {0} is in use by another process; stop that one (mojavefs umount) first")]
    InUse(String),
    /// Another process has the store, and has said that it is ending.
    #[error("the process that had store {0} open is still ending, and writes out what it has; try again in a while")]
    Ending(String),
    /// Something else is there.
    #[error("{0} is not empty and is no MojaveFS store; name an empty or new directory")]
    NotAStore(String),
    /// There is nothing to look at.
    #[error("{0} holds no MojaveFS store; name the directory that was mounted or served")]
    NoStore(String),
    /// What is stored makes no sense, or parts of it are lost.
    #[error("{0}")]
    Corrupt(String),
    /// There is no such blob.
    #[error("{0} is missing")]
    Missing(String),
    /// There is no space left.
    #[error("{0}")]
    Full(String),
    /// The records failed; opened again, they may work.
    #[error("{0}")]
    Failed(String),
    /// The records refuse because of what has gone wrong before, for somebody else: nothing was tried.
    #[error("{0}")]
    Refused(String),
    /// It is not in memory, and nothing else was to be read ([`super::cached_only`]).
    #[error("this must be read from the disk")]
    Uncached,
    /// A system call failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

impl EngineError {
    /// A failed system call, with what it was for.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(code) if code == nix::libc::ENOSPC || code == nix::libc::EDQUOT => EngineError::Full(context.into()),
            _ => EngineError::Io { context: context.into(), source },
        }
    }
}
