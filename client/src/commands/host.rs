//! The daemon over the host's own filesystem: `mojavefs over-host`, which nobody types, and what starts it.

use super::launch::{fail_launcher, launch, release_launcher, tell_launcher};
use super::mount::{log_to, open_log};
use super::{Embedded, harmless, host_fault};
use crate::daemon;
use crate::job::find::Filesystem;
use crate::limits::{MEMORY_BYTES, POLL_INTERVAL, START_TIME_MAX};
use crate::mount;
use crate::transport::Transport;
use clap::{Args, ValueEnum};
use mojavefs::protocol::fault::{Fault, FaultKind};
use nix::unistd::{getegid, geteuid, getppid};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

/// The name of the program that has the daemon in it.
const PROGRAM: &str = "mojavefs";

#[derive(Args)]
pub(super) struct OverHost {
    /// What answers the kernel
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    transport: Transport,
    /// Not a child of whoever has started it, which may end what it has started: by this process, which ends then
    #[arg(long, value_name = "PID")]
    apart: Option<i32>,
}

impl OverHost {
    pub(super) fn run(&self, embedded: &dyn Embedded) -> Result<ExitCode, Fault> {
        let Some(launcher) = self.apart else {
            let me = std::env::current_exe().map_err(host_fault("find this program"))?;
            let transport =
                self.transport.to_possible_value().map_or_else(String::new, |name| name.get_name().to_owned());
            let pid = std::process::id().to_string();
            let apart = Command::new(me).args(["over-host", "--apart", &pid, "--transport", &transport]).spawn();
            apart.map_err(host_fault("start the daemon"))?;
            return Ok(ExitCode::SUCCESS);
        };
        let _ = nix::unistd::setsid();
        log_to(std::io::stderr);
        daemon::raise_descriptors();
        daemon::make_all_private();
        // Blocked before the first thread starts, also of the store's, so that only the one that waits for them gets them.
        daemon::signals_over_host().thread_block().map_err(|e| host_fault("block signals")(e.into()))?;
        let owner = (geteuid().as_raw(), getegid().as_raw());
        let open = |state: &Path| {
            let backend = embedded.open_over_host(state, MEMORY_BYTES, owner)?;
            backend.notes.iter().for_each(|note| tell_launcher(&harmless(note)));
            Ok(backend)
        };
        let ready = || wait_until_apart(launcher).and_then(|()| release_launcher());
        match daemon::over_host(open, self.transport, ready) {
            Ok(()) => Ok(ExitCode::SUCCESS),
            Err(fault) => {
                fail_launcher(&fault);
                Ok(ExitCode::FAILURE)
            }
        }
    }
}

/// Waits until this process is another one's child than the launcher's: whoever hears that it is ready takes in what loses its parent
/// from then on.
fn wait_until_apart(launcher: i32) -> io::Result<()> {
    let deadline = Instant::now() + START_TIME_MAX;
    while getppid().as_raw() == launcher {
        if Instant::now() > deadline {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("process {launcher}, which has started it, does not end"),
            ));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The host's own filesystem, of which these directories are meant; the daemon over it is started if there is none.
pub(super) fn at(dirs: &[PathBuf]) -> Result<Filesystem, Fault> {
    let resolved = dirs.iter().map(|dir| mount::resolve(dir).map_err(host_fault(dir.display())));
    let mut dirs = resolved.collect::<Result<Vec<_>, Fault>>()?;
    // What lies in another one goes with that.
    dirs.sort();
    dirs.dedup_by(|inner, outer| inner.starts_with(outer));
    let socket = daemon::socket_over_host().map_err(host_fault("what is undecided over the host"))?;
    let state = daemon::state_path().map_err(host_fault("what is undecided over the host"))?;
    daemon::make_way(&state)?;
    let deadline = Instant::now() + START_TIME_MAX;
    loop {
        match Filesystem::of_host(&dirs, &socket) {
            Err(fault) if fault.kind == FaultKind::Disconnected && Instant::now() < deadline => start()?,
            found => return found,
        }
    }
}

/// The same of one directory, if a daemon is there, or something that one left undecided.
pub(super) fn known_at(dir: &Path) -> Option<Result<Filesystem, Fault>> {
    let has_state = daemon::state_path().is_ok_and(|state| state.join("store").is_dir());
    has_state.then(|| at(&[dir.to_owned()]))
}

/// Refuses all of the host, over which no view can be put.
pub(super) fn refuse_all(filesystem: &Filesystem) -> Result<(), Fault> {
    match filesystem.host_dirs().any(|dir| dir == Path::new("/")) {
        false => Ok(()),
        true => {
            let text = "all of the host is too much for a job: go to a directory of it, or name some with --dir";
            Err(Fault::new(FaultKind::Unsupported, text))
        }
    }
}

/// Starts the daemon. One that is just starting, or ending, is waited for.
fn start() -> Result<(), Fault> {
    let log = daemon::runtime_dir().map_err(host_fault("the directory for logs"))?.join("daemon.log");
    let log = open_log(&log).map_err(host_fault(log.display()))?;
    let mut command = Command::new(program()?);
    command.arg("over-host");
    match launch(command, log, || {}) {
        Ok(Err(why)) if why.contains(daemon::RUNS_ALREADY) => {
            std::thread::sleep(POLL_INTERVAL);
            Ok(())
        }
        Ok(Err(why)) => Err(Fault::new(FaultKind::Io, format!("cannot stand for the host: {why}"))),
        Ok(Ok(())) => Ok(()),
        Err(fault) => Err(fault),
    }
}

/// The program that has the daemon in it: this one, or the one beside it.
fn program() -> Result<PathBuf, Fault> {
    let me = std::env::current_exe().map_err(host_fault("find this program"))?;
    Ok(me.with_file_name(PROGRAM))
}
