//! How each op is made, and how often.

use super::{Generator, Make};
use crate::known::LATEST_SET;
use crate::op::{Flags, How, Mode, Op, Put, Room, Sharing, Whence};
use nix::libc;

const XATTRS: &[&str] = &["user.k", "user.other", "trusted.k"];

/// Every op.
pub const ALL: &[(usize, Make)] = &[
    (8, put),
    (4, add),
    (8, open),
    (2, open_at),
    (3, close),
    (1, dup),
    (6, write),
    (5, pwrite),
    (4, pread),
    (2, read),
    (2, seek),
    (2, holes),
    (3, ftruncate),
    (2, truncate),
    (3, fallocate),
    (2, copy_range),
    (1, sendfile),
    (1, splice),
    (1, sync),
    (2, map),
    (2, load),
    (2, store),
    (1, msync),
    (1, unmap),
    (6, cat),
    (2, cat_mapped),
    (8, stat),
    (1, all_names),
    (8, list),
    (3, xattr_of),
    (2, readlink),
    (5, link),
    (3, symlink),
    (7, unlink),
    (3, rmdir),
    (6, mkdir),
    (1, mkfifo),
    (10, rename),
    (4, change_attributes),
    (3, utimens),
    (4, set_xattr),
    (1, locks),
    (1, chdir),
];

/// Those that move bytes, or ask for sizes and holes, and what they need.
pub const BYTES: &[(usize, Make)] = &[
    (6, put),
    (5, add),
    (8, open),
    (2, close),
    (1, dup),
    (8, write),
    (8, pwrite),
    (6, pread),
    (4, read),
    (3, seek),
    (8, holes),
    (6, ftruncate),
    (3, truncate),
    (7, fallocate),
    (6, copy_range),
    (3, sendfile),
    (3, splice),
    (1, sync),
    (5, map),
    (7, load),
    (7, store),
    (2, msync),
    (1, unmap),
    (8, cat),
    (6, cat_mapped),
    (5, stat),
    (3, unlink),
    (3, rename),
    (2, link),
];

/// Those that only look, by paths.
pub const LOOKS: &[(usize, Make)] =
    &[(4, cat), (3, cat_mapped), (4, stat), (4, list), (1, xattr_of), (1, readlink), (3, open_to_read), (2, open_dir)];

fn put(g: &mut Generator) -> Op {
    let path = if g.random.one_in(2) { g.new_path() } else { g.file() };
    g.made(&path);
    Op::Put { path, fill: g.fill(), length: g.length() }
}

fn add(g: &mut Generator) -> Op {
    let path = g.file();
    g.made(&path);
    Op::Add { path, fill: g.fill(), length: g.length() }
}

fn open_flags(g: &mut Generator) -> Flags {
    let access = g.random.weighted(&[(5, libc::O_RDWR), (2, libc::O_RDONLY), (1, libc::O_WRONLY)]);
    let more = [
        (8, 0),
        (5, libc::O_CREAT),
        (1, libc::O_CREAT | libc::O_EXCL),
        (1, libc::O_TRUNC),
        (1, libc::O_CREAT | libc::O_TRUNC),
        (2, libc::O_APPEND),
        (2, libc::O_DIRECT),
        (1, libc::O_NOFOLLOW),
        (1, libc::O_DSYNC),
    ];
    Flags(access | g.random.weighted(&more))
}

pub(super) fn open(g: &mut Generator) -> Op {
    if g.random.one_in(10) {
        return open_dir(g);
    }
    let slot = g.any_slot();
    let (flags, path) = (open_flags(g), g.file());
    let is_there = g.guess.files.iter().any(|file| file == path.trim_start_matches('/'));
    let flags = if is_there || g.random.one_in(8) { flags } else { Flags(flags.0 | libc::O_CREAT) };
    if flags.0 & libc::O_CREAT != 0 {
        g.made(&path);
    }
    Op::Open { slot, path, flags, mode: g.mode() }
}

fn open_dir(g: &mut Generator) -> Op {
    if g.random.one_in(3) {
        // A file without a name.
        let flags = Flags(libc::O_TMPFILE | g.random.weighted(&[(3, libc::O_RDWR), (1, libc::O_WRONLY)]));
        return Op::Open { slot: g.any_slot(), path: g.dir(), flags, mode: g.mode() };
    }
    Op::Open { slot: g.any_slot(), path: g.dir(), flags: Flags(libc::O_DIRECTORY), mode: Mode(0) }
}

fn open_to_read(g: &mut Generator) -> Op {
    Op::Open { slot: g.any_slot(), path: g.file(), flags: Flags(libc::O_RDONLY), mode: Mode(0) }
}

fn open_at(g: &mut Generator) -> Op {
    let path = g.random.of(g.leaves).to_owned();
    if g.random.one_in(3) {
        return Op::StatAt { dir: g.slot(), path };
    }
    Op::OpenAt { slot: g.any_slot(), dir: g.slot(), path, flags: open_flags(g), mode: g.mode() }
}

fn close(g: &mut Generator) -> Op {
    Op::Close { slot: g.slot() }
}

fn dup(g: &mut Generator) -> Op {
    Op::Dup { slot: g.slot(), to: g.any_slot() }
}

fn write(g: &mut Generator) -> Op {
    Op::Write { slot: g.slot(), fill: g.fill(), length: g.length() }
}

fn pwrite(g: &mut Generator) -> Op {
    let (slot, offset, fill, length) = (g.slot(), g.size(), g.fill(), g.length());
    match g.random.one_in(3) {
        true => Op::Pwritev { slot, offset, fill, length },
        false => Op::Pwrite { slot, offset, fill, length },
    }
}

fn pread(g: &mut Generator) -> Op {
    let (slot, offset, length) = (g.slot(), g.size(), g.length());
    if g.random.one_in(3) { Op::Preadv { slot, offset, length } } else { Op::Pread { slot, offset, length } }
}

fn read(g: &mut Generator) -> Op {
    Op::Read { slot: g.slot(), length: g.length() }
}

fn seek(g: &mut Generator) -> Op {
    let (slot, whence, offset) = (g.slot(), g.random.of(Whence::ALL), g.size().cast_signed());
    let offset = if whence != Whence::Set && g.random.one_in(2) { -offset } else { offset };
    Op::Seek { slot, whence, offset }
}

fn holes(g: &mut Generator) -> Op {
    // What was stored through a mapping is not written out yet.
    match g.guess.mapped.is_empty() || g.random.one_in(3) {
        true => Op::Holes { slot: g.slot() },
        false => Op::Holes { slot: g.random.of(&g.guess.mapped).1 },
    }
}

fn ftruncate(g: &mut Generator) -> Op {
    Op::Ftruncate { slot: g.slot(), size: g.size() }
}

fn truncate(g: &mut Generator) -> Op {
    Op::Truncate { path: g.file(), size: g.size() }
}

fn fallocate(g: &mut Generator) -> Op {
    Op::Fallocate { slot: g.slot(), room: g.random.of(Room::ALL), offset: g.size(), length: g.size() }
}

fn copy_range(g: &mut Generator) -> Op {
    Op::CopyRange { slot: g.slot(), offset: g.size(), to: g.slot(), to_offset: g.size(), length: g.size() }
}

fn sendfile(g: &mut Generator) -> Op {
    Op::Sendfile { slot: g.slot(), offset: g.size(), to: g.slot(), length: g.size() }
}

fn splice(g: &mut Generator) -> Op {
    Op::Splice { slot: g.slot(), offset: g.size(), to: g.slot(), to_offset: g.size(), length: g.length() }
}

fn sync(g: &mut Generator) -> Op {
    if g.random.one_in(2) { Op::Fsync { slot: g.slot() } } else { Op::Fdatasync { slot: g.slot() } }
}

fn map(g: &mut Generator) -> Op {
    let sharing = if g.random.one_in(4) { Sharing::Private } else { Sharing::Shared };
    let length = g.random.of(&[4096, 16384, 65536, 140_000, 300_000]);
    Op::Map { map: g.any_slot(), slot: g.slot(), offset: g.random.of(&[0, 0, 4096, 65536]), length, sharing }
}

fn load(g: &mut Generator) -> Op {
    Op::Load { map: g.mapping(), offset: g.length(), length: g.length() }
}

fn store(g: &mut Generator) -> Op {
    Op::Store { map: g.mapping(), offset: g.length(), fill: g.fill(), length: g.length() }
}

fn msync(g: &mut Generator) -> Op {
    Op::Msync { map: g.mapping() }
}

fn unmap(g: &mut Generator) -> Op {
    Op::Unmap { map: g.mapping() }
}

fn cat(g: &mut Generator) -> Op {
    Op::Cat { path: g.file() }
}

fn cat_mapped(g: &mut Generator) -> Op {
    Op::CatMapped { path: g.file() }
}

fn stat(g: &mut Generator) -> Op {
    let path = g.any();
    match g.random.below(5) {
        0 => Op::Lstat { path },
        1 => Op::Statx { path },
        2 => Op::Fstat { slot: g.slot() },
        3 => Op::Access { path, mode: Mode(g.random.of(&[0, 1, 2, 4, 6])) },
        _ => Op::Stat { path },
    }
}

fn all_names(_: &mut Generator) -> Op {
    Op::Names {}
}

fn list(g: &mut Generator) -> Op {
    let path = g.dir();
    match g.random.below(5) {
        0 => Op::ListInPieces { path },
        1 | 2 if g.guess.open_dirs.is_empty() => open_dir(g),
        1 | 2 => Op::ListSlot { slot: g.directory_slot() },
        _ => Op::List { path },
    }
}

fn xattr_of(g: &mut Generator) -> Op {
    let (path, name) = (g.any(), g.random.of(XATTRS).to_owned());
    match g.random.below(3) {
        0 => Op::ListXattr { path },
        1 => Op::FgetXattr { slot: g.slot(), name },
        _ => Op::GetXattr { path, name },
    }
}

fn readlink(g: &mut Generator) -> Op {
    Op::Readlink { path: g.file() }
}

fn link(g: &mut Generator) -> Op {
    let to = g.new_path();
    if g.random.one_in(5) {
        return Op::LinkSlot { slot: g.slot(), to };
    }
    let path = g.file();
    g.made(&to);
    Op::Link { path, to }
}

fn symlink(g: &mut Generator) -> Op {
    let path = g.new_path();
    g.made(&path);
    let target = if g.random.one_in(2) { g.any() } else { g.random.of(g.leaves).to_owned() };
    // An absolute target would lead out of the tree.
    let target = format!("./{}", target.trim_start_matches('/'));
    Op::Symlink { target, path }
}

fn unlink(g: &mut Generator) -> Op {
    let path = if g.random.one_in(10) { g.any() } else { g.file() };
    g.gone(&path);
    Op::Unlink { path }
}

fn rmdir(g: &mut Generator) -> Op {
    let path = g.dir_below();
    if g.random.one_in(3) && path != "." {
        let below = format!("{path}/");
        g.guess.files.retain(|file| !file.starts_with(&below));
        g.guess.dirs.retain(|dir| *dir != path && !dir.starts_with(&below));
        return Op::RemoveAll { path };
    }
    Op::Rmdir { path }
}

fn mkdir(g: &mut Generator) -> Op {
    let path = if g.random.one_in(4) { g.new_path() } else { g.new_dir() };
    if !g.guess.dirs.contains(&path) && g.may_be_in(&path) {
        g.guess.dirs.push(path.clone());
    }
    Op::Mkdir { path, mode: g.random.of(&[Mode(0o755), Mode(0o755), Mode(0o700), Mode(0o2775)]) }
}

fn mkfifo(g: &mut Generator) -> Op {
    Op::Mkfifo { path: g.new_path(), mode: g.mode() }
}

fn rename(g: &mut Generator) -> Op {
    let how = g.random.weighted(&[(6, How::Plain), (1, How::NoReplace), (2, How::Exchange)]);
    if g.random.one_in(4) {
        let (path, to) = (g.dir_below(), g.new_dir());
        return Op::Rename { path, to, how };
    }
    let (path, to) = (g.file(), if g.random.one_in(2) { g.new_path() } else { g.file() });
    if how != How::Exchange {
        g.gone(&path);
        g.made(&to);
    }
    Op::Rename { path, to, how }
}

fn change_attributes(g: &mut Generator) -> Op {
    let (path, uid, gid) = (g.any(), g.random.of(&[0, 1, 1000]), g.random.of(&[0, 1, 1000]));
    match g.random.below(5) {
        0 => Op::Chown { path, uid, gid },
        1 => Op::Lchown { path, uid, gid },
        2 => Op::Fchmod { slot: g.slot(), mode: g.mode() },
        3 => Op::Umask { mode: g.random.of(&[Mode(0o022), Mode(0o077), Mode(0)]) },
        _ => Op::Chmod { path, mode: g.mode() },
    }
}

fn utimens(g: &mut Generator) -> Op {
    let seconds = if g.random.one_in(3) { 0 } else { 1 + g.random.below(LATEST_SET as usize - 1) as i64 };
    let nanoseconds = g.random.below(1_000_000_000) as i64;
    match g.random.one_in(3) {
        true => Op::Futimens { slot: g.slot(), seconds, nanoseconds },
        false => Op::Utimens { path: g.any(), seconds, nanoseconds },
    }
}

fn set_xattr(g: &mut Generator) -> Op {
    let (name, fill, put) = (g.random.of(XATTRS).to_owned(), g.fill(), g.random.of(Put::ALL));
    // The host's filesystem has room for a few hundred bytes only.
    let length = g.random.of(&[0, 1, 20, 300]);
    match g.random.below(4) {
        0 => Op::RemoveXattr { path: g.any(), name },
        1 => Op::FsetXattr { slot: g.slot(), name, fill, length, put },
        _ => Op::SetXattr { path: g.any(), name, fill, length, put },
    }
}

fn locks(g: &mut Generator) -> Op {
    Op::Locks { path: g.file() }
}

fn chdir(g: &mut Generator) -> Op {
    match g.random.below(4) {
        0 => Op::Chdir { path: g.dir() },
        1 => Op::Cwd {},
        _ => Op::Chdir { path: "/".to_owned() },
    }
}
