//! Frames: the length of what follows (4 bytes), the kind (1), a number that ties an answer to its question (8), the
//! body. All numbers are little-endian. docs/formats.md has the table.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const HEADER_BYTES: usize = 9;
/// How much room is made for a frame before its bytes are there: a length alone takes no memory.
const ROOM_BYTES: usize = 64 * 1024;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// To the server: a [`mojavefs::protocol::Request`].
    Request = 1,
    /// To the client: a `Result` of [`mojavefs::protocol::Reply`] and [`mojavefs::protocol::fault::Fault`], with the number of its request.
    Reply = 2,
    /// To the client: a [`mojavefs::protocol::Notice`].
    Notice = 3,
    /// To the server: a notice was applied. No body.
    Ack = 4,
    /// Either way: I am here. No body.
    Alive = 5,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Option<Self> {
        use FrameKind::{Ack, Alive, Notice, Reply, Request};
        [Request, Reply, Notice, Ack, Alive].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// Ties a reply to its request and an acknowledgement to its notice.
    pub number: u64,
    /// The encoded message.
    pub body: Vec<u8>,
}

impl Frame {
    /// A frame without a body.
    pub fn bare(kind: FrameKind, number: u64) -> Self {
        Frame { kind, number, body: Vec::new() }
    }
}

fn garbage(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Reads the frame whose first length byte is `first`; its body may have `body_bytes_max` bytes. Errors: the stream's, and
/// `InvalidData` for what is no frame.
pub async fn read_frame<S: AsyncRead + Unpin>(stream: &mut S, first: u8, body_bytes_max: usize) -> io::Result<Frame> {
    let mut head = [0u8; 4 + HEADER_BYTES];
    head[0] = first;
    stream.read_exact(&mut head[1..]).await?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let body_bytes = length.checked_sub(HEADER_BYTES).filter(|bytes| *bytes <= body_bytes_max);
    let body_bytes = body_bytes.ok_or_else(|| garbage(format!("a frame of {length} bytes")))?;
    let kind = FrameKind::from_byte(head[4]).ok_or_else(|| garbage(format!("a frame of kind {}", head[4])))?;
    let mut number = [0u8; 8];
    number.copy_from_slice(&head[5..]);
    let mut body = Vec::with_capacity(body_bytes.min(ROOM_BYTES));
    stream.take(body_bytes as u64).read_to_end(&mut body).await?;
    match body.len() == body_bytes {
        true => Ok(Frame { kind, number: u64::from_le_bytes(number), body }),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Writes a frame; the caller flushes.
pub async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, frame: &Frame) -> io::Result<()> {
    let length =
        u32::try_from(frame.body.len() + HEADER_BYTES).map_err(|_| garbage("a frame that is too long".into()))?;
    let mut head = [0u8; 4 + HEADER_BYTES];
    head[..4].copy_from_slice(&length.to_le_bytes());
    head[4] = frame.kind as u8;
    head[5..].copy_from_slice(&frame.number.to_le_bytes());
    stream.write_all(&head).await?;
    stream.write_all(&frame.body).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
    }

    fn read(mut bytes: &[u8], max: usize) -> io::Result<Frame> {
        run(async {
            let first = bytes.read_u8().await?;
            read_frame(&mut bytes, first, max).await
        })
    }

    proptest! {
        #[test]
        fn a_frame_comes_out_as_it_went_in(number: u64, body: Vec<u8>) {
            let frame = Frame { kind: FrameKind::Notice, number, body };
            let mut bytes = Vec::new();
            run(write_frame(&mut bytes, &frame)).expect("written");
            prop_assert_eq!(read(&bytes, frame.body.len()).expect("read"), frame.clone());
            prop_assert!(read(&bytes[..bytes.len() - 1], frame.body.len()).is_err());
            if let Some(less) = frame.body.len().checked_sub(1) {
                let refused = read(&bytes, less).expect_err("too long");
                prop_assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
            }
        }

        #[test]
        fn garbage_is_refused_and_takes_no_memory(bytes: Vec<u8>) {
            if let Ok(frame) = read(&bytes, 1 << 30) {
                prop_assert!(frame.body.len() <= bytes.len());
            }
        }
    }
}
