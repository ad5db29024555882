//! What the library remembers: a region shared between a process and its checkpoints, which no abort puts back.

#![allow(unsafe_code)]

use crate::kept::{About, File, Kept};
use crate::level;
use crate::limits::{
    CHECKPOINT_STACK_BYTES, DECIDED_KEPT_MAX, LEVELS_MAX, LIBRARY_STACK_BYTES, OWN_DESCRIPTORS_FROM,
    OWN_DESCRIPTORS_MAX, WORDS_BYTES_MAX,
};
use crate::maps::{self, Shared};
use crate::record::{self, Ids, Record};
use crate::restore::Scratch;
use crate::sys::{self, Mask, Registers};
use crate::text::Text;
use crate::vote::Asked;
use core::cell::UnsafeCell;
use core::ops::{Index, IndexMut};
use core::sync::atomic::{AtomicPtr, Ordering};

/// How one speculation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is open, or voted for inside another that is.
    Undecided,
    /// It is part of what surrounds it.
    Committed,
    /// It never happened.
    Aborted,
    /// The vote was sent, and the daemon has gone before it said what came of it: `mojavefs status` says after mounting again.
    Unknown,
}

/// Whether nobody knows what came of a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Doubt {
    /// There is none of which that is so.
    None,
    /// There is one, and the program was not told.
    Untold,
    /// It was told.
    Told,
}

/// One open speculation.
#[repr(C)]
pub(crate) struct Level {
    /// Its number.
    pub(crate) id: i32,
    /// Its number in the filesystem; 0 if the process has no view there.
    pub(crate) spec: u64,
    /// How many checkpoints the process had taken when it took this one.
    pub(crate) taken: u64,
    /// The process that is its checkpoint.
    pub(crate) checkpoint: i32,
    /// The number of the innermost level that the vote to commit this one is part of; 0: there is no vote. It counts when
    /// that level and all between the two are committed, and is taken back when one of them is aborted.
    pub(crate) voted_in: i32,
    /// The code of the retry by which it was entered again; 0 at first.
    pub(crate) code: i32,
    /// The program has forked since: its pages may be shared with processes that are not known.
    pub(crate) forked: bool,
    /// What [`Arena::faults_of_children`] said at the entry.
    pub(crate) faults_before: u64,
    pub(crate) registers: Registers,
    pub(crate) record: Record,
    pub(crate) stack: Stack,
}

/// The stack of a sleeping checkpoint, which alone writes there.
#[repr(C)]
pub(crate) struct Stack(UnsafeCell<[u8; CHECKPOINT_STACK_BYTES]>);

impl Stack {
    pub(crate) fn top(&self) -> *mut u8 {
        // 16 bytes aligned, as a call expects it.
        let end = self.0.get() as usize + CHECKPOINT_STACK_BYTES;
        (end & !15) as *mut u8
    }
}

/// The levels, by how far out they are. Each stays in its place as long as it has a checkpoint, which sleeps on a stack there.
#[repr(C)]
pub(crate) struct Levels {
    places: [Level; LEVELS_MAX],
    /// Where each is; behind the last, what is free.
    order: [u16; LEVELS_MAX],
}

impl Levels {
    /// Takes one out of the first `count`.
    fn remove(&mut self, level: usize, count: usize) {
        self.order[level..count].rotate_left(1);
    }
}

impl Index<usize> for Levels {
    type Output = Level;

    fn index(&self, level: usize) -> &Level {
        &self.places[usize::from(self.order[level])]
    }
}

impl IndexMut<usize> for Levels {
    fn index_mut(&mut self, level: usize) -> &mut Level {
        &mut self.places[usize::from(self.order[level])]
    }
}

/// Where a process goes back to.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Jump {
    pub(crate) level: usize,
    pub(crate) code: i32,
    pub(crate) retry: bool,
    /// Others have undone it: the filesystem waits to hear that the process is back.
    pub(crate) fell: bool,
    /// The filesystem was asked to undo it, and has not been heard yet.
    pub(crate) asked: bool,
}

/// Everything. It begins as zeros.
#[repr(C)]
pub(crate) struct Arena {
    /// The process it belongs to.
    pub(crate) owner: i32,
    /// How many levels have a checkpoint.
    pub(crate) depth: usize,
    /// The outermost of them was voted for, and what comes of it is not known yet: it is no open level any more.
    pub(crate) awaits: bool,
    /// What the daemon was asked about it and has not answered yet.
    pub(crate) asked: Asked,
    pub(crate) last_id: i32,
    /// Where descriptors of the library's are put, out of the way of programs that count on the lowest numbers.
    pub(crate) own_from: usize,
    /// A pipe: when its second end is closed everywhere, the process is gone, or another program.
    life: [File; 2],
    /// Further descriptors of the library's: those of its connection to the daemon.
    own: [File; 4],
    own_count: usize,
    /// The connection to the daemon; 0 before there is a view.
    pub(crate) daemon: i32,
    /// Where others' decisions are heard of.
    pub(crate) watch: i32,
    pub(crate) kept: Kept,
    /// How many checkpoints the process has taken.
    pub(crate) taken: u64,
    /// Checkpoints that were told to end and are not reaped yet.
    pub(crate) dying: [Dying; 64],
    pub(crate) dying_count: usize,
    /// How many signals on their way were marked, to be known again.
    pub(crate) signals_marked: u64,
    /// The page faults of processes that the library has reaped.
    faults_reaped: u64,
    pub(crate) jump: Jump,
    /// The program's signal mask, while the library blocks every signal.
    pub(crate) mask: Mask,
    /// `madvise` has been called with an advice that keeps memory from checkpoints, or nobody has looked yet.
    pub(crate) advice: Advice,
    /// The device of this process's view, whose files the filesystem puts back.
    pub(crate) view_device: Option<(u32, u32)>,
    decided: [(i32, Outcome); DECIDED_KEPT_MAX],
    decided_count: usize,
    /// Of a vote.
    pub(crate) doubt: Doubt,
    /// What was said last.
    pub(crate) words: Text<WORDS_BYTES_MAX>,
    pub(crate) levels: Levels,
    pub(crate) scratch: Scratch,
    stack: [u8; LIBRARY_STACK_BYTES],
}

/// Whether memory is kept from children of this process, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) enum Advice {
    /// Nobody has looked.
    Unknown,
    /// None is.
    None,
}

/// A checkpoint that was told to end.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dying {
    pub(crate) pid: i32,
    taken: u64,
}

static ARENA: AtomicPtr<Arena> = AtomicPtr::new(core::ptr::null_mut());

/// This process's arena; nothing before its first speculation. One caller at a time: speculating processes have one
/// thread.
pub(crate) fn existing() -> Option<&'static mut Arena> {
    // SAFETY: once set it is mapped until a child of the process lets go of it.
    let arena = unsafe { ARENA.load(Ordering::Relaxed).as_mut() }?;
    (arena.owner == sys::pid()).then_some(arena)
}

/// This process's arena, made when there is none.
pub(crate) fn ensure() -> sys::Result<&'static mut Arena> {
    if let Some(arena) = existing() {
        return Ok(arena);
    }
    static HANDLERS: std::sync::Once = std::sync::Once::new();
    HANDLERS.call_once(|| {
        // SAFETY: the handlers may run around any fork, and when the program is done.
        unsafe {
            libc::pthread_atfork(Some(before_fork), None, Some(in_child));
            libc::atexit(at_end);
        }
    });
    let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let at = sys::map(0, size_of::<Arena>(), libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)?;
    let arena = at as *mut Arena;
    // SAFETY: just mapped, zeros, and all zeros are a valid arena: numbers, `false`, and first variants.
    let arena = unsafe { &mut *arena };
    arena.owner = sys::pid();
    arena.levels.order.iter_mut().zip(0..).for_each(|(place, at)| *place = at);
    if let Err(error) = arena.open_life() {
        sys::unmap(at, size_of::<Arena>())?;
        return Err(error);
    }
    ARENA.store(arena, Ordering::Relaxed);
    Ok(arena)
}

/// What a checkpoint needs of the arena.
pub(crate) struct Life {
    pub(crate) owner: i32,
    pub(crate) ends: [i32; 2],
    own: [i32; 4],
    own_count: usize,
}

impl Life {
    /// The library's descriptors that a checkpoint has no use for: the daemon must see the process's end.
    pub(crate) fn close_others(&self) {
        sys::close(self.ends[1]);
        self.own[..self.own_count].iter().copied().for_each(sys::close);
    }
}

/// The arena as a checkpoint sees it.
pub(crate) fn of_checkpoint() -> Option<Life> {
    // SAFETY: inherited mapped; the owner writes neither of these after it was made.
    let arena = unsafe { ARENA.load(Ordering::Relaxed).as_ref() }?;
    let (ends, own) = (arena.life.map(|end| end.fd), arena.own.map(|file| file.fd));
    Some(Life { owner: arena.owner, ends, own, own_count: arena.own_count })
}

/// A program that has voted and is done learns whether its vote counts: if it does not, it is not done.
extern "C" fn at_end() {
    level::end();
    if existing().is_some_and(|arena| arena.doubt == Doubt::Untold) {
        // Its exit status would say that all is well.
        crate::sys::die(&[level::IN_DOUBT.as_bytes()]);
    }
}

extern "C" fn before_fork() {
    if let Some(arena) = existing() {
        (0..arena.depth).for_each(|level| arena.levels[level].forked = true);
    }
}

/// A child of the program's own has no speculations: they are its parent's.
extern "C" fn in_child() {
    let arena = ARENA.swap(core::ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: it was mapped by the parent, so it is here; nothing else refers to it.
    if let Some(inherited) = unsafe { arena.as_mut() } {
        inherited.life.iter().chain(&inherited.own[..inherited.own_count]).for_each(File::close);
        inherited.kept.close();
        // A few pages of address space are lost if that fails.
        let _ = sys::unmap(arena as usize, size_of::<Arena>());
    }
}

impl Arena {
    fn open_life(&mut self) -> sys::Result<()> {
        let limit: libc::rlimit64 =
            sys::filled(libc::SYS_prlimit64, &[0, libc::RLIMIT_NOFILE as usize, 0], 3, sys::zeroed())?;
        let room = usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX).saturating_sub(OWN_DESCRIPTORS_MAX);
        self.own_from = OWN_DESCRIPTORS_FROM.min(room);
        let ends: [i32; 2] = sys::filled(libc::SYS_pipe2, &[0, libc::O_CLOEXEC as usize], 0, [0, 0])?;
        for (at, end) in ends.into_iter().enumerate() {
            self.life[at] = File::of(self.out_of_the_way(end)?)?;
        }
        Ok(())
    }

    /// Moves a new descriptor of the library's to where programs have none.
    pub(crate) fn out_of_the_way(&self, fd: i32) -> sys::Result<i32> {
        let moved = sys::fcntl(fd, libc::F_DUPFD_CLOEXEC, self.own_from);
        sys::close(fd);
        moved
    }

    /// The open levels, the outermost first.
    pub(crate) fn open(&self) -> impl DoubleEndedIterator<Item = &Level> {
        (usize::from(self.awaits)..self.depth).map(|level| &self.levels[level])
    }

    /// These, and the one whose vote is not known to count.
    pub(crate) fn undecided(&self) -> impl DoubleEndedIterator<Item = &Level> {
        (0..self.depth).map(|level| &self.levels[level])
    }

    /// A level is none any more, whatever is inside of it.
    pub(crate) fn let_go(&mut self, level: usize) {
        self.end_checkpoint(level);
        self.levels.remove(level, self.depth);
        self.depth -= 1;
    }

    pub(crate) fn is_own(&self, fd: i32) -> bool {
        self.life.iter().chain(&self.own[..self.own_count]).any(|file| file.fd == fd) || self.kept.has(fd)
    }

    /// Notes a further descriptor of the library's.
    pub(crate) fn note_own(&mut self, fd: i32) -> sys::Result<()> {
        self.own[self.own_count] = File::of(fd)?;
        self.own_count += 1;
        Ok(())
    }

    /// A descriptor of the library's that the program has closed, and that can't be had anew.
    pub(crate) fn lost(&mut self) -> sys::Result<Option<i32>> {
        let lost = |files: &[File]| files.iter().find(|file| !file.is_itself()).map(|file| file.fd);
        match (lost(&self.own[..self.own_count]), lost(&self.life)) {
            (None, Some(_)) if self.depth == 0 => {
                self.life.iter().for_each(File::close);
                self.open_life().map(|()| None)
            }
            (connection, life) => Ok(connection.or(life)),
        }
    }

    /// An open file of `/proc` about this process.
    pub(crate) fn kept(&mut self, what: About) -> sys::Result<i32> {
        self.kept.about(what, self.own_from, self.owner)
    }

    /// Looks whether the program has closed what is kept open; returns the user and group ids.
    pub(crate) fn look_at_kept(&mut self) -> Ids {
        let ids = record::ids();
        self.kept.look(ids);
        ids
    }

    /// Looks at what the process has mapped shared and writable, and writes out what is of its view.
    pub(crate) fn look_at_shared(&mut self) -> sys::Result<Shared> {
        let (own, view, list) = (self.range(), self.view_device, self.kept(About::Mappings)?);
        maps::look_at_shared(list, &own, view, &mut self.scratch)
    }

    pub(crate) fn range(&self) -> core::ops::Range<usize> {
        let start = core::ptr::from_ref(self) as usize;
        start..start + size_of::<Arena>()
    }

    pub(crate) fn stack_top(&mut self) -> *mut u8 {
        let end = self.stack.as_mut_ptr() as usize + LIBRARY_STACK_BYTES;
        (end & !15) as *mut u8
    }

    /// Remembers how a speculation was decided, for as long as there is room.
    pub(crate) fn decide(&mut self, id: i32, how: Outcome) {
        self.decided[self.decided_count % DECIDED_KEPT_MAX] = (id, how);
        self.decided_count += 1;
    }

    /// A level is part of the one around it, and so are the votes that were cast inside of it.
    pub(crate) fn fold_votes(&mut self, level: usize) {
        let Some(around) = level.checked_sub(1).map(|around| self.levels[around].id) else { return };
        let id = self.levels[level].id;
        self.change_votes(level, |voted_in| if voted_in == id { around } else { voted_in });
    }

    /// A level is undone, and with it the votes that were cast inside of it, and whatever was committed into it.
    pub(crate) fn take_back(&mut self, level: usize) {
        // Levels are numbered in the order of their entries: what has a higher number was entered inside of it.
        let id = self.levels[level].id;
        self.change_votes(level, |voted_in| if voted_in >= id { 0 } else { voted_in });
        self.decided.iter_mut().filter(|(decided, _)| *decided > id).for_each(|(_, how)| *how = Outcome::Aborted);
    }

    fn change_votes(&mut self, around: usize, change: impl Fn(i32) -> i32) {
        for level in 0..around {
            let voted_in = &mut self.levels[level].voted_in;
            *voted_in = change(*voted_in);
        }
    }

    /// How a speculation stands; nothing if it is not known (any more).
    pub(crate) fn outcome(&self, id: i32) -> Option<Outcome> {
        if self.undecided().any(|level| level.id == id) {
            return Some(Outcome::Undecided);
        }
        let known = &self.decided[..self.decided_count.min(DECIDED_KEPT_MAX)];
        let found = known.iter().find(|(decided, _)| *decided == id && id > 0);
        found.map(|(_, how)| *how)
    }

    /// Says why something was refused or undone, for people.
    pub(crate) fn say(&mut self, words: core::fmt::Arguments<'_>) {
        self.words.say(words);
    }

    /// Ends a level's checkpoint, without waiting for it.
    pub(crate) fn end_checkpoint(&mut self, level: usize) {
        let pid = core::mem::replace(&mut self.levels[level].checkpoint, 0);
        let _ = sys::kill(pid, libc::SIGKILL);
        if self.dying_count == self.dying.len() {
            self.reap_dying(|_| true);
        }
        self.dying[self.dying_count] = Dying { pid, taken: self.levels[level].taken };
        self.dying_count += 1;
    }

    /// Reaps the checkpoints that were ended and have; by when they were taken, waits for those it must.
    pub(crate) fn reap_dying(&mut self, must: impl Fn(u64) -> bool) {
        let mut left = 0;
        for at in 0..self.dying_count {
            let dying = self.dying[at];
            match sys::reap(dying.pid, if must(dying.taken) { 0 } else { libc::WNOHANG }) {
                Ok(Some(faults)) => self.note_reaped(faults),
                Ok(None) => {
                    self.dying[left] = dying;
                    left += 1;
                }
                Err(_) => {}
            }
        }
        self.dying_count = left;
    }

    pub(crate) fn note_reaped(&mut self, faults: u64) {
        self.faults_reaped += faults;
    }

    /// The page faults of children that the program itself has waited for: if there are more of them, it had some.
    pub(crate) fn faults_of_children(&self) -> u64 {
        sys::faults_of_reaped().wrapping_sub(self.faults_reaped)
    }
}
