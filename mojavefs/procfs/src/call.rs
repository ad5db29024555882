//! System calls by their numbers, without the C library, which keeps state of its own.

#![allow(unsafe_code)]

use core::arch::asm;

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
compile_error!("Linux on x86_64 only: this file has the few lines of assembly that another machine needs");

/// What a system call failed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(
    /// The error number, as in `errno.h`.
    pub i32,
);

/// What a system call gives.
pub type Result<T> = core::result::Result<T, Errno>;

/// What the kernel returned: a value, or an error number below 0.
///
/// # Errors
/// The error number.
pub fn checked(returned: isize) -> Result<usize> {
    match returned {
        -4095..=-1 => Err(Errno(returned.unsigned_abs() as i32)),
        value => Ok(value.cast_unsigned()),
    }
}

/// A system call by its number.
///
/// # Errors
/// The kernel's error number.
///
/// # Safety
/// As the call's manual says of its arguments.
pub unsafe fn call(number: libc::c_long, args: [usize; 6]) -> Result<usize> {
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

/// A descriptor as an argument of a system call.
pub fn fd_arg(fd: i32) -> usize {
    fd as isize as usize
}

/// A call of this crate's: one that neither reads nor writes memory but what its borrowed arguments point to.
pub(crate) fn plain(number: libc::c_long, args: &[usize]) -> Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    // SAFETY: the callers, all in this crate, pass addresses and lengths of slices that they have borrowed for the call.
    unsafe { call(number, all) }
}
