//! How a process stands among others: its group and session, limits, priority, name. Its checkpoint has them as they were.

use super::{Failure, What};
use crate::proc::ProcPath;
use crate::sys::{self, Errno};

/// `RLIMIT_CPU` to `RLIMIT_RTTIME`.
const LIMITS: usize = 16;
/// Bytes of a name, and its end.
const NAME_BYTES: usize = 16;

/// Puts them back from the `checkpoint`. What only root may put back stays for others as it is: harder limits, and a priority
/// that was lowered.
pub(super) fn put_back(checkpoint: i32) -> Result<(), Failure> {
    put_group_back(checkpoint)?;
    for which in 0..LIMITS {
        put_limit_back(checkpoint, which).what("a limit")?;
    }
    put_priority_back(checkpoint).what("its priority")?;
    put_name_back(checkpoint).what("its name")
}

fn put_group_back(checkpoint: i32) -> Result<(), Failure> {
    let of = |number, pid: i32| sys::plain(number, &[pid as usize]).what("its process group: the checkpoint is gone");
    if of(libc::SYS_getsid, 0)? != of(libc::SYS_getsid, checkpoint)? {
        return Err(Errno(libc::EPERM)).what("its session (setsid)");
    }
    let group = of(libc::SYS_getpgid, checkpoint)?;
    if of(libc::SYS_getpgid, 0)? != group {
        sys::plain(libc::SYS_setpgid, &[0, group]).what("its process group")?;
    }
    Ok(())
}

fn put_limit_back(checkpoint: i32, which: usize) -> sys::Result<()> {
    let of = |pid: i32| -> sys::Result<libc::rlimit64> {
        sys::filled(libc::SYS_prlimit64, &[pid as usize, which, 0], 3, sys::zeroed())
    };
    let (now, before) = (of(0)?, of(checkpoint)?);
    if (now.rlim_cur, now.rlim_max) == (before.rlim_cur, before.rlim_max) {
        return Ok(());
    }
    let set = |limit: &libc::rlimit64| sys::given(libc::SYS_prlimit64, &[0, which, 0, 0], 2, limit).map(drop);
    let within = libc::rlimit64 { rlim_cur: before.rlim_cur.min(now.rlim_max), rlim_max: now.rlim_max };
    set(&before).or_else(|_| set(&within))
}

fn put_priority_back(checkpoint: i32) -> sys::Result<()> {
    let of = |pid: i32| sys::plain(libc::SYS_getpriority, &[libc::PRIO_PROCESS as usize, pid as usize]);
    let (now, before) = (of(0)?, of(checkpoint)?);
    if now != before {
        // As the kernel gives it: 20 less the value, so that none is negative.
        let value = 20 - before as isize;
        let _ = sys::plain(libc::SYS_setpriority, &[libc::PRIO_PROCESS as usize, 0, value.cast_unsigned()]);
    }
    Ok(())
}

fn put_name_back(checkpoint: i32) -> sys::Result<()> {
    let mut name = [0u8; NAME_BYTES];
    let path = ProcPath::of(checkpoint).then(b"/comm");
    let length = sys::read_once(path.as_bytes(), &mut name)?.len();
    // The kernel ends it with a line feed here, with a zero there.
    if let Some(end) = name[..length].last_mut() {
        *end = 0;
    }
    let at = name.as_ptr() as usize;
    sys::plain(libc::SYS_prctl, &[libc::PR_SET_NAME as usize, at]).map(drop)
}
