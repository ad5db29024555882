//! What a kernel is told by itself.

use super::abi::{self, notify};
use zerocopy::IntoBytes;

/// What a kernel is to forget. What each waits for in the kernel is in the project's `docs/views.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice<'a> {
    /// An inode's attributes, and its bytes from `from` on, `length` of them, or up to the end if that is 0; none if `from` is below 0.
    Inode {
        /// Which.
        ino: u64,
        /// The first byte.
        from: i64,
        /// How many.
        length: i64,
    },
    /// What a name leads to.
    Name {
        /// Its directory.
        parent: u64,
        /// The name.
        name: &'a [u8],
    },
    /// What every name leads to (Linux 6.16).
    AllNames,
}

/// A notice as it is sent.
pub fn encode_notice(notice: &Notice<'_>) -> Vec<u8> {
    let (code, body) = match *notice {
        Notice::Inode { ino, from: off, length: len } => {
            (notify::INVAL_INODE, abi::InvalInodeOut { ino, off, len }.as_bytes().to_vec())
        }
        Notice::Name { parent, name } => {
            let head = abi::InvalEntryOut { parent, namelen: name.len() as u32, flags: 0 };
            (notify::INVAL_ENTRY, [head.as_bytes(), name, b"\0"].concat())
        }
        Notice::AllNames => (notify::INC_EPOCH, Vec::new()),
    };
    let len = (size_of::<abi::OutHeader>() + body.len()) as u32;
    [abi::OutHeader { len, error: code, unique: 0 }.as_bytes(), &body[..]].concat()
}
