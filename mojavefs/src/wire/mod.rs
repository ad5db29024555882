//! What client and server say to each other. The same messages travel through a function call when both live in one
//! process and through a socket when they do not.
//!
//! [`message`] holds requests and answers, [`control`] what the command line says to a mounted client.

pub mod control;
pub mod message;

pub use message::{
    Change, ChangeKind, Conflict, Connection, ConnectionExt, DiffPage, DirEntry, FallocateMode, HandshakeRefusal,
    Invalidation, JobInfo, Notice, NoticeSink, OpenedView, Outcome, RenameMode, Reply, Request, Resolution, SeekWhence,
    SpaceInfo, SpecState, SpecStatus, ViewKind, XattrMode,
};
