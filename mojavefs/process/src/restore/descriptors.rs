//! Descriptors, what they point at, their offsets and locks.

use super::{Failure, What};
use crate::arena::Arena;
use crate::record::{Descriptor, Lock, LockKind, Record, each_lock, list_descriptors};
use crate::sys;

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
    let before = || record.locks().iter().filter(|lock| lock.fd == fd);
    let (mut kept, mut others) = (0, [None; 3]);
    each_lock(fd, text, |lock, _| match before().any(|known| *known == lock) {
        true => kept += 1,
        false => others[lock.kind as usize] = Some(lock.kind),
    });
    others.into_iter().flatten().try_for_each(|kind| unlock(fd, kind))?;
    if others.iter().all(Option::is_none) && kept == before().count() {
        return Ok(());
    }
    before().try_for_each(lock)
}

fn range(kind: i32, start: i64, len: i64) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: start, l_len: len, l_pid: 0 }
}

fn set_lock(fd: i32, kind: LockKind, lock: &libc::flock) -> sys::Result<()> {
    let command = if kind == LockKind::Posix { libc::F_SETLK } else { libc::F_OFD_SETLK };
    sys::given(libc::SYS_fcntl, &[fd as usize, command as usize], 2, lock).map(drop)
}

fn unlock(fd: i32, kind: LockKind) -> sys::Result<()> {
    match kind {
        LockKind::Flock => sys::plain(libc::SYS_flock, &[fd as usize, libc::LOCK_UN as usize]).map(drop),
        kind => set_lock(fd, kind, &range(libc::F_UNLCK, 0, 0)),
    }
}

/// Takes a lock again that was held; that somebody else has it by now is an error.
fn lock(held: &Lock) -> sys::Result<()> {
    match held.kind {
        LockKind::Flock => {
            let how = if held.write { libc::LOCK_EX } else { libc::LOCK_SH } | libc::LOCK_NB;
            sys::plain(libc::SYS_flock, &[held.fd as usize, how as usize]).map(drop)
        }
        kind => {
            let how = if held.write { libc::F_WRLCK } else { libc::F_RDLCK };
            let len = if held.last == i64::MAX { 0 } else { held.last - held.start + 1 };
            set_lock(held.fd, kind, &range(how, held.start, len))
        }
    }
}
