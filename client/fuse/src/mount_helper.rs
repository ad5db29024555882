//! Mounting as an ordinary user, by the set-user-id program `fusermount3`.

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

const HELPER: &str = "fusermount3";
/// Names the descriptor by which the helper sends back that of the connection.
const SOCKET_VARIABLE: &str = "_FUSE_COMMFD";

/// Mounts at `point` with these options. Returns the connection, which the kernel has not begun to use.
///
/// # Errors
/// The helper is not there, or says why it does not mount.
pub fn mount(point: &Path, options: &[String]) -> io::Result<OwnedFd> {
    let (ours, theirs) = UnixStream::pair()?;
    let mut command = Command::new(HELPER);
    // Their end is what they have for standard input.
    command.arg("-o").arg(options.join(",")).arg("--").arg(point).env(SOCKET_VARIABLE, "0");
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => io::Error::new(e.kind(), format!("{HELPER} is not installed: install fuse3")),
        _ => e,
    })?;
    // It keeps its copy of their end, which is closed here.
    drop(command);
    let device = receive(&ours);
    let output = child.wait_with_output()?;
    match device {
        Ok(device) if output.status.success() => Ok(device),
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim();
            let kind = match said.contains("ermission denied") || said.contains("not permitted") {
                true => io::ErrorKind::PermissionDenied,
                false => io::ErrorKind::Other,
            };
            Err(io::Error::new(
                kind,
                if said.is_empty() { format!("{HELPER} does not mount") } else { said.to_owned() },
            ))
        }
    }
}

#[allow(unsafe_code)]
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(std::os::fd::RawFd);
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut data, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let fd = received.cmsgs()?.find_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let fd = fd.ok_or_else(|| io::Error::other("no descriptor came along"))?;
    // SAFETY: the kernel has just made it for this message, so nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
