//! Starting this program again as a daemon.

use super::host_fault;
use crate::limits::START_TIME_MAX;
use crate::output::err;
use mojavefs::protocol::fault::{Fault, FaultKind};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Instant;

const READY: &str = "ready";
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
    let (sender, said) = channel();
    let hear = move || {
        let mut said = BufReader::new(stdout);
        loop {
            let mut line = String::new();
            drop(said.read_line(&mut line));
            let is_last = !line.starts_with(NOTE);
            if sender.send(line).is_err() || is_last {
                break;
            }
        }
    };
    mojavefs_threads::detached("mojavefs-hear", hear).map_err(host_fault("hear the daemon"))?;
    let deadline = Instant::now() + START_TIME_MAX;
    let next = || {
        let line = said.recv_timeout(deadline.saturating_duration_since(Instant::now()))?;
        let note = line.strip_prefix(NOTE).map(|note| err!("mojavefs: {}", note.trim_end()));
        Ok::<_, RecvTimeoutError>(note.is_none().then_some(line))
    };
    let line = std::iter::repeat_with(next).find_map(Result::transpose).and_then(Result::ok).unwrap_or_else(|| {
        drop(child.kill().and_then(|()| child.wait()));
        on_silence();
        format!("the daemon was not ready after {} s", START_TIME_MAX.as_secs())
    });
    // One that has started another in its place has ended.
    drop(child.try_wait());
    match line.trim() {
        READY => Ok(Ok(())),
        "" => Err(Fault::new(FaultKind::Io, "the daemon ended without a word; see its log")),
        why => Ok(Err(why.to_owned())),
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
