//! What `specrun` says.

use super::super::json::with_paths;
use super::super::{
    EXIT_UNKNOWN, also_undone, class, conflict_lines, count, escaped, in_use, not_known, numbers, shown, word_of,
};
use crate::job::{JobView, MayBe};
use crate::output::{complain_inside, err};
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::{Fall, Outcome, Reply, SpecOp, SpecState};
use serde_json::json;
use std::time::Duration;

/// How much is said, and how.
#[derive(Clone, Copy)]
pub(super) struct Reporter {
    pub(super) quiet: bool,
    pub(super) json: bool,
}

/// How long a decision took.
#[derive(Clone, Copy)]
pub(super) struct Took {
    /// The job's own.
    pub(super) own: Duration,
    /// And how long it waited for those of others.
    pub(super) waited: Duration,
}

impl Took {
    /// That of a job that waited for nobody.
    pub(super) fn own(own: Duration) -> Self {
        Took { own, waited: Duration::ZERO }
    }
}

impl Reporter {
    /// A line about what is going on.
    pub(super) fn note(self, text: &str) {
        if !self.quiet && !self.json {
            err!("specrun: {text}");
        }
    }

    /// The end of a job.
    pub(super) fn outcome(self, outcome: &Outcome, took: Took, code: u8) {
        let [ms, waited_ms] = [took.own, took.waited].map(|time| time.as_secs_f64() * 1000.0);
        if self.json {
            err!(
                "{}",
                json!({"id": outcome.spec.0, "state": word_of(outcome), "outcome": class(outcome), "changes": outcome.changes,
                       "ms": ms, "waited_ms": waited_ms, "exit": code, "waits_for": numbers(&outcome.waits_for),
                       "also_undone": numbers(&outcome.undone), "displaced": outcome.displaced,
                       "unapplied": outcome.unapplied})
            );
        } else if !self.quiet {
            let changes = count(outcome.changes, "change");
            match outcome.state {
                SpecState::Voted if !outcome.waits_for.is_empty() => {
                    let waits = they_are(&outcome.waits_for);
                    err!("decided as {} ({changes}); final when {waits}; see `mojavefs status`", outcome.spec);
                }
                SpecState::Committed | SpecState::Voted if took.waited > Duration::ZERO => {
                    let waited = took.waited.as_secs_f64();
                    err!("committed {changes} in {ms:.1} ms, and {waited:.1} s of waiting for others");
                }
                SpecState::Committed | SpecState::Voted => err!("committed {changes} in {ms:.1} ms"),
                SpecState::Aborted => {
                    err!("rolled back {changes} (exit {code})");
                    also_undone(outcome).iter().for_each(|also| err!("specrun: {also}"));
                }
                // Said by the job itself, if its standard error is on the filesystem: beside it, it would be in its way.
                _ => complain_inside(format_args!(
                    "held as {} ({changes}); see `mojavefs diff {}`\n",
                    outcome.spec, outcome.spec
                )),
            }
        }
    }

    /// What applying it to the host came to, if there is something to say.
    pub(super) fn applied(self, outcome: &Outcome) {
        if self.json {
            return;
        }
        outcome.displaced.iter().for_each(|line| err!("specrun: {line}"));
        if let Some(why) = &outcome.unapplied {
            err!("specrun: committed, and not on the host yet: {why}; it is tried again by whoever looks next");
        }
    }

    /// A job of which nobody can say what has become.
    pub(super) fn unknown(self, view: &JobView, may_be: MayBe, why: &str) {
        let (spec, mountpoint) = (view.spec, view.mountpoint.display().to_string());
        if self.json {
            let object = json!({"id": spec.0, "state": "unknown", "outcome": "unknown", "changes": null, "exit": EXIT_UNKNOWN,
                                "waits_for": [], "also_undone": [], "why": why, "mountpoint": mountpoint});
            return err!("{object}");
        }
        let what = match may_be {
            MayBe::Committed => "was committed",
            MayBe::Held => "is held",
        };
        err!("specrun: {}", not_known(spec, what, why, &mountpoint));
    }

    /// A job that others have undone and that is not run again.
    pub(super) fn undone(self, outcome: &Outcome, why: &str, exit: u8) {
        match self.json {
            true => self.outcome(outcome, Took::own(Duration::ZERO), exit),
            false => err!("specrun: {why}"),
        }
    }

    /// A refused commit that is not tried again.
    pub(super) fn refused(self, outcome: &Outcome, kept: bool, exit: u8) {
        let what = if kept { format!("held as {}", outcome.spec) } else { "rolled back".to_owned() };
        if self.json {
            let (state, class) = if kept { ("held", "undecided") } else { ("aborted", "undone") };
            let object = json!({"id": outcome.spec.0, "state": state, "outcome": class, "changes": outcome.changes,
                                "exit": exit, "waits_for": [], "also_undone": numbers(&outcome.undone)});
            let paths: Vec<&[u8]> = outcome.conflicts.iter().map(|conflict| &conflict.path[..]).collect();
            err!("{}", with_paths(object, "conflicts", &paths));
            return;
        }
        let with = if in_use(outcome) { "who has locked what it has used" } else { "what became final meanwhile" };
        err!("specrun: {what} {}: conflicts with {with}:", count(outcome.changes, "change"));
        conflict_lines(&outcome.conflicts, outcome.conflicts_more).iter().for_each(|line| err!("{line}"));
    }
}

/// Who is waited for, with the verb that follows.
pub(super) fn they_are(specs: &[SpecId]) -> String {
    let numbers: Vec<String> = specs.iter().map(ToString::to_string).collect();
    format!("{} {}", numbers.join(", "), if numbers.len() == 1 { "is" } else { "are" })
}

/// That a job waits for others, and for which of them somebody has to do something.
pub(super) fn waits_for(view: &JobView, specs: &[SpecId]) -> String {
    let held = |spec: &&SpecId| {
        view.outcome(&Ask::Speculation(SpecOp::Outcome { spec: **spec })).is_ok_and(|o| o.state == SpecState::Held)
    };
    // What belongs to others is not shown to anybody, and nobody else decides it.
    let decides: Vec<SpecId> = match view.ask(&Ask::Speculation(SpecOp::Status)) {
        Ok(Answer::Reply(Reply::Status(all))) => all.iter().map(|one| one.id).collect(),
        _ => Vec::new(),
    };
    let hint = |spec: &SpecId| match decides.contains(spec) {
        true => format!("; {spec} is held: `mojavefs commit {spec}` or `abort {spec}`"),
        false => format!("; {spec} is held by another user"),
    };
    let hints = specs.iter().filter(held).map(hint);
    format!("done; waits until {} decided{}", they_are(specs), hints.collect::<String>())
}

/// Why a job was rolled back, in one sentence.
pub(super) fn because(fall: &Fall) -> String {
    let user = nix::unistd::User::from_uid(fall.info.uid.into()).ok().flatten();
    let user = user.map_or_else(|| fall.info.uid.to_string(), |user| user.name);
    let whose = format!("speculation {} (`{}`, by {user})", fall.root, escaped(&fall.info.command));
    let links: Vec<String> = fall
        .chain
        .iter()
        .map(|link| match link.what.is_empty() {
            true => format!("goes with {}", link.spec),
            false => format!("had read `{}`, undecided work of {}", shown(&link.path), link.spec),
        })
        .collect();
    match links.is_empty() {
        true => format!("rolled back with {whose}"),
        false => format!("rolled back with {whose}: it {}", links.join(", which ")),
    }
}
