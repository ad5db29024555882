//! Keys of versioned records: what, then which version, newest first. Byte by byte in `docs/formats.md`.

use mojavefs::id::{BlockNo, ContentId, Ino, IntervalId, Seq};
use mojavefs::protocol::file::Name;

const UNDECIDED: u64 = 1 << 63;
/// How long the order at the end of a version's key is, in bytes.
pub(super) const ORDER_BYTES: usize = 8;

/// What a record describes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub enum Key {
    /// A file: kind, mode, owner, size, times.
    Inode(Ino),
    /// A name in a directory.
    Entry(Ino, Name),
    /// A directory's times and subdirectory count.
    DirStat(Ino),
    /// An extended attribute.
    Xattr(Ino, Name),
    /// A small content.
    Inline(ContentId),
    /// Where a block of a content lies.
    Block(ContentId, BlockNo),
}

/// Which version: undecided ones order by their interval, above all final ones, which order by when they became final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Order(u64);

impl Order {
    /// The order of a version that belongs to an undecided interval.
    pub fn undecided(interval: IntervalId) -> Self {
        Order(UNDECIDED | interval.0)
    }

    /// The order of a final version.
    pub fn is_final(seq: Seq) -> Self {
        Order(seq.0 & !UNDECIDED)
    }

    /// The interval of a version written by one.
    pub fn interval(self) -> Option<IntervalId> {
        (self.0 & UNDECIDED != 0).then_some(IntervalId(self.0 & !UNDECIDED))
    }

    /// When a merged version became final.
    pub fn seq(self) -> Option<Seq> {
        (self.0 & UNDECIDED == 0).then_some(Seq(self.0))
    }
}

const INODE: u8 = b'I';
const ENTRY: u8 = b'E';
const DIR_STAT: u8 = b'T';
const XATTR: u8 = b'X';
const INLINE: u8 = b'C';
const BLOCK: u8 = b'B';

impl Key {
    /// The bytes before the order.
    pub(super) fn prefix(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48);
        match self {
            Key::Inode(ino) => number(&mut out, INODE, ino.0),
            Key::DirStat(ino) => number(&mut out, DIR_STAT, ino.0),
            Key::Inline(content) => number(&mut out, INLINE, content.0),
            Key::Entry(parent, name) => named(&mut out, ENTRY, parent.0, name),
            Key::Xattr(ino, name) => named(&mut out, XATTR, ino.0, name),
            Key::Block(content, block) => {
                number(&mut out, BLOCK, content.0);
                out.extend_from_slice(&block.0.to_be_bytes());
            }
        }
        out
    }

    /// The key whose prefix this is; `None` for bytes that are none.
    pub(super) fn parse(prefix: &[u8]) -> Option<Key> {
        let (kind, rest) = prefix.split_first()?;
        let (number, rest) = rest.split_first_chunk::<8>()?;
        let number = u64::from_be_bytes(*number);
        let name = || rest.strip_suffix(&[0]).map(<[u8]>::to_vec);
        Some(match *kind {
            INODE if rest.is_empty() => Key::Inode(Ino(number)),
            DIR_STAT if rest.is_empty() => Key::DirStat(Ino(number)),
            INLINE if rest.is_empty() => Key::Inline(ContentId(number)),
            ENTRY => Key::Entry(Ino(number), name()?),
            XATTR => Key::Xattr(Ino(number), name()?),
            BLOCK => Key::Block(ContentId(number), BlockNo(u64::from_be_bytes(rest.try_into().ok()?))),
            _ => return None,
        })
    }

    /// The inode that this belongs to and is gone with.
    pub(super) fn inode(&self) -> Option<Ino> {
        match self {
            Key::Entry(ino, _) | Key::DirStat(ino) | Key::Xattr(ino, _) => Some(*ino),
            Key::Inode(_) | Key::Inline(_) | Key::Block(..) => None,
        }
    }

    /// The bytes that all names of a directory begin with.
    pub(super) fn entries_of(parent: Ino) -> Vec<u8> {
        let mut out = Vec::with_capacity(9);
        number(&mut out, ENTRY, parent.0);
        out
    }

    /// The bytes that all attributes of an inode begin with.
    pub(super) fn xattrs_of(ino: Ino) -> Vec<u8> {
        let mut out = Vec::with_capacity(9);
        number(&mut out, XATTR, ino.0);
        out
    }

    /// The bytes that all blocks of a content begin with.
    pub(super) fn blocks_of(content: ContentId) -> Vec<u8> {
        let mut out = Vec::with_capacity(9);
        number(&mut out, BLOCK, content.0);
        out
    }
}

fn number(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    out.extend_from_slice(&number.to_be_bytes());
}

fn named(out: &mut Vec<u8>, kind: u8, owner: u64, name: &[u8]) {
    number(out, kind, owner);
    out.extend_from_slice(name);
    out.push(0);
}

/// The whole key of one version.
pub(super) fn version(prefix: &[u8], order: Order) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + ORDER_BYTES);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&(!order.0).to_be_bytes());
    key
}

/// Takes a version's key apart; `None` for bytes that are none.
pub(super) fn split(key: &[u8]) -> Option<(&[u8], Order)> {
    let (prefix, order) = key.split_last_chunk::<ORDER_BYTES>()?;
    Some((prefix, Order(!u64::from_be_bytes(*order))))
}
