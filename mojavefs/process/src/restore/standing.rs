//! How a process stands among others: its group and session, limits, priority, name.

use super::{Failure, What};
use crate::arena::Level;
use crate::record::Standing;
use crate::sys::{self, Errno};

/// `RLIMIT_CPU` to `RLIMIT_RTTIME`.
const LIMITS: usize = 16;

/// Puts them back as they were when the level was entered. What only root may put back stays for others as it is: harder
/// limits, and a priority that was lowered.
pub(super) fn put_back(level: &Level) -> Result<(), Failure> {
    let (before, now) = (&level.record.standing, Standing::now());
    if now.session != before.session {
        return Err(Errno(libc::EPERM)).what("its session (setsid)");
    }
    if now.group != before.group {
        sys::plain(libc::SYS_setpgid, &[0, before.group as usize]).what("its process group")?;
    }
    for which in 0..LIMITS {
        put_limit_back(level.checkpoint, which).what("a limit")?;
    }
    if now.priority != before.priority {
        let value = 20 - before.priority as isize;
        let _ = sys::plain(libc::SYS_setpriority, &[libc::PRIO_PROCESS as usize, 0, value.cast_unsigned()]);
    }
    if now.name != before.name {
        sys::given(libc::SYS_prctl, &[libc::PR_SET_NAME as usize], 1, &before.name).what("its name")?;
    }
    Ok(())
}

/// The checkpoint has them as they were.
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
