//! A view opened for `specrun` or a shell, for as long as its connection lasts.

use super::Daemon;
use super::caller::Caller;
use crate::job::namespace::{self, MountNamespace};
use crate::limits::OPEN_TIME_MAX;
use crate::mount::{self, MountOptions};
use crate::output::shortened;
use crate::sys;
use crate::transport::{self, Insiders, Kernel};
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::control::Start;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{ConnectionExt, JobInfo, Notice, NoticeSink, OnRead, Outcome, SpecState, ViewKind};
use mojavefs::protocol::{SpecOp, ViewOp, ViewOwner};
use mojavefs_fs::{ReadPolicy, View};
use nix::unistd::geteuid;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct Lease {
    view: Arc<View>,
    spec: SpecId,
    kernel: Arc<Kernel>,
    /// The FUSE connection, if this process made the mount, and that: as long as it lives, no other has its number.
    made: Option<(u32, OwnedFd)>,
    /// Where the job runs, to find what is left of it.
    namespace: Option<MountNamespace>,
    /// Whose lease it is.
    holder: Holder,
    /// What a process runs, for people. One that runs another program has let go of its lease.
    command: String,
    /// For a process: the speculations that it entered and has not decided, the outermost first.
    entered: Option<Vec<SpecId>>,
}

impl Lease {
    /// Opens the view, and its mount unless the caller made one; the mount is attached nowhere yet.
    pub(super) fn start(
        daemon: &Daemon,
        caller: &Caller,
        start: Start,
        device: Option<OwnedFd>,
    ) -> Result<(Lease, Option<OwnedFd>), Fault> {
        let io = |what: &'static str| move |e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"));
        if let Some(device) = &device {
            check_device(caller, device)?;
        }
        let waits = matches!(start, Start::Job { on_read: OnRead::Wait, .. });
        let fails = matches!(start, Start::Job { on_read: OnRead::Fail, .. });
        let asks = matches!(start, Start::Job { on_read: OnRead::Join | OnRead::Wait, restarts: None, .. });
        let is_process = matches!(start, Start::Process { .. });
        let kind = match start {
            Start::Job { parent, command, dirs, on_read, own, restarts } => {
                let (command, restarts) = (shortened(command), restarts.map(shortened));
                let info = JobInfo { uid: caller.uid, pid: caller.pid, command, dirs };
                ViewKind::Job { parent, info, on_read, own, restarts }
            }
            Start::Process { parent } => ViewKind::Process { parent, uid: caller.uid, pid: caller.pid },
            Start::Inside { spec } => ViewKind::Inside { spec, uid: caller.uid },
        };
        let opened = daemon.connection.view(ViewOp::Open(kind))?;
        let spec = opened.spec.unwrap_or(SpecId(0));
        let policy = ReadPolicy { asks, waits: waits.then_some((spec, caller.uid)), fails };
        let owner = if is_process { ViewOwner::Process } else { ViewOwner::Job };
        let control = super::control_of(&daemon.control(), opened.view, daemon.server);
        let view = View::new(daemon.session.clone(), opened.view, owner, policy, control);
        let view = Arc::new(view);
        if owner == ViewOwner::Job {
            view.supervised_by(caller.pid);
        }
        let insiders = Insiders::of(caller.pid);
        let served = || -> io::Result<(Arc<Kernel>, Option<OwnedFd>)> {
            match device {
                Some(device) => Ok((transport::serve(device, view.clone(), daemon.transport, insiders)?, None)),
                None => {
                    let privileged = geteuid().is_root();
                    let options = MountOptions { others: privileged, privileged };
                    let detached = mount::detached(daemon.source.as_bytes(), options)?;
                    Ok((
                        transport::serve(detached.device, view.clone(), daemon.transport, insiders)?,
                        Some(detached.mount),
                    ))
                }
            }
        };
        let (kernel, mount) = match served() {
            Ok(served) => served,
            Err(error) => {
                daemon.connection.done(ViewOp::Close(opened.view))?;
                return Err(io("make a mount for the job")(error));
            }
        };
        daemon.notices.add(&kernel);
        // Its own filesystem is not asked: a daemon that is killed while it waits for itself would never be gone.
        let place = mount.as_ref().map(|mount| Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string()));
        let minor = place.and_then(|place| sys::cached_stat(&place).ok()).map(|stat| stat.device.1);
        // The end of a process's mount is what says that nobody uses it any more.
        let kept = mount.as_ref().filter(|_| !is_process).and_then(|mount| mount.try_clone().ok());
        let made = minor.zip(kept);
        if is_process {
            daemon.processes.lock().insert(opened.view, caller.uid);
        }
        // What a process starts and leaves is its job's.
        let namespace = if is_process { None } else { caller.namespace() };
        let holder = Holder { uid: caller.uid, pid: caller.pid, alive: caller.process().ok() };
        let entered = is_process.then(Vec::new);
        let command = if is_process { command_of(caller.pid) } else { String::new() };
        Ok((Lease { view, spec, kernel, made, namespace, holder, command, entered }, mount))
    }

    pub(super) fn is_process(&self) -> bool {
        self.entered.is_some()
    }

    pub(super) fn view(&self) -> ViewId {
        self.view.id()
    }

    pub(super) fn spec(&self) -> SpecId {
        self.spec
    }

    /// The process enters a speculation.
    pub(super) fn enter(&mut self, daemon: &Daemon, caller: &Caller, own: Option<SpecId>) -> Result<SpecId, Fault> {
        let Some(entered) = &mut self.entered else {
            return Err(Fault::new(FaultKind::Protocol, "this connection's view is no process's"));
        };
        let info = JobInfo { uid: caller.uid, pid: caller.pid, command: self.command.clone(), dirs: Vec::new() };
        let opened = daemon.connection.view(ViewOp::Enter { view: self.view.id(), info, own })?;
        let spec = opened.spec.ok_or_else(|| Fault::new(FaultKind::Protocol, "the server names no speculation"))?;
        entered.push(spec);
        self.view.went_into(spec);
        Ok(spec)
    }

    /// Whether this is the speculation of the view's own job, or one that its process has entered.
    pub(super) fn owns(&self, spec: SpecId) -> bool {
        self.spec() == spec || self.entered.as_ref().is_some_and(|entered| entered.contains(&spec))
    }

    /// The job's process can go back to this point.
    pub(super) fn begin_segment(&self, daemon: &Daemon) -> Result<SpecId, Fault> {
        let segment = daemon.connection.view(ViewOp::Segment { view: self.view.id() })?;
        let spec = segment.spec.ok_or_else(|| Fault::new(FaultKind::Protocol, "the server names no speculation"))?;
        self.view.went_into(spec);
        self.has_stopped();
        Ok(spec)
    }

    /// The job's process can't go back to this point.
    pub(super) fn no_segment(&self, daemon: &Daemon, why: String) -> Result<(), Fault> {
        let noted = daemon.connection.done(ViewOp::NoSegment { view: self.view.id(), why });
        self.has_stopped();
        noted
    }

    fn has_stopped(&self) {
        if let Some(checkpoints) = self.view.checkpoints() {
            checkpoints.has_stopped();
        }
    }

    /// The process has voted for a speculation: it is part of what is around it.
    fn committed(&mut self, spec: SpecId) {
        self.view.stays(spec);
        self.decided(spec);
    }

    /// The process is back from a speculation that was undone.
    pub(super) fn is_back(&mut self, spec: SpecId) {
        self.view.came_back(spec);
        self.decided(spec);
    }

    /// The speculation was undone at the holder's wish.
    pub(super) fn is_undone(&mut self, spec: SpecId) {
        if self.entered.is_none() && spec == self.spec {
            // The holder has ended the job's processes.
            self.kernel.forget_what_is_open(OPEN_TIME_MAX);
        }
        self.is_back(spec);
    }

    /// Whether what the process looks up is on nobody's behalf for now.
    pub(super) fn glances(&self, caller: &Caller, on: bool) {
        self.view.glances(on.then_some(caller.pid));
    }

    /// The process has decided a speculation, and with it those that it entered later.
    fn decided(&mut self, spec: SpecId) {
        if let Some(entered) = &mut self.entered
            && let Some(at) = entered.iter().position(|known| *known == spec)
        {
            entered.truncate(at);
        }
    }

    /// The process has voted, and may have gone on meanwhile: if the vote can't stand, it is told like what others undo.
    pub(super) fn voted(&mut self, daemon: &Daemon, spec: SpecId, vote: &Result<Outcome, Fault>) {
        if vote.as_ref().is_ok_and(|outcome| outcome.conflicts.is_empty()) {
            return self.committed(spec);
        }
        if let Some(state) = cannot_stand(vote).filter(|_| self.is_process()) {
            daemon.notices.deliver(Notice::Decided { view: self.view(), spec, state, why: None });
        }
    }

    /// Who is to be stopped for a checkpoint is asked for by `question`.
    pub(super) fn ask_by(&self, question: Box<mojavefs_fs::Question>) {
        if let Some(checkpoints) = self.view.checkpoints() {
            checkpoints.ask_by(question);
        }
    }

    /// The answer to such a question.
    pub(super) fn stopped(&self, ticket: u64, why_not: Option<String>) -> Result<(), Fault> {
        let in_time = self.view.checkpoints().is_some_and(|checkpoints| checkpoints.answer(ticket, why_not));
        let late = || Fault::new(FaultKind::TimedOut, "the answer to this comes too late");
        in_time.then_some(()).ok_or_else(late)
    }

    /// Nothing in the view waits for a decision any more.
    pub(super) fn interrupt(&self, for_good: bool) {
        if let Some(wait) = self.view.decision_wait() {
            wait.interrupt(for_good);
        }
    }

    /// The caller goes in good order and has ended its processes itself.
    pub(super) fn leave(&mut self) {
        self.namespace = None;
    }

    /// The caller is gone: so are its processes and its mount, and with the view what was undecided.
    pub(super) fn end(self, daemon: &Arc<Daemon>) {
        // A read that waits keeps its pages locked in the kernel, and with them whoever takes the mount away.
        self.interrupt(true);
        if let Some(entered) = &self.entered {
            if let Some(spec) = entered.first().copied()
                && let Err(fault) = daemon.connection.outcome(SpecOp::Abort { spec }.by(0))
            {
                tracing::debug!("undoing speculation {spec} of a process that is gone: {fault}");
            }
            return self.outlast(daemon.clone());
        }
        let here = namespace::of(std::process::id()).ok();
        if let Some(namespace) = self.namespace.as_ref().filter(|there| here.is_some_and(|here| here != **there)) {
            // Where this process ends the lease, its holder lives to say so. Nobody says that a namespace is the job's alone.
            namespace::kill_all_in(namespace, &|pid| self.holder.is(pid) || !self.holder.may_end(pid));
        }
        if self.view.open_files() > 0 && !self.is_committed(daemon) {
            self.kernel.forget_what_is_open(Duration::ZERO);
        }
        if let Some((minor, _mount)) = self.made
            && let Err(error) = mount::abort_connection(minor)
        {
            tracing::error!("ending the mount of speculation {}: {error}", self.spec);
        }
        daemon.notices.remove(self.view.id());
        if let Err(fault) = daemon.connection.done(ViewOp::Close(self.view.id())) {
            tracing::error!("closing the view of speculation {}: {fault}", self.spec);
        }
        let kernel = self.kernel;
        // Ends when the last process lets go of the mount.
        let wait = move || {
            if let Err(error) = kernel.join() {
                tracing::warn!("a job's mount: {error}");
            }
        };
        drop(mojavefs_threads::detached("mojavefs-end", wait));
    }

    fn is_committed(&self, daemon: &Daemon) -> bool {
        let became = daemon.connection.outcome(SpecOp::Outcome { spec: self.spec }.by(0));
        became.is_ok_and(|outcome| matches!(outcome.state, SpecState::Committed | SpecState::Voted))
    }

    /// The process is gone; what it has started and left may still use its view.
    fn outlast(self, daemon: Arc<Daemon>) {
        let wait = move || {
            if let Err(error) = self.kernel.join() {
                tracing::warn!("a process's mount: {error}");
            }
            daemon.processes.lock().remove(&self.view.id());
            daemon.notices.remove(self.view.id());
            if let Err(fault) = daemon.connection.done(ViewOp::Close(self.view.id())) {
                tracing::error!("closing the view of a process: {fault}");
            }
        };
        drop(mojavefs_threads::detached("mojavefs-end", wait));
    }
}

/// What a vote shows to have become of its speculation if it can't stand. Nothing if it stands, or if nobody knows: to tell its
/// process to go back could have it done twice.
fn cannot_stand(vote: &Result<Outcome, Fault>) -> Option<SpecState> {
    match vote {
        Ok(outcome) if outcome.conflicts.is_empty() => None,
        Ok(_) => Some(SpecState::Held),
        Err(fault) if fault.kind == FaultKind::InDoubt => None,
        Err(_) => Some(SpecState::Aborted),
    }
}

/// A process: as long as it lives, no other has its number.
struct Holder {
    uid: u32,
    pid: u32,
    alive: Option<OwnedFd>,
}

impl Holder {
    /// Whether a process is the holder's own user's, who could end it anyway.
    fn may_end(&self, pid: u32) -> bool {
        self.uid == 0 || namespace::user_of(pid) == Some(self.uid)
    }

    fn is(&self, pid: u32) -> bool {
        pid == self.pid && self.alive.as_ref().is_some_and(|alive| !crate::sys::has_ended(alive))
    }
}

/// What a process runs, for people.
fn command_of(pid: u32) -> String {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = words.strip_suffix(b"\0").unwrap_or(&words);
    shortened(String::from_utf8_lossy(words).replace('\0', " "))
}

/// A mount that somebody else made is served for this process's own user and for root only: the user ids in its requests
/// are relative to a user namespace that can't be seen from here.
fn check_device(caller: &Caller, device: &OwnedFd) -> Result<(), Fault> {
    let refused = |text: &str| Err(Fault::new(FaultKind::AccessDenied, text.to_owned()));
    if caller.uid != 0 && (geteuid().is_root() || caller.uid != geteuid().as_raw()) {
        return refused("a mount made by another user is not served");
    }
    match crate::sys::is_fuse_device(device.as_fd()) {
        Ok(true) => Ok(()),
        _ => refused("the descriptor that came along is not the FUSE device"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(kind: FaultKind) -> Option<SpecState> {
        cannot_stand(&Err(Fault::new(kind, "it is not committed")))
    }

    #[test]
    fn a_process_is_not_told_that_a_vote_can_not_stand_of_which_nobody_knows_what_came() {
        assert_eq!(refused(FaultKind::InDoubt), None);
        assert_eq!(refused(FaultKind::NoSpace), Some(SpecState::Aborted));
        // It was not sent.
        assert_eq!(refused(FaultKind::Disconnected), Some(SpecState::Aborted));
    }
}
