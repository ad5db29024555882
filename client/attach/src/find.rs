//! Finding the filesystem, the daemon behind it and the view one is in.

use crate::descriptors::working_directory;
use crate::mount;
use crate::sys;
use crate::{CONTROL_VERSION, CONTROL_XATTR};
use mojavefs::id::ViewId;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const CONTROL_VALUE_BYTES_MAX: usize = 8192;

/// A mounted filesystem.
#[derive(Clone, Debug)]
pub struct Filesystem {
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Its store or server.
    pub source: PathBuf,
    socket: PathBuf,
    /// The view that this process sees it through.
    pub view: ViewId,
}

impl Filesystem {
    /// The filesystem mounted at `mountpoint`, or else the one in which the working directory lies.
    pub fn find(mountpoint: Option<&Path>) -> Result<Self, Fault> {
        let io = |e: std::io::Error| Fault::new(FaultKind::Io, format!("look for the filesystem: {e}"));
        let path = match mountpoint {
            Some(path) => mount::resolve(path).map_err(io)?,
            None => working_directory().map_err(io)?,
        };
        let found = mount::ours_around(&path).map_err(io)?;
        let Some(found) = found.filter(|found| mountpoint.is_none() || found.point == path) else {
            let text = match mountpoint {
                Some(_) => format!("no MojaveFS is mounted on {}; see `mojavefs mount --help`", path.display()),
                None => format!(
                    "{} is not on a MojaveFS; go to one, or name its mountpoint with -m MOUNTPOINT",
                    path.display()
                ),
            };
            return Err(Fault::new(FaultKind::NotFound, text));
        };
        Self::at(found.point, found.source)
    }

    fn at(mountpoint: PathBuf, source: PathBuf) -> Result<Self, Fault> {
        let gone = |why: String| {
            let text = format!(
                "the daemon behind {} does not answer ({why}); unmount it with `mojavefs umount --force`",
                mountpoint.display()
            );
            Fault::new(FaultKind::Disconnected, text)
        };
        let path = CString::new(mountpoint.as_os_str().as_bytes()).map_err(|e| gone(e.to_string()))?;
        let name = CString::new(CONTROL_XATTR).map_err(|e| gone(e.to_string()))?;
        let value = sys::getxattr(&path, &name, CONTROL_VALUE_BYTES_MAX).map_err(|e| gone(e.to_string()))?;
        let text = String::from_utf8_lossy(&value);
        let mut lines = text.lines();
        match (lines.next(), lines.next(), lines.next().map(str::parse)) {
            (Some(CONTROL_VERSION), Some(socket), Some(Ok(view))) => {
                Ok(Filesystem { mountpoint, source, socket: PathBuf::from(socket), view: ViewId(view) })
            }
            _ => Err(Fault::new(FaultKind::Protocol, "the daemon is of another version; use the programs that fit it")),
        }
    }

    /// A connection to the daemon.
    pub fn connect(&self) -> Result<UnixStream, Fault> {
        UnixStream::connect(&self.socket).map_err(|e| {
            Fault::new(FaultKind::Disconnected, format!("connect to the daemon at {}: {e}", self.socket.display()))
        })
    }
}
