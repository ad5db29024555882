//! The C interface; documented in `mojave.h`.

#![allow(unsafe_code)]
// Seen by the linker, not by Rust.
#![allow(unreachable_pub)]

use crate::arena::{self, Outcome};
use crate::level::{self, Entered, Refusal};
use crate::sys::{self, Errno};

fn set_errno(errno: i32) {
    // SAFETY: the address of this thread's errno.
    unsafe { *libc::__errno_location() = errno };
}

fn refuse(refusal: Refusal) {
    set_errno(match refusal {
        Refusal::Unknown => libc::ENOENT,
        Refusal::Decided(_) => libc::EALREADY,
        Refusal::Code => libc::EINVAL,
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
    refuse(level::abort(id, code, false));
    -1
}

/// `int spec_retry(int id, int code)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_retry(id: i32, code: i32) -> i32 {
    refuse(level::abort(id, code, true));
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
    match arena::existing().and_then(|arena| arena.outcome(id)) {
        Some(Outcome::Undecided) => 0,
        Some(Outcome::Committed) => 1,
        Some(Outcome::Aborted) => 2,
        None => {
            set_errno(libc::ENOENT);
            -1
        }
    }
}

/// `const char *spec_error(void)`
#[unsafe(no_mangle)]
pub extern "C" fn spec_error() -> *const libc::c_char {
    match arena::existing() {
        Some(arena) => arena.words().as_ptr().cast(),
        None => c"".as_ptr(),
    }
}
