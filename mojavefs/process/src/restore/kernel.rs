//! What the kernel keeps of a process beside memory and descriptors.

use super::{Failure, What};
use crate::arena::{Arena, Level};
use crate::kept::About;
use crate::pending;
use crate::record;
use crate::sys::{self, Errno};
use mojavefs_procfs::process::ProcPath;

/// A thread that was started since can't be undone from here.
pub(super) fn end_new_threads(_arena: &mut Arena) -> Result<(), Failure> {
    if sys::is_alone() {
        return Ok(());
    }
    let threads = sys::stat(b"/proc/self/task\0").what("the list of its threads")?.st_nlink.saturating_sub(2);
    match threads {
        0 | 1 => Ok(()),
        _ => Err(Errno(libc::EBUSY)).what("itself: threads were started since and still run"),
    }
}

/// Working directory, signals, timers, umask.
pub(super) fn put_back(arena: &mut Arena) -> Result<(), Failure> {
    let level = &arena.levels[arena.jump.level];
    put_directory_back(level).what("the working directory")?;
    let _ = sys::plain(libc::SYS_umask, &[level.record.umask as usize]);
    put_actions_back(arena)?;
    let signal_stack = &arena.levels[arena.jump.level].record.signal_stack;
    sys::given(libc::SYS_sigaltstack, &[0, 0], 0, signal_stack).what("the signal stack")?;
    delete_timers(arena);
    set_timers(&[sys::zeroed(); 3])?;
    pending::put_back(arena, arena.jump.level).what("the signals that were on their way")?;
    set_timers(&arena.levels[arena.jump.level].record.timers)
}

fn put_actions_back(arena: &mut Arena) -> Result<(), Failure> {
    let now = record::acted_upon(arena);
    let before = &arena.levels[arena.jump.level].record.actions;
    for signal in sys::signals(before.noted | now) {
        let action = before.of(signal);
        if sys::action(signal).is_some_and(|now| now != action) {
            sys::set_action(signal, &action).what("what a signal does")?;
        }
    }
    Ok(())
}

/// Those that neither run nor are to run are left alone. One that rings again and again does not run from when it rings until
/// its signal is taken.
fn set_timers(timers: &[libc::itimerval; 3]) -> Result<(), Failure> {
    let is_none = |time: &libc::timeval| time.tv_sec == 0 && time.tv_usec == 0;
    let is_off = |timer: &libc::itimerval| is_none(&timer.it_value) && is_none(&timer.it_interval);
    for (which, (timer, now)) in timers.iter().zip(record::timers()).enumerate() {
        if is_off(timer) && is_off(&now) {
            continue;
        }
        let it_value = if is_none(&timer.it_value) { timer.it_interval } else { timer.it_value };
        let timer = libc::itimerval { it_value, ..*timer };
        sys::given(libc::SYS_setitimer, &[which, 0, 0], 1, &timer).what("a timer")?;
    }
    Ok(())
}

fn put_directory_back(level: &Level) -> sys::Result<()> {
    if sys::identity(b"\0") == Ok(level.record.directory) {
        return Ok(());
    }
    let path = ProcPath::of(level.checkpoint).then(b"/cwd");
    let dir = sys::open(path.as_bytes(), libc::O_PATH | libc::O_DIRECTORY)?;
    let result = sys::plain(libc::SYS_fchdir, &[dir as usize]);
    sys::close(dir);
    result.map(drop)
}

/// At the entry there were no POSIX timers, or it would have been refused.
fn delete_timers(arena: &mut Arena) {
    let Ok(timers) = arena.kept(About::Timers) else { return };
    let Ok(text) = sys::read_whole(timers, &mut arena.scratch.text_a) else { return };
    for line in text.split(|byte| *byte == b'\n') {
        if let Some(id) = line.strip_prefix(b"ID: ") {
            let _ = sys::plain(libc::SYS_timer_delete, &[mojavefs_procfs::process::leading(id, 10).0 as usize]);
        }
    }
}
