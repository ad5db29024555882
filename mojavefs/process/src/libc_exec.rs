//! `exec` as the C library has it: a program that is linked with this library means these by the names.

#![allow(unsafe_code)]
// Seen by the linker, not by Rust.
#![allow(unreachable_pub)]

use crate::exec;
use crate::sys::{self, Errno};
use core::arch::naked_asm;
use core::ffi::{CStr, c_char, c_int};

type Words = *const *const c_char;

const PATH_BYTES_MAX: usize = libc::PATH_MAX as usize;

fn answered(Errno(errno): Errno) -> c_int {
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
    -1
}

fn environment() -> Words {
    unsafe extern "C" {
        static environ: Words;
    }
    // SAFETY: read as the C library itself reads it.
    unsafe { environ }
}

fn system_call(path: *const c_char, argv: Words, envp: Words) -> Errno {
    // SAFETY: strings and lists are the caller's; the kernel checks the addresses.
    let returned = unsafe { sys::call(libc::SYS_execve, [path as usize, argv as usize, envp as usize, 0, 0, 0]) };
    returned.err().unwrap_or(Errno(0))
}

/// As [`system_call`]; what is neither a program nor says what runs it is a script of the shell's.
fn program_or_script(path: *const c_char, argv: Words, envp: Words) -> Errno {
    match system_call(path, argv, envp) {
        Errno(libc::ENOEXEC) => {
            // SAFETY: the caller's list ends with a null pointer.
            let words = (0..).map(|at| unsafe { *argv.add(at) }).take_while(|word| !word.is_null()).skip(1);
            let shell = c"/bin/sh".as_ptr();
            let words: Vec<_> = [shell, path].into_iter().chain(words).chain([core::ptr::null()]).collect();
            system_call(shell, words.as_ptr(), envp)
        }
        other => other,
    }
}

/// Looks for a program in the directories of `PATH`, as `execvp` does.
fn searched(file: &CStr, argv: Words, envp: Words) -> Errno {
    let name = file.to_bytes_with_nul();
    if name.len() == 1 {
        return Errno(libc::ENOENT);
    }
    if name.contains(&b'/') {
        return program_or_script(file.as_ptr(), argv, envp);
    }
    // SAFETY: the caller does not change the environment meanwhile.
    let path = unsafe { libc::getenv(c"PATH".as_ptr()) };
    // SAFETY: it ends with a NUL.
    let path = if path.is_null() { c"/bin:/usr/bin" } else { unsafe { CStr::from_ptr(path) } };
    let mut answer = Errno(libc::ENOENT);
    for dir in path.to_bytes().split(|byte| *byte == b':') {
        let mut full = [0u8; PATH_BYTES_MAX];
        let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
        let Some(room) = full.get_mut(..dir.len() + slash.len() + name.len()) else { continue };
        for (byte, of) in room.iter_mut().zip(dir.iter().chain(slash).chain(name)) {
            *byte = *of;
        }
        match program_or_script(full.as_ptr().cast(), argv, envp) {
            Errno(libc::EACCES) => answer = Errno(libc::EACCES),
            Errno(libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT) => {}
            other => return other,
        }
    }
    answer
}

/// `int execve(const char *path, char *const argv[], char *const envp[])`
///
/// # Safety
/// As for the C library's, here and below.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execve(path: *const c_char, argv: Words, envp: Words) -> c_int {
    answered(exec::instead(|| system_call(path, argv, envp)))
}

/// `int execv(const char *path, char *const argv[])`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execv(path: *const c_char, argv: Words) -> c_int {
    answered(exec::instead(|| system_call(path, argv, environment())))
}

/// `int execvpe(const char *file, char *const argv[], char *const envp[])`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvpe(file: *const c_char, argv: Words, envp: Words) -> c_int {
    // SAFETY: as the caller promises, it ends with a NUL.
    let file = unsafe { CStr::from_ptr(file) };
    answered(exec::instead(|| searched(file, argv, envp)))
}

/// `int execvp(const char *file, char *const argv[])`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execvp(file: *const c_char, argv: Words) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { execvpe(file, argv, environment()) }
}

/// `int fexecve(int fd, char *const argv[], char *const envp[])`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fexecve(fd: c_int, argv: Words, envp: Words) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { execveat(fd, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH) }
}

/// `int execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn execveat(dir: c_int, path: *const c_char, argv: Words, envp: Words, flags: c_int) -> c_int {
    answered(exec::instead(|| {
        let args = [dir as isize as usize, path as usize, argv as usize, envp as usize, flags as usize, 0];
        // SAFETY: strings and lists are the caller's; the kernel checks the addresses.
        unsafe { sys::call(libc::SYS_execveat, args) }.err().unwrap_or(Errno(0))
    }))
}

/// The body of a function with words as arguments: has `run` called with the first argument and a list of the others, which
/// lies on the stack where the last of them are anyway.
macro_rules! with_a_list {
    ($run:ident) => {
        naked_asm!(
            "pop r10",
            "push r9",
            "push r8",
            "push rcx",
            "push rdx",
            "push rsi",
            "mov rsi, rsp",
            "push r10",
            "call {run}",
            "pop r10",
            "add rsp, 40",
            "push r10",
            "ret",
            run = sym $run,
        )
    };
}

/// `int execl(const char *path, const char *arg, ...)`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execl() {
    with_a_list!(execv)
}

/// `int execlp(const char *file, const char *arg, ...)`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execlp() {
    with_a_list!(execvp)
}

/// `int execle(const char *path, const char *arg, ..., char *const envp[])`
///
/// # Safety
/// See [`execve`].
#[unsafe(no_mangle)]
#[unsafe(naked)]
pub unsafe extern "C" fn execle() {
    with_a_list!(execl_with_environment)
}

unsafe extern "C" fn execl_with_environment(path: *const c_char, argv: Words) -> c_int {
    // SAFETY: the list ends with a null pointer, and the environment comes after it.
    unsafe {
        let count = (0..).take_while(|at| !(*argv.add(*at)).is_null()).count();
        execve(path, argv, *argv.add(count + 1) as Words)
    }
}
