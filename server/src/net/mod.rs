//! A server on sockets: it listens, and gives each client that passes the handshake a session.

mod client;
mod handshakes;
mod sink;

use crate::Server;
use handshakes::PendingHandshakes;
use mojavefs::limits::SESSIONS_MAX;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_net::{Address, Key};
use nix::unistd::geteuid;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// How long accepting rests after an error: most of them are for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The most threads that answer requests.
const ANSWERING_THREADS_MAX: usize = 1024;

/// A server that listens. Dropping it ends every session, as if their clients had gone.
pub struct Listening {
    addresses: Vec<Address>,
    sockets: Vec<PathBuf>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

/// What all connections share.
struct Host {
    server: Arc<Server>,
    sessions: Arc<Semaphore>,
    handshakes: PendingHandshakes,
    stopping: watch::Receiver<bool>,
}

enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener, TlsAcceptor),
}

/// Listens at these addresses. Errors: `tcp:` without a key, an address in use or not to be had.
pub fn listen(server: Arc<Server>, addresses: &[Address], key: Option<&Key>) -> Result<Listening, Fault> {
    let io = |e: io::Error| Fault::new(FaultKind::Io, format!("start the server: {e}"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(ANSWERING_THREADS_MAX)
        .thread_name("mojavefs-net")
        .enable_all()
        .build()
        .map_err(io)?;
    let (stop, stopping) = watch::channel(false);
    let mut listening = Listening { addresses: Vec::new(), sockets: Vec::new(), stop, runtime: None };
    let sessions = Arc::new(Semaphore::new(SESSIONS_MAX));
    let host = Arc::new(Host { server, sessions, handshakes: PendingHandshakes::default(), stopping });
    for address in addresses {
        let _inside = runtime.enter();
        let listener = match address {
            Address::Unix(path) => {
                let listener = bind_unix(path)?;
                listening.sockets.push(path.clone());
                listening.addresses.push(address.clone());
                Listener::Unix(listener)
            }
            Address::Tcp(target) => {
                let (listener, tls) = runtime.block_on(bind_tcp(target, key))?;
                let at = listener.local_addr().map_err(io)?;
                listening.addresses.push(Address::Tcp(at.to_string()));
                Listener::Tcp(listener, tls)
            }
        };
        runtime.spawn(accept(listener, host.clone()));
    }
    listening.runtime = Some(runtime);
    Ok(listening)
}

impl Listening {
    /// Where it listens, with the port that was chosen for port 0.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.sockets.iter().for_each(|socket| drop(fs::remove_file(socket)));
        self.stop.send_replace(true);
        // Waits until every task and every thread that answers is done: sessions close as they end.
        if let Some(runtime) = self.runtime.take() {
            runtime.block_on(self.stop.closed());
        }
    }
}

fn bind_unix(path: &Path) -> Result<UnixListener, Fault> {
    let shown = path.display();
    let fault = |kind, why: String| Fault::new(kind, format!("cannot listen at unix:{shown}: {why}"));
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(fault(FaultKind::Exists, "something that is no socket is there".into()));
        }
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => {
            return Err(fault(FaultKind::Busy, "another server listens there".into()));
        }
        // Left over from a server that was killed.
        Ok(_) => fs::remove_file(path).map_err(|e| fault(FaultKind::Io, e.to_string()))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(|e| fault(FaultKind::Io, e.to_string()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(|e| fault(FaultKind::Io, e.to_string()))?;
    Ok(listener)
}

async fn bind_tcp(target: &str, key: Option<&Key>) -> Result<(TcpListener, TlsAcceptor), Fault> {
    let Some(key) = key else {
        let text = format!(
            "tcp:{target} needs --key FILE: without one anybody could read and write the store; make one with `mojavefs keygen FILE`"
        );
        return Err(Fault::new(FaultKind::AccessDenied, text));
    };
    let tls = key.server().map_err(|e| Fault::new(FaultKind::Invalid, e.to_string()))?;
    let listener = TcpListener::bind(target).await;
    let listener = listener.map_err(|e| Fault::new(FaultKind::Io, format!("cannot listen at tcp:{target}: {e}")))?;
    Ok((listener, TlsAcceptor::from(tls)))
}

async fn accept(listener: Listener, host: Arc<Host>) {
    let mut stopping = host.stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        match accepted {
            Ok(connection) => drop(tokio::spawn(client::meet(connection, host.clone()))),
            Err(error) => {
                tracing::error!("accept a client: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A client that has not said anything yet.
enum Connected {
    Unix(UnixStream),
    Tcp(TcpStream, TlsAcceptor),
}

impl Listener {
    async fn accept(&self) -> io::Result<Connected> {
        Ok(match self {
            Listener::Unix(listener) => Connected::Unix(listener.accept().await?.0),
            Listener::Tcp(listener, tls) => Connected::Tcp(listener.accept().await?.0, tls.clone()),
        })
    }
}

/// Root and the server's own user may do everything to the store anyway.
fn may_enter(uid: u32) -> bool {
    uid == 0 || uid == geteuid().as_raw()
}
