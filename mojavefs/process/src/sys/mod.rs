//! The system calls of checkpoint and restore, without the C library: it keeps state in the very memory that is put back.

#![allow(unsafe_code)]

mod files;
mod memory;
mod processes;
mod registers;
mod signals;

use core::arch::asm;
pub(crate) use files::*;
pub(crate) use memory::*;
pub(crate) use processes::*;
pub(crate) use registers::*;
pub(crate) use signals::*;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!(
    "libmojave knows Linux on x86_64 only: src/sys has the few lines of assembly that another machine needs"
);

/// What a system call failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno(pub(crate) i32);

pub(crate) type Result<T> = core::result::Result<T, Errno>;

fn checked(returned: isize) -> Result<usize> {
    match returned {
        -4095..=-1 => Err(Errno(returned.unsigned_abs() as i32)),
        value => Ok(value.cast_unsigned()),
    }
}

/// A system call by its number.
///
/// # Safety
/// As the call's manual says of its arguments.
pub(crate) unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize> {
    let returned: isize;
    // SAFETY: the arguments are the caller's promise; the kernel clobbers rcx and r11 only.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => returned,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    checked(returned)
}

/// A system call whose arguments are plain numbers.
pub(crate) fn plain(number: libc::c_long, args: &[usize]) -> Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    // SAFETY: used in this crate for calls that neither read nor write memory, or whose pointers are of the arena.
    unsafe { call(number, all) }
}

fn fd_arg(fd: i32) -> usize {
    fd as isize as usize
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
