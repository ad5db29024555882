//! A view opened for `specrun` or a shell, for as long as its connection lasts.

use super::Daemon;
use super::listen::Caller;
use crate::fuse::{self, Kernel};
use crate::job::namespace::{self, MountNamespace};
use crate::mount::{self, MountOptions};
use crate::view::{Patient, View};
use mojavefs::error::{Fault, FaultKind};
use mojavefs::id::{SpecId, ViewId};
use mojavefs::wire::control::Start;
use mojavefs::wire::{Connection, ConnectionExt, JobInfo, OnRead, Request, ViewKind};
use nix::libc;
use nix::unistd::geteuid;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub(super) struct Lease {
    view: Arc<View>,
    spec: SpecId,
    kernel: Arc<Kernel>,
    /// The FUSE connection, if this process made the mount.
    minor: Option<u32>,
    /// Where the job runs, to find what is left of it.
    namespace: Option<MountNamespace>,
}

impl Lease {
    /// Opens the view, and its mount unless the caller made one; the mount is attached nowhere yet.
    pub(super) fn start(
        daemon: &Daemon,
        caller: Caller,
        start: Start,
        device: Option<OwnedFd>,
    ) -> Result<(Lease, Option<OwnedFd>), Fault> {
        let io = |what: &'static str| move |e: io::Error| Fault::new(FaultKind::Io, format!("{what}: {e}"));
        if let Some(device) = &device {
            check_device(caller, device)?;
        }
        let waits = matches!(start, Start::Job { on_read: OnRead::Wait, .. });
        let kind = match start {
            Start::Job { parent, command, on_read, own } => {
                let info = JobInfo { uid: caller.uid, pid: caller.pid, command };
                ViewKind::Job { parent, info, on_read, own }
            }
            Start::Inside { spec } => ViewKind::Inside { spec, uid: caller.uid },
        };
        let opened = daemon.connection.view(Request::OpenView(kind))?;
        let spec = opened.spec.unwrap_or(SpecId(0));
        let connection: Arc<dyn Connection> = match waits {
            true => Arc::new(Patient::new(daemon.connection.clone(), spec)),
            false => daemon.connection.clone(),
        };
        let view = Arc::new(View::new(connection, opened.view, Some(spec), &daemon.control()));
        let served = || -> io::Result<(Arc<Kernel>, Option<OwnedFd>)> {
            match device {
                Some(device) => Ok((fuse::serve(device, view.clone())?, None)),
                None => {
                    let privileged = geteuid().is_root();
                    let options = MountOptions { others: privileged, privileged };
                    let detached = mount::detached(daemon.source.as_bytes(), options)?;
                    Ok((fuse::serve(detached.device, view.clone())?, Some(detached.mount)))
                }
            }
        };
        let (kernel, mount) = match served() {
            Ok(served) => served,
            Err(error) => {
                daemon.connection.done(Request::CloseView(opened.view))?;
                return Err(io("make a mount for the job")(error));
            }
        };
        daemon.notices.add(&kernel);
        let minor = mount.as_ref().and_then(|mount| nix::sys::stat::fstat(mount.as_fd()).ok());
        let minor = minor.map(|stat| libc::minor(stat.st_dev));
        let namespace = namespace::of(caller.pid).ok();
        Ok((Lease { view, spec, kernel, minor, namespace }, mount))
    }

    pub(super) fn view(&self) -> ViewId {
        self.view.id()
    }

    pub(super) fn spec(&self) -> SpecId {
        self.spec
    }

    /// The caller goes in good order and has ended its processes itself.
    pub(super) fn leave(&mut self) {
        self.namespace = None;
    }

    /// The caller is gone: so are its processes and its mount, and with the view what was undecided.
    pub(super) fn end(self, daemon: &Daemon) {
        let here = namespace::of(std::process::id()).ok();
        if let Some(namespace) = self.namespace.filter(|there| here.is_some_and(|here| here != *there)) {
            namespace::kill_all_in(&namespace, &[]);
        }
        if let Some(Err(error)) = self.minor.map(mount::abort_connection) {
            tracing::error!("ending the mount of speculation {}: {error}", self.spec);
        }
        daemon.notices.remove(self.view.id());
        if let Err(fault) = daemon.connection.done(Request::CloseView(self.view.id())) {
            tracing::error!("closing the view of speculation {}: {fault}", self.spec);
        }
        let kernel = self.kernel;
        // Ends when the last process lets go of the mount.
        let wait = move || {
            if let Err(error) = kernel.join() {
                tracing::warn!("a job's mount: {error}");
            }
        };
        drop(std::thread::Builder::new().name("mojavefs-end".into()).spawn(wait));
    }
}

/// A mount that somebody else made is served for this process's own user and for root only: the user ids in its requests
/// are relative to a user namespace that can't be seen from here.
fn check_device(caller: Caller, device: &OwnedFd) -> Result<(), Fault> {
    let refused = |text: &str| Err(Fault::new(FaultKind::AccessDenied, text.to_owned()));
    if caller.uid != 0 && (geteuid().is_root() || caller.uid != geteuid().as_raw()) {
        return refused("a mount made by another user is not served");
    }
    match crate::sys::is_fuse_device(device.as_fd()) {
        Ok(true) => Ok(()),
        _ => refused("the descriptor that came along is not the FUSE device"),
    }
}
