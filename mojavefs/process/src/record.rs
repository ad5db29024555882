//! What `fork` does not keep and an abort puts back, noted at the entry of a speculation; and what can't be put back, which
//! is refused there.

use crate::arena::{Advice, Arena};
use crate::files::UNWRITTEN;
use crate::kept::About;
use crate::limits::{CHILDREN_MAX, DESCRIPTORS_MAX, LOCKS_MAX, NAME_BYTES, PENDING_MAX, STATUS_BYTES};
use crate::pending::{self, Signal};
use crate::places::Places;
use crate::restore::Scratch;
use crate::sys::{self, Action, Errno, Mask, SIGNALS};
use mojavefs_procfs::locks::{Lock, Shown, each_lock};
use mojavefs_procfs::process::{ProcPath, each_child, each_number, leading};

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

/// What signals do, as far as it is not what they do by default.
#[repr(C)]
pub(crate) struct Actions {
    pub(crate) noted: Mask,
    actions: [Action; SIGNALS],
}

impl Actions {
    fn take(&mut self, noted: Mask) {
        self.noted = noted;
        for signal in sys::signals(noted) {
            self.actions[signal as usize] = sys::action(signal).unwrap_or_default();
        }
    }

    pub(crate) fn of(&self, signal: i32) -> Action {
        match self.noted & sys::bit(signal) {
            0 => Action::default(),
            _ => self.actions[signal as usize],
        }
    }
}

/// The signals that the process handles or ignores, and that of its children: what comes with its default matters, too.
pub(crate) fn acted_upon(arena: &mut Arena) -> Mask {
    let listed = arena.kept(About::Status).and_then(|status| {
        let text = &mut arena.scratch.text_a[..STATUS_BYTES];
        let count = sys::read_at(status, 0, text)?;
        let mask = |name: &[u8]| {
            let at = text[..count].windows(name.len()).position(|part| part == name).ok_or(Errno(libc::EPROTO))?;
            Ok(leading(&text[at + name.len()..count], 16).0)
        };
        Ok(mask(b"\nSigIgn:\t")? | mask(b"\nSigCgt:\t")?)
    });
    // Where that is not said all are looked at.
    listed.unwrap_or(!0) | sys::bit(libc::SIGCHLD)
}

/// How a process stands among others, other than by its limits.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) session: i32,
    pub(crate) group: i32,
    /// As the kernel gives it: 20 less the value, so that none is negative.
    pub(crate) priority: i32,
    pub(crate) name: [u8; NAME_BYTES],
}

impl Standing {
    pub(crate) fn now() -> Self {
        let of = |number, args: &[usize]| sys::plain(number, args).map_or(0, |value| value as i32);
        let name = sys::filled(libc::SYS_prctl, &[libc::PR_GET_NAME as usize], 1, [0u8; NAME_BYTES]);
        Standing {
            session: of(libc::SYS_getsid, &[0]),
            group: of(libc::SYS_getpgid, &[0]),
            priority: of(libc::SYS_getpriority, &[libc::PRIO_PROCESS as usize, 0]),
            name: name.unwrap_or_default(),
        }
    }
}

/// The state of a process at an entry.
#[repr(C)]
pub(crate) struct Record {
    pub(crate) mask: Mask,
    pub(crate) pending: [Signal; PENDING_MAX],
    pub(crate) pending_count: usize,
    pub(crate) brk: usize,
    pub(crate) umask: u32,
    /// Device and inode of the working directory.
    pub(crate) directory: (u32, u32, u64),
    pub(crate) places: Places,
    pub(crate) standing: Standing,
    pub(crate) actions: Actions,
    pub(crate) timers: [libc::itimerval; 3],
    pub(crate) signal_stack: libc::stack_t,
    pub(crate) ids: Ids,
    descriptors: [Descriptor; DESCRIPTORS_MAX],
    descriptors_count: usize,
    /// Each with its descriptor.
    locks: [(i32, Lock); LOCKS_MAX],
    locks_count: usize,
    children: [i32; CHILDREN_MAX],
    children_count: usize,
}

/// Real, effective and saved user and group ids.
pub(crate) type Ids = [[u32; 3]; 2];

pub(crate) fn ids() -> Ids {
    let three = |number| {
        let mut ids = [0u32; 3];
        let at = ids.as_mut_ptr() as usize;
        let _ = sys::plain(number, &[at, at + 4, at + 8]);
        ids
    };
    [three(libc::SYS_getresuid), three(libc::SYS_getresgid)]
}

impl Record {
    /// Signals that were on their way.
    pub(crate) fn pending(&self) -> &[Signal] {
        &self.pending[..self.pending_count]
    }

    pub(crate) fn descriptors(&self) -> &[Descriptor] {
        &self.descriptors[..self.descriptors_count]
    }

    pub(crate) fn locks(&self) -> &[(i32, Lock)] {
        &self.locks[..self.locks_count]
    }

    pub(crate) fn children(&self) -> &[i32] {
        &self.children[..self.children_count]
    }

    fn take_kernel_state(&mut self, acted_upon: Mask) {
        self.actions.take(acted_upon);
        self.standing = Standing::now();
        self.directory = sys::identity(b"\0").unwrap_or_default();
        self.brk = sys::brk(0);
        self.umask = sys::plain(libc::SYS_umask, &[0o077]).unwrap_or(0o022) as u32;
        let _ = sys::plain(libc::SYS_umask, &[self.umask as usize]);
        self.timers = timers();
        self.signal_stack = sys::filled(libc::SYS_sigaltstack, &[0], 1, sys::zeroed()).unwrap_or(self.signal_stack);
    }
}

/// What is left of each of the process's timers.
pub(crate) fn timers() -> [libc::itimerval; 3] {
    [0, 1, 2].map(|which| sys::filled(libc::SYS_getitimer, &[which], 1, sys::zeroed()).unwrap_or(sys::zeroed()))
}

/// Refuses what can't be undone, other than of children and descriptors: it is an error, and said. Mapped files are written
/// out.
pub(crate) fn begin(arena: &mut Arena) -> sys::Result<()> {
    let (level, ids) = (arena.depth, arena.look_at_kept());
    arena.levels[level].record.ids = ids;
    refuse_hidden(arena)?;
    refuse_timers(arena)?;
    refuse_memory(arena)
}

/// Notes everything in the record of the level that is about to be entered.
pub(crate) fn take(arena: &mut Arena) -> sys::Result<()> {
    let (level, acted_upon) = (arena.depth, acted_upon(arena));
    arena.levels[level].record.take_kernel_state(acted_upon);
    if !pending::note(arena, level)? {
        let words = format_args!("more than {PENDING_MAX} signals are on their way; take them first");
        return Err(refuse(arena, words));
    }
    take_children(arena)?;
    take_descriptors(arena)
}

/// The process gets a view of its own, in which its files on the filesystem are opened again: its locks would be lost.
pub(crate) fn refuse_locks(arena: &mut Arena) -> sys::Result<()> {
    let (own, mut locked) = (arena.owner, None);
    for fd in crate::files::on_the_filesystem() {
        // Those that others have taken by what they have passed on stay theirs.
        let note = |shown: Shown<'_>| {
            if shown.taken_by == own || shown.taken_by == -1 {
                locked = Some(fd);
            }
        };
        let path = ProcPath::of(0).then(b"/fdinfo/").number(fd);
        each_lock(sys::read_once(path.as_bytes(), &mut arena.scratch.text_a)?, note);
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

/// Nobody but root sees the memory of a process that has asked for that, nor of its checkpoints.
fn refuse_hidden(arena: &mut Arena) -> sys::Result<()> {
    let is_seen = sys::plain(libc::SYS_prctl, &[libc::PR_GET_DUMPABLE as usize]) == Ok(1);
    match is_seen || arena.levels[arena.depth].record.ids[0][1] == 0 {
        true => Ok(()),
        false => {
            let words = "nobody may look into this process since it has changed its user, or asked for that (PR_SET_DUMPABLE): \
                         its checkpoint could not be read";
            Err(refuse(arena, format_args!("{words}")))
        }
    }
}

fn refuse_timers(arena: &mut Arena) -> sys::Result<()> {
    let mut first = [0u8; 64];
    // Without that file (a kernel without checkpoint support) there is no telling.
    let Ok(timers) = arena.kept(About::Timers) else { return Ok(()) };
    match sys::read_at(timers, 0, &mut first) {
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
    let shared = arena.look_at_shared()?;
    if shared.unwritten {
        arena.say(format_args!("{UNWRITTEN}"));
        return Err(Errno(libc::EIO));
    }
    match shared.foreign {
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
    take_working_directory(arena);
    let listed = list_descriptors(arena)?;
    let count = arena.scratch.numbers.iter().take(listed).filter(|fd| !arena.is_own(**fd)).count();
    if count > DESCRIPTORS_MAX || listed > arena.scratch.numbers.len() {
        return Err(refuse(arena, format_args!("{count} descriptors are open; {DESCRIPTORS_MAX} can be put back")));
    }
    for at in 0..listed {
        let fd = arena.scratch.numbers[at];
        if !arena.is_own(fd) {
            take_descriptor(arena, fd)?;
        }
    }
    Ok(())
}

/// Where it is, if it is in the process's view.
fn take_working_directory(arena: &mut Arena) {
    let record = &mut arena.levels[arena.depth].record;
    record.places.clear();
    let (major, minor, _) = record.directory;
    if arena.view_device == Some((major, minor)) {
        record.places.note_working_directory();
    }
}

/// Lists what is open, the library's included, in the numbers of the scratch room. Returns how many there are.
pub(crate) fn list_descriptors(arena: &mut Arena) -> sys::Result<usize> {
    let (dir, mut count) = (arena.kept(About::Descriptors)?, 0);
    let Scratch { text_a, numbers, .. } = &mut arena.scratch;
    each_number(dir, text_a, |fd| {
        if let Some(place) = numbers.get_mut(count) {
            *place = fd;
        }
        count += 1;
    })?;
    Ok(count)
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
    let Arena { levels, scratch, depth, kept, own_from, view_device, .. } = arena;
    let record = &mut levels[*depth].record;
    if kind == libc::S_IFDIR && view_device.is_some() && sys::device(fd)? == *view_device {
        record.places.note(fd);
    }
    record.descriptors[record.descriptors_count] = descriptor;
    record.descriptors_count += 1;
    if !descriptor.lockable {
        return Ok(());
    }
    let mut more = false;
    each_lock(kept.info(fd, *own_from, &mut scratch.text_a)?, |shown| match (shown.lock, record.locks_count) {
        (None, _) => {}
        (Some(_), LOCKS_MAX) => more = true,
        (Some(lock), count) => {
            record.locks[count] = (fd, lock);
            record.locks_count += 1;
        }
    });
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
