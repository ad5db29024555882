//! What `fork` does not keep and an abort puts back, noted at the entry of a speculation; and what can't be put back, which
//! is refused there.

use crate::arena::{Advice, Arena};
use crate::limits::{CHILDREN_MAX, DESCRIPTORS_MAX, LOCKS_MAX};
use crate::proc::{ProcPath, each_child, each_number, leading};
use crate::sys::{self, Errno, Mask};

/// One descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptor {
    pub(crate) fd: i32,
    pub(crate) fd_flags: i32,
    pub(crate) status_flags: i32,
    /// -1: it has none.
    pub(crate) offset: i64,
    /// Locks can be taken by it.
    pub(crate) lockable: bool,
}

/// One lock of a descriptor's.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lock {
    pub(crate) fd: i32,
    pub(crate) kind: LockKind,
    pub(crate) write: bool,
    pub(crate) start: i64,
    /// The last byte; `i64::MAX` for the end of the file, wherever that is.
    pub(crate) last: i64,
}

/// Who holds a lock.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// The descriptor (`flock`).
    Flock,
    /// The process (`fcntl`).
    Posix,
    /// The descriptor, a range (`F_OFD_SETLK`).
    Described,
}

/// The state of a process at an entry.
#[repr(C)]
pub(crate) struct Record {
    pub(crate) mask: Mask,
    /// Signals that were on their way.
    pub(crate) pending: Mask,
    pub(crate) brk: usize,
    pub(crate) umask: u32,
    pub(crate) timers: [libc::itimerval; 3],
    pub(crate) signal_stack: libc::stack_t,
    /// User and group ids: real, effective, saved.
    pub(crate) ids: [[u32; 3]; 2],
    descriptors: [Descriptor; DESCRIPTORS_MAX],
    descriptors_count: usize,
    locks: [Lock; LOCKS_MAX],
    locks_count: usize,
    children: [i32; CHILDREN_MAX],
    children_count: usize,
}

/// Real, effective and saved user and group ids.
pub(crate) fn ids() -> [[u32; 3]; 2] {
    let three = |number| {
        let mut ids = [0u32; 3];
        let at = ids.as_mut_ptr() as usize;
        let _ = sys::plain(number, &[at, at + 4, at + 8]);
        ids
    };
    [three(libc::SYS_getresuid), three(libc::SYS_getresgid)]
}

impl Record {
    pub(crate) fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors[..self.descriptors_count]
    }

    pub(crate) fn locks(&self) -> &[Lock] {
        &self.locks[..self.locks_count]
    }

    pub(crate) fn children(&self) -> &[i32] {
        &self.children[..self.children_count]
    }

    fn take_kernel_state(&mut self) {
        self.brk = sys::brk(0);
        self.umask = sys::plain(libc::SYS_umask, &[0o077]).unwrap_or(0o022) as u32;
        let _ = sys::plain(libc::SYS_umask, &[self.umask as usize]);
        for (which, timer) in self.timers.iter_mut().enumerate() {
            *timer = sys::filled(libc::SYS_getitimer, &[which], 1, *timer).unwrap_or(*timer);
        }
        self.signal_stack = sys::filled(libc::SYS_sigaltstack, &[0], 1, sys::zeroed()).unwrap_or(self.signal_stack);
        self.ids = ids();
        self.pending = sys::pending();
    }
}

/// The locks that a descriptor's entry in `/proc` shows, each with the process that took it (-1 if that is not said).
pub(crate) fn each_lock(fd: i32, buffer: &mut [u8], mut each: impl FnMut(Lock, i32)) -> sys::Result<()> {
    let path = ProcPath::of(0).then(b"/fdinfo/").number(fd);
    let text = sys::read_once(path.as_bytes(), buffer)?;
    for line in text.split(|byte| *byte == b'\n') {
        let Some(line) = line.strip_prefix(b"lock:\t") else { continue };
        // `1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`
        let mut words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(1);
        let kind = match words.next() {
            Some(b"FLOCK") => LockKind::Flock,
            Some(b"POSIX") => LockKind::Posix,
            Some(b"OFDLCK") => LockKind::Described,
            _ => continue,
        };
        let write = words.nth(1) == Some(b"WRITE");
        let taken_by = match words.next() {
            Some(pid) if pid.first().is_some_and(u8::is_ascii_digit) => leading(pid, 10).0 as i32,
            _ => -1,
        };
        let mut range = words.skip(1);
        let start = leading(range.next().unwrap_or(b"0"), 10).0 as i64;
        let last = match range.next() {
            None | Some(b"EOF") => i64::MAX,
            Some(last) => leading(last, 10).0 as i64,
        };
        each(Lock { fd, kind, write, start, last }, taken_by);
    }
    Ok(())
}

/// Notes everything in the record of the level that is about to be entered. What can't be undone is an error, and said.
pub(crate) fn take(arena: &mut Arena) -> sys::Result<()> {
    refuse_timers(arena)?;
    refuse_memory(arena)?;
    let level = arena.depth;
    arena.levels[level].record.take_kernel_state();
    take_children(arena)?;
    take_descriptors(arena)
}

/// The process gets a view of its own, in which its files on the filesystem are opened again: its locks would be lost.
pub(crate) fn refuse_locks(arena: &mut Arena) -> sys::Result<()> {
    let (own, mut locked) = (arena.owner, None);
    for fd in crate::files::on_the_filesystem() {
        // Those that others have taken by what they have passed on stay theirs.
        let note = |_, taken_by| {
            if taken_by == own || taken_by == -1 {
                locked = Some(fd);
            }
        };
        each_lock(fd, &mut arena.scratch.text_a, note)?;
    }
    match locked {
        Some(fd) => Err(refuse(
            arena,
            format_args!(
                "a file of descriptor {fd} is locked, which the first speculation would undo; lock it afterwards"
            ),
        )),
        None => Ok(()),
    }
}

fn refuse(arena: &mut Arena, why: core::fmt::Arguments<'_>) -> Errno {
    arena.say(why);
    Errno(libc::ENOTSUP)
}

/// Only a process with one thread can speculate.
pub(crate) fn refuse_threads(arena: &mut Arena) -> sys::Result<()> {
    if sys::is_alone() {
        return Ok(());
    }
    // A directory's links are its subdirectories and two: `.` and its name.
    let threads = sys::stat(b"/proc/self/task\0")?.st_nlink.saturating_sub(2);
    if threads > 1 {
        let words = format_args!("{threads} threads run in this process; only a process with one thread can speculate");
        return Err(refuse(arena, words));
    }
    Ok(())
}

fn refuse_timers(arena: &mut Arena) -> sys::Result<()> {
    let mut first = [0u8; 64];
    // Without that file (a kernel without checkpoint support) there is no telling.
    let Ok(fd) = sys::open(b"/proc/self/timers\0", libc::O_RDONLY) else { return Ok(()) };
    let got = sys::read(fd, &mut first);
    sys::close(fd);
    match got {
        Ok(0) | Err(_) => Ok(()),
        Ok(_) => Err(refuse(arena, format_args!("a POSIX timer (timer_create) can't be put back; delete it first"))),
    }
}

/// What a checkpoint would not hold, or not alone.
fn refuse_memory(arena: &mut Arena) -> sys::Result<()> {
    if crate::maps::advice_given() || arena.advice == Advice::Unknown {
        if let Some((start, what)) = crate::maps::kept_from_children(arena)? {
            let words = format_args!("the memory at {start:#x} is {what}: its checkpoint would not hold it");
            return Err(refuse(arena, words));
        }
        arena.advice = Advice::None;
        crate::maps::advice_seen();
    }
    match arena.look_at_shared()?.foreign {
        Some(start) => {
            let hint = match arena.view_device {
                Some(_) => " (files of the filesystem can be mapped so after the first speculation)",
                None => "",
            };
            let words = format_args!(
                "memory or a file is mapped shared and writable (MAP_SHARED) at {start:#x}: what is written there can't be undone{hint}"
            );
            Err(refuse(arena, words))
        }
        None => Ok(()),
    }
}

fn take_children(arena: &mut Arena) -> sys::Result<()> {
    let Arena { levels, scratch, depth, owner, .. } = arena;
    let record = &mut levels[*depth].record;
    record.children_count = 0;
    if !sys::has_children() {
        return Ok(());
    }
    let mut more = false;
    let listed = each_child(*owner, &mut scratch.text_a, |child| match record.children_count {
        CHILDREN_MAX => more = true,
        count => {
            record.children[count] = child;
            record.children_count += 1;
        }
    });
    listed?;
    match more {
        true => Err(refuse(arena, format_args!("this process has more than {CHILDREN_MAX} children"))),
        false => Ok(()),
    }
}

fn take_descriptors(arena: &mut Arena) -> sys::Result<()> {
    let level = arena.depth;
    arena.levels[level].record.descriptors_count = 0;
    arena.levels[level].record.locks_count = 0;
    let mut count = 0;
    let (mut found, scratch) = ([0i32; DESCRIPTORS_MAX], &mut arena.scratch);
    each_number(&ProcPath::of(0).then(b"/fd"), &mut scratch.text_a, |fd| {
        if let Some(place) = found.get_mut(count) {
            *place = fd;
        }
        count += 1;
    })?;
    if count > DESCRIPTORS_MAX {
        return Err(refuse(arena, format_args!("{count} descriptors are open; {DESCRIPTORS_MAX} can be put back")));
    }
    for fd in found[..count].iter().copied() {
        if !arena.is_own(fd) {
            take_descriptor(arena, fd)?;
        }
    }
    Ok(())
}

fn take_descriptor(arena: &mut Arena, fd: i32) -> sys::Result<()> {
    let kind = sys::kind(fd)?;
    match kind {
        libc::S_IFSOCK => refuse_connected(arena, fd)?,
        0 => refuse_object(arena, fd)?,
        _ => {}
    }
    let status_flags = sys::fcntl(fd, libc::F_GETFL, 0)?;
    let seekable = matches!(kind, libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK) && status_flags & libc::O_PATH == 0;
    let descriptor = Descriptor {
        fd,
        fd_flags: sys::fcntl(fd, libc::F_GETFD, 0)?,
        status_flags,
        offset: if seekable { sys::seek(fd, 0, libc::SEEK_CUR).unwrap_or(-1) } else { -1 },
        lockable: kind == libc::S_IFREG && status_flags & libc::O_PATH == 0,
    };
    let Arena { levels, scratch, depth, .. } = arena;
    let record = &mut levels[*depth].record;
    record.descriptors[record.descriptors_count] = descriptor;
    record.descriptors_count += 1;
    if !descriptor.lockable {
        return Ok(());
    }
    let mut more = false;
    each_lock(fd, &mut scratch.text_a, |lock, _| match record.locks_count {
        LOCKS_MAX => more = true,
        count => {
            record.locks[count] = lock;
            record.locks_count += 1;
        }
    })?;
    match more {
        true => Err(refuse(arena, format_args!("more than {LOCKS_MAX} file locks are held"))),
        false => Ok(()),
    }
}

/// A listening or a datagram socket has nothing that an abort would have to take back; a connection has a peer that
/// remembers. Standard input and output may be local connections, as they may be pipes.
fn refuse_connected(arena: &mut Arena, fd: i32) -> sys::Result<()> {
    let option = |name: i32| {
        let mut length = size_of::<i32>() as u32;
        let length_at = &raw mut length as usize;
        let args = [fd as usize, libc::SOL_SOCKET as usize, name as usize, 0, length_at];
        sys::filled(libc::SYS_getsockopt, &args, 3, 0i32)
    };
    let (domain, kind) = (option(libc::SO_DOMAIN)?, option(libc::SO_TYPE)?);
    if kind == libc::SOCK_DGRAM || (domain == libc::AF_UNIX && fd <= 2) {
        return Ok(());
    }
    let mut length = size_of::<libc::sockaddr_storage>() as u32;
    let length_at = &raw mut length as usize;
    let peer =
        sys::filled::<libc::sockaddr_storage>(libc::SYS_getpeername, &[fd as usize, 0, length_at], 1, sys::zeroed());
    if peer.is_err() {
        return Ok(());
    }
    let what = match domain {
        libc::AF_INET | libc::AF_INET6 => "a connected TCP socket",
        libc::AF_UNIX => "a connected Unix socket",
        _ => "a connected socket",
    };
    Err(refuse(arena, format_args!("descriptor {fd} is {what}: what was said there can't be undone; close it first")))
}

/// Objects of the kernel's that have neither a file nor an offset: their state is shared with the checkpoint.
fn refuse_object(arena: &mut Arena, fd: i32) -> sys::Result<()> {
    let path = ProcPath::of(0).then(b"/fd/").number(fd);
    let mut name = [0u8; 64];
    let at = name.as_mut_ptr() as usize;
    let args = [libc::AT_FDCWD as isize as usize, path.as_bytes().as_ptr() as usize, at, name.len()];
    let length = sys::plain(libc::SYS_readlinkat, &args)?;
    let name = &name[..length];
    if name == b"anon_inode:[pidfd]" {
        return Ok(());
    }
    let shown = name.strip_prefix(b"anon_inode:").unwrap_or(name);
    let shown = core::str::from_utf8(shown).unwrap_or("object").trim_matches(['[', ']']);
    Err(refuse(
        arena,
        format_args!("descriptor {fd} is of kind {shown}, whose state can't be put back; close it first"),
    ))
}
