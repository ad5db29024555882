//! `mojavefs commit`

use super::json::with_paths;
use super::resolutions::{Told, refuse_both, standing};
use super::which::{EXIT_USAGE, Which};
use super::{
    EXIT_NOT_FINAL, EXIT_TRY_AGAIN, EXIT_UNAPPLIED, EXIT_UNKNOWN, Where, class, not_known, numbers, tell, word_of,
};
use crate::control::{self, unexpected};
use crate::job::find::Filesystem;
use crate::output::{err, out};
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Outcome, Reply, Resolution, SpecOp, SpecState};
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Exit status:
   0  it is committed (inside a job: into that job)
   1  it could not be decided: the reason is said
   2  it is not said which of several
  73  it is committed, and the host does not have it yet, for the reason that is said
  75  it is not committed: it was undone, or is in conflict and undecided still
  76  not known: the daemon has gone before it answered; `mojavefs status`, or this again, says after mounting
  77  it is decided and not final yet: that is when those are committed that it depends on (--wait waits)")]
pub(super) struct Commit {
    #[command(flatten)]
    which: Which,
    /// Where this path or one below it is in conflict, let the speculation's version stand: a path from the filesystem's
    /// root, from the working directory, or through the mountpoint; `.` means everywhere
    #[arg(long, value_name = "PATH")]
    ours: Vec<OsString>,
    /// The same for the version that became final meanwhile
    #[arg(long, value_name = "PATH")]
    theirs: Vec<OsString>,
    /// Let the files that it has changed, in whatever way, count as modified when it becomes final, rather than when they were changed:
    /// `make` builds what depends on them
    #[arg(long)]
    touch: bool,
    /// Wait until it is final, or undone with what it depends on
    #[arg(long)]
    wait: bool,
    /// Say what came of it as JSON: one object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filesystem: Where,
}

impl Commit {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        match self.filesystem.find_with(&self.which)? {
            (filesystem, Some(spec)) => Deciding { spec, said: self }.run(&filesystem),
            (_, None) => Ok(ExitCode::from(EXIT_USAGE)),
        }
    }
}

/// A commit of one that is found.
struct Deciding<'a> {
    spec: SpecId,
    said: &'a Commit,
}

impl Deciding<'_> {
    fn run(&self, filesystem: &Filesystem) -> Result<ExitCode, Fault> {
        let stream = filesystem.connect()?;
        let resolutions = self.resolutions(filesystem, &stream)?;
        let decided = self.decide(&stream, resolutions).and_then(|outcome| self.settle(&stream, outcome));
        match decided {
            Ok(outcome) => Ok(self.tell(&outcome)),
            Err(fault) if fault.kind == FaultKind::InDoubt => Ok(self.tell_unknown(filesystem, &fault)),
            Err(fault) => Err(fault),
        }
    }

    fn resolutions(&self, filesystem: &Filesystem, stream: &UnixStream) -> Result<Vec<Resolution>, Fault> {
        let standing = match self.said.ours.is_empty() && self.said.theirs.is_empty() {
            true => None,
            false => standing(stream, self.spec)?,
        };
        let told = Told { spec: self.spec, filesystem, standing };
        let ours = self.said.ours.iter().map(|path| Ok(Resolution::Ours(told.meant(path)?)));
        let theirs = self.said.theirs.iter().map(|path| Ok(Resolution::Theirs(told.meant(path)?)));
        let resolutions = ours.chain(theirs).collect::<Result<Vec<_>, Fault>>()?;
        refuse_both(&resolutions)?;
        if told.standing.is_none() && !resolutions.is_empty() {
            self.refuse_decided(stream)?;
        }
        Ok(resolutions)
    }

    fn decide(&self, stream: &UnixStream, resolutions: Vec<Resolution>) -> Result<Outcome, Fault> {
        match ask(stream, &Ask::Speculation(SpecOp::Commit { spec: self.spec, resolutions, touch: self.said.touch })) {
            // The other way, by others.
            Err(fault) if fault.kind == FaultKind::Decided => {
                let undone = ask(stream, &Ask::Speculation(SpecOp::Outcome { spec: self.spec }));
                undone.ok().filter(|outcome| outcome.state == SpecState::Aborted).ok_or(fault)
            }
            outcome => outcome,
        }
    }

    /// Waits, if that is asked for, until it is known what comes of a vote.
    fn settle(&self, stream: &UnixStream, first: Outcome) -> Result<Outcome, Fault> {
        let behind = std::env::var("MOJAVEFS_SPEC").ok().and_then(|spec| spec.parse().ok()).map(SpecId);
        let mut outcome = first.clone();
        while self.said.wait && outcome.state == SpecState::Voted && !outcome.waits_for.is_empty() {
            // From here on it is decided: nobody can say what comes of it if nobody answers any more.
            let in_doubt = |fault: Fault| match fault.kind {
                FaultKind::Disconnected => Fault { kind: FaultKind::InDoubt, ..fault },
                _ => fault,
            };
            match control::ask(
                stream,
                &Ask::Speculation(SpecOp::Await { specs: vec![self.spec], behind, millis: u32::MAX }),
                None,
            )
            .map_err(in_doubt)?
            .0
            {
                Answer::Reply(Reply::Specs(_)) => {}
                other => return Err(unexpected(&other)),
            }
            // What stands in the way by now is said to whoever votes again.
            outcome = Outcome { changes: first.changes, ..self.decide(stream, Vec::new()).map_err(in_doubt)? };
        }
        Ok(outcome)
    }

    fn tell(&self, outcome: &Outcome) -> ExitCode {
        let code = exit_status(outcome);
        if self.said.json {
            let object = json!({"id": self.spec.0, "state": word_of(outcome), "outcome": class(outcome), "exit": code,
                "changes": outcome.changes, "waits_for": numbers(&outcome.waits_for), "also_undone": numbers(&outcome.undone)});
            let paths: Vec<&[u8]> = outcome.conflicts.iter().map(|conflict| &conflict.path[..]).collect();
            out!("{}", with_paths(object, "conflicts", &paths));
        } else if outcome.state == SpecState::Aborted {
            err!("mojavefs: speculation {} is not committed: it was undone", self.spec);
        } else {
            tell(outcome);
        }
        ExitCode::from(code)
    }

    fn tell_unknown(&self, filesystem: &Filesystem, fault: &Fault) -> ExitCode {
        let mountpoint = filesystem.mountpoint.display().to_string();
        match self.said.json {
            true => out!(
                "{}",
                json!({"id": self.spec.0, "state": "unknown", "outcome": "unknown", "exit": EXIT_UNKNOWN, "why": fault.message,
                       "mountpoint": mountpoint})
            ),
            false => err!("mojavefs: {}", not_known(self.spec, "was committed", &fault.message, &mountpoint)),
        }
        ExitCode::from(EXIT_UNKNOWN)
    }

    /// Of what is decided no version can be chosen any more.
    fn refuse_decided(&self, stream: &UnixStream) -> Result<(), Fault> {
        let state = ask(stream, &Ask::Speculation(SpecOp::Outcome { spec: self.spec }))?.state;
        match state {
            SpecState::Committed | SpecState::Aborted => {
                let how = if state == SpecState::Committed { "committed" } else { "undone" };
                let text = format!("speculation {} is {how} already: --ours and --theirs come too late", self.spec);
                Err(Fault::new(FaultKind::Decided, text))
            }
            _ => Ok(()),
        }
    }
}

fn ask(stream: &UnixStream, ask: &Ask) -> Result<Outcome, Fault> {
    match control::ask(stream, ask, None)?.0 {
        Answer::Reply(Reply::Outcome(outcome)) => Ok(outcome),
        other => Err(unexpected(&other)),
    }
}

/// The exit status of what came of a vote.
fn exit_status(outcome: &Outcome) -> u8 {
    match outcome.state {
        SpecState::Committed if outcome.unapplied.is_some() => EXIT_UNAPPLIED,
        SpecState::Committed => 0,
        SpecState::Voted if !outcome.conflicts.is_empty() => EXIT_TRY_AGAIN,
        // Into what is around it.
        SpecState::Voted if outcome.waits_for.is_empty() => 0,
        SpecState::Voted => EXIT_NOT_FINAL,
        SpecState::Running | SpecState::Held if outcome.conflicts.is_empty() => EXIT_NOT_FINAL,
        SpecState::Running | SpecState::Held | SpecState::Aborted => EXIT_TRY_AGAIN,
    }
}
