//! What the command line (`mojavefs`, `specrun`) says to the process that serves a mount, over its control socket. Who is
//! calling is the kernel's word, not the message's.

use super::{Admin, Fall, OnRead, Reply, SpecOp, SpecState};
use crate::id::{SpecId, ViewId};
use crate::protocol::fault::Fault;
use serde::{Deserialize, Serialize};

/// The bit that says of a number on a watch (see [`Ask::Watch`]) that the speculation can't be committed as it is: somebody
/// else changed what it changed.
pub const WATCHED_CONFLICT: u64 = 1 << 63;

/// What a new view of a job or shell shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// A new job, started in this view.
    Job {
        /// The view in which `specrun` was called.
        parent: ViewId,
        /// The command line, for people.
        command: String,
        /// The directories of the host that it is about ([`JobInfo::dirs`](super::JobInfo::dirs)).
        dirs: Vec<Vec<u8>>,
        /// What it sees of others.
        on_read: OnRead,
        /// A further speculation that it is to own.
        own: Option<SpecId>,
        /// Why it can go back to its start only; nothing if the caller makes checkpoints when it is asked to
        /// ([`Answer::Checkpoint`]).
        restarts: Option<String>,
    },
    /// Inside an undecided speculation.
    Inside {
        /// The speculation.
        spec: SpecId,
    },
    /// For a process that speculates, started in this view.
    Process {
        /// The view in which it runs.
        parent: ViewId,
    },
}

/// Which content of a file to read for a diff.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// Without the speculation's changes.
    Before,
    /// With them.
    After,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Opens a view. The connection is its lease: when it ends, so does the view. With `mounted` the caller has made the
    /// mount and its FUSE descriptor comes along; else the answer brings the mount.
    Start {
        /// What it shows.
        start: Start,
        /// The caller made the mount.
        mounted: bool,
    },
    /// What is asked of speculations, or decided, in the name of whoever calls. Answer: [`Answer::Reply`]. What waits does so for
    /// a while at most.
    Speculation(SpecOp),
    /// What is asked of the store as a whole. Answer: [`Answer::Reply`].
    Admin(Admin),
    /// The caller has ended its job in good order: what is left of it need not be hunted down.
    Leave,
    /// A file's content on one side of a diff, or a link's target.
    Content {
        /// The speculation.
        spec: SpecId,
        /// Which side.
        side: Side,
        /// The path, from the root, without a leading slash.
        path: Vec<u8>,
        /// At most so many bytes; a longer file is refused.
        bytes_max: u64,
    },
    /// Who serves.
    Hello,
    /// What waits for a decision in this connection's view is answered with `EINTR`.
    Interrupt {
        /// What would wait later, too.
        for_good: bool,
    },
    /// The process of this connection's view enters a speculation. Answer: [`Answer::Started`].
    Enter {
        /// A further speculation that it is to own.
        own: Option<SpecId>,
    },
    /// The process of this connection's view undoes a speculation that it entered.
    Undo {
        /// The speculation.
        spec: SpecId,
        /// Nothing that was written in it is still held back by the view's kernel.
        drained: bool,
    },
    /// What became of a [`Answer::Checkpoint`]: the process is stopped on its way out of the call, and goes on when the caller
    /// lets it; or why not. Refused if that comes too late.
    Stopped {
        /// The question's number.
        ticket: u64,
        /// Why the process was not stopped.
        why_not: Option<String>,
    },
    /// The process that was stopped has a checkpoint: its job begins a segment. Answer: [`Answer::Started`].
    Segment,
    /// It has none, and joins what it meets without one.
    NoSegment {
        /// Why.
        why: String,
    },
    /// The processes of this connection's job are being ended: nobody hears the answers that they wait for. Answer:
    /// [`Answer::Done`].
    Unheard,
    /// From now on this connection, which is another one, is told what others undo of a process's view, and which of its votes
    /// can't stand: the speculation's number, 8 bytes, little-endian, in the latter case with [`WATCHED_CONFLICT`].
    Watch {
        /// The view.
        view: ViewId,
    },
    /// The process of this connection's view looks names up on which it does not act, from now on or no more: another's undecided
    /// work is not looked at by that. Answer: [`Answer::Done`].
    Glancing {
        /// From now on.
        on: bool,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// A view is open; the mount comes along unless the caller made it.
    Started {
        /// The view.
        view: ViewId,
        /// The speculation.
        spec: SpecId,
    },
    /// What the server says.
    Reply(Reply),
    /// Bytes.
    Content(Vec<u8>),
    /// Done.
    Done,
    /// Who serves.
    Daemon {
        /// Its process.
        pid: u32,
        /// Its user.
        uid: u32,
        /// Where the filesystem is mounted.
        mountpoint: Vec<u8>,
        /// Its store or server.
        source: Vec<u8>,
        /// The view that is mounted there for everybody.
        trunk: ViewId,
        /// It makes the mounts of jobs; else whoever starts one does ([`Ask::Start`]).
        mounts: bool,
    },
    /// Refused.
    Refused(Fault),
    /// Not asked for: the server is gone, and with it the view.
    Lost {
        /// Why, in one sentence.
        why: String,
    },
    /// Not asked for: a process of the job is about to depend on others' work; is it to be stopped, for a checkpoint? Answered
    /// with [`Ask::Stopped`], soon.
    Checkpoint {
        /// This question's number.
        ticket: u64,
        /// The process, as the daemon numbers it.
        pid: u32,
    },
    /// Not asked for: the speculation of this connection's view, or a segment of it, was decided by someone else.
    Decided {
        /// The speculation or segment.
        spec: SpecId,
        /// How.
        state: SpecState,
        /// For one that fell with another: why.
        why: Option<Fall>,
    },
}
