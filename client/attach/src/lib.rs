//! How a process comes to a view of its own: it finds the daemon behind the filesystem that it stands in, asks for a view on
//! the control socket, and puts the view's mount over every place of the filesystem in a mount namespace that nobody else sees.

pub mod control;
pub mod cover;
pub mod descriptors;
pub mod find;
pub mod mount;
pub mod namespace;
pub mod places;
mod subordinate;
pub mod sys;

use control::{ask, unexpected};
use find::Filesystem;
use mojavefs::id::{SpecId, ViewId};
use mojavefs::protocol::control::{Answer, Ask, Start};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mount::MountOptions;
use nix::unistd::geteuid;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// The attribute by which programs on a mount find the daemon behind it and the view they are in.
pub const CONTROL_XATTR: &str = "system.mojavefs";
/// The version of the messages on the control socket: programs, the library and the daemon must agree on it.
pub const CONTROL_VERSION: &str = "15";
/// Where `specrun` says which mount its command runs in.
pub const MOUNTPOINT_VARIABLE: &str = "MOJAVEFS_MOUNTPOINT";

/// A view, its mount attached nowhere yet. It lasts as long as the connection.
pub struct Opened {
    /// To the daemon.
    pub stream: UnixStream,
    /// The view.
    pub view: ViewId,
    /// The speculation that it shows.
    pub spec: SpecId,
    /// Its mount.
    pub mount: OwnedFd,
}

/// Asks for a view. Where the daemon may not make mounts, as an ordinary user's, that is done here: before that the process must be in the
/// [namespace](namespace::enter) that it is for.
pub fn open(filesystem: &Filesystem, start: Start) -> Result<Opened, Fault> {
    let stream = filesystem.connect()?;
    let mounts = match ask(&stream, &Ask::Hello, None)?.0 {
        Answer::Daemon { mounts, .. } => mounts,
        other => return Err(unexpected(&other)),
    };
    let (answer, mount) = if mounts {
        ask(&stream, &Ask::Start { start, mounted: false }, None)?
    } else {
        let privileged = geteuid().is_root() && !namespace::is_user_namespace();
        let options = MountOptions { others: false, privileged };
        let failed = |e: io::Error| Fault::new(FaultKind::Io, format!("make a mount for the job: {e}"));
        let source = filesystem.source.as_os_str().as_encoded_bytes();
        let detached = mount::detached(source, options).map_err(failed)?;
        let (answer, _) = ask(&stream, &Ask::Start { start, mounted: true }, Some(&detached.device))?;
        (answer, Some(detached.mount))
    };
    let Answer::Started { view, spec } = answer else { return Err(unexpected(&answer)) };
    let mount = mount.ok_or_else(|| Fault::new(FaultKind::Protocol, "the daemon sent no mount"))?;
    Ok(Opened { stream, view, spec, mount })
}
