//! Waiting for others' decisions without being deaf to anything else.

use super::report::{Reporter, they_are};
use super::{Scene, host_fault, job_around};
use crate::control::{self, unexpected};
use crate::job::supervise::Woken;
use crate::limits::{ATTEMPTS_WAIT_MAX, QUIET_WAIT};
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, SpecOp};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

/// How a wait for others ended.
pub(super) enum Awaited {
    /// These are undecided still.
    Open(Vec<SpecId>),
    /// They wait for the very job that would wait for them.
    InVain,
    /// This signal asked for the end.
    Asked(i32),
    /// The bell was rung.
    Rung,
}

impl Scene<'_> {
    /// Whether the job around this one is in conflict itself, so that whatever runs in it is in vain.
    pub(super) fn is_around_in_conflict(&self) -> Result<bool, Fault> {
        let Some(around) = job_around(self.filesystem) else { return Ok(false) };
        match control::ask(&self.filesystem.connect()?, &Ask::Speculation(SpecOp::Status), None)?.0 {
            Answer::Reply(Reply::Status(all)) => {
                Ok(all.iter().any(|one| one.id == around && !one.conflicts.is_empty()))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Waits for the decision of these, for a while; `behind` is the job that does.
    pub(super) fn await_decided(
        &self,
        specs: &[SpecId],
        behind: Option<SpecId>,
        bell: Option<BorrowedFd<'_>>,
    ) -> Result<Awaited, Fault> {
        self.open_after(SpecOp::Await { specs: specs.to_vec(), behind, millis: u32::MAX }, bell)
    }

    /// Asks which speculations still are to be waited for, which takes a while.
    fn open_after(&self, ask: SpecOp, bell: Option<BorrowedFd<'_>>) -> Result<Awaited, Fault> {
        let stream = self.filesystem.connect()?;
        control::put(&stream, &Ask::Speculation(ask))?;
        let awaited: Vec<BorrowedFd<'_>> = std::iter::once(stream.as_fd()).chain(bell).collect();
        match self.supervisor.wait_for(&awaited).map_err(host_fault("wait for others"))? {
            Woken::Asked(signal) => Ok(Awaited::Asked(signal)),
            Woken::By(0) => match control::answer(&stream) {
                Ok((Answer::Reply(Reply::Specs(open)), _)) => Ok(Awaited::Open(open)),
                Ok((other, _)) => Err(unexpected(&other)),
                Err(fault) if fault.kind == FaultKind::Deadlock => Ok(Awaited::InVain),
                Err(fault) => Err(fault),
            },
            Woken::By(_) => Ok(Awaited::Rung),
        }
    }
}

/// A wait for older jobs that are run again, to have made anew what this one had read of them (rule 16).
pub(super) struct AttemptsWait {
    open: Vec<SpecId>,
    /// A speculation of the job that waits.
    of: SpecId,
    behind: Option<SpecId>,
    began: Instant,
    told: bool,
}

impl AttemptsWait {
    pub(super) fn new(specs: &[SpecId], of: SpecId, behind: Option<SpecId>) -> Self {
        AttemptsWait { open: specs.to_vec(), of, behind, began: Instant::now(), told: false }
    }

    pub(super) fn goes_on(&self) -> bool {
        !self.open.is_empty() && self.began.elapsed() < ATTEMPTS_WAIT_MAX
    }

    /// Waits on, until something happens or a while has passed; returns the signal that asked for the end.
    pub(super) fn step(
        &mut self,
        scene: &Scene<'_>,
        reporter: Reporter,
        bell: Option<BorrowedFd<'_>>,
    ) -> Result<Option<i32>, Fault> {
        let longest = if self.told { ATTEMPTS_WAIT_MAX.saturating_sub(self.began.elapsed()) } else { QUIET_WAIT };
        let (specs, of, behind) = (self.open.clone(), self.of, self.behind);
        let ask = SpecOp::AwaitAttempts { specs, of, behind, millis: longest.as_millis() as u32 };
        match scene.open_after(ask, bell)? {
            Awaited::Open(open) => self.open = open,
            Awaited::Asked(signal) => return Ok(Some(signal)),
            Awaited::InVain => self.open.clear(),
            Awaited::Rung => return Ok(None),
        }
        if !self.told && self.goes_on() {
            let seconds = ATTEMPTS_WAIT_MAX.as_secs();
            let they = they_are(&self.open);
            reporter.note(&format!("{they} run again: waits until that is done, {seconds} s at most"));
            self.told = true;
        }
        Ok(None)
    }
}
