//! Finding the filesystem, the daemon behind it and the view one is in.

use crate::control::ask;
use crate::descriptors::working_directory;
use crate::mount::{self, MountInfo};
use crate::places::{self, Table};
use crate::sys;
use crate::{CONTROL_VERSION, CONTROL_XATTR};
use mojavefs::id::ViewId;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Admin, Reply};
use nix::libc;
use std::ffi::{CString, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

const CONTROL_VALUE_BYTES_MAX: usize = 8192;

/// How the names of files end that say which server is behind a mount.
pub const RECORD: &str = "server";

/// The file in a directory of control sockets that says which server is behind the mount with this connection's number.
pub fn record_of(dir: &Path, minor: u32) -> PathBuf {
    dir.join(format!("{minor}.{RECORD}"))
}

/// Where the daemons of root have their control sockets.
const SOCKETS_OF_ROOT: &str = "/run/mojavefs";

/// A mounted filesystem.
#[derive(Clone, Debug)]
pub struct Filesystem {
    /// Where it is mounted: all of it, or where that is to be seen nowhere, a part.
    pub mountpoint: PathBuf,
    /// What is mounted there: a path from its root, `/` if it is all of it.
    pub root: PathBuf,
    /// Its store or server.
    pub source: PathBuf,
    /// The number of its FUSE connection.
    pub(crate) minor: u32,
    socket: PathBuf,
    /// Which server is behind it.
    server: u64,
    /// The view that this process sees it through.
    pub view: ViewId,
    /// It is the host's own, of which these directories are to be covered: each with what it lies on.
    pub(crate) host: Vec<(PathBuf, (u32, u32))>,
}

impl Filesystem {
    /// The filesystem mounted at `mountpoint`, or else the one in which the working directory lies.
    pub fn find(mountpoint: Option<&Path>) -> Result<Self, Fault> {
        let io = |e: std::io::Error| Fault::new(FaultKind::Io, format!("look for the filesystem: {e}"));
        let path = match mountpoint {
            Some(path) => mount::resolve(path).map_err(io)?,
            None => working_directory().map_err(io)?,
        };
        let mounts = mount::mounts().map_err(io)?;
        let found = mount::around(&mounts, &path).filter(|found| found.kind == mount::FS_TYPE);
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
        Self::at(places::whole(&mounts, found))
    }

    /// The filesystem of this mount.
    pub(crate) fn at(mount: &MountInfo) -> Result<Self, Fault> {
        let gone = |why: String| {
            let text = format!(
                "the daemon behind {} does not answer ({why}); unmount it with `mojavefs umount --force`",
                mount.point.display()
            );
            Fault::new(FaultKind::Disconnected, text)
        };
        let path = CString::new(mount.point.as_os_str().as_bytes()).map_err(|e| gone(e.to_string()))?;
        let name = CString::new(CONTROL_XATTR).map_err(|e| gone(e.to_string()))?;
        let value = sys::getxattr(&path, &name, CONTROL_VALUE_BYTES_MAX).map_err(|e| gone(e.to_string()))?;
        let text = String::from_utf8_lossy(&value);
        let mut lines = text.lines();
        let (version, socket) = (lines.next(), lines.next());
        let mut number = || lines.next().and_then(|number| number.parse().ok());
        match (version, socket, number(), number()) {
            (Some(CONTROL_VERSION), Some(socket), Some(view), Some(server)) => Ok(Filesystem {
                mountpoint: mount.point.clone(),
                root: mount.root.clone(),
                source: mount.source.clone(),
                minor: mount.minor,
                socket: PathBuf::from(socket),
                server,
                view: ViewId(view),
                host: Vec::new(),
            }),
            _ => {
                let text = format!(
                    "the daemon behind {} is of another version; use the programs that fit it",
                    mount.point.display()
                );
                Err(Fault::new(FaultKind::Protocol, text))
            }
        }
    }

    /// The host's own filesystem, of which these directories are meant, one at least: absolute paths without links. The daemon that stands
    /// for it listens at `socket`.
    ///
    /// # Errors
    /// Nobody listens there: `Disconnected`.
    pub fn of_host(dirs: &[PathBuf], socket: &Path) -> Result<Self, Fault> {
        let gone = |e: std::io::Error| Fault::new(FaultKind::Disconnected, format!("{}: {e}", socket.display()));
        let stream = UnixStream::connect(socket).map_err(gone)?;
        let Answer::Daemon { trunk, source, .. } = ask(&stream, &Ask::Hello, None)?.0 else {
            return Err(Fault::new(FaultKind::Protocol, format!("{} is no daemon's", socket.display())));
        };
        let Answer::Reply(Reply::Number(server)) = ask(&stream, &Ask::Admin(Admin::Identity), None)?.0 else {
            return Err(Fault::new(FaultKind::Protocol, format!("{} says not who it is", socket.display())));
        };
        let look = |dir: &PathBuf| match sys::cached_stat(dir) {
            Ok(found) if found.kind == libc::S_IFDIR => Ok((dir.clone(), found.device)),
            Ok(_) => Err(Fault::new(FaultKind::NotDirectory, format!("{} is no directory", dir.display()))),
            Err(e) => Err(Fault::new(FaultKind::Io, format!("{}: {e}", dir.display()))),
        };
        let host = dirs.iter().map(look).collect::<Result<Vec<_>, Fault>>()?;
        let none = || Fault::new(FaultKind::Invalid, "no directory of the host is named");
        let (dir, device) = host.first().cloned().ok_or_else(none)?;
        Ok(Filesystem {
            mountpoint: dir.clone(),
            root: dir,
            source: PathBuf::from(OsString::from_vec(source)),
            minor: device.1,
            // By whatever path its name may be hidden from a job.
            socket: fs::canonicalize(socket).map_err(gone)?,
            server,
            view: trunk,
            host,
        })
    }

    /// The directories of the host that are covered; none if it is not the host's own.
    pub fn host_dirs(&self) -> impl Iterator<Item = &Path> {
        self.host.iter().map(|(dir, _)| dir.as_path())
    }

    /// Whether it is the host's own.
    pub fn is_host(&self) -> bool {
        !self.host.is_empty()
    }

    /// Whether another mount shows the files of the same server, if its daemon has recorded which it has.
    pub(crate) fn is_recorded_as_same(&self, mount: &MountInfo) -> Option<bool> {
        let dirs = [self.socket.parent(), Some(Path::new(SOCKETS_OF_ROOT))];
        dirs.into_iter().flatten().find_map(|dir| {
            let text = fs::read_to_string(record_of(dir, mount.minor)).ok()?;
            Some(text.lines().next()?.parse::<u64>().ok()? == self.server)
        })
    }

    /// Whether another mount shows the files of the same server; its daemon is asked.
    pub(crate) fn has_server_of(&self, mount: &MountInfo) -> Result<bool, Fault> {
        match Self::at(mount).map(|other| other.server) {
            Ok(server) => Ok(server == self.server),
            // Nothing can be changed there either.
            Err(fault) if fault.kind == FaultKind::Disconnected => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Whether this is its mountpoint, and all of it is mounted there.
    pub(crate) fn is_mountpoint(&self, mount: &MountInfo) -> bool {
        self.mountpoint == mount.point && self.root == Path::new("/")
    }

    /// Whether it is mounted at exactly this path, whole or a part of it.
    pub fn is_at(&self, point: &Path) -> bool {
        self.mountpoint == point || mount::ours_at(point).is_ok_and(|at| at.is_some_and(|at| at.minor == self.minor))
    }

    /// What a path of this process leads to: a path from the filesystem's root, if it is one in it. Links are not followed.
    pub fn path_of(&self, path: &Path) -> Option<PathBuf> {
        Table::of(self).ok()?.path_of(path)
    }

    /// Where a path from its root is to be found below its mountpoint: a path from there. Nothing if only another part of it is
    /// mounted there.
    pub fn below(&self, path: &Path) -> Option<PathBuf> {
        let root = self.root.strip_prefix("/").unwrap_or(&self.root);
        path.strip_prefix("/").unwrap_or(path).strip_prefix(root).ok().map(Path::to_owned)
    }

    /// The same file's path by the mountpoint, if it is one of the filesystem's that is to be seen there; else the path itself.
    pub fn by_mountpoint(&self, path: PathBuf) -> PathBuf {
        let found = self.path_of(&path).and_then(|inner| self.below(&inner));
        found.map_or(path, |below| places::join(&self.mountpoint, &below))
    }

    /// A connection to the daemon.
    pub fn connect(&self) -> Result<UnixStream, Fault> {
        UnixStream::connect(&self.socket).map_err(|e| {
            Fault::new(FaultKind::Disconnected, format!("connect to the daemon at {}: {e}", self.socket.display()))
        })
    }
}
