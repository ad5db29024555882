//! The C interface; documented in `mojave.h`.

#![allow(unsafe_code)]
// Seen by the linker, not by Rust.
#![allow(unreachable_pub)]

use crate::arena::{self, Outcome};
use crate::level::{self, Entered, Refusal};
use crate::share::{self, NoToken, Token};
use crate::sys::{self, Errno};
use std::time::Duration;

fn set_errno(errno: i32) {
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
}

fn refuse(refusal: Refusal) {
    set_errno(match refusal {
        Refusal::Unknown => libc::ENOENT,
        Refusal::Decided(_) => libc::EALREADY,
        Refusal::Code => libc::EINVAL,
        Refusal::Doubt => libc::EIO,
    });
}

/// `int speculate(void)`
#[unsafe(no_mangle)]
pub extern "C" fn speculate() -> i32 {
    returned(level::speculate(None))
}

fn returned(entered: sys::Result<Entered>) -> i32 {
    match entered {
        Ok(Entered::Commit) => 0,
        Ok(Entered::Abort(code)) => code,
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

/// `int spec_commit(int id)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_commit(id: i32) -> i32 {
    match level::commit(id) {
        Ok(()) => 0,
        Err(refusal) => {
            refuse(refusal);
            -1
        }
    }
}

/// `int spec_abort(int id, int code)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_abort(id: i32, code: i32) -> i32 {
    refuse(level::abort(id, code, false, ""));
    -1
}

/// `int spec_abort_saying(int id, int code, const char *words)`
///
/// # Safety
/// `words` ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spec_abort_saying(id: i32, code: i32, words: *const libc::c_char) -> i32 {
    // SAFETY: as the caller promises.
    let words = unsafe { core::ffi::CStr::from_ptr(words) }.to_string_lossy();
    refuse(level::abort(id, code, false, &words));
    -1
}

/// `int spec_retry(int id, int code)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_retry(id: i32, code: i32) -> i32 {
    refuse(level::abort(id, code, true, ""));
    -1
}

/// `int spec_current(void)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_current() -> i32 {
    level::current().map_or(0, |(id, _)| id)
}

/// `int spec_depth(void)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_depth() -> i32 {
    level::current().map_or(0, |(_, depth)| depth as i32)
}

/// `int spec_code(void)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_code() -> i32 {
    level::code()
}

/// `int spec_outcome(int id)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_outcome(id: i32) -> i32 {
    match level::outcome(id) {
        Some(Outcome::Undecided) => 0,
        Some(Outcome::Committed) => 1,
        Some(Outcome::Aborted) => 2,
        Some(Outcome::Unknown) => {
            set_errno(libc::EIO);
            -1
        }
        None => {
            set_errno(libc::ENOENT);
            -1
        }
    }
}

/// `int spec_share(char *token, size_t size)`
///
/// # Safety
/// `token` has room for `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spec_share(token: *mut libc::c_char, size: usize) -> i32 {
    let Ok(shared) = share::share() else {
        set_errno(libc::ENOTSUP);
        return -1;
    };
    let text = format!("{shared}\0");
    if text.len() > size {
        set_errno(libc::ERANGE);
        return -1;
    }
    // SAFETY: as the caller promises, there is room.
    unsafe { core::ptr::copy_nonoverlapping(text.as_ptr().cast(), token, text.len()) };
    0
}

/// `int spec_own(const char *token)`
///
/// # Safety
/// `token` ends with a NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn spec_own(token: *const libc::c_char) -> i32 {
    // SAFETY: as the caller promises.
    let text = unsafe { core::ffi::CStr::from_ptr(token) }.to_str().ok();
    let Some(Token(spec)) = text.and_then(|text| text.parse().ok()) else {
        if let Some(arena) = arena::existing() {
            arena.say(format_args!("{NoToken}"));
        }
        set_errno(libc::EINVAL);
        return -1;
    };
    returned(level::speculate(Some(spec)))
}

/// `int spec_barrier(int timeout_ms)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_barrier(timeout_ms: i32) -> i32 {
    match level::barrier(u64::try_from(timeout_ms).ok().map(Duration::from_millis)) {
        Ok(()) => 0,
        Err(Errno(errno)) => {
            set_errno(errno);
            -1
        }
    }
}

/// `const char *spec_error(void)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_error() -> *const libc::c_char {
    match arena::existing() {
        Some(arena) => arena.words.with_nul().as_ptr().cast(),
        None => c"".as_ptr(),
    }
}
