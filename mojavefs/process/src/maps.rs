//! What of the mappings of a process no checkpoint could hold.

#![allow(unsafe_code)]

use crate::arena::Arena;
use crate::restore::Scratch;
use crate::sys::{self, Errno};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use mojavefs_procfs::maps::{Mapping, parse};
use mojavefs_procfs::process::leading;

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
}
