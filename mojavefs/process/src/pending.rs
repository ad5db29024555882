//! Signals that are on their way to the process: noted at an entry, with what is said of each, and on their way again after an
//! abort.
//!
//! To look at them means to take them and send them again; all signals are blocked meanwhile.

use crate::arena::Arena;
use crate::kept::About;
use crate::limits::{SIGNALS_QUEUED_MAX, STATUS_BYTES};
use crate::sys::{self, Errno, Mask, Plain};
use mojavefs_procfs::process::leading;

/// The last of those of which only one can be on its way.
const ORDINARY_LAST: i32 = 31;
/// `CLD_EXITED` to `CLD_CONTINUED`.
const OF_CHILDREN: core::ops::RangeInclusive<i32> = 1..=6;

/// `siginfo_t`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    gap: i32,
    pid: i32,
    uid: u32,
    value: u64,
    more: u64,
    /// The last bytes that the kernel keeps, unused where a process has sent a signal: what it is told apart by from others
    /// that are otherwise the same.
    mark: u64,
    never_kept: [u64; 10],
}

impl Plain for Info {}

impl Info {
    fn is_by_a_process(&self) -> bool {
        matches!(self.code, libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL)
    }

    /// It was sent by the process itself, or by a timer of its own.
    fn is_own(&self, own: i32) -> bool {
        match self.code {
            _ if self.is_by_a_process() => self.pid == own,
            libc::SI_KERNEL => matches!(self.signal, libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF),
            code => code == libc::SI_TIMER,
        }
    }

    /// A child is gone that was not there `before`, and there is none to wait for.
    fn is_of_undone_child(&self, before: &[i32]) -> bool {
        let is_of_child = self.signal == libc::SIGCHLD && OF_CHILDREN.contains(&self.code);
        is_of_child && !before.contains(&self.pid) && !sys::is_ended_child_left()
    }
}

/// One signal on its way.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Signal {
    info: Info,
    /// To the thread, not to the process.
    to_thread: bool,
}

impl Signal {
    /// On its way again. Nobody but the process itself may say that another has sent it.
    fn send(&self, own: i32) -> sys::Result<()> {
        let (own, signal) = (own as usize, self.info.signal as usize);
        match self.to_thread {
            true => sys::given(libc::SYS_rt_tgsigqueueinfo, &[own, own, signal], 3, &self.info),
            false => sys::given(libc::SYS_rt_sigqueueinfo, &[own, signal], 2, &self.info),
        }
        .map(drop)
    }
}

/// What is on its way.
struct Queues {
    /// To the thread.
    thread: Mask,
    /// To the process.
    process: Mask,
    /// How many the kernel keeps for this user.
    count: u64,
}

impl Queues {
    fn look(arena: &mut Arena) -> sys::Result<Queues> {
        let status = arena.kept(About::Status)?;
        let text = &mut arena.scratch.text_a[..STATUS_BYTES];
        let count = sys::read_at(status, 0, text)?;
        let number = |name: &[u8], radix: u64| {
            let at = text[..count].windows(name.len()).position(|part| part == name).ok_or(Errno(libc::EPROTO))?;
            Ok(leading(&text[at + name.len()..count], radix).0)
        };
        let (thread, process) = (number(b"\nSigPnd:\t", 16)?, number(b"\nShdPnd:\t", 16)?);
        Ok(Queues { thread, process, count: number(b"\nSigQ:\t", 10)? })
    }
}

/// Notes in `levels[level]` what is on its way, and leaves it so. False if there is more than can be noted.
pub(crate) fn note(arena: &mut Arena, level: usize) -> sys::Result<bool> {
    arena.levels[level].record.pending_count = 0;
    if sys::pending() == 0 {
        return Ok(true);
    }
    if Queues::look(arena)?.count > arena.scratch.signals.len() as u64 {
        return Ok(false);
    }
    let count = take_all(arena)?;
    for at in 0..count {
        let signal = &mut arena.scratch.signals[at];
        if signal.info.is_by_a_process() && signal.info.mark == 0 {
            arena.signals_marked += 1;
            signal.info.mark = arena.signals_marked;
        }
        signal.send(arena.owner)?;
    }
    let Arena { levels, scratch, .. } = arena;
    let record = &mut levels[level].record;
    let Some(room) = record.pending.get_mut(..count) else { return Ok(false) };
    room.copy_from_slice(&scratch.signals[..count]);
    record.pending_count = count;
    Ok(true)
}

/// What was on its way at the entry of `levels[level]` is so again, whether it was taken since or not. What the process has sent
/// itself since was not sent; what others have sent is still to come. Timers stand still.
pub(crate) fn put_back(arena: &mut Arena, level: usize) -> sys::Result<()> {
    if sys::pending() == 0 && arena.levels[level].record.pending_count == 0 {
        return Ok(());
    }
    let count = take_all(arena)?;
    let Arena { levels, scratch, owner, .. } = arena;
    let record = &levels[level].record;
    let before = record.pending();
    before.iter().try_for_each(|signal| signal.send(*owner))?;
    let is_new = |signal: &&Signal| !before.contains(signal);
    let was_sent = |signal: &&Signal| !signal.info.is_own(*owner) && !signal.info.is_of_undone_child(record.children());
    scratch.signals[..count].iter().filter(is_new).filter(was_sent).try_for_each(|signal| signal.send(*owner))
}

/// Takes all that is on its way, in its order, into the scratch room; returns how many.
fn take_all(arena: &mut Arena) -> sys::Result<usize> {
    let queues = Queues::look(arena)?;
    let mut count = 0;
    for signal in sys::signals(sys::pending()) {
        let (to_both, mut to_thread) =
            (queues.thread & queues.process & sys::bit(signal) != 0, queues.thread & sys::bit(signal) != 0);
        while count < SIGNALS_QUEUED_MAX {
            // The kernel gives those to the thread first.
            if to_both && to_thread {
                to_thread = Queues::look(arena)?.thread & sys::bit(signal) != 0;
            }
            let Some(info) = take(signal) else { break };
            arena.scratch.signals[count] = Signal { info, to_thread };
            count += 1;
            if signal <= ORDINARY_LAST && !(to_both && to_thread) {
                break;
            }
        }
    }
    Ok(count)
}

/// Takes a signal that is on its way; nothing if there is none.
fn take(signal: i32) -> Option<Info> {
    let (set, now): (Mask, _) = (sys::bit(signal), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let args = [&raw const set as usize, 0, &raw const now as usize, size_of::<Mask>()];
    loop {
        match sys::filled(libc::SYS_rt_sigtimedwait, &args, 1, sys::zeroed::<Info>()) {
            Ok(info) => return Some(info),
            Err(Errno(libc::EINTR)) => {}
            Err(_) => return None,
        }
    }
}
