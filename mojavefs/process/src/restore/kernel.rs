//! What the kernel keeps of a process beside memory and descriptors.

use super::{Failure, What};
use crate::arena::Arena;
use crate::proc::ProcPath;
use crate::record;
use crate::sys::{self, Errno};

/// A thread that was started since can't be undone from here.
pub(super) fn end_new_threads(_arena: &mut Arena) -> Result<(), Failure> {
    let threads = sys::stat(b"/proc/self/task\0").what("the list of its threads")?.st_nlink.saturating_sub(2);
    match threads {
        0 | 1 => Ok(()),
        _ => Err(Errno(libc::EBUSY)).what("itself: threads were started since and still run"),
    }
}

/// Working directory, signals, timers, umask.
pub(super) fn put_back(arena: &mut Arena) -> Result<(), Failure> {
    let level = &arena.levels[arena.jump.level];
    let record = &level.record;
    if record::ids() != record.ids {
        return Err(Errno(libc::EPERM)).what("its user and group ids, which were changed");
    }
    put_directory_back(level.checkpoint).what("the working directory")?;
    let _ = sys::plain(libc::SYS_umask, &[record.umask as usize]);
    let actions = loop {
        match level.asleep.actions() {
            Some(actions) => break actions,
            None => {
                sys::kill(level.checkpoint, 0).what("what signals do: the checkpoint is gone")?;
                let _ = sys::plain(libc::SYS_sched_yield, &[]);
            }
        }
    };
    for (signal, before) in actions.iter().enumerate().skip(1) {
        let signal = signal as i32;
        if sys::action(signal).is_some_and(|now| now != *before) {
            sys::set_action(signal, before).what("what a signal does")?;
        }
    }
    sys::given(libc::SYS_sigaltstack, &[0, 0], 0, &record.signal_stack).what("the signal stack")?;
    delete_timers(&mut arena.scratch.text_a);
    let record = &arena.levels[arena.jump.level].record;
    set_timers(&[sys::zeroed(); 3])?;
    super::signals::take_own_away(arena.owner, record.pending);
    set_timers(&record.timers)
}

fn set_timers(timers: &[libc::itimerval; 3]) -> Result<(), Failure> {
    for (which, timer) in timers.iter().enumerate() {
        sys::given(libc::SYS_setitimer, &[which, 0, 0], 1, timer).what("a timer")?;
    }
    Ok(())
}

fn put_directory_back(checkpoint: i32) -> sys::Result<()> {
    let path = ProcPath::of(checkpoint).then(b"/cwd");
    if sys::identity(b"\0") == Ok(sys::identity(path.as_bytes())?) {
        return Ok(());
    }
    let dir = sys::open(path.as_bytes(), libc::O_PATH | libc::O_DIRECTORY)?;
    let result = sys::plain(libc::SYS_fchdir, &[dir as usize]);
    sys::close(dir);
    result.map(drop)
}

/// At the entry there were no POSIX timers, or it would have been refused.
fn delete_timers(buffer: &mut [u8]) {
    let Ok(text) = sys::read_all(b"/proc/self/timers\0", buffer) else { return };
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(id) = line.strip_prefix(b"ID: ") {
            let _ = sys::plain(libc::SYS_timer_delete, &[crate::proc::leading(id, 10).0 as usize]);
        }
    }
}
