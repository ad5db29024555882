//! What client and server say to each other. The same messages travel through a function call when both live in one
//! process and through a socket when they do not.
//!
//! [`connection`] is how to ask, [`message`] holds requests and answers, [`operation`] those of the filesystem, [`rounds`] asks again, [`notice`] is what comes without
//! being asked for, [`view`] what views are opened with, [`decision`] what is said of speculations, [`control`] what the command line
//! says to a mounted client, [`mod@file`] the attributes of files, [`lock`] locks on them, [`fault`] what can go wrong, and [`codec`] how all of it becomes
//! bytes.

pub mod codec;
pub mod connection;
pub mod control;
pub mod decision;
pub mod fault;
pub mod file;
pub mod lock;
pub mod message;
pub mod notice;
pub mod operation;
pub mod rounds;
pub mod view;

pub use connection::{Connection, ConnectionExt};
pub use decision::{
    Back, Change, ChangeKind, Conflict, DiffPage, Fall, Joined, Outcome, Resolution, SpecState, SpecStatus, Unapplied,
};
pub use lock::{LockAsked, LockClass, LockHeld, LockMode, LockOwner, Span, Unlocked};
pub use message::{Admin, DirEntry, Reply, Request, SpaceInfo, SpecOp, ViewOp};
pub use notice::{Invalidation, Notice, NoticeSink};
pub use operation::{Caller, FallocateMode, FsOp, Reads, RenameMode, SeekWhence, XattrMode};
pub use rounds::Rounds;
pub use view::{JobInfo, OnRead, OpenedView, ViewKind, ViewOwner};
