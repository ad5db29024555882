//! Descriptors, what they point at, their offsets and locks.

use super::{Failure, What};
use crate::arena::Arena;
use crate::record::{Descriptor, Record, list_descriptors};
use crate::sys;
use mojavefs_procfs::locks::{Lock, LockKind, each_lock, everything};

const WHAT: &str = "a descriptor";

/// Puts all descriptors back, from the checkpoint, which still has them.
pub(super) fn put_back(arena: &mut Arena) -> Result<(), Failure> {
    close_new(arena)?;
    for descriptor in arena.levels[arena.jump.level].record.descriptors() {
        put_descriptor_back(arena, descriptor).what(WHAT)?;
    }
    let Arena { levels, scratch, jump, kept, own_from, .. } = arena;
    let level = &levels[jump.level];
    for descriptor in level.record.descriptors().iter().filter(|descriptor| descriptor.lockable) {
        let text = kept.info(descriptor.fd, *own_from, &mut scratch.text_a).what(WHAT)?;
        put_locks_back(descriptor.fd, &level.record, text).what("a file lock")?;
    }
    Ok(())
}

fn close_new(arena: &mut Arena) -> Result<(), Failure> {
    let count = list_descriptors(arena).what(WHAT)?;
    let record = &arena.levels[arena.jump.level].record;
    for fd in arena.scratch.numbers.iter().take(count) {
        if !arena.is_own(*fd) && !record.descriptors().iter().any(|before| before.fd == *fd) {
            sys::close(*fd);
        }
    }
    Ok(())
}

/// `KCMP_FILE`
const SAME_FILE: usize = 0;

fn put_descriptor_back(arena: &Arena, before: &Descriptor) -> sys::Result<()> {
    let fd = before.fd as usize;
    let (own, its) = (arena.owner, arena.levels[arena.jump.level].checkpoint);
    let same = sys::plain(libc::SYS_kcmp, &[own as usize, its as usize, SAME_FILE, fd, fd]) == Ok(0);
    if !same {
        let got = from_checkpoint(arena, its, before.fd)?;
        let close_on_exec = if before.fd_flags & libc::FD_CLOEXEC != 0 { libc::O_CLOEXEC } else { 0 };
        let placed = sys::plain(libc::SYS_dup3, &[got as usize, fd, close_on_exec as usize]);
        sys::close(got);
        placed?;
    }
    if sys::fcntl(before.fd, libc::F_GETFD, 0)? != before.fd_flags {
        sys::fcntl(before.fd, libc::F_SETFD, before.fd_flags as usize)?;
    }
    if sys::fcntl(before.fd, libc::F_GETFL, 0)? != before.status_flags {
        sys::fcntl(before.fd, libc::F_SETFL, before.status_flags as usize)?;
    }
    if before.offset >= 0 && sys::seek(before.fd, 0, libc::SEEK_CUR)? != before.offset {
        sys::seek(before.fd, before.offset, libc::SEEK_SET)?;
    }
    Ok(())
}

/// A descriptor of the checkpoint's, out of the program's way.
fn from_checkpoint(arena: &Arena, checkpoint: i32, fd: i32) -> sys::Result<i32> {
    let process = sys::plain(libc::SYS_pidfd_open, &[checkpoint as usize, 0])?;
    let process = arena.out_of_the_way(process as i32)?;
    let got = sys::plain(libc::SYS_pidfd_getfd, &[process as usize, fd as usize, 0]);
    sys::close(process);
    arena.out_of_the_way(got? as i32)
}

fn put_locks_back(fd: i32, record: &Record, text: &[u8]) -> sys::Result<()> {
    let before = || record.locks().iter().filter(|(of, _)| *of == fd).map(|(_, lock)| lock);
    let (mut kept, mut others) = (0, [None; 3]);
    each_lock(text, |shown| match shown.lock {
        Some(lock) if before().any(|known| *known == lock) => kept += 1,
        Some(lock) => others[lock.kind as usize] = Some(lock.kind),
        None => {}
    });
    others.into_iter().flatten().try_for_each(|kind| unlock(fd, kind))?;
    if others.iter().all(Option::is_none) && kept == before().count() {
        return Ok(());
    }
    before().try_for_each(|held| lock(fd, held))
}

fn set_lock(fd: i32, kind: LockKind, lock: &libc::flock) -> sys::Result<()> {
    let command = if kind == LockKind::Posix { libc::F_SETLK } else { libc::F_OFD_SETLK };
    sys::given(libc::SYS_fcntl, &[fd as usize, command as usize], 2, lock).map(drop)
}

fn unlock(fd: i32, kind: LockKind) -> sys::Result<()> {
    match kind {
        LockKind::Flock => sys::plain(libc::SYS_flock, &[fd as usize, libc::LOCK_UN as usize]).map(drop),
        kind => set_lock(fd, kind, &everything()),
    }
}

/// Takes a lock again that was held; that somebody else has it by now is an error.
fn lock(fd: i32, held: &Lock) -> sys::Result<()> {
    match held.kind {
        LockKind::Flock => sys::plain(libc::SYS_flock, &[fd as usize, held.how() as usize]).map(drop),
        kind => set_lock(fd, kind, &held.range()),
    }
}
