//! Signals that are on their way to a process: a fork does not have them.

use super::kernel::succeeded;
use super::tracee::{Point, Tracee};
use crate::sys::{self, SIGINFO_BYTES};
use nix::libc;
use std::io;
use std::os::unix::fs::FileExt;

/// One of them, with all that is said of it.
struct Signal {
    info: [u8; SIGINFO_BYTES],
    /// To the thread, not to the process.
    to_thread: bool,
}

/// All of them, in their order.
pub(super) struct Signals(Vec<Signal>);

impl Signals {
    /// Notes what is on its way to a process that is stopped.
    pub(super) fn note(tracee: &Tracee) -> io::Result<Signals> {
        let mut all = Vec::new();
        for to_thread in [true, false] {
            let infos = sys::ptrace_signals(tracee.pid(), !to_thread)?;
            all.extend(infos.into_iter().map(|info| Signal { info, to_thread }));
        }
        Ok(Signals(all))
    }

    /// Has the process send them to itself again: only so are they what they were.
    pub(super) fn put_back(&self, tracee: &Tracee, point: &Point) -> io::Result<()> {
        let own = u64::from(tracee.pid().as_raw().cast_unsigned());
        for Signal { info, to_thread } in &self.0 {
            let number = u64::from(u32::from_ne_bytes([info[0], info[1], info[2], info[3]]));
            tracee.with_scratch(point, |memory, at| {
                memory.write_all_at(info, at)?;
                succeeded(match to_thread {
                    true => tracee.call(point, libc::SYS_rt_tgsigqueueinfo, &[own, own, number, at])?,
                    false => tracee.call(point, libc::SYS_rt_sigqueueinfo, &[own, number, at])?,
                })
            })?;
        }
        Ok(())
    }
}
