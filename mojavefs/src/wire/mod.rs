//! What client and server say to each other. The same messages travel through a function call when both live in one
//! process and through a socket when they do not.
//!
//! [`message`] holds requests and answers, [`decision`] what is said of speculations, [`control`] what the command line says to a mounted client.

pub mod control;
pub mod decision;
pub mod message;

pub use decision::{Change, ChangeKind, Conflict, DiffPage, Outcome, Resolution, SpecState, SpecStatus};
pub use message::{
    Connection, ConnectionExt, DirEntry, FallocateMode, Invalidation, JobInfo, Notice, NoticeSink, OpenedView,
    RenameMode, Reply, Request, SeekWhence, SpaceInfo, ViewKind, XattrMode,
};
