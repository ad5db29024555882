//! Where the filesystem documents that it answers otherwise than the host's: every difference that the nets leave out stands
//! here, and in `docs/semantics.md`.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;
use std::os::fd::BorrowedFd;

/// A directory's size is nobody's business.
pub(crate) fn directory_size() -> i64 {
    0
}

/// A time that a program has set is told; what the clock said is not the same twice. Access times are told nowhere.
pub(crate) fn time(seconds: i64, nanoseconds: i64) -> String {
    match seconds {
        ..LATEST_SET => format!(" mtime={seconds}.{nanoseconds:09}"),
        _ => " mtime=now".to_owned(),
    }
}

/// Copies in the kernel of files that are open with `O_DIRECT`: the host's filesystem asks for aligned ranges even there.
pub(crate) fn copies_in_the_kernel(flags: [OFlag; 2]) -> bool {
    !flags.iter().any(|flags| flags.contains(OFlag::O_DIRECT))
}

/// A copy in the kernel may stop at the length that a file had before another job made it longer: not so if it is asked for first.
pub(crate) fn ask_how_long_it_is(from: BorrowedFd<'_>) -> Result<(), Errno> {
    fstat(from).map(drop)
}

/// With `O_DIRECT` the host's filesystem asks for aligned offsets; a mount takes any.
pub(crate) fn takes_any_offset(flags: OFlag) -> bool {
    !flags.contains(OFlag::O_DIRECT)
}

/// Programs of the nets set times before this one (2004).
pub const LATEST_SET: i64 = 1 << 30;

/// A path through a directory that another is moving may fail with `ESTALE`, a few times in a row: it is tried again so often.
pub(crate) const STALE_TRIES: usize = 200;

/// Whether a call is to be made again.
pub(crate) fn passes(errno: Errno) -> bool {
    errno == Errno::ESTALE
}

/// Whether this is what a job may see of a file that another one is cutting off while it reads: the old size, with nothing in it.
pub fn is_zeros(line: &str) -> bool {
    line.contains("\\0")
}

/// Whether this is what may be seen of a line while another process writes it, or its job is committed: what is in the file
/// already, up to the size that it had before.
pub fn is_half(whole: &str, seen: &str) -> bool {
    whole.starts_with(seen)
}
