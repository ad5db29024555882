//! The children started since a checkpoint are ended.
//!
//! Whose parent has ended is nobody's child that is known here. But the processes of a job are alone in a mount namespace
//! with their view, so that these are found there.

use super::{Failure, What};
use crate::arena::{Arena, Level};
use crate::kept::About;
use crate::limits::CHILD_ROUNDS_MAX;
use crate::sys::{self, Errno};
use mojavefs_procfs::process::{Birth, ProcPath, each_child, each_listed, each_process};

/// Ends every child that was not there at the entry of the level, with all its descendants, and reaps it.
pub(super) fn end_new(arena: &mut Arena) -> Result<(), Failure> {
    let mut had_children = has_had_children(arena);
    let own_list = arena.kept(About::Children).what("the list of its children")?;
    for _ in 0..CHILD_ROUNDS_MAX {
        let count = collect(arena, own_list, &mut had_children).what("the list of its children")?;
        if count == 0 {
            return Ok(());
        }
        // Stopped first, so that none starts another while the list grows old.
        for pid in &arena.scratch.numbers[..count] {
            let _ = sys::kill(*pid, libc::SIGSTOP);
        }
        if collect(arena, own_list, &mut had_children).what("the list of its children")? != count {
            continue;
        }
        for pid in &arena.scratch.numbers[..count] {
            let _ = sys::kill(*pid, libc::SIGKILL);
        }
        for at in 0..count {
            let pid = arena.scratch.numbers[at];
            // Grandchildren are others' to reap; but none does anything any more.
            sys::await_end(pid);
            if let Ok(Some(faults)) = sys::reap(pid, 0) {
                arena.note_reaped(faults);
            }
        }
    }
    Err(Errno(libc::EAGAIN)).what("its children: they start others faster than they can be ended")
}

/// Whether the program may have started children since the entry that are gone by now. What starts them without a word to
/// the library (`posix_spawn`, `system`) shows in what was counted for them when they were waited for.
fn has_had_children(arena: &Arena) -> bool {
    let level = &arena.levels[arena.jump.level];
    level.forked
        || level.faults_before != arena.faults_of_children()
        || sys::action(libc::SIGCHLD).is_some_and(|action| action.forgets_children())
}

/// Lists the new children, all below them and, if there have been any, those whose parents are gone; returns how many.
fn collect(arena: &mut Arena, own_list: i32, had_children: &mut bool) -> sys::Result<usize> {
    let in_a_view = arena.view_device.is_some();
    let Arena { scratch, levels, owner, depth, dying, dying_count, jump, .. } = arena;
    let super::Scratch { text_a, numbers, .. } = scratch;
    let Level { record, checkpoint, .. } = &levels[jump.level];
    let (depth, dying) = (*depth, &dying[..*dying_count]);
    let is_checkpoint = |pid: i32| {
        (0..depth).any(|level| levels[level].checkpoint == pid) || dying.iter().any(|dying| dying.pid == pid)
    };
    let mut count = 0;
    let mut add = |pid: i32| {
        if let Some(place) = numbers.get_mut(count) {
            *place = pid;
            count += 1;
        }
    };
    each_listed(sys::read_whole(own_list, text_a)?, |child| {
        if !record.children().contains(&child) && !is_checkpoint(child) {
            *had_children = true;
            add(child);
        }
    });
    if *had_children && in_a_view {
        each_orphan(*owner, *checkpoint, text_a, add)?;
    }
    let mut at = 0;
    while at < count {
        let parent = numbers[at];
        // One that is gone has no children any more.
        let _ = each_child(parent, text_a, |child| {
            if let Some(place) = numbers.get_mut(count) {
                *place = child;
                count += 1;
            }
        });
        at += 1;
    }
    Ok(count)
}

/// The processes of this one's view that began after the checkpoint and whose parent is not of the view. That of an earlier
/// child's is: what such a child starts is not undone.
fn each_orphan(owner: i32, checkpoint: i32, buffer: &mut [u8], mut each: impl FnMut(i32)) -> sys::Result<()> {
    // Of one that has ended there is none; of another user's it is not said.
    let namespace = |pid: i32| sys::identity(ProcPath::of(pid).then(b"/ns/mnt").as_bytes()).ok();
    let (own, entry) = (namespace(0), Birth::of(checkpoint).ok_or(Errno(libc::ESRCH))?);
    let is_orphan = |birth: Birth| birth.is_after(&entry) && namespace(birth.parent) != own;
    each_process(buffer, |pid| {
        if pid != owner && own.is_some() && namespace(pid) == own && Birth::of(pid).is_some_and(is_orphan) {
            each(pid);
        }
    })
}
