//! How the messages of [`mojavefs::protocol`] travel between processes: addresses, frames, the handshake, keys. Works on streams
//! that the caller opens.

pub mod address;
pub mod frame;
pub mod hello;
pub mod key;

pub use address::Address;
pub use frame::{Frame, FrameKind, read_frame, write_frame};
pub use key::Key;

use tokio::io::{AsyncRead, AsyncWrite};

/// Anything that messages can travel on: a Unix socket, or TLS on TCP.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
