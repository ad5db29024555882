//! The system calls of checkpoint and restore, without the C library: it keeps state in the very memory that is put back.

#![allow(unsafe_code)]

mod files;
mod memory;
mod processes;
mod registers;
mod signals;

pub(crate) use files::*;
pub(crate) use memory::*;
pub(crate) use mojavefs_procfs::files::{close, open, read, read_all, read_at, read_once, read_whole, seek};
pub(crate) use mojavefs_procfs::{Errno, Result, call};
use mojavefs_procfs::{checked, fd_arg};
pub(crate) use processes::*;
pub(crate) use registers::*;
pub(crate) use signals::*;

/// A system call whose arguments are plain numbers.
pub(crate) fn plain(number: libc::c_long, args: &[usize]) -> Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    // SAFETY: used in this crate for calls that neither read nor write memory, or whose pointers are of the arena.
    unsafe { call(number, all) }
}

/// Fills in a plain value by a call that takes its address as argument `at`.
pub(crate) fn filled<T: Copy>(number: libc::c_long, args: &[usize], at: usize, mut value: T) -> Result<T> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    all[at] = &raw mut value as usize;
    // SAFETY: used for calls that write one `T` at that argument.
    unsafe { call(number, all) }.map(|_| value)
}

/// Hands a plain value to a call that takes its address as argument `at`.
pub(crate) fn given<T>(number: libc::c_long, args: &[usize], at: usize, value: &T) -> Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    all[at] = core::ptr::from_ref(value) as usize;
    // SAFETY: used for calls that read one `T` at that argument.
    unsafe { call(number, all) }
}

/// A value of all zeros.
pub(crate) fn zeroed<T: Copy + Plain>() -> T {
    // SAFETY: `Plain` types are numbers all through.
    unsafe { core::mem::zeroed() }
}

/// Structures of the kernel's that are valid whatever bytes they hold.
pub(crate) trait Plain {}
impl Plain for libc::stat {}
impl Plain for libc::statx {}
impl Plain for libc::stack_t {}
impl Plain for libc::itimerval {}
impl Plain for libc::rlimit64 {}
impl Plain for libc::rusage {}
impl Plain for libc::sockaddr_storage {}
