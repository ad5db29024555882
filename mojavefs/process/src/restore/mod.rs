//! Abort in place: the process puts itself back as its checkpoint still is, and keeps its pid by never losing it.
//!
//! Everything here runs on the library's own stack and allocates nothing: the program's memory changes underneath. What
//! can't be put back ends the process, with a last word: its speculations are undone with it.

#![allow(unsafe_code)]

mod children;
mod descriptors;
mod kernel;
mod memory;
mod standing;

use crate::arena::{Arena, Jump};
use crate::files;
use crate::limits::{
    BESIDE_BYTES, MAPPINGS_MAX, PAGES_STEP, PIECES_STEP, SIGNALS_QUEUED_MAX, TEXT_BYTES_MAX, WORDS_BYTES_MAX,
    ZEROS_STEP,
};
use crate::pending::Signal;
use crate::sys::{self, Errno, Piece, Region};
use crate::text::Text;
use mojavefs_procfs::maps::Mapping;

/// Room to work in.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) text_a: [u8; TEXT_BYTES_MAX],
    text_b: [u8; TEXT_BYTES_MAX],
    pub(crate) maps_a: [Mapping; MAPPINGS_MAX],
    maps_b: [Mapping; MAPPINGS_MAX],
    pages_a: [u64; PAGES_STEP],
    pages_b: [u64; PAGES_STEP],
    pieces: [Piece; PIECES_STEP],
    zeros: [Region; ZEROS_STEP],
    beside: [u8; BESIDE_BYTES],
    pub(crate) numbers: [i32; 65_536],
    pub(crate) signals: [Signal; SIGNALS_QUEUED_MAX],
}

/// What could not be put back.
struct Failure {
    what: &'static str,
    errno: i32,
}

trait What<T> {
    fn what(self, what: &'static str) -> Result<T, Failure>;
}

impl<T> What<T> for sys::Result<T> {
    fn what(self, what: &'static str) -> Result<T, Failure> {
        self.map_err(|Errno(errno)| Failure { what, errno })
    }
}

/// Goes back to where the level of `jump` was entered. Signals are blocked.
pub(crate) fn go_back(arena: &mut Arena, jump: Jump) -> ! {
    arena.jump = jump;
    let stack = arena.stack_top();
    sys::on_stack(stack, run, core::ptr::from_mut(arena).cast())
}

/// Ends the children started since the level of the arena's jump was entered.
pub(crate) fn end_children(arena: &mut Arena) {
    if children::end_new(arena).is_err() {
        sys::die(&[b"libmojave: cannot end the children of what is undone; the process ends"]);
    }
}

extern "C" fn run(arena: *mut u8) -> ! {
    // SAFETY: `go_back` passed the arena on; whoever held it before never runs again.
    let arena = unsafe { &mut *arena.cast::<Arena>() };
    if let Err(failure) = put_back(arena) {
        let id = arena.levels[arena.jump.level].id;
        let mut words = Text::<WORDS_BYTES_MAX>::default();
        words.say(format_args!(
            "libmojave: abort of speculation {id}: cannot put back {} (errno {}); the process ends, and what it had undecided \
             is undone",
            failure.what, failure.errno
        ));
        sys::die(&[words.as_bytes()]);
    }
    let level = arena.jump.level;
    // SAFETY: memory is as it was at the checkpoint.
    unsafe { sys::resume(&arena.levels[level].registers, 0) }
}

fn put_back(arena: &mut Arena) -> Result<(), Failure> {
    let target = arena.jump.level;
    if arena.look_at_kept() != arena.levels[target].record.ids {
        return Err(Errno(libc::EPERM)).what("its user and group ids, which were changed");
    }
    // Checkpoints taken later share pages with this process: when they are gone, a page that it has alone is one that was
    // changed since the level was entered.
    for level in (target + 1..arena.depth).rev() {
        arena.end_checkpoint(level);
    }
    let taken = arena.levels[target].taken;
    arena.reap_dying(|later| later > taken);
    // First of all: its limits could stand in the way of the rest.
    standing::put_back(&arena.levels[target])?;
    children::end_new(arena)?;
    kernel::end_new_threads(arena)?;
    if arena.jump.fell {
        // None of its children does anything any more.
        arena.mask = arena.levels[target].record.mask;
        files::ask_to_undo_in_place(arena, arena.levels[target].spec);
        arena.jump.asked = true;
    }
    memory::put_back(arena)?;
    descriptors::put_back(arena)?;
    kernel::put_back(arena)
}
