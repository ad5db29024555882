//! A host directory as the bottom layer: what the host has is answered where no record covers a question, and committed work is
//! applied to it. States and rules: `docs/origin.md`.
//!
//! Of what somebody looks at, the host's names and attributes become records that have always been so ([`crate::ops`]); from then on a
//! difference between the host and its record is a change by somebody outside of every job, as one on trunk is.

mod apply;
mod host;
mod mirror;
mod waiting;

pub(crate) use apply::Decision;
pub use host::{Host, Made};
pub(crate) use mirror::store_fault;
pub(crate) use waiting::{About, Waiting};

use crate::store::{DirStat, HostBytes, Inode, Store};
use mojavefs::id::{Ino, Seq};
use mojavefs::protocol::file::{FileKind, Name, Time};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a look at the host counts.
const LOOK_LASTS: Duration = Duration::from_secs(1);

/// Where something lies on the host: the names that lead there from its root.
pub type HostPath = Vec<Name>;

/// The path of a name in what lies there.
pub(crate) fn below(path: &[Name], name: &[u8]) -> HostPath {
    let mut below = path.to_vec();
    below.push(name.to_vec());
    below
}

/// What names on the host begin with that are ours: they are shown to nobody.
pub const OWN_PREFIX: &[u8] = b".mojavefs-";

/// A file of the host's, of any kind.
#[derive(Clone, Debug)]
pub struct HostFile {
    /// Its number by the host.
    pub ino: Ino,
    /// Its attributes; whoever records it says where its home is.
    pub inode: Inode,
    /// Of a directory: what follows from its names.
    pub dir: DirStat,
    /// Its extended attributes.
    pub xattrs: Vec<(Name, Vec<u8>)>,
}

/// What tells a file of the host's from what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    kind: FileKind,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Of what is no directory.
    rest: Option<(u64, Time, Time)>,
}

impl Signature {
    /// Of a file with these attributes. Names and times of a directory are no part of it.
    pub fn of(inode: &Inode) -> Signature {
        let Inode { kind, mode, uid, gid, size, mtime, ctime, .. } = *inode;
        let rest = (kind != FileKind::Directory).then_some((size, mtime, ctime));
        Signature { kind, mode, uid, gid, rest }
    }

    /// Whether a file has the bytes that it had then, as far as its size and its time of modification tell.
    pub fn is_of_bytes(&self, inode: &Inode) -> bool {
        self.rest.is_none_or(|(size, mtime, _)| (size, mtime) == (inode.size, inode.mtime))
    }

    /// Whether they differ by no more than a move of the file explains.
    pub fn is_same_but_moved(&self, other: &Signature) -> bool {
        let without = |signature: &Signature| {
            let rest = signature.rest.map(|(size, mtime, _)| (size, mtime));
            (signature.kind, signature.mode, signature.uid, signature.gid, rest)
        };
        without(self) == without(other)
    }
}

/// A name in a directory of the host's.
#[derive(Clone, Debug)]
pub struct HostName {
    /// The name.
    pub name: Name,
    /// What it leads to.
    pub ino: Ino,
    /// The kind of that.
    pub kind: FileKind,
}

/// What came of reading a file's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostRead {
    /// So many were read.
    Done(usize),
    /// Another file is there, or none.
    Gone,
    /// They are not in memory, and only that was to be read.
    Uncached,
}

/// The host. All methods block for its disk.
pub trait Bottom: Send + Sync {
    /// What a path leads to; links are not followed. Nothing if it leads nowhere.
    fn find(&self, path: &HostPath) -> io::Result<Option<HostFile>>;

    /// The names of a directory. Nothing if another file is there.
    fn list(&self, path: &HostPath, ino: Ino) -> io::Result<Option<Vec<HostName>>>;

    /// Fills the buffer from a file's bytes from `offset` on; less only at its end.
    fn read(&self, path: &HostPath, ino: Ino, bytes: HostBytes<'_>) -> io::Result<HostRead>;

    /// The directory in which our own state lies, and those around it, by the host's numbers.
    fn own(&self) -> &[Ino];

    /// What was made on the host by earlier applies.
    fn made(&self) -> Vec<Made>;

    /// Makes the host what is wanted. May be repeated after it was interrupted at any point.
    fn apply(&self, plan: &Plan, wanted: &dyn Wanted) -> io::Result<Applied>;
}

/// Names and files to be made on the host what they are to be.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Tells what is put aside by this from what is by others.
    pub number: u64,
    /// Directories in which names change, each with where it lies so far, if the host has it; and the names.
    pub dirs: BTreeMap<Ino, PlannedDir>,
    /// Files whose attributes, or content, change.
    pub files: Vec<Ino>,
}

/// A directory in which names change.
#[derive(Clone, Debug)]
pub struct PlannedDir {
    /// Where it lies so far, if the host has it.
    pub path: Option<HostPath>,
    /// The names in it that change, each with what it led to.
    pub names: Vec<(Name, Option<Ino>)>,
}

/// What is to be, and what was.
pub trait Wanted {
    /// What a name is to lead to.
    fn entry(&self, dir: Ino, name: &[u8]) -> io::Result<Option<Ino>>;

    /// The names of a directory as they are to be.
    fn names(&self, dir: Ino) -> io::Result<Vec<(Name, Ino)>>;

    /// A file as it is to be: its attributes, and the times of a directory among them.
    fn inode(&self, ino: Ino) -> io::Result<Option<Inode>>;

    /// The extended attributes that it is to have.
    fn xattrs(&self, ino: Ino) -> io::Result<Vec<(Name, Vec<u8>)>>;

    /// Bytes of its content as it is to be, from `offset` on; fewer only at the end.
    fn read(&self, inode: &Inode, offset: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Whether its bytes are to be others than the host has.
    fn has_new_content(&self, ino: Ino) -> io::Result<bool>;

    /// Our number of a file of the host's.
    fn number_of(&self, found: &HostFile) -> io::Result<Ino>;

    /// What the host's file was when it was looked at.
    fn signature(&self, ino: Ino) -> io::Result<Option<Signature>>;

    /// Where a file lies on the host so far.
    fn path_of(&self, ino: Ino) -> io::Result<Option<HostPath>>;

    /// Where it is to lie.
    fn new_path_of(&self, ino: Ino) -> io::Result<Option<HostPath>>;
}

/// What came of applying.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// What the host calls files now that it has got: ours, its.
    pub numbers: Vec<(Ino, HostFile)>,
    /// What was found and not expected, and where it was put.
    pub displaced: Vec<Displaced>,
}

/// Something of the host's that was in the way and that nobody had looked at.
#[derive(Clone, Debug)]
pub struct Displaced {
    /// Where it was.
    pub from: Vec<u8>,
    /// Where it is.
    pub to: Vec<u8>,
    /// It is what was committed, and had no place any more.
    pub is_ours: bool,
}

/// What is known of the host.
pub(crate) struct Origin {
    pub(crate) bottom: Arc<dyn Bottom>,
    /// What stands on it, and goes before it.
    store: Weak<Store>,
    known: Mutex<Known>,
    /// Held while it is compared with its records.
    pub(crate) comparing: Mutex<()>,
    /// Decisions that it does not have yet.
    pub(crate) waiting: Waiting,
}

/// What is lost of it with the process is found out again.
#[derive(Default)]
struct Known {
    /// Files that have another number with us than the host has for them: by its, and by ours.
    ours: HashMap<Ino, Ino>,
    hosts: HashMap<Ino, Ino>,
    /// When the files were made that the host has under these numbers: one that was made at another time is another file.
    born: HashMap<Ino, Option<Time>>,
    /// When names and files were compared that ever were to be; nothing if that failed.
    seen: HashMap<(Ino, Option<Name>), Option<Instant>>,
    /// The same of directories whose names were all compared.
    listed: HashMap<Ino, Option<Instant>>,
    /// What is on record from earlier daemons was compared.
    has_begun: bool,
    /// Not everything that was ever compared is remembered.
    has_forgotten: bool,
    /// What was compared before that is to be compared again.
    looks_count_from: Option<Instant>,
    /// Decisions that the host has, of those that are not merged yet.
    applied: HashSet<Seq>,
}
