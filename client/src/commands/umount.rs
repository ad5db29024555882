//! `mojavefs umount`

use super::host_fault;
use crate::control::ask;
use crate::job::find::Filesystem;
use crate::limits::{POLL_INTERVAL, STOP_TIME_MAX};
use crate::mount;
use clap::Args;
use mojavefs::error::{Fault, FaultKind};
use mojavefs::wire::control::{Answer, Ask};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

#[derive(Args)]
pub(super) struct Umount {
    /// Where the filesystem is mounted
    mountpoint: PathBuf,
    /// Unmount even if it is in use or its daemon is gone; jobs on it are undone
    #[arg(long)]
    force: bool,
}

impl Umount {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let point = std::path::absolute(&self.mountpoint).map_err(host_fault(self.mountpoint.display()))?;
        let found = mount::ours_at(&point).map_err(host_fault("read the mounts"))?;
        let Some(found) = found else {
            return Err(Fault::new(FaultKind::NotFound, format!("no MojaveFS is mounted on {}", point.display())));
        };
        let daemon = match mount::is_dead(&point) {
            true => None,
            false => daemon_of(&point),
        };
        if daemon.is_none() && !self.force {
            let text = format!("the daemon behind {} is gone; clear the mount with --force", point.display());
            return Err(Fault::new(FaultKind::Disconnected, text));
        }
        if self.force {
            mount::unmount(&point, true).map_err(host_fault(point.display()))?;
            mount::abort_connection(found.minor).map_err(host_fault("end the mount"))?;
        } else {
            mount::unmount(&point, false).map_err(|e| {
                let text =
                    format!("{}: {e}; something still uses it (see `fuser -vm`), or use --force", point.display());
                Fault::new(FaultKind::Busy, text)
            })?;
        }
        match daemon {
            Some(pid) => wait_gone(pid),
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

fn daemon_of(point: &Path) -> Option<u32> {
    let stream = Filesystem::find(Some(point)).ok()?.connect().ok()?;
    match ask(&stream, &Ask::Hello, None).ok()?.0 {
        Answer::Daemon { pid, .. } => Some(pid),
        _ => None,
    }
}

/// Once the daemon is gone everything is on disk and the store can be opened again.
fn wait_gone(pid: u32) -> Result<ExitCode, Fault> {
    let deadline = Instant::now() + STOP_TIME_MAX;
    while is_running(pid) {
        if Instant::now() > deadline {
            return Err(Fault::new(FaultKind::TimedOut, format!("unmounted, but the daemon {pid} does not end")));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(ExitCode::SUCCESS)
}

/// A zombie has ended; only its parent does not know yet.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}
