//! The handshake. The client says `MOJAVEFS` and its version (2 bytes); the server says the same and a verdict (2 bytes).

use mojavefs::protocol::fault::{Fault, FaultKind};
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The version of everything that travels: raised with every change of a message.
pub const WIRE_VERSION: u16 = 18;

const MAGIC: [u8; 8] = *b"MOJAVEFS";

/// What a server makes of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Welcome = 0,
    /// The versions differ.
    OtherVersion = 1,
    /// There are [`mojavefs::limits::SESSIONS_MAX`] sessions already.
    Full = 2,
    /// The user at the other end may not.
    Denied = 3,
}

fn encode(version: u16) -> [u8; 10] {
    let mut bytes = [0u8; 10];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..].copy_from_slice(&version.to_le_bytes());
    bytes
}

async fn receive<S: AsyncReadExt + Unpin>(stream: &mut S) -> io::Result<Option<u16>> {
    let mut bytes = [0u8; 10];
    stream.read_exact(&mut bytes).await?;
    Ok((bytes[..8] == MAGIC).then(|| u16::from_le_bytes([bytes[8], bytes[9]])))
}

/// The client's side. Errors: `Protocol` with both versions or for a peer that is no MojaveFS, `Busy`, `AccessDenied`,
/// `Disconnected`.
pub async fn greet<S: AsyncReadExt + AsyncWriteExt + Unpin>(stream: &mut S, to: &str) -> Result<(), Fault> {
    let lost = |e: io::Error| Fault::new(FaultKind::Disconnected, format!("{to} ended the connection: {e}"));
    stream.write_all(&encode(WIRE_VERSION)).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;
    let Some(theirs) = receive(stream).await.map_err(lost)? else {
        return Err(Fault::new(FaultKind::Protocol, format!("{to} is no MojaveFS server: it answers something else")));
    };
    match stream.read_u16_le().await.map_err(lost)? {
        0 => Ok(()),
        1 => {
            let text =
                format!("{to} speaks version {theirs} and this program {WIRE_VERSION}; use programs of one version");
            Err(Fault::new(FaultKind::Protocol, text))
        }
        2 => Err(Fault::new(FaultKind::Busy, format!("{to} has as many clients as it takes; try again later"))),
        3 => Err(Fault::new(FaultKind::AccessDenied, format!("{to} serves its own user and root only"))),
        other => Err(Fault::new(FaultKind::Protocol, format!("{to} answers the handshake with {other}"))),
    }
}

/// The server's side: `verdict` is for a client of the right version. Returns what was answered, and nothing for a peer
/// that is no MojaveFS (it gets no answer).
pub async fn welcome<S: AsyncReadExt + AsyncWriteExt + Unpin>(
    stream: &mut S,
    verdict: Verdict,
) -> io::Result<Option<Verdict>> {
    let Some(theirs) = receive(stream).await? else { return Ok(None) };
    let verdict = if theirs == WIRE_VERSION { verdict } else { Verdict::OtherVersion };
    stream.write_all(&encode(WIRE_VERSION)).await?;
    stream.write_u16_le(verdict as u16).await?;
    stream.flush().await?;
    Ok(Some(verdict))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meet(verdict: Verdict, first: Option<[u8; 10]>) -> (Result<(), Fault>, Option<Verdict>) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (mut client, mut server) = tokio::io::duplex(64);
        runtime.block_on(async {
            let (met, answered) = match first {
                None => tokio::join!(greet(&mut client, "it"), welcome(&mut server, verdict)),
                Some(bytes) => {
                    client.write_all(&bytes).await.expect("room");
                    (Ok(()), welcome(&mut server, verdict).await)
                }
            };
            (met, answered.expect("no I/O error"))
        })
    }

    #[test]
    fn those_of_one_version_meet() {
        assert_eq!(meet(Verdict::Welcome, None), (Ok(()), Some(Verdict::Welcome)));
        assert_eq!(meet(Verdict::Full, None).0.expect_err("full").kind, FaultKind::Busy);
        assert_eq!(meet(Verdict::Denied, None).0.expect_err("denied").kind, FaultKind::AccessDenied);
    }

    #[test]
    fn others_are_told_or_left() {
        assert_eq!(meet(Verdict::Welcome, Some(encode(WIRE_VERSION + 1))).1, Some(Verdict::OtherVersion));
        assert_eq!(meet(Verdict::Welcome, Some(*b"GET / HTTP")).1, None);
        assert_eq!(meet(Verdict::OtherVersion, None).0.expect_err("version").kind, FaultKind::Protocol);
    }
}
