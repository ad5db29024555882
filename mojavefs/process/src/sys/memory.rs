//! Mappings, pages, and the memory of other processes.

use super::{Result, call, fd_arg, plain};

/// Reads page descriptors of `/proc/PID/pagemap` from the page numbered `page` on; returns how many.
pub(crate) fn page_descriptors(fd: i32, page: usize, into: &mut [u64]) -> Result<usize> {
    let bytes = plain(libc::SYS_pread64, &[fd_arg(fd), into.as_mut_ptr() as usize, into.len() * 8, page * 8])?;
    Ok(bytes / 8)
}

/// `struct pm_scan_arg` of `linux/fs.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    found: u64,
    found_max: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// `struct page_region`: addresses, and what is found there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region {
    pub(crate) start: u64,
    pub(crate) end: u64,
    categories: u64,
}

/// `PAGEMAP_SCAN`
const SCAN: usize = 0xC060_6610;
/// `PAGE_IS_PFNZERO`
const IS_ZERO_PAGE: u64 = 1 << 5;

/// Where from `start` to `end` the kernel has mapped its page of zeros, of which no memory is made before it is written to.
/// `fd` is a `/proc/PID/pagemap`. Returns how many regions, and where it has come to: before `end` if there are more.
pub(crate) fn zero_pages(fd: i32, start: usize, end: usize, into: &mut [Region]) -> Result<(usize, usize)> {
    let mut scan = Scan { start: start as u64, end: end as u64, ..Scan::default() };
    (scan.size, scan.found, scan.found_max) = (size_of::<Scan>() as u64, into.as_mut_ptr() as u64, into.len() as u64);
    (scan.category_mask, scan.return_mask) = (IS_ZERO_PAGE, IS_ZERO_PAGE);
    let count = plain(libc::SYS_ioctl, &[fd_arg(fd), SCAN, &raw mut scan as usize])?;
    Ok((count, scan.walk_end as usize))
}

/// A piece of memory, for the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

/// Copies pieces of another process's memory to where they are in this one.
///
/// # Safety
/// Nothing that runs meanwhile may rely on what these pieces held.
pub(crate) unsafe fn copy_from(pid: i32, pieces: &[Piece]) -> Result<usize> {
    let list = pieces.as_ptr() as usize;
    // SAFETY: as the caller promises; the kernel checks the addresses.
    unsafe { call(libc::SYS_process_vm_readv, [fd_arg(pid), list, pieces.len(), list, pieces.len(), 0]) }
}

/// Reads another process's memory.
pub(crate) fn read_other(pid: i32, at: usize, into: &mut [u8]) -> Result<usize> {
    let here = Piece { start: into.as_mut_ptr() as usize, bytes: into.len() };
    let there = Piece { start: at, ..here };
    let (here, there) = (&raw const here as usize, &raw const there as usize);
    plain(libc::SYS_process_vm_readv, &[fd_arg(pid), here, 1, there, 1, 0])
}

/// Whether this process's memory holds these bytes at an address.
///
/// # Safety
/// They must be mapped and readable, and nobody may write there meanwhile.
pub(crate) unsafe fn holds(at: usize, bytes: &[u8]) -> bool {
    // SAFETY: as the caller promises.
    (unsafe { core::slice::from_raw_parts(at as *const u8, bytes.len()) }) == bytes
}

/// Reads another process's memory as a debugger does, whatever its protection.
///
/// # Safety
/// As for [`copy_from`].
pub(crate) unsafe fn copy_by_file(memory: i32, piece: Piece) -> Result<usize> {
    // SAFETY: as the caller promises; the kernel checks the addresses.
    unsafe { call(libc::SYS_pread64, [fd_arg(memory), piece.start, piece.bytes, piece.start, 0, 0]) }
}

pub(crate) fn map(at: usize, bytes: usize, prot: i32, flags: i32, fd: i32, offset: u64) -> Result<usize> {
    plain(libc::SYS_mmap, &[at, bytes, prot as usize, flags as usize, fd_arg(fd), offset as usize])
}

pub(crate) fn unmap(at: usize, bytes: usize) -> Result<()> {
    plain(libc::SYS_munmap, &[at, bytes]).map(drop)
}

pub(crate) fn protect(at: usize, bytes: usize, prot: i32) -> Result<()> {
    plain(libc::SYS_mprotect, &[at, bytes, prot as usize]).map(drop)
}

pub(crate) fn advise(at: usize, bytes: usize, advice: i32) -> Result<()> {
    plain(libc::SYS_madvise, &[at, bytes, advice as usize]).map(drop)
}

/// Sets the end of the heap; returns where it is.
pub(crate) fn brk(end: usize) -> usize {
    plain(libc::SYS_brk, &[end]).unwrap_or(0)
}

/// Has the kernel write out what was written to mapped files.
pub(crate) fn write_out(at: usize, bytes: usize) -> Result<()> {
    plain(libc::SYS_msync, &[at, bytes, libc::MS_SYNC as usize]).map(drop)
}
