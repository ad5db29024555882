//! What moves bytes, or asks for sizes and holes.

use super::{Mapped, Performer, Said, bytes_of, digest, done, io, offset};
use crate::known;
use crate::op::{Op, Room, Sharing, Whence};
use crate::sys::{self, Mapping};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, fallocate, fcntl};
use nix::libc;
use nix::sys::stat::fstat;
use nix::sys::uio;
use nix::unistd;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

/// What the host's filesystems ask of `O_DIRECT`, and the size of a page.
const ALIGNMENT: usize = 4096;
/// How much a pipe takes at once.
const PIPE_BYTES: usize = 65536;

/// Bytes that `O_DIRECT` takes: where they begin, how many there are.
struct Buffer {
    bytes: Vec<u8>,
    at: usize,
    length: usize,
}

impl Buffer {
    fn new(length: usize) -> Self {
        let bytes = vec![0; length + ALIGNMENT];
        let at = bytes.as_ptr().align_offset(ALIGNMENT);
        Buffer { bytes, at, length }
    }

    fn of(content: &[u8]) -> Self {
        let mut buffer = Buffer::new(content.len());
        buffer.as_mut().copy_from_slice(content);
        buffer
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..self.at + self.length]
    }
}

fn flags(fd: BorrowedFd<'_>) -> Result<OFlag, Errno> {
    fcntl(fd, FcntlArg::F_GETFL).map(OFlag::from_bits_retain)
}

/// Offset and length, rounded where the descriptor asks for it.
fn aligned(fd: BorrowedFd<'_>, at: u64, length: u32) -> Result<(i64, usize), Errno> {
    let (at, length) = (offset(at)?, length as usize);
    if !flags(fd)?.contains(OFlag::O_DIRECT) {
        return Ok((at, length));
    }
    Ok((at - at % ALIGNMENT as i64, length.next_multiple_of(ALIGNMENT)))
}

/// What is answered where nothing is done.
const UNALIGNED: &str = "unaligned";

/// Whether a descriptor that asks for aligned offsets stands at none, as after a read up to the end of a file.
fn stands_unaligned(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    let flags = flags(fd)?;
    if known::takes_any_offset(flags) || flags.contains(OFlag::O_APPEND) {
        return Ok(false);
    }
    Ok(unistd::lseek(fd, 0, unistd::Whence::SeekCur)? % ALIGNMENT as i64 != 0)
}

fn thirds(bytes: &mut [u8]) -> [&mut [u8]; 3] {
    let (first, rest) = bytes.split_at_mut(bytes.len() / 3);
    let (second, third) = rest.split_at_mut(rest.len() / 2);
    [first, second, third]
}

fn size_of(fd: BorrowedFd<'_>) -> Result<usize, Errno> {
    Ok(usize::try_from(fstat(fd)?.st_size).unwrap_or(0))
}

/// All of an open file, by `pread`.
fn content(fd: BorrowedFd<'_>, from: usize, to: usize) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; to.saturating_sub(from)];
    let mut done = 0;
    while done < buffer.len() {
        match uio::pread(fd, &mut buffer[done..], (from + done) as i64)? {
            0 => break,
            n => done += n,
        }
    }
    buffer.truncate(done);
    Ok(buffer)
}

/// The file as one sees it who believes what `SEEK_DATA` and `SEEK_HOLE` say.
fn by_holes(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let size = size_of(fd)?;
    let mut found = vec![0; size];
    let mut at = 0;
    loop {
        let data = match unistd::lseek(fd, at, unistd::Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(found),
            Err(e) => return Err(e),
        };
        at = unistd::lseek(fd, data, unistd::Whence::SeekHole)?;
        let bytes = content(fd, data as usize, (at as usize).min(size))?;
        found[data as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
}

/// Repeats a call that may do a part of the work; a failure counts if nothing was done before.
fn whole(length: usize, mut part: impl FnMut(usize) -> Result<usize, Errno>) -> Said {
    let mut total = 0;
    while total < length {
        match part(length - total) {
            Ok(0) => break,
            Ok(n) => total += n,
            Err(e) if total == 0 => return Err(e),
            Err(e) => return Ok(format!("{total} then {e:?}")),
        }
    }
    Ok(total.to_string())
}

impl Performer {
    pub(super) fn bytes(&mut self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Read { slot, length } => self.read(*slot, *length),
            Op::Pread { slot, offset, length } => self.pread(*slot, *offset, *length, false),
            Op::Preadv { slot, offset, length } => self.pread(*slot, *offset, *length, true),
            Op::Write { slot, fill, length } => self.write(*slot, *fill, *length),
            Op::Pwrite { slot, offset, fill, length } => self.pwrite(*slot, *offset, (*fill, *length), false),
            Op::Pwritev { slot, offset, fill, length } => self.pwrite(*slot, *offset, (*fill, *length), true),
            Op::Seek { slot, whence, offset } => self.seek(*slot, *whence, *offset),
            Op::Holes { slot } => self.holes(*slot),
            Op::Truncate { path, size } => offset(*size).and_then(|size| done(unistd::truncate(&self.at(path), size))),
            Op::Ftruncate { slot, size } => self.slot(*slot).and_then(|fd| done(unistd::ftruncate(fd, offset(*size)?))),
            Op::Fallocate { slot, room, offset, length } => self.fallocate(*slot, *room, *offset, *length),
            Op::CopyRange { slot, to, .. } | Op::Sendfile { slot, to, .. } | Op::Splice { slot, to, .. }
                if self.asks_for_alignment([*slot, *to]) =>
            {
                Ok("left out".to_owned())
            }
            Op::CopyRange { slot, offset, to, to_offset, length } => {
                self.copy_range((*slot, *offset), (*to, *to_offset), *length)
            }
            Op::Sendfile { slot, offset, to, length } => self.sendfile((*slot, *offset), *to, *length),
            Op::Splice { slot, offset, to, to_offset, length } => {
                self.splice((*slot, *offset), (*to, *to_offset), *length as usize)
            }
            Op::Fsync { slot } => self.slot(*slot).and_then(|fd| done(unistd::fsync(fd))),
            Op::Fdatasync { slot } => self.slot(*slot).and_then(|fd| done(unistd::fdatasync(fd))),
            Op::Put { path, fill, length } => self.put(path, OFlag::O_TRUNC, *fill, *length),
            Op::Add { path, fill, length } => self.put(path, OFlag::O_APPEND, *fill, *length),
            Op::AddLine { path, text } => self.line(path, OFlag::O_APPEND, text),
            Op::PutLine { path, text } => self.line(path, OFlag::O_CREAT | OFlag::O_TRUNC, text),
            Op::Lines { path } => self.lines(path),
            Op::Cat { path } => self.cat(path),
            Op::CatMapped { path } => self.cat_mapped(path),
            _ => return None,
        })
    }

    fn asks_for_alignment(&self, slots: [u8; 2]) -> bool {
        let flags = slots.map(|slot| self.slot(slot).and_then(flags).unwrap_or(OFlag::empty()));
        !crate::known::copies_in_the_kernel(flags)
    }

    pub(super) fn mapped(&mut self, op: &Op) -> Option<Said> {
        Some(match op {
            Op::Map { map, slot, offset, length, sharing } => self.map(*map, *slot, (*offset, *length), *sharing),
            Op::Load { map, offset, length } => self.load(*map, *offset as usize, *length as usize),
            Op::Store { map, offset, fill, length } => {
                self.store(*map, *offset as usize, &bytes_of(*fill, *length as usize))
            }
            Op::Msync { map } => self.mapping(*map).and_then(|mapped| done(mapped.mapping.sync())),
            Op::Unmap { map } => match self.maps.get_mut(usize::from(*map)).and_then(Option::take) {
                Some(_) => done(Ok(())),
                None => Err(Errno::EBADF),
            },
            _ => return None,
        })
    }

    fn read(&self, slot: u8, length: u32) -> Said {
        let fd = self.slot(slot)?;
        if stands_unaligned(fd)? {
            return Ok(UNALIGNED.to_owned());
        }
        let (_, length) = aligned(fd, 0, length)?;
        let mut buffer = Buffer::new(length);
        let n = unistd::read(fd, buffer.as_mut())?;
        Ok(digest(&buffer.as_mut()[..n]))
    }

    fn pread(&self, slot: u8, at: u64, length: u32, vectored: bool) -> Said {
        let fd = self.slot(slot)?;
        let (at, length) = aligned(fd, at, length)?;
        let mut buffer = Buffer::new(length);
        let n = match vectored && !flags(fd)?.contains(OFlag::O_DIRECT) {
            true => uio::preadv(fd, &mut thirds(buffer.as_mut()).map(IoSliceMut::new), at)?,
            false => uio::pread(fd, buffer.as_mut(), at)?,
        };
        Ok(digest(&buffer.as_mut()[..n]))
    }

    fn write(&self, slot: u8, fill: u32, length: u32) -> Said {
        let fd = self.slot(slot)?;
        if stands_unaligned(fd)? {
            return Ok(UNALIGNED.to_owned());
        }
        let (_, length) = aligned(fd, 0, length)?;
        Ok(unistd::write(fd, Buffer::of(&bytes_of(fill, length)).as_mut())?.to_string())
    }

    fn pwrite(&self, slot: u8, at: u64, (fill, length): (u32, u32), vectored: bool) -> Said {
        let fd = self.slot(slot)?;
        let (at, length) = aligned(fd, at, length)?;
        let mut buffer = Buffer::of(&bytes_of(fill, length));
        let n = match vectored && !flags(fd)?.contains(OFlag::O_DIRECT) {
            true => uio::pwritev(fd, &thirds(buffer.as_mut()).map(|third| IoSlice::new(third)), at)?,
            false => uio::pwrite(fd, buffer.as_mut(), at)?,
        };
        Ok(n.to_string())
    }

    fn seek(&self, slot: u8, whence: Whence, offset: i64) -> Said {
        let fd = self.slot(slot)?;
        // The end of a directory is a number of the filesystem's own.
        if fstat(fd)?.st_mode & libc::S_IFMT == libc::S_IFDIR {
            return done(unistd::lseek(fd, 0, unistd::Whence::SeekSet));
        }
        let whence = match whence {
            Whence::Set => unistd::Whence::SeekSet,
            Whence::Current => unistd::Whence::SeekCur,
            Whence::End => unistd::Whence::SeekEnd,
        };
        Ok(unistd::lseek(fd, offset, whence)?.to_string())
    }

    fn holes(&self, slot: u8) -> Said {
        let fd = self.slot(slot)?;
        if fstat(fd)?.st_mode & libc::S_IFMT != libc::S_IFREG
            || flags(fd)?.intersects(OFlag::O_DIRECT | OFlag::O_WRONLY)
        {
            return Ok("no plain file".to_owned());
        }
        let before = unistd::lseek(fd, 0, unistd::Whence::SeekCur)?;
        let found = by_holes(fd);
        unistd::lseek(fd, before, unistd::Whence::SeekSet)?;
        let (found, all) = (found?, content(fd, 0, size_of(fd)?)?);
        Ok(format!("{} {}", digest(&found), if found == all { "as read" } else { "otherwise than read" }))
    }

    fn fallocate(&self, slot: u8, room: Room, at: u64, length: u64) -> Said {
        let mode = match room {
            Room::Allocate => FallocateFlags::empty(),
            Room::Keep => FallocateFlags::FALLOC_FL_KEEP_SIZE,
            Room::Punch => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            Room::Zero => FallocateFlags::FALLOC_FL_ZERO_RANGE,
            Room::ZeroKeep => FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
        };
        done(fallocate(self.slot(slot)?, mode, offset(at)?, offset(length)?))
    }

    fn copy_range(&self, (from, at): (u8, u64), (to, to_at): (u8, u64), length: u64) -> Said {
        let (from, to, mut at, mut to_at) = (self.slot(from)?, self.slot(to)?, offset(at)?, offset(to_at)?);
        known::ask_how_long_it_is(from)?;
        whole(length as usize, |length| sys::copy_range((from, &mut at), (to, &mut to_at), length))
    }

    fn sendfile(&self, (from, at): (u8, u64), to: u8, length: u64) -> Said {
        let (from, to, mut at) = (self.slot(from)?, self.slot(to)?, offset(at)?);
        known::ask_how_long_it_is(from)?;
        whole(length as usize, |length| sys::sendfile(to, from, &mut at, length))
    }

    fn splice(&self, (from, at): (u8, u64), (to, to_at): (u8, u64), length: usize) -> Said {
        let (from, to, mut at, mut to_at) = (self.slot(from)?, self.slot(to)?, offset(at)?, offset(to_at)?);
        let (out, into) = unistd::pipe()?;
        known::ask_how_long_it_is(from)?;
        whole(length, |length| {
            let taken = sys::splice_out(from, &mut at, into.as_fd(), length.min(PIPE_BYTES))?;
            let mut left = taken;
            while left > 0 {
                left -= sys::splice_in(out.as_fd(), to, &mut to_at, left)?;
            }
            Ok(taken)
        })
    }

    fn put(&self, path: &str, flags: OFlag, fill: u32, length: u32) -> Said {
        let fd = self.open(path, OFlag::O_WRONLY | OFlag::O_CREAT | flags)?;
        let bytes = bytes_of(fill, length as usize);
        whole(bytes.len(), |left| unistd::write(&fd, &bytes[bytes.len() - left..]))
    }

    fn line(&self, path: &str, flags: OFlag, text: &str) -> Said {
        let fd = self.open(path, OFlag::O_WRONLY | flags)?;
        done(unistd::write(&fd, format!("{text}\n").as_bytes()))
    }

    fn lines(&self, path: &str) -> Said {
        let lines = String::from_utf8_lossy(&self.all(path)?).escape_debug().to_string();
        Ok(format!("={}", lines.replace("\\n", ",")))
    }

    fn all(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let fd = self.open(path, OFlag::O_RDONLY)?;
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::from(fd), &mut content).map_err(|e| io(&e))?;
        Ok(content)
    }

    fn cat(&self, path: &str) -> Said {
        Ok(digest(&self.all(path)?))
    }

    fn cat_mapped(&self, path: &str) -> Said {
        let fd = self.open(path, OFlag::O_RDONLY)?;
        let size = size_of(fd.as_fd())?;
        let mapping = Mapping::new(fd.as_fd(), 0, size, libc::PROT_READ, libc::MAP_SHARED)?;
        copied_out(&mapping, 0, size)
    }

    fn mapping(&self, map: u8) -> Result<&Mapped, Errno> {
        self.maps.get(usize::from(map)).and_then(Option::as_ref).ok_or(Errno::EBADF)
    }

    fn map(&mut self, map: u8, slot: u8, (at, length): (u64, u32), sharing: Sharing) -> Said {
        let fd = self.slot(slot)?;
        let writable = flags(fd)? & OFlag::O_ACCMODE == OFlag::O_RDWR || sharing == Sharing::Private;
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let kind = if sharing == Sharing::Shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
        let offset = at - at % ALIGNMENT as u64;
        let mapping = Mapping::new(fd, offset as i64, length as usize, prot, kind)?;
        let file = fd.try_clone_to_owned().map_err(|e| io(&e))?;
        *self.maps.get_mut(usize::from(map)).ok_or(Errno::EBADF)? = Some(Mapped { mapping, offset, file });
        done(Ok(()))
    }

    fn load(&self, map: u8, offset: usize, length: usize) -> Said {
        let mapped = self.mapping(map)?;
        copied_out(&mapped.mapping, offset, mapped.within(offset, length)?)
    }

    fn store(&self, map: u8, offset: usize, bytes: &[u8]) -> Said {
        let mapped = self.mapping(map)?;
        let bytes = &bytes[..mapped.within(offset, bytes.len())?];
        let memory = sys::memfd()?;
        unistd::write(&memory, bytes)?;
        Ok(mapped.mapping.read_from(memory.as_fd(), offset, bytes.len())?.to_string())
    }
}

impl Mapped {
    /// How much of a range lies within the file: what a mapping has behind its end is nobody's.
    fn within(&self, offset: usize, length: usize) -> Result<usize, Errno> {
        let size = (size_of(self.file.as_fd())? as u64).saturating_sub(self.offset) as usize;
        Ok(length.min(size.min(self.mapping.length()).saturating_sub(offset)))
    }
}

fn copied_out(mapping: &Mapping, offset: usize, length: usize) -> Said {
    let memory = sys::memfd()?;
    let n = if length == 0 { 0 } else { mapping.write_to(memory.as_fd(), offset, length)? };
    Ok(digest(&content(memory.as_fd(), 0, n)?))
}
