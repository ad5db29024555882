//! Requests and answers between a client and the server.

use super::decision::{DiffPage, Outcome, Resolution, SpecStatus};
use super::view::{JobInfo, OpenedView, ViewKind};
use crate::id::{Ino, SpecId, ViewId};
use crate::protocol::file::{Attr, FileKind, Name, SetAttr};
use serde::{Deserialize, Serialize};

/// How a rename treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Refuse (`RENAME_NOREPLACE`).
    NoReplace,
    /// Swap the two names (`RENAME_EXCHANGE`).
    Exchange,
}

/// What `fallocate` does with a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FallocateMode {
    /// Reserve space; the length grows to the end of the range unless `keep_size`.
    Allocate {
        /// Leave the length as it is.
        keep_size: bool,
    },
    /// Make a hole; the length stays.
    PunchHole,
    /// Make it read as zeros.
    ZeroRange {
        /// Leave the length as it is.
        keep_size: bool,
    },
}

/// What `lseek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeekWhence {
    /// The next data.
    Data,
    /// The next hole.
    Hole,
}

/// Whether an extended attribute must, may or must not exist before it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum XattrMode {
    /// Either way.
    Set,
    /// It must not exist.
    Create,
    /// It must exist.
    Replace,
}

/// What a file is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reads {
    /// For a kernel, which keeps what it gets.
    Kept,
    /// The same, for a descriptor through which the file may be mapped and written to.
    Mapped,
    /// Nobody keeps it.
    Once,
}

/// One request. It names the view in which it acts, or the speculations that it is about.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request<'a> {
    /// Opens a view. Answer: [`Reply::View`].
    OpenView(ViewKind),
    /// Closes a view; an undecided job of it, unless held, is aborted (its owner is gone). Answer: [`Reply::Done`].
    CloseView(ViewId),
    /// Everything undecided that `uid` may see (root sees all). Answer: [`Reply::Status`].
    Status {
        /// Who asks.
        uid: u32,
    },
    /// A vote to commit. Answer: [`Reply::Outcome`].
    Commit {
        /// The speculation.
        spec: SpecId,
        /// Who decides: its owner or root.
        uid: u32,
        /// Whose version stands, for paths in conflict.
        resolutions: Vec<Resolution>,
        /// The files that it has changed count as modified when it becomes final.
        touch: bool,
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
    /// The undecided speculations that a job's segments depend on and that do not wait for this job: once they are decided, or
    /// this is empty, the job need not go back any more. Answer: [`Reply::Specs`].
    Unsettled {
        /// The job's speculation.
        spec: SpecId,
        /// Who asks: its owner or root.
        uid: u32,
    },
    /// An abort. Answer: [`Reply::Outcome`].
    Abort {
        /// The speculation.
        spec: SpecId,
        /// Who decides: its owner or root.
        uid: u32,
        /// The view of a process, if it is the process that aborts, or that is back from what others have undone. True if its
        /// kernel holds nothing back that was written there.
        back: Option<(ViewId, bool)>,
    },
    /// The store takes over as the owner: it stays undecided, survives every process and restart. Answer: [`Reply::Outcome`].
    Hold {
        /// The speculation.
        spec: SpecId,
        /// Who asks: its owner or root.
        uid: u32,
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
        /// Who waits.
        uid: u32,
    },
    /// Waits until something has been decided that is just being decided, or has been for [`crate::limits::ROUND_TIME_MAX`]; not at
    /// all if nothing is. Answer: [`Reply::Ended`].
    AwaitRound {
        /// However long that takes; then each question is answered after [`crate::limits::ROUND_STEP`] at the latest.
        patient: bool,
    },
    /// Where a speculation stands or how it was decided, lately. Answer: [`Reply::Outcome`].
    Outcome {
        /// The speculation.
        spec: SpecId,
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
        /// Who asks.
        uid: u32,
        /// Where to go on: [`DiffPage::next`] of the page before.
        from: Option<Vec<u8>>,
    },
    /// Reclaims all space that can be reclaimed now. Answer: [`Reply::Reclaimed`] (call again until nothing is left).
    Reclaim,
    /// How many records of committed work are still to be merged, which happens in the background. Answer:
    /// [`Reply::Offset`].
    Unmerged,
    /// Waits until everything final is on disk. Answer: [`Reply::Done`].
    Sync,
    /// Waits, for a while, until every view was told of what has been decided. Answer: [`Reply::Done`].
    Announced,

    /// Finds a name. Answer: [`Reply::Attr`].
    Lookup {
        /** The view. */
        view: ViewId,
        /** The directory. */
        parent: Ino,
        /** The name. */
        name: &'a [u8],
    },
    /// Finds a name for a listing: as [`Request::Lookup`], but looks at no undecided inode. Answer: [`Reply::Attr`].
    Glance {
        /** The view. */
        view: ViewId,
        /** The directory. */
        parent: Ino,
        /** The name. */
        name: &'a [u8],
    },
    /// Finds a name for nobody who acts on it. Fault: `Busy` if the name is undecided itself. Answer: [`Reply::Attr`].
    GlanceNamed {
        /** The view. */
        view: ViewId,
        /** The directory. */
        parent: Ino,
        /** The name. */
        name: &'a [u8],
    },
    /// The kernel of this view has dropped these inodes. Answer: [`Reply::Done`].
    Forget {
        /** The view. */
        view: ViewId,
        /** The inodes. */
        inos: Vec<Ino>,
    },
    /// Reads attributes. Answer: [`Reply::Attr`].
    GetAttr {
        /** The view. */
        view: ViewId,
        /** The inode. */
        ino: Ino,
    },
    /// Reads attributes for nobody who acts on them: as [`Request::GetAttr`], but another's undecided work is not looked at by
    /// it. Answer: [`Reply::Attr`].
    GlanceAt {
        /** The view. */
        view: ViewId,
        /** The inode. */
        ino: Ino,
    },
    /// Changes attributes. Answer: [`Reply::Attr`].
    SetAttr {
        /** The view. */
        view: ViewId,
        /** The inode. */
        ino: Ino,
        /** What to change. */
        set: SetAttr,
    },
    /// Reads a symbolic link. Answer: [`Reply::Data`].
    ReadLink {
        /** The view. */
        view: ViewId,
        /** The link. */
        ino: Ino,
    },
    /// Creates a file of any kind. Answer: [`Reply::Attr`].
    Create {
        /// The view.
        view: ViewId,
        /// The directory.
        parent: Ino,
        /// The name.
        name: &'a [u8],
        /// The type.
        kind: FileKind,
        /// Permission bits before the umask.
        mode: u32,
        /// Bits to clear, unless the directory has a default ACL.
        umask: u32,
        /// The owner.
        uid: u32,
        /// The group, unless the directory is set-group-id.
        gid: u32,
        /// The device number of a device node.
        rdev: u32,
        /// The target of a symbolic link.
        target: &'a [u8],
    },
    /// Adds a name. Answer: [`Reply::Attr`].
    Link {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
        /** The directory. */
        parent: Ino,
        /** The name. */
        name: &'a [u8],
    },
    /// Removes a name that is no directory. Answer: [`Reply::Done`].
    Unlink {
        /** The view. */
        view: ViewId,
        /** The directory. */
        parent: Ino,
        /** The name. */
        name: &'a [u8],
    },
    /// Removes an empty directory. Answer: [`Reply::Done`].
    RemoveDir {
        /** The view. */
        view: ViewId,
        /** The directory. */
        parent: Ino,
        /** The name. */
        name: &'a [u8],
    },
    /// Renames. Answer: [`Reply::Done`].
    Rename {
        /// The view.
        view: ViewId,
        /// The old directory.
        parent: Ino,
        /// The old name.
        name: &'a [u8],
        /// The new directory.
        new_parent: Ino,
        /// The new name.
        new_name: &'a [u8],
        /// What becomes of an existing target.
        mode: RenameMode,
    },
    /// Reads up to `size` bytes. Answer: [`Reply::Data`], shorter only at the end of the file.
    Read {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
        /** Where, in bytes. */
        offset: u64,
        /** At most [`crate::limits::IO_BYTES_MAX`]. */
        size: u32,
        /** What for. */
        reads: Reads,
    },
    /// The process of a view is dead; its view is closed as soon as may be. Answer: [`Reply::Done`].
    Gone {
        /// The process's view.
        view: ViewId,
    },
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
    /// Writes all of `data`. Answer: [`Reply::Offset`], where it was written.
    Write {
        /// The view.
        view: ViewId,
        /// The file.
        ino: Ino,
        /// Where, in bytes.
        offset: u64,
        /// At most [`crate::limits::IO_BYTES_MAX`].
        #[serde(with = "serde_bytes")]
        data: &'a [u8],
        /// At the end, wherever that is: `offset` is where the kernel believes it to be.
        append: bool,
        /// The caller is unprivileged: set-id bits are cleared.
        clear_set_id: bool,
        /// It was written through a mapping.
        mapped: bool,
    },
    /// Allocates, punches or zeroes. Answer: [`Reply::Done`].
    Fallocate {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
        /** Where. */
        offset: u64,
        /** How much, in bytes. */
        len: u64,
        /** What. */
        mode: FallocateMode,
    },
    /// Finds data or a hole. Answer: [`Reply::Offset`].
    Seek {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
        /** From where. */
        offset: u64,
        /** What. */
        whence: SeekWhence,
    },
    /// Copies within the store. Answer: [`Reply::Offset`], the bytes copied.
    CopyRange {
        /// The view.
        view: ViewId,
        /// The source.
        ino: Ino,
        /// Where in the source.
        offset: u64,
        /// The target.
        to: Ino,
        /// Where in the target.
        to_offset: u64,
        /// How much, in bytes.
        len: u64,
    },
    /// Makes a file durable; inside a speculation it waits for no disk. Answer: [`Reply::Done`].
    Fsync {
        /** The view. */
        view: ViewId,
        /** The file or directory. */
        ino: Ino,
    },
    /// Waits until other views were told of what this one changed (close-to-open). Answer: [`Reply::Done`]; without `wait`
    /// [`Again`](super::fault::FaultKind::Again) if there is something to wait for.
    Settle {
        /** The view. */
        view: ViewId,
        /** Whether to wait. */
        wait: bool,
    },
    /// A page of a directory in an order that never changes. Answer: [`Reply::Entries`].
    ReadDir {
        /// The view.
        view: ViewId,
        /// The directory.
        ino: Ino,
        /// The last name of the page before.
        after: Option<&'a [u8]>,
        /// At most this many, and [`crate::limits::LISTING_ENTRIES_MAX`].
        limit: u32,
        /// With attributes: they count as looked up, so the client must forget them as it does others.
        attrs: bool,
    },
    /// Reads an extended attribute. Answer: [`Reply::Data`].
    GetXattr {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
        /** The attribute. */
        name: &'a [u8],
    },
    /// Sets one. Answer: [`Reply::Done`].
    SetXattr {
        /// The view.
        view: ViewId,
        /// The file.
        ino: Ino,
        /// The attribute.
        name: &'a [u8],
        /// Its value.
        #[serde(with = "serde_bytes")]
        value: &'a [u8],
        /// Whether it must exist.
        mode: XattrMode,
    },
    /// Lists them. Answer: [`Reply::Names`].
    ListXattr {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
    },
    /// Removes one. Answer: [`Reply::Done`].
    RemoveXattr {
        /** The view. */
        view: ViewId,
        /** The file. */
        ino: Ino,
        /** The attribute. */
        name: &'a [u8],
    },
    /// Space and inodes. Answer: [`Reply::Space`].
    StatFs {
        /** The view. */
        view: ViewId,
    },
    /// Looks through the store for what no view can reach and nothing names, and notes it for [`Request::Reclaim`]. Answer:
    /// [`Reply::Reclaimed`] with how much was found (call again until nothing is left).
    Search {
        /// From the beginning.
        anew: bool,
    },
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
    /// Its attributes, if asked for.
    pub attr: Option<Attr>,
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
#[derive(Clone, Debug, Serialize, Deserialize)]
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
    /// Bytes.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// An offset or a count, in bytes.
    Offset(u64),
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
}
