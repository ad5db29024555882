//! `mojavefs umount`

use super::{escaped, host_fault};
use crate::control::ask;
use crate::job::find::Filesystem;
use crate::job::namespace;
use crate::limits::{POLL_INTERVAL, STOP_TIME_MAX};
use crate::mount::{self, Health, MountInfo};
use crate::sys;
use clap::Args;
use mojavefs::protocol::control::{Answer, Ask};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::{Reply, SpecOp, SpecState};
use nix::unistd::geteuid;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long somebody may use a mount to look at it.
const LOOK_TIME_MAX: Duration = Duration::from_millis(500);

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
        let point = mount::resolve(&self.mountpoint).map_err(host_fault(self.mountpoint.display()))?;
        let found = mount::ours_at(&point).map_err(host_fault("read the mounts"))?;
        let Some(found) = found else {
            return Err(Fault::new(FaultKind::NotFound, format!("no MojaveFS is mounted on {}", point.display())));
        };
        let health = mount::health(&point);
        let daemon = match health {
            Health::Answers => daemon_of(&point)?,
            Health::Dead | Health::Hangs => None,
        };
        refuse_others(&found)?;
        if daemon.is_none() && !self.force {
            let (kind, how) = match health {
                Health::Hangs => (FaultKind::TimedOut, "hangs; take the mount away with --force"),
                _ => (FaultKind::Disconnected, "is gone; clear the mount with --force"),
            };
            return Err(Fault::new(kind, format!("the daemon behind {} {how}", point.display())));
        }
        let others = others_of(&found).map_err(host_fault("read the mounts"))?;
        if let Some(daemon) = &daemon
            && daemon.mountpoint != point
            && (!others.is_empty() || found.root != Path::new("/") && is_elsewhere(daemon.pid))
        {
            // The filesystem stays where it was mounted.
            unmount(&point, self.force)?;
            return Ok(ExitCode::SUCCESS);
        }
        let daemon = daemon.map(|daemon| daemon.pid);
        if let Some(pid) = daemon.filter(|pid| !self.force && is_elsewhere(*pid)) {
            let text = format!(
                "the daemon {pid} behind {} runs in another mount namespace; unmount it there (`nsenter -m -t {pid}`), or \
                 everywhere with --force",
                point.display()
            );
            return Err(Fault::new(FaultKind::Busy, text));
        }
        // One that can't be opened is gone already.
        let process = daemon.and_then(|pid| sys::pidfd_open(pid).ok());
        if self.force {
            mount::tear_down(&point).map_err(host_fault(point.display()))?;
            for other in others {
                // Nobody answers there any more; one that is hidden by another mount has to stay.
                drop(mount::unmount(&other.point, true));
            }
        } else {
            refuse_if_bound(&point, &others)?;
            refuse_if_running(&point)?;
            unmount(&point, false)?;
        }
        match daemon {
            Some(pid) => wait_gone(pid, process),
            None if health == Health::Hangs => {
                let text = "unmounted, but its daemon hangs and keeps the store until it goes on or is killed";
                Err(Fault::new(FaultKind::TimedOut, text))
            }
            None => Ok(ExitCode::SUCCESS),
        }
    }
}

/// Takes a mount away. Whoever looks who uses it (`fuser`, `lsof`) uses it for a moment, too, so one that is in use is tried again.
fn unmount(point: &Path, lazy: bool) -> Result<(), Fault> {
    let deadline = Instant::now() + LOOK_TIME_MAX;
    loop {
        match mount::unmount(point, lazy) {
            Err(e) if e.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => sleep(POLL_INTERVAL),
            Err(e) => {
                let hint = "something still uses it (see `fuser -vm`), or use --force";
                return Err(Fault::new(FaultKind::Busy, format!("{}: {e}; {hint}", point.display())));
            }
            Ok(()) => return Ok(()),
        }
    }
}

/// The other places where the same mount, or a part of it, is to be seen.
fn others_of(found: &MountInfo) -> std::io::Result<Vec<MountInfo>> {
    let is_other = |mount: &MountInfo| mount.kind == found.kind && mount.minor == found.minor && mount.id != found.id;
    Ok(mount::mounts()?.into_iter().filter(is_other).collect())
}

/// The daemon goes on for as long as its mount is to be seen anywhere.
fn refuse_if_bound(point: &Path, others: &[MountInfo]) -> Result<(), Fault> {
    let Some(other) = others.first() else { return Ok(()) };
    let text = format!(
        "{} is bound on {}, too: `umount {}` first, or take all of it away with --force",
        point.display(),
        other.point.display(),
        other.point.display()
    );
    Err(Fault::new(FaultKind::Busy, text))
}

/// A daemon that answers.
struct Daemon {
    pid: u32,
    /// Where it has mounted the filesystem.
    mountpoint: PathBuf,
}

/// The daemon behind the mount, if it answers. What a job sees there is no mount that could be taken away: the daemon's own is
/// outside.
fn daemon_of(point: &Path) -> Result<Option<Daemon>, Fault> {
    let answer = || {
        let filesystem = Filesystem::find(Some(point))?;
        let answer = ask(&filesystem.connect()?, &Ask::Hello, None)?.0;
        Ok::<_, Fault>((filesystem.view, answer))
    };
    match answer() {
        Ok((view, Answer::Daemon { trunk, .. })) if view != trunk => {
            let text = format!("{} shows a job's own view here; unmount it outside of the job", point.display());
            Err(Fault::new(FaultKind::Busy, text))
        }
        Ok((_, Answer::Daemon { pid, mountpoint, .. })) => {
            Ok(Some(Daemon { pid, mountpoint: PathBuf::from(OsString::from_vec(mountpoint)) }))
        }
        // It is there and has too much to do.
        Err(fault) if fault.kind == FaultKind::Busy => Err(fault),
        _ => Ok(None),
    }
}

/// A mount is its owner's and root's to take away.
fn refuse_others(found: &MountInfo) -> Result<(), Fault> {
    let me = geteuid();
    match found.owner.filter(|owner| !me.is_root() && *owner != me.as_raw()) {
        Some(owner) => {
            let text = format!(
                "the mount on {} belongs to user {owner}: only root or its owner may unmount it",
                found.point.display()
            );
            Err(Fault::new(FaultKind::AccessDenied, text))
        }
        None => Ok(()),
    }
}

/// Whether a process is known to be in another mount namespace: unmounting here leaves its mount alone.
fn is_elsewhere(pid: u32) -> bool {
    match (namespace::of(pid), namespace::of(std::process::id())) {
        (Ok(there), Ok(here)) => there != here,
        _ => false,
    }
}

/// A job that runs keeps the filesystem in use, even if it sees it through a mount of its own.
fn refuse_if_running(point: &Path) -> Result<(), Fault> {
    let stream = Filesystem::find(Some(point))?.connect()?;
    let Answer::Reply(Reply::Status(status)) = ask(&stream, &Ask::Speculation(SpecOp::Status), None)?.0 else {
        return Ok(());
    };
    let running: Vec<String> = status
        .iter()
        .filter(|status| status.state == SpecState::Running)
        .map(|status| format!("{} (`{}`)", status.id, escaped(&status.info.command)))
        .collect();
    match running.is_empty() {
        true => Ok(()),
        false => {
            let text = format!(
                "{}: jobs run on it: {}; let them end, or undo them with --force",
                point.display(),
                running.join(", ")
            );
            Err(Fault::new(FaultKind::Busy, text))
        }
    }
}

/// Once the daemon is gone, all of its threads, everything is on disk and the store can be opened again. Whether its parent
/// knows of its end does not matter.
fn wait_gone(pid: u32, process: Option<OwnedFd>) -> Result<ExitCode, Fault> {
    let deadline = Instant::now() + STOP_TIME_MAX;
    while process.as_ref().is_some_and(|process| !sys::has_ended(process)) {
        if Instant::now() > deadline {
            return Err(Fault::new(FaultKind::TimedOut, format!("unmounted, but the daemon {pid} does not end")));
        }
        sleep(POLL_INTERVAL);
    }
    Ok(ExitCode::SUCCESS)
}
