//! The children started since a checkpoint are ended.

use super::{Failure, What};
use crate::arena::Arena;
use crate::limits::CHILD_ROUNDS_MAX;
use crate::proc::each_child;
use crate::sys::{self, Errno};

/// Ends every child that was not there at the entry of the level, with all its descendants, and reaps it.
pub(super) fn end_new(arena: &mut Arena) -> Result<(), Failure> {
    let target = arena.jump.level;
    for _ in 0..CHILD_ROUNDS_MAX {
        let count = collect(arena, target).what("the list of its children")?;
        if count == 0 {
            return Ok(());
        }
        // Stopped first, so that none starts another while the list grows old.
        for pid in &arena.scratch.numbers[..count] {
            let _ = sys::kill(*pid, libc::SIGSTOP);
        }
        if collect(arena, target).what("the list of its children")? != count {
            continue;
        }
        let found = &arena.scratch.numbers[..count];
        for pid in found {
            let _ = sys::kill(*pid, libc::SIGKILL);
        }
        for pid in found {
            // Grandchildren are others' to reap; but none does anything any more.
            sys::await_end(*pid);
            let _ = sys::reap(*pid, 0);
        }
    }
    Err(Errno(libc::EAGAIN)).what("its children: they start others faster than they can be ended")
}

/// Lists the new children and all below them; returns how many.
fn collect(arena: &mut Arena, target: usize) -> sys::Result<usize> {
    let Arena { scratch, levels, owner, depth, dying, dying_count, .. } = arena;
    let super::Scratch { text_a, numbers, .. } = scratch;
    let record = &levels[target].record;
    let (open, dying) = (&levels[..*depth], &dying[..*dying_count]);
    let is_checkpoint =
        |pid: i32| open.iter().any(|level| level.checkpoint == pid) || dying.iter().any(|dying| dying.pid == pid);
    let mut count = 0;
    let mut add = |pid: i32| {
        if let Some(place) = numbers.get_mut(count) {
            *place = pid;
            count += 1;
        }
    };
    each_child(*owner, text_a, |child| {
        if !record.children().contains(&child) && !is_checkpoint(child) {
            add(child);
        }
    })?;
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
