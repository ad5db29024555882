//! Requests about speculations, and about the store as a whole.

use super::Session;
use crate::coordinator::Aftermath;
use crate::limits::AWAIT_TIME_MAX;
use crate::telling::Telling;
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Admin, Outcome, Reply, Resolution, SpecOp};
use std::time::Duration;

/// What can be decided of a speculation.
enum Decision {
    /// A vote to commit; whose version stands for paths in conflict; whether what it has changed counts as modified then.
    Commit(Vec<Resolution>, bool),
    /// An abort, by the process of a view, if there is one: true if its kernel holds nothing back that was written there.
    Abort(Option<(ViewId, bool)>),
    Hold,
}

impl Session {
    pub(super) fn speculation(&self, actor: u32, op: SpecOp) -> Result<Reply, Fault> {
        let coordinator = &self.shared.coordinator;
        match op {
            SpecOp::Status => {
                coordinator.count_held();
                Ok(Reply::Status(coordinator.status(actor)))
            }
            SpecOp::Commit { spec, resolutions, touch } => {
                self.decide(actor, spec, &Decision::Commit(resolutions, touch))
            }
            SpecOp::Abort { spec } => self.decide(actor, spec, &Decision::Abort(None)),
            SpecOp::Hold { spec } => self.decide(actor, spec, &Decision::Hold),
            SpecOp::Await { specs, millis, behind } => {
                let limit = Duration::from_millis(millis.into()).min(AWAIT_TIME_MAX);
                Ok(Reply::Specs(coordinator.wait_for(&specs, (behind, actor), limit)?))
            }
            SpecOp::Outcome { spec } => {
                let outcome = coordinator.outcome(spec)?;
                // Whoever hears of a decision finds that every view was told of it.
                self.shared.effects.wait(None);
                Ok(Reply::Outcome(outcome))
            }
            SpecOp::AwaitAttempts { specs, of, behind, millis } => {
                let limit = Duration::from_millis(millis.into()).min(AWAIT_TIME_MAX);
                Ok(Reply::Specs(coordinator.wait_for_attempts(&specs, of, (behind, actor), limit)))
            }
            SpecOp::RunsAgain { spec, was } => coordinator.runs_again(spec, was, actor).map(|()| Reply::Done),
            SpecOp::RunAgain { spec, pid } => Ok(Reply::Specs(coordinator.run_again(spec, pid))),
            SpecOp::Writers { path } => Ok(Reply::Specs(coordinator.writers(&path)?)),
            SpecOp::Diff { spec, from } => Ok(Reply::Diff(coordinator.diff(spec, actor, from.as_deref())?)),
            SpecOp::Unsettled { spec } => Ok(Reply::Specs(coordinator.unsettled(spec, actor)?)),
        }
    }

    /// The process of a view undoes a speculation.
    pub(super) fn undo(&self, (view, spec): (ViewId, SpecId), actor: u32, drained: bool) -> Result<Reply, Fault> {
        self.decide(actor, spec, &Decision::Abort(Some((view, drained))))
    }

    fn decide(&self, actor: u32, spec: SpecId, decision: &Decision) -> Result<Reply, Fault> {
        let is_over_host = self.shared.origin.is_some();
        let changed = if is_over_host { self.shared.coordinator.carriers(spec, actor) } else { Vec::new() };
        if let Decision::Commit(..) = decision {
            // Waits for the host's disk, and for what is being applied there: nobody else waits for that.
            self.compare_changes(actor, spec)?;
        }
        let reply = {
            let mut telling = self.shared.telling();
            let reply = self.decide_and_follow(actor, spec, decision, &mut telling);
            self.shared.follow_outstanding();
            reply?
        };
        if !is_over_host {
            return Ok(Reply::Outcome(reply));
        }
        // Whoever hears of a decision finds it on the host.
        Ok(Reply::Outcome(match self.shared.apply(&changed) {
            Ok(displaced) => Outcome { displaced, ..reply },
            Err(fault) => Outcome { unapplied: Some(fault.message), ..reply },
        }))
    }

    fn decide_and_follow(
        &self,
        actor: u32,
        spec: SpecId,
        decision: &Decision,
        telling: &mut Telling<'_>,
    ) -> Result<Outcome, Fault> {
        let coordinator = &self.shared.coordinator;
        if matches!(decision, Decision::Commit(..) | Decision::Hold) && coordinator.context_for(spec, actor).is_ok() {
            coordinator.fold_segments(spec, |told| self.follow(told))?;
        }
        // What is looked at as a diff before it is decided is counted like that.
        let is_whole = !matches!(decision, Decision::Commit(resolutions, _) if !resolutions.is_empty());
        let counted = is_whole.then(|| coordinator.count(spec)).flatten();
        let (outcome, aftermath) = match decision {
            Decision::Commit(resolutions, touch) => {
                coordinator.mark_modified(spec, actor, *touch)?;
                coordinator.commit(spec, actor, resolutions, telling)?
            }
            Decision::Abort(back) => {
                let (outcome, aftermath) = coordinator.abort(spec, Some(actor), telling)?;
                (outcome, Aftermath { back: back.map(|(view, drained)| (view, spec, drained)), ..aftermath })
            }
            Decision::Hold => (coordinator.hold(spec, actor, telling)?, Aftermath::default()),
        };
        let counted = counted.or_else(|| coordinator.count(spec));
        let outcome = Outcome { changes: counted.unwrap_or(outcome.changes), ..outcome };
        coordinator.write_down_conflicts();
        let back = aftermath.back;
        self.follow(aftermath);
        if let Some((id, spec, _)) = back {
            // Nothing is left to do if it fell by this very abort.
            self.shared.come_out(&self.live_view(id)?.view, spec, false);
        }
        Ok(outcome)
    }

    pub(super) fn admin(&self, op: Admin) -> Result<Reply, Fault> {
        match op {
            Admin::Reclaim => self.shared.reclaim(),
            Admin::Search { anew } => self.shared.search(anew),
            Admin::Unmerged => self.shared.unmerged(),
            Admin::Sync => self.shared.sync(),
            Admin::Unapplied { again } => self.shared.tell_unapplied(again),
            Admin::Identity => Ok(Reply::Number(self.shared.identity)),
        }
    }
}
