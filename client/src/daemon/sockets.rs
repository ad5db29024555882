//! The control sockets of this user's daemons: each listens on its own, and removes those of daemons that were killed.

use mojavefs_attach::find::{RECORD, record_of};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

/// A control socket, removed when this is dropped.
pub(super) struct Socket {
    pub(super) path: PathBuf,
}

impl Drop for Socket {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// Listens on this process's own socket, which these may ask (`0o666`: anybody).
pub(super) fn bind(dir: &Path, mode: u32) -> io::Result<(UnixListener, Socket)> {
    let path = dir.join(format!("{}.sock", std::process::id()));
    // Between its making and listening nobody may take it for one that was left.
    let _starting = lock(dir, FlockArg::LockShared)?;
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(&path)?;
    let socket = Socket { path };
    fs::set_permissions(&socket.path, fs::Permissions::from_mode(mode))?;
    Ok((listener, socket))
}

/// Which server is behind a mount, for whoever must not have to wait for its daemon to say so. Removed when this is dropped.
pub(super) struct Record(PathBuf);

impl Drop for Record {
    fn drop(&mut self) {
        // Another daemon's mount may have the number by now.
        if recorder(&self.0) == Some(std::process::id()) {
            drop(fs::remove_file(&self.0));
        }
    }
}

/// Records which server is behind the mount with this connection's number.
pub(super) fn record(dir: &Path, minor: u32, server: u64) -> io::Result<Record> {
    let record = Record(record_of(dir, minor));
    // One of that name which a killed daemon has left may be about to be removed.
    let _recording = lock(dir, FlockArg::LockShared)?;
    fs::write(&record.0, format!("{server}\n{}\n", std::process::id()))?;
    fs::set_permissions(&record.0, fs::Permissions::from_mode(0o644))?;
    Ok(record)
}

/// Whether a file is the record of a daemon that has gone.
fn is_old_record(dir: &Path, path: &Path) -> bool {
    path.extension().is_some_and(|end| end == RECORD)
        && recorder(path).is_some_and(|pid| !dir.join(format!("{pid}.sock")).exists())
}

/// The process that made a record.
fn recorder(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().nth(1)?.parse().ok()
}

/// Removes the sockets that nobody listens on, and the records of their daemons. Waits until no daemon is about to listen.
pub(super) fn sweep(dir: &Path) -> io::Result<()> {
    let _alone = lock(dir, FlockArg::LockExclusive)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let is_socket = path.extension().is_some_and(|end| end == "sock") && entry.file_type()?.is_socket();
        if is_socket && is_abandoned(&path) {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if is_old_record(dir, &path) {
            drop(fs::remove_file(&path));
        }
    }
    Ok(())
}

/// Whether nobody listens on a socket. Waits for nobody: one whose queue is full has a listener.
fn is_abandoned(path: &Path) -> bool {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let Ok(caller) = socket(AddressFamily::Unix, SockType::Stream, flags, None) else { return false };
    UnixAddr::new(path).is_ok_and(|address| connect(caller.as_raw_fd(), &address) == Err(Errno::ECONNREFUSED))
}

/// Held by this user only: others can't open the file.
fn lock(dir: &Path, how: FlockArg) -> io::Result<Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(dir.join("lock"))?;
    Flock::lock(file, how).map_err(|(_, errno)| errno.into())
}
