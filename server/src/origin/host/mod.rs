//! The host's files, by their paths. Every step of a path is looked up anew, and no link is followed.

mod build;
mod durable;
mod filesystem;
mod find;
mod leave;
mod numbers;
mod switch;
mod sys;

pub use numbers::Made;

use super::{Applied, Bottom, HostFile, HostName, HostPath, HostRead, OWN_PREFIX, Plan, Wanted, below};
use crate::store::engine::read_cached;
use crate::store::{DirStat, HostBytes, Inode};
use mojavefs::id::{ContentId, Ino};
use mojavefs::protocol::file::{FileKind, Name, Time};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::Mode;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Attributes that are somebody else's: not shown, and not applied.
const OTHERS_XATTRS: [&[u8]; 2] = [b"system.mojavefs", b"trusted.overlay."];

/// A host, from its root directory on.
pub struct Host {
    root: OwnedFd,
    /// Where what was displaced goes.
    displaced: PathBuf,
    /// What is our own, whose insides are shown to nobody, and the directories around it.
    own: Vec<Ino>,
    /// What was made here.
    numbers: numbers::Numbers,
}

impl Host {
    /// The host of this process. Our own state lies in the directory `state`, which is there.
    pub fn here(state: &Path) -> io::Result<Host> {
        let root = nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let state = std::fs::canonicalize(state)?;
        let numbers = state.ancestors().map(|dir| {
            let dir = nix::fcntl::open(dir, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            number(&dir, &metadata(&dir)?)
        });
        let own = numbers.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect();
        let numbers = numbers::Numbers::open(&state.join("numbers"))?;
        Ok(Host { root, displaced: state.join("displaced"), own, numbers })
    }

    /// What a path leads to, not opened for anything; nothing if it leads nowhere.
    fn reach(&self, path: &[Name], flags: OFlag) -> io::Result<Option<OwnedFd>> {
        let joined = match path {
            [] => b".".to_vec(),
            path => path.join(&b'/'),
        };
        let how = OpenHow::new()
            .flags(flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
        match openat2(&self.root, OsStr::from_bytes(&joined), how) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Whether a path leads into what is our own.
    fn is_own(&self, path: &[Name]) -> bool {
        path.iter().any(|name| name.starts_with(OWN_PREFIX))
    }

    /// The same, opened to be read, if it is that file.
    fn open(&self, path: &[Name], ino: Ino, flags: OFlag) -> io::Result<Option<File>> {
        // What is no file or directory is not to be opened, by nobody's doing.
        let Some(found) = self.reach(path, OFlag::O_PATH)? else { return Ok(None) };
        let metadata = metadata(&found)?;
        if number(&found, &metadata)? != Some(ino) || !(metadata.is_file() || metadata.is_dir()) {
            return Ok(None);
        }
        let again = PathBuf::from(format!("/proc/self/fd/{}", found.as_raw_fd()));
        Ok(Some(File::from(nix::fcntl::open(&again, flags | OFlag::O_CLOEXEC, Mode::empty())?)))
    }
}

impl Bottom for Host {
    fn find(&self, path: &HostPath) -> io::Result<Option<HostFile>> {
        if self.is_own(path) {
            return Ok(None);
        }
        let Some(found) = self.reach(path, OFlag::O_PATH)? else { return Ok(None) };
        if let Some((_, above)) = path.split_last()
            && let Some(above) = self.reach(above, OFlag::O_PATH)?
            && number(&above, &metadata(&above)?)?.as_ref() == self.own.first()
        {
            return Ok(None);
        }
        look(&found)
    }

    fn list(&self, path: &HostPath, ino: Ino) -> io::Result<Option<Vec<HostName>>> {
        let Some(dir) = self.open(path, ino, OFlag::O_RDONLY)? else { return Ok(None) };
        let is = dir.metadata()?;
        if !is.is_dir() {
            return Ok(None);
        }
        if self.own.first() == Some(&ino) {
            return Ok(Some(Vec::new()));
        }
        let dir = OwnedFd::from(dir);
        let filesystem = filesystem::index(&dir, FileKind::Directory, is.dev())?;
        let mut names = Vec::new();
        for entry in Dir::from_fd(dir)?.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." || name.starts_with(OWN_PREFIX) {
                continue;
            }
            let kind = entry.file_type().map(kind_of_entry);
            let listed = filesystem.and_then(|index| Ino::of_host(index, entry.ino()));
            // A directory may have something mounted on it, which has another number.
            let is_certain = kind.is_some_and(|kind| kind != FileKind::Directory);
            match (listed, kind) {
                (Some(ino), Some(kind)) if is_certain => names.push(HostName { name: name.to_vec(), ino, kind }),
                _ => {
                    let whole = below(path, name);
                    let Some(found) = self.reach(&whole, OFlag::O_PATH)? else { continue };
                    if let Some(found) = look(&found)? {
                        names.push(HostName { name: name.to_vec(), ino: found.ino, kind: found.inode.kind });
                    }
                }
            }
        }
        Ok(Some(names))
    }

    fn read(&self, path: &HostPath, ino: Ino, bytes: HostBytes<'_>) -> io::Result<HostRead> {
        let HostBytes { offset, buffer, is_cached_only } = bytes;
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK;
        let Some(file) = self.open(path, ino, flags)? else { return Ok(HostRead::Gone) };
        let mut done = 0;
        while done < buffer.len() {
            let (at, rest) = (offset + done as u64, &mut buffer[done..]);
            let read = if is_cached_only { read_cached(&file, at, rest) } else { file.read_at(rest, at) };
            match read {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && is_cached_only => {
                    return Ok(HostRead::Uncached);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(HostRead::Done(done))
    }

    fn own(&self) -> &[Ino] {
        &self.own
    }

    fn made(&self) -> Vec<Made> {
        self.numbers.all()
    }

    fn apply(&self, plan: &Plan, wanted: &dyn Wanted) -> io::Result<Applied> {
        switch::Switch::new(self, plan, wanted).run()
    }
}

fn metadata(fd: &OwnedFd) -> io::Result<Metadata> {
    File::from(fd.try_clone()?).metadata()
}

fn number(found: &OwnedFd, is: &Metadata) -> io::Result<Option<Ino>> {
    let index = filesystem::index(found, kind_of(is), is.dev())?;
    Ok(index.and_then(|index| Ino::of_host(index, is.ino())))
}

/// What is there. Nothing if it can't be told from others: a number beyond what is kept.
fn look(found: &OwnedFd) -> io::Result<Option<HostFile>> {
    let stat = metadata(found)?;
    let Some(ino) = number(found, &stat)? else { return Ok(None) };
    let kind = kind_of(&stat);
    let target = match kind {
        FileKind::Symlink => Some(OsString::into_vec(readlinkat(found, "")?)),
        _ => None,
    };
    let time = |seconds, nanos: i64| Time { seconds, nanos: u32::try_from(nanos).unwrap_or_default() };
    let born = stat.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    let inode = Inode {
        kind,
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        rdev: match kind {
            FileKind::CharDevice | FileKind::BlockDevice => u32::try_from(stat.rdev()).unwrap_or_default(),
            _ => 0,
        },
        nlink: if kind == FileKind::Directory { 2 } else { u32::try_from(stat.nlink()).unwrap_or(u32::MAX) },
        size: if kind == FileKind::Directory { 0 } else { stat.size() },
        blocks: if kind == FileKind::Directory { 0 } else { stat.blocks() },
        atime: time(stat.atime(), stat.atime_nsec()),
        mtime: time(stat.mtime(), stat.mtime_nsec()),
        ctime: time(stat.ctime(), stat.ctime_nsec()),
        content: (kind == FileKind::Regular && stat.size() > 0).then_some(ContentId::of_host(ino)),
        target,
        home: (Ino::ROOT, Name::new()),
        born: born.map(|born| Time { seconds: born.as_secs().cast_signed(), nanos: born.subsec_nanos() }),
    };
    let dir = DirStat {
        subdirs: i64::try_from(stat.nlink()).unwrap_or(i64::MAX).saturating_sub(2).max(0),
        atime: Some(inode.atime),
        mtime: Some(inode.mtime),
        ctime: Some(inode.ctime),
    };
    Ok(Some(HostFile { ino, inode, dir, xattrs: xattrs(found)? }))
}

/// The extended attributes of what a descriptor stands for. A filesystem that has none has none.
fn xattrs(found: &OwnedFd) -> io::Result<Vec<(Name, Vec<u8>)>> {
    let names = match sys::list_xattrs(found) {
        Err(error) if is_without_xattrs(&error) => return Ok(Vec::new()),
        names => names?,
    };
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if OTHERS_XATTRS.iter().any(|others| name.starts_with(others)) {
            continue;
        }
        match sys::get_xattr(found, &CString::new(name)?) {
            Ok(value) => all.push((name.to_vec(), value)),
            // It went in between, or is not to be read by us.
            Err(error) if is_without_xattrs(&error) || error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn is_without_xattrs(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EOPNOTSUPP | Errno::ENODATA | Errno::EPERM | Errno::ENOENT | Errno::EACCES))
}

fn kind_of(stat: &Metadata) -> FileKind {
    match stat.file_type() {
        kind if kind.is_dir() => FileKind::Directory,
        kind if kind.is_symlink() => FileKind::Symlink,
        kind if kind.is_fifo() => FileKind::Fifo,
        kind if kind.is_socket() => FileKind::Socket,
        kind if kind.is_char_device() => FileKind::CharDevice,
        kind if kind.is_block_device() => FileKind::BlockDevice,
        _ => FileKind::Regular,
    }
}

fn kind_of_entry(kind: nix::dir::Type) -> FileKind {
    match kind {
        nix::dir::Type::Fifo => FileKind::Fifo,
        nix::dir::Type::CharacterDevice => FileKind::CharDevice,
        nix::dir::Type::Directory => FileKind::Directory,
        nix::dir::Type::BlockDevice => FileKind::BlockDevice,
        nix::dir::Type::File => FileKind::Regular,
        nix::dir::Type::Symlink => FileKind::Symlink,
        nix::dir::Type::Socket => FileKind::Socket,
    }
}
