//! Locks on files.

use crate::call::Call;
use crate::limits::OFFER_STEP;
use crate::patience::{may_wait, wait_for_others};
use mojavefs::id::Ino;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{ConnectionExt, FsOp, LockAsked, LockHeld, Unlocked};

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
                Ok(false) if may_wait() => return self.server().done(self.asks(FsOp::HandOver { ino })),
                Ok(false) => return Err(later("others hand over what they have written")),
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
