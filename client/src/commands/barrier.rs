//! `mojavefs barrier`

use super::{EXIT_TRY_AGAIN, Where, job_around, shown};
use crate::control::{self, unexpected};
use crate::output::err;
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Outcome, Reply, SpecOp, SpecState, SpecStatus};
use mojavefs_attach::find::Filesystem;
use mojavefs_attach::sys;
use nix::poll::{PollFd, PollFlags, poll};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;

/// How often it is looked whether a job runs again, in milliseconds.
const LOOK_INTERVAL: u16 = 20;

#[derive(Args)]
#[command(after_help = "\
Exit status: 0 it is final, 75 it was rolled back, 1 it can't be waited for: the barrier stands inside the job that is to \
decide.")]
pub(super) struct Barrier {
    /// A speculation's number, or a path on the filesystem: everything undecided that one sees there
    what: PathBuf,
    #[command(flatten)]
    filesystem: Where,
}

/// A speculation, and the process of its job, which may run it again. Nothing where that can't be seen from here.
struct Followed {
    spec: SpecId,
    process: Option<(u32, OwnedFd)>,
}

impl Barrier {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let filesystem = self.filesystem.find()?;
        let stream = filesystem.connect()?;
        let number = self.what.to_str().and_then(|text| text.parse().ok()).map(SpecId);
        let behind = job_around(&filesystem);
        let followed = match number.filter(|_| !self.what.exists()) {
            Some(spec) => vec![Followed { spec, process: None }],
            None => with_processes(self.writers(&filesystem, &stream)?, &stream)?,
        };
        wait(&stream, followed.iter().map(|followed| followed.spec).collect(), behind)?;
        let mut code = ExitCode::SUCCESS;
        for followed in followed {
            if !is_final(&stream, &followed, behind)? {
                err!("mojavefs: speculation {} was rolled back", followed.spec);
                code = ExitCode::from(EXIT_TRY_AGAIN);
            }
        }
        Ok(code)
    }

    fn writers(&self, filesystem: &Filesystem, stream: &UnixStream) -> Result<Vec<SpecId>, Fault> {
        let path = std::path::absolute(&self.what).map_err(super::host_fault(self.what.display()))?;
        let below = filesystem.path_of(&path).ok_or_else(|| {
            let what = shown(self.what.as_os_str().as_bytes());
            Fault::new(FaultKind::Invalid, format!("`{what}` is neither a speculation nor a path on this filesystem"))
        })?;
        match control::ask(
            stream,
            &Ask::Speculation(SpecOp::Writers { path: below.as_os_str().as_bytes().to_vec() }),
            None,
        )?
        .0
        {
            Answer::Reply(Reply::Specs(specs)) => Ok(specs),
            other => Err(unexpected(&other)),
        }
    }
}

/// Waits until none of these is undecided any more.
fn wait(stream: &UnixStream, mut open: Vec<SpecId>, behind: Option<SpecId>) -> Result<(), Fault> {
    while !open.is_empty() {
        let ask = Ask::Speculation(SpecOp::Await { specs: open, behind, millis: u32::MAX });
        open = match control::ask(stream, &ask, None)?.0 {
            Answer::Reply(Reply::Specs(open)) => open,
            other => return Err(unexpected(&other)),
        };
    }
    Ok(())
}

fn status(stream: &UnixStream) -> Result<Vec<SpecStatus>, Fault> {
    match control::ask(stream, &Ask::Speculation(SpecOp::Status), None)?.0 {
        Answer::Reply(Reply::Status(all)) => Ok(all),
        other => Err(unexpected(&other)),
    }
}

fn with_processes(specs: Vec<SpecId>, stream: &UnixStream) -> Result<Vec<Followed>, Fault> {
    let all = status(stream)?;
    let pid = |spec: SpecId| all.iter().find(|status| status.id == spec).map(|status| status.info.pid);
    // Who has entered a level is no such process, and who has ended may have left its number to another.
    let is_specrun =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("specrun"));
    let process = |spec| pid(spec).filter(is_specrun).and_then(|pid| Some((pid, sys::pidfd_open(pid).ok()?)));
    Ok(specs.into_iter().map(|spec| Followed { spec, process: process(spec) }).collect())
}

/// Whether a speculation that is decided is final, or what its job has done when it was run again.
fn is_final(stream: &UnixStream, followed: &Followed, behind: Option<SpecId>) -> Result<bool, Fault> {
    let mut last = followed.spec;
    while outcome(stream, last)? == SpecState::Aborted {
        let Some(next) = run_again(stream, followed, last)? else { return Ok(false) };
        wait(stream, vec![next], behind)?;
        last = next;
    }
    Ok(true)
}

/// The speculation in which a job is run again after another was undone, once it is; nothing if the job ends instead.
fn run_again(stream: &UnixStream, followed: &Followed, after: SpecId) -> Result<Option<SpecId>, Fault> {
    let Some((pid, process)) = &followed.process else { return Ok(None) };
    loop {
        let mut ends = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        let has_ended = poll(&mut ends, LOOK_INTERVAL).is_ok_and(|ready| ready > 0);
        match control::ask(stream, &Ask::Speculation(SpecOp::RunAgain { spec: after, pid: *pid }), None)?.0 {
            Answer::Reply(Reply::Specs(next)) if !next.is_empty() || has_ended => return Ok(next.first().copied()),
            Answer::Reply(Reply::Specs(_)) => {}
            other => return Err(unexpected(&other)),
        }
    }
}

/// How a speculation that is not undecided any more was decided.
fn outcome(stream: &UnixStream, spec: SpecId) -> Result<SpecState, Fault> {
    match control::ask(stream, &Ask::Speculation(SpecOp::Outcome { spec }), None)?.0 {
        Answer::Reply(Reply::Outcome(Outcome { state, .. })) => Ok(state),
        other => Err(unexpected(&other)),
    }
}
