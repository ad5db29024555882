//! Starting this program again as a daemon.

use super::host_fault;
use crate::limits::START_TIME_MAX;
use crate::output::err;
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::process::{ChildStdout, Command, Stdio};
use std::time::Instant;

const READY: &str = "ready";
/// How much is read at once of what a daemon says, in bytes.
const PIECE_BYTES: usize = 4096;
/// Begins a line that the daemon has to tell before it is ready.
const NOTE: &str = "note: ";

/// Starts a daemon, which logs there, and waits until it is ready or has said why not. What it has to tell is told. `on_silence`: it was
/// ended since it did not say anything.
pub(super) fn launch(mut command: Command, log: File, on_silence: impl Fn()) -> Result<Result<(), String>, Fault> {
    // Each thread that answers a kernel has a buffer of 16 MiB. Left to itself the allocator keeps those of jobs that are
    // over; with these limits it gives them back.
    command.env("MALLOC_ARENA_MAX", "2").env("MALLOC_MMAP_THRESHOLD_", "4194304");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).current_dir("/");
    let mut child = command.spawn().map_err(host_fault("start the daemon"))?;
    let Some(stdout) = child.stdout.take() else {
        return Err(Fault::new(FaultKind::Io, "the daemon has no standard output"));
    };
    let mut said = Said { stdout, heard: Vec::new(), deadline: Instant::now() + START_TIME_MAX };
    let line = loop {
        match said.line().map_err(host_fault("hear the daemon"))? {
            Some(line) => match line.strip_prefix(NOTE) {
                Some(note) => err!("mojavefs: {}", note.trim_end()),
                None => break line,
            },
            None => {
                drop(child.kill().and_then(|()| child.wait()));
                on_silence();
                break format!("the daemon was not ready after {} s", START_TIME_MAX.as_secs());
            }
        }
    };
    // One that has started another in its place has ended.
    drop(child.try_wait());
    match line.trim() {
        READY => Ok(Ok(())),
        "" => Err(Fault::new(FaultKind::Io, "the daemon ended without a word; see its log")),
        why => Ok(Err(why.to_owned())),
    }
}

/// What a daemon says. It is read by no other thread: who has one enters no user namespace.
struct Said {
    stdout: ChildStdout,
    heard: Vec<u8>,
    deadline: Instant,
}

impl Said {
    /// The next line, empty at the end; nothing if none comes in time.
    fn line(&mut self) -> std::io::Result<Option<String>> {
        loop {
            if let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
            }
            let left = PollTimeout::try_from(self.deadline.saturating_duration_since(Instant::now()))
                .unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)], left) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let mut piece = [0; PIECE_BYTES];
            match self.stdout.read(&mut piece)? {
                0 => return Ok(Some(String::from_utf8_lossy(&std::mem::take(&mut self.heard)).into_owned())),
                length => self.heard.extend(&piece[..length]),
            }
        }
    }
}

fn say(line: &str) -> std::io::Result<()> {
    writeln!(std::io::stdout(), "{line}").and_then(|()| std::io::stdout().flush())
}

/// Tells whoever has launched this daemon.
pub(super) fn tell_launcher(note: &str) {
    drop(say(&format!("{NOTE}{note}")));
}

/// Tells it why nothing comes of it.
pub(super) fn fail_launcher(fault: &Fault) {
    drop(say(&fault.to_string().replace('\n', " ")));
    tracing::error!("{fault}");
}

/// Tells it that it can be used.
pub(super) fn release_launcher() -> std::io::Result<()> {
    say(READY)?;
    // Whoever waits for the end of the output is released.
    if let Ok(null) = File::options().write(true).open("/dev/null") {
        drop(crate::sys::dup_onto(std::os::fd::AsFd::as_fd(&null), 1, false));
    }
    Ok(())
}
