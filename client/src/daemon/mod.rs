//! The process behind a mount: it connects to the server, answers the kernel, and listens for `specrun` and `mojavefs`.

mod caller;
mod content;
mod host;
mod lease;
mod listen;
mod outbox;
mod quota;
mod rights;
mod sockets;
mod version;

pub use host::next_speculation;
pub(crate) use host::{RUNS_ALREADY, over_host, signals_over_host, socket_over_host, state_path};
pub(crate) use version::make_way;

use crate::limits::{LINGER_TIME_MAX, MOUNTS_PAUSE};
use crate::mount::{self, MountOptions};
use crate::notify::Notices;
use crate::output::Repeated;
use crate::transport::{self, Kernel, Transport};
use mojavefs::id::ViewId;
use mojavefs::protocol::fault::Fault;
use mojavefs::protocol::{Admin, Connection, ConnectionExt, Rounds, ViewKind};
use mojavefs::protocol::{ViewOp, ViewOwner};
use mojavefs_attach::{CONTROL_VERSION, CONTROL_XATTR};
use mojavefs_fs::{Control, ReadPolicy, View};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::geteuid;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;

/// A server to talk to, and what keeps it running when it lives in this process.
pub struct Backend {
    /// The session.
    pub connection: Arc<dyn Connection>,
    /// What opening the store has to tell users, in words.
    pub notes: Vec<String>,
    /// Dropped last.
    pub keep: Box<dyn Keep>,
}

/// What keeps a server running that lives in this process.
pub trait Keep: Send {
    /// A store that was made when it was opened goes again when it closes: nobody has used it.
    fn discard_if_new(&self);

    /// The mount is gone, and this process ends: whoever wants the store waits for that.
    fn ends(&self);

    /// Over a host: the number of the next speculation, if nothing is undecided and the host has all that was committed. Nothing comes
    /// after that.
    fn rests(&self) -> Option<u64>;
}

/// A server elsewhere.
impl Keep for () {
    fn discard_if_new(&self) {}

    fn ends(&self) {}

    fn rests(&self) -> Option<u64> {
        None
    }
}

/// What a daemon serves, and where.
pub(crate) struct Setup {
    pub(crate) backend: Backend,
    /// The store or server, as the user named it.
    pub(crate) source: String,
    pub(crate) mountpoint: PathBuf,
    pub(crate) transport: Transport,
}

/// What all threads of a daemon share.
pub(crate) struct Daemon {
    /// The session, for views, which wait on their own.
    session: Arc<dyn Connection>,
    /// The same, which waits for what is being decided.
    connection: Arc<dyn Connection>,
    notices: Arc<Notices>,
    /// The view that is mounted for everybody.
    trunk: ViewId,
    /// Which server it is.
    server: u64,
    mountpoint: PathBuf,
    source: String,
    transport: Transport,
    socket: PathBuf,
    /// Whose the views of processes are.
    processes: Mutex<HashMap<ViewId, u32>>,
}

/// Where daemons of this user put their sockets and logs, whether it is there or not.
pub(crate) fn runtime_path() -> PathBuf {
    match geteuid().is_root() {
        true => PathBuf::from("/run/mojavefs"),
        false => match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(dir) => PathBuf::from(dir).join("mojavefs"),
            None => std::env::temp_dir().join(format!("mojavefs-{}", geteuid())),
        },
    }
}

/// The same, made if it is missing.
pub(crate) fn runtime_dir() -> io::Result<PathBuf> {
    let dir = runtime_path();
    // Everybody may use what root has mounted, and only its owner what an ordinary user has.
    let mode = if geteuid().is_root() { 0o755 } else { 0o700 };
    let made = match fs::DirBuilder::new().mode(mode).create(&dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        made => {
            made.map_err(|e| io::Error::new(e.kind(), format!("create {}: {e}", dir.display())))?;
            true
        }
    };
    let found = fs::symlink_metadata(&dir)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() {
        let text = format!("{} is not a directory of this user: remove it", dir.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    // Whatever the umask was when it was made. Who has restricted it further has meant to.
    let wanted = if made { mode } else { found.mode() & mode };
    if found.mode() & 0o777 != wanted {
        fs::set_permissions(&dir, fs::Permissions::from_mode(wanted))?;
    }
    Ok(dir)
}

/// From here on this process makes everything for its user only, the records of a store among it. What others are to
/// reach is opened to them by name: the control socket and its directory.
pub(crate) fn make_all_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Before anything is opened: each kernel that is answered, each connection and each file takes descriptors.
pub(crate) fn raise_descriptors() {
    if let Err(error) = quota::raise_descriptors() {
        tracing::warn!("raising the limit of descriptors: {error}");
    }
}

/// Serves until the mount is gone. `ready` is called once the filesystem can be used; if whoever waits for that has gone, it is
/// taken away again. The [signals](ending_signals) that end it are blocked in every thread.
pub(crate) fn run(setup: Setup, ready: impl FnOnce() -> io::Result<()>) -> Result<(), Fault> {
    let fault = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| Fault::new(mojavefs::protocol::fault::FaultKind::Io, format!("{what}: {e}"))
    };
    let signals = ending_signals();
    let Setup { backend, source, mountpoint, transport } = setup;
    let dir = runtime_dir().map_err(fault("the directory for control sockets"))?;
    // Anybody may ask; the kernel says who is asking.
    let (listener, socket) = sockets::bind(&dir, 0o666).map_err(fault("the control socket"))?;
    sweep_sockets(dir.clone());
    let session = backend.connection.clone();
    let connection: Arc<dyn Connection> = Arc::new(Rounds::of(session.clone()));
    let notices = Arc::new(Notices::default());
    connection.set_notice_sink(notices.clone());
    let trunk = connection.view(ViewOp::Open(ViewKind::Trunk))?;
    let server = connection.number(Admin::Identity)?;
    let control = socket.path.to_string_lossy().into_owned();
    let view = Arc::new(View::new(
        session.clone(),
        trunk.view,
        ViewOwner::Trunk,
        ReadPolicy::default(),
        control_of(&control, trunk.view, server),
    ));
    let kernel = mount_trunk(&mountpoint, &source, view, transport).map_err(|e| {
        // Nobody has seen it, and nobody is to find a store where there was none.
        drop(connection.done(ViewOp::Close(trunk.view)));
        backend.keep.discard_if_new();
        fault(&format!("mount on {}", mountpoint.display()))(e)
    })?;
    notices.add(&kernel);
    let recorded = crate::sys::cached_stat(&mountpoint).and_then(|stat| sockets::record(&dir, stat.device.1, server));
    let recorded = recorded.map_err(fault("record the mount"))?;
    let daemon = Arc::new(Daemon {
        session,
        connection,
        notices,
        trunk: trunk.view,
        server,
        mountpoint: mountpoint.clone(),
        source,
        transport,
        socket: socket.path.clone(),
        processes: Mutex::default(),
    });
    let leases = listen::start(listener, daemon.clone()).map_err(fault("listen"))?;
    end_on_signal(signals, mountpoint).map_err(fault("wait for signals"))?;
    if let Err(error) = ready() {
        tracing::warn!("nobody waits any more for the mount on {}: {error}", daemon.mountpoint.display());
        mount::unmount(&daemon.mountpoint, true).map_err(fault("take the mount away"))?;
        backend.keep.discard_if_new();
    }
    let result = until_unmounted(&kernel, &daemon.mountpoint).map_err(fault("answering the kernel"));
    backend.keep.ends();
    leases.end();
    drop(daemon.connection.done(ViewOp::Close(trunk.view)));
    drop((recorded, socket));
    drop(daemon);
    drop(backend);
    result
}

/// Removes what daemons that were killed have left, on a thread that nobody waits for.
fn sweep_sockets(dir: PathBuf) {
    let sweep = move || {
        if let Err(error) = sockets::sweep(&dir) {
            tracing::warn!("removing old sockets from {}: {error}", dir.display());
        }
    };
    if let Err(error) = mojavefs_threads::detached("mojavefs-sweep", sweep) {
        tracing::warn!("a thread that removes old sockets: {error}");
    }
}

/// What a view's files say of the daemon, which listens at this socket, and of its server.
fn control_of(socket: &str, view: ViewId, server: u64) -> Control {
    Control { name: CONTROL_XATTR, value: format!("{CONTROL_VERSION}\n{socket}\n{view}\n{server}\n").into_bytes() }
}

fn mount_trunk(point: &Path, source: &str, view: Arc<View>, transport: Transport) -> io::Result<Arc<Kernel>> {
    if !geteuid().is_root() {
        return transport::serve_at(point, source, view, transport).map_err(|e| match e.kind() {
            io::ErrorKind::PermissionDenied => {
                io::Error::new(e.kind(), format!("{e}; may this user open /dev/fuse and write to the directory?"))
            }
            _ => e,
        });
    }
    let detached = mount::detached(source.as_bytes(), MountOptions { others: true, privileged: true })?;
    let kernel = transport::serve(detached.device, view, transport, None)?;
    if let Err(error) = mount::attach(&detached.mount, point) {
        // With its mount the kernel that is answered ends.
        drop(detached.mount);
        drop(kernel.join());
        return Err(error);
    }
    Ok(kernel)
}

/// Those that ask a process to end.
pub(crate) fn ending_signals() -> SigSet {
    let mut signals = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals
}

/// Returns when the mount is gone: everywhere, or from this process's namespace for a while. Copies in the namespaces of
/// jobs elsewhere, where the host does not propagate unmounts, keep nothing alive.
fn until_unmounted(kernel: &Arc<Kernel>, point: &Path) -> io::Result<()> {
    let (sender, over) = channel();
    let (gone, at) = (sender.clone(), point.to_owned());
    let watch = move || {
        let mut failures = Repeated::default();
        let mut insist = |error: io::Error| {
            failures.tell(|| tracing::error!("watching the mounts, which is tried again: {error}"));
            std::thread::sleep(MOUNTS_PAUSE);
        };
        let found = loop {
            match mount::ours_at(&at) {
                Ok(found) => break found,
                Err(error) => insist(error),
            }
        };
        let Some(found) = found else { return };
        while let Err(error) = mount::wait_until_gone(found.minor) {
            insist(error);
        }
        std::thread::sleep(LINGER_TIME_MAX);
        drop(gone.send(Ok(())));
    };
    mojavefs_threads::detached("mojavefs-watch", watch)?;
    let kernel = kernel.clone();
    let join = move || drop(sender.send(kernel.join()));
    mojavefs_threads::detached("mojavefs-join", join)?;
    over.recv().unwrap_or_else(|_| Err(io::Error::other("nobody watches the mount")))
}

/// A signal takes the mount away, and with it the daemon ends.
fn end_on_signal(signals: SigSet, mountpoint: PathBuf) -> io::Result<()> {
    let wait = move || {
        while signals.wait().is_ok() {
            if let Err(error) = mount::tear_down(&mountpoint) {
                tracing::error!("take the mount on {} away: {error}", mountpoint.display());
            }
        }
    };
    mojavefs_threads::detached("mojavefs-signals", wait)?;
    Ok(())
}

impl Daemon {
    fn control(&self) -> String {
        self.socket.to_string_lossy().into_owned()
    }

    fn mountpoint_bytes(&self) -> Vec<u8> {
        self.mountpoint.as_os_str().as_bytes().to_vec()
    }
}
