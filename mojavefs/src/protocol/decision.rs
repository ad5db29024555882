//! What is undecided, what was decided, what changed: the answers about speculations.

use super::view::JobInfo;
use crate::id::SpecId;
use crate::protocol::file::{Attr, Name};
use serde::{Deserialize, Serialize};

/// Where a speculation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SpecState {
    /// Its owner works.
    Running,
    /// Its owner is done; the store holds it for review.
    Held,
    /// Its owner has voted to commit; it waits for what it depends on.
    Voted,
    /// Permanent.
    Committed,
    /// Undone.
    Aborted,
}

/// One undecided speculation, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecStatus {
    /// Its number.
    pub id: SpecId,
    /// Where it stands.
    pub state: SpecState,
    /// Its owner and command.
    pub info: JobInfo,
    /// When it began, in seconds since the epoch.
    pub since: i64,
    /// How many objects it changed.
    pub changes: u64,
    /// How many bytes of content it wrote.
    pub bytes: u64,
    /// The speculation inside which it was started.
    pub parent: Option<SpecId>,
    /// Conflicts noticed so far.
    pub conflicts: Vec<Conflict>,
    /// What it depends on, by its own reads.
    pub joined: Vec<Joined>,
    /// The speculations that it owns beside its own.
    pub owns: Vec<SpecId>,
    /// It is running still, but its command has ended: it votes when nothing can take it back to a read any more.
    pub ended: bool,
    /// It is just being committed: what would change that waits.
    pub sealed: bool,
}

/// Why a speculation depends on another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// The other.
    pub spec: SpecId,
    /// The first path of the other's undecided work that was looked at, from the root, without a leading slash.
    pub path: Vec<u8>,
    /// What of it.
    pub what: String,
    /// Where it goes back to if the other is undone; nothing if it has not read anything of it.
    pub back: Option<Back>,
}

/// Where a speculation goes back to when one that it depends on is undone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Back {
    /// To the very call that read it.
    Read,
    /// To an earlier call that has read something, and why not to this one.
    Earlier(String),
    /// To its start, and why not to the read.
    Start(String),
    /// To where its process entered the speculation.
    Entry,
}

/// Why a speculation was undone by another's end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fall {
    /// The one whose owner aborted or was gone.
    pub root: SpecId,
    /// That one's owner and command.
    pub info: JobInfo,
    /// From the fallen one to `root`: who depends on whom by what.
    pub chain: Vec<Joined>,
    /// Other undecided speculations that it depended on, of older jobs: to be waited for before the job runs again (rule 9).
    pub met: Vec<SpecId>,
    /// Those whose work it had read itself, and that were undone: where these are run again, that is waited for (rule 16).
    pub sources: Vec<SpecId>,
}

/// Something changed by someone else that an undecided speculation has read or changed too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Conflict {
    /// The path, from the root of the filesystem, without a leading slash.
    pub path: Vec<u8>,
    /// What of it, for people: `content or attributes`, `name`, `listing`, `place in the tree`, `extended attributes`.
    pub what: String,
    /// The speculation had changed it (else only read it).
    pub changed: bool,
    /// Nobody has changed it meanwhile, but somebody works on it who has locked it, or runs it, since the speculation changed it: which process
    /// does what, for people. It is a conflict for as long as that lasts.
    pub in_use: Option<String>,
}

/// Whose version of a path in conflict stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resolution {
    /// The speculation's, for this path or everything below it; an empty path is everything.
    Ours(Vec<u8>),
    /// What became final meanwhile.
    Theirs(Vec<u8>),
}

/// What a decision came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The speculation.
    pub spec: SpecId,
    /// Where it stands now: for a refused commit, as before.
    pub state: SpecState,
    /// How many objects it had changed.
    pub changes: u64,
    /// For a refused commit: why.
    pub conflicts: Vec<Conflict>,
    /// How many further conflicts there are beyond those named.
    pub conflicts_more: u64,
    /// For a vote that is not final yet: who has yet to decide.
    pub waits_for: Vec<SpecId>,
    /// The held and the decided speculations that were undone with it, as they depended on it.
    pub undone: Vec<SpecId>,
    /// What of the host's was in the way when it was applied there, and where it was put: a line for each.
    pub displaced: Vec<String>,
    /// It is committed, and could not be applied to the host yet: why.
    pub unapplied: Option<String>,
}

impl Outcome {
    /// One without conflicts that waits for nobody.
    pub fn of(spec: SpecId, state: SpecState, changes: u64) -> Self {
        let (conflicts, waits_for, undone, displaced) = Default::default();
        Outcome { spec, state, changes, conflicts, conflicts_more: 0, waits_for, undone, displaced, unapplied: None }
    }
}

/// A decision that the host does not have yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unapplied {
    /// Its number among decisions, by which what it displaces is put aside.
    pub decision: u64,
    /// Paths that it changes, from the root, without a leading slash: the first [`UNAPPLIED_PATHS_MAX`](crate::limits::UNAPPLIED_PATHS_MAX).
    pub paths: Vec<Vec<u8>>,
    /// How many more there are.
    pub paths_more: u64,
    /// Why it could not be applied.
    pub why: String,
}

/// How one path changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// Its content changed.
    Modified,
    /// It was at this path before; its content may have changed too.
    Renamed {
        /// The old path.
        from: Vec<u8>,
        /// The content changed as well.
        modified: bool,
    },
    /// Only mode, owner, times or extended attributes changed.
    Attributes,
}

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The path now (or, if removed, before), from the root, without a leading slash.
    pub path: Vec<u8>,
    /// The path before, where a directory above was called otherwise then.
    pub old_path: Option<Vec<u8>>,
    /// How.
    pub kind: ChangeKind,
    /// Before; `None` if it did not exist.
    pub before: Option<Attr>,
    /// Now; `None` if it is gone.
    pub after: Option<Attr>,
    /// Names of extended attributes that differ.
    pub xattrs: Vec<Name>,
}

/// A page of changes, ordered by the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffPage {
    /// The changes.
    pub changes: Vec<Change>,
    /// Where the next page starts; `None` at the end.
    pub next: Option<Vec<u8>>,
    /// The others that it depends on and that depend on it: the changes are shown with theirs, against what is there without
    /// any of them.
    pub with: Vec<SpecId>,
}
