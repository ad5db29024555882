//! Requests and answers between a client and the server.

use super::decision::{DiffPage, Outcome, Resolution, SpecStatus, Unapplied};
use super::operation::{Caller, FsOp};
use super::view::{JobInfo, OpenedView, ViewKind};
use crate::id::{Ino, SpecId, ViewId};
use crate::protocol::file::{Attr, Changed, FileKind, Name};
use crate::protocol::lock::LockHeld;
use serde::{Deserialize, Serialize};

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request<'a> {
    /// An operation of the filesystem that a view shows.
    Fs {
        /// The view.
        view: ViewId,
        /// Who asks.
        caller: Caller,
        /// What for.
        #[serde(borrow)]
        op: FsOp<'a>,
    },
    /// Views themselves, and what their processes do.
    View(ViewOp),
    /// Speculations.
    Speculation {
        /// The user who asks: root sees and decides everything, others what is theirs.
        actor: u32,
        /// What for.
        op: SpecOp,
    },
    /// The store as a whole.
    Admin(Admin),
}

/// What is done with views. It names the view.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ViewOp {
    /// Opens a view. Answer: [`Reply::View`].
    Open(ViewKind),
    /// Closes a view; an undecided job of it, unless held, is aborted (its owner is gone). Answer: [`Reply::Done`].
    Close(ViewId),
    /// The process of a view enters a speculation inside what the view shows. Answer: [`Reply::View`]. It leaves it when that
    /// is decided.
    Enter {
        /// A process's view.
        view: ViewId,
        /// Who enters.
        info: JobInfo,
        /// A further speculation that it is to own.
        own: Option<SpecId>,
    },
    /// The process of a view is dead; its view is closed as soon as may be. Answer: [`Reply::Done`].
    Gone {
        /// The process's view.
        view: ViewId,
    },
    /// The process of a view undoes a speculation that it has entered, or is back from one that others have undone. Answer:
    /// [`Reply::Outcome`].
    Undo {
        /// The process's view.
        view: ViewId,
        /// The speculation.
        spec: SpecId,
        /// Who decides: its owner or root.
        actor: u32,
        /// Its kernel holds nothing back that was written there.
        drained: bool,
    },
    /// The process of a job's view can go back to this point: what it does and joins from now on is a segment of its job, which
    /// falls without the job. Answer: [`Reply::View`] with the segment's number.
    Segment {
        /// The view.
        view: ViewId,
    },
    /// The process of a job's view can't go back to this point: it joins what it meets next where it could go back to last.
    /// Answer: [`Reply::Done`].
    NoSegment {
        /// The view.
        view: ViewId,
        /// Why not, for people.
        why: String,
    },
    /// The processes of a job's view are being ended to be taken back: nobody hears the answers to what they have asked, and
    /// they need not wait. Answer: [`Reply::Done`].
    Unheard {
        /// The view.
        view: ViewId,
    },
    /// Waits until something has been decided that is just being decided, or has been for [`crate::limits::ROUND_TIME_MAX`]; not at
    /// all if nothing is. Answer: [`Reply::Ended`].
    AwaitRound {
        /// However long that takes; then each question is answered after [`crate::limits::ROUND_STEP`] at the latest.
        patient: bool,
    },
    /// Waits, for a while, until every view was told of what has been decided. Answer: [`Reply::Done`].
    Announced,
}

/// What is asked of speculations, or decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SpecOp {
    /// Everything undecided that `uid` may see (root sees all). Answer: [`Reply::Status`].
    Status,
    /// A vote to commit. Answer: [`Reply::Outcome`].
    Commit {
        /// The speculation.
        spec: SpecId,
        /// Whose version stands, for paths in conflict.
        resolutions: Vec<Resolution>,
        /// The files that it has changed count as modified when it becomes final.
        touch: bool,
    },
    /// An abort. Answer: [`Reply::Outcome`].
    Abort {
        /// The speculation.
        spec: SpecId,
    },
    /// The store takes over as the owner: it stays undecided, survives every process and restart. Answer: [`Reply::Outcome`].
    Hold {
        /// The speculation.
        spec: SpecId,
    },
    /// Waits until none of these is undecided any more, for `millis` at most; without any, until something is decided. Answer:
    /// [`Reply::Specs`], those that still are undecided.
    Await {
        /// The speculations.
        specs: Vec<SpecId>,
        /// How long at most, in milliseconds.
        millis: u32,
        /// The one that waits, if it is a speculation: a wait for itself is refused. Of another user's nothing is noted.
        behind: Option<SpecId>,
    },
    /// Where a speculation stands or how it was decided, lately. Answer: [`Reply::Outcome`].
    Outcome {
        /// The speculation.
        spec: SpecId,
    },
    /// Waits until these, which were undone, have been run again as far as they are older than the waiting job: each has voted or
    /// ended, or is not run again. For `millis` at most. Answer: [`Reply::Specs`], those that still are to be waited for.
    AwaitAttempts {
        /// The speculations.
        specs: Vec<SpecId>,
        /// One of the waiting job, decided or not, which says how old it is.
        of: SpecId,
        /// The one that waits, if it is a speculation: it does not wait for what waits for it.
        behind: Option<SpecId>,
        /// How long at most, in milliseconds.
        millis: u32,
    },
    /// A job was undone because of others, and is run again. Answer: [`Reply::Done`].
    RunsAgain {
        /// What it is now.
        spec: SpecId,
        /// What it was.
        was: SpecId,
    },
    /// What a job that was undone is now, that was run again lately. Answer: [`Reply::Specs`], one or none.
    RunAgain {
        /// What it was.
        spec: SpecId,
        /// The process of `specrun`.
        pid: u32,
    },
    /// Whose undecided work a path shows to those who join. Answer: [`Reply::Specs`].
    Writers {
        /// The path, from the root, without a leading slash.
        path: Vec<u8>,
    },
    /// A page of what an undecided speculation changed. Answer: [`Reply::Diff`].
    Diff {
        /// The speculation.
        spec: SpecId,
        /// Where to go on: [`DiffPage::next`] of the page before.
        from: Option<Vec<u8>>,
    },
    /// The undecided speculations that a job's segments depend on and that do not wait for this job: once they are decided, or
    /// this is empty, the job need not go back any more. Answer: [`Reply::Specs`].
    Unsettled {
        /// The job's speculation.
        spec: SpecId,
    },
}

impl SpecOp {
    /// In the name of a user.
    pub fn by(self, actor: u32) -> Request<'static> {
        Request::Speculation { actor, op: self }
    }
}

/// What is asked of the store as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Admin {
    /// Reclaims all space that can be reclaimed now. Answer: [`Reply::Reclaimed`] (call again until nothing is left).
    Reclaim,
    /// Looks through the store for what no view can reach and nothing names, and notes it for [`Admin::Reclaim`]. Answer:
    /// [`Reply::Reclaimed`] with how much was found (call again until nothing is left).
    Search {
        /// From the beginning.
        anew: bool,
    },
    /// How many records of committed work are still to be merged, which happens in the background. Answer:
    /// [`Reply::Offset`].
    Unmerged,
    /// Waits until everything final is on disk. Answer: [`Reply::Done`].
    Sync,
    /// Which server this is: a number that no other one has. Answer: [`Reply::Number`].
    Identity,
    /// What is committed and waits to be applied to the host. Answer: [`Reply::Unapplied`].
    Unapplied {
        /// It is tried first, whenever that was done last; else only if nobody has just done so, or does.
        again: bool,
    },
}

impl From<ViewOp> for Request<'_> {
    fn from(op: ViewOp) -> Self {
        Request::View(op)
    }
}

impl From<Admin> for Request<'_> {
    fn from(op: Admin) -> Self {
        Request::Admin(op)
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// Its name.
    pub name: Name,
    /// Its inode.
    pub ino: Ino,
    /// Its type.
    pub kind: FileKind,
}

/// What `statfs` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceInfo {
    /// Size of the disk under the store, in bytes.
    pub total_bytes: u64,
    /// Free on it, in bytes.
    pub free_bytes: u64,
    /// Free for ordinary users, in bytes.
    pub available_bytes: u64,
    /// Inodes in use, as far as known.
    pub files: u64,
    /// Inodes that can still be made.
    pub files_free: u64,
}

/// Answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Done, nothing to tell.
    Done,
    /// A view was opened.
    View(OpenedView),
    /// Attributes.
    Attr {
        /// The attributes.
        attr: Attr,
        /// The kernel is told when they, or the name by which they were found, change; else it must not keep them.
        lasts: bool,
    },
    /// One for each of the names in order, up to the first that could not be looked at: as in [`Reply::Attr`], or nothing for one
    /// that is not there.
    Glanced(Vec<Option<(Attr, bool)>>),
    /// Bytes.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// An offset or a count, in bytes.
    Offset(u64),
    /// Content was changed.
    Changed(Changed),
    /// Entries; `end` when no more follow.
    Entries {
        /// The entries, without `.` and `..`.
        entries: Vec<DirEntry>,
        /// Nothing comes after these.
        end: bool,
        /// The view is told before a decision changes the directory; else pages that were asked for later may show it as it is then.
        lasts: bool,
        /// The last decision that has changed it, as these are counted: pages with the same show it as it was at one time.
        decision: u64,
    },
    /// Names of extended attributes.
    Names(Vec<Name>),
    /// Space.
    Space(SpaceInfo),
    /// What is undecided.
    Status(Vec<SpecStatus>),
    /// Speculations.
    Specs(Vec<SpecId>),
    /// What was decided.
    Outcome(Outcome),
    /// Whether what was waited for has ended.
    Ended(bool),
    /// A count.
    Number(u64),
    /// A lock is taken, or let go of.
    Locked {
        /// The view knows all that those who had it before have done; else it has to ask for that ([`super::FsOp::MakeCurrent`]) before it
        /// goes on.
        current: bool,
    },
    /// What is in the way of a lock.
    Obstacle(Option<LockHeld>),
    /// A page of changes.
    Diff(DiffPage),
    /// How many records and content files were reclaimed, and whether more is left.
    Reclaimed {
        /// Removed in this call.
        removed: u64,
        /// Left for further calls.
        more: bool,
        /// How many records of committed work are still to be merged.
        unmerged: u64,
    },
    /// What waits to be applied to the host.
    Unapplied {
        /// The decisions, in their order.
        waiting: Vec<Unapplied>,
        /// What of the host's was in the way of those that were applied just now, and where it was put: a line for each.
        displaced: Vec<String>,
    },
}
