//! What becomes of a job whose command has ended.

use super::super::{EXIT_TRY_AGAIN, EXIT_UNAPPLIED, EXIT_UNKNOWN, also_undone, host_fault, shown};
use super::options::Cli;
use super::report::{Took, because, waits_for};
use super::{After, Attempt, Scene, WHY_TIME};
use crate::job::JobView;
use crate::job::supervise::Ending;
use crate::limits::QUIET_WAIT;
use crate::output::err;
use mojavefs::planted::{Planted, is_planted};
use mojavefs::protocol::control::Ask;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Outcome, SpecOp, SpecState};
use std::time::{Duration, Instant};

const EXIT_TIMED_OUT: u8 = 124;
/// The command exited with 0, and what it did was undone all the same.
const EXIT_UNDONE: u8 = 1;

/// What to do with a job that is over.
pub(super) enum Verdict {
    Commit,
    Hold,
    Abort,
}

impl Cli {
    pub(super) fn judge(&self, ending: Ending) -> (u8, Verdict) {
        let (code, success) = match ending {
            Ending::Exited(code) => (code as u8, self.commit_on.contains(&code)),
            Ending::Killed(signal) => (128 + signal as u8, false),
            Ending::TimedOut => (EXIT_TIMED_OUT, false),
        };
        let verdict = match success {
            _ if self.keep_going => Verdict::Hold,
            true if self.hold => Verdict::Hold,
            true => Verdict::Commit,
            false => Verdict::Abort,
        };
        (code, verdict)
    }

    /// Carries the verdict out, and waits for others where it depends on them.
    pub(super) fn decide(
        &self,
        scene: &Scene<'_>,
        view: &JobView,
        (code, verdict): (u8, Verdict),
    ) -> Result<Attempt, Fault> {
        view.drain()?;
        let (code, verdict) = match self.ask {
            true => self.consult(scene, view, (code, verdict))?,
            false => (code, verdict),
        };
        let began = Instant::now();
        let commit = SpecOp::Commit { spec: view.spec, resolutions: Vec::new(), touch: self.touch };
        let outcome = match verdict {
            Verdict::Commit => view.outcome(&Ask::Speculation(commit)),
            Verdict::Hold => view.outcome(&Ask::Speculation(SpecOp::Hold { spec: view.spec })),
            Verdict::Abort => scene.abort(view),
        }?;
        if !outcome.conflicts.is_empty() {
            return self.refused(scene, view, outcome);
        }
        if matches!(outcome.state, SpecState::Committed | SpecState::Voted) {
            scene.place.catch_up();
        }
        if outcome.waits_for.is_empty() || self.no_wait || is_planted(Planted::AnswerBeforeDecision) {
            let code = if outcome.unapplied.is_some() && code == 0 { EXIT_UNAPPLIED } else { code };
            self.reporter().outcome(&outcome, Took::own(began.elapsed()), code);
            self.reporter().applied(&outcome);
            // 0 means that what the command did has happened.
            let code = if outcome.state == SpecState::Aborted && code == 0 { EXIT_UNDONE } else { code };
            return Ok(Attempt::Over(code));
        }
        self.wait_final(scene, view, outcome, (code, began.elapsed()))
    }

    /// The job has voted; others decide with it.
    fn wait_final(
        &self,
        scene: &Scene<'_>,
        view: &JobView,
        outcome: Outcome,
        (code, own): (u8, Duration),
    ) -> Result<Attempt, Fault> {
        let began = Instant::now();
        let took = || Took { own, waited: began.elapsed() };
        let mut told = false;
        loop {
            match view.wait_decided(QUIET_WAIT) {
                Some(SpecState::Committed) => {
                    let outcome = Outcome { state: SpecState::Committed, ..outcome };
                    self.reporter().outcome(&outcome, took(), code);
                    return Ok(Attempt::Over(code));
                }
                Some(SpecState::Aborted) => return Ok(self.fell(view, None)),
                Some(_) => {
                    // Something that became final meanwhile is in its way: asking again says what.
                    view.forget_news();
                    let again = view.outcome(&Ask::Speculation(SpecOp::Commit {
                        spec: view.spec,
                        resolutions: Vec::new(),
                        touch: self.touch,
                    }))?;
                    if !again.conflicts.is_empty() {
                        return self.refused(scene, view, again);
                    }
                }
                None => {}
            }
            if let Some(signal) = scene.supervisor.asked_to_end().map_err(host_fault("signals"))? {
                let outcome = scene.abort(view)?;
                self.reporter().outcome(&outcome, took(), 128 + signal as u8);
                return Ok(Attempt::Over(128 + signal as u8));
            }
            if !told {
                self.reporter().note(&waits_for(view, &outcome.waits_for));
                told = true;
            }
        }
    }

    /// Someone else undid the speculation, or nobody answers for it any more.
    /// `fault` is the answer to what was asked last, if that was one.
    pub(super) fn fell(&self, view: &JobView, fault: Option<&Fault>) -> Attempt {
        if is_planted(Planted::UndoneToldAsCommitted) {
            return Attempt::Over(0);
        }
        view.wait_decided(WHY_TIME);
        if let Some(may_be) = view.may_be() {
            // To run it again may do the work twice.
            let said = || fault.map_or_else(|| "nobody says what came of the vote".to_owned(), ToString::to_string);
            self.reporter().unknown(view, may_be, &view.why_gone().unwrap_or_else(said));
            return Attempt::Over(EXIT_UNKNOWN);
        }
        if let Some(fall) = view.why_fallen() {
            return Attempt::Undone { why: because(&fall), after: After::of(&fall), outcome: Box::new(undone(view)) };
        }
        let why = match view.why_gone() {
            Some(why) => format!("{why}: speculation {} was undone", view.spec),
            None => format!("speculation {} was undone by somebody else", view.spec),
        };
        self.reporter().undone(&undone(view), &why, EXIT_TRY_AGAIN);
        Attempt::Over(EXIT_TRY_AGAIN)
    }

    /// The directory of the host over which it ran leads elsewhere by now.
    pub(super) fn came_off(&self, scene: &Scene<'_>, view: &JobView) -> Result<Attempt, Fault> {
        let outcome = view.outcome(&Ask::Speculation(SpecOp::Hold { spec: view.spec }))?;
        let dirs: Vec<String> = scene.filesystem.host_dirs().map(|dir| dir.display().to_string()).collect();
        err!(
            "specrun: {} was moved, replaced or covered while the command ran, which was ended: what it wrote in the last moment may have \
             reached the host",
            dirs.join(" or ")
        );
        self.reporter().outcome(&outcome, Took::own(Duration::ZERO), EXIT_TRY_AGAIN);
        Ok(Attempt::Over(EXIT_TRY_AGAIN))
    }

    /// Something that it read or changed became final meanwhile.
    fn refused(&self, scene: &Scene<'_>, view: &JobView, outcome: Outcome) -> Result<Attempt, Fault> {
        // What others do on the host is no reason to do hours of work again.
        let keep = self.hold || self.keep_going || self.ask || scene.filesystem.is_host();
        let done = match keep {
            true => view.outcome(&Ask::Speculation(SpecOp::Hold { spec: view.spec })),
            false => scene.abort(view),
        }?;
        also_undone(&done).iter().for_each(|also| self.reporter().note(also));
        let outcome = Outcome { undone: done.undone, ..outcome };
        if keep {
            self.reporter().refused(&outcome, true, EXIT_TRY_AGAIN);
            return Ok(Attempt::Over(EXIT_TRY_AGAIN));
        }
        let first = outcome.conflicts.first();
        let path = first.map(|conflict| shown(&conflict.path)).unwrap_or_default();
        let why = match first.and_then(|conflict| conflict.in_use.as_ref()) {
            Some(who) => format!("rolled back: it has used `{path}`, and {who} since"),
            None => format!("rolled back: `{path}` was changed by someone else meanwhile"),
        };
        Ok(Attempt::Undone { why, after: After::default(), outcome: Box::new(outcome) })
    }
}

/// A job of which nothing is left to count.
pub(super) fn undone(view: &JobView) -> Outcome {
    Outcome::of(view.spec, SpecState::Aborted, 0)
}
