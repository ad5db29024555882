//! Waiting for others' decisions without being deaf to anything else.

use super::{Scene, host_fault, job_around};
use crate::control::{self, unexpected};
use crate::job::supervise::Woken;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, SpecOp};
use std::os::fd::{AsFd, BorrowedFd};

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
        let stream = self.filesystem.connect()?;
        control::put(&stream, &Ask::Speculation(SpecOp::Await { specs: specs.to_vec(), behind, millis: u32::MAX }))?;
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
