//! Locks on files.

use crate::call::Call;
use crate::limits::{OFFER_STEP, RUNS_INTERVAL, RUNS_TRIES_MAX};
use crate::patience::{may_wait, wait_for_others};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{ConnectionExt, FsOp, LockAsked, LockClass, LockHeld, LockMode, LockOwner, Span, Unlocked};

impl Call<'_> {
    /// Takes a lock, or lets go of one. Where it `waits`, any signal that its process handles ends that.
    ///
    /// # Errors
    /// [`FaultKind::Locked`] if it is another's; [`FaultKind::Queued`] if this must be asked for again by one who may wait;
    /// [`FaultKind::Deadlock`]; [`FaultKind::Interrupted`].
    pub fn lock(&self, ino: Ino, asked: &LockAsked, waits: bool) -> Result<(), Fault> {
        if asked.mode.is_some() {
            self.view.locks().note(ino, asked);
        }
        loop {
            let seen = self.view.locks().offers();
            // Nobody stands in a line on behalf of a thread that does not wait.
            let queues = waits && may_wait();
            match self.server().locked(self.asks(FsOp::Lock { ino, asked: *asked, waits: queues })) {
                Ok(true) => return Ok(()),
                Ok(false) if may_wait() => return self.server().done(self.asks(FsOp::MakeCurrent { ino })),
                Ok(false) => return Err(later("others write out what they hold back")),
                Err(fault) if fault.kind == FaultKind::Locked && waits => return Err(later(&fault.message)),
                Err(fault) if fault.kind == FaultKind::Queued => self.wait_for_offer(ino, asked, seen)?,
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Waits until a lock may be free; who is told to stop waiting leaves the line.
    fn wait_for_offer(&self, ino: Ino, asked: &LockAsked, seen: u64) -> Result<(), Fault> {
        let millis = OFFER_STEP.as_millis() as u32;
        let ask = |after| self.server().number(self.asks(FsOp::AwaitOffer { after, millis }));
        let waited = wait_for_others(|| self.view.locks().wait_past(seen, ask));
        if waited.is_err() || !may_wait() {
            self.server().done(self.asks(FsOp::LeaveLine { ino, asked: *asked }))?;
            return Err(waited.err().unwrap_or_else(|| Fault::new(FaultKind::Interrupted, "nobody waits any more")));
        }
        Ok(())
    }

    /// A program is opened to run it, and runs until that is closed.
    pub fn run(&self, ino: Ino, handle: u64) -> Result<(), Fault> {
        self.lock(ino, &self.running(handle, LockMode::Shared), false)
    }

    fn running(&self, handle: u64, mode: LockMode) -> LockAsked {
        let owner = LockOwner { class: LockClass::Program, number: handle };
        LockAsked { owner, handle, pid: self.caller.pid, span: Span::ALL, mode: Some(mode) }
    }

    /// A file may be opened to write to it: it is no program that runs in another view. In this one the kernel sees to that.
    ///
    /// # Errors
    /// [`FaultKind::Runs`]; [`FaultKind::Queued`] if this must be asked for again by one who may wait.
    pub fn may_write(&self, ino: Ino) -> Result<(), Fault> {
        // What has just ended may not be known to have.
        for _ in 0..RUNS_TRIES_MAX {
            let found = self.test_lock(ino, &self.running(0, LockMode::Exclusive))?;
            let Some(held) = found.filter(|held| !held.is_here) else { return Ok(()) };
            if !may_wait() {
                return Err(later("it may be a program that runs"));
            }
            std::thread::sleep(RUNS_INTERVAL);
            tracing::trace!("inode {ino} is run by process {}", held.pid);
        }
        Err(Fault::new(FaultKind::Runs, format!("inode {ino} is a program that runs")))
    }

    /// What is in the way of a lock.
    pub fn test_lock(&self, ino: Ino, asked: &LockAsked) -> Result<Option<LockHeld>, Fault> {
        self.server().obstacle(self.asks(FsOp::TestLock { ino, asked: *asked }))
    }

    /// Somebody has closed a file.
    pub fn unlock(&self, ino: Ino, whose: Unlocked) -> Result<(), Fault> {
        match self.view.locks().has_closed(ino, whose) {
            true => self.server().done(self.asks(FsOp::Unlock { ino, whose })),
            false => Ok(()),
        }
    }
}

fn later(why: &str) -> Fault {
    Fault::new(FaultKind::Queued, why)
}
