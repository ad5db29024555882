//! The mappings of a process: what is mapped where, and what of it no checkpoint could hold.

#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::proc::leading;
use crate::restore::Scratch;
use crate::sys::{self, Errno};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};

/// One mapping, a line of `/proc/PID/maps`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) prot: i32,
    pub(crate) shared: bool,
    pub(crate) offset: u64,
    /// Major and minor number of the device; 0 if nothing is mapped but memory.
    pub(crate) device: (u32, u32),
    pub(crate) ino: u64,
    /// Where the name is in the text.
    pub(crate) name: (usize, usize),
}

impl Mapping {
    pub(crate) fn is_memory(&self) -> bool {
        self.ino == 0
    }

    pub(crate) fn name<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        &text[self.name.0..self.name.1]
    }

    /// What the kernel maps for every process, outside its memory.
    pub(crate) fn is_kernels(&self, text: &[u8]) -> bool {
        [&b"[vdso]"[..], b"[vsyscall]"].contains(&self.name(text)) || self.name(text).starts_with(b"[vvar")
    }

    /// The same thing is mapped at this address by both.
    pub(crate) fn is_alike(&self, other: &Mapping) -> bool {
        let origin = |of: &Mapping| of.offset.wrapping_sub(of.start as u64);
        self.shared == other.shared
            && self.ino == other.ino
            && self.device == other.device
            && (self.is_memory() || origin(self) == origin(other))
    }
}

fn line(text: &[u8], from: usize, to: usize) -> Option<Mapping> {
    let line = &text[from..to];
    let (start, rest) = leading(line, 16);
    let (end, rest) = leading(rest.strip_prefix(b"-")?, 16);
    let rest = rest.strip_prefix(b" ")?;
    let flags = rest.get(..4)?;
    let flag = |at: usize, letter: u8, bit: i32| if flags[at] == letter { bit } else { 0 };
    let prot = flag(0, b'r', libc::PROT_READ) | flag(1, b'w', libc::PROT_WRITE) | flag(2, b'x', libc::PROT_EXEC);
    let (offset, rest) = leading(rest.get(5..)?, 16);
    let (major, rest) = leading(rest.strip_prefix(b" ")?, 16);
    let (minor, rest) = leading(rest.strip_prefix(b":")?, 16);
    let (ino, rest) = leading(rest.strip_prefix(b" ")?, 10);
    let name_len = rest.len() - rest.iter().take_while(|byte| **byte == b' ').count();
    Some(Mapping {
        start: start as usize,
        end: end as usize,
        prot,
        shared: flags[3] == b's',
        offset,
        device: (major as u32, minor as u32),
        ino,
        name: (to - name_len, to),
    })
}

/// What a list of mappings says, in order.
pub(crate) fn parse<'m>(text: &[u8], into: &'m mut [Mapping]) -> sys::Result<&'m [Mapping]> {
    let (mut count, mut from) = (0, 0);
    while from < text.len() {
        let to = text[from..].iter().position(|byte| *byte == b'\n').map_or(text.len(), |length| from + length);
        let mapping = line(text, from, to).ok_or(Errno(libc::EPROTO))?;
        *into.get_mut(count).ok_or(Errno(libc::ENOMEM))? = mapping;
        count += 1;
        from = to + 1;
    }
    Ok(&into[..count])
}

static ADVICE: AtomicBool = AtomicBool::new(false);

/// Advice that keeps memory from children was given since it was last looked for.
pub(crate) fn advice_given() -> bool {
    ADVICE.load(Ordering::Relaxed)
}

pub(crate) fn advice_seen() {
    ADVICE.store(false, Ordering::Relaxed);
}

/// The C library's `madvise`, which also notes advice that keeps memory from children: asking the kernel at every entry
/// would cost more than the entry.
///
/// # Safety
/// As for `madvise`.
#[unsafe(no_mangle)]
#[allow(unreachable_pub)]
pub unsafe extern "C" fn madvise(start: *mut libc::c_void, bytes: usize, advice: i32) -> i32 {
    if matches!(advice, libc::MADV_DONTFORK | libc::MADV_WIPEONFORK) {
        ADVICE.store(true, Ordering::Relaxed);
    }
    match sys::advise(start as usize, bytes, advice) {
        Ok(()) => 0,
        Err(Errno(errno)) => {
            // SAFETY: the address of this thread's errno.
            unsafe { *libc::__errno_location() = errno };
            -1
        }
    }
}

/// How memory is kept from children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeptBy {
    /// They don't have it.
    DontFork,
    /// They have it empty.
    WipeOnFork,
}

impl KeptBy {
    /// The advice that takes it back.
    fn opposite(self) -> i32 {
        match self {
            KeptBy::DontFork => libc::MADV_DOFORK,
            KeptBy::WipeOnFork => libc::MADV_KEEPONFORK,
        }
    }
}

/// Memory that the kernel would not give to a checkpoint, or would give it empty.
pub(crate) fn kept_from_children(arena: &mut Arena) -> sys::Result<Option<(usize, &'static str)>> {
    let text = sys::read_all(b"/proc/self/smaps\0", &mut arena.scratch.text_a)?;
    let mut found = None;
    each_kept(text, |memory, by| {
        found = found.or(Some((memory.start, by)));
        Ok(())
    })?;
    Ok(found.map(|(start, by)| match by {
        KeptBy::DontFork => (start, "kept from children (MADV_DONTFORK)"),
        KeptBy::WipeOnFork => (start, "wiped in children (MADV_WIPEONFORK)"),
    }))
}

/// Takes back all advice that keeps memory from children.
pub(crate) fn give_to_children(arena: &mut Arena) -> sys::Result<()> {
    let text = sys::read_all(b"/proc/self/smaps\0", &mut arena.scratch.text_a)?;
    each_kept(text, |memory, by| sys::advise(memory.start, memory.len(), by.opposite()))
}

/// Calls `each` for what is kept from children, as a text like `smaps` says.
fn each_kept(text: &[u8], mut each: impl FnMut(Range<usize>, KeptBy) -> sys::Result<()>) -> sys::Result<()> {
    let (mut range, mut memory) = (0..0, false);
    for line in text.split(|byte| *byte == b'\n') {
        if line.first().is_some_and(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()) {
            let (start, rest) = leading(line, 16);
            let (end, _) = leading(rest.strip_prefix(b"-").unwrap_or(rest), 16);
            range = start as usize..end as usize;
            memory =
                !line.windows(5).any(|part| part == b"[vvar" || part == b"[vdso") && !line.ends_with(b"[vsyscall]");
        }
        let Some(flags) = line.strip_prefix(b"VmFlags:").filter(|_| memory) else { continue };
        let has = |flag: &[u8]| flags.split(|byte| *byte == b' ').any(|word| word == flag);
        // Droppable memory may vanish at any time: nobody relies on it. Device memory has `pf` or `io`.
        if has(b"dp") || has(b"io") || has(b"pf") {
            continue;
        }
        for (flag, by) in [(&b"dc"[..], KeptBy::DontFork), (b"wf", KeptBy::WipeOnFork)] {
            if has(flag) {
                each(range.clone(), by)?;
            }
        }
    }
    Ok(())
}

/// `struct procmap_query` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Query {
    size: u64,
    flags: u64,
    address: u64,
    start: u64,
    end: u64,
    vma_flags: u64,
    page_size: u64,
    offset: u64,
    ino: u64,
    major: u32,
    minor: u32,
    name_size: u32,
    build_id_size: u32,
    name: u64,
    build_id: u64,
}

/// `PROCMAP_QUERY`
const QUERY: usize = 0xC068_6611;
/// `PROCMAP_QUERY_VMA_WRITABLE`, `PROCMAP_QUERY_VMA_SHARED`, `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`
const WRITABLE_SHARED_FROM: u64 = 0x02 | 0x08 | 0x10;

/// What is shared and writable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shared {
    /// Memory or a file that nobody puts back begins here.
    pub(crate) foreign: Option<usize>,
    /// Files of the view, which the filesystem puts back, are mapped, and could not all be written out.
    pub(crate) unwritten: bool,
}

impl Shared {
    /// Takes one mapping in; `false` if that is enough.
    fn goes_on(
        &mut self,
        map: &Range<usize>,
        device: (u32, u32),
        own: &Range<usize>,
        view: Option<(u32, u32)>,
    ) -> bool {
        if own.contains(&map.start) {
            return true;
        }
        match view == Some(device) {
            // What the kernel holds belongs to the level in which it was written. `syncfs` does not wait for it.
            true => self.unwritten |= sys::write_out(map.start, map.len()).is_err(),
            false => self.foreign = Some(map.start),
        }
        self.foreign.is_none()
    }
}

/// Looks through what this process has mapped shared and writable, other than `own`, and writes out what is of `view`, the
/// device of its view. `list`: its list of mappings.
pub(crate) fn look_at_shared(
    list: i32,
    own: &Range<usize>,
    view: Option<(u32, u32)>,
    scratch: &mut Scratch,
) -> sys::Result<Shared> {
    let mut query = Query { size: size_of::<Query>() as u64, flags: WRITABLE_SHARED_FROM, ..Query::default() };
    let mut shared = Shared::default();
    loop {
        match sys::filled(libc::SYS_ioctl, &[list as usize, QUERY], 2, query) {
            Ok(found) => {
                query.address = found.end;
                let map = found.start as usize..found.end as usize;
                if !shared.goes_on(&map, (found.major, found.minor), own, view) {
                    return Ok(shared);
                }
            }
            Err(Errno(libc::ENOENT)) => return Ok(shared),
            Err(Errno(libc::ENOTTY)) => return by_list(list, own, view, scratch),
            Err(error) => return Err(error),
        }
    }
}

/// The same for kernels older than 6.11.
fn by_list(list: i32, own: &Range<usize>, view: Option<(u32, u32)>, scratch: &mut Scratch) -> sys::Result<Shared> {
    let maps = parse(sys::read_whole(list, &mut scratch.text_a)?, &mut scratch.maps_a)?;
    let mut shared = Shared::default();
    let writable = |map: &&Mapping| map.shared && map.prot & libc::PROT_WRITE != 0;
    for map in maps.iter().filter(writable) {
        if !shared.goes_on(&(map.start..map.end), map.device, own, view) {
            break;
        }
    }
    Ok(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_list_is_understood() {
        let text = b"7ffd12340000-7ffd12361000 rw-p 00001000 fe:0a 1234                       /a b\n";
        let map = line(text, 0, text.len() - 1).expect("a mapping");
        assert_eq!((map.start, map.end), (0x7ffd_1234_0000, 0x7ffd_1236_1000));
        assert_eq!((map.prot, map.shared), (libc::PROT_READ | libc::PROT_WRITE, false));
        assert_eq!((map.offset, map.device, map.ino), (0x1000, (0xfe, 0x0a), 1234));
        assert_eq!(map.name(text), b"/a b");
    }

    #[test]
    fn memory_kept_from_children_is_found() {
        let text = b"1000-3000 rw-p 00000000 00:00 0 \nSize: 8 kB\nVmFlags: rd wr mr dc ac \n\
            3000-4000 rw-p 00000000 00:00 0 \nVmFlags: rd wr \n\
            4000-5000 rw-p 00000000 00:00 0 \nVmFlags: rd wr wf \n\
            5000-6000 r--p 00000000 00:00 0 [vvar]\nVmFlags: rd io dc pf \n";
        let mut found = Vec::new();
        each_kept(text, |range, by| {
            found.push((range, by));
            Ok(())
        })
        .expect("it is understood");
        assert_eq!(found, [(0x1000..0x3000, KeptBy::DontFork), (0x4000..0x5000, KeptBy::WipeOnFork)]);
    }

    #[test]
    fn mappings_of_this_process_are_in_order() {
        let (mut text, mut maps) = (vec![0; 1 << 20], vec![line(b"1-2 rw-p 0 0:0 0", 0, 16).expect("one"); 4096]);
        let text = sys::read_all(b"/proc/self/maps\0", &mut text).expect("read");
        let maps = parse(text, &mut maps).expect("a list");
        assert!(maps.len() > 5 && maps.is_sorted_by(|a, b| a.end <= b.start));
    }
}
