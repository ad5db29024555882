//! Signals that were raised inside of what is undone, and have reached nobody yet.

use crate::sys::{self, Errno, Mask, Plain};

/// The last of those of which only one can be on its way.
const ORDINARY_LAST: i32 = 31;
/// How many of one kind that stay are looked past for others: real-time signals queue.
const STAYING_MAX: usize = 32;

/// `siginfo_t`, as far as it says who has sent a signal.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    signal: i32,
    errno: i32,
    code: i32,
    gap: i32,
    pid: i32,
    rest: [i32; 27],
}

impl Plain for Info {}

impl Info {
    /// It was sent by the process itself, or by a timer of its own.
    fn is_own(&self, own: i32) -> bool {
        match self.code {
            libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => self.pid == own,
            libc::SI_KERNEL => matches!(self.signal, libc::SIGALRM | libc::SIGVTALRM | libc::SIGPROF),
            code => code == libc::SI_TIMER,
        }
    }
}

/// Takes away what is on its way to the process `own`, was not `before`, and came from itself: it was not sent. What others
/// have sent is still to come. Signals are blocked and timers stand still.
pub(super) fn take_own_away(own: i32, before: Mask) {
    let since = sys::pending() & !before;
    for signal in (1..=64).filter(|signal| since & 1 << (signal - 1) != 0) {
        let (mut staying, mut count) = ([None; STAYING_MAX], 0);
        while let Some(info) = take(signal) {
            if info.is_own(own) {
                continue;
            }
            staying[count] = Some(info);
            count += 1;
            if signal <= ORDINARY_LAST || count == STAYING_MAX {
                break;
            }
        }
        for info in staying.into_iter().flatten() {
            // Nobody but the process itself may say that another has sent it.
            let _ = sys::given(libc::SYS_rt_sigqueueinfo, &[own as usize, signal as usize], 2, &info);
        }
    }
}

/// Takes a signal that is on its way; nothing if there is none.
fn take(signal: i32) -> Option<Info> {
    let (set, now): (Mask, _) = (1 << (signal - 1), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let args = [&raw const set as usize, 0, &raw const now as usize, size_of::<Mask>()];
    loop {
        match sys::filled(libc::SYS_rt_sigtimedwait, &args, 1, sys::zeroed::<Info>()) {
            Ok(info) => return Some(info),
            Err(Errno(libc::EINTR)) => {}
            Err(_) => return None,
        }
    }
}
