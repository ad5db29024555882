//! What records hold. Byte by byte in `docs/formats.md`.

use super::{Committed, StoreError};
use crate::limits::INLINE_BYTES_MAX;
use mojavefs::id::{ContentId, Ino, LayerId};
use mojavefs::protocol::codec;
use mojavefs::protocol::file::{FileKind, Name, Time};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// `st_blocks` counts in these.
pub(super) const SECTOR_BYTES: u64 = 512;

/// A file, of any kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inode {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The device number of a device node.
    pub rdev: u32,
    /// Its names; 0 once the last one is gone. Of a living directory not counted: see [`DirStat`].
    pub nlink: u32,
    /// Its length, in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
    /// Where its content lies; `None` for an empty file and for what is no regular file.
    pub content: Option<ContentId>,
    /// The target of a symbolic link.
    pub target: Option<Vec<u8>>,
    /// A name it has or had; of a directory always its name. An empty one of what was made without a name.
    pub home: (Ino, Name),
    /// When it was made; nothing before format 6.
    pub born: Option<Time>,
}

/// The same as it was before format 6.
#[derive(Serialize, Deserialize)]
struct UnbornInode {
    kind: FileKind,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u32,
    nlink: u32,
    size: u64,
    blocks: u64,
    atime: Time,
    mtime: Time,
    ctime: Time,
    content: Option<ContentId>,
    target: Option<Vec<u8>>,
    home: (Ino, Name),
}

impl From<UnbornInode> for Inode {
    fn from(inode: UnbornInode) -> Self {
        let UnbornInode { kind, mode, uid, gid, rdev, nlink, size, blocks, atime, mtime, ctime, .. } = inode;
        let UnbornInode { content, target, home, .. } = inode;
        let born = None;
        Inode { kind, mode, uid, gid, rdev, nlink, size, blocks, atime, mtime, ctime, content, target, home, born }
    }
}

/// A name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What it names.
    pub ino: Ino,
    /// The type of that.
    pub kind: FileKind,
}

/// What follows from the names of a directory. An undecided version holds what the interval changed; a final one holds
/// the sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirStat {
    /// Subdirectories, or how many came and went.
    pub subdirs: i64,
    /// Last access, where set.
    pub atime: Option<Time>,
    /// Last change of the names, where changed.
    pub mtime: Option<Time>,
    /// Last change of anything, where changed.
    pub ctime: Option<Time>,
}

impl DirStat {
    /// What it says was changed was not changed before that time.
    pub(super) fn not_before(self, at: Time) -> DirStat {
        DirStat { ctime: self.ctime.map(|ctime| ctime.max(at)), ..self }
    }

    /// This and then `later`.
    pub fn then(self, later: DirStat) -> DirStat {
        DirStat {
            subdirs: self.subdirs + later.subdirs,
            atime: later.atime.or(self.atime),
            mtime: later.mtime.or(self.mtime),
            ctime: later.ctime.or(self.ctime),
        }
    }
}

/// Where a block's bytes lie: in this layer's content file, at the block's natural offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRecord {
    /// The layer.
    pub layer: LayerId,
}

/// What two stored versions of a directory's record say of it, one after the other.
pub(super) fn sum(stored: &[u8], later: &[u8]) -> Result<Vec<u8>, StoreError> {
    let stat = |stored| payload(stored)?.map_or(Ok(DirStat::default()), decode);
    encode(&stat(stored)?.then(stat(later)?))
}

/// The content of the store's own that a stored version of an inode refers to.
pub(super) fn content_of(stored: &[u8]) -> Result<Option<ContentId>, StoreError> {
    let inode: Option<Inode> = payload(stored)?.map(decode).transpose()?;
    Ok(inode.and_then(|inode| inode.stored_content()))
}

impl Inode {
    /// A new file of these permissions and this owner, user and group, with one name and nothing in it.
    pub fn new(kind: FileKind, mode: u32, (uid, gid): (u32, u32), home: (Ino, Name), now: Time) -> Inode {
        let (rdev, nlink, size, blocks, content, target) = (0, 1, 0, 0, None, None);
        let (atime, mtime, ctime, born) = (now, now, now, Some(now));
        Inode { kind, mode, uid, gid, rdev, nlink, size, blocks, atime, mtime, ctime, content, target, home, born }
    }

    /// Whether a content lies in the record store. One that has blocks does not, however short it is: space was allocated for it.
    pub fn is_small(&self) -> bool {
        self.size <= INLINE_BYTES_MAX && self.bytes_taken() <= INLINE_BYTES_MAX
    }

    /// Its content, unless that lies in the host's file.
    pub(super) fn stored_content(&self) -> Option<ContentId> {
        self.content.filter(|content| content.host().is_none())
    }

    /// The space taken, in bytes.
    pub fn bytes_taken(&self) -> u64 {
        self.blocks.saturating_mul(SECTOR_BYTES)
    }

    /// As it is by a commit.
    pub(super) fn committed(self, committed: Committed) -> Inode {
        let marks_modified = committed.marks_modified && self.kind != FileKind::Directory;
        let mtime = if marks_modified { self.mtime.max(committed.at) } else { self.mtime };
        Inode { ctime: self.ctime.max(committed.at), mtime, ..self }
    }
}

/// The stored form of an inode as it is by a commit.
pub(super) fn as_committed(stored: &[u8], committed: Committed) -> Result<Vec<u8>, StoreError> {
    match payload(stored)?.map(decode::<Inode>).transpose()? {
        Some(inode) => encode(&inode.committed(committed)),
        None => Ok(stored.to_vec()),
    }
}

const TOMBSTONE: u8 = 0;
const PRESENT: u8 = 1;

/// The stored form of a record.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    let mut out = vec![PRESENT];
    codec::encode_into(value, &mut out).map_err(|why| StoreError::corrupt(format!("a record to write: {why}")))?;
    Ok(out)
}

/// The stored form of bytes that are a record themselves.
pub(super) fn encode_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 1);
    out.push(PRESENT);
    out.extend_from_slice(bytes);
    out
}

/// The stored form of "it is gone".
pub(super) fn tombstone() -> Vec<u8> {
    vec![TOMBSTONE]
}

/// The record's bytes, or nothing for a tombstone.
pub(super) fn payload(stored: &[u8]) -> Result<Option<&[u8]>, StoreError> {
    match stored.split_first() {
        Some((&TOMBSTONE, [])) => Ok(None),
        Some((&PRESENT, rest)) => Ok(Some(rest)),
        _ => Err(StoreError::corrupt("a record has no valid tag")),
    }
}

/// What is recorded.
pub(super) trait Record: DeserializeOwned {
    /// From a stored form's payload, of this format or one before.
    fn of(payload: &[u8]) -> Result<Self, codec::CodecError> {
        codec::decode(payload)
    }
}

impl Record for Entry {}
impl Record for DirStat {}
impl Record for BlockRecord {}

impl Record for Inode {
    /// The old form is the beginning of the new one, so none can be taken for the other.
    fn of(payload: &[u8]) -> Result<Self, codec::CodecError> {
        codec::decode(payload).or_else(|why| codec::decode::<UnbornInode>(payload).map(Inode::from).map_err(|_| why))
    }
}

/// The record in its stored form's payload.
pub(super) fn decode<T: Record>(payload: &[u8]) -> Result<T, StoreError> {
    T::of(payload).map_err(|why| StoreError::corrupt(format!("a record: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, keys, meta};
    use proptest::prelude::*;

    proptest! {
        /// `PROPTEST_CASES=10000000` goes on for hours.
        #[test]
        fn whatever_is_on_disk_is_a_record_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let stored = payload(&bytes);
            if let Ok(Some(bytes)) = stored {
                let _ = decode::<Inode>(bytes);
                let _ = decode::<Entry>(bytes);
                let _ = decode::<DirStat>(bytes);
                let _ = decode::<BlockRecord>(bytes);
            }
            let _ = sum(&bytes, &bytes);
            let _ = content_of(&bytes);
            let _ = Key::parse(&bytes);
            let _ = keys::split(&bytes).map(|(prefix, _)| Key::parse(prefix));
            let _ = meta::decided(&bytes);
            let _ = meta::kept_for(&bytes);
            let _ = meta::numbers::<2>(&bytes);
        }
    }

    #[test]
    fn a_file_of_a_format_before_is_read_without_when_it_was_made() {
        let time = Time { seconds: -1, nanos: 5 };
        let before = UnbornInode {
            kind: FileKind::Symlink,
            mode: 0o777,
            uid: 1,
            gid: 2,
            rdev: 0,
            nlink: 1,
            size: 3,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            content: None,
            target: Some(b"its".to_vec()),
            home: (Ino::ROOT, b"name".to_vec()),
        };
        let stored = encode(&before).expect("a record");
        let read = |stored: &[u8]| decode::<Inode>(payload(stored).expect("a tag").expect("it is there"));
        let inode = read(&stored).expect("an old record");
        assert_eq!((inode.born, inode.target.as_deref(), inode.nlink), (None, Some(&b"its"[..]), 1));
        let born = Inode { born: Some(time), ..inode };
        let stored = encode(&born).expect("a record");
        assert_eq!(read(&stored).expect("a new one"), born);
        for end in 1..stored.len() {
            // Cut off, it is an old one or none.
            assert!(read(&stored[..end]).is_ok_and(|cut| cut.born.is_none()) || read(&stored[..end]).is_err());
        }
    }
}
