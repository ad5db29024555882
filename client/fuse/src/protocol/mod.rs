//! The protocol, without any input or output: <https://www.kernel.org/doc/html/latest/filesystems/fuse/> and `include/uapi/linux/fuse.h` of
//! Linux 6.18 (7.45). All numbers are in the byte order of the machine.

pub mod abi;
mod answer;
mod decode;
mod flags;
mod handshake;
mod listing;
mod notice;
mod request;

pub use answer::{Answer, Attributes, Entry, Head, Lasting, Lock, LockKind, Opened, Space, encode};
pub use decode::decode;
pub use flags::{CreationFlags, InitFlags, OpenedFlags, WriteFlags};
pub use handshake::{Handshake, Hello, MINOR_MIN, Offer, accept};
pub use listing::{Listed, Page};
pub use notice::{Notice, encode_notice};
pub use request::{Creation, Malformed, Operation, Request, SetAttributes, SetTime, Unnamed};

/// The inode number of the root.
pub const ROOT: u64 = 1;
/// The longest request beside what is written, in bytes: two names, or a name and an attribute's value of 64 KiB.
pub const HEAD_BYTES_MAX: usize = 128 << 10;
