//! Memory: mappings, and the pages that differ.
//!
//! After a fork a page that this process has changed is another frame than the checkpoint's; so only what was changed is
//! copied, from the sleeping checkpoint. Root sees the frames' numbers in the page descriptors. Others see whether a page is
//! mapped by one process alone (bit 56): then it was changed. One that is shared may be one that the checkpoint has elsewhere,
//! since `mremap` moves pages (`realloc` does that, too): where that can be, its content is compared.
//!
//! Memory that was only read is the kernel's page of zeros, which everybody shares: where frames are not seen, it counts as not
//! there.

#![allow(unsafe_code)]

use super::{Failure, Scratch, What};
use crate::arena::Arena;
use crate::files;
use crate::kept::About;
use crate::limits::{BESIDE_BYTES, PAGES_STEP, PIECES_STEP, ZEROS_STEP};
use crate::maps;
use crate::sys::{self, Errno, Piece, Region};
use core::ops::Range;
use mojavefs_procfs::maps::{Mapping, parse};
use mojavefs_procfs::process::ProcPath;

const PAGE: usize = 4096;

const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_A_FILE: u64 = 1 << 61;
const ALONE: u64 = 1 << 56;
/// The number of a page's frame, if it is present; 0 for those who may not see it.
const FRAME: u64 = (1 << 55) - 1;

/// What has to be done with a page.
#[derive(Clone, Copy, PartialEq)]
enum Page {
    /// Nothing.
    Same,
    /// It is copied from the checkpoint.
    Copy,
    /// It may be a page that the checkpoint has elsewhere: copied if it differs.
    Compare,
    /// It was not there: it is given back, and reads as what is below it.
    Drop,
}

/// The files of `/proc` that are looked at.
#[derive(Clone, Copy)]
struct Sources {
    checkpoint: i32,
    own_pages: i32,
    its_pages: i32,
    /// Pages may be shared with processes that are not known, so that being shared says nothing.
    distrust: bool,
}

/// Memory to which no pages are moved from elsewhere.
const FIXED: [&[u8]; 2] = [b"[heap]", b"[stack]"];

/// Puts the memory back as it is in the level's checkpoint.
pub(super) fn put_back(arena: &mut Arena) -> Result<(), Failure> {
    let level = &arena.levels[arena.jump.level];
    let (checkpoint, brk, distrust) = (level.checkpoint, level.record.brk, level.forked);
    if sys::brk(0) != brk && sys::brk(brk) != brk {
        return Err(Errno(libc::ENOMEM)).what("the end of the heap");
    }
    let (own, own_list) = (arena.range(), arena.kept(About::Mappings).what("its memory: no list of mappings")?);
    let own_pages = arena.kept(About::Pages).what("its memory: no page descriptors")?;
    let its_pages = sys::open(ProcPath::of(checkpoint).then(b"/pagemap").as_bytes(), libc::O_RDONLY);
    let its_pages = its_pages.what("its memory: the checkpoint is gone")?;
    let sources = Sources { checkpoint, own_pages, its_pages, distrust };
    let asked = arena.jump.asked.then_some((arena.daemon, arena.mask));
    if maps::advice_given() {
        // At the entry none was.
        maps::give_to_children(arena).what("the advice on its memory")?;
    }
    let Scratch { text_a, text_b, maps_a, maps_b, pages_a, pages_b, pieces, zeros, beside, .. } = &mut arena.scratch;
    let (no_list, understood) =
        ("its memory: no list of mappings", "its memory: a list of mappings that is not understood");
    let now = sys::read_whole(own_list, text_a).what(no_list)?;
    let text_b = sys::read_all(ProcPath::of(checkpoint).then(b"/maps").as_bytes(), text_b);
    let then = text_b.what("its memory: the checkpoint is gone")?;
    let alike = now == then;
    let maps_now = parse(now, &mut maps_a[..]).what(understood)?;
    let other = if alike { &[] } else { parse(then, maps_b).what(understood)? };
    if let Some((daemon, mask)) = asked {
        // From here on files may be opened and read: they must be as they were, too.
        files::await_undone(daemon, mask);
    }
    let mut room = Room { pages_a, pages_b, pieces, zeros, beside };
    let maps_then = if alike { maps_now } else { other };
    let mut work = Work::new(sources, maps_now, &mut room);
    each_where_it_was((&own, checkpoint), (now, maps_now), (then, maps_then), &mut work)?;
    if !alike {
        let now = sys::read_whole(own_list, text_a).what(no_list)?;
        let maps_now = parse(now, maps_a).what(understood)?;
        make_whole((&own, checkpoint), (then, other), &mut Work::new(sources, maps_now, &mut room))?;
    }
    sys::close(its_pages);
    Ok(())
}

/// Maps again what was unmapped, unmaps what is new, and puts back the pages and the protection of everything.
fn each_where_it_was(
    (own, checkpoint): (&Range<usize>, i32),
    (now, maps_now): (&[u8], &[Mapping]),
    (then, maps_then): (&[u8], &[Mapping]),
    work: &mut Work<'_, '_>,
) -> Result<(), Failure> {
    each_part(maps_now, maps_then, |start, end, here, there| {
        let skipped = own.contains(&start)
            || here.is_some_and(|map| map.is_kernels(now))
            || there.is_some_and(|map| map.is_kernels(then));
        work.movable = here.is_some_and(|map| map.is_memory() && !FIXED.contains(&map.name(now)));
        match (skipped, here, there) {
            (true, ..) | (_, None, None) => Ok(()),
            // The stack has grown; what is below the old end was not there.
            (_, Some(map), None) if map.name(now) == b"[stack]" => {
                sys::advise(start, end - start, libc::MADV_DONTNEED).what("its stack")
            }
            (_, Some(_), None) => sys::unmap(start, end - start).what("a mapping that is new"),
            (_, Some(here), Some(there)) if here.is_alike(there) => work.part(start, end, here.prot, there),
            (_, _, Some(there)) => {
                let part = Mapping { start, end, offset: there.offset + (start - there.start) as u64, ..*there };
                let file = open_again(checkpoint, there, there.name(then)).what(UNMAPPED_FILE)?;
                let prot = map_again(&part, file)?;
                work.window = 0..0;
                work.part(start, end, prot, there)
            }
        }
    })?;
    work.copy()
}

/// A mapping that was cut, or differs in part in what the lists don't tell, may be in pieces still: to the program it must be
/// one (`mremap` takes one only). So it is made anew.
fn make_whole(
    (own, checkpoint): (&Range<usize>, i32),
    (then, maps_then): (&[u8], &[Mapping]),
    work: &mut Work<'_, '_>,
) -> Result<(), Failure> {
    for map in maps_then {
        let fixed = own.contains(&map.start) || map.is_kernels(then) || FIXED.contains(&map.name(then));
        if fixed || runs_here(map, maps_then) || is_whole(map, work.maps) {
            continue;
        }
        // What can't be opened any more stays in its pieces, which hold what they should.
        let Ok(file) = open_again(checkpoint, map, map.name(then)) else { continue };
        let prot = map_again(map, file)?;
        work.window = 0..0;
        work.part(map.start, map.end, prot, map)?;
        work.copy()?;
    }
    Ok(())
}

/// Whether one of these, which are in order, covers it.
fn is_whole(map: &Mapping, maps_now: &[Mapping]) -> bool {
    let behind = maps_now.partition_point(|now| now.start <= map.start);
    maps_now[..behind].last().is_some_and(|now| map.end <= now.end)
}

/// Whether it is of a program or a library: this code runs in one, and needs what others hold.
fn runs_here(map: &Mapping, all: &[Mapping]) -> bool {
    let of_same_file = |other: &&Mapping| !map.is_memory() && (other.device, other.ino) == (map.device, map.ino);
    map.prot & libc::PROT_EXEC != 0 || all.iter().filter(of_same_file).any(|other| other.prot & libc::PROT_EXEC != 0)
}

/// Calls `each` for every stretch of addresses in which neither list changes, with what is mapped there by both.
fn each_part(
    a: &[Mapping],
    b: &[Mapping],
    mut each: impl FnMut(usize, usize, Option<&Mapping>, Option<&Mapping>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut at_a, mut at_b, mut start) = (0, 0, 0);
    loop {
        let (here, there) = (a.get(at_a), b.get(at_b));
        let next = |map: Option<&Mapping>| match map {
            Some(map) if map.start > start => map.start,
            Some(map) => map.end,
            None => usize::MAX,
        };
        let end = next(here).min(next(there));
        if end == usize::MAX {
            return Ok(());
        }
        let covering = |map: &&Mapping| map.start <= start;
        each(start, end, here.filter(covering), there.filter(covering))?;
        at_a += usize::from(here.is_some_and(|map| map.end == end));
        at_b += usize::from(there.is_some_and(|map| map.end == end));
        start = end;
    }
}

const UNMAPPED_FILE: &str = "a mapped file that was unmapped";

/// Opens what is mapped in the checkpoint; nothing for memory.
fn open_again(checkpoint: i32, map: &Mapping, name: &[u8]) -> sys::Result<Option<i32>> {
    if map.is_memory() {
        return Ok(None);
    }
    let access = if map.shared && map.prot & libc::PROT_WRITE != 0 { libc::O_RDWR } else { libc::O_RDONLY };
    // By way of the checkpoint, which still has it, whatever it is called by now; only root may. Else by its name.
    let its_own = ProcPath::of(checkpoint).then(b"/map_files/").address(map.start).then(b"-").address(map.end);
    let by = |path: &[u8]| {
        let fd = sys::open(path, access)?;
        if sys::fstat(fd).is_ok_and(|stat| stat.st_ino == map.ino) {
            return Ok(fd);
        }
        sys::close(fd);
        Err(Errno(libc::ESTALE))
    };
    by(its_own.as_bytes()).or_else(|_| by_name(name, by)).map(Some)
}

/// Maps what was unmapped, mapped over, or is in pieces: memory, or what is open as `file`, which is closed. Returns how it is
/// protected.
fn map_again(map: &Mapping, file: Option<i32>) -> Result<i32, Failure> {
    let sharing = if map.shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let place = |prot: i32, flags: i32, (fd, offset): (i32, u64)| {
        let flags = flags | sharing | libc::MAP_FIXED;
        sys::map(map.start, map.end - map.start, prot, flags, fd, offset).map(|_| prot)
    };
    match file {
        // Writable at first, and counted, as most is: so the kernel makes it one with what it is a piece of. What was promised
        // beyond what there is was not counted.
        None => {
            let (writable, memory, nothing) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_ANONYMOUS, (-1, 0));
            let placed = place(writable, memory, nothing);
            placed
                .or_else(|_| place(map.prot, memory | libc::MAP_NORESERVE, nothing))
                .what("memory that was given back")
        }
        Some(file) => {
            let placed = place(map.prot, 0, (file, map.offset));
            sys::close(file);
            placed.what(UNMAPPED_FILE)
        }
    }
}

/// What the kernel adds to the name of a file that is gone.
const DELETED: &[u8] = b" (deleted)";

/// Hands on the name of a mapped file as a path, without what says that it is gone: what was undone is there again.
fn by_name(name: &[u8], by: impl FnOnce(&[u8]) -> sys::Result<i32>) -> sys::Result<i32> {
    let name = name.strip_suffix(DELETED).unwrap_or(name);
    let mut path = [0u8; 4097];
    if name.len() >= path.len() || !name.starts_with(b"/") {
        return Err(Errno(libc::ENAMETOOLONG));
    }
    path[..name.len()].copy_from_slice(name);
    by(&path[..=name.len()])
}

/// Clears the descriptors of pages of zeros; whether there were any.
fn forget_zeros(fd: i32, window: &Range<usize>, pages: &mut [u64], zeros: &mut [Region]) -> sys::Result<bool> {
    let (mut at, end, mut any) = (window.start * PAGE, window.end * PAGE, false);
    while at < end {
        let (count, reached) = sys::zero_pages(fd, at, end, zeros)?;
        for zeros in &zeros[..count] {
            let number = |address: u64| address as usize / PAGE - window.start;
            pages[number(zeros.start)..number(zeros.end)].fill(0);
            any = true;
        }
        if reached <= at {
            return Err(Errno(libc::EIO));
        }
        at = reached;
    }
    Ok(any)
}

/// A stretch of addresses that both have mapped.
struct Part {
    start: usize,
    end: usize,
    /// How it is protected now, and in the checkpoint.
    now: i32,
    then: i32,
}

impl Part {
    fn protect(&mut self, prot: i32) -> Result<(), Failure> {
        self.now = prot;
        sys::protect(self.start, self.end - self.start, prot).what("the protection of memory")
    }
}

/// Room to work in.
struct Room<'s> {
    /// The descriptors of the pages in the window, here and in the checkpoint.
    pages_a: &'s mut [u64; PAGES_STEP],
    pages_b: &'s mut [u64; PAGES_STEP],
    pieces: &'s mut [Piece; PIECES_STEP],
    zeros: &'s mut [Region; ZEROS_STEP],
    /// What the checkpoint has, to compare with.
    beside: &'s mut [u8; BESIDE_BYTES],
}

struct Work<'w, 's> {
    sources: Sources,
    /// What is mapped here.
    maps: &'w [Mapping],
    room: &'w mut Room<'s>,
    /// Numbers of pages.
    window: Range<usize>,
    /// What is looked at may have been moved there.
    movable: bool,
    pieces_count: usize,
}

impl<'w, 's> Work<'w, 's> {
    fn new(sources: Sources, maps: &'w [Mapping], room: &'w mut Room<'s>) -> Self {
        Work { sources, maps, room, window: 0..0, movable: false, pieces_count: 0 }
    }

    /// Puts one part back that is mapped by both, here with `prot`.
    fn part(&mut self, start: usize, end: usize, prot: i32, there: &Mapping) -> Result<(), Failure> {
        let mut part = Part { start, end, now: prot, then: there.prot };
        if there.shared {
            // A file's content is the filesystem's to put back.
            return if prot == there.prot { Ok(()) } else { part.protect(there.prot) };
        }
        let mut at = start;
        while at < end {
            self.describe(at / PAGE, end)?;
            let known = self.window.end.min(end / PAGE);
            let mut first = at / PAGE;
            while first < known {
                let page = self.judge(first);
                let run = 1 + (first + 1..known).take_while(|next| self.judge(*next) == page).count();
                let piece = Piece { start: first * PAGE, bytes: run * PAGE };
                first += run;
                match page {
                    Page::Same => continue,
                    Page::Drop => {
                        sys::advise(piece.start, piece.bytes, libc::MADV_DONTNEED).what("memory that was not there")?;
                    }
                    Page::Compare if part.now & part.then & libc::PROT_READ != 0 => self.compare(piece, &mut part)?,
                    Page::Copy | Page::Compare => self.take(piece, &mut part)?,
                }
            }
            at = known * PAGE;
        }
        if part.now != part.then {
            self.copy()?;
            part.protect(part.then)?;
        }
        Ok(())
    }

    /// Has a piece of a part copied.
    fn take(&mut self, piece: Piece, part: &mut Part) -> Result<(), Failure> {
        if part.now & libc::PROT_WRITE == 0 {
            part.protect(libc::PROT_READ | libc::PROT_WRITE)?;
        }
        self.want(piece, part.then)
    }

    /// Has those pages of a piece copied that differ.
    fn compare(&mut self, mut piece: Piece, part: &mut Part) -> Result<(), Failure> {
        let what = "its memory: the checkpoint can't be read";
        while piece.bytes > 0 {
            let bytes = piece.bytes.min(BESIDE_BYTES);
            let read =
                sys::read_other(self.sources.checkpoint, piece.start, &mut self.room.beside[..bytes]).what(what)?;
            let known = read / PAGE * PAGE;
            if known == 0 {
                return Err(Errno(libc::EFAULT)).what(what);
            }
            for from in (0..known).step_by(PAGE) {
                let page = Piece { start: piece.start + from, bytes: PAGE };
                // SAFETY: it is mapped, readable, and nothing but this code runs.
                if !unsafe { sys::holds(page.start, &self.room.beside[from..from + PAGE]) } {
                    self.take(page, part)?;
                }
            }
            piece = Piece { start: piece.start + known, bytes: piece.bytes - known };
        }
        Ok(())
    }

    /// Has a page in the window, which is moved there if need be: over all that is mapped from there on without a gap, at least
    /// to `end`, as far as there is room.
    fn describe(&mut self, page: usize, mut end: usize) -> Result<(), Failure> {
        if self.window.contains(&page) {
            return Ok(());
        }
        while let Ok(at) = self.maps.binary_search_by_key(&end, |map| map.start)
            && !self.maps[at].shared
        {
            end = self.maps[at].end;
        }
        let count = PAGES_STEP.min(end / PAGE - page);
        self.window = page..page + count;
        let what = "its memory: page descriptors can't be read";
        for (fd, into) in
            [(self.sources.own_pages, &mut *self.room.pages_a), (self.sources.its_pages, &mut *self.room.pages_b)]
        {
            let mut filled = 0;
            while filled < count {
                match sys::page_descriptors(fd, page + filled, &mut into[filled..count]).what(what)? {
                    0 => return Err(Errno(libc::EIO)).what(what),
                    more => filled += more,
                }
            }
        }
        let seen = |page: &u64| page & PRESENT != 0 && page & FRAME != 0;
        match self.room.pages_a[..count].iter().any(seen) {
            true => Ok(()),
            false => self.forget_zeros().what(what),
        }
    }

    /// In the window, pages of zeros that nobody has written to count as not there.
    fn forget_zeros(&mut self) -> sys::Result<()> {
        let Work { sources, room, window, .. } = self;
        let Room { pages_a, pages_b, zeros, .. } = &mut **room;
        match forget_zeros(sources.own_pages, window, pages_a.as_mut_slice(), zeros.as_mut_slice()) {
            // The checkpoint's matter only where this process has some: otherwise a copy of zeros is as good.
            Ok(true) => forget_zeros(sources.its_pages, window, pages_b.as_mut_slice(), zeros.as_mut_slice()).map(drop),
            Ok(false) => Ok(()),
            // Before Linux 6.7 there is no telling: that a page is shared says nothing.
            Err(Errno(libc::ENOTTY)) => {
                sources.distrust = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn judge(&self, page: usize) -> Page {
        let at = page - self.window.start;
        let (here, there) = (self.room.pages_a[at], self.room.pages_b[at]);
        let has = |page: u64| page & SWAPPED != 0 || (page & PRESENT != 0 && page & OF_A_FILE == 0);
        match (has(here), has(there)) {
            (false, false) => Page::Same,
            (true, false) => Page::Drop,
            (false, true) => Page::Copy,
            (true, true) if here & there & PRESENT == 0 => Page::Copy,
            (true, true) => match here & FRAME {
                0 if here & ALONE != 0 || self.sources.distrust => Page::Copy,
                0 if self.movable => Page::Compare,
                0 => Page::Same,
                frame if frame == there & FRAME => Page::Same,
                _ => Page::Copy,
            },
        }
    }

    fn want(&mut self, piece: Piece, prot: i32) -> Result<(), Failure> {
        if prot & libc::PROT_READ == 0 {
            return self.copy_unreadable(piece);
        }
        if self.pieces_count == PIECES_STEP {
            self.copy()?;
        }
        self.room.pieces[self.pieces_count] = piece;
        self.pieces_count += 1;
        Ok(())
    }

    /// Copies what is wanted so far.
    fn copy(&mut self) -> Result<(), Failure> {
        let mut from = 0;
        while from < self.pieces_count {
            let pieces = &mut self.room.pieces[from..self.pieces_count];
            // SAFETY: nothing but this code runs, on a stack and with data that are not among the pieces.
            let copied = unsafe { sys::copy_from(self.sources.checkpoint, pieces) };
            let mut copied = match copied.what("its memory: the checkpoint can't be read")? {
                0 => return Err(Errno(libc::EFAULT)).what("its memory: the checkpoint can't be read"),
                copied => copied,
            };
            for piece in pieces {
                let done = piece.bytes.min(copied);
                copied -= done;
                if done < piece.bytes {
                    *piece = Piece { start: piece.start + done, bytes: piece.bytes - done };
                    break;
                }
                from += 1;
            }
        }
        self.pieces_count = 0;
        Ok(())
    }

    /// Memory that the checkpoint itself may not read.
    fn copy_unreadable(&mut self, mut piece: Piece) -> Result<(), Failure> {
        let path = ProcPath::of(self.sources.checkpoint).then(b"/mem");
        let memory = sys::open(path.as_bytes(), libc::O_RDONLY).what("its memory: the checkpoint is gone")?;
        while piece.bytes > 0 {
            // SAFETY: as in `copy`.
            let copied = unsafe { sys::copy_by_file(memory, piece) };
            let copied = copied.what("memory that can't be read")?;
            piece = Piece { start: piece.start + copied, bytes: piece.bytes - copied };
        }
        sys::close(memory);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(start: usize, end: usize) -> Mapping {
        Mapping { start, end, prot: 3, shared: false, offset: 0, device: (0, 0), ino: 0, name: (0, 0) }
    }

    #[test]
    fn every_stretch_is_seen_once_with_what_is_mapped_there() {
        let (a, b) = ([map(10, 20), map(20, 30), map(50, 60)], [map(15, 25), map(40, 60)]);
        let mut seen = Vec::new();
        let result = each_part(&a, &b, |start, end, here, there| {
            if here.is_some() || there.is_some() {
                seen.push((start, end, here.map(|map| map.start), there.map(|map| map.start)));
            }
            Ok(())
        });
        assert!(result.is_ok());
        let expected = [
            (10, 15, Some(10), None),
            (15, 20, Some(10), Some(15)),
            (20, 25, Some(20), Some(15)),
            (25, 30, Some(20), None),
            (40, 50, None, Some(40)),
            (50, 60, Some(50), Some(40)),
        ];
        assert_eq!(seen, expected);
    }
}
