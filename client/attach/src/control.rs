//! The control socket: messages with a length before them, descriptors alongside.

use mojavefs::protocol::codec;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// What is said on a control socket.
pub trait Message: Serialize + DeserializeOwned {
    /// The largest one, in bytes.
    const BYTES_MAX: usize;
}

/// Questions come from anybody, and are small: the longest name a thousand paths.
impl Message for Ask {
    const BYTES_MAX: usize = 1 << 20;
}

impl Message for Answer {
    const BYTES_MAX: usize = 64 << 20;
}

fn invalid(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

/// A message as it is sent.
pub fn encode<M: Message>(message: &M) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; size_of::<u32>()];
    codec::encode_into(message, &mut bytes).map_err(|why| invalid(why.to_string()))?;
    let length = bytes.len() - size_of::<u32>();
    if length > M::BYTES_MAX {
        let text = format!("the message has {length} bytes, and {} are the most", M::BYTES_MAX);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    bytes[..size_of::<u32>()].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

/// Sends one message, and a descriptor with it.
pub fn send<M: Message>(mut stream: &UnixStream, message: &M, fd: Option<&OwnedFd>) -> io::Result<()> {
    let bytes = encode(message)?;
    let fds: Vec<RawFd> = fd.iter().map(|fd| fd.as_raw_fd()).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
    let sent = sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
    stream.write_all(&bytes[sent..])
}

/// Receives one message, and the descriptor that came with it; nothing at the end of the stream.
pub fn receive<M: Message>(mut stream: &UnixStream) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let mut length = [0u8; 4];
    let mut space = cmsg_space!([RawFd; 1]);
    let (got, fds) = {
        let mut slices = [IoSliceMut::new(&mut length)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let fds = message.cmsgs()?.filter_map(|control| match control {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        });
        // There may be more of them than were asked for, as space is rounded up: every one is owned here, or stays open.
        (message.bytes, fds.flatten().map(crate::sys::own).collect::<Vec<OwnedFd>>())
    };
    if got == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[got..])?;
    let length = u32::from_le_bytes(length) as usize;
    if length > M::BYTES_MAX {
        return Err(invalid(format!("a message of {length} bytes, and {} are the most", M::BYTES_MAX)));
    }
    let mut body = Vec::new();
    stream.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(invalid("the message ends too early"));
    }
    let message = codec::decode(&body).map_err(|why| invalid(why.to_string()))?;
    Ok(Some((message, fds.into_iter().next())))
}

/// Asks the daemon one thing. Errors: `Disconnected` if it was not asked, `InDoubt` if it did not answer.
pub fn ask(stream: &UnixStream, ask: &Ask, fd: Option<&OwnedFd>) -> Result<(Answer, Option<OwnedFd>), Fault> {
    match send(stream, ask, fd) {
        Ok(()) => answer(stream),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Err(lost(error)),
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

/// The daemon's next answer. Errors: `InDoubt` if none comes.
pub fn answer(stream: &UnixStream) -> Result<(Answer, Option<OwnedFd>), Fault> {
    match receive(stream).map_err(unanswered)? {
        Some((Answer::Refused(fault), _)) => Err(fault),
        Some((answer, fd)) => Ok((answer, fd)),
        None => Err(Fault::new(FaultKind::InDoubt, "the daemon has gone")),
    }
}

/// Nobody says any more what has become of what was asked.
fn unanswered(error: io::Error) -> Fault {
    Fault { kind: FaultKind::InDoubt, ..lost(error) }
}

fn lost(error: io::Error) -> Fault {
    if error.kind() == io::ErrorKind::FileTooLarge {
        let text =
            format!("this is too long to be asked of the daemon: {error}; name directories in place of single paths");
        return Fault::new(FaultKind::TooLarge, text);
    }
    Fault::new(FaultKind::Disconnected, format!("the daemon does not answer: {error}"))
}

/// An answer that does not fit the question.
pub fn unexpected(answer: &Answer) -> Fault {
    Fault::new(FaultKind::Protocol, format!("the daemon answers something else: {answer:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::protocol::SpecOp;
    use std::fs::File;

    #[test]
    fn every_descriptor_that_comes_along_is_owned() {
        let (near, far) = UnixStream::pair().expect("a pair");
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let (first, second) = (File::open("/dev/null").expect("a file"), OwnedFd::from(writer));
        let fds = [first.as_raw_fd(), second.as_raw_fd()];
        let bytes = encode(&Ask::Hello).expect("it is short");
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(near.as_raw_fd(), &[IoSlice::new(&bytes)], &rights, MsgFlags::empty(), None).expect("sent");
        drop(second);
        let (ask, fd) = receive::<Ask>(&far).expect("received").expect("a message");
        assert_eq!((ask, fd.is_some()), (Ask::Hello, true));
        // The end of the pipe: nobody has its other side open.
        assert_eq!(reader.read(&mut [0]).expect("read"), 0);
    }

    #[test]
    fn a_question_that_is_too_long_is_refused_by_both_sides() {
        let (mut near, far) = UnixStream::pair().expect("a pair");
        let long = Ask::Speculation(SpecOp::Writers { path: vec![b'x'; Ask::BYTES_MAX + 1] });
        assert_eq!(ask(&near, &long, None).expect_err("refused").kind, FaultKind::TooLarge);
        near.write_all(&(Ask::BYTES_MAX as u32 + 1).to_le_bytes()).expect("written");
        assert!(receive::<Ask>(&far).is_err());
    }
}
