//! The daemon that stands for the host's own filesystem: one for each user, which begins with the first job over a host directory and
//! ends by itself.

use super::{Backend, Daemon, ending_signals, listen, runtime_dir, sockets, version};
use crate::limits::{HOST_BELIEVED_TIME, HOST_IDLE_TIME, HOST_LOOK_INTERVAL, MAKE_WAY_TIME_MAX, POLL_INTERVAL};
use crate::notify::Notices;
use crate::transport::{self, Transport};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Admin, Connection, ConnectionExt, Rounds, SpecOp, ViewKind, ViewOp};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::SigSet;
use nix::unistd::geteuid;
use parking_lot::Mutex;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

/// Names the directory of this user's state, instead of the usual one.
const STATE_VARIABLE: &str = "MOJAVEFS_STATE";
/// Where the number of the next speculation stands when there is no store.
const NEXT: &str = "next";
/// What one says that is not needed.
pub(crate) const RUNS_ALREADY: &str = "the daemon of this user runs already";

/// Where the state of this user lies: undecided work over host directories, and what was displaced.
pub(crate) fn state_path() -> io::Result<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(state) = absolute(STATE_VARIABLE) {
        return Ok(state);
    }
    if geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/mojavefs"));
    }
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let none = || io::Error::new(io::ErrorKind::NotFound, "neither XDG_STATE_HOME nor HOME is set: set one");
    state.map(|state| state.join("mojavefs")).ok_or_else(none)
}

/// The same, made if it is missing, for this user only.
fn state_dir() -> io::Result<PathBuf> {
    let dir = state_path()?;
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&dir);
    made.map_err(|e| io::Error::new(e.kind(), format!("create {}: {e}", dir.display())))?;
    Ok(dir)
}

/// Where the daemon over this state listens, if there is one.
pub(crate) fn socket_over_host() -> io::Result<PathBuf> {
    Ok(state_path()?.join("socket"))
}

/// Serves the host until nothing is left to do. `ready` is called once it listens. Errors: `Busy` if another one does already.
pub(crate) fn over_host(
    open: impl FnOnce(&Path) -> Result<Backend, Fault>,
    transport: Transport,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), Fault> {
    let fault = |what: &'static str| move |e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"));
    let state = state_dir().map_err(fault("the directory for what is undecided"))?;
    let dir = runtime_dir().map_err(fault("the directory for control sockets"))?;
    let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(state.join("lock"));
    let lock = lock.map_err(fault("the lock of the daemon"))?;
    let mut alone =
        Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| Fault::new(FaultKind::Busy, RUNS_ALREADY))?;
    // For people who want to end it.
    let said = alone.set_len(0).and_then(|()| writeln!(alone, "{}", std::process::id()));
    said.map_err(fault("the lock of the daemon"))?;
    transport::believe_for(HOST_BELIEVED_TIME);
    let backend = open(&state)?;
    // What it does on the host it does as its user.
    let (listener, socket) = sockets::bind(&dir, 0o600).map_err(fault("the control socket"))?;
    let session = backend.connection.clone();
    let connection: Arc<dyn Connection> = Arc::new(Rounds::of(session.clone()));
    let notices = Arc::new(Notices::default());
    connection.set_notice_sink(notices.clone());
    let trunk = connection.view(ViewOp::Open(ViewKind::Trunk))?.view;
    let server = connection.number(Admin::Identity)?;
    let daemon = Arc::new(Daemon {
        session,
        connection: connection.clone(),
        notices,
        trunk,
        server,
        mountpoint: PathBuf::from("/"),
        source: "host".to_owned(),
        transport,
        socket: socket.path.clone(),
        processes: Mutex::default(),
    });
    let leases = listen::start(listener, daemon.clone()).map_err(fault("listen"))?;
    let version = version::Record::in_state(&state).map_err(fault("record the version"))?;
    let name = Name::of(&socket.path, state.join("socket")).map_err(fault("name the control socket"))?;
    ready().map_err(fault("say that it is ready"))?;
    let (sender, asked) = channel();
    let wait = move || {
        while let Ok(signal) = signals_over_host().wait() {
            if sender.send(signal).is_err() {
                break;
            }
        }
    };
    mojavefs_threads::detached("mojavefs-signals", wait).map_err(fault("wait for signals"))?;
    let is_idle = || Ok::<_, Fault>(!leases.any() && connection.status(SpecOp::Status.by(0))?.is_empty());
    let mut idle_since = Instant::now();
    loop {
        match asked.recv_timeout(HOST_LOOK_INTERVAL) {
            // Whoever asks may still be counted among those who are connected.
            Ok(version::MAKE_WAY) => {
                if wait_until_idle(&is_idle)? {
                    break;
                }
            }
            Ok(_) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if !is_idle()? => idle_since = Instant::now(),
            Err(RecvTimeoutError::Timeout) if idle_since.elapsed() >= HOST_IDLE_TIME => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    // Nobody finds it from here on.
    drop(name);
    drop(version);
    backend.keep.ends();
    leases.end();
    let next = backend.keep.rests();
    drop(connection.done(ViewOp::Close(trunk)));
    drop(connection);
    drop(socket);
    drop(daemon);
    drop(backend);
    next.map_or(Ok(()), |next| forget(&state, next)).map_err(fault("remove what is of no use any more"))
}

/// The signals that mean something to it: those that end it, and the one by which a newer program asks for that.
pub(crate) fn signals_over_host() -> SigSet {
    let mut signals = ending_signals();
    signals.add(version::MAKE_WAY);
    signals
}

/// Waits for a moment until nobody is connected and nothing is undecided. Whether that is so.
fn wait_until_idle(is_idle: &impl Fn() -> Result<bool, Fault>) -> Result<bool, Fault> {
    let deadline = Instant::now() + MAKE_WAY_TIME_MAX / 2;
    while Instant::now() < deadline {
        if is_idle()? {
            return Ok(true);
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(false)
}

/// Nothing is undecided, and the host has all that was committed: what is left is what was looked at, and bytes that the host has, too.
/// Speculations are counted on.
fn forget(state: &Path, next: u64) -> io::Result<()> {
    let new = state.join("next.new");
    fs::write(&new, format!("{next}\n"))?;
    fs::rename(&new, state.join(NEXT))?;
    fs::remove_dir_all(state.join("store"))?;
    match fs::remove_file(state.join("numbers")) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The number of the next speculation over this state, if an earlier daemon has left one.
pub fn next_speculation(state: &Path) -> Option<u64> {
    fs::read_to_string(state.join(NEXT)).ok()?.trim().parse().ok()
}

/// The name by which this user's programs find the socket.
struct Name(PathBuf);

impl Name {
    fn of(socket: &Path, name: PathBuf) -> io::Result<Name> {
        let new = name.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(socket, &new)?;
        fs::rename(&new, &name)?;
        Ok(Name(name))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}
