//! Every call of the filesystem and every way of looking at it, as values that are written as a line each.

use crate::words::{lines, words};
use nix::libc;
use std::fmt;
use std::str::FromStr;

/// How a file is opened: `O_` names in small letters, joined by `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(pub i32);

const FLAGS: &[(&str, i32)] = &[
    ("wronly", libc::O_WRONLY),
    ("rdwr", libc::O_RDWR),
    ("creat", libc::O_CREAT),
    ("excl", libc::O_EXCL),
    ("trunc", libc::O_TRUNC),
    ("append", libc::O_APPEND),
    ("direct", libc::O_DIRECT),
    ("tmpfile", libc::O_TMPFILE),
    ("directory", libc::O_DIRECTORY),
    ("nofollow", libc::O_NOFOLLOW),
    ("path", libc::O_PATH),
    ("dsync", libc::O_DSYNC),
    ("nonblock", libc::O_NONBLOCK),
];

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = (self.0 & libc::O_ACCMODE == libc::O_RDONLY).then_some("rdonly");
        let others = FLAGS.iter().filter(|(_, bits)| self.0 & bits == *bits).map(|(name, _)| *name);
        f.write_str(&access.into_iter().chain(others).collect::<Vec<_>>().join("+"))
    }
}

impl FromStr for Flags {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let bits = |word: &str| match word {
            "rdonly" => Ok(libc::O_RDONLY),
            _ => FLAGS.iter().find(|(name, _)| *name == word).map(|(_, bits)| *bits).ok_or(format!("no flag {word}")),
        };
        text.split('+').try_fold(0, |all, word| Ok(all | bits(word)?)).map(Flags)
    }
}

/// Permissions, written in octal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode(pub u32);

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

impl FromStr for Mode {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 8).map(Mode)
    }
}

words! {
    /// From where `lseek` counts, or what it looks for.
    pub enum Whence {
        /// The beginning.
        Set "set",
        /// The offset.
        Current "cur",
        /// The end.
        End "end",
    }
}

words! {
    /// What `fallocate` does.
    pub enum Room {
        /// Makes the file longer.
        Allocate "allocate",
        /// Leaves its size.
        Keep "keep",
        /// Makes a hole.
        Punch "punch",
        /// Makes zeros, and the file longer.
        Zero "zero",
        /// Makes zeros within the file.
        ZeroKeep "zero-keep",
    }
}

words! {
    /// How a name is renamed.
    pub enum How {
        /// Over what is there.
        Plain "plain",
        /// Over nothing.
        NoReplace "noreplace",
        /// Both for each other.
        Exchange "exchange",
    }
}

words! {
    /// How an extended attribute is set.
    pub enum Put {
        /// Whether it is there or not.
        Any "any",
        /// Only a new one.
        Create "create",
        /// Only one that is there.
        Replace "replace",
    }
}

words! {
    /// Whose the changes of a mapping are.
    pub enum Sharing {
        /// The file's.
        Shared "shared",
        /// The mapping's.
        Private "private",
    }
}

lines! {
    /// One call, or a few that belong together. `slot` is an open descriptor that is kept across steps, `map` a mapping. Bytes
    /// to write are made from `fill` (see [`crate::perform::bytes_of`]). Paths are relative to the working directory, which
    /// is at first where the program was started.
    pub enum Op {
        Open "open" { slot: u8, path: String, flags: Flags, mode: Mode },
        /// The same relative to an open directory.
        OpenAt "open-at" { slot: u8, dir: u8, path: String, flags: Flags, mode: Mode },
        Close "close" { slot: u8 },
        /// Shares its offset.
        Dup "dup" { slot: u8, to: u8 },
        Read "read" { slot: u8, length: u32 },
        Pread "pread" { slot: u8, offset: u64, length: u32 },
        /// Into three buffers.
        Preadv "preadv" { slot: u8, offset: u64, length: u32 },
        Write "write" { slot: u8, fill: u32, length: u32 },
        Pwrite "pwrite" { slot: u8, offset: u64, fill: u32, length: u32 },
        /// From three buffers.
        Pwritev "pwritev" { slot: u8, offset: u64, fill: u32, length: u32 },
        Seek "seek" { slot: u8, whence: Whence, offset: i64 },
        /// Reads what `SEEK_DATA` says is data, and looks whether all else is zeros, as `cp` believes.
        Holes "holes" { slot: u8 },
        Truncate "truncate" { path: String, size: u64 },
        Ftruncate "ftruncate" { slot: u8, size: u64 },
        Fallocate "fallocate" { slot: u8, room: Room, offset: u64, length: u64 },
        CopyRange "copy-range" { slot: u8, offset: u64, to: u8, to_offset: u64, length: u64 },
        Sendfile "sendfile" { slot: u8, offset: u64, to: u8, length: u64 },
        /// Through a pipe.
        Splice "splice" { slot: u8, offset: u64, to: u8, to_offset: u64, length: u32 },
        Fsync "fsync" { slot: u8 },
        Fdatasync "fdatasync" { slot: u8 },
        Map "map" { map: u8, slot: u8, offset: u64, length: u32, sharing: Sharing },
        Load "load" { map: u8, offset: u32, length: u32 },
        Store "store" { map: u8, offset: u32, fill: u32, length: u32 },
        Msync "msync" { map: u8 },
        Unmap "unmap" { map: u8 },
        /// Makes a file, or makes it anew: `> path`.
        Put "put" { path: String, fill: u32, length: u32 },
        /// Appends to a file that may be new: `>> path`.
        Add "add" { path: String, fill: u32, length: u32 },
        /// Appends a line of text to a file.
        AddLine "add-line" { path: String, text: String },
        /// Makes a line of text all that is in a file, which may be new.
        PutLine "put-line" { path: String, text: String },
        /// The lines of text in a file.
        Lines "lines" { path: String },
        /// All of a file: `cat path`.
        Cat "cat" { path: String },
        /// All of a file, through a mapping made for it.
        CatMapped "cat-mapped" { path: String },
        Stat "stat" { path: String },
        Lstat "lstat" { path: String },
        Fstat "fstat" { slot: u8 },
        StatAt "stat-at" { dir: u8, path: String },
        Statx "statx" { path: String },
        /// `mode` is of `access`: 4, 2, 1 or 0.
        Access "access" { path: String, mode: Mode },
        Readlink "readlink" { path: String },
        List "list" { path: String },
        /// In pieces, with a look back in the middle.
        ListInPieces "list-pieces" { path: String },
        /// From the beginning, by a descriptor.
        ListSlot "list-slot" { slot: u8 },
        /// Everything below, with attributes and content.
        Walk "walk" { path: String },
        /// Every name that programs make here, looked up without a listing.
        Names "names" { },
        Link "link" { path: String, to: String },
        /// A further name of an open file.
        LinkSlot "link-slot" { slot: u8, to: String },
        Symlink "symlink" { target: String, path: String },
        Unlink "unlink" { path: String },
        Rmdir "rmdir" { path: String },
        /// With all that is below.
        RemoveAll "remove-all" { path: String },
        Mkdir "mkdir" { path: String, mode: Mode },
        Mkfifo "mkfifo" { path: String, mode: Mode },
        Rename "rename" { path: String, to: String, how: How },
        Chmod "chmod" { path: String, mode: Mode },
        Fchmod "fchmod" { slot: u8, mode: Mode },
        Chown "chown" { path: String, uid: u32, gid: u32 },
        Lchown "lchown" { path: String, uid: u32, gid: u32 },
        /// Seconds since 1970; 0 is now.
        Utimens "utimens" { path: String, seconds: i64, nanoseconds: i64 },
        Futimens "futimens" { slot: u8, seconds: i64, nanoseconds: i64 },
        SetXattr "setxattr" { path: String, name: String, fill: u32, length: u32, put: Put },
        GetXattr "getxattr" { path: String, name: String },
        ListXattr "listxattr" { path: String },
        RemoveXattr "removexattr" { path: String, name: String },
        FsetXattr "fsetxattr" { slot: u8, name: String, fill: u32, length: u32, put: Put },
        FgetXattr "fgetxattr" { slot: u8, name: String },
        /// Which locks can be taken on a file while another has some; all are given back.
        Locks "locks" { path: String },
        Chdir "chdir" { path: String },
        Cwd "cwd" { },
        Umask "umask" { mode: Mode },
    }
}

/// An op, and who does it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// A child that is forked for it, and waited for.
    pub by_child: bool,
    /// What is done.
    pub op: Op,
}

const CHILD: &str = "child ";

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.by_child { CHILD } else { "" }, self.op)
    }
}

impl FromStr for Step {
    type Err = String;
    fn from_str(line: &str) -> Result<Self, String> {
        let op = line.strip_prefix(CHILD);
        Ok(Step { by_child: op.is_some(), op: op.unwrap_or(line).parse()? })
    }
}

impl From<Op> for Step {
    fn from(op: Op) -> Self {
        Step { by_child: false, op }
    }
}
