//! A daemon over the host may be of another version than the program that needs it.

use crate::limits::{MAKE_WAY_TIME_MAX, POLL_INTERVAL};
use crate::sys;
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs_attach::CONTROL_VERSION;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Asks a daemon over the host to end, if nothing is undecided: what programs of every version know.
pub(super) const MAKE_WAY: Signal = Signal::SIGUSR1;
/// Where the version of the daemon stands.
const VERSION: &str = "version";

/// That of a program, and that of the messages that it understands. The later one is newer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    program: [u64; 3],
    messages: u64,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.program;
        write!(f, "{major}.{minor}.{patch} ({})", self.messages)
    }
}

impl Version {
    fn own() -> Option<Version> {
        Version::parse(&format!("{} {CONTROL_VERSION}", env!("CARGO_PKG_VERSION")))
    }

    fn parse(text: &str) -> Option<Version> {
        let (program, messages) = text.trim().split_once(' ')?;
        let mut numbers = program.split('.').map(|number| number.parse().ok());
        let mut next = || numbers.next().flatten();
        let program = [next()?, next()?, next()?];
        Some(Version { program, messages: messages.parse().ok()? })
    }
}

/// The version of this daemon, for programs that are to find it. Removed when this is dropped.
pub(super) struct Record(PathBuf);

impl Record {
    /// Written before anybody can connect.
    pub(super) fn in_state(state: &Path) -> io::Result<Record> {
        let (path, new) = (state.join(VERSION), state.join("version.new"));
        fs::write(&new, format!("{} {CONTROL_VERSION}\n", env!("CARGO_PKG_VERSION")))?;
        fs::rename(&new, &path)?;
        Ok(Record(path))
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

/// Makes sure that the daemon over this state, if there is one, is of this program's version: an older one ends, if nothing is undecided.
///
/// # Errors
/// It is newer, or something is undecided: `Busy`, and which it is.
pub(crate) fn make_way(state: &Path) -> Result<(), Fault> {
    let socket = state.join("socket");
    let Ok(stream) = UnixStream::connect(&socket) else { return Ok(()) };
    let Some(theirs) = recorded(state, &socket) else { return Ok(()) };
    let own = Version::own();
    if theirs == own {
        return Ok(());
    }
    let failed =
        |e: io::Error| Fault::new(FaultKind::Io, format!("look at the daemon behind {}: {e}", socket.display()));
    let pid = getsockopt(&stream, PeerCredentials).map_err(|errno| failed(errno.into()))?.pid();
    let process = match sys::pidfd_open(pid.cast_unsigned()) {
        Err(e) if e.raw_os_error() == Some(nix::libc::ESRCH) => return Ok(()),
        process => process.map_err(failed)?,
    };
    // Who is connected counts as somebody who works.
    drop(stream);
    let said = |version: Option<Version>| version.map_or_else(|| "unknown".to_owned(), |version| version.to_string());
    let who = format!("the daemon of this user over the host (process {pid}) is of version {}", said(theirs));
    if theirs.is_none() || theirs > own {
        let text = format!("{who}, this program of {}: use the programs that fit it", said(own));
        return Err(Fault::new(FaultKind::Busy, text));
    }
    if let Err(e) = sys::pidfd_signal(&process, MAKE_WAY as i32)
        && !sys::has_ended(&process)
    {
        return Err(failed(e));
    }
    let deadline = Instant::now() + MAKE_WAY_TIME_MAX;
    // Once it can't be found any more it ends, and whoever starts one waits for that.
    while fs::symlink_metadata(&socket).is_ok() && !sys::has_ended(&process) {
        if Instant::now() > deadline {
            let text = format!(
                "{who}, this program of {}, and something is undecided: decide it with the programs of that version, or end \
                 the daemon (`kill {pid}`), which keeps what is held and undoes what runs",
                said(own)
            );
            return Err(Fault::new(FaultKind::Busy, text));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The version that the daemon behind this socket has recorded, if it makes sense. Nothing if it is just ending: then its socket can't be
/// found any more before its record can't.
fn recorded(state: &Path, socket: &Path) -> Option<Option<Version>> {
    let read = || fs::read_to_string(state.join(VERSION)).ok();
    // One that has taken its place meanwhile has its record before its socket can be found.
    let text = read().or_else(|| fs::symlink_metadata(socket).is_ok().then(|| read().unwrap_or_default()));
    text.map(|text| Version::parse(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_numbers() {
        let parse = |text| Version::parse(text);
        assert!(parse("0.10.0 3\n") > parse("0.9.9 30"));
        assert!(parse("0.9.0 10") > parse("0.9.0 9"));
        assert!(parse("").is_none() && parse("0.9 1").is_none() && parse("0.9.0").is_none());
        assert!(Version::own().is_some());
    }
}
