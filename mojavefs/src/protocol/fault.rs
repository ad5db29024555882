//! What can go wrong between client and server, as it crosses the wire.

use serde::{Deserialize, Serialize};

/// The kind of a refused request. The client turns it into an `errno` in one place; people read [`Fault::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultKind {
    /// No such name, inode, attribute owner or speculation.
    NotFound,
    /// No such name, as of now: a kernel must not keep that.
    NotFoundNow,
    /// The name exists already.
    Exists,
    /// A directory was needed.
    NotDirectory,
    /// Something that is not a directory was needed.
    IsDirectory,
    /// The directory still has entries.
    NotEmpty,
    /// An argument is out of its domain.
    Invalid,
    /// A name or path is too long.
    NameTooLong,
    /// An offset or size is beyond [`crate::limits::FILE_BYTES_MAX`].
    FileTooLarge,
    /// The file has [`crate::limits::LINKS_MAX`] links already.
    TooManyLinks,
    /// The operation is not permitted on this object.
    NotPermitted,
    /// The caller may not do this.
    AccessDenied,
    /// The extended attribute does not exist.
    NoAttribute,
    /// The answer does not fit what the caller offered.
    Range,
    /// The disk under the store is full.
    NoSpace,
    /// Reading or writing the store failed.
    Io,
    /// The inode is gone.
    Stale,
    /// The thing is in use.
    Busy,
    /// The operation is not supported here.
    Unsupported,
    /// The value is too large.
    TooLarge,
    /// `SEEK_DATA` or `SEEK_HOLE` beyond the end.
    NoData,
    /// The speculation was decided the other way.
    Decided,
    /// The speculation conflicts with what became final meanwhile.
    Conflict,
    /// The peer is gone or does not answer: nothing was asked of it.
    Disconnected,
    /// The peer speaks something else.
    Protocol,
    /// The wait took too long.
    TimedOut,
    /// Waiting would never end.
    Deadlock,
    /// What was looked at is another's undecided work, and this view waits for the decision: wait, then ask again.
    Undecided,
    /// What the view shows has changed in the middle of the request: the server asks itself again. It never leaves the server.
    Again,
    /// Whoever waited was told to stop waiting.
    Interrupted,
    /// What was looked at is another's undecided work, and nobody has said yet where this view's process can go back to:
    /// begin a segment or say why not, then ask again.
    Checkpoint,
    /// Whether what was asked for was done is not known: the peer has gone before it answered.
    InDoubt,
    /// It would change what is just being decided: wait for that ([`super::ViewOp::AwaitRound`]), then ask again.
    Sealed,
    /// It is a program that runs elsewhere.
    Runs,
    /// Another has locked it.
    Locked,
    /// Another has locked it, and who asks stands in the line for it: wait ([`super::FsOp::AwaitOffer`]), then ask again.
    Queued,
}

impl FaultKind {
    /// Whoever is refused so waits for others, and asks again.
    pub fn has_to_wait(self) -> bool {
        matches!(self, FaultKind::Sealed | FaultKind::Undecided | FaultKind::Checkpoint | FaultKind::Queued)
    }
}

/// A refused request: its kind for programs, a sentence for people that names the thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// What kind of refusal.
    pub kind: FaultKind,
    /// Names the path or id and what to do; one sentence.
    pub message: String,
}

impl Fault {
    /// A fault of `kind` with a message for people.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Fault { kind, message: message.into() }
    }
}
