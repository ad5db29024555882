//! The control socket: messages with a length before them, descriptors alongside.

use mojavefs::codec;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::wire::control::{Answer, Ask};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// The largest message on a control socket, in bytes.
pub const CONTROL_BYTES_MAX: usize = 64 << 20;

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// Sends one message, and a descriptor with it.
pub fn send<T: Serialize>(mut stream: &UnixStream, message: &T, fd: Option<&OwnedFd>) -> io::Result<()> {
    let body = codec::encode(message).map_err(|why| invalid(why.to_string()))?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= CONTROL_BYTES_MAX);
    let length = length.ok_or_else(|| invalid("the message is too long"))?.to_le_bytes();
    let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    // In one piece, so that whoever waits for it is woken once.
    let pieces = [IoSlice::new(&length), IoSlice::new(&body)];
    let sent = sendmsg::<()>(stream.as_raw_fd(), &pieces, control, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(&length[sent.min(length.len())..])?;
    stream.write_all(&body[sent.saturating_sub(length.len())..])
}

/// Receives one message, and the descriptor that came with it; nothing at the end of the stream.
pub fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<Option<(T, Option<OwnedFd>)>> {
    let mut length = [0u8; 4];
    let mut space = cmsg_space!([RawFd; 1]);
    let (got, fd) = {
        let mut slices = [IoSliceMut::new(&mut length)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let fds = message.cmsgs()?.filter_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        (message.bytes, fds.flatten().next().map(crate::sys::own))
    };
    if got == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[got..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > CONTROL_BYTES_MAX {
        return Err(invalid(format!("a message of {length} bytes")));
    }
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(invalid("the message ends too early"));
    }
    let message = codec::decode(&body).map_err(|why| invalid(why.to_string()))?;
    Ok(Some((message, fd)))
}

/// Asks the daemon one thing.
pub fn ask(stream: &UnixStream, ask: &Ask, fd: Option<&OwnedFd>) -> Result<(Answer, Option<OwnedFd>), Fault> {
    match send(stream, ask, fd) {
        Ok(()) => answer(stream),
        // It may have refused the connection before it was asked anything.
        Err(error) => match receive(stream) {
            Ok(Some((Answer::Refused(fault), _))) => Err(fault),
            _ => Err(lost(error)),
        },
    }
}

/// Puts a question to the daemon whose [`answer`] is taken later.
pub fn put(stream: &UnixStream, ask: &Ask) -> Result<(), Fault> {
    send(stream, ask, None).map_err(lost)
}

/// The daemon's next answer.
pub fn answer(stream: &UnixStream) -> Result<(Answer, Option<OwnedFd>), Fault> {
    match receive(stream).map_err(lost)? {
        Some((Answer::Refused(fault), _)) => Err(fault),
        Some((answer, fd)) => Ok((answer, fd)),
        None => Err(Fault::new(FaultKind::Disconnected, "the daemon has gone")),
    }
}

fn lost(error: io::Error) -> Fault {
    Fault::new(FaultKind::Disconnected, format!("the daemon does not answer: {error}"))
}

/// An answer that does not fit the question.
pub fn unexpected(answer: &Answer) -> Fault {
    Fault::new(FaultKind::Protocol, format!("the daemon answers something else: {answer:?}"))
}
