//! Every way of looking that is not reading.

use super::{Performer, Said, digest, done, io};
use crate::op::{Mode, Op};
use crate::sys::{self, Owner};
use crate::tree::{Times, attributes, walk};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, readlink};
use nix::libc;
use nix::sys::stat::{FileStat, fstat, fstatat, lstat, stat};
use nix::unistd::{self, AccessFlags};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;

/// Room for one entry with the longest name, and for a few others.
const PIECE_BYTES: usize = 300;
const LISTING_BYTES: usize = 1 << 16;

/// An entry as the kernel gives it: name, type, the offset after it.
struct Entry {
    name: String,
    kind: u8,
    next: i64,
}

fn entries(mut bytes: &[u8]) -> Vec<Entry> {
    let mut found = Vec::new();
    // struct linux_dirent64: inode 8, offset 8, length 2, type 1, name.
    while let (Some(next), Some(length), Some(kind)) = (bytes.get(8..16), bytes.get(16..18), bytes.get(18)) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let name = bytes[19..length].split(|b| *b == 0).next().unwrap_or_default();
        let next = i64::from_ne_bytes(next.try_into().expect("eight bytes"));
        found.push(Entry { name: String::from_utf8_lossy(name).into_owned(), kind: *kind, next });
        bytes = &bytes[length..];
    }
    found
}

/// What is left of an open directory, read in pieces of this size.
fn rest(dir: BorrowedFd<'_>, piece: usize) -> Result<Vec<Entry>, Errno> {
    let mut found = Vec::new();
    let mut buffer = vec![0; piece];
    loop {
        match sys::getdents(dir, &mut buffer)? {
            0 => return Ok(found),
            n => found.extend(entries(&buffer[..n])),
        }
    }
}

fn names(entries: &[Entry]) -> Vec<String> {
    let mut names: Vec<_> = entries.iter().map(|entry| format!("{}/{}", entry.name, entry.kind)).collect();
    names.sort_unstable();
    names
}

fn told(stat: nix::Result<FileStat>) -> Said {
    Ok(attributes(&stat?, Times::Set))
}

impl Performer {
    pub(super) fn looking(&mut self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Stat { path } => told(stat(&self.at(path))),
            Op::Lstat { path } => told(lstat(&self.at(path))),
            Op::Fstat { slot } => self.slot(*slot).and_then(|fd| told(fstat(fd))),
            Op::StatAt { dir, path } => {
                self.slot(*dir).and_then(|dir| told(fstatat(dir, path.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW)))
            }
            Op::Statx { path } => self.statx(path),
            Op::Access { path, mode: Mode(mode) } => {
                done(unistd::access(&self.at(path), AccessFlags::from_bits_truncate(mode.cast_signed())))
            }
            Op::Readlink { path } => readlink(&self.at(path)).map(|target| format!("-> {}", target.to_string_lossy())),
            Op::List { path } => self.list(path),
            Op::ListInPieces { path } => self.list_in_pieces(path),
            Op::ListSlot { slot } => self.list_slot(*slot),
            Op::Names {} => Ok(self.all_names()),
            Op::Walk { path } => Ok(walk(&self.at(path), Times::Set).join("; ")),
            Op::GetXattr { path, name } => self.get_xattr(Owner::Path(&self.text(path)), name),
            Op::FgetXattr { slot, name } => self.slot(*slot).and_then(|fd| self.get_xattr(Owner::Open(fd), name)),
            Op::ListXattr { path } => self.list_xattr(path),
            Op::Cwd {} => self.cwd(),
            _ => return None,
        })
    }

    fn statx(&self, path: &str) -> Said {
        let found = sys::statx(&self.text(path))?;
        let is_dir = u32::from(found.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        let size = if is_dir { crate::known::directory_size().cast_unsigned() } else { found.stx_size };
        let time = crate::known::time(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec.into());
        let (mode, uid, gid, links) = (found.stx_mode, found.stx_uid, found.stx_gid, found.stx_nlink);
        Ok(format!("{mode:o} {uid}:{gid} links={links} size={size}{time}"))
    }

    fn list(&self, path: &str) -> Said {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.at(path)).map_err(|e| io(&e))? {
            let entry = entry.map_err(|e| io(&e))?;
            let kind = entry.file_type().map_err(|e| io(&e))?;
            let kind = match () {
                () if kind.is_dir() => "/",
                () if kind.is_symlink() => "@",
                () if kind.is_fifo() => "|",
                () => "",
            };
            names.push(format!("{}{kind}", entry.file_name().to_string_lossy()));
        }
        names.sort_unstable();
        Ok(format!("[{}]", names.join(" ")))
    }

    /// A few entries, then the rest, then the rest again from the place that was noted.
    fn list_in_pieces(&self, path: &str) -> Said {
        let dir = self.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut first = vec![0; PIECE_BYTES];
        let n = sys::getdents(dir.as_fd(), &mut first)?;
        let mut all = entries(&first[..n]);
        let noted = all.last().map_or(0, |entry| entry.next);
        let more = rest(dir.as_fd(), PIECE_BYTES)?;
        unistd::lseek(&dir, noted, unistd::Whence::SeekSet)?;
        let again = rest(dir.as_fd(), LISTING_BYTES)?;
        let same = names(&more) == names(&again);
        all.extend(more);
        Ok(format!("[{}] {}", names(&all).join(" "), if same { "the same again" } else { "otherwise again" }))
    }

    fn list_slot(&self, slot: u8) -> Said {
        let dir = self.slot(slot)?;
        unistd::lseek(dir, 0, unistd::Whence::SeekSet)?;
        let names = names(&rest(dir, LISTING_BYTES)?).join(" ");
        // What number the place behind the last name has is each filesystem's own.
        unistd::lseek(dir, 0, unistd::Whence::SeekSet)?;
        Ok(format!("[{names}]"))
    }

    fn all_names(&self) -> String {
        let told = |path: String| {
            let found = lstat(&self.at(&format!("/{path}"))).map_or_else(super::errno, |s| attributes(&s, Times::Set));
            format!("{path} {found}")
        };
        crate::generate::names().map(told).collect::<Vec<_>>().join("; ")
    }

    fn get_xattr(&self, owner: Owner<'_>, name: &str) -> Said {
        Ok(digest(&sys::get_xattr(owner, name)?))
    }

    fn list_xattr(&self, path: &str) -> Said {
        let names = sys::list_xattr(&self.text(path))?;
        let names = String::from_utf8_lossy(&names);
        let mut names: Vec<_> = names.split('\0').filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        Ok(format!("[{}]", names.join(" ")))
    }

    fn cwd(&self) -> Said {
        let found = unistd::getcwd()?;
        Ok(found.strip_prefix(&self.root).map_or("elsewhere".to_owned(), |below| format!("/{}", below.display())))
    }
}
