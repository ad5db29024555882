//! Everybody in one thread: whenever something waits for the disk, or for a kernel that is told something, others act, as a seed chooses,
//! and what they do ends before that goes on. The server with its sessions, graph, access index and store; a disk that fails; the views of
//! trunk and of jobs, each with a kernel before it that keeps what it may (`kernel.rs`).
//!
//! What jobs do is to make, rename and remove pairs of files, each its own, to write the same to two files, to store single bytes, and to
//! count: each reads a counter and writes one more, those that see nothing of others perhaps after others have acted. Whatever is
//! committed, each counter says how often it was counted by that and on trunk, each byte is there, and the files are that it has made:
//! nothing is lost, nothing undone is left. Meanwhile whoever looks, with what its kernel has kept, sees what is so now, and on trunk, and
//! where only what is committed is seen, all of a commit or nothing.

mod check;
mod jobs;
mod kernel;
mod life;
mod mount;
mod trunk;
mod world;

pub use life::history;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use world::World;

thread_local! {
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    /// A record of a decision is being written: here the disk may fail.
    static IS_DECIDING: Cell<bool> = const { Cell::new(false) };
}

/// How often there was what is to be tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// What somebody did.
    pub steps: u64,
    /// Of these, while another waited for the disk or for a kernel.
    pub beside: u64,
    /// Decisions that began while another was under way.
    pub rounds_beside: u64,
    /// Decisions that could not be recorded.
    pub unrecorded: u64,
    /// What was looked for had been kept by a kernel.
    pub kept: u64,
    /// What a kernel was told was not to be kept.
    pub provisional: u64,
    /// Something that a kernel kept had to be forgotten before it changed.
    pub forgotten: u64,
    /// Reads of pages that could be stored to which waited for a commit.
    pub held_reads: u64,
    /// What a kernel wrote out that waited for a commit.
    pub written_later: u64,
    /// Listings that went on after something was committed.
    pub listed_on: u64,
}

impl Counts {
    /// And so much more.
    pub fn add(&mut self, more: &Counts) {
        let Counts { steps, beside, rounds_beside, unrecorded, kept, provisional, forgotten, .. } = more;
        self.steps += steps;
        self.beside += beside;
        self.rounds_beside += rounds_beside;
        self.unrecorded += unrecorded;
        self.kept += kept;
        self.provisional += provisional;
        self.forgotten += forgotten;
        self.held_reads += more.held_reads;
        self.written_later += more.written_later;
        self.listed_on += more.listed_on;
    }
}
