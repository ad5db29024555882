//! Signals, their masks and what they do.

use super::{Result, filled, plain};

/// The signals of a mask, one bit each.
pub(crate) type Mask = u64;

/// One more than the last signal.
pub(crate) const SIGNALS: usize = 65;

pub(crate) fn bit(signal: i32) -> Mask {
    1 << (signal - 1)
}

/// The signals of a mask.
pub(crate) fn signals(mask: Mask) -> impl Iterator<Item = i32> {
    (1..SIGNALS as i32).filter(move |signal| mask & bit(*signal) != 0)
}

/// Sets the signal mask; returns the one before.
pub(crate) fn set_mask(mask: Mask) -> Mask {
    let mut before: Mask = 0;
    let (new, old) = (&raw const mask as usize, &raw mut before as usize);
    let _ = plain(libc::SYS_rt_sigprocmask, &[libc::SIG_SETMASK as usize, new, old, size_of::<Mask>()]);
    before
}

/// Signals that are on their way.
pub(crate) fn pending() -> Mask {
    filled(libc::SYS_rt_sigpending, &[0, size_of::<Mask>()], 0, 0).unwrap_or(0)
}

/// What a signal does, as the kernel has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Action {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: Mask,
}

impl Action {
    pub(crate) fn is_ignored(&self) -> bool {
        self.handler == libc::SIG_IGN
    }

    /// For `SIGCHLD`: children are gone as soon as they end, and none of them is waited for.
    pub(crate) fn forgets_children(&self) -> bool {
        self.is_ignored() || self.flags & libc::SA_NOCLDWAIT as u64 != 0
    }
}

/// Those of `signals` that `mask` lets through and that do what they do by default.
pub(crate) fn unhandled(signals: &[i32], mask: Mask) -> Mask {
    let bits = signals.iter().filter(|signal| action(**signal).is_some_and(|action| action.handler == libc::SIG_DFL));
    bits.fold(0, |bits, signal| bits | bit(*signal)) & !mask
}

pub(crate) fn action(signal: i32) -> Option<Action> {
    let mut action = Action::default();
    let old = &raw mut action as usize;
    plain(libc::SYS_rt_sigaction, &[signal as usize, 0, old, size_of::<Mask>()]).ok().map(|_| action)
}

pub(crate) fn set_action(signal: i32, action: &Action) -> Result<()> {
    let new = core::ptr::from_ref(action) as usize;
    plain(libc::SYS_rt_sigaction, &[signal as usize, new, 0, size_of::<Mask>()]).map(drop)
}
