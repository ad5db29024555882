//! What views show and whose they are.

use crate::id::{SpecId, ViewId};
use serde::{Deserialize, Serialize};

/// What a job gets when it looks at what another one has changed and not committed yet (rule 2 of the interval graph).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRead {
    /// The other's version; the job becomes part of it.
    #[default]
    Join,
    /// Nothing before it is decided.
    Wait,
    /// What is final.
    Committed,
    /// `EBUSY`.
    Fail,
    /// What was final when the job started: others are not looked at, also once they have committed.
    Isolate,
}

impl OnRead {
    /// Undecided work of others is noticed.
    pub fn meets(self) -> bool {
        matches!(self, OnRead::Join | OnRead::Wait | OnRead::Fail)
    }

    /// What others make final is seen at once.
    pub fn follows(self) -> bool {
        self != OnRead::Isolate
    }
}

/// What a view shows and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ViewKind {
    /// Final versions only; what is written is final at once.
    Trunk,
    /// A new job: a new context with a speculation of its own, on top of what `parent` shows.
    Job {
        /// The view in which the job was started: trunk, or the view of an outer job of the same user. Root starts jobs in
        /// everybody's.
        parent: ViewId,
        /// Who runs it, for people and for permission checks.
        info: JobInfo,
        /// What it sees of others. Inside an isolated job every job is isolated.
        on_read: OnRead,
        /// A further speculation that it is to own: final when all owners have committed, undone when one aborts.
        own: Option<SpecId>,
        /// Why it can go back to its start only; nothing if its process may be able to go back to where it read. Then it is
        /// asked before it joins ([`crate::protocol::fault::FaultKind::Checkpoint`]).
        restarts: Option<String>,
    },
    /// A view of its own for one process of what `parent` shows: it goes into the speculations that the process enters
    /// ([`super::ViewOp::Enter`]) and out of them.
    Process {
        /// The view in which the process was started: trunk, or a view of the same user.
        parent: ViewId,
        /// Whose process it is.
        uid: u32,
        /// Its number.
        pid: u32,
    },
    /// What an undecided speculation would show without its own changes; only to be read.
    Before {
        /// The speculation.
        spec: SpecId,
        /// Who asks.
        uid: u32,
    },
    /// What an undecided speculation shows, for its diff; only to be read, and nobody joins anybody by it.
    After {
        /// The speculation.
        spec: SpecId,
        /// Who asks.
        uid: u32,
    },
    /// A further view of an undecided speculation, to look around and work in.
    Inside {
        /// The speculation.
        spec: SpecId,
        /// Who asks.
        uid: u32,
    },
}

/// Who runs a job, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobInfo {
    /// The user who owns the speculation.
    pub uid: u32,
    /// The process of `specrun`.
    pub pid: u32,
    /// The command line, for people.
    pub command: String,
    /// The directories of the host that it is about: absolute paths. None on a mount, and inside of another job.
    pub dirs: Vec<Vec<u8>>,
}

/// A view has been opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedView {
    /// Names the view in later requests of this session.
    pub view: ViewId,
    /// The speculation a job's view belongs to.
    pub spec: Option<SpecId>,
}

/// Whose a view is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewOwner {
    /// Everybody's: trunk's, which shows what is final.
    Trunk,
    /// A job's.
    Job,
    /// That of a process that speculates, which may be outside every speculation or inside one.
    Process,
    /// It was opened to look into a speculation.
    Guest,
}
