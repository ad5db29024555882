//! Answering `specrun` and `mojavefs` on the control socket.

use super::Daemon;
use super::caller::Caller;
use super::content::content;
use super::lease::Lease;
use super::outbox::Outbox;
use super::quota::Quota;
use crate::control::{receive, send};
use crate::limits::{ACCEPT_PAUSE, ANSWER_TIME_MAX, STOP_TIME_MAX};
use crate::notify::News;
use crate::output::{Repeated, shortened};
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::control::{Answer, Ask, WATCHED_CONFLICT};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Connection, ConnectionExt, Reply, SpecOp, SpecState, ViewOp};
use mojavefs_fs::limits::AWAIT_STEP;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// A connection that is answered.
struct Open {
    stream: UnixStream,
    /// What was asked on it is being done.
    busy: AtomicBool,
}

type AllOpen = Arc<Mutex<HashMap<u64, Arc<Open>>>>;

/// The connections of a daemon, to end them with it.
pub(super) struct Leases {
    open: AllOpen,
    ending: Arc<AtomicBool>,
    socket: PathBuf,
}

/// What accepts connections.
struct Door {
    daemon: Arc<Daemon>,
    open: AllOpen,
    quota: Arc<Quota>,
    next: AtomicU64,
}

pub(super) fn start(listener: UnixListener, daemon: Arc<Daemon>) -> io::Result<Leases> {
    let open = AllOpen::default();
    let ending = Arc::new(AtomicBool::new(false));
    let leases = Leases { open: open.clone(), ending: ending.clone(), socket: daemon.socket.clone() };
    let door = Door { daemon, open, quota: Quota::new(), next: AtomicU64::new(1) };
    let accept = move || {
        let mut failures = Repeated::default();
        for stream in listener.incoming() {
            if ending.load(Ordering::SeqCst) {
                return;
            }
            if let Err(error) = stream.and_then(|stream| door.admit(stream)) {
                failures.tell(|| tracing::error!("a connection to the control socket: {error}"));
                std::thread::sleep(ACCEPT_PAUSE);
            }
        }
    };
    mojavefs_threads::detached("mojavefs-accept", accept)?;
    Ok(leases)
}

impl Door {
    /// Answers a connection on a thread of its own, or with a refusal if its user has too many.
    fn admit(&self, stream: UnixStream) -> io::Result<()> {
        let caller = Caller::of(&stream)?;
        let share = match self.quota.take(caller.uid) {
            Ok(share) => share,
            Err(fault) => {
                // There is room for so little in any socket: nothing is waited for.
                drop(send(&stream, &Answer::Refused(fault), None));
                return Ok(());
            }
        };
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let this = Arc::new(Open { stream: stream.try_clone()?, busy: AtomicBool::new(false) });
        self.open.lock().insert(number, this.clone());
        let (daemon, open) = (self.daemon.clone(), self.open.clone());
        let work = move || {
            answer(&daemon, &caller, &stream, &this.busy);
            open.lock().remove(&number);
            drop((this, stream));
            drop(share);
        };
        let started = mojavefs_threads::detached("mojavefs-control", work);
        started.inspect_err(|_| drop(self.open.lock().remove(&number)))
    }
}

impl Leases {
    /// Whether somebody is connected.
    pub(super) fn any(&self) -> bool {
        !self.open.lock().is_empty()
    }

    /// Answers what was asked, ends every connection, and waits until what they held is closed.
    pub(super) fn end(self) {
        self.ending.store(true, Ordering::SeqCst);
        // Whoever waits for a caller gets one, and sees that it is over.
        let _ = UnixStream::connect(&self.socket);
        let mut idle_since: HashMap<u64, Instant> = HashMap::new();
        let deadline = Instant::now() + STOP_TIME_MAX;
        while Instant::now() < deadline {
            let open: Vec<(u64, Arc<Open>)> =
                self.open.lock().iter().map(|(number, open)| (*number, open.clone())).collect();
            if open.is_empty() {
                return;
            }
            for (number, open) in open {
                // Whoever has asked is answered: of a decision that was made it must not be said that it was not.
                drop(open.stream.shutdown(Shutdown::Read));
                if open.busy.load(Ordering::SeqCst) {
                    idle_since.remove(&number);
                } else if idle_since.entry(number).or_insert_with(Instant::now).elapsed() > ANSWER_TIME_MAX {
                    drop(open.stream.shutdown(Shutdown::Both));
                }
            }
            std::thread::sleep(crate::limits::POLL_INTERVAL);
        }
    }
}

/// Answers one connection until it ends, which ends its lease.
/// `busy` says whether something is being done for it.
fn answer(daemon: &Arc<Daemon>, caller: &Caller, stream: &UnixStream, busy: &AtomicBool) {
    let mut lease = None;
    let outbox = match Outbox::new(stream) {
        Ok(outbox) => outbox,
        Err(error) => return tracing::warn!("a control connection of process {}: {error}", caller.pid),
    };
    loop {
        let (ask, fd) = match receive::<Ask>(stream) {
            Ok(Some(message)) => message,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!("a control connection of process {}: {error}", caller.pid);
                break;
            }
        };
        busy.store(true, Ordering::SeqCst);
        let (answer, fd) = match respond(daemon, caller, ask, fd, &mut lease, &outbox) {
            Ok(answer) => answer,
            Err(fault) => (Answer::Refused(fault), None),
        };
        busy.store(false, Ordering::SeqCst);
        if outbox.answer(&answer, fd.as_ref()).is_err() {
            break;
        }
    }
    // Whoever still listens hears at once that this is the end.
    outbox.hang_up();
    if let Some(lease) = lease {
        lease.end(daemon);
    }
}

type Answered = (Answer, Option<OwnedFd>);

fn respond(
    daemon: &Arc<Daemon>,
    caller: &Caller,
    ask: Ask,
    fd: Option<OwnedFd>,
    lease: &mut Option<Lease>,
    outbox: &Arc<Outbox>,
) -> Result<Answered, Fault> {
    let (server, uid) = (&daemon.connection, caller.uid);
    let answer = match ask {
        Ask::Start { start, mounted } => {
            if lease.is_some() {
                return Err(Fault::new(FaultKind::Busy, "this connection has a view already"));
            }
            let device = match (mounted, fd) {
                (true, None) => return Err(Fault::new(FaultKind::Protocol, "no FUSE descriptor came along")),
                (true, Some(device)) => Some(device),
                (false, _) => None,
            };
            let (started, mount) = Lease::start(daemon, caller, start, device)?;
            let (view, spec) = (started.view(), started.spec());
            match started.is_process() {
                true => probe_on_demand(daemon, caller, view, outbox)?,
                false => tell_of(daemon, &started, outbox),
            }
            *lease = Some(started);
            return Ok((Answer::Started { view, spec }, mount));
        }
        Ask::Speculation(op) => Answer::Reply(speculation(daemon, caller, op, lease)?),
        Ask::Admin(op) => Answer::Reply(server.call(op.into())?),
        Ask::Undo { spec, drained } => {
            let lease = viewed(lease)?;
            let undo = ViewOp::Undo { view: lease.view(), spec, actor: uid, drained };
            let reply = server.call(undo.into())?;
            lease.is_back(spec);
            Answer::Reply(reply)
        }
        Ask::Enter { own } => {
            let lease = viewed(lease)?;
            Answer::Started { view: lease.view(), spec: lease.enter(daemon, caller, own)? }
        }
        Ask::Watch { view } => {
            watch(daemon, caller, view, outbox)?;
            Answer::Done
        }
        Ask::Stopped { ticket, why_not } => {
            viewed(lease)?.stopped(ticket, why_not.map(shortened))?;
            Answer::Done
        }
        Ask::Segment => {
            let lease = viewed(lease)?;
            Answer::Started { view: lease.view(), spec: lease.begin_segment(daemon)? }
        }
        Ask::NoSegment { why } => {
            viewed(lease)?.no_segment(daemon, shortened(why))?;
            Answer::Done
        }
        Ask::Glancing { on } => {
            viewed(lease)?.glances(caller, on);
            Answer::Done
        }
        Ask::Unheard => {
            server.done(ViewOp::Unheard { view: viewed(lease)?.view() })?;
            Answer::Done
        }
        Ask::Leave => {
            if let Some(lease) = lease {
                lease.leave();
            }
            Answer::Done
        }
        Ask::Interrupt { for_good } => {
            if let Some(lease) = lease {
                lease.interrupt(for_good);
            }
            Answer::Done
        }
        Ask::Content { spec, side, path, bytes_max } => content(daemon, caller, (spec, side), &path, bytes_max)?,
        Ask::Hello => Answer::Daemon {
            pid: std::process::id(),
            uid: nix::unistd::geteuid().as_raw(),
            mountpoint: daemon.mountpoint_bytes(),
            source: daemon.source.clone().into_bytes(),
            trunk: daemon.trunk,
            mounts: nix::unistd::geteuid().is_root() && crate::mount::may_mount(),
        },
    };
    Ok((answer, None))
}

/// What is asked of speculations: of votes and aborts the lease is told, and what waits does so for a while at most.
fn speculation(daemon: &Arc<Daemon>, caller: &Caller, op: SpecOp, lease: &mut Option<Lease>) -> Result<Reply, Fault> {
    let (server, uid) = (&daemon.connection, caller.uid);
    match op {
        SpecOp::Commit { spec, .. } => {
            if !lease.as_ref().is_some_and(|lease| lease.owns(spec)) {
                refuse_running(&**server, uid, spec)?;
            }
            let voted = server.outcome(op.by(uid));
            if let Some(lease) = lease {
                lease.voted(daemon, spec, &voted);
            }
            Ok(Reply::Outcome(voted?))
        }
        SpecOp::Abort { spec } => {
            let reply = server.call(op.by(uid))?;
            if let Some(lease) = lease {
                lease.is_undone(spec);
            }
            Ok(reply)
        }
        SpecOp::Await { specs, millis, behind } => {
            let millis = millis.min(AWAIT_STEP.as_millis() as u32);
            server.call(SpecOp::Await { specs, millis, behind }.by(uid))
        }
        SpecOp::AwaitAttempts { specs, of, behind, millis } => {
            let millis = millis.min(AWAIT_STEP.as_millis() as u32);
            server.call(SpecOp::AwaitAttempts { specs, of, behind, millis }.by(uid))
        }
        op => server.call(op.by(uid)),
    }
}

/// The lease of a connection that must have one.
fn viewed(lease: &mut Option<Lease>) -> Result<&mut Lease, Fault> {
    lease.as_mut().ok_or_else(|| Fault::new(FaultKind::Protocol, "this connection has no view"))
}

/// What others decide about a view is told on this connection.
fn tell_of(daemon: &Daemon, lease: &Lease, outbox: &Arc<Outbox>) {
    let asking = outbox.clone();
    lease.ask_by(Box::new(move |ticket, pid| asking.notice(&Answer::Checkpoint { ticket, pid })));
    let outbox = outbox.clone();
    let tell = move |news| {
        let answer = match news {
            News::Decided(spec, state, why) => Answer::Decided { spec, state, why },
            News::Lost(why) => Answer::Lost { why: why.message },
        };
        outbox.notice(&answer);
    };
    daemon.notices.on_news(lease.view(), Box::new(tell));
}

/// When somebody is about to depend on what a process has undecided, it is looked for: one that is dead has aborted, also
/// before the end of its connection is noticed.
fn probe_on_demand(daemon: &Arc<Daemon>, caller: &Caller, view: ViewId, outbox: &Arc<Outbox>) -> Result<(), Fault> {
    let failed = |e: io::Error| Fault::new(FaultKind::Io, format!("process {}: {e}", caller.pid));
    let process = caller.process().map_err(failed)?;
    let (outbox, connection) = (outbox.clone(), daemon.connection.clone());
    let probe = move || {
        if crate::sys::has_ended(&process) && connection.done(ViewOp::Gone { view }).is_ok() {
            // Whoever answers the connection finds its end, and undoes what was undecided.
            outbox.hang_up();
        }
    };
    daemon.notices.on_probe(view, Arc::new(probe));
    Ok(())
}

/// What others undo of a process's, and what of its votes can't stand, is told on this connection: the speculations' numbers,
/// 8 bytes each, which a signal handler can read.
fn watch(daemon: &Daemon, caller: &Caller, view: ViewId, outbox: &Arc<Outbox>) -> Result<(), Fault> {
    if daemon.processes.lock().get(&view).is_none_or(|uid| caller.uid != 0 && *uid != caller.uid) {
        return Err(Fault::new(FaultKind::AccessDenied, format!("view {view} is no process's of this user")));
    }
    let outbox = outbox.clone();
    let tell = move |news| match news {
        News::Decided(spec, state @ (SpecState::Aborted | SpecState::Held), _) => {
            let conflict = if state == SpecState::Held { WATCHED_CONFLICT } else { 0 };
            let _ = outbox.say((spec.0 | conflict).to_le_bytes().to_vec());
        }
        News::Decided(..) => {}
        // As if this process had gone with the server.
        News::Lost(_) => outbox.hang_up(),
    };
    daemon.notices.on_news(view, Box::new(tell));
    Ok(())
}

/// Only its supervisor knows when a job that runs is done.
fn refuse_running(server: &dyn Connection, uid: u32, spec: SpecId) -> Result<(), Fault> {
    let known = server.status(SpecOp::Status.by(uid))?;
    match known.iter().any(|status| status.id == spec && status.state == SpecState::Running) {
        true => {
            let text = format!("speculation {spec} is still running; it is committed when its command has ended well");
            Err(Fault::new(FaultKind::Busy, text))
        }
        false => Ok(()),
    }
}
